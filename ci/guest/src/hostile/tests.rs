//! A host that spoils the rings while they are used: every end is one of the known ones, and the device works again.

use std::thread;

use clap::Parser;
use serde_json::Value;
use vmbus_simhost::fault::RingFault;
use vmbus_simhost::{Config, DeviceSpec};

use super::{HostileArgs, play};
use crate::bus::Selector;
use crate::say::Say;
use crate::testing::Stack;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: HostileArgs,
}

/// Plays against a host that spoils what `faults` names, in turn, while the storm lasts. The code, and the last line.
fn storm(seed: u64, faults: &[RingFault], words: &str) -> (anyhow::Result<u8>, Value) {
    let args = Line::try_parse_from(format!("hostile --silent-ms 100 {words}").split_whitespace()).unwrap().args;
    let stack = Stack::start(Config::seeded(seed).with_device(DeviceSpec::echo(1)));
    let (say, selector) = (Say::kept(), Selector::resolve("echo").unwrap());
    let id = stack.id(stack.find("echo").relid);
    let over = |say: &Say| say.lines().iter().any(|line| line["event"] == "recovering" || line["event"] == "end");
    let outcome = thread::scope(|scope| {
        let player = scope.spawn(|| play(&stack.vmbus, &selector, &args, &say));
        say.heard("storm");
        let mut turns = faults.iter().cycle();
        while !over(&say) && !player.is_finished() {
            let fault = *turns.next().unwrap();
            let packets = stack.control.with(move |sim| sim.host().count(id, "packets")).unwrap();
            // Some traffic between two faults, or a close that shows that there is none.
            let _ = stack.control.wait_for(std::time::Duration::from_millis(20), move |sim| {
                sim.host().count(id, "packets") > packets + 20
            });
            stack.control.with(move |sim| sim.spoil(id, fault)).unwrap();
        }
        player.join().unwrap()
    });
    stack.vmbus.shutdown().unwrap();
    (outcome, say.heard("end"))
}

#[test]
fn every_end_is_a_known_one_and_the_device_works_again() {
    for seed in 0..4 {
        let (outcome, end) = storm(seed, &RingFault::ALL, "--seconds 1");
        assert_eq!(outcome.unwrap(), 0, "seed {seed}: {end}");
        assert!(end["opened"].as_u64().unwrap() > 3 && end["received"].as_u64().unwrap() > 100, "seed {seed}: {end}");
        assert!(end["ends"]["corrupt"]["times"].as_u64().unwrap() > 0, "seed {seed}: {end}");
        let known = ["corrupt", "silent", "wrong", "failed"];
        assert!(
            end["ends"].as_object().unwrap().keys().all(|word| known.contains(&word.as_str())),
            "seed {seed}: {end}"
        );
        assert!(end["slowest_ms"].as_u64().unwrap() < 20_000, "seed {seed}: {end}");
    }
}

#[test]
fn the_first_trouble_can_be_the_last() {
    let (outcome, end) = storm(1, &[RingFault::WriteIndex], "--seconds 20 --once");
    assert_eq!(outcome.unwrap(), 1, "{end}");
    let first = end["ends"]["corrupt"]["first"].as_str().unwrap();
    assert!(first.contains("corrupt ring") && first.contains("device "), "{first}");
}

#[test]
fn a_device_that_stays_broken_is_an_error() {
    let stack = Stack::start(Config::seeded(1).with_device(DeviceSpec::echo(1)));
    let offer = stack.find("echo");
    // Opened by somebody else: not one channel can be had.
    let channel = stack.vmbus.open(offer.id, vmbus_channels::OpenOptions::default()).unwrap();
    let words = ["hostile", "--seconds", "0.05", "--recover-seconds", "0"];
    let (args, say) = (Line::try_parse_from(words).unwrap().args, Say::kept());
    let selector = Selector::resolve("echo").unwrap();
    let error = loop {
        // With no time at all even the offer may come too late.
        match play(&stack.vmbus, &selector, &args, &say) {
            Err(error) => break error,
            Ok(code) => assert_eq!(code, 1),
        }
    };
    assert!(!format!("{error:#}").is_empty());
    channel.close().unwrap();
    stack.end();
}
