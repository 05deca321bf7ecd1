//! The link over a device made of files: opening, locking, rings, signals, events, the end of the device, closing.
#![expect(clippy::unwrap_used, reason = "a test may fail by panic")]

#[path = "../fake/mod.rs"]
#[expect(dead_code, reason = "made for all tests of devices, of which these need a part")]
mod fake;
mod subchannels;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::param::page_size;
use vmbus::uio::{Event, Layout, OpenDevice, Options};
use vmbus::{Error, ErrorKind};
use vmbus_ringbuf::{ControlField, Memory, OutgoingPacket, Reader, Writer};

use fake::{Fake, NAME, RELID, RING_PAGES, times_mapped};

const NO_WAIT: Options = Options { layout: Layout::Auto, ring_wait: Duration::ZERO, watch: false };

fn open(fake: &Fake) -> Result<OpenDevice, Error> {
    OpenDevice::open(&fake.bus(), &fake.device(), NO_WAIT)
}

fn over_socket(fake: &Fake) -> (OpenDevice, OwnedFd) {
    let (node, host) = Fake::socket();
    (OpenDevice::from_node(node, &fake.bus(), &fake.device(), NO_WAIT).unwrap(), host)
}

fn interrupt(host: &OwnedFd, count: u32) {
    rustix::io::write(host, &count.to_ne_bytes()).unwrap();
}

#[test]
fn both_rings_reach_the_host() {
    let fake = Fake::new().with_fifo();
    let link = open(&fake).unwrap();
    let rings = link.rings(RELID).unwrap();
    assert_eq!(rings.outgoing.data_bytes() as usize, (RING_PAGES - 1) * page_size());
    assert!(rings.outgoing.is_mirrored() && rings.incoming.is_mirrored());
    let (mut host_reader, mut host_writer) = fake.host(RELID);
    let (mut writer, mut reader) = (Writer::new(rings.outgoing).unwrap(), Reader::new(rings.incoming).unwrap());
    let _ = writer.try_write(&OutgoingPacket::in_band(1), &[b"to host"]).unwrap();
    let _ = host_writer.try_write(&OutgoingPacket::in_band(2), &[b"to guest"]).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(host_reader.read_into(&mut buffer).unwrap().packet.unwrap().transaction_id(), 1);
    assert_eq!(&buffer, b"to host\0");
    assert_eq!(reader.read_into(&mut buffer).unwrap().packet.unwrap().transaction_id(), 2);
    assert_eq!(&buffer, b"to guest");
}

#[test]
fn the_kernels_buffers_are_found_by_name_and_revoked() {
    let fake = Fake::new().with_file();
    fake.map(24, "recv:57", 2 * page_size());
    fake.map(28, "send:4294967295", page_size());
    let link = open(&fake).unwrap();
    let buffers = link.kernel_buffers().unwrap();
    let found: Vec<_> = buffers.iter().map(|buffer| (&*buffer.name, buffer.gpadl.0, buffer.memory.bytes())).collect();
    assert_eq!(found, [("recv", 57, 2 * page_size()), ("send", u32::MAX, page_size())]);
    assert_eq!(buffers[0].memory.set_bits(page_size() + 8, 0x1234), Some(0));
    let shared = |at: usize| std::fs::read(fake.node()).unwrap()[24 * page_size() + page_size() + 8 + at];
    assert_eq!((shared(0), shared(1)), (0x34, 0x12));
    assert_eq!(link.kernel_buffers().unwrap()[0].memory.load(page_size() + 8), Some(0x1234));
    assert!(times_mapped(&fake.node()) >= 2);
    link.revoke();
    assert_eq!((buffers[0].memory.load(page_size() + 8), times_mapped(&fake.node())), (Some(0), 0));
    assert_eq!(link.kernel_buffers().unwrap_err().kind(), ErrorKind::Rescinded);
    let fake = Fake::new().with_file();
    fake.map(24, "recv:many", page_size());
    assert!(matches!(open(&fake).unwrap().kernel_buffers(), Err(Error::Malformed { .. })));
}

