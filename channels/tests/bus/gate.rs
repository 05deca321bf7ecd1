//! A link that stops or breaks the executor where a test wants it, around one that works.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use vmbus::Error;
use vmbus::link::{Interrupts, Link, Port, Share, Sink};
use vmbus::memory::Mapping;
use vmbus::message::{GpadlId, GuestMessage};

/// What becomes of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// It does not return until the mode changes.
    Hold,
    Panic,
}

/// What the test moves and sees.
pub struct Gate {
    mode: Mutex<(Mode, usize)>,
    changed: Condvar,
    /// Events that the sink has taken.
    pub sunk: AtomicUsize,
}

struct Gated {
    link: Box<dyn Link>,
    gate: Arc<Gate>,
}

pub fn gate(link: Box<dyn Link>) -> (Box<dyn Link>, Arc<Gate>) {
    let gate = Gate { mode: Mutex::new((Mode::Pass, 0)), changed: Condvar::new(), sunk: AtomicUsize::new(0) };
    let gate = Arc::new(gate);
    (Box::new(Gated { link, gate: Arc::clone(&gate) }), gate)
}

impl Gate {
    pub fn set(&self, mode: Mode) {
        self.mode.lock().unwrap().0 = mode;
        self.changed.notify_all();
    }

    /// Lets posts pass when it is dropped, so that a test that fails does not hang.
    pub fn hold(&self) -> Held<'_> {
        self.set(Mode::Hold);
        Held(self)
    }

    /// Waits until a post is held.
    pub fn held(&self) {
        let _held = self.changed.wait_while(self.mode.lock().unwrap(), |(_, held)| *held == 0).unwrap();
    }

    fn pass(&self) {
        let mut mode = self.mode.lock().unwrap();
        mode.1 += 1;
        self.changed.notify_all();
        let mut mode = self.changed.wait_while(mode, |(mode, _)| *mode == Mode::Hold).unwrap();
        mode.1 -= 1;
        let panics = mode.0 == Mode::Panic;
        drop(mode);
        assert!(!panics, "the link is broken");
    }
}

/// Posts are held.
pub struct Held<'a>(&'a Gate);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mode = self.0.mode.lock().map_or(Mode::Pass, |mode| mode.0);
        if mode == Mode::Hold {
            self.0.set(Mode::Pass);
        }
    }
}

impl Link for Gated {
    fn start(&mut self, sink: Sink) -> Result<(), Error> {
        let gate = Arc::clone(&self.gate);
        self.link.start(Arc::new(move |event| {
            let taken = sink(event);
            gate.sunk.fetch_add(1, Ordering::SeqCst);
            taken
        }))
    }

    fn post(&mut self, message: &GuestMessage) -> Result<(), Error> {
        self.gate.pass();
        self.link.post(message)
    }

    fn share(&mut self, relid: u32, gpadl: GpadlId, what: Share) -> Result<(), Error> {
        self.link.share(relid, gpadl, what)
    }

    fn unshare(&mut self, gpadl: GpadlId) {
        self.link.unshare(gpadl);
    }

    fn port(&mut self, relid: u32, ring: GpadlId) -> Result<Port, Error> {
        self.link.port(relid, ring)
    }

    fn buffer(&mut self, gpadl: GpadlId) -> Result<Arc<Mapping>, Error> {
        self.link.buffer(gpadl)
    }

    fn processors(&self) -> usize {
        self.link.processors()
    }

    fn interrupts(&mut self, processor: usize) -> Option<Interrupts> {
        self.link.interrupts(processor)
    }

    fn stop(&mut self) {
        self.link.stop();
    }
}
