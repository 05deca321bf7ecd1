//! Endpoints by one thread: every step of their life, and every refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use uuid::Uuid;

use super::{Endpoints, Held, Kind, Owner, Phase, Refused};

struct Numbers;

impl Kind for Numbers {
    type Incoming = u32;
    type Outcome = &'static str;
    type Bell = ();
}

const NAME: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

fn listening(endpoints: &Endpoints<Numbers>, name: Uuid) -> Result<Owner<Numbers>, Refused> {
    endpoints.bind(name, (), |endpoint| endpoint.listen(2))
}

#[test]
fn r3_1_a_lookup_is_held_through_close_and_rebind() {
    let endpoints = Endpoints::<Numbers>::new(8);
    let first = listening(&endpoints, NAME).unwrap();
    let held = endpoints.look_up(NAME).unwrap();
    drop(first);
    assert_eq!(held.phase(), Phase::Closed);
    assert!(endpoints.look_up(NAME).is_none());
    // The name is free, the slot is not.
    let second = listening(&endpoints, NAME).unwrap();
    assert_eq!((endpoints.in_use(), endpoints.names()), (2, 1));
    assert_eq!(held.deliver(1), Err(1), "the old one takes nothing in");
    endpoints.look_up(NAME).unwrap().deliver(7).unwrap();
    assert_eq!(second.accept(None), Ok(7));
    drop((held, second));
    assert_eq!((endpoints.in_use(), endpoints.names()), (0, 0));
}

#[test]
fn r3_2_a_failed_start_leaves_nothing() {
    let endpoints = Endpoints::<Numbers>::new(8);
    let failed = endpoints.bind(NAME, (), |_| Err(Refused::Bound));
    assert_eq!(failed.map(drop), Err(Refused::Bound));
    assert_eq!((endpoints.in_use(), endpoints.names()), (0, 0));
    drop(listening(&endpoints, NAME).unwrap());
}

#[test]
fn r3_3_a_name_is_had_once_and_reserved_names_find_nobody() {
    let endpoints = Endpoints::<Numbers>::new(3);
    let bound = listening(&endpoints, NAME).unwrap();
    assert_eq!(listening(&endpoints, NAME).map(drop), Err(Refused::Taken));
    assert_eq!(endpoints.reserve(NAME, ()).map(drop), Err(Refused::Taken));
    let reserved = endpoints.reserve(OTHER, ()).unwrap();
    assert_eq!(listening(&endpoints, OTHER).map(drop), Err(Refused::Taken));
    assert!(endpoints.look_up(OTHER).is_none());
    assert_eq!(bound.begin_connect(), Err(Refused::Bound));
    assert_eq!(reserved.begin_connect(), Ok(()));
    assert_eq!(reserved.begin_connect(), Err(Refused::Bound));
    assert_eq!(reserved.listen(1), Err(Refused::Bound));
    let third = listening(&endpoints, Uuid::from_u128(3)).unwrap();
    assert_eq!(listening(&endpoints, Uuid::from_u128(4)).map(drop), Err(Refused::Full));
    drop((bound, reserved, third));
    assert_eq!((endpoints.in_use(), endpoints.names()), (0, 0));
}

#[test]
fn r3_3_a_closing_endpoint_does_not_connect() {
    let endpoints = Endpoints::<Numbers>::new(3);
    let endpoint = endpoints.reserve(NAME, ()).unwrap();
    drop(endpoint.close());
    assert_eq!(endpoint.begin_connect(), Err(Refused::Closed));
    assert_eq!(endpoint.listen(1), Err(Refused::Closed));
    assert_eq!(endpoint.complete("late"), Err("late"));
}

#[test]
fn r3_4_close_ends_accept_and_connect_and_gives_back_what_is_left() {
    let endpoints = Endpoints::<Numbers>::new(3);
    let owner = listening(&endpoints, NAME).unwrap();
    owner.deliver(1).unwrap();
    owner.deliver(2).unwrap();
    assert_eq!(owner.deliver(3), Err(3), "the backlog is full");
    assert_eq!(owner.withdraw(|item| *item == 1), [1]);
    let remains = owner.close().unwrap();
    assert_eq!(remains.incoming, [2]);
    assert!(owner.close().is_none(), "the first has it");
    assert_eq!(owner.accept(None), Err(Refused::Closed));
    let connecting = endpoints.reserve(OTHER, ()).unwrap();
    connecting.begin_connect().unwrap();
    assert_eq!(connecting.outcome(Some(Instant::now())), Err(Refused::TimedOut));
    connecting.complete("there").unwrap();
    assert_eq!(connecting.outcome(None), Ok("there"));
    assert_eq!(connecting.outcome(None), Err(Refused::Bound), "once");
}

#[test]
fn r3_4_a_callback_may_close_its_own_endpoint() {
    let endpoints = Endpoints::<Numbers>::new(3);
    let owner = listening(&endpoints, NAME).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&calls);
    owner.call_back(move |endpoint: &Held<Numbers>| {
        counts.fetch_add(1, Ordering::Relaxed);
        if endpoint.accept(Some(Instant::now())) == Ok(2) {
            assert!(endpoint.close().is_some());
        }
    });
    owner.deliver(1).unwrap();
    owner.deliver(2).unwrap();
    assert_eq!(owner.deliver(3), Err(3));
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert_eq!(Arc::strong_count(&calls), 1, "the callback is gone with the endpoint's life");
}

#[test]
fn the_end_closes_all_and_lets_nobody_in() {
    let endpoints = Endpoints::<Numbers>::new(8);
    let bound = listening(&endpoints, NAME).unwrap();
    let connecting = endpoints.reserve(OTHER, ()).unwrap();
    connecting.begin_connect().unwrap();
    endpoints.end();
    assert_eq!((bound.phase(), connecting.phase()), (Phase::Closed, Phase::Closed));
    assert_eq!(connecting.outcome(None), Err(Refused::Closed));
    assert_eq!(listening(&endpoints, NAME).map(drop), Err(Refused::Ended));
    drop((bound, connecting));
    assert_eq!((endpoints.in_use(), endpoints.names()), (0, 0));
}
