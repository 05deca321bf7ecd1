//! The executor over the wire link and a host that answers: what needs real threads.
#![expect(unreachable_pub, clippy::unwrap_used, reason = "tests may panic, and their parts are for each other")]

mod buffers;
mod direct;
mod drain;
mod end;
mod gate;
mod halves;
mod host;
mod keepalive;
mod life;
mod races;
mod subscribers;

use vmbus::class::Class;
use vmbus_channels::{Channel, Error, OpenOptions, Settings, Vmbus};

use host::{Host, instance};

/// A bus over a host that offers these.
fn bus(offers: impl IntoIterator<Item = u32>) -> (Vmbus, Host) {
    let (link, host) = Host::new(2, offers);
    (Vmbus::start(link, Settings::default()).unwrap(), host)
}

fn open(bus: &Vmbus, relid: u32) -> Result<Channel, Error> {
    bus.open(bus.find(instance(relid))?.id, OpenOptions::default())
}

/// Waits until the guest knows of the device.
fn arrived(bus: &Vmbus, relid: u32) {
    let mut changes = bus.subscribe().unwrap();
    loop {
        match changes.next(Some(host::LONG)).unwrap().unwrap() {
            vmbus_channels::Announcement::Arrived(offer) if offer.relid == relid => return,
            _ => {}
        }
    }
}

fn receive(channel: &mut Channel) -> Result<Vec<u64>, Error> {
    let mut ids = Vec::new();
    channel.receive(usize::MAX, |packet| {
        ids.push(packet.transaction_id());
        Ok::<_, Error>(())
    })?;
    Ok(ids)
}

#[test]
fn devices_are_found_by_class_and_instance() {
    let (bus, _host) = bus([1, 2]);
    assert_eq!(bus.of_class(Class::HEARTBEAT).unwrap().len(), 2);
    assert!(bus.of_class(Class::NIC).unwrap().is_empty());
    assert_eq!(bus.find(instance(2)).unwrap().relid, 2);
    assert!(matches!(bus.find(instance(3)), Err(Error::NotFound(_))));
    assert_eq!(bus.version().unwrap(), vmbus::message::Version::V5_3);
}
