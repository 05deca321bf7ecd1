//! The executor over the UIO link, with devices made of files: what an application sees of opens, ends and returns.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panic")]

#[path = "../../vmbus/tests/fake/mod.rs"]
#[expect(dead_code, reason = "made for all tests of devices, of which these need a part")]
mod fake;

use std::thread;
use std::time::Duration;

use vmbus::ErrorKind;
use vmbus::uio::{BusLink, Layout, OpenDevice, Options};
use vmbus_channels::{
    Announcement, Counters, Error, Offer, OpenOptions, OutgoingPacket, Settings, Subscription, Vmbus, Wake,
};

use fake::{Fake, RELID};

const NO_WAIT: Options = Options { layout: Layout::Auto, ring_wait: Duration::ZERO, watch: false };
/// Longer than anything takes; a test that comes here has failed.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

/// A bus without announcements: it is looked at.
fn start(fake: &Fake) -> (Vmbus, Subscription) {
    let link = BusLink::over(fake.bus(), NO_WAIT, None).unwrap();
    let vmbus = Vmbus::start(Box::new(link), Settings::default()).unwrap();
    let mut subscription = vmbus.subscribe().unwrap();
    while subscription.next(PATIENCE).unwrap().unwrap() != Announcement::AllArrived {}
    (vmbus, subscription)
}

fn arrival(subscription: &mut Subscription) -> Offer {
    match subscription.next(PATIENCE).unwrap() {
        Some(Announcement::Arrived(offer)) => offer,
        other => panic!("{other:?}"),
    }
}

fn departure(subscription: &mut Subscription) -> Offer {
    match subscription.next(PATIENCE).unwrap() {
        Some(Announcement::Departed(offer)) => offer,
        other => panic!("{other:?}"),
    }
}

/// The end of a release is not announced; it is counted.
fn counted(vmbus: &Vmbus, what: impl Fn(&Counters) -> bool) {
    while !what(&vmbus.counters().unwrap()) {
        thread::yield_now();
    }
}

/// As the kernel makes the ring anew at the next open.
fn renew(fake: &Fake) {
    let file = fake.ring_file(RELID);
    let bytes = file.metadata().unwrap().len();
    file.set_len(0).unwrap();
    file.set_len(bytes).unwrap();
}

#[test]
fn a_channel_opens_talks_and_closes_as_often_as_one_likes() {
    let fake = Fake::new().with_fifo();
    let (vmbus, _subscription) = start(&fake);
    let offer = vmbus.find(fake.device().instance).unwrap();
    for id in 0..10 {
        let mut channel = vmbus.open(offer.id, OpenOptions::default()).unwrap();
        let (mut reader, mut writer) = fake.host(RELID);
        channel.try_send(OutgoingPacket::in_band(id), &[b"to host"]).unwrap();
        assert_eq!(reader.read_into(&mut [0; 8]).unwrap().packet.unwrap().transaction_id(), id);
        let _ = writer.try_write(&OutgoingPacket::in_band(id), &[b"to guest"]).unwrap();
        assert_eq!(channel.wait(PATIENCE).unwrap(), Wake::Packets);
        channel.close().unwrap();
        renew(&fake);
    }
    counted(&vmbus, |counters| counters.open == 0 && counters.gpadls == 0 && counters.channels == 1);
    vmbus.shutdown().unwrap();
}

#[test]
fn busy_is_busy_and_the_channel_can_be_opened_later() {
    let fake = Fake::new().with_fifo();
    let (vmbus, _subscription) = start(&fake);
    let offer = vmbus.find(fake.device().instance).unwrap();
    let holder = OpenDevice::open(&fake.bus(), &fake.device(), NO_WAIT).unwrap();
    let error = vmbus.open(offer.id, OpenOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Link(vmbus::Error::Busy { .. })) && error.kind() == ErrorKind::Busy, "{error}");
    holder.close().unwrap();
    // The executor still gives back what the failed open left.
    counted(&vmbus, |counters| counters.gpadls == 0);
    vmbus.open(offer.id, OpenOptions::default()).unwrap().close().unwrap();
}