/// The kernel makes the node before its maps.
#[test]
fn maps_that_come_after_the_node_are_waited_for() {
    let fake = Fake::new().with_fifo().with_monitor(3);
    let maps = fake.device_folder().join("uio/uio0/maps");
    let (device, bus) = (fake.device(), fake.bus());
    std::fs::remove_dir_all(&maps).unwrap();
    let patient = Options { ring_wait: Duration::from_secs(30), ..NO_WAIT };
    thread::scope(|scope| {
        let opener = scope.spawn(|| OpenDevice::open(&bus, &device, patient));
        while vmbus::holders::of(&bus, &device).unwrap().is_empty() && !opener.is_finished() {
            thread::yield_now();
        }
        fake.map(0, "txrx_rings", 2 * RING_PAGES * page_size());
        ["int_page", "monitor_page"].into_iter().zip(1..).for_each(|(name, index)| fake.map(index, name, 4096));
        // A FIFO's pages can't be mapped: it has come that far.
        let error = opener.join().unwrap().unwrap_err();
        assert!(error.to_string().starts_with("cannot map"), "{error}");
    });
}

#[test]
fn rings_are_handed_out_once() {
    let fake = Fake::new().with_fifo();
    let link = open(&fake).unwrap();
    let _rings = link.rings(RELID).unwrap();
    assert_eq!(link.rings(RELID).unwrap_err().kind(), ErrorKind::Busy);
}

#[test]
fn a_second_open_is_busy_and_names_the_holder() {
    let fake = Fake::new().with_fifo();
    let link = open(&fake).unwrap();
    let error = open(&fake).unwrap_err();
    assert!(matches!(&error, Error::Busy { device, .. } if device == NAME), "{error}");
    let message = error.to_string();
    assert!(message.contains(&format!("process {} (", std::process::id())), "{message}");
    assert!(message.contains("dev/uio0"), "{message}");
    link.close().unwrap();
    open(&fake).unwrap();
}

#[test]
fn a_channel_that_was_in_use_is_not_taken_for_a_new_one() {
    let fake = Fake::new().with_fifo();
    fake.ring(RELID, 0).store(ControlField::WriteIndex, 64);
    fake.ring(RELID, 0).store(ControlField::ReadIndex, 64);
    assert_eq!(open(&fake).unwrap_err().kind(), ErrorKind::Busy);
    // Who is given the node is given the channel as it is.
    let (link, _host) = over_socket(&fake);
    assert_eq!(link.rings(RELID).unwrap().outgoing.load(ControlField::WriteIndex), 64);
}

#[test]
fn an_unbound_device_and_odd_sizes_are_refused() {
    let fake = Fake::new().with_fifo();
    for bytes in [0, page_size(), 2 * page_size(), 5 * page_size(), 4 * page_size() + 2] {
        fake.map(0, "txrx_rings", bytes);
        assert!(matches!(open(&fake), Err(Error::Malformed { .. })), "{bytes} bytes");
    }
    fake.map(0, "other", 4 * page_size());
    assert!(matches!(open(&fake), Err(Error::Unsupported { .. })));
    std::fs::remove_dir_all(fake.device_folder().join("uio")).unwrap();
    let error = open(&fake).unwrap_err();
    assert!(error.to_string().contains("vmbusctl bind"), "{error}");
}

#[test]
fn without_a_ring_file_the_rings_are_mapped_once() {
    let fake = Fake::new().with_file();
    std::fs::remove_file(fake.ring_path(RELID)).unwrap();
    let mirrored = Options { layout: Layout::Mirrored, ..NO_WAIT };
    assert!(matches!(OpenDevice::open(&fake.bus(), &fake.device(), mirrored), Err(Error::Timeout { .. })));
    let link = open(&fake).unwrap();
    let rings = link.rings(RELID).unwrap();
    assert!(!rings.outgoing.is_mirrored() && !rings.incoming.is_mirrored());
    rings.incoming.store(ControlField::ReadIndex, 0x1234);
    let bytes = std::fs::read(fake.node()).unwrap();
    assert_eq!(bytes[RING_PAGES * page_size() + 4..][..2], [0x34, 0x12], "the second ring of map 0");
    assert_eq!(times_mapped(&fake.node()), 1);
    link.close().unwrap();
    assert_eq!(times_mapped(&fake.node()), 0, "although the rings are still held");
}

