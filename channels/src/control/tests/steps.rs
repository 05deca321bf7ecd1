//! The step as a table: every state of a channel, everything that can happen to it, what becomes of it, and what is done.

use std::fmt::Write as _;

use vmbus::message::{ConnectionState, GpadlId, GuestMessage, HostMessage, Status, Version, VersionResponse};

use super::control_model::{offer, offered};
use super::settings;
use super::{Action, Answer, Bench, Command, Input, Ticket};
use crate::control::channel::{Mapped, State};
use crate::{Announcement, ChannelId};

/// The host does not speak the version.
pub(super) fn not_supported() -> HostMessage {
    let state = ConnectionState::SUCCESSFUL;
    HostMessage::VersionResponse(VersionResponse { supported: false, state, selected: 0, features: None })
}

/// States in which relid 1 is brought, and how.
const STATES: [&str; 12] = [
    "none",
    "offered",
    "sharing",
    "sharing?",
    "requested",
    "requested?",
    "open",
    "draining",
    "tearing",
    "tearing?",
    "departed",
    "reserved",
];

/// What happens then.
const INPUTS: [&str; 18] = [
    "offer",
    "rescind",
    "created",
    "not created",
    "opened",
    "not opened",
    "torn down",
    "closed",
    "moved",
    "open",
    "close",
    "buffer",
    "move",
    "retired",
    "unreferenced",
    "time",
    "goodbye",
    "lost",
];

/// Relid 1 in a state: its name, its ring, and the number of its open.
fn bring(bench: &mut Bench, state: &str) -> (ChannelId, GpadlId, u32) {
    let (mut ring, mut open_id) = (GpadlId(0), 99);
    if state == "none" {
        return (ChannelId { index: 9, generation: 9 }, ring, open_id);
    }
    let id = bench.offer(1);
    match state.trim_end_matches('?') {
        "offered" => return (id, ring, open_id),
        "sharing" => ring = bench.begin_open(id),
        "requested" => {
            ring = bench.begin_open(id);
            bench.created(1, ring);
            open_id = bench.open_id();
        }
        "reserved" => {
            bench.command(Command::OpenReserved(id, settings(0), 5));
            (ring, open_id) = (bench.shared(), 0);
            bench.created(1, ring);
            bench.message(HostMessage::OpenResult { relid: 1, open_id, status: Status::SUCCESS });
            bench.command(Command::Close(id));
            bench.let_go(id);
        }
        _ => ring = bench.open(1, id),
    }
    match state.trim_end_matches('?') {
        "departed" => bench.rescind(1),
        "draining" | "tearing" => {
            bench.command(Command::Close(id));
        }
        _ => {}
    }
    if state.starts_with("tearing") {
        bench.let_go(id);
    }
    if state.ends_with('?') {
        bench.elapse(11);
    }
    (id, ring, open_id)
}

fn happen(bench: &mut Bench, what: &str, (id, ring, open_id): (ChannelId, GpadlId, u32)) {
    let gpadl = ring;
    let (success, failure) = (Status::SUCCESS, Status::UNSUCCESSFUL);
    let message = match what {
        "offer" => offered(offer(1)),
        "rescind" => HostMessage::Rescind { relid: 1 },
        "created" => HostMessage::GpadlCreated { relid: 1, gpadl, status: success },
        "not created" => HostMessage::GpadlCreated { relid: 1, gpadl, status: failure },
        "opened" => HostMessage::OpenResult { relid: 1, open_id, status: success },
        "not opened" => HostMessage::OpenResult { relid: 1, open_id, status: failure },
        "torn down" => HostMessage::GpadlTorndown { gpadl },
        "closed" => HostMessage::CloseReservedResponse { relid: 1 },
        "moved" => HostMessage::ModifyChannelResponse { relid: 1, status: success },
        "retired" => return bench.feed(Input::Retired(id)),
        "unreferenced" => return bench.feed(Input::Unreferenced(id)),
        "time" => return bench.elapse(11),
        "lost" => return bench.feed(Input::Lost),
        command => {
            let command = match command {
                "open" => Command::Open(id, settings(0)),
                "close" => Command::Close(id),
                "buffer" => Command::CreateGpadl(id, 4096),
                "move" => Command::Move(id, 1),
                _ => Command::Unload,
            };
            bench.command(command);
            return;
        }
    };
    bench.message(message);
}

