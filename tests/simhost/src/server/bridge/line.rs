//! The line between a conduit and a socket: two bounded queues, with the simulation's thread on one side, which never
//! waits, and two threads of a socket on the other, which do.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::device::{Line, Taken};
use crate::plain::Bell;
use crate::server::Wake;

/// Bytes that wait at most, each way.
const WAITING_AT_MOST: usize = 256 * 1024;

/// What both sides have.
#[derive(Debug)]
struct Shared {
    queues: Mutex<Queues>,
    changed: Condvar,
    news: AtomicBool,
    host: Arc<Wake>,
    /// Ends the waits of the socket's reader, and of its writer.
    reader: Bell,
    writer: Bell,
}

#[derive(Debug, Default)]
struct Queues {
    /// From the guest.
    outward: VecDeque<u8>,
    outward_end: bool,
    /// The guest had more than there was room for.
    refused: bool,
    /// For the guest.
    inward: VecDeque<u8>,
    inward_end: bool,
    /// The socket is gone.
    broken: bool,
    /// The channel is gone.
    closed: bool,
}

/// The conduit's side.
#[derive(Debug)]
pub(super) struct HostEnd(Arc<Shared>);

/// The socket's side.
#[derive(Debug, Clone)]
pub(super) struct SocketEnd(Arc<Shared>);

/// What the guest said next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Bytes,
    End,
    /// The guest is gone without an end.
    Gone,
}

/// A line, from the host that `host` wakes.
pub(super) fn line(host: Arc<Wake>) -> std::io::Result<(HostEnd, SocketEnd)> {
    let shared = Arc::new(Shared {
        queues: Mutex::default(),
        changed: Condvar::new(),
        news: AtomicBool::new(false),
        host,
        reader: Bell::new()?,
        writer: Bell::new()?,
    });
    Ok((HostEnd(Arc::clone(&shared)), SocketEnd(shared)))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The conduit is to have a turn.
    fn tell_host(&self) {
        self.news.store(true, Ordering::SeqCst);
        self.host.wake();
    }
}

impl Line for HostEnd {
    fn note(&mut self) {
        // Before the turn looks at the queues: what comes behind the look is news again.
        self.0.news.swap(false, Ordering::SeqCst);
    }

    fn has_news(&self) -> bool {
        self.0.news.load(Ordering::SeqCst)
    }

    fn is_broken(&self) -> bool {
        self.0.lock().broken
    }

    fn give(&mut self, bytes: &[u8]) -> usize {
        let mut queues = self.0.lock();
        let fits = bytes.get(..WAITING_AT_MOST.saturating_sub(queues.outward.len())).unwrap_or(bytes);
        queues.outward.extend(fits);
        queues.refused = fits.len() < bytes.len();
        drop(queues);
        self.0.changed.notify_all();
        fits.len()
    }

    fn give_end(&mut self) {
        self.0.lock().outward_end = true;
        self.0.changed.notify_all();
    }

    fn take(&mut self, bytes: &mut Vec<u8>, most: usize) -> Taken {
        let mut queues = self.0.lock();
        if queues.inward.is_empty() {
            return if queues.inward_end { Taken::End } else { Taken::Nothing };
        }
        let most = most.min(queues.inward.len());
        bytes.extend(queues.inward.drain(..most));
        drop(queues);
        self.0.changed.notify_all();
        Taken::Bytes
    }

    fn close(&mut self) {
        let mut queues = self.0.lock();
        queues.closed = true;
        let said_all = queues.outward_end;
        drop(queues);
        self.0.changed.notify_all();
        // Nobody takes what the socket says any more; what the guest said before its end arrives all the same.
        self.0.reader.ring();
        if !said_all {
            self.0.writer.ring();
        }
    }
}

impl SocketEnd {
    /// What ends the reader's waits.
    pub(super) fn reader(&self) -> &Bell {
        &self.0.reader
    }

    /// What ends the writer's waits.
    pub(super) fn writer(&self) -> &Bell {
        &self.0.writer
    }