#[test]
fn a_monitor_id_signals_by_two_bits() {
    let fake = Fake::new().with_file().with_monitor(70);
    let link = open(&fake).unwrap();
    assert!(!link.doorbell(RELID).unwrap().unmasks());
    link.signal(RELID).unwrap();
    // Second half of the page, bit 11; third trigger group, bit 6: groups of 8 bytes behind the first 8.
    assert_eq!(fake.page_bits(), (vec![2048 * 8 + 11], vec![(8 + 2 * 8) * 8 + 6]));
}

#[test]
fn without_a_monitor_id_the_signal_is_four_bytes() {
    let fake = Fake::new();
    let (link, host) = over_socket(&fake);
    assert!(link.doorbell(RELID).unwrap().unmasks());
    link.signal(RELID).unwrap();
    let mut signal = [0; 16];
    assert_eq!(rustix::io::read(&host, &mut signal).unwrap(), 4);
    assert_eq!(signal[..4], 1_i32.to_ne_bytes());
}

#[test]
fn waits_end_by_interrupt_waker_and_time() {
    let fake = Fake::new();
    let (link, host) = over_socket(&fake);
    let waker = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    assert_eq!(link.wait(None, Some(Duration::ZERO)).unwrap(), Event::TimedOut);
    assert_eq!(link.acknowledge().unwrap(), None);
    interrupt(&host, 7);
    assert_eq!(link.wait(Some(waker.as_fd()), None).unwrap(), Event::Interrupt(7));
    assert_eq!(link.wait(Some(waker.as_fd()), Some(Duration::from_millis(1))).unwrap(), Event::TimedOut);
    rustix::io::write(&waker, &1_u64.to_ne_bytes()).unwrap();
    assert_eq!(link.wait(Some(waker.as_fd()), None).unwrap(), Event::Woken);
    interrupt(&host, 8);
    assert_eq!(link.acknowledge().unwrap(), Some(8));
    link.check().unwrap();
}

/// The end of the device, seen by a wait: when the error is there, no mapping reaches the old memory any more.
#[test]
fn the_end_revokes_before_it_is_reported() {
    let fake = Fake::new();
    let (link, host) = over_socket(&fake);
    let rings = link.rings(RELID).unwrap();
    rings.incoming.store(ControlField::WriteIndex, 8);
    drop(host);
    assert!(!link.is_rescinded(), "nobody has looked yet");
    let error = link.wait(None, None).unwrap_err();
    assert_eq!((error.kind(), error.device()), (ErrorKind::Rescinded, Some(NAME)));
    assert_eq!(times_mapped(&fake.ring_path(RELID)), 0);
    assert_eq!(rings.incoming.load(ControlField::WriteIndex), 0);
    assert!(link.is_rescinded());
    for outcome in [link.check(), link.acknowledge().map(|_| ()), link.rings(99).map(|_| ())] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Rescinded);
    }
    link.close().unwrap();
}

#[test]
fn an_eio_and_a_failing_write_mean_the_end() {
    for which in 0..2 {
        let fake = Fake::new().with_eio();
        let link = open(&fake).unwrap();
        let rings = link.rings(RELID).unwrap();
        let outcome = if which == 0 { link.acknowledge().map(|_| ()) } else { closed_peer_signal(&fake) };
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Rescinded);
        drop((rings, link));
        assert_eq!(times_mapped(&fake.ring_path(RELID)), 0);
    }
}

fn closed_peer_signal(fake: &Fake) -> Result<(), Error> {
    let (link, host) = over_socket(fake);
    drop(host);
    link.signal(RELID)
}

