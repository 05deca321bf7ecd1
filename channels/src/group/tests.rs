//! The table by itself, and groups where no two threads meet.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::table::{LinkSettings, Table, Taken};
use super::{Connection, Group, Kind, Link, Over, Policy, Refused};

struct Numbers;

impl Kind for Numbers {
    type Link = u32;
    type Connection = u32;
}

fn group() -> Group<Numbers> {
    Group::new(Policy::RoundRobin, 3)
}

fn link(group: &Group<Numbers>, number: u32, is_primary: bool) -> Link<Numbers> {
    let link = group.link(number, is_primary, number).unwrap();
    group.join(&link).unwrap();
    link
}

fn connected(group: &Group<Numbers>, can_move: bool) -> Connection<Numbers> {
    let connection = group.connection(7, can_move).unwrap();
    connection.connect(0).unwrap();
    connection
}

#[test]
fn r2_2_validity_has_three_origins_and_two_errors() {
    let group = group();
    let only = link(&group, 1, false);
    let never = group.connection(0, true).unwrap();
    assert!(!never.is_valid());
    assert_eq!(never.check(), Err(Refused::NeverConnected));
    assert_eq!(never.wait(0, None), Err(Refused::NeverConnected));
    let connection = connected(&group, true);
    assert!(connection.is_valid() && connection.check().is_ok());
    assert_eq!(connection.connect(0), Err(Refused::Connected));
    group.clear(&only);
    assert_eq!(connection.check(), Err(Refused::WasConnected(Over::NoLink)));
    assert_eq!(connection.connect(0), Err(Refused::NoLink), "there is none, for anybody");
    // Also when the group is over, and gone.
    drop(group);
    assert_eq!(never.check(), Err(Refused::NeverConnected));
    assert_eq!(never.connect(0), Err(Refused::Ended(Over::Closed)));
    assert_eq!(connection.place().err(), Some(Refused::WasConnected(Over::NoLink)), "the first reason stays");
}

#[test]
fn r2_1_a_link_lives_as_long_as_somebody_holds_it() {
    let group = group();
    let (first, second) = (link(&group, 1, false), link(&group, 2, false));
    let connection = connected(&group, true);
    let placed = connection.place().unwrap();
    assert!(placed.link.is(&first) && *placed.link == 1);
    drop(first);
    assert_eq!(group.counts().held_links, 2);
    let cleared = group.clear(&placed.link);
    assert_eq!((cleared.moved.len(), cleared.ended.len(), cleared.links.len()), (1, 0, 1));
    drop(cleared);
    assert_eq!((group.counts().links, group.counts().held_links), (1, 2), "the caller holds it still");
    let again = group.clear(&placed.link);
    assert!(again.links.is_empty() && again.moved.is_empty(), "a second time there is nothing to do");
    drop((again, placed));
    assert_eq!(group.counts().held_links, 1);
    assert!(connection.place().unwrap().link.is(&second));
    assert_eq!(connection.place().unwrap().moves, 1);
    connection.close();
    connection.close();
    assert_eq!(group.counts().connected, 0);
    assert_eq!(group.counts().held_connections, 1);
    drop(connection);
    assert_eq!(group.counts().held_connections, 0);
}

#[test]
fn a_link_that_is_half_built_is_nobodys() {
    let group = group();
    let half = group.link(1, true, 0).unwrap();
    let connection = group.connection(0, true).unwrap();
    assert_eq!(connection.connect(0), Err(Refused::NoLink));
    group.clear(&half);
    assert_eq!(group.join(&half), Err(Refused::Ended(Over::PrimaryLost)));
}

#[test]
fn with_the_primary_link_everything_ends() {
    let group = group();
    let (primary, _other) = (link(&group, 0, true), link(&group, 1, false));
    let connections = [connected(&group, true), connected(&group, true)];
    let cleared = group.clear(&primary);
    assert_eq!((cleared.moved.len(), cleared.ended.len(), cleared.links.len()), (0, 2, 2));
    for connection in &connections {
        assert_eq!(connection.check(), Err(Refused::WasConnected(Over::PrimaryLost)));
    }
    assert_eq!(group.over(), Some(Over::PrimaryLost));
    assert_eq!(group.connection(0, true).err(), Some(Refused::Ended(Over::PrimaryLost)));
    assert_eq!(group.link(0, false, 0).err(), Some(Refused::Ended(Over::PrimaryLost)));
}

