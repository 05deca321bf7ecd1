//! What each call does with the host.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value, json};
use vmbus_simhost::device::PipeSettings;
use vmbus_simhost::fault::RingFault;
use vmbus_simhost::server::{Expected, Sim};
use vmbus_simhost::{Ended, Memory, OfferId, Offered, Random};

use super::wire::{Call, Until};
use super::{faults, settings, until};
use crate::bus::Bus;
use crate::bus_memory::BusMemory;
use crate::ending::{Ender, Ending};
use crate::shared::Shared;

/// Bytes of a page of the guest, as GPADLs count them.
const PAGE_BYTES: u64 = 4096;
/// Bytes that one call reads.
const PEEK_AT_MOST: u32 = 4096;
/// Bytes of trace in one reply.
const TRACE_AT_MOST: usize = 256 << 10;
/// Violations in one reply.
const VIOLATIONS_AT_MOST: usize = 256;
/// Waiting ends after this, whatever is said.
const WAIT_AT_MOST: Duration = Duration::from_secs(3600);

/// The host as the control socket has it; clones are the same host.
#[derive(Debug, Clone)]
pub struct Host {
    control: vmbus_simhost::Control<BusMemory>,
    shared: Arc<Shared>,
    memory: BusMemory,
    ender: Ender,
    processors: u32,
}

impl Host {
    /// Of this bus, and of a machine that `ender` ends.
    #[must_use]
    pub fn new(bus: &Bus, processors: u32, ender: Ender) -> Self {
        let (control, shared, memory) = (bus.control().clone(), Arc::clone(bus.shared()), bus.memory().clone());
        Self { control, shared, memory, ender, processors }
    }

    /// Ends the machine.
    pub(super) fn kill(&self) {
        self.ender.end(Ending::Killed);
    }

    /// From now on it is watched whether something is true.
    pub(super) fn expect(&self, until: Until, timeout_ms: u64) -> Result<Expected> {
        let timeout = Duration::from_millis(timeout_ms).min(WAIT_AT_MOST);
        Ok(self.control.expect(timeout, until::condition(until, &self.shared)?)?)
    }

