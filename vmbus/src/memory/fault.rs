//! Bus errors inside our mappings: a fault there means that the kernel took the memory away, and becomes a revocation.
//!
//! The kernel unmaps a sysfs `ring` file from every process when the device goes, before it frees the pages. That is
//! the safe order, but the next access raises SIGBUS, which kills a process that does not handle it. The handler here
//! does what [`Mapping::revoke`](super::Mapping::revoke) does and lets the instruction run again: it reads zeroes.

use core::ffi::{c_int, c_void};
use core::mem::{MaybeUninit, transmute};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

const SLOTS: usize = 64;

/// One registered address range. Written under [`CLAIM`], read by the signal handler without any lock.
struct Slot {
    /// Odd while `start` and `bytes` change (a sequence lock: the handler trusts them between two equal even values).
    sequence: AtomicUsize,
    /// First address; zero when the slot is free.
    start: AtomicUsize,
    bytes: AtomicUsize,
    /// Whoever finds zeroes where something was finds this set: it is set before the pages are replaced.
    begun: AtomicBool,
    /// They are.
    done: AtomicBool,
}

/// Slots come in groups that are never freed, so that the handler can walk them at any time. They are used again, so
/// their number is bounded by the largest number of mappings that ever lived at once.
struct Group {
    slots: [Slot; SLOTS],
    next: OnceLock<Box<Group>>,
}

impl Group {
    const fn new() -> Self {
        Self { slots: [const { Slot::free() }; SLOTS], next: OnceLock::new() }
    }
}

static GROUPS: Group = Group::new();
static CLAIM: Mutex<()> = Mutex::new(());
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
static ANSWERED: AtomicUsize = AtomicUsize::new(0);
static INSTALLED: OnceLock<Result<(), Errno>> = OnceLock::new();

#[cfg(test)]
std::thread_local! {
    /// Called on this thread between the replacement of pages and the return.
    pub(super) static REPLACED: std::cell::RefCell<Option<Box<dyn Fn()>>> = const { std::cell::RefCell::new(None) };
}

/// How many bus errors this process has survived because they were inside a [`Mapping`](super::Mapping). A mapping can
/// count more than one: threads may run into the missing pages at the same time.
#[must_use]
pub fn bus_errors_answered() -> usize {
    ANSWERED.load(Ordering::Relaxed)
}

/// A range of addresses in which a bus error is answered. Dropping it ends that; unmap the range after the drop.
pub(super) struct Registration {
    slot: &'static Slot,
}

impl Registration {
    /// Registers `bytes` bytes at `start`, which must be mapped and owned by the caller until the drop.
    ///
    /// # Errors
    /// When the handler can't be installed.
    pub(super) fn new(start: usize, bytes: usize) -> Result<Self, Errno> {
        (*INSTALLED.get_or_init(install))?;
        let _claim = CLAIM.lock().unwrap_or_else(PoisonError::into_inner);
        let mut group = &GROUPS;
        loop {
            for slot in &group.slots {
                if slot.start.load(Ordering::Relaxed) == 0 {
                    slot.change(start, bytes);
                    return Ok(Self { slot });
                }
            }
            group = group.next.get_or_init(|| Box::new(Group::new()));
        }
    }

    /// Whether the range was replaced, or is about to be, by [`Registration::revoke`] or by a fault.
    pub(super) fn is_revoked(&self) -> bool {
        // What the caller has read, it has read before: the page it came from was there behind the flag, if it was a new one
        // (replacing it is a system call that interrupts every processor that may have the old one).
        fence(Ordering::Acquire);
        self.slot.begun.load(Ordering::Acquire)
    }

    /// Replaces the whole range by private pages of zeroes, once.
    pub(super) fn revoke(&self) -> Result<(), Errno> {
        // Not the other flag: somebody may just be about to.
        if self.slot.done.load(Ordering::Acquire) {
            return Ok(());
        }
        self.slot.begun.store(true, Ordering::SeqCst);
        // These two don't change while the registration lives.
        let (start, bytes) = (self.slot.start.load(Ordering::Relaxed), self.slot.bytes.load(Ordering::Relaxed));
        // SAFETY: the registration's owner holds this range mapped until it drops the registration, which `&self`
        // excludes, so nobody else's memory is replaced.
        unsafe { replace(start, bytes) }?;
        #[cfg(test)]
        REPLACED.with_borrow(|look| look.as_ref().map_or((), |look| look()));
        self.slot.done.store(true, Ordering::Release);
        Ok(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _claim = CLAIM.lock().unwrap_or_else(PoisonError::into_inner);
        self.slot.change(0, 0);
    }
}

impl Slot {
    const fn free() -> Self {
        Self {
            sequence: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            begun: AtomicBool::new(false),
            done: AtomicBool::new(false),
        }
    }