/// The state in a word, with what holds the channel.
fn state(bench: &Bench) -> String {
    let Some(channel) = bench.core.table.iter().next() else { return "-".into() };
    let word = match &channel.state {
        State::Offered => "offered",
        State::Sharing(opening) if opening.ticket.is_none() => "sharing?",
        State::Sharing(_) => "sharing",
        State::Requested(opening, _) if opening.ticket.is_none() => "requested?",
        State::Requested(..) => "requested",
        State::Open => "open",
        State::Draining => "draining",
        State::ClosingReserved => "reserved",
        State::TearingDown if channel.close_timer.is_none() => "tearing?",
        State::TearingDown => "tearing",
        State::Departed => "departed",
    };
    let mut holds = String::new();
    for (holds_it, letter) in [
        (channel.referenced, 'r'),
        (channel.mapped != Mapped::No, 'm'),
        (channel.host_reaches, 'h'),
        (channel.severed, 's'),
    ] {
        if holds_it {
            holds.push(letter);
        }
    }
    if holds.is_empty() { word.into() } else { format!("{word}/{holds}") }
}

fn word(action: &Action, tickets: u64) -> String {
    match action {
        Action::Post(message) => match message {
            GuestMessage::Open(_) => "OPEN".into(),
            GuestMessage::Close { .. } => "CLOSE".into(),
            GuestMessage::CloseReserved { .. } => "CLOSE_RESERVED".into(),
            GuestMessage::GpadlTeardown { .. } => "TEARDOWN".into(),
            GuestMessage::RelidReleased { .. } => "RELEASED".into(),
            GuestMessage::ModifyChannel { .. } => "MODIFY".into(),
            GuestMessage::Unload => "UNLOAD".into(),
            other => format!("{other:?}"),
        },
        Action::Share { .. } => "share".into(),
        Action::Unshare(_) => "unshare".into(),
        Action::Opened { .. } => "hand-out".into(),
        Action::Retire { .. } => "retire".into(),
        Action::Move { .. } => "move".into(),
        Action::Forget { .. } => "forget".into(),
        Action::Revoke(_) => "revoke".into(),
        Action::Answer(Ticket(ticket), answer) => {
            // Of the command that came now, or of one before.
            let whose = if *ticket == tickets { "" } else { "former " };
            match answer {
                Answer::Failed(refusal) => {
                    let text = format!("{refusal:?}");
                    let end = text.find(['(', ' ']).unwrap_or(text.len());
                    format!("{whose}{}", &text[..end])
                }
                _ => format!("{whose}Done"),
            }
        }
        Action::Announce(Announcement::Arrived(_)) => "arrived".into(),
        Action::Announce(Announcement::Departed(_)) => "departed".into(),
        other => format!("{other:?}"),
    }
}

fn table() -> String {
    let mut table = String::new();
    for from in STATES {
        for input in INPUTS {
            let mut bench = Bench::connected(Version::V5_3);
            let names = bring(&mut bench, from);
            let before = state(&bench);
            let commands = bench.tickets;
            happen(&mut bench, input, names);
            bench.sound();
            let mine = if bench.tickets > commands { bench.tickets } else { 0 };
            let words: Vec<String> = bench.out.iter().map(|action| word(action, mine)).collect();
            let after = state(&bench);
            if words.is_empty() && after == before {
                continue;
            }
            writeln!(table, "{from:<11}{input:<13}{after:<14}{}", words.join(", ")).expect("writing to a string");
        }
    }
    table
}

/// Broken, for instance, by letting `offered_again` forget the closers, or `retire` the `Forget`s.
#[test]
fn every_state_and_every_input() {
    let table = table();
    let expected = include_str!("steps.txt");
    for (line, (is, should)) in table.lines().zip(expected.lines()).enumerate() {
        assert_eq!(is.trim_end(), should.trim_end(), "line {} of steps.txt", line + 1);
    }
    assert_eq!(table.lines().count(), expected.lines().count(), "what is not in the table does nothing:\n{table}");
}
