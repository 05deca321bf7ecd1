//! Violations about GPADLs and releases.

use std::time::Duration;

use vmbus::message::{GpadlBody, GpadlHeader, GpadlId, GuestMessage, HostMessage, Version};
use vmbus_simhost::{Config, Latency, Limits, PAGE_BYTES, ViolationKind};

use super::common::Guest;
use super::{config, found, guest, refused, rescind};

#[test]
fn a_gpadl_number_that_is_in_use() {
    let mut guest = guest(Version::V5_2);
    let gpadl = guest.share(1, 1);
    let words = vec![PAGE_BYTES, 300];
    guest.post(&GuestMessage::GpadlHeader(GpadlHeader { relid: 2, gpadl, range_bytes: 16, ranges: 1, words }));
    assert!(guest.inbox.is_empty());
    found(&mut guest, &[ViolationKind::GpadlReused]);
}

#[test]
fn a_body_without_header() {
    let mut guest = guest(Version::V5_2);
    let done = guest.share(1, 1);
    for gpadl in [GpadlId(7), done] {
        guest.post(&GuestMessage::GpadlBody(GpadlBody { number: 1, gpadl, words: vec![5] }));
    }
    found(&mut guest, &[ViolationKind::GpadlBody; 2]);
}

#[test]
fn ranges_that_make_no_sense() {
    for (ranges, range_bytes, words) in [
        (0, 16, vec![PAGE_BYTES, 30]),
        (1, 16, vec![0, 30]),
        (1, 16, vec![PAGE_BYTES | 1 << 44, 30]),
        (1, 24, vec![PAGE_BYTES, 30]),
    ] {
        let mut guest = guest(Version::V5_2);
        let gpadl = GpadlId(9);
        guest.host().message(&GuestMessage::GpadlHeader(GpadlHeader { relid: 1, gpadl, range_bytes, ranges, words }));
        guest.drain();
        guest.expect(&refused(1, gpadl));
        found(&mut guest, &[ViolationKind::GpadlMalformed]);
        assert!(guest.host().live_gpadls().is_empty());
    }
}

#[test]
fn pages_that_are_not_there_or_somebody_elses() {
    let mut guest = guest(Version::V5_2);
    let _ = guest.share(1, 2);
    use ViolationKind::{GpadlOutside, GpadlOverlap};
    // Beyond memory; those of the GPADL above; twice the same; a monitor page.
    let all = [
        (vec![30, 1 << 30], GpadlOutside),
        (vec![17], GpadlOverlap),
        (vec![40, 41, 40], GpadlOverlap),
        (vec![2], GpadlOverlap),
    ];
    for (pages, _) in all.clone() {
        let gpadl = guest.post_gpadl(2, pages);
        guest.expect(&refused(2, gpadl));
    }
    found(&mut guest, &all.map(|(_, kind)| kind));
    assert_eq!(guest.host().live_gpadls().len(), 1);
}

#[test]
fn more_gpadls_or_pages_than_a_host_bears() {
    for limits in [Limits { gpadls: 1, ..Limits::default() }, Limits { gpadl_pages: 3, ..Limits::default() }] {
        let mut guest = Guest::connected(Config { limits, ..config() }, Version::V5_2);
        let _ = guest.share(1, 2);
        let pages = guest.pages(2);
        let gpadl = guest.post_gpadl(1, pages);
        guest.expect(&refused(1, gpadl));
        found(&mut guest, &[ViolationKind::GpadlTooMany]);
    }
}

#[test]
fn teardowns_that_name_nothing_or_come_twice() {
    let latency = Latency { teardown: Duration::from_millis(5), ..Latency::default() };
    let mut guest = Guest::connected(Config { latency, ..config() }, Version::V5_2);
    let gpadl = guest.share(1, 1);
    guest.post(&GuestMessage::GpadlTeardown { relid: 1, gpadl: GpadlId(7) });
    guest.post(&GuestMessage::GpadlTeardown { relid: 2, gpadl });
    guest.post(&GuestMessage::GpadlTeardown { relid: 1, gpadl });
    guest.post(&GuestMessage::GpadlTeardown { relid: 1, gpadl });
    guest.settle();
    guest.expect(&HostMessage::GpadlTorndown { gpadl });
    use ViolationKind::{TeardownTwice, TeardownUnknown};
    found(&mut guest, &[TeardownUnknown, TeardownUnknown, TeardownTwice]);
}

#[test]
fn the_ring_of_an_open_channel_is_taken_down() {
    let mut guest = guest(Version::V5_2);
    let open = guest.open(1);
    guest.post(&GuestMessage::GpadlTeardown { relid: 1, gpadl: open.ring });
    assert!(guest.inbox.is_empty(), "the host still uses it");
    found(&mut guest, &[ViolationKind::TeardownLive]);
}

#[test]
fn releases_that_are_not_due() {
    let mut guest = guest(Version::V5_2);
    guest.post(&GuestMessage::RelidReleased { relid: 1 });
    let _open = guest.open(2);
    guest.post(&GuestMessage::RelidReleased { relid: 2 });
    use ViolationKind::{ReleasedOpen, ReleasedUnasked};
    found(&mut guest, &[ReleasedUnasked, ReleasedOpen]);
}

#[test]
fn a_release_that_comes_twice() {
    let mut guest = guest(Version::V5_2);
    rescind(&mut guest, 1);
    guest.post(&GuestMessage::RelidReleased { relid: 1 });
    guest.post(&GuestMessage::RelidReleased { relid: 1 });
    found(&mut guest, &[ViolationKind::ReleasedTwice]);
    assert_eq!(guest.host().released(1), 2);
}

#[test]
fn a_release_while_gpadls_are_up() {
    let mut guest = guest(Version::V5_2);
    let _ = guest.share(1, 1);
    let open = guest.open(1);
    rescind(&mut guest, 1);
    guest.post(&GuestMessage::GpadlTeardown { relid: 1, gpadl: open.ring });
    guest.expect(&HostMessage::GpadlTorndown { gpadl: open.ring });
    guest.post(&GuestMessage::RelidReleased { relid: 1 });
    found(&mut guest, &[ViolationKind::ReleasedWithGpadls]);
    assert!(guest.host().live_gpadls().is_empty(), "the release takes them with it");
}

/// The twin of unknown teardowns: the host has refused the GPADL because of a rescind, and the guest, which has heard of
/// the rescind and not of the refusal, takes it down.
#[test]
fn a_teardown_that_crosses_the_refusal_is_no_violation() {
    let mut guest = guest(Version::V5_2);
    let id = guest.host().offer_on_relid(1).unwrap();
    guest.host().rescind(id).unwrap();
    let gpadl = GpadlId(5);
    let words = vec![PAGE_BYTES, 300];
    let header = GpadlHeader { relid: 1, gpadl, range_bytes: 16, ranges: 1, words };
    guest.sim.message(&GuestMessage::GpadlHeader(header));
    guest.sim.message(&GuestMessage::GpadlTeardown { relid: 1, gpadl });
    guest.drain();
    assert_eq!(guest.inbox, [HostMessage::Rescind { relid: 1 }, refused(1, gpadl)]);
    guest.assert_honest();
}
