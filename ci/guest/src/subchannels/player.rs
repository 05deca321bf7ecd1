//! Traffic on one channel of several of a device, whose packets a dispatcher takes: they all have one descriptor below.
//!
//! The dispatcher checks each reply and passes on what it thinks of it; the player, in a thread of its own, sends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::json;
use vmbus_channels::{Dispatched, Error, IncomingPacket, Offer, OpenOptions, OutgoingPacket, Vmbus};

use super::SubchannelsArgs;
use crate::say::Say;
use crate::traffic::{Plan, Tally, Trouble, check, fill};

/// How often a player looks whether it is over, while nothing comes.
const LOOK: Duration = Duration::from_millis(20);

/// One open channel.
#[derive(Debug)]
pub(super) struct Player {
    channel: Dispatched,
    plan: Plan,
    replies: Receiver<Result<(), String>>,
    tally: Tally,
    text: Vec<u8>,
    pub(super) opened: Instant,
}

/// What became of one channel. It is still open here.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) channel: Dispatched,
    pub(super) tally: Tally,
    pub(super) outcome: Result<(), Trouble>,
    pub(super) took: Duration,
}

impl Played {
    pub(super) fn word(&self) -> &'static str {
        self.outcome.as_ref().map_or_else(Trouble::word, |()| "done")
    }
}

impl Player {
    pub(super) fn open(vmbus: &Vmbus, offer: &Offer, args: &SubchannelsArgs) -> Result<Self, Error> {
        let patience = Duration::from_millis(args.silent_ms);
        let plan = Plan { window: args.batch.max(1), patience, ..Plan::PLAIN };
        let (judge, replies) = channel();
        let (mut next, mut text) = (0_u64, Vec::new());
        let handler = move |packet: &IncomingPacket<'_>| {
            // A player that has ended hears no more.
            let _ = judge.send(check(packet, Some(next), &plan, &mut text));
            next = next.wrapping_add(1);
        };
        let channel = vmbus.open_dispatched(offer.id, OpenOptions::default(), handler)?;
        Ok(Self { channel, plan, replies, tally: Tally::default(), text: Vec::new(), opened: Instant::now() })
    }

    pub(super) fn offer(&self) -> &Offer {
        self.channel.offer()
    }

    /// Sends so many packets and takes their replies.
    pub(super) fn exchange(&mut self, packets: u64) -> Result<(), Trouble> {
        let end = self.tally.sent.saturating_add(packets);
        self.run(|sent| sent < end)
    }

    /// Sends as long as `more`, which is told how many were sent, says so, then waits for the replies that are missing.
    fn run(&mut self, more: impl Fn(u64) -> bool) -> Result<(), Trouble> {
        let mut heard = Instant::now();
        let window = u64::try_from(self.plan.window).unwrap_or(1);
        loop {
            while self.tally.sent - self.tally.received < window && more(self.tally.sent) && self.send()? {}
            if self.tally.sent == self.tally.received && !more(self.tally.sent) {
                return Ok(());
            }
            match self.replies.recv_timeout(LOOK) {
                Ok(Ok(())) => {
                    self.tally.received += 1;
                    heard = Instant::now();
                }
                Ok(Err(what)) => {
                    let device = self.channel.device().to_owned();
                    return Err(Trouble::Wrong { device, number: self.tally.received, what });
                }
                // Whoever may send has a channel that is still there.
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
                Err(RecvTimeoutError::Timeout) if self.channel.is_rescinded() => return Err(self.ended()),
                Err(RecvTimeoutError::Timeout) if heard.elapsed() >= self.plan.patience => {
                    let (device, number) = (self.channel.device().to_owned(), self.tally.received);
                    return Err(Trouble::Silent { device, number, waited_ms: heard.elapsed().as_millis() });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Sends the next packet, if there is room.
    fn send(&mut self) -> Result<bool, Trouble> {
        fill(&mut self.text, self.tally.sent, self.plan.words);
        match self.channel.try_send(OutgoingPacket::in_band(self.tally.sent), &[&self.text]) {
            Ok(()) => {
                self.tally.sent += 1;
                Ok(true)
            }
            Err(Error::Full { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Why the channel has ended, in its own words.
    fn ended(&mut self) -> Trouble {
        match self.send() {
            Err(trouble) => trouble,
            Ok(_) => Trouble::Wrong {
                device: self.channel.device().to_owned(),
                number: self.tally.received,
                what: "the handler has ended, and the channel has not".to_owned(),
            },
        }
    }

    /// Sends until it is over, and takes all replies; says at once how the channel ended, if it did.
    pub(super) fn play(mut self, over: &AtomicBool, replied: &Sender<()>, say: &Say) -> Played {
        let start = Instant::now();
        let outcome = self.exchange(1).and_then(|()| {
            // Nobody waits for it when another channel has ended first.
            let _ = replied.send(());
            self.run(|_| !over.load(Ordering::Acquire))
        });
        let (took, tally) = (start.elapsed(), self.tally);
        if let Err(trouble) = &outcome {
            let offer = self.channel.offer();
            let said = say.line(&json!({
                "event": trouble.word(), "relid": offer.relid, "subchannel": offer.subchannel_index,
                "known_gone": self.channel.is_rescinded(), "received": tally.received, "error": trouble.to_string(),
            }));
            if let Err(error) = said {
                log::error!("{error:#}");
            }
        }
        Played { channel: self.channel, tally, outcome, took }
    }
}
