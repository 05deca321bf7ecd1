//! A channel whose packets are handed to a handler: masks, signals, ends.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vmbus::memory::Ring;
use vmbus_channels::dispatch::{Attention, Bell, Ending, Handler, Progress, Serve, Served};
use vmbus_channels::{IncomingPacket, OutgoingPacket};
use vmbus_ringbuf::{ControlField, Memory, WriteError, Writer};

use crate::link::{ring, ring_and_window};

/// A line that counts.
#[derive(Clone, Default)]
pub(crate) struct CountingLine {
    pub(crate) signals: Arc<AtomicU32>,
    pub(crate) rescinded: Arc<AtomicBool>,
    /// Rescinded, and nobody has noticed yet.
    pub(crate) gone: Arc<AtomicBool>,
    /// A signal opens all masks, as the kernel's does.
    pub(crate) unmasks: Option<Arc<Ring>>,
}

impl Bell for CountingLine {
    fn signal(&self) -> bool {
        self.signals.fetch_add(1, Ordering::SeqCst);
        if let Some(ring) = &self.unmasks {
            ring.store(ControlField::InterruptMask, 0);
        }
        !self.is_rescinded()
    }

    fn unmasks(&self) -> bool {
        self.unmasks.is_some()
    }

    fn is_rescinded(&self) -> bool {
        self.rescinded.load(Ordering::SeqCst)
    }

    fn is_gone(&self) -> bool {
        self.is_rescinded() || self.gone.load(Ordering::SeqCst)
    }
}

/// Writes down what it gets.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Logged>>);

/// Packets, batches, the end.
type Logged = (Vec<u64>, u32, Option<Ending>);

impl Handler for Log {
    fn packet(&mut self, packet: &IncomingPacket<'_>) {
        self.0.lock().unwrap().0.push(packet.transaction_id());
    }

    fn batch(&mut self) {
        self.0.lock().unwrap().1 += 1;
    }

    fn ended(&mut self, why: Ending) {
        assert_eq!(self.0.lock().unwrap().2.replace(why), None, "told twice");
    }
}

impl Log {
    fn packets(&self) -> Vec<u64> {
        self.0.lock().unwrap().0.clone()
    }
}

fn send(writer: &mut Writer<Ring>, id: u64) -> bool {
    writer.try_write(&OutgoingPacket::in_band(id), &[]).unwrap().is_needed()
}

#[test]
fn masked_while_ready_and_unmasked_when_drained() {
    let (host, guest) = ring();
    let mut writer = Writer::new(host).unwrap();
    let log = Log::default();
    let mut served = Served::new(guest, CountingLine::default(), log.clone()).unwrap();
    assert!(send(&mut writer, 1), "unmasked and empty: the host interrupts");
    assert_eq!(served.event(), Attention::Ready);
    assert!(!send(&mut writer, 2), "masked from the event on");
    assert_eq!(served.serve(1), Progress::More(1));
    assert!(!send(&mut writer, 3), "masked while it is ready");
    assert_eq!(served.serve(9), Progress::Drained(2));
    assert_eq!(log.packets(), [1, 2, 3]);
    assert_eq!(log.0.lock().unwrap().1, 2, "two batches");
    assert!(send(&mut writer, 4), "unmasked when drained");
}

/// Red when `serve` believes an `unmask` that found something.
#[test]
fn what_comes_while_it_unmasks_is_seen() {
    struct Late(Log, Writer<Ring>, u64);
    impl Handler for Late {
        fn packet(&mut self, packet: &IncomingPacket<'_>) {
            self.0.packet(packet);
        }
        fn batch(&mut self) {
            // Behind the last look of the batch, before the mask opens: no signal is due.
            if self.2 != 0 {
                assert!(!send(&mut self.1, self.2));
                self.2 -= 1;
            }
        }
    }
    let (host, guest) = ring();
    let mut writer = Writer::new(host).unwrap();
    send(&mut writer, 9);
    let log = Log::default();
    let mut served = Served::new(guest, CountingLine::default(), Late(log.clone(), writer, 1)).unwrap();
    assert_eq!(served.event(), Attention::Ready);
    assert_eq!(served.serve(9), Progress::More(1));
    assert_eq!(served.serve(9), Progress::Drained(1));
    assert_eq!(log.packets(), [9, 1]);
}

