//! What the processors' threads, the bus's thread and the control socket share without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::synic::Registers;

/// Connections that can be signalled: relids, which connection ids are here.
const CONNECTIONS: u32 = 2048;

/// What the threads share.
#[derive(Debug)]
pub struct Shared {
    /// Of the processors' SynICs.
    pub registers: Registers,
    /// Connections that were signalled by a hypercall that came to us.
    pub signalled: Bits,
    /// Connections that there are.
    pub connections: Bits,
    /// Connections that messages can be posted to, zero for none: of guests before 5.0, and after.
    pub message_connections: [AtomicU32; 2],
    /// What happened how often.
    pub stats: Stats,
}

/// What happened how often, below the host.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each name is what is counted")]
pub struct Stats {
    /// Posted by the guest and not yet seen by the host; for who wants to know whether something is under way.
    pub posted: AtomicUsize,
    /// Messages that wait for a slot; a gauge, likewise.
    pub waiting: AtomicUsize,
    pub messages: AtomicU64,
    pub interrupts: AtomicU64,
    pub flags_found_set: AtomicU64,
    /// Slots that were free without the guest having said so.
    pub slots_found: AtomicU64,
    pub calls_refused: AtomicU64,
    pub posts_refused: AtomicU64,
    pub signals_by_hypercall: AtomicU64,
    pub signals_by_event: AtomicU64,
    pub signals_refused: AtomicU64,
    pub lost: AtomicU64,
}

impl Stats {
    /// By name.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64); 10] {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("synic_messages", load(&self.messages)),
            ("synic_interrupts", load(&self.interrupts)),
            ("synic_flags_found_set", load(&self.flags_found_set)),
            ("synic_slots_found", load(&self.slots_found)),
            ("synic_lost", load(&self.lost)),
            ("calls_refused", load(&self.calls_refused)),
            ("posts_refused", load(&self.posts_refused)),
            ("signals_by_hypercall", load(&self.signals_by_hypercall)),
            ("signals_by_event", load(&self.signals_by_event)),
            ("signals_refused", load(&self.signals_refused)),
        ]
    }

    /// Whether nothing is on its way between guest and host.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.posted.load(Ordering::SeqCst) == 0 && self.waiting.load(Ordering::SeqCst) == 0
    }
}

impl Shared {
    /// Of a guest with that many processors, with everything off.
    #[must_use]
    pub fn new(processors: u32) -> Self {
        Self {
            registers: Registers::new(processors),
            signalled: Bits::new(),
            connections: Bits::new(),
            message_connections: [AtomicU32::new(0), AtomicU32::new(0)],
            stats: Stats::default(),
        }
    }
}

impl Shared {
    /// Forgets what a guest that is no more has set up and left under way.
    pub(crate) fn forget(&self) {
        self.registers.reset();
        self.signalled.take(|_| {});
        self.connections.take(|_| {});
        self.stats.waiting.store(0, Ordering::SeqCst);
    }
}

/// A set of connection ids.
#[derive(Debug)]
pub struct Bits(Vec<AtomicU64>);

impl Bits {
    fn new() -> Self {
        Self((0..CONNECTIONS / 64).map(|_| AtomicU64::new(0)).collect())
    }

    fn word(&self, number: u32) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(number / 64).ok()?)
    }

    /// Puts a number in; whether there is room for such a number.
    pub fn insert(&self, number: u32) -> bool {
        self.word(number).map(|word| word.fetch_or(1 << (number % 64), Ordering::SeqCst)).is_some()
    }

    /// Takes a number out.
    pub fn remove(&self, number: u32) {
        if let Some(word) = self.word(number) {
            word.fetch_and(!(1 << (number % 64)), Ordering::SeqCst);
        }
    }

    /// Whether a number is there.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        self.word(number).is_some_and(|word| word.load(Ordering::SeqCst) & (1 << (number % 64)) != 0)
    }

    /// Takes all numbers out.
    pub fn take(&self, mut each: impl FnMut(u32)) {
        for (word, first) in self.0.iter().zip((0..).step_by(64)) {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::SeqCst);
            while bits != 0 {
                each(first + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }
}
