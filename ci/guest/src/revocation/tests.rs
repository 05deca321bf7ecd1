//! The writers over the simulated host, and what the checker finds.

use std::thread;

use clap::Parser;
use vmbus::wire::{Settings as Wire, WireLink};
use vmbus_simhost::{Config, DeviceSpec, Server, ServerSettings};

use super::memory::{Damage, Frames, Taken};
use super::{RevocationArgs, play};
use crate::hammer::PATTERNS;
use crate::raw::Raw;
use crate::say::Say;
use crate::testing::LONG;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: RevocationArgs,
}

#[test]
fn late_writes_land_nowhere() {
    let config = Config::seeded(1).with_device(DeviceSpec::echo(1));
    let (_server, control, socket) = Server::in_process(config, ServerSettings::default()).unwrap();
    let link = WireLink::over(socket, Wire { processors: 1, memory_bytes: 64 << 20 }).unwrap();
    let mut raw = Raw::over(Box::new(link)).unwrap();
    let words = ["revocation", "1", "--check-seconds", "0.2", "--most-mib", "16", "--rounds", "2"];
    let (args, say) = (Line::try_parse_from(words).unwrap().args, Say::kept());
    let code = thread::scope(|scope| {
        let player = scope.spawn(|| play(&mut raw, 1, &args, &say));
        say.heard("writing");
        let id = control.with(|sim| sim.host().offered()[0].id).unwrap();
        control.rescind(id).unwrap();
        player.join().unwrap()
    });
    let end = say.heard("end");
    assert_eq!(code.unwrap(), 6, "{end}");
    assert_eq!((end["memory"]["words"].as_u64(), end["memory"]["taken_mib"].as_u64()), (Some(0), Some(16)), "{end}");
    assert!(end["memory"]["checks"].as_u64().unwrap() >= 2 && end["passes_after"].as_u64().unwrap() > 0, "{end}");
    assert!(control.wait_for(LONG, |sim| sim.host().released(1) == 1).unwrap());
    assert!(control.wait_quiet(LONG).unwrap());
    assert_eq!(control.violations().unwrap(), []);
}

#[test]
fn a_word_of_the_writers_is_found_once_and_told_from_others() {
    let mut taken = Taken::all(0, 3).unwrap();
    let mut found = Damage::default();
    taken.check(&mut found);
    assert_eq!((found.words, found.checks, found.taken_mib), (0, 1, 3));
    taken.chunks()[2][77] = PATTERNS[1];
    taken.chunks()[0][0] = 5;
    taken.check(&mut found);
    taken.check(&mut found);
    assert_eq!((found.words, found.of_writers, found.first.as_deref()), (2, 1, Some("0x5")));
}

#[test]
fn nobody_holds_frames_that_are_not_told() {
    assert_eq!(Taken::all(0, 1).unwrap().holds(&Frames::none()), 0);
}
