//! One worker of a storm: a device of its own that comes and goes, and is used meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use vmbus_channels::{Channel, Error, Offer, OpenOptions, OutgoingPacket, Vmbus, Wake};
use vmbus_simhost::server::Control;
use vmbus_simhost::{DeviceSpec, OfferId, Random};

use super::news::Inbox;
use super::plan::{Moment, Plan};
use crate::simulated::PATIENCE;

/// Rings of a control page and a page of data each: most of a cycle is not to be the zeroing of pages.
const RING_BYTES: u32 = 8192;

/// What all workers have done so far.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) cycles: AtomicU64,
    pub(super) opens: AtomicU64,
    pub(super) packets: AtomicU64,
    /// Packets that were somebody else's.
    pub(super) stale: AtomicU64,
}

/// One worker.
pub(super) struct Worker {
    pub(super) bus: Vmbus,
    pub(super) host: Control,
    pub(super) spec: DeviceSpec,
    pub(super) inbox: Inbox,
    pub(super) random: Random,
    pub(super) processors: u32,
    pub(super) done: Arc<Done>,
}

impl Worker {
    /// One offer, from the host's decision to its release.
    pub(super) fn cycle(&mut self) -> anyhow::Result<()> {
        let plan = Plan::next(&mut self.random);
        let offered = self.offer(plan.rescind == Moment::BehindOffer)?;
        let offer = self.inbox.arrival()?;
        let id = offered.recv().context("the simulated host has ended")??;
        if plan.rescind == Moment::BeforeOpen {
            self.host.rescind(id)?;
        }
        for round in 0..plan.opens {
            let last = round + 1 == plan.opens;
            match self.open_and_use(&plan, &offer, id, last) {
                Ok(()) => {}
                // The channel may go as soon as the host was told to take it back; before that it may not.
                Err(Stop::Rescinded(_)) if plan.rescind != Moment::AfterClose => break,
                Err(stop) => {
                    return Err(anyhow::Error::from(stop)).with_context(|| format!("{plan:?}, channel {}", offer.id));
                }
            }
        }
        let gone = self.host.expect(PATIENCE, move |sim| match sim.host().state(id) {
            None => true,
            Some("rescinded") => false,
            // The plan's own rescind has not come, or is none.
            Some(_) => sim.host().rescind(id).is_err() && sim.host().state(id).is_none(),
        })?;
        // The departure comes before the release, so this one sleep is for both.
        let gone = gone.wait()?;
        self.inbox.departure(&offer).with_context(|| format!("{plan:?}"))?;
        ensure!(gone, "relid {} was not released in {} s ({plan:?})", offer.relid, PATIENCE.as_secs());
        self.done.cycles.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Lets the host offer the device, and take it back at once where that is the plan.
    fn offer(&self, rescind: bool) -> anyhow::Result<mpsc::Receiver<anyhow::Result<OfferId>>> {
        let (to, offered) = mpsc::sync_channel(1);
        let (spec, mut delivered) = (self.spec.clone(), None);
        self.host.when(move |sim| {
            let outcome = match delivered {
                None => sim.host().offer(spec.clone()),
                Some(id) => sim.host().rescind(id).map(|()| id),
            };
            if let (Ok(id), true, None) = (&outcome, rescind, delivered) {
                // When this is asked again, the offer is on its way.
                delivered = Some(*id);
                return false;
            }
            // A worker that has failed is gone.
            let _ = to.try_send(outcome.map_err(anyhow::Error::from));
            true
        })?;
        Ok(offered)
    }

    fn open_and_use(&mut self, plan: &Plan, offer: &Offer, id: OfferId, last: bool) -> Result<(), Stop> {
        let rescind_now = |moment| last && plan.rescind == moment;
        if rescind_now(Moment::WhileOpening) {
            self.rescind_soon(id)?;
        }
        let processor = u32::try_from(self.random.below(u64::from(self.processors))).unwrap_or(0);
        let options =
            OpenOptions { outgoing_bytes: RING_BYTES, incoming_bytes: RING_BYTES, processor, ..OpenOptions::default() };
        let mut user = if plan.dispatched {
            let (echoes, echoed) = mpsc::channel();
            let channel =
                self.bus.open_dispatched(offer.id, options, move |packet: &vmbus_channels::IncomingPacket<'_>| {
                    // Nobody waits any more: the end of the channel is under way.
                    let _ = echoes.send(packet.transaction_id());
                })?;
            User::Dispatched(channel, echoed)
        } else {
            User::Polled(self.bus.open(offer.id, options)?)
        };
        self.done.opens.fetch_add(1, Ordering::Relaxed);
        let buffer = match plan.buffer_bytes {
            0 => None,
            bytes => Some(user.create_buffer(bytes)?),
        };
        for number in 0..plan.packets {
            if rescind_now(Moment::InTraffic) && number == plan.packets / 2 {
                self.rescind_soon(id)?;
            }
            user.echo(self.random.next_u64() | 1, &self.done.stale)?;
            self.done.packets.fetch_add(1, Ordering::Relaxed);
        }
        drop(buffer);
        if rescind_now(Moment::WhileClosing) {
            self.rescind_soon(id)?;
        }
        user.close()?;
        Ok(())
    }

