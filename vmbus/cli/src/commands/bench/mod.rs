//! `vmbusctl bench socket`: VM sockets over the wire link to another process, beside Unix sockets, in the same run.
//!
//! `peer` is the other process, `party` the two kinds of socket, `race` what is timed, `report` what comes of it.

mod party;
mod peer;
mod race;
mod report;

use self::party::{Party, Unix, Vm};
use self::peer::Peer;
use self::report::{Measure, Report};
use crate::args::{Bench, BenchSocket};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;

pub(crate) fn run(context: &Context, bench: &Bench) -> anyhow::Result<Exit> {
    let Bench::Socket(args) = bench;
    if let Some(folder) = &args.peer {
        return peer::run(folder);
    }
    let report = play(args)?;
    if context.json {
        output::json(&report)?;
    } else {
        report.print()?;
    }
    Ok(if report.passed { Exit::Ok } else { Exit::Failed })
}

/// Both parties run one after the other, race by race and round by round, so that whatever else the machine does disturbs
/// both alike.
fn play(args: &BenchSocket) -> anyhow::Result<Report> {
    let peer = Peer::start()?;
    let (vm, polling, unix) = (Vm::blocking(peer.folder())?, Vm::polling(peer.folder())?, Unix::new(peer.folder()));
    for party in [&vm as &dyn Party, &polling, &unix] {
        race::check(party)?;
    }
    let mut races = race::all(args, &vm, &polling, &unix)?;
    let mut measures: Vec<Measure> = races.iter().map(|race| Measure::new(race.name)).collect();
    for round in 0..=args.rounds {
        for (race, measure) in races.iter_mut().zip(&mut measures) {
            // Who is first changes: it may find the processor asleep.
            let (ours, theirs) = if round % 2 == 0 {
                let ours = (race.ours)()?;
                (ours, (race.theirs)()?)
            } else {
                let theirs = (race.theirs)()?;
                ((race.ours)()?, theirs)
            };
            // The first round warms up.
            if round != 0 {
                measure.add(ours, theirs);
            }
        }
    }
    drop(races);
    // While the guests are there: their hosts know what they did wrong, and lose it with them.
    peer.finish()?;
    drop((vm, polling));
    Ok(Report::new(measures, args.rounds))
}
