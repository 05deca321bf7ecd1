//! Who hears of changes: in order, and if one does not read, bounded and told so.

use std::collections::BTreeSet;
use std::time::Duration;

use vmbus_channels::{Announcement, Error, Settings, Vmbus};

use crate::host::{Host, LONG};
use crate::{arrived, bus};

#[test]
fn what_is_there_comes_first_and_changes_in_order() {
    let (bus, host) = bus([1, 2]);
    let mut changes = bus.subscribe().unwrap();
    let mut next = || changes.next(Some(LONG)).unwrap().unwrap();
    let present: BTreeSet<u32> = [next(), next()]
        .map(|announcement| match announcement {
            Announcement::Arrived(offer) => offer.relid,
            other => panic!("{other:?}"),
        })
        .into();
    assert_eq!(present, BTreeSet::from([1, 2]));
    assert_eq!(next(), Announcement::AllArrived);
    host.offer(3);
    host.rescind(2);
    assert!(matches!(next(), Announcement::Arrived(offer) if offer.relid == 3));
    assert!(matches!(next(), Announcement::Departed(offer) if offer.relid == 2));
    assert_eq!(changes.next(Some(Duration::ZERO)).unwrap(), None);
}

/// Red without the cut in `Subscribers::announce`: the queue then grows with every change.
#[test]
fn one_who_does_not_read_is_cut_off_and_starts_anew() {
    const UNREAD: usize = 8;
    let (link, host) = Host::new(1, []);
    let bus = Vmbus::start(link, Settings { unread: UNREAD, ..Settings::default() }).unwrap();
    let mut lazy = bus.subscribe().unwrap();
    for round in 0..50 {
        host.offer(1 + round);
        arrived(&bus, 1 + round);
        assert!(lazy.receiver().len() <= UNREAD + 1);
    }
    assert_eq!(bus.counters().unwrap().lagged, 1);
    let mut read = 0;
    let error = loop {
        match lazy.next(Some(LONG)) {
            Ok(Some(_)) => read += 1,
            Ok(None) => panic!("nothing more, and not told"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Lagged), "{error}");
    assert!(read <= UNREAD + 1, "{read}");
    let mut present = BTreeSet::new();
    while let Some(Announcement::Arrived(offer)) = lazy.next(Some(LONG)).unwrap() {
        present.insert(offer.relid);
    }
    assert_eq!(present, (1..=50).collect());
    host.offer(60);
    assert!(matches!(lazy.next(Some(LONG)).unwrap(), Some(Announcement::Arrived(offer)) if offer.relid == 60));
}

#[test]
fn a_subscription_ends_with_the_bus() {
    let (bus, host) = bus([1]);
    let mut changes = bus.subscribe().unwrap();
    while !matches!(changes.next(Some(LONG)).unwrap(), Some(Announcement::AllArrived)) {}
    drop(bus);
    assert!(matches!(changes.next(Some(LONG)).unwrap(), Some(Announcement::Departed(_))));
    assert!(matches!(changes.next(Some(LONG)), Err(Error::Ended)));
    host.until("the guest's end", |host| host.gone.then_some(()));
}
