//! The control socket from the other side: every call, bad lines, waits, and a peer that does not read.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crossbeam_channel::Receiver;
use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use tempfile::TempDir;
use vmbus::message::{GuestMessage, HostMessage, Version};
use vmbus_simhost::{Config, DeviceSpec};

use super::lines;
use super::wire::{Call, Outcome, Reply, Request};
use super::{Host, Serving, config};
use crate::bus::tests::guest::Guest;
use crate::ending::{Ender, Ending};
use crate::wires::tests::{FakeWires, PROCESSORS};

/// A bus with a guest, and a connection to its control socket.
struct World {
    guest: Guest,
    offers: Vec<(u32, Option<u8>)>,
    ended: Receiver<Ending>,
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    next: u64,
    folder: TempDir,
}

impl World {
    fn new(config: Config) -> Self {
        let (guest, offers) = Guest::connected(config, Version::V5_3);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("control");
        let (ender, ended) = Ender::new();
        let host = Host::new(&guest.bus, PROCESSORS, ender);
        Serving::start(&format!("unix:{}", path.display()), host).unwrap();
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { guest, offers, ended, stream, reader, next: 0, folder }
    }

    fn send(&mut self, call: &Value) -> u64 {
        self.next += 1;
        writeln!(self.stream, "{}", json!({ "id": self.next, "call": call })).unwrap();
        self.next
    }

    fn receive(&mut self) -> Reply {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn call(&mut self, call: &Value) -> Result<Value, String> {
        let id = self.send(call);
        let reply = self.receive();
        assert_eq!(reply.id, id, "{call}");
        match reply.outcome {
            Outcome::Ok(value) => Ok(value),
            Outcome::Error(why) => Err(why),
        }
    }

    fn ask(&mut self, call: &Value) -> Value {
        self.call(call).unwrap_or_else(|why| panic!("{call}: {why}"))
    }
}

fn echo() -> Config {
    Config::seeded(9).with_device(DeviceSpec::echo(1))
}

#[test]
fn every_call_is_answered() {
    let mut world = World::new(echo());
    assert_eq!(
        world.ask(&json!("hello")),
        json!({ "version": env!("CARGO_PKG_VERSION"), "seed": 9, "processors": PROCESSORS, "protocol": "5.3" })
    );
    let offer = json!({ "offer": { "kind": "pipe", "number": 4, "monitored": true, "settings": { "echoes": 1 } } });
    let pipe = world.ask(&offer)["offer"].as_u64().unwrap();
    assert!(matches!(world.guest.hear(), HostMessage::Offer(offer) if offer.monitor_id == Some(0)));
    let all = world.ask(&json!("offers"));
    assert_eq!((&all[1]["offer"], &all[1]["relid"], &all[1]["state"]), (&json!(pipe), &json!(2), &json!("offered")));
    let subchannel = world.ask(&json!({ "subchannel": { "offer": pipe } }))["offer"].as_u64().unwrap();
    assert!(matches!(world.guest.hear(), HostMessage::Offer(offer) if offer.subchannel_index == 1));

    assert_eq!(world.ask(&json!({ "command": { "offer": 1, "words": "hold" } })), Value::Null);
    assert!(world.call(&json!({ "command": { "offer": 1, "words": "dance" } })).unwrap_err().contains("an echo takes"));
    assert_eq!(world.ask(&json!({ "report": { "offer": 1 } }))["packets"], 0);
    assert_eq!(world.ask(&json!("counters"))["offers"], 3);
    assert_eq!(world.ask(&json!("violations")), json!({ "total": 0, "kept": [] }));
    assert_eq!(world.ask(&json!("gpadls")), json!([]));
    assert_eq!(world.ask(&json!({ "trace": { "lines": 1 } }))["text"].as_str().unwrap().lines().count(), 1);

    assert_eq!(world.ask(&json!({ "rescind": { "offer": subchannel } })), Value::Null);
    assert_eq!(world.guest.hear(), HostMessage::Rescind { relid: 3 });
    world.guest.post(&GuestMessage::RelidReleased { relid: 3 });
    let gone = json!({ "state": { "offer": subchannel, "state": "gone" } });
    assert_eq!(world.ask(&json!({ "wait": { "until": gone, "timeout_ms": 20_000 } })), json!({ "came": true }));
    assert_eq!(world.ask(&json!({ "released": { "relid": 3 } })), json!({ "times": 1 }));
    assert_eq!(world.ask(&json!("ended"))[0]["offer"], subchannel);
    assert_eq!(world.ask(&json!({ "rescind-device": { "offer": pipe } })), Value::Null);
    assert_eq!(world.guest.hear(), HostMessage::Rescind { relid: 2 });
    assert_eq!(world.ask(&json!({ "reoffer": { "offer": 1 } })), Value::Null);
    assert_eq!(world.guest.hear(), HostMessage::Rescind { relid: 1 });
    world.guest.post(&GuestMessage::RelidReleased { relid: 1 });
    assert!(matches!(world.guest.hear(), HostMessage::Offer(offer) if offer.relid == 1));

    let settings = json!({ "versions": ["5.2", "4.0"], "services": ["5000"], "tolerated": ["released-twice"],
        "latency_us": null, "careless": true });
    assert_eq!(world.ask(&json!({ "configure": without_nulls(settings) })), Value::Null);
    assert_eq!(world.ask(&json!({ "faults": { "rules": ["offer:delay=5ms:1000", "ring:mutate:10:3"] } })), Value::Null);
    assert_eq!(world.ask(&json!({ "faults": { "rules": [] } })), Value::Null);
    assert_eq!(world.ask(&json!({ "spoil": { "offer": 1, "fault": "any" } })), json!({ "done": false }));
    assert_eq!(world.ask(&json!({ "interrupt": { "processor": 0, "flag": 7 } })), Value::Null);
    assert!(world.guest.wires.wait(0, 2));
    // The last hypercall's input: the connection that was posted to.
    assert_eq!(world.ask(&json!({ "peek": { "address": 4096, "bytes": 4 } })), json!({ "hex": "04000000" }));
    assert!(world.ask(&json!({ "connect": { "service": "6000", "echoes": true } }))["offer"].is_u64());
    assert_eq!(world.ask(&json!("kill")), Value::Null);
    assert_eq!(world.ended.recv_timeout(Duration::from_secs(20)), Ok(Ending::Killed));
}

fn without_nulls(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.replace('_', "-"), value))
        .collect()
}

