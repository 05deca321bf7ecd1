//! Subchannels over the simulated host, which says when a channel is taken back; silence is a device that holds its tongue.

use std::thread;

use clap::Parser;
use serde_json::Value;
use vmbus_simhost::{Config, DeviceSpec, OfferId};

use super::{Mover, SubchannelsArgs, play};
use crate::say::Say;
use crate::testing::Stack;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: SubchannelsArgs,
}

struct Game {
    stack: Stack,
    say: Say,
    primary: OfferId,
}

impl Game {
    /// Offers a subchannel once the program has the device open.
    fn subchannel(&self) -> OfferId {
        self.say.heard("open");
        let primary = self.primary;
        self.stack.control.with(move |sim| sim.host().offer_subchannel(primary)).unwrap().unwrap()
    }
}

/// Plays while `host` does what the host does. The exit code, and the last line.
fn game(words: &str, host: impl FnOnce(&Game)) -> (anyhow::Result<u8>, Say) {
    let args = Line::try_parse_from(format!("subchannels {words}").split_whitespace()).unwrap().args;
    let stack = Stack::start(Config::seeded(6).with_device(DeviceSpec::echo(1)));
    let offer = stack.find("echo");
    let primary = stack.id(offer.relid);
    let game = Game { stack, say: Say::kept(), primary };
    let outcome = thread::scope(|scope| {
        let mover = Mover::by_bus(2);
        let (vmbus, offer, args, say) = (&game.stack.vmbus, &offer, &args, &game.say);
        let player = scope.spawn(move || play(vmbus, offer, args, &mover, say));
        host(&game);
        player.join().unwrap()
    });
    game.stack.end();
    (outcome, game.say)
}

fn hows(end: &Value) -> Vec<&str> {
    end["channels"].as_array().unwrap().iter().map(|channel| channel["how"].as_str().unwrap()).collect()
}

#[test]
fn all_channels_talk_while_they_are_moved() {
    for words in ["", "--noisy", "--retarget-ms 2"] {
        let (code, say) = game(&format!("--expect 3 --seconds 0.3 {words}"), |game| {
            (0..3).for_each(|_| {
                game.subchannel();
            });
        });
        assert_eq!(code.unwrap(), 0);
        let end = say.heard("end");
        assert_eq!(hows(&end), ["done"; 4], "{end}");
        for channel in end["channels"].as_array().unwrap() {
            assert!(channel["received"].as_u64().unwrap() > 0 && channel["sent"] == channel["received"], "{end}");
        }
        let moves = end["moves"].as_u64().unwrap();
        assert_eq!(moves > 10, words.starts_with("--retarget"), "{end}");
        assert_eq!(end["refused_moves"], Value::Array(Vec::new()), "{end}");
    }
}

#[test]
fn a_channel_that_falls_silent_is_told_and_closed() {
    let (code, say) = game("--expect 2 --silent-ms 300 --seconds 2", |game| {
        let first = game.subchannel();
        game.subchannel();
        game.say.heard("traffic");
        game.stack.control.command(first, "hold").unwrap();
    });
    assert_eq!(code.unwrap(), 0);
    let end = say.heard("end");
    assert_eq!((hows(&end), end["silent"].as_u64()), (vec!["done", "silent", "done"], Some(1)), "{end}");
    assert_eq!(end["channels"][1]["known_gone"], false);
    assert_eq!(end["channels"][1]["close_error"], Value::Null);
    assert_eq!(say.heard("silent")["subchannel"], 1);
}

#[test]
fn a_subchannel_that_is_taken_back_leaves_the_others_alone() {
    let (code, say) = game("--expect 2 --seconds 1", |game| {
        let first = game.subchannel();
        game.subchannel();
        game.say.heard("traffic");
        game.stack.control.rescind(first).unwrap();
    });
    assert_eq!(code.unwrap(), 0);
    let end = say.heard("end");
    assert_eq!(hows(&end), ["done", "rescinded", "done"], "{end}");
}

#[test]
fn the_device_takes_its_subchannels_along() {
    let (code, say) = game("--expect 2 --until-silent", |game| {
        (0..2).for_each(|_| {
            game.subchannel();
        });
        game.say.heard("traffic");
        let primary = game.primary;
        game.stack.control.with(move |sim| sim.host().rescind_device(primary)).unwrap().unwrap();
    });
    assert_eq!(code.unwrap(), 6);
    assert_eq!(hows(&say.heard("end")), ["rescinded"; 3]);
}

#[test]
fn too_few_subchannels_are_an_error() {
    let (code, _) = game("--expect 2 --patience-seconds 1", |game| {
        game.subchannel();
    });
    assert!(code.unwrap_err().to_string().contains("1 of 2 subchannels"));
}