/// Unbound while it is open, while it is closed, and bound again each time: one arrival, one departure, one release.
#[test]
fn r1_4_devices_come_and_go_and_nothing_is_left() {
    let fake = Fake::new().with_fifo();
    fake.unbind();
    let (vmbus, mut subscription) = start(&fake);
    for round in 1..=6 {
        fake.bind();
        let offer = arrival(&mut subscription);
        let channel = (round % 2 == 0).then(|| vmbus.open(offer.id, OpenOptions::default()).unwrap());
        fake.unbind();
        assert_eq!(departure(&mut subscription).id, offer.id);
        assert!(matches!(vmbus.open(offer.id, OpenOptions::default()), Err(Error::Gone(_) | Error::Link(_))));
        if let Some(mut channel) = channel {
            assert!(channel.wait(PATIENCE).unwrap_err().is_rescinded());
            // Not released while somebody here has it.
            assert_eq!(vmbus.counters().unwrap().control.released, round - 1);
            channel.close().unwrap();
            renew(&fake);
        }
        counted(&vmbus, |counters| counters.control.released == round && counters.channels == 0);
    }
    let counters = vmbus.counters().unwrap();
    assert_eq!((counters.control.offers, counters.control.released, counters.gpadls), (6, 6, 0), "{counters:?}");
    vmbus.shutdown().unwrap();
}

/// Who sleeps on a device's descriptor, which says nothing of what happens here, hears of the end by the waker's. Red
/// without the interrupt in `Hold::end`: it sleeps on.
#[test]
fn the_end_of_the_bus_wakes_who_sleeps_on_a_device() {
    for _ in 0..20 {
        let fake = Fake::new().with_fifo();
        let (vmbus, _subscription) = start(&fake);
        let offer = vmbus.find(fake.device().instance).unwrap();
        let mut channel = vmbus.open(offer.id, OpenOptions::default()).unwrap();
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| channel.wait(PATIENCE));
            vmbus.shutdown().unwrap();
            let woken = sleeper.join().unwrap();
            assert!(matches!(woken, Err(Error::Ended)), "{woken:?}");
        });
    }
}

/// Two halves that sleep on one device hear of its removal, and of the bus's end; the device is released when both have
/// gone.
#[test]
fn two_halves_hear_of_the_end() {
    for unbinds in [true, false] {
        let fake = Fake::new().with_fifo();
        let (vmbus, _subscription) = start(&fake);
        let offer = vmbus.find(fake.device().instance).unwrap();
        let channel = vmbus.open(offer.id, OpenOptions::default()).unwrap();
        let (mut receiver, mut sender) = channel.split().unwrap();
        let full = |id: &u64| sender.try_send(OutgoingPacket::in_band(*id), &[&[0; 64]]).is_err();
        let next = (0..).find(full).unwrap();
        thread::scope(|scope| {
            let receiving = scope.spawn(|| receiver.wait(PATIENCE).map(drop));
            let sending = scope.spawn(|| sender.send(OutgoingPacket::in_band(next), &[&[0; 64]], PATIENCE));
            if unbinds {
                fake.unbind()
            } else {
                vmbus.shutdown().unwrap()
            }
            for ended in [receiving.join().unwrap(), sending.join().unwrap()] {
                let error = ended.unwrap_err();
                assert!(if unbinds { error.is_rescinded() } else { matches!(error, Error::Ended) }, "{error}");
            }
        });
        sender.close().unwrap();
        if unbinds {
            assert_eq!(vmbus.counters().unwrap().control.released, 0);
            receiver.close().unwrap();
            counted(&vmbus, |counters| counters.control.released == 1 && counters.channels == 0);
        }
    }
}

#[test]
fn suspended_channels_end_and_come_back_under_another_name() {
    let fake = Fake::new().with_fifo();
    let (vmbus, mut subscription) = start(&fake);
    let offer = vmbus.find(fake.device().instance).unwrap();
    let mut channel = vmbus.open(offer.id, OpenOptions::default()).unwrap();
    vmbus.suspend().unwrap();
    assert_eq!(departure(&mut subscription).id, offer.id);
    assert!(channel.wait(PATIENCE).unwrap_err().is_rescinded());
    channel.close().unwrap();
    renew(&fake);
    vmbus.resume().unwrap();
    let mut again = None;
    while again.is_none() {
        if let Some(Announcement::Arrived(offer)) = subscription.next(PATIENCE).unwrap() {
            again = Some(offer);
        }
    }
    let again = again.unwrap();
    assert!(again.id != offer.id && again.instance == offer.instance);
    vmbus.open(again.id, OpenOptions::default()).unwrap().close().unwrap();
}
