//! The table of requests without a channel: room, completions of all kinds, ends.

use super::*;
use crate::storage::wire::Operation;

const WHAT: &str = "a test";
const NOW: Duration = Duration::ZERO;

fn requests(depth: usize, rooms: &[u32]) -> Arc<Requests> {
    let requests = Requests::new("disk".to_owned(), depth);
    for room in rooms {
        let link = requests.add_link();
        requests.open_link(link, *room);
    }
    requests
}

fn begin(requests: &Requests, kind: Kind, ring_bytes: u32) -> Result<Begun, Error> {
    requests.begin((kind, WHAT), ring_bytes, None, Time::from_now(NOW))
}

fn done() -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    bytes
}

fn failure<T>(outcome: Result<T, Error>) -> Option<Failure> {
    match outcome {
        Err(Error::Storage { failure, .. }) => Some(failure),
        _ => None,
    }
}

#[test]
fn room_is_taken_and_given_back_once() {
    let requests = requests(8, &[2048, 512]);
    let one = begin(&requests, Kind::Command, 1024).unwrap();
    let two = begin(&requests, Kind::Command, 512).unwrap();
    assert_eq!((one.link, two.link), (0, 1));
    assert!(matches!(failure(begin(&requests, Kind::Command, 100)), Some(Failure::Busy { .. })), "the rest is kept");
    let reset = begin(&requests, Kind::Control, 1024).unwrap();
    assert_eq!(reset.link, PRIMARY);
    assert!(begin(&requests, Kind::Control, 8).is_err(), "nothing is left at all");
    requests.completed(1, two.id, &done());
    assert_eq!(begin(&requests, Kind::Command, 512).unwrap().link, 1);
    // A second completion of the same gives nothing back.
    requests.completed(1, two.id, &done());
    assert!(begin(&requests, Kind::Command, 8).is_err());
    assert_eq!(requests.counters().unknown, 1);
    requests.unsent(reset.id, false);
    requests.unsent(reset.id, false);
    assert!(begin(&requests, Kind::Control, 1024).is_ok());
    assert!(begin(&requests, Kind::Control, 8).is_err());
}

#[test]
fn completions_that_name_nothing_are_nobodys() {
    let requests = requests(8, &[65_536, 65_536]);
    let begun = begin(&requests, Kind::Command, 64).unwrap();
    for (link, id) in [(1, begun.id), (7, begun.id), (0, 0), (0, begun.id + 1), (0, begun.id ^ 1 << 24), (0, u64::MAX)]
    {
        requests.completed(link, id, &done());
    }
    assert_eq!((requests.counters().unknown, requests.counters().under_way), (6, 1));
    let mut other = done();
    other[0] = u8::try_from(Operation::ENUMERATE_BUS.0).unwrap();
    requests.completed(0, begun.id, &other);
    requests.completed(0, begun.id, &done()[..11]);
    assert_eq!((requests.counters().malformed, requests.counters().under_way), (2, 1));
    requests.completed(0, begun.id, &done());
    assert!(matches!(requests.wait(&begun, WHAT, Time::from_now(NOW)), Ok(Answer::Completed(..))), "it came in time");
    assert_eq!((requests.counters().completed, requests.counters().under_way), (1, 0));
}

#[test]
fn a_timeout_is_the_end_for_its_owner_alone() {
    let requests = requests(1, &[65_536]);
    let begun = begin(&requests, Kind::Command, 64).unwrap();
    assert!(matches!(failure(requests.wait(&begun, WHAT, Time::from_now(NOW))), Some(Failure::Timeout { .. })));
    assert!(begin(&requests, Kind::Command, 64).is_err(), "it keeps its place");
    requests.completed(0, begun.id, &done());
    assert!(begun.answer.try_recv().is_err(), "and nobody hears of its completion");
    let counters = requests.counters();
    assert_eq!((counters.abandoned, counters.late, counters.completed), (1, 1, 0));
    assert!(begin(&requests, Kind::Command, 64).is_ok());
}

#[test]
fn the_end_of_a_subchannel_is_not_the_controllers() {
    let requests = requests(8, &[65_536, 65_536]);
    let (one, two) = (begin(&requests, Kind::Command, 64).unwrap(), begin(&requests, Kind::Command, 64).unwrap());
    requests.ended(1, Ending::Rescinded);
    assert!(matches!(requests.wait(&two, WHAT, Time::from_now(NOW)), Ok(Answer::LinkLost)));
    // Opened behind its end: too late.
    requests.open_link(1, 65_536);
    for _ in 0..4 {
        assert_eq!(begin(&requests, Kind::Command, 64).unwrap().link, PRIMARY);
    }
    requests.ended(PRIMARY, Ending::Rescinded);
    let Ok(Answer::Ended(error)) = requests.wait(&one, WHAT, Time::from_now(NOW)) else { panic!("no end") };
    assert!(error.is_rescinded());
    assert!(begin(&requests, Kind::Control, 64).is_err_and(|error| error.is_rescinded()));
    assert_eq!(requests.counters().under_way, 0);
    // The first reason stays.
    requests.close();
    assert!(begin(&requests, Kind::Command, 64).is_err_and(|error| error.is_rescinded()));
}

#[test]
fn a_closed_controller_begins_nothing_but_its_reset() {
    let requests = requests(8, &[65_536]);
    let begun = begin(&requests, Kind::Command, 64).unwrap();
    assert!(requests.begin_reset(64).is_none(), "not before");
    requests.close();
    assert_eq!(failure(begin(&requests, Kind::Command, 64)), Some(Failure::Closed));
    assert_eq!(failure(begin(&requests, Kind::Control, 64)), Some(Failure::Closed));
    assert!(!requests.drain(Instant::now()));
    let reset = requests.begin_reset(64).unwrap();
    requests.completed(0, begun.id, &done());
    requests.completed(0, reset.id, &done());
    assert!(requests.drain(Instant::now()));
}

#[test]
fn what_a_host_announces_is_heard_once() {
    let requests = requests(8, &[65_536]);
    assert!(matches!(requests.wait_change(NOW), Ok(false)));
    for operation in [Operation::ENUMERATE_BUS, Operation::REMOVE_DEVICE] {
        requests.said(&operation.0.to_le_bytes());
    }
    assert!(matches!(requests.wait_change(NOW), Ok(true)));
    assert!(matches!(requests.wait_change(NOW), Ok(false)));
    requests.said(&done());
    requests.said(&[]);
    assert!(matches!(requests.wait_change(NOW), Ok(false)));
    assert_eq!((requests.counters().announcements, requests.counters().malformed), (2, 2));
}
