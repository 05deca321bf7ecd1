//! What happens behind the last drop of a stream: the channel stays until the peer has read what was written.
//!
//! One thread for all of a bus: it throws away what the peer still sends, and closes when the peer has said its end and
//! taken everything, when the channel goes, or when the time is over (eight seconds, as in Linux).

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver as Inbox, Sender as Post, TryRecvError, unbounded};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use vmbus_channels::{Error, Receiver, Sender};

use super::frame::HEADER_BYTES;
use super::sockets::LocalName;

/// The key of the thread's own event.
const BELL: u64 = u64::MAX;
/// Packets thrown away before their space goes back to the peer.
const PACKETS: usize = 64;
/// How often that may happen without a pause.
const ROUNDS: usize = 4096;

/// A connection that nobody uses any more.
pub(super) struct Leaving {
    receiver: Receiver,
    sender: Sender,
    /// The peer's end was read.
    ended: bool,
    /// Nobody else's until the connection is over.
    _name: Option<LocalName>,
}

impl Leaving {
    pub(super) fn new(receiver: Receiver, sender: Sender, ended: bool, name: Option<LocalName>) -> Self {
        Self { receiver, sender, ended, _name: name }
    }

    /// Goes on as far as it can; `true`: it is over.
    fn step(&mut self) -> Result<bool, Error> {
        for _ in 0..ROUNDS {
            let ended = &mut self.ended;
            let seen = self.receiver.receive(PACKETS, |packet| {
                // Only the length is looked at: the header's second number is zero at the end.
                let length: u32 = packet.payload().read(4).unwrap_or(0);
                *ended |= length == 0 || packet.payload().len() < HEADER_BYTES;
                Ok::<_, Error>(())
            })?;
            if seen < PACKETS && !self.receiver.arm()? {
                // When all of the ring is free, everything was read, the end included.
                return Ok(self.sender.arm(u32::MAX)? && self.ended);
            }
        }
        // It never stops, and nobody reads it.
        Ok(true)
    }
}

/// Who lingers, for all connections of a bus.
pub(super) struct Linger {
    time: Duration,
    thread: Mutex<Option<Thread>>,
}

struct Thread {
    post: Post<Leaving>,
    bell: Arc<OwnedFd>,
}

impl Linger {
    pub(super) fn new(time: Duration) -> Self {
        Self { time, thread: Mutex::new(None) }
    }

    /// Takes a connection over; closes it at once if nothing is left to wait for.
    pub(super) fn leave(&self, mut leaving: Leaving) {
        if self.time.is_zero() || leaving.step().unwrap_or(true) {
            return;
        }
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            match start(self.time) {
                Ok(started) => *thread = Some(started),
                // Then it closes at once.
                Err(error) => return log::warn!(target: "vmbus::socket", "nobody lingers: {error}"),
            }
        }
        if let Some(thread) = &*thread {
            // The thread goes on until everybody who may send has gone.
            let _ = thread.post.send(leaving);
            ring(&thread.bell);
        }
    }

    /// Lets go of everything now.
    pub(super) fn end(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(thread);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // The post goes with it; without the ring the thread would find out late.
        let (post, _) = unbounded();
        self.post = post;
        ring(&self.bell);
    }
}

fn ring(bell: &OwnedFd) {
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

fn start(time: Duration) -> std::io::Result<Thread> {
    let (post, inbox) = unbounded();
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&set, &bell, EventData::new_u64(BELL), EventFlags::IN)?;
    let all = All { time, set, bell: Arc::clone(&bell), inbox, there: HashMap::new(), next: 0 };
    std::thread::Builder::new().name("vmsock-linger".into()).spawn(move || all.run())?;
    Ok(Thread { post, bell })
}

/// What the thread has.
struct All {
    time: Duration,
    set: OwnedFd,
    bell: Arc<OwnedFd>,
    inbox: Inbox<Leaving>,
    there: HashMap<u64, (Instant, Leaving)>,
    next: u64,
}

impl All {
    fn run(mut self) {
        loop {
            let more = self.take_in();
            if !more && self.there.is_empty() {
                return;
            }
            let now = Instant::now();
            let first = self.there.values().map(|(deadline, _)| deadline.saturating_duration_since(now)).min();
            let time = first.and_then(|first| Timespec::try_from(first).ok());
            let mut events = [MaybeUninit::uninit(); 64];
            let Ok((events, _)) = epoll::wait(&self.set, &mut events, time.as_ref()) else { continue };
            let keys: Vec<u64> = events.iter().map(|event| event.data.u64()).collect();
            for key in keys {
                self.step(key);
            }
            let now = Instant::now();
            let late = self.there.iter().filter(|(_, (deadline, _))| *deadline <= now).map(|(key, _)| *key);
            for key in late.collect::<Vec<_>>() {
                self.there.remove(&key).into_iter().for_each(|(_, gone)| self.close(&gone));
            }
        }
    }

    /// Takes in who came; whether more may come.
    fn take_in(&mut self) -> bool {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        loop {
            let leaving = match self.inbox.try_recv() {
                Ok(leaving) => leaving,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            };
            let (key, data) = (self.next, EventData::new_u64(self.next));
            self.next += 1;
            let watched = epoll::add(&self.set, leaving.receiver.as_fd(), data, EventFlags::IN)
                .and_then(|()| epoll::add(&self.set, leaving.sender.as_fd(), data, EventFlags::IN));
            if let Err(error) = watched {
                log::debug!(target: "vmbus::socket", "a stream is closed at once: {error}");
                self.close(&leaving);
                continue;
            }
            let deadline = Instant::now() + self.time;
            self.there.insert(key, (deadline, leaving));
            // It may have come to its end meanwhile.
            self.step(key);
        }
    }

    fn step(&mut self, key: u64) {
        let Some((_, leaving)) = self.there.get_mut(&key) else { return };
        // An error is the channel's end.
        if leaving.step().unwrap_or(true)
            && let Some((_, gone)) = self.there.remove(&key)
        {
            self.close(&gone);
        }
    }

    /// Its descriptors are not watched any more; the drop closes it, waiting for nobody.
    fn close(&self, gone: &Leaving) {
        let _ = epoll::delete(&self.set, gone.receiver.as_fd());
        let _ = epoll::delete(&self.set, gone.sender.as_fd());
    }
}
