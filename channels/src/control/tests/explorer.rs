//! All orders of a small set of inputs, for up to three channels: a search through every state that the core, its host, its
//! dispatchers and its users can be in together. The ghost judges every step. `VMBUS_EXPLORE=1` searches wider (minutes).

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use vmbus::message::{HostMessage, Status, Version};

use super::control_model::ghost::Ask;
use super::control_model::{offer, offered};
use super::settings;
use super::{Bench, Command, Input};
use crate::ChannelId;
use crate::control::channel::{Channel, State};
use crate::mutation::{self, Mutation};

/// How often each thing may happen in one life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Budget {
    offers: u8,
    opens: u8,
    closes: u8,
    buffers: u8,
    moves: u8,
    /// Answers of the host that are refusals.
    refusals: u8,
}

/// What is common to all channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Common {
    timeouts: u8,
    losses: u8,
    goodbyes: u8,
    /// Things that the shell fails to do.
    failures: u8,
}

/// One state of the world.
#[derive(Debug, Clone)]
struct Node {
    bench: Bench,
    budgets: Vec<Budget>,
    common: Common,
}

/// What was searched.
#[derive(Debug, Default)]
struct Search {
    seen: HashSet<(u64, u64)>,
    steps: u64,
    ends: u64,
}

/// An input, and what it takes from the budgets.
type Move = (Input, fn(&mut Budget, &mut Common), u32);

impl Node {
    fn new(channels: u32, budget: Budget, common: Common) -> Self {
        let bench = Bench::connected(Version::V5_3);
        Self { bench, budgets: vec![budget; channels as usize], common }
    }

    fn budget(&self, relid: u32) -> Budget {
        self.budgets[relid as usize - 1]
    }

    /// Everything that can happen now.
    fn moves(&self) -> Vec<Move> {
        let mut moves: Vec<Move> = Vec::new();
        let ghost = &self.bench.ghost;
        let ticket = super::Ticket(self.bench.tickets + 1);
        let command = |command| Input::Command(ticket, command);
        if ghost.connected {
            for relid in 1..=u32::try_from(self.budgets.len()).expect("few channels") {
                match ghost.relids.get(&relid) {
                    None if self.budget(relid).offers > 0 => {
                        moves.push((Input::Message(offered(offer(relid))), |budget, _| budget.offers -= 1, relid));
                    }
                    Some(false) => moves.push((Input::Message(HostMessage::Rescind { relid }), |_, _| {}, relid)),
                    _ => {}
                }
            }
            if self.common.goodbyes > 0 {
                moves.push((command(Command::Unload), |_, common| common.goodbyes -= 1, 1));
            }
        }
        for (id, seen) in &ghost.channels {
            let (id, relid) = (*id, seen.offer.relid);
            let budget = self.budget(relid);
            if seen.retiring {
                moves.push((Input::Retired(id), |_, _| {}, relid));
            }
            if seen.referenced {
                moves.push((Input::Unreferenced(id), |_, _| {}, relid));
            }
            if budget.opens > 0 && seen.announced {
                moves.push((command(Command::Open(id, settings(0))), |budget, _| budget.opens -= 1, relid));
            }
            if budget.closes > 0 {
                moves.push((command(Command::Close(id)), |budget, _| budget.closes -= 1, relid));
            }
            if budget.buffers > 0 && seen.referenced {
                moves.push((command(Command::CreateGpadl(id, 4096)), |budget, _| budget.buffers -= 1, relid));
            }
            if budget.moves > 0 && seen.mapped {
                moves.push((command(Command::Move(id, 1)), |budget, _| budget.moves -= 1, relid));
            }
            if self.common.failures > 0 && seen.announced {
                moves.push((Input::AnnounceFailed(id), |_, common| common.failures -= 1, relid));
            }
        }
        for (gpadl, memory) in &ghost.memory {
            let relid = ghost.channels[&memory.channel].offer.relid;
            if memory.user && !memory.is_ring {
                moves.push((command(Command::TearDownGpadl(memory.channel, *gpadl)), |_, _| {}, relid));
            }
            if self.common.failures > 0
                && ghost.asks.iter().any(|ask| matches!(ask, Ask::Gpadl(_, asked) if asked == gpadl))
            {
                moves.push((Input::ShareFailed(*gpadl), |_, common| common.failures -= 1, relid));
            }
        }
        for ask in &ghost.asks {
            self.answers(*ask, &mut moves);
        }
        if self.common.timeouts > 0 && self.bench.core.running_timers() > 0 {
            moves.push((Input::Elapsed, |_, common| common.timeouts -= 1, 1));
        }
        if self.common.losses > 0 && !ghost.lost {
            moves.push((Input::Lost, |_, common| common.losses -= 1, 1));
        }
        moves
    }

