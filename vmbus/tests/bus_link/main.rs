//! The link that plays the host, over devices made of files: offers, opens, rescinds, releases, and what may block.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail by panic")]

mod executor;
#[path = "../fake/mod.rs"]
#[expect(dead_code, reason = "made for all tests of devices, of which these need a part")]
mod fake;
mod lifetimes;
mod unsteady;

use std::os::fd::AsFd;
use std::time::Duration;

use vmbus::class::Class;
use vmbus::link::{Link, Share};
use vmbus::message::{GpadlId, GuestMessage, HostMessage, Status, Version};
use vmbus::uio::{BusLink, Layout, OpenDevice, Options};
use vmbus::{Error, ErrorKind};
use vmbus_ringbuf::{OutgoingPacket, Writer};

use executor::{Executor, connected};
use fake::{Fake, NAME, RELID, times_mapped};

const NO_WAIT: Options = Options { layout: Layout::Auto, ring_wait: Duration::ZERO, watch: false };
const OTHER: &str = "2d2c1a4e-0e5f-4b6c-9a67-1df4cd2d8b10";

/// How often this process has the file open.
fn times_open(file: &std::path::Path) -> usize {
    let file = file.canonicalize().unwrap();
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    links.filter(|link| std::fs::read_link(link.path()).is_ok_and(|target| target == file)).count()
}

#[test]
fn devices_in_user_space_are_offered_with_what_sysfs_shows() {
    let fake = Fake::new().with_fifo().with_monitor(7);
    let other = fake.beside(OTHER, 4, "uio1");
    let third = fake.beside("33333333-0e5f-4b6c-9a67-1df4cd2d8b10", 5, "uio2").with_fifo();
    third.unbind();
    let (_executor, _kernel, offers) = connected(&fake, NO_WAIT);
    let [offer] = offers.as_slice() else { panic!("one has no node, one is not bound: {offers:?}") };
    assert_eq!((offer.relid, offer.instance.to_string().as_str(), offer.class), (RELID, NAME, Class::DYNAMIC_MEMORY));
    assert_eq!((offer.monitor_id, offer.subchannel_index, offer.user_defined), (Some(7), 0, [0; 120]));
    drop(other);
}

#[test]
fn a_bus_that_is_not_there_has_no_offers() {
    let fake = Fake::new();
    std::fs::remove_dir_all(fake.path("sys")).unwrap();
    assert!(connected(&fake, NO_WAIT).2.is_empty());
}

#[test]
fn an_opened_channel_reaches_the_host_and_closes_for_good() {
    let fake = Fake::new().with_fifo();
    let (mut executor, _kernel, _) = connected(&fake, NO_WAIT);
    for ring in 1..=3 {
        let port = executor.open(RELID, ring).unwrap();
        assert!(executor.link.port(RELID, GpadlId(ring)).is_err(), "a port is handed out once");
        let (mut host, _) = fake.host(RELID);
        let mut writer = Writer::new(port.outgoing).unwrap();
        let _ = writer.try_write(&OutgoingPacket::in_band(ring.into()), &[b"to host"]).unwrap();
        assert_eq!(host.read_into(&mut [0; 8]).unwrap().packet.unwrap().transaction_id(), u64::from(ring));
        port.line.signal().unwrap();
        assert!(port.line.unmasks() && port.line.descriptor().is_some() && !port.line.is_rescinded());
        assert_eq!(times_open(&fake.node()), 1);
        drop((port.line, port.incoming, writer, host));
        executor.close(RELID, ring);
        assert_eq!((times_open(&fake.node()), times_mapped(&fake.ring_path(RELID))), (0, 0));
        // The kernel makes the ring anew at the next open.
        let file = fake.ring_file(RELID);
        let bytes = file.metadata().unwrap().len();
        file.set_len(0).unwrap();
        file.set_len(bytes).unwrap();
    }
}