    /// Changes the range; the caller holds [`CLAIM`].
    fn change(&self, start: usize, bytes: usize) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // Pairs with the acquire fence of `contains`: who sees a new start or length sees the odd number too.
        fence(Ordering::Release);
        self.begun.store(false, Ordering::Relaxed);
        self.done.store(false, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.start.store(start, Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// The slot's range if it holds `address` and did not change meanwhile. A range that changes meanwhile can't be
    /// the one that the faulting thread is using, because that thread keeps its mapping alive.
    fn containing(&self, address: usize) -> Option<(usize, usize)> {
        let before = self.sequence.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let stable = before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before;
        (stable && start != 0 && address.wrapping_sub(start) < bytes).then_some((start, bytes))
    }
}

/// Maps private zeroes over a range in one call, which other threads see as a single step.
///
/// # Safety
/// The range must be mapped, page-aligned, and owned by whoever asks for this.
unsafe fn replace(start: usize, bytes: usize) -> Result<(), Errno> {
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    let at = ptr::with_exposed_provenance_mut::<c_void>(start);
    // SAFETY: the caller owns the range. Pointers into it stay valid (same addresses, same rights); who else wrote
    // the old pages (host, kernel) can't reach the new ones, which belong to this process alone.
    unsafe { mmap_anonymous(at, bytes, ProtFlags::READ | ProtFlags::WRITE, flags) }?;
    Ok(())
}

/// Answers a fault at `address`: true when it was inside a registered range that now reads zeroes.
fn answer(address: usize) -> bool {
    let mut group = Some(&GROUPS);
    while let Some(current) = group {
        for slot in &current.slots {
            if let Some((start, bytes)) = slot.containing(address) {
                slot.begun.store(true, Ordering::SeqCst);
                // SAFETY: the thread that faulted is using this mapping, so its owner lives until we return.
                let replaced = unsafe { replace(start, bytes) }.is_ok();
                slot.done.fetch_or(replaced, Ordering::AcqRel);
                ANSWERED.fetch_add(usize::from(replaced), Ordering::Relaxed);
                return replaced;
            }
        }
        group = current.next.get().map(|next| &**next);
    }
    false
}

fn install() -> Result<(), Errno> {
    let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a query with a valid place for the answer; nothing is changed.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) } != 0 {
        return Err(Errno::INVAL);
    }
    // SAFETY: all-zero bytes are a valid `sigaction`, and the call above succeeded.
    let previous = unsafe { previous.assume_init() };
    let _ = PREVIOUS.set(previous);
    // SAFETY: all-zero bytes are a valid `sigaction`: no flags, empty mask, default action.
    let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for and does only what a signal handler may do:
    // atomic loads and stores, and system calls made directly (no errno is touched by rustix).
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } != 0 {
        return Err(Errno::INVAL);
    }
    Ok(())
}

extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo for the time of the call; nobody else has it.
    let info_read = unsafe { &*info };
    // Positive codes come from the kernel; only those carry an address.
    if info_read.si_code > 0 {
        // SAFETY: a SIGBUS that the kernel raised carries an address.
        let address = unsafe { info_read.si_addr() };
        if answer(address.addr()) {
            return;
        }
    }
    let Some(previous) = PREVIOUS.get() else { return fall_back() };
    match previous.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => fall_back(),
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the kernel gave us this value as the handler that was installed with SA_SIGINFO.
            let handler =
                unsafe { transmute::<usize, extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: the kernel gave us this value as the handler that was installed without SA_SIGINFO.
            let handler = unsafe { transmute::<usize, extern "C" fn(c_int)>(handler) };
            handler(signal);
        }
    }
}

/// Not ours, and nobody was there before us: back to the default action, which the repeated fault then takes.
fn fall_back() {
    // SAFETY: all-zero bytes are a valid `sigaction`: the default action.
    let action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    // SAFETY: a valid action, and sigaction(2) may be called in a signal handler.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) };
}