/// `unbind` under load, as far as files can show it: two threads hammer both rings through the public API while the
/// device ends. They see old bytes, then only zeroes, and live.
#[test]
fn hammered_rings_read_zeroes_after_the_end() {
    const OLD: u64 = 0x0101_0101_0101_0101;
    const MINE: u64 = 0x0202_0202_0202_0202;
    for _ in 0..50 {
        let fake = Fake::new();
        let (link, host) = over_socket(&fake);
        let pair = link.rings(RELID).unwrap();
        let rings = [pair.outgoing, pair.incoming];
        for ring in rings.iter() {
            (0..ring.data_bytes()).step_by(8).for_each(|offset| ring.store_words(offset, [OLD]));
        }
        let running = AtomicBool::new(false);
        let link = &link;
        thread::scope(|scope| {
            for ring in rings.iter() {
                let running = &running;
                scope.spawn(move || {
                    let mut late = None;
                    loop {
                        let revoked = link.is_rescinded();
                        running.store(true, Ordering::Release);
                        for offset in (0..ring.data_bytes()).step_by(8) {
                            match ring.load_words(offset) {
                                [OLD] if !revoked => ring.store_words(offset, [MINE]),
                                [MINE] if !revoked => ring.store_words(offset, [OLD]),
                                [0] => {}
                                // This thread's own store, which came just behind the revocation.
                                [OLD | MINE] if late.replace(offset).is_none_or(|known| known == offset) => {}
                                other => panic!("{other:x?} at {offset}, revoked {revoked}"),
                            }
                        }
                        if revoked {
                            return;
                        }
                    }
                });
            }
            while !running.load(Ordering::Acquire) {
                thread::yield_now();
            }
            drop(host);
            assert_eq!(link.wait(None, None).unwrap_err().kind(), ErrorKind::Rescinded);
        });
        for ring in rings.iter() {
            let left = (0..ring.data_bytes()).step_by(8).filter(|offset| ring.load_words(*offset) != [0]).count();
            assert!(left <= 1, "one store may have been under way, {left} words are not zero");
        }
    }
}

/// A `ring` file whose pages are taken away (cut short here, unmapped by the kernel there) ends the link by itself.
#[test]
fn a_bus_error_in_a_ring_ends_the_link() {
    let fake = Fake::new();
    let (link, _host) = over_socket(&fake);
    let rings = link.rings(RELID).unwrap();
    fake.ring_file(RELID).set_len(0).unwrap();
    assert_eq!(rings.incoming.load(ControlField::WriteIndex), 0);
    assert!(link.is_rescinded());
    assert_eq!(link.wait(None, None).unwrap_err().kind(), ErrorKind::Rescinded);
    assert_eq!(times_mapped(&fake.ring_path(RELID)), 0, "the other ring is revoked with it");
}

#[test]
fn the_watcher_sees_the_end_although_nobody_waits() {
    let fake = Fake::new();
    let (node, host) = Fake::socket();
    let watched = Options { watch: true, ..NO_WAIT };
    let link = OpenDevice::from_node(node, &fake.bus(), &fake.device(), watched).unwrap();
    interrupt(&host, 3);
    assert_eq!(link.acknowledge().unwrap(), Some(3), "the watcher leaves the count alone");
    drop(host);
    while !link.is_rescinded() {
        thread::yield_now();
    }
    link.close().unwrap();
    let (link, _host) = over_socket(&fake);
    drop(link);
}

/// Older kernels free a ring under its mappings, and nobody but the watcher would notice in time.
#[test]
fn an_older_kernel_gets_a_watcher_unasked() {
    let fake = Fake::new().with_kernel("6.6.30");
    let (link, host) = over_socket(&fake);
    drop(host);
    while !link.is_rescinded() {
        thread::yield_now();
    }
}

/// When the other end sees the descriptor close, no mapping is left: it closes last. Also when the link is dropped.
#[test]
fn the_descriptor_closes_last() {
    for round in 0..100 {
        let fake = Fake::new();
        fake.channel(12);
        let (link, host) = over_socket(&fake);
        let rings = (link.rings(RELID).unwrap(), link.rings(12).unwrap());
        let files = [fake.ring_path(RELID), fake.ring_path(12)];
        // Two rings, each in two pieces; the kernel may show neighbours as one.
        assert!(files.iter().all(|file| times_mapped(file) > 1));
        let seen = thread::scope(|scope| {
            let closed = scope.spawn(|| {
                poll(&mut [PollFd::new(&host, PollFlags::empty())], None).unwrap();
                files.each_ref().map(|file| times_mapped(file))
            });
            if round % 2 == 0 {
                link.close().unwrap()
            } else {
                drop(link)
            }
            closed.join().unwrap()
        });
        assert_eq!(seen, [0, 0]);
        drop(rings);
    }
}

#[test]
fn a_device_opens_a_hundred_times() {
    let fake = Fake::new().with_fifo();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for _ in 0..100 {
        let link = open(&fake).unwrap();
        let _rings = link.rings(RELID).unwrap();
        link.close().unwrap();
    }
    assert!(descriptors() < before + 50, "other tests may hold some");
    assert_eq!(times_mapped(&fake.ring_path(RELID)), 0);
}