#[test]
fn bad_lines_are_told_so_and_the_next_is_read() {
    let mut world = World::new(echo());
    let long = format!("{{\"id\":9,\"call\":\"{}\"}}", "x".repeat(lines::LINE_AT_MOST));
    for (line, id, why) in [
        ("nonsense", 0, "no request"),
        ("{\"id\":3}", 3, "no request"),
        ("{\"id\":4,\"call\":\"dance\"}", 4, "no request"),
        ("{\"id\":5,\"call\":{\"offer\":{\"kind\":\"toaster\"}}}", 5, "no kind of device"),
        ("{\"id\":6,\"call\":{\"offer\":{\"kind\":\"echo\",\"settings\":{\"cheats\":1}}}}", 6, "no setting `cheats`"),
        ("{\"id\":7,\"call\":{\"rescind\":{\"offer\":77}}}", 7, "no such offer"),
        ("{\"id\":8,\"call\":{\"peek\":{\"address\":18446744073709551615,\"bytes\":4096}}}", 8, "no memory"),
        ("{\"id\":9,\"call\":{\"peek\":{\"address\":0,\"bytes\":4097}}}", 9, "more than"),
        (&long, 0, "bytes at most"),
        ("{\"id\":10,\"call\":{\"configure\":{\"devices\":[{\"kind\":\"echo\"}]}}}", 10, "for the start"),
        ("{\"id\":11,\"call\":{\"configure\":{\"versions\":[\"7.0\"]}}}", 11, "does not know"),
        (
            "{\"id\":12,\"call\":{\"wait\":{\"until\":{\"counter\":{\"name\":\"x\",\"at_least\":0}},\"timeout_ms\":1}}}",
            12,
            "no counter",
        ),
        ("{\"id\":13,\"call\":{\"faults\":{\"rules\":[\"offer:delay=5y:1\"]}}}", 13, "no time"),
        ("\u{0}\u{1}", 0, "no request"),
    ] {
        writeln!(world.stream, "\n{line}").unwrap();
        let reply = world.receive();
        let Outcome::Error(text) = reply.outcome else { panic!("{line} was answered") };
        assert!(reply.id == id && text.contains(why), "{line}: {} {text}", reply.id);
    }
    world.stream.write_all(b"\xff\xfe\n").unwrap();
    assert!(matches!(world.receive().outcome, Outcome::Error(_)));
    assert_eq!(world.ask(&json!("hello"))["seed"], 9);
}