#[test]
fn why_a_device_can_t_be_opened_is_said_by_the_port() {
    let fake = Fake::new().with_fifo();
    let (mut executor, _kernel, _) = connected(&fake, NO_WAIT);
    let holder = OpenDevice::open(&fake.bus(), &fake.device(), NO_WAIT).unwrap();
    let error = executor.open(RELID, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains(&format!("process {} (", std::process::id())), "{error}");
    // As the executor does when it gets no port.
    executor.close(RELID, 1);
    holder.close().unwrap();
    drop(executor.open(RELID, 2).unwrap());
    executor.close(RELID, 2);
    std::fs::remove_file(fake.node()).unwrap();
    std::fs::create_dir(fake.node()).unwrap();
    assert!(matches!(executor.open(RELID, 3), Err(Error::Io { .. })));
    executor.close(RELID, 3);
}

#[test]
fn what_this_link_can_t_do_fails() {
    let fake = Fake::new().with_fifo();
    let (mut executor, _kernel, _) = connected(&fake, NO_WAIT);
    executor.link.share(RELID, GpadlId(5), Share::Buffer { bytes: 4096 }).unwrap();
    let refused = HostMessage::GpadlCreated { relid: RELID, gpadl: GpadlId(5), status: Status::UNSUCCESSFUL };
    assert_eq!(executor.hear(), refused);
    assert!(matches!(executor.link.buffer(GpadlId(5)), Err(Error::Unsupported { .. })));
    executor.post(GuestMessage::ModifyChannel { relid: RELID, target_vp: 1 });
    let refused = HostMessage::ModifyChannelResponse { relid: RELID, status: Status::UNSUCCESSFUL };
    assert_eq!(executor.hear(), refused);
    let endpoint = uuid::Uuid::from_u128(1);
    executor.post(GuestMessage::TlConnect { endpoint, service: endpoint, silo: None });
    let refused = HostMessage::TlConnectResult { endpoint, service: endpoint, status: Status::CONNECTION_REFUSED };
    assert_eq!(executor.hear(), refused);
    executor.link.share(99, GpadlId(6), Share::Ring { outgoing_bytes: 8192, incoming_bytes: 8192 }).unwrap();
    let refused = HostMessage::GpadlCreated { relid: 99, gpadl: GpadlId(6), status: Status::UNSUCCESSFUL };
    assert_eq!(executor.hear(), refused);
    assert!(executor.link.interrupts(0).is_none() && executor.link.processors() > 0);
}

/// Nothing is announced in a container; a lost announcement may have been about anything.
#[test]
fn devices_are_found_without_announcements_and_when_they_get_lost() {
    let fake = Fake::new().with_fifo();
    fake.unbind();
    let mut silent = Executor::over(&fake, NO_WAIT, None);
    assert!(silent.connect(Version::V6_0).is_empty());
    let (lossy, kernel, offers) = connected(&fake, NO_WAIT);
    assert!(offers.is_empty());
    fake.bind();
    assert_eq!(silent.hears_offer(RELID).instance.to_string(), NAME);
    kernel.loses();
    lossy.hears_offer(RELID);
    fake.unbind();
    silent.hears_rescind(RELID);
    kernel.loses();
    lossy.hears_rescind(RELID);
}

#[test]
fn a_link_that_stops_leaves_nothing_open() {
    let fake = Fake::new().with_fifo();
    let (mut executor, _kernel, _) = connected(&fake, NO_WAIT);
    let port = executor.open(RELID, 1).unwrap();
    let open_id = times_open(&fake.node());
    assert_eq!(open_id, 1);
    assert!(port.line.descriptor().is_some_and(|descriptor| descriptor.as_fd().try_clone_to_owned().is_ok()));
    drop(port.line);
    executor.link.stop();
    executor.link.stop();
    assert_eq!((times_open(&fake.node()), times_mapped(&fake.ring_path(RELID))), (0, 0));
    assert!(executor.link.post(&GuestMessage::RequestOffers).is_err());
}

#[test]
fn a_link_that_never_started_can_be_dropped() {
    let fake = Fake::new();
    drop(BusLink::new(fake.bus()).unwrap());
}
