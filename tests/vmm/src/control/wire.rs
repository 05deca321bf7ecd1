//! The control socket's requests and replies: JSON lines, one request and one reply each. Compiled into both ends: the
//! VMM, and the lab that plays scenarios on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Number of the request; its reply has the same.
    pub id: u64,
    /// What to do.
    pub call: Call,
}

/// One reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// Number of the request.
    pub id: u64,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The answer; `null` where there is nothing to say.
    Ok(serde_json::Value),
    /// Why not.
    Error(String),
}

/// What the host is like; all that is not given stays as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct HostSettings {
    /// Decides everything left to chance; only at the start.
    pub seed: Option<u64>,
    /// Versions that it accepts, such as `5.3`; they hold from the guest's next contact on.
    pub versions: Option<Vec<String>>,
    /// What it offers from the start, in this order; only at the start.
    pub devices: Vec<Device>,
    /// hvsock services that guests can connect to, each a pipe that echoes: GUIDs, or decimal vsock ports.
    pub services: Option<Vec<String>>,
    /// Kinds of violations that are counted and not held against the guest.
    pub tolerated: Option<Vec<String>>,
    /// Longest time over OPEN, GPADL, teardown, MODIFYCHANNEL, in microseconds.
    pub latency_us: Option<[u64; 4]>,
}

/// A device to be offered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Device {
    /// `echo`, `pipe`, `dynamic-memory` or `mute`.
    pub kind: String,
    /// Makes the instance GUID, with the kind.
    pub number: u64,
    /// Another class than the kind's own, as a GUID: a NIC's, for instance, so that the kernel makes its buffers.
    pub class: Option<String>,
    /// Another instance than the number's.
    pub instance: Option<String>,
    /// Whether it gets a monitor id.
    pub monitored: bool,
    /// Settings of the kind, by name: `asks`, `interrupts-idly`, `greets` of `echo` and so on.
    pub settings: BTreeMap<String, u64>,
}

/// Something that a request can wait for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// Nothing is under way.
    Quiet,
    /// The guest is connected and has all offers.
    Connected,
    /// An offer is in this state: hidden, offered, opening, open, rescinded, gone.
    State { offer: u64, state: String },
    /// A counter (see [`Call::Counters`]) has at least this value.
    Counter { name: String, at_least: u64 },
    /// A device's number (see [`Call::Report`]) has at least this value.
    Report { offer: u64, name: String, at_least: u64 },
}

/// What the control socket can do. Offers are named by the number that [`Call::Offer`] answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Who is there: `{"version", "seed", "processors", "protocol"}`.
    Hello,
    /// Offers a device: `{"offer"}`.
    Offer(Device),
    /// Offers a subchannel of a device: `{"offer"}`.
    Subchannel { offer: u64 },
    /// Takes one channel back.
    Rescind { offer: u64 },
    /// Takes a device back, subchannels first.
    RescindDevice { offer: u64 },
    /// Takes a channel back and offers it again on the same relid in the moment of its release.
    Reoffer { offer: u64 },
    /// Takes a channel back as soon as something is true, between two things that happen; answers at once.
    RescindWhen { offer: u64, until: Until },
    /// Says something to a device, in its own words.
    Command { offer: u64, words: String },
    /// A device's numbers: an object.
    Report { offer: u64 },
    /// All channels: `[{"offer", "relid", "class", "instance", "subchannel", "state", "processor", "monitor"}]`.
    Offers,
    /// The host's counters: an object.
    Counters,
    /// What the guest did wrong: `{"total", "kept": [text]}`.
    Violations,
    /// GPADLs that are up: `[number]`.
    Gpadls,
    /// How often the guest has released a relid since it was offered last: `{"times"}`.
    Released { relid: u32 },
    /// The last lines of the trace: `{"text"}`.
    Trace { lines: usize },
    /// What the host is like from now on.
    Configure(HostSettings),
    /// Connects to an hvsock service of the guest (a GUID, or a vsock port): `{"offer"}`.
    Connect { service: String, echoes: bool },
    /// Faults from now on, instead of those before, as `KIND:EFFECT:PERMILLE[:TIMES]`, such as `offer:delay=5ms:1000` or
    /// `ring:mutate:10`; none to end them.
    Faults { rules: Vec<String> },
    /// Spoils the rings of an open channel now; the fault's name, or `any`: `{"done"}`.
    Spoil { offer: u64, fault: String },
    /// Interrupts the guest with nothing new: a stray event flag.
    Interrupt { processor: u32, flag: u32 },
    /// Waits until something is true: `{"came"}`.
    Wait { until: Until, timeout_ms: u64 },
    /// Reads guest memory: `{"hex"}`, 4096 bytes at most.
    Peek { address: u64, bytes: u32 },
    /// Ends the guest as if its plug were pulled.
    Kill,
}
