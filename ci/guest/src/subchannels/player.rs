//! Traffic on one channel, in a thread of its own, until it is over or the channel ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use serde_json::json;
use vmbus_channels::Channel;

use super::SubchannelsArgs;
use crate::say::Say;
use crate::traffic::{Plan, Tally, Traffic, Trouble};

/// What became of one channel. It is still open here.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) channel: Channel,
    pub(super) tally: Tally,
    pub(super) outcome: Result<(), Trouble>,
    pub(super) took: Duration,
}

impl Played {
    pub(super) fn word(&self) -> &'static str {
        self.outcome.as_ref().map_or_else(Trouble::word, |()| "done")
    }
}

pub(super) fn plan(args: &SubchannelsArgs) -> Plan {
    Plan { window: args.batch.max(1), patience: Duration::from_millis(args.silent_ms), ..Plan::PLAIN }
}

/// Sends until it is over, and takes all replies; says at once how the channel ended, if it did.
pub(super) fn play(mut traffic: Traffic, over: &AtomicBool, replied: &Sender<()>, say: &Say) -> Played {
    let start = Instant::now();
    let outcome = traffic.exchange(1).and_then(|()| {
        // Nobody waits for it when another channel has ended first.
        let _ = replied.send(());
        traffic.run(|_| !over.load(Ordering::Acquire))
    });
    let (took, tally) = (start.elapsed(), traffic.tally.clone());
    if let Err(trouble) = &outcome {
        let offer = traffic.channel().offer();
        let said = say.line(&json!({
            "event": trouble.word(), "relid": offer.relid, "subchannel": offer.subchannel_index,
            "known_gone": traffic.channel().is_rescinded(), "received": tally.received, "error": trouble.to_string(),
        }));
        if let Err(error) = said {
            log::error!("{error:#}");
        }
    }
    Played { channel: traffic.into_channel(), tally, outcome, took }
}
