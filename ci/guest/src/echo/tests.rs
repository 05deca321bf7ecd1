//! The echo program over the simulated host: replies are counted and checked, and the end of the device is told.

use std::thread;

use clap::Parser;
use vmbus_simhost::device::{Echo, EchoSettings};
use vmbus_simhost::fault::RingFault;
use vmbus_simhost::{Config, DeviceSpec};

use super::{Load, play};
use crate::bus::ECHO;
use crate::say::Say;
use crate::testing::Stack;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    load: Load,
}

fn load(words: &str) -> Load {
    Line::try_parse_from(format!("echo {words}").split_whitespace()).unwrap().load
}

fn stack(spec: DeviceSpec) -> Stack {
    Stack::start(Config::seeded(1).with_device(spec))
}

#[test]
fn the_class_is_the_hosts() {
    assert_eq!(ECHO, Echo::CLASS);
}

#[test]
fn every_packet_comes_back_whatever_the_way() {
    for words in ["", "--poll", "--batch 32", "--batch 32 --poll --bytes 4000", "--completions --batch 4", "--bytes 1"]
    {
        let stack = stack(DeviceSpec::echo(1));
        let say = Say::kept();
        let offer = stack.find("echo");
        assert_eq!(play(&stack.vmbus, &offer, &load(&format!("--count 500 {words}")), &say).unwrap(), 0, "{words}");
        let end = say.heard("end");
        assert_eq!((end["sent"].as_u64(), end["received"].as_u64()), (Some(500), Some(500)), "{words}");
        assert!(end["per_second"].as_f64().unwrap() > 1.0, "{end}");
        assert!(end["round_trip_ns"]["p50"].as_u64() <= end["round_trip_ns"]["p99"].as_u64(), "{end}");
        assert_eq!(count(&stack, "packets"), 500);
        stack.end();
    }
}

/// A number of the only device, as the host counts it.
fn count(stack: &Stack, name: &'static str) -> u64 {
    let of_first = move |host: &vmbus_simhost::Host<_>| host.count(host.offered()[0].id, name);
    stack.control.with(move |sim| of_first(sim.host())).unwrap()
}

#[test]
fn completions_that_the_host_asks_for_are_answered() {
    let spec = DeviceSpec::echo_with(1, EchoSettings { asks: true, ..EchoSettings::default() });
    let stack = stack(spec);
    let offer = stack.find("echo");
    let say = Say::kept();
    assert_eq!(play(&stack.vmbus, &offer, &load("--count 300 --batch 8 --asks"), &say).unwrap(), 0);
    assert_eq!(say.heard("end")["asked"], 300);
    assert_eq!(count(&stack, "completions"), 300);
    // A host that does not ask is noticed.
    stack.end();
    let stack = self::stack(DeviceSpec::echo(1));
    assert!(play(&stack.vmbus, &stack.find("echo"), &load("--count 3 --asks"), &Say::kept()).is_err());
}

#[test]
fn a_monitor_bit_is_said_to_signal() {
    let stack = stack(DeviceSpec::echo(1).with_monitor());
    let say = Say::kept();
    assert_eq!(play(&stack.vmbus, &stack.find("echo"), &load("--count 20"), &say).unwrap(), 0);
    assert!(say.heard("open")["signals_by"].as_str().unwrap().starts_with("monitor bit "));
    let counters = stack.control.counters().unwrap();
    assert!(counters.monitor_signals > 0, "{counters:?}");
    stack.end();
}

#[test]
fn a_rescind_ends_it_with_six() {
    let stack = stack(DeviceSpec::echo(1));
    let (say, offer) = (Say::kept(), stack.find("echo"));
    let id = stack.id(offer.relid);
    let code = thread::scope(|scope| {
        let player = scope.spawn(|| play(&stack.vmbus, &offer, &load("--batch 8"), &say).unwrap());
        say.heard("traffic");
        stack.await_count(id, "packets", 100);
        stack.control.rescind(id).unwrap();
        player.join().unwrap()
    });
    let end = say.heard("end");
    assert_eq!((code, &end["how"]), (6, &"rescinded".into()), "{end}");
    assert!(end["received"].as_u64().unwrap() >= 50 && end["sent"].as_u64() >= end["received"].as_u64(), "{end}");
    stack.end();
}

/// What a host of ill will does to the bytes of a reply, and to the ring itself, is told apart, and is no rescind.
#[test]
fn wrong_replies_and_corrupt_rings_end_it_with_one() {
    // The seeds are not alike in what they spoil: some values do no harm.
    let mut words = std::collections::BTreeSet::new();
    for seed in 0..20 {
        for fault in [RingFault::WriteIndex, RingFault::PacketHead] {
            let stack = Stack::start(Config::seeded(seed).with_device(DeviceSpec::echo(1)));
            let (say, offer) = (Say::kept(), stack.find("echo"));
            let id = stack.id(offer.relid);
            let load = load("--seconds 0.3 --patience-ms 200");
            let code = thread::scope(|scope| {
                let player = scope.spawn(|| play(&stack.vmbus, &offer, &load, &say).unwrap());
                say.heard("traffic");
                stack.control.with(move |sim| sim.spoil(id, fault)).unwrap();
                player.join().unwrap()
            });
            let end = say.heard("end");
            let how = end["how"].as_str().unwrap().to_owned();
            assert_eq!(code, u8::from(how != "done"), "seed {seed}: {end}");
            if how == "corrupt" {
                let error = end["error"].as_str().unwrap();
                assert!(error.contains(&offer.instance.to_string()) && error.contains("is"), "{error}");
            }
            words.insert(how);
        }
    }
    assert!(words.contains("corrupt"), "{words:?}");
}