    /// Does something with the simulation, on its thread.
    fn with<R: Send + 'static>(&self, work: impl FnOnce(&mut Sim<BusMemory>) -> R + Send + 'static) -> Result<R> {
        Ok(self.control.with(work)?)
    }

    /// Carries a call out. Waiting is not here: see [`expect`](Self::expect).
    pub(super) fn run(&self, call: Call) -> Result<Value> {
        match call {
            Call::Hello => self.hello(),
            Call::Offer(device) => {
                let spec = settings::spec(&device)?;
                offer(self.with(|simulation| simulation.host().offer(spec))??)
            }
            Call::Subchannel { offer: of } => {
                offer(self.with(move |simulation| simulation.host().offer_subchannel(OfferId(of)))??)
            }
            Call::Rescind { offer } => done(self.with(move |simulation| simulation.host().rescind(OfferId(offer)))??),
            Call::RescindDevice { offer } => {
                done(self.with(move |simulation| simulation.host().rescind_device(OfferId(offer)))??)
            }
            Call::Reoffer { offer } => done(self.with(move |simulation| simulation.host().reoffer(OfferId(offer)))??),
            Call::RescindWhen { offer, until } => self.rescind_when(offer, until),
            Call::Command { offer, words } => {
                done(self.with(move |simulation| simulation.host().command(OfferId(offer), &words))??)
            }
            Call::Report { offer } => {
                let numbers = self.with(move |simulation| simulation.host().report(OfferId(offer)))??;
                Ok(object(numbers))
            }
            Call::Offers => self.offers(),
            Call::Ended => self.ended(),
            Call::Counters => {
                let counted = self.with(|simulation| (simulation.host().counters(), simulation.faults_applied()))?;
                Ok(object(until::counters(&counted.0, counted.1, &self.shared)))
            }
            Call::Violations => self.violations(),
            Call::Gpadls => {
                let live = self.with(|simulation| simulation.host().live_gpadls())?;
                Ok(live.into_iter().map(|gpadl| gpadl.0).collect())
            }
            Call::RingPages { offer } => {
                let pages = self.with(move |simulation| simulation.host().ring_pages(OfferId(offer)))?;
                let (outgoing, incoming) = pages.unwrap_or_default();
                Ok(outgoing.into_iter().chain(incoming).map(|page| page.saturating_mul(PAGE_BYTES)).collect())
            }
            Call::Released { relid } => {
                Ok(json!({ "times": self.with(move |simulation| simulation.host().released(relid))? }))
            }
            Call::Trace { lines } => self.trace(lines),
            Call::Configure(settings) => {
                ensure!(
                    settings.seed.is_none() && settings.devices.is_empty() && settings.monitor_latency_us.is_none(),
                    "seed, devices and monitor-latency-us are for the start"
                );
                let change = settings::change(&settings)?;
                done(self.with(move |simulation| simulation.host().configure(change))?)
            }
            Call::Connect { service, echoes } => {
                let (service, settings) = (settings::service(&service)?, PipeSettings { echoes, ..Default::default() });
                offer(self.with(move |simulation| simulation.host().connect(service, settings))??)
            }
            Call::Faults { rules } => {
                let rules = rules.iter().map(|text| faults::rule(text)).collect::<Result<Vec<_>>>()?;
                done(self.with(move |simulation| simulation.set_faults(&rules))?)
            }
            Call::Spoil { offer, fault } => self.spoil(offer, &fault),
            Call::Interrupt { processor, flag } => {
                ensure!(processor < self.processors && flag < 2048, "no flag {flag} on processor {processor}");
                done(self.with(move |simulation| simulation.host().stray_interrupt(processor, flag))?)
            }
            Call::Peek { address, bytes } => self.peek(address, bytes),
            Call::Wait { .. } | Call::Kill => bail!("this call is not answered here"),
        }
    }

    fn hello(&self) -> Result<Value> {
        let (protocol, seed) = self.with(|simulation| {
            let host = simulation.host();
            (host.protocol(), host.config().seed)
        })?;
        let version = protocol.version.map(|version| version.to_string());
        let processors = self.processors;
        Ok(json!({ "version": env!("CARGO_PKG_VERSION"), "seed": seed, "processors": processors, "protocol": version }))
    }

    fn rescind_when(&self, offer: u64, until: Until) -> Result<Value> {
        let mut is_true = until::condition(until, &self.shared)?;
        self.control.when(move |simulation| {
            let now = is_true(simulation);
            if now && let Err(error) = simulation.host().rescind(OfferId(offer)) {
                simulation.note(format!("offer {offer} was to be rescinded now: {error}"));
            }
            now || simulation.host().state(OfferId(offer)).is_none()
        })?;
        Ok(Value::Null)
    }

    fn offers(&self) -> Result<Value> {
        let all = self.with(|simulation| {
            let host = simulation.host();
            let with_processor = |channel: Offered| (host.processor(channel.id), channel);
            host.offered().into_iter().map(with_processor).collect::<Vec<_>>()
        })?;
        let describe = |(processor, channel): (Option<u32>, Offered)| {
            json!({
                "offer": channel.id.0,
                "relid": channel.relid,
                "class": channel.class.0.to_string(),
                "instance": channel.instance.to_string(),
                "subchannel": channel.subchannel_index,
                "state": channel.state,
                "processor": processor,
                "monitor": channel.monitor,
            })
        };
        Ok(all.into_iter().map(describe).collect())
    }

    fn ended(&self) -> Result<Value> {
        let all = self.with(|simulation| simulation.host().ended().cloned().collect::<Vec<_>>())?;
        let describe = |ended: Ended| {
            json!({
                "offer": ended.offer.id.0,
                "class": ended.offer.class.0.to_string(),
                "instance": ended.offer.instance.to_string(),
                "subchannel": ended.offer.subchannel_index,
                "report": object(ended.report),
            })
        };
        Ok(all.into_iter().map(describe).collect())
    }

    fn violations(&self) -> Result<Value> {
        let (total, kept) = self.with(|simulation| {
            let host = simulation.host();
            let kept = host.violations().iter().take(VIOLATIONS_AT_MOST).map(ToString::to_string);
            (host.violation_total(), kept.collect::<Vec<_>>())
        })?;
        Ok(json!({ "total": total, "kept": kept }))
    }

    fn trace(&self, lines: usize) -> Result<Value> {
        let text = self.with(|simulation| simulation.trace().to_string())?;
        let mut bytes = 0_usize;
        let fits = |line: &&str| {
            bytes = bytes.saturating_add(line.len() + 1);
            bytes <= TRACE_AT_MOST
        };
        let mut last: Vec<_> = text.lines().rev().take(lines).take_while(fits).collect();
        last.reverse();
        Ok(json!({ "text": last.join("\n") }))
    }

    fn spoil(&self, offer: u64, fault: &str) -> Result<Value> {
        let fault = faults::ring_fault(fault)?;
        let done = self.with(move |simulation| {
            let seed = simulation.host().config().seed ^ simulation.faults_applied();
            let any = || Random::new(seed).pick(&RingFault::ALL).copied();
            fault.or_else(any).is_some_and(|fault| simulation.spoil(OfferId(offer), fault))
        })?;
        Ok(json!({ "done": done }))
    }

    fn peek(&self, address: u64, bytes: u32) -> Result<Value> {
        ensure!(bytes <= PEEK_AT_MOST, "{bytes} bytes are more than {PEEK_AT_MOST}");
        let mut read = vec![0; usize::try_from(bytes)?];
        ensure!(self.memory.read(address, &mut read), "the guest has no memory at {address:#x}");
        let mut hex = String::with_capacity(read.len() * 2);
        read.iter().try_for_each(|byte| write!(hex, "{byte:02x}"))?;
        Ok(json!({ "hex": hex }))
    }
}

fn offer(id: OfferId) -> Result<Value> {
    Ok(json!({ "offer": id.0 }))
}

/// Nothing to say.
#[expect(clippy::unnecessary_wraps, reason = "the other answers can fail")]
fn done((): ()) -> Result<Value> {
    Ok(Value::Null)
}

fn object(numbers: Vec<(&'static str, u64)>) -> Value {
    Value::Object(numbers.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect::<Map<_, _>>())
}
