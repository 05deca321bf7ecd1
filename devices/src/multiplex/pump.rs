//! How streams share a link: each that has something to say waits its turn, and says one frame in it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmbus_channels::group::{Carried, Held, Link};
use vmbus_channels::{Dispatched, Error, OutgoingPacket, Probed};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::flow::Flow;
use super::streams::Streams;
use super::wire::{Header, Kind};

/// A stream's handle.
pub(super) type Share = Held<Carried<Streams>>;
/// A link's.
pub(super) type Lane = Link<Carried<Streams>>;

/// What is kept for a link.
#[derive(Debug, Default)]
pub(super) struct LinkState {
    /// Streams that have something to say, each at most once.
    ready: Mutex<VecDeque<Share>>,
    /// The host's last question that is not answered. One answer is enough for all before it.
    asked: Mutex<Option<u64>>,
    /// A question of ours is to be sent.
    asks: AtomicBool,
    /// The host was asked for room.
    armed: AtomicBool,
    /// Bytes of the packet that is looked at. One thread does that.
    pub(super) scratch: Mutex<Vec<u8>>,
}

/// What a connection carries.
#[derive(Debug)]
pub(super) struct Body {
    flow: Mutex<Flow>,
    /// On the ready list of the link that it came to by so many moves.
    queued: Mutex<Option<u32>>,
}

impl Body {
    pub(super) fn new(flow: Flow) -> Self {
        Self { flow: Mutex::new(flow), queued: Mutex::new(None) }
    }

    pub(super) fn flow(&self) -> MutexGuard<'_, Flow> {
        lock(&self.flow)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a turn ended.
enum Turn {
    /// Said what there was, or one frame of more.
    Said { more: bool },
    /// There is no room, and the host was asked for some: it keeps its turn.
    Stuck,
    /// Nobody can say anything now. If it has more to say, it has a place.
    Stop,
}

/// A stream has something to say: it takes its place on the link that it is on, which is returned.
pub(super) fn enqueue(share: &Share) -> Option<Lane> {
    let placed = share.place().ok()?;
    let new = lock(&share.queued).replace(placed.moves) != Some(placed.moves);
    if new {
        lock(&placed.link.state().ready).push_back(share.clone());
    }
    Some(placed.link)
}

/// A stream has something to say, and says it as soon as it is its turn: in this call, unless somebody else is at it, or
/// there is no room.
pub(super) fn say(share: &Share) {
    if let Some(link) = enqueue(share) {
        pump(&link);
    }
}

/// Sends what there is to send on a link, as far as there is room. Waits for nobody. It comes to an end: no stream may say
/// more than its limit, and new limits come to the dispatcher, which is here or can wait.
pub(super) fn pump(link: &Lane) {
    link.drive(|sender| {
        if !answer(link, sender) {
            return;
        }
        loop {
            let Some(share) = lock(&link.state().ready).pop_front() else { return };
            match turn(link, sender, &share) {
                Turn::Said { more: true } => lock(&link.state().ready).push_back(share),
                Turn::Said { more: false } => {}
                Turn::Stuck => {
                    lock(&link.state().ready).push_front(share);
                    return;
                }
                Turn::Stop => return,
            }
        }
    });
}

/// One stream's turn.
fn turn(link: &Lane, sender: &mut Dispatched, share: &Share) -> Turn {
    // On another link by now, it has its place there; or it is over.
    let Some(placed) = share.place().ok().filter(|placed| placed.link.is(link)) else {
        return Turn::Said { more: false };
    };
    // Before the look at the flow: whoever has something to say from here on takes a place of its own.
    {
        let mut queued = lock(&share.queued);
        if *queued == Some(placed.moves) {
            *queued = None;
        }
    }
    let mut flow = share.flow();
    let frame = flow.on_link(placed.moves).then(|| flow.next()).flatten();
    let Some(frame) = frame else { return Turn::Said { more: false } };
    let (first, second) = flow.bytes(&frame);
    let outcome = send(link, sender, &[frame.header.as_bytes(), first, second]);
    let (more, heard) = match outcome {
        Ok(true) => {
            let heard = flow.sent(&frame);
            (flow.next().is_some(), heard.wake)
        }
        Ok(false) => (true, false),
        Err(()) => return Turn::Stop,
    };
    drop(flow);
    if heard {
        share.wake();
    }
    let stuck = matches!(outcome, Ok(false));
    let more = more && lock(&share.queued).replace(placed.moves) != Some(placed.moves);
    match (stuck, more) {
        (true, true) => Turn::Stuck,
        // It has taken another place meanwhile: that one will do.
        (true, false) => Turn::Stop,
        (false, more) => Turn::Said { more },
    }
}

/// Sends a frame. `false`: there is no room; the link's [room](vmbus_channels::Handler::room) comes.
fn send(link: &Lane, sender: &mut Dispatched, parts: &[&[u8]]) -> Result<bool, ()> {
    loop {
        match sender.try_send(OutgoingPacket::in_band(0), parts) {
            Ok(()) => {
                if link.state().armed.swap(false, Ordering::Relaxed) {
                    sender.disarm();
                }
                return Ok(true);
            }
            Err(Error::Full { needed, .. }) => match sender.arm(needed) {
                Ok(true) => {}
                Ok(false) => {
                    link.state().armed.store(true, Ordering::Relaxed);
                    return Ok(false);
                }
                Err(_) => return Err(()),
            },
            // Its handler hears of it, and clears the link.
            Err(_) => return Err(()),
        }
    }
}

/// Says what is of the link itself: answers and questions. Whether there was room.
fn answer(link: &Lane, sender: &mut Dispatched) -> bool {
    let state = link.state();
    let mut said = |kind, number| {
        let header = Header { kind, sequence: U64::new(number), ..Header::new_zeroed() };
        debug_assert_eq!((header.bytes, header.moves), (U16::ZERO, U32::ZERO));
        send(link, sender, &[header.as_bytes()]) == Ok(true)
    };
    let asked = lock(&state.asked).take();
    if let Some(number) = asked
        && !said(Kind::ALIVE, number)
    {
        lock(&state.asked).get_or_insert(number);
        return false;
    }
    if state.asks.load(Ordering::SeqCst) {
        if !said(Kind::PROBE, 0) {
            return false;
        }
        state.asks.store(false, Ordering::SeqCst);
    }
    true
}

impl LinkState {
    /// The host asks whether anybody is there.
    pub(super) fn ask(&self, number: u64) {
        *lock(&self.asked) = Some(number);
    }

    /// Forgets who waits: the link is over.
    pub(super) fn forget(&self) {
        let ready = std::mem::take(&mut *lock(&self.ready));
        drop(ready);
    }
}

/// Asks the host whether anybody is there.
pub(super) fn probe(link: &Lane) -> Probed {
    link.state().asks.store(true, Ordering::SeqCst);
    pump(link);
    if link.state().asks.load(Ordering::SeqCst) { Probed::Unsent } else { Probed::Sent }
}