    /// Waits for what the guest says next; bytes replace what is in `bytes`.
    pub(super) fn hear(&self, bytes: &mut VecDeque<u8>) -> Said {
        bytes.clear();
        let mut queues = self.0.lock();
        loop {
            if queues.broken || queues.closed && !queues.outward_end {
                return Said::Gone;
            }
            if !queues.outward.is_empty() {
                std::mem::swap(bytes, &mut queues.outward);
                if std::mem::take(&mut queues.refused) {
                    drop(queues);
                    self.0.tell_host();
                }
                return Said::Bytes;
            }
            if queues.outward_end {
                return Said::End;
            }
            queues = self.0.changed.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says something to the guest, waiting for room; `false`: nobody listens any more.
    pub(super) fn say(&self, bytes: &[u8]) -> bool {
        let mut queues = self.0.lock();
        while !queues.closed && !queues.broken && queues.inward.len() >= WAITING_AT_MOST {
            queues = self.0.changed.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
        if queues.closed || queues.broken {
            return false;
        }
        queues.inward.extend(bytes);
        drop(queues);
        self.0.tell_host();
        true
    }

    /// Says that nothing more comes.
    pub(super) fn say_end(&self) {
        self.0.lock().inward_end = true;
        self.0.tell_host();
    }

    /// The socket is gone: so is the connection, without an end, and whatever waits for the socket.
    pub(super) fn break_off(&self) {
        self.0.lock().broken = true;
        self.0.changed.notify_all();
        self.0.reader.ring();
        self.0.writer.ring();
        self.0.tell_host();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> (HostEnd, SocketEnd) {
        line(Arc::new(Wake::new().unwrap())).unwrap()
    }

    #[test]
    fn a_line_takes_so_much_and_tells_of_room() {
        let (mut host, socket) = new();
        let bytes = vec![7; WAITING_AT_MOST + 1];
        assert_eq!(host.give(&bytes), WAITING_AT_MOST);
        assert_eq!(host.give(&[7]), 0);
        host.note();
        assert!(!host.has_news());
        let mut heard = VecDeque::new();
        assert_eq!((socket.hear(&mut heard), heard.len()), (Said::Bytes, WAITING_AT_MOST));
        assert!(host.has_news());
        assert_eq!(host.give(&[7]), 1);
    }

    #[test]
    fn who_says_more_than_is_taken_waits() {
        let (mut host, socket) = new();
        let speaking = std::thread::spawn(move || (0..16).all(|number| socket.say(&[number; WAITING_AT_MOST / 4])));
        let (mut taken, mut waited) = (Vec::new(), 0);
        while taken.len() < 4 * WAITING_AT_MOST {
            let before = taken.len();
            let there = host.0.lock().inward.len();
            assert!(there < WAITING_AT_MOST + WAITING_AT_MOST / 4, "{there} bytes wait");
            waited = waited.max(there);
            // Nothing is taken until there is as much as may be: then only a wait keeps it from growing.
            if there >= WAITING_AT_MOST || before > 0 {
                host.take(&mut taken, 1000);
            }
            std::thread::yield_now();
        }
        assert!(speaking.join().unwrap() && waited >= WAITING_AT_MOST);
        assert!(
            taken
                .chunks(WAITING_AT_MOST / 4)
                .zip(0..16)
                .all(|(chunk, number)| chunk.iter().all(|byte| *byte == number))
        );
    }

    #[test]
    fn what_was_said_before_the_end_is_heard_and_what_had_no_end_is_not() {
        let (mut host, socket) = new();
        host.give(b"last");
        host.give_end();
        host.close();
        let mut heard = VecDeque::new();
        assert_eq!(socket.hear(&mut heard), Said::Bytes);
        assert_eq!(socket.hear(&mut heard), Said::End);
        assert!(!socket.say(b"late"));

        let (mut host, socket) = new();
        host.give(b"half");
        host.close();
        assert_eq!(socket.hear(&mut heard), Said::Gone);
    }

    #[test]
    fn ends_come_behind_bytes_and_breaks_at_once() {
        let (mut host, socket) = new();
        assert!(socket.say(b"abc"));
        socket.say_end();
        let mut bytes = Vec::new();
        assert_eq!((host.take(&mut bytes, 2), host.take(&mut bytes, 2)), (Taken::Bytes, Taken::Bytes));
        assert_eq!((host.take(&mut bytes, 2), bytes.as_slice()), (Taken::End, &b"abc"[..]));
        assert!(!host.is_broken());
        host.note();
        socket.break_off();
        assert!(host.is_broken() && host.has_news());
        assert!(!socket.say(b"more"));
    }
}
