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
    /// Whether it does what no honest host does when it is told to: offers an instance twice, rescinds a primary channel
    /// before its subchannels.
    pub careless: Option<bool>,
    /// Kinds of violations that are counted and not held against the guest; what Linux is known to do, if nothing is said.
    pub tolerated: Option<Vec<String>>,
    /// Longest time over OPEN, GPADL, teardown, MODIFYCHANNEL, in microseconds.
    pub latency_us: Option<[u64; 4]>,
    /// How often OPEN and GPADLs are refused, of a thousand times.
    pub refusals_permille: Option<[u16; 2]>,
    /// Feature flags of 6.0 that the host knows, as bits.
    pub features: Option<u32>,
    /// How often monitor pages are looked at, in microseconds; only at the start.
    pub monitor_latency_us: Option<u64>,
}

/// A device to be offered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Device {
    /// `echo`, `pipe`, `dynamic-memory`, `buffers` or `mute`.
    pub kind: String,
    /// Makes the instance GUID, with the kind.
    pub number: u64,
    /// Another class than the kind's own, as a GUID: a NIC's, for instance, so that the kernel makes its buffers.
    pub class: Option<String>,
    /// Another instance than the number's.
    pub instance: Option<String>,
    /// Whether it gets a monitor id.
    pub monitored: bool,
    /// Settings of the kind, by name: `asks`, `interrupts-idly`, `greets` of `echo`; `echoes`, `packet-bytes` of `pipe`;
    /// `suppresses-status`, `max-pages`, `version` (the highest) of `dynamic-memory`. Of any kind: `mmio-megabytes`,
    /// `flags`.
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
    State {
        /// Which.
        offer: u64,
        /// One of those above.
        state: String,
    },
    /// A counter (see [`Call::Counters`]) has at least this value.
    Counter {
        /// Which.
        name: String,
        /// Since the machine was started.
        at_least: u64,
    },
    /// A device's number (see [`Call::Report`]) has at least this value.
    Report {
        /// Whose.
        offer: u64,
        /// Which.
        name: String,
        /// Or more.
        at_least: u64,
    },
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
    Subchannel {
        /// Of whose.
        offer: u64,
    },
    /// Takes one channel back.
    Rescind {
        /// Which.
        offer: u64,
    },
    /// Takes a device back, subchannels first.
    RescindDevice {
        /// Any channel of it.
        offer: u64,
    },
    /// Takes a channel back and offers it again on the same relid in the moment of its release.
    Reoffer {
        /// Which.
        offer: u64,
    },
    /// Takes a channel back as soon as something is true, between two things that happen; answers at once. A channel that
    /// is gone by then is left alone.
    RescindWhen {
        /// Which.
        offer: u64,
        /// When.
        until: Until,
    },
    /// Says something to a device, in its own words.
    Command {
        /// Whose.
        offer: u64,
        /// Such as `send 5` to an `echo`.
        words: String,
    },
    /// A device's numbers: an object.
    Report {
        /// Whose.
        offer: u64,
    },
    /// All channels: `[{"offer", "relid", "class", "instance", "subchannel", "state", "processor", "monitor"}]`.
    Offers,
    /// Channels that were rescinded and released, the last ones: `[{"offer", "class", "instance", "subchannel", "report"}]`.
    Ended,
    /// The host's counters: an object.
    Counters,
    /// What the guest did wrong: `{"total", "kept": [text]}`.
    Violations,
    /// GPADLs that are up: `[number]`.
    Gpadls,
    /// Guest physical addresses of the pages of an open channel's rings, the outgoing one first: `[address]`.
    RingPages {
        /// Whose.
        offer: u64,
    },
    /// How often the guest has released a relid since it was offered last: `{"times"}`.
    Released {
        /// Which.
        relid: u32,
    },
    /// The last lines of the trace: `{"text"}`.
    Trace {
        /// How many.
        lines: usize,
    },
    /// What the host is like from now on.
    Configure(HostSettings),
    /// Connects to an hvsock service of the guest (a GUID, or a vsock port): `{"offer"}`.
    Connect {
        /// Which.
        service: String,
        /// Whether the host sends back what it gets.
        echoes: bool,
    },
    /// Faults from now on, instead of those before, as `KIND:EFFECT:PERMILLE[:TIMES]`, such as `offer:delay=5ms:1000` or
    /// `ring:mutate:10`; none to end them. Kinds: a message's name, `host`, `guest`, `interrupt`, `signal`, `ring`.
    /// Effects: `drop`, `delay=TIME`, `duplicate`, `reorder=BY`, `truncate`, `corrupt`, `mutate`, `inline`.
    Faults {
        /// In order.
        rules: Vec<String>,
    },
    /// Spoils the rings of an open channel now; the fault's name, or `any`: `{"done"}`.
    Spoil {
        /// Which.
        offer: u64,
        /// Such as `write-index`.
        fault: String,
    },
    /// Interrupts the guest with nothing new: a stray event flag.
    Interrupt {
        /// Virtual processor.
        processor: u32,
        /// Below 2048: a relid.
        flag: u32,
    },
    /// Waits until something is true: `{"came"}`.
    Wait {
        /// For what.
        until: Until,
        /// How long at most.
        timeout_ms: u64,
    },
    /// Reads guest memory: `{"hex"}`, 4096 bytes at most.
    Peek {
        /// Guest physical.
        address: u64,
        /// How many.
        bytes: u32,
    },
    /// Ends the guest as if its plug were pulled.
    Kill,
}
