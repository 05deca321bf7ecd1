//! Revocation by fault. When the kernel takes a ring away it first drops our page-table entries, so the next
//! touch raises SIGBUS. The handler here puts private zero pages over the whole mapping and lets the access
//! go on: no thread dies, none reads freed kernel memory, however late user space hears of the removal.
//! `unsafe`: a signal handler, and one fixed-address map call over a range that its owner registered.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Ranges that can be guarded at once: one for each open channel of the largest bus, and its pages beside.
const SLOTS_AT_MOST: usize = 4096;

/// How often a handler looks again while another thread changes the table (a few stores) before it gives up.
const LOOKS_AT_MOST: usize = 1 << 20;

/// One guarded range; `bytes` is 0 where the slot is free.
struct Slot {
    start: AtomicUsize,
    bytes: AtomicUsize,
    faulted: AtomicBool,
}

static SLOTS: [Slot; SLOTS_AT_MOST] = [const {
    Slot { start: AtomicUsize::new(0), bytes: AtomicUsize::new(0), faulted: AtomicBool::new(false) }
}; SLOTS_AT_MOST];

/// Slots at and past this index were never used: bounds the handler's walk.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Odd while the table changes. The handler can't take a lock, so it reads the table between two equal even values.
static SEQUENCE: AtomicUsize = AtomicUsize::new(0);

/// Serialises changes of the table. Nothing inside can fault: it touches the statics above only.
static CHANGE: Mutex<()> = Mutex::new(());

/// What SIGBUS did before we came; set before our handler is.
static FORMER: OnceLock<libc::sigaction> = OnceLock::new();

/// Keeps a range guarded. Drop it before the range is unmapped.
#[derive(Debug)]
pub(crate) struct FaultGuard {
    slot: &'static Slot,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Slot").field("bytes", &self.bytes).field("faulted", &self.faulted).finish()
    }
}

/// Guards `bytes` bytes from `start`: a SIGBUS in there replaces all of them by private zero pages.
///
/// The first call arms the process's SIGBUS handler, which passes every other fault on to the handler that was
/// there. A program that installs its own SIGBUS handler later has to pass faults on to this one in turn.
///
/// # Errors
/// The handler can't be installed, or [`SLOTS_AT_MOST`] ranges are guarded already.
pub(crate) fn guard(start: NonNull<u8>, bytes: usize) -> io::Result<FaultGuard> {
    arm()?;
    let _held = CHANGE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((index, slot)) = SLOTS.iter().enumerate().find(|(_, slot)| slot.bytes.load(Ordering::Relaxed) == 0) else {
        return Err(io::Error::other(format!("more than {SLOTS_AT_MOST} rings are mapped")));
    };
    slot.faulted.store(false, Ordering::Relaxed);
    change(|| {
        slot.start.store(start.as_ptr().addr(), Ordering::Relaxed);
        slot.bytes.store(bytes, Ordering::Relaxed);
        USED.fetch_max(index + 1, Ordering::Relaxed);
    });
    Ok(FaultGuard { slot })
}

impl FaultGuard {
    /// A fault has replaced the range: the kernel took its memory back.
    pub(crate) fn faulted(&self) -> bool {
        self.slot.faulted.load(Ordering::Acquire)
    }
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        let _held = CHANGE.lock().unwrap_or_else(PoisonError::into_inner);
        change(|| self.slot.bytes.store(0, Ordering::Relaxed));
    }
}

/// Runs a change of the table between an odd and an even sequence number. The caller holds [`CHANGE`].
fn change(stores: impl FnOnce()) {
    let even = SEQUENCE.load(Ordering::Relaxed);
    SEQUENCE.store(even.wrapping_add(1), Ordering::Relaxed);
    // A handler that sees one of the stores below must see the odd number above: pairs with its acquire fence.
    fence(Ordering::Release);
    stores();
    SEQUENCE.store(even.wrapping_add(2), Ordering::Release);
}

/// The guarded range that holds `address`. Safe in a signal handler: loads only, and an end.
fn find(address: usize) -> Option<(&'static Slot, usize, usize)> {
    for _ in 0..LOOKS_AT_MOST {
        let before = SEQUENCE.load(Ordering::Acquire);
        if before.is_multiple_of(2) {
            let used = USED.load(Ordering::Relaxed);
            let found = SLOTS.iter().take(used).find_map(|slot| {
                let (start, bytes) = (slot.start.load(Ordering::Relaxed), slot.bytes.load(Ordering::Relaxed));
                (address.wrapping_sub(start) < bytes).then_some((slot, start, bytes))
            });
            fence(Ordering::Acquire);
            if SEQUENCE.load(Ordering::Relaxed) == before {
                return found;
            }
        }
        std::hint::spin_loop();
    }
    None
}

/// Installs the handler once.
fn arm() -> io::Result<()> {
    static ARMING: Mutex<bool> = Mutex::new(false);
    let mut armed = ARMING.lock().unwrap_or_else(PoisonError::into_inner);
    if *armed {
        return Ok(());
    }
    // SAFETY: an all-zero `sigaction` is a valid value of that plain C struct (default action, empty mask).
    let mut former: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals or null; reading the present action changes nothing.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut former) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let _ = FORMER.set(former);
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    let mut action = former;
    action.sa_sigaction = handler as libc::sighandler_t;
    // On the alternate stack, where the runtime's own handler for stack overflow wants to run too.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `action` is a full `sigaction` whose handler has the three-argument form that SA_SIGINFO asks for.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    *armed = true;
    Ok(())
}

/// Our faults are absorbed, all others go where they went before.
extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a siginfo that is valid while the handler runs.
    let code = unsafe { (*info).si_code };
    // SAFETY: as above; for a fault (positive code) the kernel fills in the address.
    let address = unsafe { (*info).si_addr() }.addr();
    if code > 0 && absorb(address) {
        return;
    }
    pass_on(signal, info, context);
}

/// Puts zero pages over the guarded range that holds `address`.
fn absorb(address: usize) -> bool {
    let Some((slot, start, bytes)) = find(address) else { return false };
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: the range belongs to a mapping whose owner registered it for just this. It is still mapped: the
    // faulting thread is in the middle of an access through that owner, which unregisters before it unmaps. The
    // other writer of the old pages (host, kernel) has no claim on the new ones. Other threads of this process
    // see old or new pages, never a hole: a fixed map call replaces the range in one step. Only a system call is
    // made, so it may run in a signal handler.
    let replaced = unsafe {
        mmap_anonymous(ptr::with_exposed_provenance_mut(start), bytes, ProtFlags::READ | ProtFlags::WRITE, flags)
    };
    if replaced.is_ok() {
        slot.faulted.store(true, Ordering::Release);
    }
    replaced.is_ok()
}

/// Hands a fault that is not ours to the handler that was there, or lets it kill as it would have.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let former = FORMER.get().map_or(libc::SIG_DFL, |action| action.sa_sigaction);
    if former == libc::SIG_DFL || former == libc::SIG_IGN {
        // SAFETY: back to the default action; on return the access faults again and the kernel does the rest.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    let takes_info = FORMER.get().is_some_and(|action| action.sa_flags & libc::SA_SIGINFO != 0);
    if takes_info {
        // SAFETY: with SA_SIGINFO the former action is a three-argument handler, and these are its arguments.
        let call: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            unsafe { std::mem::transmute(former) };
        call(signal, info, context);
    } else {
        // SAFETY: without SA_SIGINFO the former action is a one-argument handler.
        let call: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(former) };
        call(signal);
    }
}

#[cfg(test)]
mod tests;