/// Fills the ring, until the host waits for room.
fn block(writer: &mut Writer<Ring>) {
    let needed = loop {
        match writer.try_write(&OutgoingPacket::in_band(2), &[&[0; 200]]) {
            Ok(_) => {}
            Err(WriteError::Full { needed, .. }) => break needed,
            Err(other) => unreachable!("{other}"),
        }
    };
    assert!(!writer.request_space(needed).unwrap());
}

/// Red without the signal in `batch`; and a host that is not blocked is not disturbed.
#[test]
fn a_blocked_host_is_signalled_once() {
    let (host, guest) = ring();
    let mut writer = Writer::new(host).unwrap();
    let line = CountingLine::default();
    let mut served = Served::new(guest, line.clone(), |_: &IncomingPacket<'_>| {}).unwrap();
    send(&mut writer, 1);
    served.event();
    served.serve(9);
    assert_eq!(line.signals.load(Ordering::SeqCst), 0);
    block(&mut writer);
    served.event();
    assert!(matches!(served.serve(1), Progress::More(1)));
    assert_eq!(line.signals.load(Ordering::SeqCst), 1, "room for what it waits for");
    while let Progress::More(_) = served.serve(9) {}
    assert_eq!(line.signals.load(Ordering::SeqCst), 1);
}

/// Red when the mask is not closed again behind a signal that opens it.
#[test]
fn a_signal_that_unmasks_is_masked_again() {
    let [host, guest, window] = ring_and_window();
    let window = Arc::new(window);
    let mut writer = Writer::new(host).unwrap();
    let line = CountingLine { unmasks: Some(Arc::clone(&window)), ..CountingLine::default() };
    let mut served = Served::new(guest, line, |_: &IncomingPacket<'_>| {}).unwrap();
    block(&mut writer);
    served.event();
    assert_eq!(served.serve(1), Progress::More(1));
    assert_eq!(window.load(ControlField::InterruptMask), 1);
}

#[test]
fn nonsense_in_the_ring_ends_it() {
    let (host, guest) = ring();
    let log = Log::default();
    let mut served = Served::new(guest, CountingLine::default(), log.clone()).unwrap();
    host.store(ControlField::WriteIndex, 12);
    served.event();
    let Progress::Ended(Ending::Corrupt(corrupt)) = served.serve(9) else { panic!("not found") };
    served.ended(Some(Ending::Corrupt(corrupt)));
    assert_eq!(log.0.lock().unwrap().2, Some(Ending::Corrupt(corrupt)));
}

/// What a rescind leaves in the ring may look like anything: it is nobody's packet, and not the host's sin. Red without
/// the looks at the line in `serve` or `batch`.
#[test]
fn a_rescind_comes_before_what_is_in_the_ring() {
    let (host, guest) = ring();
    let mut writer = Writer::new(host).unwrap();
    let (log, line) = (Log::default(), CountingLine::default());
    let mut served = Served::new(guest, line.clone(), log.clone()).unwrap();
    send(&mut writer, 1);
    line.rescinded.store(true, Ordering::SeqCst);
    served.event();
    assert_eq!(served.serve(9), Progress::Ended(Ending::Rescinded));
    served.ended(None);
    assert_eq!(log.0.lock().unwrap().2, Some(Ending::Rescinded), "it finds out by itself");
    assert!(log.packets().is_empty());
}

/// Red when nonsense is taken for the host's without asking whether the channel is still there.
#[test]
fn nonsense_in_the_ring_of_a_channel_that_is_gone_is_a_rescind() {
    let (host, guest) = ring();
    let line = CountingLine::default();
    let mut served = Served::new(guest, line.clone(), Log::default()).unwrap();
    host.store(ControlField::WriteIndex, 12);
    line.gone.store(true, Ordering::SeqCst);
    served.event();
    assert_eq!(served.serve(9), Progress::Ended(Ending::Rescinded));
}