    /// Lets the host take the channel back after a few more things have happened there.
    fn rescind_soon(&mut self, id: OfferId) -> anyhow::Result<()> {
        let mut events = self.random.below(5);
        self.host.when(move |sim| {
            let now = events == 0;
            events = events.saturating_sub(1);
            // Somebody else may have been first.
            now && sim.host().rescind(id).map_or(true, |()| true)
        })?;
        Ok(())
    }
}

/// An open channel, in one of the two ways to receive.
enum User {
    Polled(Channel),
    Dispatched(vmbus_channels::Dispatched, mpsc::Receiver<u64>),
}

impl User {
    /// Sends one packet and waits until it comes back.
    fn echo(&mut self, number: u64, stale: &AtomicU64) -> Result<(), Stop> {
        let payload = number.to_le_bytes();
        let packet = OutgoingPacket::in_band(number);
        match self {
            Self::Polled(channel) => {
                channel.send(packet, &[&payload], Some(PATIENCE))?;
                loop {
                    if channel.wait(Some(PATIENCE))? != Wake::Packets {
                        return Err(no_echo());
                    }
                    let mut echoed = Vec::new();
                    channel.receive(8, |packet| {
                        echoed.push(packet.transaction_id());
                        Ok::<_, Error>(())
                    })?;
                    match echoed.as_slice() {
                        [] => {}
                        [one] if *one == number => return Ok(()),
                        other => {
                            stale.fetch_add(1, Ordering::Relaxed);
                            return Err(
                                anyhow!("{number:#x} was sent, and came back as {other:x?}: somebody else's").into()
                            );
                        }
                    }
                }
            }
            Self::Dispatched(channel, echoed) => {
                channel.send(packet, &[&payload], Some(PATIENCE))?;
                // A rescind ends the handler, and with that the sender.
                let deadline = PATIENCE.as_millis() / 10;
                for _ in 0..deadline {
                    match echoed.recv_timeout(Duration::from_millis(10)) {
                        Ok(one) if one == number => return Ok(()),
                        Ok(other) => {
                            stale.fetch_add(1, Ordering::Relaxed);
                            return Err(
                                anyhow!("{number:#x} was sent, and came back as {other:#x}: somebody else's").into()
                            );
                        }
                        Err(mpsc::RecvTimeoutError::Timeout) if !channel.is_rescinded() => {}
                        Err(_) => {
                            // Says that it is rescinded, if it is.
                            channel.try_send(packet, &[&payload])?;
                            if !channel.is_rescinded() {
                                return Err(anyhow!("the handler ended by itself").into());
                            }
                        }
                    }
                }
                Err(no_echo())
            }
        }
    }

    fn create_buffer(&self, bytes: u32) -> Result<vmbus_channels::Buffer, Error> {
        match self {
            Self::Polled(channel) => channel.create_buffer(bytes),
            Self::Dispatched(channel, _) => channel.create_buffer(bytes),
        }
    }

    fn close(self) -> Result<(), Error> {
        match self {
            Self::Polled(channel) => channel.close(),
            Self::Dispatched(channel, _) => channel.close(),
        }
    }
}

fn no_echo() -> Stop {
    anyhow!("no echo in {} s", PATIENCE.as_secs()).into()
}

/// Why a channel was not used to the end of the plan. Rescinds are most of what happens here, so they are told from
/// failures without the cost of an error that is made for people (with `RUST_BACKTRACE`, each of those walks the stack).
enum Stop {
    /// The host has taken the channel back, in any of the words for it.
    Rescinded(Error),
    Failed(anyhow::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        if error.is_rescinded() || matches!(error, Error::Gone { .. }) {
            Self::Rescinded(error)
        } else {
            Self::Failed(error.into())
        }
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Stop> for anyhow::Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Rescinded(error) => error.into(),
            Stop::Failed(error) => error,
        }
    }
}
