//! The whole bus with a guest that is played by hand: all but KVM and a kernel.

pub(crate) mod guest;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vmbus::message::{GuestMessage, HostMessage, Version};
use vmbus_simhost::{Config, DeviceSpec};

use crate::wires::tests::FakeWires;
use guest::Guest;

fn config() -> Config {
    Config::seeded(11).with_device(DeviceSpec::echo(1)).with_device(DeviceSpec::echo(2).with_monitor())
}

#[test]
fn packets_come_back_by_eventfd_and_by_monitor_page() {
    let (mut guest, offers) = Guest::connected(config(), Version::V5_3);
    assert_eq!(offers.len(), 2);
    for offer in offers {
        let mut open = guest.open(offer);
        for round in 0..20_u8 {
            assert_eq!(guest.echo(&mut open, &[round; 24]), [round; 24]);
        }
        guest.close(&open);
    }
    let counters = guest.bus.control().counters().unwrap();
    assert_eq!((counters.signals, counters.monitor_signals, counters.stray_signals), (20, 20, 0));
    let stats = &guest.bus.shared().stats;
    assert_eq!(stats.signals_by_event.load(Ordering::Relaxed), 20);
    assert_eq!((stats.signals_by_hypercall.load(Ordering::Relaxed), stats.lost.load(Ordering::Relaxed)), (0, 0));
    assert!(guest.bus.control().violations().unwrap().is_empty());
}

#[test]
fn without_eventfds_signals_are_hypercalls() {
    let mut guest = Guest::new(config(), FakeWires::without_signals());
    guest.connect(Version::V4_1);
    guest.post(&GuestMessage::RequestOffers);
    let mut plain = None;
    while let HostMessage::Offer(offer) = guest.hear() {
        if offer.monitor_id.is_none() {
            plain = Some((offer.relid, None));
        }
    }
    let mut open = guest.open(plain.unwrap());
    assert_eq!(guest.echo(&mut open, b"12345678"), b"12345678");
    assert_eq!(guest.bus.shared().stats.signals_by_hypercall.load(Ordering::Relaxed), 1);
    assert_eq!(guest.signal(9), 0x12);
}

#[test]
fn a_relid_can_be_signalled_while_it_is_offered() {
    let mut guest = Guest::new(Config::seeded(5), FakeWires::without_signals());
    guest.connect(Version::V5_2);
    guest.post(&GuestMessage::RequestOffers);
    assert_eq!(guest.hear(), HostMessage::AllOffersDelivered);
    assert_eq!(guest.signal(1), 0x12);
    let id = guest.bus.control().offer(DeviceSpec::echo(3)).unwrap();
    assert!(matches!(guest.hear(), HostMessage::Offer(offer) if offer.relid == 1));
    assert_eq!(guest.signal(1), 0);
    guest.bus.control().rescind(id).unwrap();
    assert_eq!(guest.hear(), HostMessage::Rescind { relid: 1 });
    guest.post(&GuestMessage::RelidReleased { relid: 1 });
    let until = Instant::now() + Duration::from_secs(20);
    while guest.signal(1) != 0x12 {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    // Offers made now, and heard of, come after what was posted.
    guest.bus.control().offer(DeviceSpec::echo(4)).unwrap();
    guest.bus.control().offer(DeviceSpec::echo(5)).unwrap();
    let mut relids = Vec::new();
    for _ in 0..2 {
        let HostMessage::Offer(offer) = guest.hear() else { panic!("no offer") };
        relids.push(offer.relid);
    }
    assert_eq!(relids, [1, 2]);
    assert_eq!([guest.signal(1), guest.signal(2), guest.signal(3)], [0, 0, 0x12]);
}

#[test]
fn old_and_new_hosts_listen_on_their_own_connections() {
    let old = Guest::new(Config::seeded(1).with_version(Version::V4_0), FakeWires::new());
    let new = Guest::new(Config::seeded(1).with_version(Version::V5_3), FakeWires::new());
    for (guest, expected) in [(&old, [0, 0x12]), (&new, [0x12, 0])] {
        assert_eq!([guest.try_post(1, &[0; 8]), guest.try_post(4, &[0; 8])], expected);
    }
    let change = |config: &mut Config| config.versions = Version::ALL.to_vec();
    old.bus.control().with(move |simulation| simulation.host().configure(change)).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while old.try_post(4, &[0; 8]) != 0 {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    assert_eq!(old.try_post(1, &[0; 8]), 0);
}

#[test]
fn a_guest_that_starts_anew_finds_its_host_as_it_was() {
    let (mut guest, offers) = Guest::connected(config(), Version::V5_3);
    for &offer in &offers {
        let mut open = guest.open(offer);
        assert_eq!(guest.echo(&mut open, b"12345678"), b"12345678");
    }
    // Under way to a guest that does not listen any more.
    let control = guest.bus.control().clone();
    for number in 10..20 {
        control.offer(DeviceSpec::echo(number)).unwrap();
    }
    let mut guest = guest.restarted();
    guest.connect(Version::V4_1);
    let offers = guest.offers();
    assert_eq!(offers.len(), 12);
    for offer in offers {
        let mut open = guest.open(offer);
        assert_eq!(guest.echo(&mut open, b"87654321"), b"87654321");
    }
    let counters = control.counters().unwrap();
    assert_eq!((counters.contacts, counters.unloads, counters.left_open, counters.opens), (2, 0, 2, 14));
    let stats = &guest.bus.shared().stats;
    assert_eq!((stats.waiting.load(Ordering::Relaxed), stats.lost.load(Ordering::Relaxed)), (0, 0));
    // The machine is a new one, and knows the connections again.
    assert_eq!(stats.signals_by_hypercall.load(Ordering::Relaxed), 0);
    assert!(control.violations().unwrap().is_empty());
}

#[test]
fn many_offers_go_through_one_slot() {
    let devices = (0..200).map(DeviceSpec::echo);
    let (guest, offers) = Guest::connected(devices.fold(Config::seeded(2), Config::with_device), Version::V5_3);
    assert_eq!(offers.len(), 200);
    let stats = &guest.bus.shared().stats;
    assert_eq!((stats.messages.load(Ordering::Relaxed), stats.waiting.load(Ordering::Relaxed)), (202, 0));
}

#[test]
fn a_deaf_guest_is_borne_and_a_host_that_is_dropped_ends() {
    let mut guest = Guest::new(Config::seeded(3), FakeWires::new());
    guest.connect(Version::V5_3);
    guest.post(&GuestMessage::RequestOffers);
    let control = guest.bus.control().clone();
    for number in 0..1500 {
        control.offer(DeviceSpec::echo(number)).unwrap();
    }
    assert_eq!(guest.bus.shared().stats.waiting.load(Ordering::Relaxed), 1024);
    // What the SynIC did not take is in the host still, and comes in order.
    assert_eq!(guest.hear(), HostMessage::AllOffersDelivered);
    for relid in 1..=1500 {
        assert!(matches!(guest.hear(), HostMessage::Offer(offer) if offer.relid == relid), "{relid}");
    }
    drop(guest);
    assert!(control.counters().is_err());
}
