//! Drives the control core as its shell would, while a script decides what everybody else does.
//!
//! What must hold whatever the script says is in [`watch`]; what the script can say, in [`say`].

mod say;
mod watch;

use std::collections::VecDeque;
use std::time::Duration;

use uuid::Uuid;
use vmbus::message::{Features, HostMessage, VersionResponse};
use vmbus_channels::control::{Action, Command, Contact, Core, ISOLATED_CLASSES, Input, Limits, Ticket};
use vmbus_ringbuf::doubles::Script;

use self::watch::Watch;

/// Turns of a run at most.
const TURNS: usize = 1024;
/// Channels at the same time. Few, so that the table gets full.
const CHANNELS: usize = 12;

/// Runs a script to its end, takes everything back, and checks that nothing is left. A broken promise is a failed
/// assertion.
pub fn drive(bytes: &[u8]) {
    let mut run = Run::new(Script::new(bytes));
    for _ in 0..TURNS {
        if run.script.is_exhausted() {
            break;
        }
        run.turn();
    }
    run.end();
}

struct Run<'s> {
    script: Script<'s>,
    core: Core,
    watch: Watch,
    now: Duration,
    tickets: u64,
    out: Vec<Action>,
}

impl<'s> Run<'s> {
    fn new(mut script: Script<'s>) -> Self {
        let how = script.byte();
        let limits = Limits {
            channels: CHANNELS,
            gpadls_per_channel: 4,
            closers_per_channel: 3,
            connects: 3,
            processors: 4,
            features: Features::KNOWN,
            allowed: (how & 2 != 0).then(|| ISOLATED_CLASSES.to_vec()),
            contact: Contact { sint: 2, client: Some(Uuid::from_u128(1)), ..Contact::default() },
            ..Limits::default()
        };
        let mut run = Self {
            script,
            core: Core::new(limits),
            watch: Watch::default(),
            now: Duration::ZERO,
            tickets: 0,
            out: Vec::new(),
        };
        // Most scripts are about what comes after the contact.
        if how & 1 == 0 {
            run.command(Command::Connect);
            let features = Some(Features::from_bits_retain(u32::from(run.script.byte())));
            let refused = (how >> 2 & 15).min(8);
            for _ in 0..refused {
                run.feed(Input::Message(HostMessage::VersionResponse(VersionResponse {
                    supported: false,
                    state: vmbus::message::ConnectionState::SUCCESSFUL,
                    selected: 0,
                    features: None,
                })));
            }
            run.feed(Input::Message(HostMessage::VersionResponse(VersionResponse {
                supported: true,
                state: vmbus::message::ConnectionState::SUCCESSFUL,
                selected: 4,
                features,
            })));
        }
        run
    }

    fn turn(&mut self) {
        match self.script.byte() % 16 {
            0..=6 => {
                let input = say::message(&mut self.script, &self.watch);
                self.feed(input);
            }
            7..=10 => {
                let command = say::command(&mut self.script, &self.watch);
                self.command(command);
            }
            11 => {
                let held = say::pick(&mut self.script, &self.watch.held());
                self.feed(held.map_or(Input::Elapsed, Input::Unreferenced));
            }
            12 => {
                let retiring = say::pick(&mut self.script, &self.watch.retiring());
                self.feed(retiring.map_or(Input::Elapsed, Input::Retired));
            }
            13 => {
                let input = say::stale(&mut self.script, &self.watch);
                self.feed(input.unwrap_or(Input::Elapsed));
            }
            14 => {
                self.now = match self.script.byte() {
                    0..64 => self.core.deadline().unwrap_or(self.now).max(self.now),
                    64..128 => self.now + Duration::from_secs(200),
                    few => self.now + Duration::from_millis(u64::from(few) * 16),
                };
                self.feed(Input::Elapsed);
            }
            _ => {
                let lost = self.script.byte() == 0;
                self.feed(if lost { Input::Lost } else { Input::Elapsed });
            }
        }
    }

    fn command(&mut self, command: Command) {
        self.tickets += 1;
        self.feed(Input::Command(Ticket(self.tickets), command));
    }

    /// One step and all that follows from it at once: what the shell could not do.
    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let size = self.core.live_channels() + self.core.live_gpadls() + self.core.pending_tickets();
            let was_connected = self.core.agreed().is_some();
            self.watch.hear(&input);
            self.out.clear();
            self.core.step(self.now, input.clone(), &mut self.out);
            if was_connected && self.core.agreed().is_none() {
                self.watch.sever();
            }
            assert!(self.out.len() <= 16 + 8 * size, "{} actions from {input:?}", self.out.len());
            for action in &self.out {
                self.watch.see(action);
                // One in sixteen of what can fail does. (An exhausted script yields zeroes: nothing fails any more.)
                let fails = |script: &mut Script<'_>| !script.is_exhausted() && script.byte() % 16 == 15;
                match action {
                    Action::Share { gpadl, .. } if fails(&mut self.script) => {
                        inputs.push_back(Input::ShareFailed(*gpadl));
                    }
                    Action::Announce(vmbus_channels::Announcement::Arrived(offer)) if fails(&mut self.script) => {
                        inputs.push_back(Input::AnnounceFailed(offer.id));
                    }
                    Action::Opened { channel, .. } if fails(&mut self.script) => {
                        inputs.push_back(Input::Unreferenced(*channel));
                    }
                    _ => {}
                }
            }
            self.check();
        }
    }

    fn check(&self) {
        assert_eq!(self.core.check_invariants(), Ok(()));
        assert_eq!(self.core.pending_tickets(), self.watch.tickets(), "tickets that wait for an answer");
        assert!(self.core.live_channels() <= CHANNELS);
        assert!(self.core.live_gpadls() <= CHANNELS * 4);
        assert_eq!(self.core.live_gpadls(), self.watch.gpadls(), "GPADLs that are shared");
        assert_eq!(self.core.offers().len(), self.watch.announced(), "channels that were announced");
    }

    /// Whoever holds something gives it back.
    fn give_back(&mut self) {
        while let Some(id) = self.watch.held().first().copied() {
            self.feed(Input::Unreferenced(id));
        }
        while let Some(id) = self.watch.retiring().first().copied() {
            self.feed(Input::Retired(id));
        }
    }

    /// The host takes every channel back, everybody here lets go, and at last the connection goes.
    fn end(mut self) {
        if self.core.agreed().is_some() {
            for relid in self.watch.owed() {
                self.feed(Input::Message(HostMessage::Rescind { relid }));
            }
            self.give_back();
            assert!(self.watch.owed().is_empty(), "numbers that the host never gets back");
        }
        self.feed(Input::Lost);
        self.give_back();
        assert!(self.core.is_empty(), "something is left: {:?}", self.core);
        assert_eq!((self.watch.tickets(), self.watch.gpadls(), self.watch.announced()), (0, 0, 0));
    }
}