    /// What the host can say to that. Nobody cares how memory is torn down that is gone: that is left out.
    fn answers(&self, ask: Ask, moves: &mut Vec<Move>) {
        let (relid, message): (u32, fn(Ask, Status) -> HostMessage) = match ask {
            Ask::Gpadl(relid, _) | Ask::Open(relid, _) | Ask::Move(relid) => (relid, |ask, status| match ask {
                Ask::Gpadl(relid, gpadl) => HostMessage::GpadlCreated { relid, gpadl, status },
                Ask::Open(relid, open_id) => HostMessage::OpenResult { relid, open_id, status },
                Ask::Move(relid) => HostMessage::ModifyChannelResponse { relid, status },
                _ => unreachable!("not asked here"),
            }),
            Ask::Teardown(gpadl) => {
                let Some(memory) = self.bench.ghost.memory.get(&gpadl) else { return };
                let relid = self.bench.ghost.channels[&memory.channel].offer.relid;
                moves.push((Input::Message(HostMessage::GpadlTorndown { gpadl }), |_, _| {}, relid));
                return;
            }
            Ask::Unload => {
                moves.push((Input::Message(HostMessage::UnloadResponse), |_, _| {}, 1));
                return;
            }
            _ => return,
        };
        moves.push((Input::Message(message(ask, Status::SUCCESS)), |_, _| {}, relid));
        if self.budget(relid).refusals > 0 {
            moves.push((Input::Message(message(ask, Status::UNSUCCESSFUL)), |budget, _| budget.refusals -= 1, relid));
        }
    }

    fn after(&self, (input, pay, relid): &Move) -> Self {
        let mut next = self.clone();
        pay(&mut next.budgets[*relid as usize - 1], &mut next.common);
        match input {
            Input::Elapsed => next.bench.elapse(11),
            Input::Command(ticket, _) => {
                next.bench.tickets = ticket.0;
                next.bench.feed(input.clone());
            }
            _ => next.bench.feed(input.clone()),
        }
        next
    }

    /// What tells this state from others: no names, no numbers that only count, and channels in any order.
    fn digest(&self) -> (u64, u64) {
        let mut relids: Vec<u64> = (1..).zip(&self.budgets).map(|(relid, _)| self.digest_of(relid)).collect();
        relids.sort_unstable();
        let hash = |salt: u64| {
            let mut hasher = DefaultHasher::new();
            (salt, &relids, self.common, self.bench.ghost.lost, self.bench.ghost.connected).hash(&mut hasher);
            self.bench.ghost.asks.contains(&Ask::Unload).hash(&mut hasher);
            (self.bench.core.pending_tickets(), self.bench.core.running_timers()).hash(&mut hasher);
            hasher.finish()
        };
        (hash(0), hash(1))
    }

    fn digest_of(&self, relid: u32) -> u64 {
        let ghost = &self.bench.ghost;
        let mut hasher = DefaultHasher::new();
        (self.budget(relid), ghost.relids.get(&relid)).hash(&mut hasher);
        let of = |id: ChannelId| self.bench.core.table.get(id);
        let channels: Vec<&Channel> =
            ghost.channels.iter().filter(|(_, seen)| seen.offer.relid == relid).filter_map(|(id, _)| of(*id)).collect();
        let latest = channels.iter().map(|channel| channel.id()).max();
        let mut each: Vec<u64> = channels.iter().map(|channel| self.digest_channel(channel, latest)).collect();
        each.sort_unstable();
        each.hash(&mut hasher);
        let moves = ghost.asks.iter().filter(|ask| **ask == Ask::Move(relid)).count();
        moves.hash(&mut hasher);
        hasher.finish()
    }

    fn digest_channel(&self, channel: &Channel, latest: Option<ChannelId>) -> u64 {
        let mut hasher = DefaultHasher::new();
        let ghost = &self.bench.ghost;
        let opening = match &channel.state {
            State::Sharing(opening) | State::Requested(opening, _) => {
                (opening.ticket.is_some(), opening.timer.is_some())
            }
            _ => (false, false),
        };
        let asked = ghost.asks.iter().filter(|ask| match (ask, &channel.state) {
            (Ask::Open(relid, id), State::Requested(_, open_id)) => *relid == channel.relid() && id == open_id,
            _ => false,
        });
        (latest == Some(channel.id()), std::mem::discriminant(&channel.state), opening, asked.count())
            .hash(&mut hasher);
        (channel.announced, channel.condemned, channel.severed, channel.host_reaches).hash(&mut hasher);
        (channel.referenced, channel.mapped as u8, channel.processor, &channel.forwarding).hash(&mut hasher);
        channel.moving.as_ref().map(|moving| (moving.ticket.is_some(), moving.timer.is_some())).hash(&mut hasher);
        (channel.closers.len(), channel.close_timer.is_some()).hash(&mut hasher);
        let mut gpadls: Vec<u64> = channel.gpadls().map(|gpadl| self.digest_gpadl(gpadl)).collect();
        gpadls.sort_unstable();
        gpadls.hash(&mut hasher);
        let seen = &ghost.channels[&channel.id()];
        (seen.rescinded, seen.revoked, seen.host_open, seen.retiring).hash(&mut hasher);
        hasher.finish()
    }

