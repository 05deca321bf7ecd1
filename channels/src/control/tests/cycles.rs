//! R1.7: neither "never free" nor "delayed free": after a million cycles the core holds what it held at the beginning.

use std::time::Duration;

use vmbus::message::{HostMessage, Status, Version};

use super::control_model::random::Random;
use super::control_model::{offer, offered};
use super::settings;
use super::{Action, Bench, Command, Core, GuestMessage, Input, Ticket};
use crate::mutation::{self, Mutation};
use crate::{Announcement, ChannelId};

const CYCLES: u64 = 1_000_000;
/// After these, everything has been as full as it gets.
const WARM: u64 = 20_000;

/// What is allocated: slots, generations, devices, GPADLs, timers, sockets.
type Room = (usize, usize, usize, usize, usize, usize);

fn room(core: &Core) -> Room {
    let (slots, generations, devices) = core.table.capacity();
    (slots, generations, devices, core.gpadls.capacity(), core.timers.capacity(), core.sockets.capacity())
}

/// Bytes of this process that are in memory, where that is known.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// A host, a dispatcher and a user who answer everything at once.
struct Shell {
    core: Core,
    now: Duration,
    out: Vec<Action>,
    next: Vec<Input>,
    arrived: Option<ChannelId>,
    released: u64,
}

impl Shell {
    fn feed(&mut self, input: Input) {
        self.next.push(input);
        while let Some(input) = self.next.pop() {
            self.out.clear();
            self.core.step(self.now, input, &mut self.out);
            for action in &self.out {
                let answer = match action {
                    Action::Share { relid, gpadl, .. } => {
                        HostMessage::GpadlCreated { relid: *relid, gpadl: *gpadl, status: Status::SUCCESS }
                    }
                    Action::Post(GuestMessage::Open(open)) => {
                        HostMessage::OpenResult { relid: open.relid, open_id: open.open_id, status: Status::SUCCESS }
                    }
                    Action::Post(GuestMessage::GpadlTeardown { gpadl, .. }) => {
                        HostMessage::GpadlTorndown { gpadl: *gpadl }
                    }
                    Action::Post(GuestMessage::RelidReleased { .. }) => {
                        self.released += 1;
                        continue;
                    }
                    Action::Announce(Announcement::Arrived(offer)) => {
                        self.arrived = Some(offer.id);
                        continue;
                    }
                    _ => continue,
                };
                self.next.push(Input::Message(answer));
            }
        }
    }

    /// One channel's life: which turns it takes is up to chance.
    fn cycle(&mut self, relid: u32, random: &mut Random) {
        self.now += Duration::from_micros(700);
        self.feed(Input::Message(offered(offer(relid))));
        let Some(id) = self.arrived else { return };
        let rescind = Input::Message(HostMessage::Rescind { relid });
        if random.once_in(8) {
            return self.feed(rescind);
        }
        self.feed(Input::Command(Ticket(1), Command::Open(id, settings(0))));
        if random.once_in(3) {
            self.feed(Input::Command(Ticket(2), Command::CreateGpadl(id, 4096)));
        }
        let closes = random.once_in(2);
        if closes {
            self.feed(Input::Command(Ticket(3), Command::Close(id)));
        } else {
            self.feed(rescind.clone());
        }
        self.feed(Input::Retired(id));
        self.feed(Input::Unreferenced(id));
        if closes {
            self.feed(rescind);
        }
    }
}

/// Lives that many cycles. What the core holds in the middle and at the end, and what is wrong, if anything.
fn cycles(count: u64) -> Result<(Room, Room), String> {
    let bench = Bench::connected(Version::V5_3);
    let mut shell =
        Shell { core: bench.core, now: Duration::ZERO, out: vec![], next: vec![], arrived: None, released: 0 };
    let mut random = Random::new(7);
    let (mut warm, mut resident) = (room(&shell.core), None);
    for cycle in 0..count {
        if cycle == WARM.min(count / 2) {
            (warm, resident) = (room(&shell.core), resident_bytes());
        }
        shell.cycle(1 + u32::try_from(cycle % 2047).unwrap_or(0), &mut random);
        if shell.core.live_channels() != 0 {
            return Err(format!("cycle {cycle}: {} channels are left", shell.core.live_channels()));
        }
        if shell.core.running_timers() > 0 {
            return Err(format!("cycle {cycle}: {} timers are left", shell.core.running_timers()));
        }
    }
    let counters = shell.core.counters();
    if (counters.offers, counters.released, shell.released) != (count, count, count) {
        return Err(format!("{count} cycles: {counters:?}"));
    }
    if !shell.core.is_empty() {
        return Err("something is left".into());
    }
    let grown = resident.zip(resident_bytes()).map_or(0, |(before, after)| after.saturating_sub(before));
    if grown > 1 << 20 {
        // Other tests run in the same process: only said, where the numbers above say the same.
        println!("the process grew by {grown} bytes meanwhile");
    }
    Ok((warm, room(&shell.core)))
}

/// On relids from 1 to 2047 in turn.
#[test]
fn r1_7_a_million_cycles_leave_nothing() {
    let (warm, end) = cycles(CYCLES).unwrap_or_else(|what| panic!("{what}"));
    assert_eq!(warm, end);
    let (slots, generations, devices, gpadls, timers, _) = end;
    assert!(slots + generations + devices + gpadls + timers < 100, "one channel at a time needs no room: {end:?}");
}

#[test]
fn r1_7_mutants_leaks_are_noticed() {
    for mutation in [Mutation::LeakSlot, Mutation::LeakTimer, Mutation::DoubleRelease] {
        let noticed = mutation::with(mutation, || match cycles(2000) {
            Ok((warm, end)) => warm != end,
            Err(_) => true,
        });
        assert!(noticed, "{mutation:?} goes unnoticed");
    }
}

/// As many channels as there can be, again and again: the room for them is taken once.
#[test]
fn r1_7_a_full_table_empties_and_fills_in_the_same_room() {
    let mut bench = Bench::connected(Version::V5_3);
    let mut rooms = Vec::new();
    for _ in 0..4 {
        for relid in 1..2048 {
            bench.core.step(bench.now, Input::Message(offered(offer(relid))), &mut bench.out);
        }
        assert_eq!(bench.core.live_channels(), 2047);
        rooms.push(room(&bench.core));
        for relid in (1..2048).rev() {
            bench.core.step(bench.now, Input::Message(HostMessage::Rescind { relid }), &mut bench.out);
        }
        bench.out.clear();
        assert!(bench.core.is_empty());
    }
    assert!(rooms.windows(2).all(|pair| pair[0] == pair[1]), "{rooms:?}");
    assert_eq!(bench.core.check_invariants(), Ok(()));
}
