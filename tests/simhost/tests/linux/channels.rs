//! hv_vmbus and uio_hv_generic: drivers/hv/channel.c and channel_mgmt.c, drivers/uio/uio_hv_generic.c.

use std::time::Duration;

use vmbus::class::Class;
use vmbus::message::{Features, GuestMessage, HostMessage, Protocol, Status, Version};
use vmbus_simhost::{Config, DeviceSpec, Error, Latency, ViolationKind};

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
        let answers: Vec<_> =
            tried[..=place].iter().map(|version| guest.contact(*version, Features::empty())).collect();
        assert_eq!(answers.iter().position(|accepted| *accepted), Some(place), "{only}");
        guest.request_offers();
        assert_eq!(guest.offers.len(), 1);
        let counters = guest.host().counters();
        assert_eq!((counters.contacts, counters.contacts_refused), (1, place as u64));
        guest.assert_honest();
    }
}

/// `vmbus_process_offer` takes a second primary channel of an instance for a bug, and `vmbus_onoffer` looks at nothing but
/// the instance: such an offer is never released. So it comes when the one before is released.
#[test]
fn an_instance_is_offered_again_when_it_is_released() {
    let mut guest = Guest::connected(Config::seeded(1).with_device(DeviceSpec::echo(1)), Version::V5_3);
    let first = guest.offers.pop().unwrap();
    let id = guest.host().offer_on_relid(first.relid).unwrap();
    for same in [DeviceSpec::echo(1), DeviceSpec { class: Class::SCSI, ..DeviceSpec::echo(1) }] {
        assert!(matches!(guest.host().offer(same), Err(Error::Duplicate { .. })), "it is there");
    }
    guest.host().rescind(id).unwrap();
    let again = guest.host().offer(DeviceSpec::echo(1).with_monitor()).unwrap();
    assert!(guest.host().offer(DeviceSpec::echo(1)).is_err(), "one waits already");
    guest.drain();
    assert_eq!((guest.offers.len(), guest.host().state(again)), (0, Some("hidden")));
    guest.post(&GuestMessage::RelidReleased { relid: first.relid });
    let offer = guest.offers.pop().unwrap();
    assert_eq!((offer.instance, offer.monitor_id), (first.instance, Some(0)));
    guest.assert_honest();
    // And one that waits when the guest says goodbye is found after its next hello, once.
    let id = guest.host().offer_on_relid(offer.relid).unwrap();
    guest.host().rescind(id).unwrap();
    guest.host().offer(DeviceSpec::echo(1)).unwrap();
    guest.post(&GuestMessage::Unload);
    assert!(guest.contact(Version::V5_3, Features::empty()));
    guest.inbox.clear();
    guest.request_offers();
    assert_eq!(guest.offers.len(), 1);
    guest.assert_honest();
}

/// A subchannel that is offered before its device has a driver is none that Linux can open; it opens subchannels when
/// they come, and never again. So they come while the primary channel is open, and go when it is closed.
#[test]
fn subchannels_go_with_the_open_that_they_came_in() {
    let mut guest = Guest::connected(Config::seeded(1).with_device(DeviceSpec::echo(1)), Version::V5_3);
    let id = guest.host().offer_on_relid(1).unwrap();
    for _ in 0..2 {
        let primary = guest.open(1);
        guest.host().offer_subchannel(id).unwrap();
        guest.drain();
        let offer = guest.offers.pop().unwrap();
        assert_eq!((offer.relid, offer.subchannel_index), (2, 1));
        let subchannel = guest.open(2);
        // `vmbus_disconnect_ring`: subchannels first.
        guest.close(subchannel);
        guest.post(&GuestMessage::Close { relid: 1 });
        guest.expect(&HostMessage::Rescind { relid: 2 });
        guest.post(&GuestMessage::GpadlTeardown { relid: 1, gpadl: primary.ring });
        guest.expect(&HostMessage::GpadlTorndown { gpadl: primary.ring });
        guest.post(&GuestMessage::RelidReleased { relid: 2 });
    }
    let _open = guest.open(1);
    guest.host().offer_subchannel(id).unwrap();
    guest.post(&GuestMessage::Unload);
    assert!(guest.contact(Version::V5_3, Features::empty()));
    guest.offers.clear();
    guest.inbox.clear();
    guest.request_offers();
    assert_eq!(guest.offers.len(), 1, "the primary channel alone");
    guest.assert_honest();
}

/// For a table of versions: the host is another one for the next kernel.
#[test]
fn a_host_with_other_versions_is_met_by_the_next_hello() {
    let mut guest = Guest::connected(Config::seeded(1).with_device(DeviceSpec::echo(1)), Version::V5_3);
    for version in [Version::V5_2, Version::V5_0, Version::V4_1, Version::V4_0, Version::V3_0] {
        guest.host().configure(|config| config.versions = vec![version]);
        let _open = guest.open(1);
        guest.post(&GuestMessage::Unload);
        guest.expect(&HostMessage::UnloadResponse);
        assert!(!guest.contact(Version::V5_3, Features::empty()));
        assert!(guest.contact(version, Features::empty()));
        guest.request_offers();
    }
    guest.assert_honest();
}

/// `hv_process_channel_removal` takes a subchannel out of the list of its primary channel, which must be there still.
#[test]
fn a_primary_channel_is_taken_back_after_its_subchannels() {
    for again in [false, true] {
        let mut guest = Guest::connected(Config::seeded(1).with_device(DeviceSpec::echo(1)), Version::V5_3);
        let id = guest.host().offer_on_relid(1).unwrap();
        let _open = guest.open(1);
        for _ in 0..2 {
            guest.host().offer_subchannel(id).unwrap();
        }
        guest.drain();
        if again {
            guest.host().reoffer(id).unwrap()
        } else {
            guest.host().rescind(id).unwrap()
        }
        guest.drain();
        let relids: Vec<_> = guest.inbox.drain(..).collect();
        assert_eq!(relids, [3, 2, 1].map(|relid| HostMessage::Rescind { relid }));
        guest.offers.clear();
        for relid in [3, 2, 1] {
            guest.post(&GuestMessage::RelidReleased { relid });
        }
        assert_eq!(guest.offers.len(), usize::from(again));
    }
}