#[test]
fn a_wait_keeps_nobody_waiting() {
    let mut world = World::new(echo());
    let open = json!({ "state": { "offer": 1, "state": "open" } });
    let waits = world.send(&json!({ "wait": { "until": open, "timeout_ms": 20_000 } }));
    assert_eq!(world.ask(&json!("hello"))["seed"], 9);
    let offer = world.offers[0];
    let _open = world.guest.open(offer);
    let reply = world.receive();
    assert!(reply.id == waits && matches!(reply.outcome, Outcome::Ok(value) if value == json!({ "came": true })));
    let never =
        json!({ "wait": { "until": { "report": { "offer": 1, "name": "packets", "at_least": 1 } }, "timeout_ms": 1 } });
    assert_eq!(world.ask(&never), json!({ "came": false }));
    for until in [json!("quiet"), json!("connected"), json!({ "counter": { "name": "opens", "at_least": 1 } })] {
        assert_eq!(world.ask(&json!({ "wait": { "until": until, "timeout_ms": 20_000 } })), json!({ "came": true }));
    }
}

#[test]
fn there_are_so_many_waits_and_no_more() {
    let mut world = World::new(echo());
    let never =
        json!({ "wait": { "until": { "report": { "offer": 1, "name": "x", "at_least": 1 } }, "timeout_ms": 20_000 } });
    let mut replies = Vec::new();
    for _ in 0..65 {
        world.send(&never);
    }
    replies.push(world.receive());
    assert!(matches!(&replies[0].outcome, Outcome::Error(why) if why.contains("64 waits")), "{replies:?}");
}

#[test]
fn a_channel_is_taken_back_in_the_middle_of_its_opening() {
    let mut world = World::new(echo());
    world.ask(&json!({ "configure": { "latency-us": [20_000_000, 0, 0, 0] } }));
    let opening = json!({ "state": { "offer": 1, "state": "opening" } });
    assert_eq!(world.ask(&json!({ "rescind-when": { "offer": 1, "until": opening } })), Value::Null);
    let (relid, _) = world.offers[0];
    world.guest.start_to_open(relid);
    assert_eq!(world.guest.hear(), HostMessage::Rescind { relid });
}

#[test]
fn the_pages_of_rings_are_told_while_they_are_open() {
    let mut world = World::new(echo());
    let pages = |world: &mut World| world.ask(&json!({ "ring-pages": { "offer": 1 } }));
    assert_eq!(pages(&mut world), json!([]));
    let (_, shared) = world.guest.start_to_open(world.offers[0].0);
    let open = json!({ "state": { "offer": 1, "state": "open" } });
    assert_eq!(world.ask(&json!({ "wait": { "until": open, "timeout_ms": 20_000 } })), json!({ "came": true }));
    let addresses: Vec<u64> = shared.iter().map(|page| page * 4096).collect();
    assert_eq!(pages(&mut world), json!(addresses));
    world.ask(&json!({ "rescind": { "offer": 1 } }));
    assert_eq!(pages(&mut world), json!([]));
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from() {
    let mut world = World::new(echo());
    world.stream.set_nonblocking(true).unwrap();
    let line = b"{\"id\":1,\"call\":\"counters\"}\n".repeat(100);
    let (mut sent, patience) = (0_usize, Timespec { tv_sec: 1, tv_nsec: 0 });
    // Full for so long: it is not being read.
    while poll(&mut [PollFd::new(&world.stream, PollFlags::OUT)], Some(&patience)).unwrap() != 0 {
        sent += world.stream.write(&line).unwrap();
        assert!(sent < 2 << 20, "{sent} bytes of requests and nobody read a reply");
    }
    // Others are served meanwhile.
    let mut other = UnixStream::connect(world.folder.path().join("control")).unwrap();
    other.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    writeln!(other, "{{\"id\":2,\"call\":\"hello\"}}").unwrap();
    let mut line = String::new();
    BufReader::new(other).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"id\":2,\"ok\":"), "{line}");
}

