//! The cycles over the simulated host: all ways in which a device goes, and what is left of it.

use std::thread;

use clap::Parser;
use vmbus_simhost::{Config, DeviceSpec};

use super::{Binding, CyclesArgs, play};
use crate::bus::Selector;
use crate::say::Say;
use crate::testing::{LONG, Stack};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: CyclesArgs,
}

/// Plays, with a host that offers the same instance again in the moment of its release.
fn cycles(words: &str) -> (anyhow::Result<()>, Say) {
    let words = format!("cycles --bind none --slack-kib 1000000 --slack-handles 1000 {words}");
    let args = Line::try_parse_from(words.split_whitespace()).unwrap().args;
    let stack = Stack::start(Config::seeded(5));
    let (say, selector) = (Say::kept(), Selector::resolve("echo").unwrap());
    let outcome = thread::scope(|scope| {
        let player = scope.spawn(|| {
            let mut binding = Binding::begin(args.bind, &selector).unwrap();
            play(&stack.vmbus, &selector, &args, &mut binding, &say)
        });
        say.heard("waiting");
        let id = stack.control.offer(DeviceSpec::echo(1)).unwrap();
        let total = args.warm_up + args.count;
        for cycle in 1..=total {
            let during = args.during.of_cycle(cycle);
            let packets = if during == super::During::Opening { 0 } else { args.packets };
            let came = stack.control.wait_for(LONG, move |sim| {
                let (state, at) = (sim.host().state(id), sim.host().count(id, "packets"));
                // Who closes by itself may have done so.
                let there =
                    if during == super::During::Closing { state != Some("rescinded") } else { state == Some("open") };
                there && at >= packets
            });
            assert!(came.unwrap(), "cycle {cycle}, {during:?}: {}", stack.control.trace().unwrap());
            if cycle == total { stack.control.rescind(id).unwrap() } else { stack.control.reoffer(id).unwrap() }
        }
        player.join().unwrap()
    });
    if outcome.is_ok() {
        assert_eq!(stack.control.released(1).unwrap(), 1, "the relid, since it was offered last");
        stack.end();
    }
    (outcome, say)
}

#[test]
fn a_device_that_comes_and_goes_leaves_nothing() {
    for during in ["opening", "idle", "load", "closing"] {
        let (outcome, say) = cycles(&format!("--count 20 --warm-up 5 --during {during}"));
        outcome.unwrap();
        let end = say.heard("end");
        assert_eq!((end["cycles"].as_u64(), end["odd"].as_array().map(Vec::len)), (Some(25), Some(0)), "{end}");
        assert_eq!(end["opened"].as_u64().unwrap() + end["too_late"].as_u64().unwrap(), 25, "{end}");
        assert!(end["before"]["descriptors"].is_u64() && end["after"]["free_kib"].is_i64(), "{end}");
        let expected = if during == "closing" { "closed" } else { "rescinded" };
        assert!(end["ended"][expected].as_u64().unwrap() > 0, "{end}");
    }
}

#[test]
fn the_ways_take_turns_and_progress_is_told() {
    let (outcome, say) = cycles("--count 96 --warm-up 4");
    outcome.unwrap();
    let told: Vec<_> =
        say.lines().iter().filter(|line| line["event"] == "cycles").map(|line| line["done"].clone()).collect();
    assert_eq!(told, [50, 100]);
    let end = say.heard("end");
    assert!(end["ended"]["rescinded"].as_u64().unwrap() >= 50 && end["received"].as_u64().unwrap() > 0, "{end}");
}

#[test]
fn a_device_that_does_not_come_is_an_error() {
    let stack = Stack::start(Config::seeded(1));
    let args = Line::try_parse_from(["cycles", "--bind", "none", "--patience-seconds", "0"]).unwrap().args;
    let selector = Selector::resolve("echo").unwrap();
    let mut binding = Binding::begin(args.bind, &selector).unwrap();
    let error = play(&stack.vmbus, &selector, &args, &mut binding, &Say::kept()).unwrap_err();
    assert!(format!("{error:#}").contains("no device was offered"), "{error:#}");
    stack.end();
}