#[test]
fn r2_3_one_that_cannot_move_ends_and_says_so() {
    let group = group();
    let (first, _second) = (link(&group, 1, false), link(&group, 2, false));
    let connection = connected(&group, false);
    let cleared = group.clear(&first);
    assert_eq!((cleared.moved.len(), cleared.ended.len()), (0, 1));
    assert_eq!(connection.check(), Err(Refused::WasConnected(Over::LinkLost)));
}

#[test]
fn a_connection_keeps_its_processor_when_it_moves() {
    let group = Group::<Numbers>::new(Policy::Affinity, 3);
    let links = [0, 1, 1].map(|processor| {
        let link = group.link(processor, false, processor).unwrap();
        group.join(&link).unwrap();
        link
    });
    let connection = group.connection(0, true).unwrap();
    connection.connect(1).unwrap();
    assert!(connection.place().unwrap().link.is(&links[1]));
    group.clear(&links[1]);
    assert!(connection.place().unwrap().link.is(&links[2]));
}

#[test]
fn there_are_so_many_connections_and_a_wait_comes_to_its_time() {
    let group = group();
    let _link = link(&group, 1, false);
    let connections = [(); 3].map(|()| connected(&group, true));
    assert_eq!(group.connection(0, true).err(), Some(Refused::Full));
    let connection = &connections[0];
    let deadline = Some(Instant::now() + Duration::from_millis(5));
    assert_eq!(connection.wait(connection.changes(), deadline), Err(Refused::TimedOut));
    let seen = connection.changes();
    connection.wake();
    assert_eq!(connection.wait(seen, None), Ok(()));
}

proptest! {
    /// Whatever is done in whatever order, the table does not contradict itself, and every hold is in one place.
    #[test]
    fn r2_1_any_order_leaves_a_sound_table(
        policy in prop::sample::select(vec![Policy::RoundRobin, Policy::Affinity, Policy::LeastLoaded]),
        steps in prop::collection::vec((0_u8..8, 0_usize..6), 0..80),
    ) {
        let mut table = Table::<u64, u64>::new(policy, 6);
        let (mut links, mut connections) = (Vec::new(), Vec::new());
        let mut over = false;
        for (what, which) in steps {
            let some = |of: &[u64]| of.get(which % of.len().max(1)).copied().unwrap_or(0);
            match what {
                0 | 1 => {
                    let settings = LinkSettings { is_primary: false, processor: u32::from(what) };
                    let made = table.make(settings, |id| id);
                    prop_assert_eq!(made.is_err(), over);
                    if let Ok(id) = made {
                        prop_assert_eq!(table.join(id), Ok(()));
                        links.push(id);
                    }
                }
                2 => connections.extend(table.add(which % 3 != 0, |id| id).ok()),
                3 | 4 => {
                    let connection = some(&connections);
                    let picked = table.pick(u32::from(what));
                    prop_assert_eq!(picked.is_ok(), !links.is_empty() && !over);
                    if let Ok(link) = picked {
                        let valid = table.is_valid(connection);
                        let attached = table.attach(connection, link, connection);
                        prop_assert_eq!(attached.is_ok(), valid == Err(Refused::NeverConnected) && connection != 0);
                    }
                }
                5 => {
                    let connection = some(&connections);
                    let was = table.is_valid(connection).is_ok();
                    let (link, share) = table.close(connection, Over::Closed);
                    prop_assert_eq!((link.is_some(), share.is_some()), (was, was), "a hold goes back once");
                    prop_assert_eq!(table.close(connection, Over::Closed), (None, None));
                }
                6 if which == 5 => {
                    table.end(Over::Closed);
                    links.clear();
                    over = true;
                }
                6 => {
                    let link = some(&links);
                    links.retain(|other| *other != link);
                    if let Some((_, on_it, _)) = table.take_out(link) {
                        let (mut taken, count) = (Taken::default(), on_it.len());
                        on_it.into_iter().for_each(|connection| table.move_on(connection, &mut taken));
                        prop_assert_eq!(taken.moved.len() + taken.ended.len(), count);
                        prop_assert!(taken.moved.iter().all(|(_, old)| *old == link), "the old hold comes back");
                        prop_assert!(!links.is_empty() || taken.moved.is_empty());
                    }
                }
                _ => {
                    let connection = some(&connections);
                    table.close(connection, Over::Closed);
                    prop_assert_eq!(table.release(connection), (None, None));
                    connections.retain(|other| *other != connection);
                }
            }
            prop_assert_eq!(table.contradiction(), None);
            prop_assert_eq!(table.counts().links, links.len());
            prop_assert_eq!(table.counts().held_connections, connections.len());
        }
    }
}