#[test]
fn settings_of_the_start_are_understood_or_refused() {
    let parse = |text: &str| config(&serde_json::from_str(text).unwrap());
    let all = parse(
        r#"{"seed": 5, "versions": ["5.3", "3.0"], "services": ["5000", "9d1f7c52-41e3-4c0e-8e57-b1a6f0c2d983"],
            "tolerated": [], "latency-us": [1, 2, 3, 4], "refusals-permille": [10, 20], "features": 3, "careless": true,
            "devices": [{"kind": "echo", "number": 1, "settings": {"asks": 1, "greets": 3}}, {"kind": "mute"},
                {"kind": "dynamic-memory", "settings": {"version": 65536}}, {"kind": "buffers",
                "class": "f8615163-df3e-46c5-913f-f2d2f965ed0e", "instance": "9d1f7c52-41e3-4c0e-8e57-b1a6f0c2d983"}]}"#,
    )
    .unwrap();
    assert_eq!((all.seed, all.versions.len(), all.services.len(), all.devices.len()), (5, 2, 2, 4));
    assert_eq!(all.services[0].to_string(), "00001388-facb-11e6-bd58-64006a7986d3");
    assert_eq!((all.latency.modify, all.refusals.gpadl_permille), (Duration::from_micros(4), 20));
    assert!(all.tolerated.is_empty() && all.careless && !parse("{}").unwrap().tolerated.is_empty());
    for bad in [
        r#"{"versions": ["5"]}"#,
        r#"{"services": ["-1"]}"#,
        r#"{"tolerated": ["laziness"]}"#,
        r#"{"refusals-permille": [0, 1001]}"#,
        r#"{"devices": [{"kind": "echo", "class": "x"}]}"#,
        r#"{"devices": [{"kind": "echo", "settings": {"greets": 4294967296}}]}"#,
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_request_is_the_same_on_both_ends() {
    let request = Request { id: 3, call: Call::Wait { until: super::wire::Until::Quiet, timeout_ms: 5 } };
    let line = serde_json::to_string(&request).unwrap();
    assert_eq!(line, r#"{"id":3,"call":{"wait":{"until":"quiet","timeout_ms":5}}}"#);
    assert!(matches!(lines::parse(line.as_bytes()), Some(Ok(Request { id: 3, call: Call::Wait { .. } }))));
}

/// A call as somebody might get it wrong.
fn any_call() -> impl Strategy<Value = Value> {
    let number = prop_oneof![0_u64..4, any::<u64>()].prop_map(Value::from);
    let word = prop_oneof![
        "[a-z:=-]{0,12}",
        Just("open".to_owned()),
        Just("any".to_owned()),
        Just("echo".to_owned()),
        Just("5000".to_owned()),
        Just("send 3".to_owned()),
        Just("offer:drop:1000".to_owned())
    ]
    .prop_map(Value::from);
    let name = prop::sample::select(vec![
        "hello",
        "offer",
        "subchannel",
        "rescind",
        "rescind-device",
        "reoffer",
        "rescind-when",
        "command",
        "report",
        "offers",
        "ended",
        "counters",
        "violations",
        "gpadls",
        "ring-pages",
        "released",
        "trace",
        "configure",
        "connect",
        "faults",
        "spoil",
        "interrupt",
        "peek",
    ]);
    (name, prop::collection::vec(number, 4), prop::collection::vec(word, 4), any::<bool>()).prop_map(
        |(name, numbers, words, flag)| {
            let until = json!({ "state": { "offer": numbers[1], "state": words[1] } });
            let fields = match name {
                "hello" | "offers" | "ended" | "counters" | "violations" | "gpadls" => return json!(name),
                "offer" => json!({ "kind": words[0], "number": numbers[0], "monitored": flag }),
                "rescind-when" => json!({ "offer": numbers[0], "until": until }),
                "command" => json!({ "offer": numbers[0], "words": words[0] }),
                "released" => json!({ "relid": numbers[0] }),
                "trace" => json!({ "lines": numbers[0] }),
                "configure" => json!({ "services": words, "features": numbers[0] }),
                "connect" => json!({ "service": words[0], "echoes": flag }),
                "faults" => json!({ "rules": words }),
                "spoil" => json!({ "offer": numbers[0], "fault": words[0] }),
                "interrupt" => json!({ "processor": numbers[0], "flag": numbers[1] }),
                "peek" => json!({ "address": numbers[0], "bytes": numbers[1] }),
                _ => json!({ "offer": numbers[0] }),
            };
            json!({ name: fields })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Calls in any order with any arguments: each has an answer, and the bus lives on.
    #[test]
    fn no_call_breaks_the_host(calls in prop::collection::vec(any_call(), 1..40)) {
        let guest = Guest::new(echo(), FakeWires::new());
        let host = Host::new(&guest.bus, PROCESSORS, Ender::new().0);
        for call in calls {
            if let Ok(call) = serde_json::from_value::<Call>(call) {
                let _ = host.run(call);
            }
        }
        prop_assert!(host.run(Call::Hello).is_ok());
    }

    #[test]
    fn no_line_panics(line in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[{}\\[\\]\":,a-z0-9-]{0,80}".prop_map(String::into_bytes),
        any_call().prop_map(|call| json!({ "id": 1, "call": call }).to_string().into_bytes()),
    ]) {
        let _ = lines::parse(&line);
        let mut text = Vec::new();
        let mut reader = std::io::Cursor::new(line);
        while lines::read(&mut reader, &mut text).unwrap() != lines::Line::End {}
    }
}
