//! hv_vmbus and uio_hv_generic: drivers/hv/channel.c and channel_mgmt.c, drivers/uio/uio_hv_generic.c.

use std::time::Duration;

use vmbus::message::{Features, GuestMessage, HostMessage, Protocol, Status, Version};
use vmbus_simhost::{Config, DeviceSpec, Latency, ViolationKind};

use crate::common::{Guest, RING_PAGES};

/// `target_cpu_store` lets go of its lock while it waits, so the channel may be closed meanwhile.
#[test]
fn a_channel_that_is_closed_while_it_moves_is_answered_still() {
    let latency = Latency { modify: Duration::from_millis(5), ..Latency::default() };
    for (version, answers) in [(Version::V5_3, 1), (Version::V5_2, 0)] {
        let config = Config { latency, ..Config::seeded(1).with_device(DeviceSpec::echo(1)) };
        let mut guest = Guest::connected(config, version);
        let open = guest.open(1);
        guest.post(&GuestMessage::ModifyChannel { relid: 1, target_vp: 1 });
        guest.post(&GuestMessage::Close { relid: 1 });
        guest.settle();
        let status = Status::UNSUCCESSFUL;
        assert_eq!(guest.inbox, vec![HostMessage::ModifyChannelResponse { relid: 1, status }; answers], "{version}");
        guest.inbox.clear();
        guest.post(&GuestMessage::GpadlTeardown { relid: 1, gpadl: open.ring });
        guest.expect(&HostMessage::GpadlTorndown { gpadl: open.ring });
        guest.assert_honest();
    }
}

/// `vmbus_teardown_gpadl` says nothing once the channel is rescinded; and ring and buffers are freed before the release,
/// so the next channel's GPADL may have the same pages before the host hears of it.
#[test]
fn memory_of_a_rescinded_channel_is_used_again_before_its_release() {
    let devices = Config::seeded(1).with_device(DeviceSpec::echo(1)).with_device(DeviceSpec::echo(2));
    let mut guest = Guest::connected(Config { tolerated: ViolationKind::LINUX.to_vec(), ..devices }, Version::V5_3);
    let pages = guest.pages(2 * RING_PAGES);
    for round in 1..=3 {
        let ring = guest.post_gpadl(1, pages.clone());
        guest.expect(&HostMessage::GpadlCreated { relid: 1, gpadl: ring, status: Status::SUCCESS });
        guest.post(&Guest::open_message(1, ring));
        guest.expect(&HostMessage::OpenResult { relid: 1, open_id: 1001, status: Status::SUCCESS });
        let id = guest.host().offer_on_relid(1).unwrap();
        guest.host().reoffer(id).unwrap();
        guest.drain();
        guest.expect(&HostMessage::Rescind { relid: 1 });
        // Meanwhile, on another processor:
        let other = guest.post_gpadl(2, pages.clone());
        guest.expect(&HostMessage::GpadlCreated { relid: 2, gpadl: other, status: Status::SUCCESS });
        guest.post(&GuestMessage::RelidReleased { relid: 1 });
        assert_eq!(guest.host().live_gpadls(), [other], "the release took the other one's ring, and no more");
        guest.post(&GuestMessage::GpadlTeardown { relid: 2, gpadl: other });
        guest.expect(&HostMessage::GpadlTorndown { gpadl: other });
        assert_eq!(guest.host().violation_count(ViolationKind::ReleasedWithGpadls), round);
        assert_eq!(guest.host().violation_count(ViolationKind::GpadlStale), round);
    }
    guest.assert_honest();
    // The channel is there, so its pages are its own.
    let first = guest.post_gpadl(1, pages.clone());
    guest.expect(&HostMessage::GpadlCreated { relid: 1, gpadl: first, status: Status::SUCCESS });
    let _ = guest.post_gpadl(2, pages);
    assert_eq!(guest.violations(), [ViolationKind::GpadlOverlap]);
}

/// `vmbus_exit`: goodbye, then the channels one by one; and whoever loads the module again says hello.
#[test]
fn unloading_hv_vmbus_says_goodbye_before_it_closes() {
    let config = Config { tolerated: ViolationKind::LINUX.to_vec(), ..Config::seeded(1) };
    let mut guest = Guest::connected(config.with_device(DeviceSpec::echo(1)), Version::V5_3);
    for _ in 0..2 {
        let _open = guest.open(1);
        guest.post(&GuestMessage::Unload);
        guest.expect(&HostMessage::UnloadResponse);
        // By bytes, as it comes: nothing is agreed on any more.
        for message in [GuestMessage::Close { relid: 1 }, GuestMessage::RelidReleased { relid: 1 }] {
            let protocol = Protocol::new(Version::V5_3, Features::empty());
            guest.sim.post(&message.encode(protocol).unwrap());
            guest.drain();
        }
        assert!(guest.inbox.is_empty());
        assert!(guest.contact(Version::V5_3, Features::empty()));
        guest.request_offers();
    }
    assert_eq!(guest.host().violation_count(ViolationKind::AfterUnload), 4);
    guest.assert_honest();
}

/// The newest version first, and down from there; each hello is its own, and a refusal is no connection.
#[test]
fn versions_are_tried_downwards() {
    let tried = [(5, 3), (5, 2), (5, 1), (5, 0), (4, 1), (4, 0), (3, 0), (2, 4)].map(|(a, b)| Version::new(a, b));
    for (place, only) in tried.into_iter().enumerate() {
        let config = Config::seeded(1).with_version(only).with_device(DeviceSpec::echo(1));
        let mut guest = Guest::new(config);
        let answers: Vec<_> = tried[..=place].iter().map(|version| guest.contact(*version, Features::empty())).collect();
        assert_eq!(answers.iter().position(|accepted| *accepted), Some(place), "{only}");
        guest.request_offers();
        assert_eq!(guest.offers.len(), 1);
        let counters = guest.host().counters();
        assert_eq!((counters.contacts, counters.contacts_refused), (1, place as u64));
        guest.assert_honest();
    }
}