    fn digest_gpadl(&self, gpadl: vmbus::message::GpadlId) -> u64 {
        let mut hasher = DefaultHasher::new();
        if let Some(known) = self.bench.core.gpadls.get(gpadl) {
            (known.phase as u8, known.ticket.is_some(), known.timer.is_some()).hash(&mut hasher);
        }
        if let Some(memory) = self.bench.ghost.memory.get(&gpadl) {
            (memory.is_ring, memory.created, memory.torn, memory.host, memory.user).hash(&mut hasher);
        }
        let asks = |ask: &&Ask| matches!(ask, Ask::Gpadl(_, asked) | Ask::Teardown(asked) if *asked == gpadl);
        self.bench.ghost.asks.iter().filter(asks).count().hash(&mut hasher);
        hasher.finish()
    }
}

impl Search {
    /// Searches everything from here on. An error is a broken rule, with the way to it.
    fn run(&mut self, start: Node) -> Result<(), String> {
        self.seen.insert(start.digest());
        let mut stack = vec![(start.moves(), start)];
        let mut way: Vec<Input> = Vec::new();
        while let Some((moves, node)) = stack.last_mut() {
            let Some(next) = moves.pop() else {
                stack.pop();
                way.pop();
                continue;
            };
            self.steps += 1;
            let after = node.after(&next);
            way.push(next.0);
            if let Some(what) = &after.bench.broken {
                return Err(format!("{what}\nthe way: {way:#?}"));
            }
            if !self.seen.insert(after.digest()) {
                way.pop();
                continue;
            }
            let moves = after.moves();
            if moves.is_empty() {
                self.ends += 1;
                let left = after.bench.ghost.at_the_end(&after.bench.core);
                left.map_err(|what| format!("{what}\nthe way: {way:#?}"))?;
            }
            stack.push((moves, after));
        }
        Ok(())
    }
}

const ONCE: Common = Common { timeouts: 1, losses: 1, goodbyes: 0, failures: 0 };
const PLAIN: Budget = Budget { offers: 1, opens: 1, closes: 1, buffers: 0, moves: 0, refusals: 0 };

fn search(channels: u32, budget: Budget, common: Common) -> Result<Search, String> {
    let mut search = Search::default();
    search.run(Node::new(channels, budget, common))?;
    println!(
        "{channels} channels, {budget:?}, {common:?}: {} states, {} steps, {} ends",
        search.seen.len(),
        search.steps,
        search.ends
    );
    Ok(search)
}

/// Whether there is time for more.
fn wide() -> bool {
    std::env::var_os("VMBUS_EXPLORE").is_some()
}

fn search_all(channels: u32, budget: Budget, common: Common) {
    let search = search(channels, budget, common).unwrap_or_else(|what| panic!("{what}"));
    assert!(search.ends > 0);
}

/// One channel, with everything that there is, and its successor under the same number.
#[test]
fn one_channel_in_all_orders() {
    let more = u8::from(wide());
    let budget = Budget { offers: 2, opens: 2, closes: 1 + more, buffers: 1 + more, moves: 1, refusals: 1 };
    search_all(1, budget, Common { timeouts: 1, losses: 1, goodbyes: 1, failures: 1 });
}

/// Two channels, with buffers and refusals, while the connection may go.
#[test]
fn two_channels_in_all_orders() {
    let more = u8::from(wide());
    let budget = Budget { opens: 1 + more, refusals: 1, buffers: more, ..PLAIN };
    search_all(2, budget, Common { goodbyes: 1 - more, ..ONCE });
    search_all(2, Budget { buffers: 1, ..PLAIN }, ONCE);
}

/// Three channels: offer, rescind, open, close, all that the host, dispatchers and users can say, silence, and the loss of
/// it all.
#[test]
fn three_channels_in_all_orders() {
    search_all(3, Budget { refusals: u8::from(wide()), ..PLAIN }, Common { goodbyes: 1, ..ONCE });
}

/// The search finds each of the protections missing.
#[test]
fn the_search_finds_mutants() {
    let budget = Budget { offers: 2, opens: 2, closes: 1, buffers: 1, moves: 1, refusals: 0 };
    let common = Common { timeouts: 1, losses: 1, goodbyes: 0, failures: 1 };
    for mutation in [
        Mutation::DoubleRelease,
        Mutation::ReleaseBeforeUnreferenced,
        Mutation::ReleaseBeforeRetired,
        Mutation::ForgetFailedAnnouncement,
        Mutation::RescindKeepsWaits,
        Mutation::RescindForgetsClosing,
        Mutation::ReuseGeneration,
        Mutation::FreeOnTimeout,
        Mutation::PostAfterLost,
        Mutation::AnswerTwice,
    ] {
        let found = mutation::with(mutation, || search(1, budget, common));
        assert!(found.is_err(), "{mutation:?} goes unnoticed");
    }
}
