//! The data path both ways: under load, in any order, with buffers that run out, and with what goes beside a frame.

use super::world::{World, echoed, frame, number, pump, until};
use std::time::Duration;
use vmbus_devices::Error;
use vmbus_devices::net::{
    Failure, Held, Network, Offloads, Segmentation, Settings, TransmitChecksum, TransmitInfo, VlanTag,
};
use vmbus_simhost::Random;
use vmbus_simhost::device::NetworkSettings;
use vmbus_simhost::device::net::Far;

const PLAIN: TransmitInfo = TransmitInfo { vlan: None, checksum: None, segmentation: None, hash: None };

#[test]
fn ten_thousand_frames_of_all_sizes_come_back_in_order() {
    let world = World::new();
    let mut adapter = world.started(Settings::default());
    pump(adapter.queue(), 10_000, |number| 22 + usize::try_from(number * 31 % 1493).unwrap());
    let statistics = adapter.queue().statistics();
    assert_eq!((statistics.received_frames, statistics.malformed, statistics.unexpected), (10_000, 0, 0));
    until(adapter.queue(), |queue| {
        queue.receive(1, |_| Ok::<_, Error>(())).unwrap();
        queue.statistics().transmitted_frames == 10_000
    });
    adapter.close().unwrap();
    assert_eq!((world.count("frames"), world.count("dropped")), (10_000, 0));
    world.end();
}

/// Few sections, few parts, small rings: everything runs out all the time, and completions come in any order.
#[test]
fn nothing_is_lost_when_everything_runs_out() {
    for (reorders, frames_per_packet) in [(false, 1), (true, 1), (true, 7)] {
        let host = NetworkSettings { reorders, frames_per_packet, most_parts: 13, ..NetworkSettings::default() };
        let world = World::with(host);
        let mut settings = World::small();
        (settings.open.outgoing_bytes, settings.open.incoming_bytes) = (8192, 8192);
        let mut adapter = world.started(settings);
        pump(adapter.queue(), 5000, |number| 60 + usize::try_from(number % 1400).unwrap());
        assert_ne!(adapter.queue().statistics().transmit_busy, 0);
        until(adapter.queue(), |queue| {
            queue.receive(1, |_| Ok::<_, Error>(())).unwrap();
            queue.outstanding() == 0
        });
        adapter.queue().flush().unwrap();
        // Every part is back, so that everything was completed, and nothing twice (the checker would say so).
        let parts = world.count("parts");
        assert_eq!(parts, 13);
        let host = world.host;
        let back = world.stack.control.wait_for(Duration::from_secs(30), move |simulation| {
            simulation.host().count(host, "free") == 13 && simulation.host().count(host, "sections") == 0
        });
        assert!(back.unwrap());
        adapter.close().unwrap();
        world.end();
    }
}

/// Packets are kept, and completed in an order that a seed decides: the host gets each part back once, and goes on.
#[test]
fn packets_are_completed_in_any_order() {
    let world = World::with(NetworkSettings { most_parts: 16, frames_per_packet: 2, ..NetworkSettings::default() });
    let mut adapter = world.started(World::small());
    world.command("send 1000 300");
    let (mut held, mut random, mut next): (Vec<(Held, u64)>, _, u64) = (Vec::new(), Random::new(7), 0);
    let queue = adapter.queue();
    while next < 1000 {
        while let Some(packet) = queue.take().unwrap() {
            let frames = queue.frames(&packet, |packet| {
                assert_eq!((number(packet.frame), packet.frame.len()), (next, 300));
                next += 1;
                Ok::<_, Error>(())
            });
            assert_eq!(frames.unwrap(), packet.messages());
            held.push((packet, next - 1));
        }
        // Read again, it is the same: the host can't have the memory back.
        for (packet, expected) in &held {
            let mut last = 0;
            let again = queue.frames(packet, |packet| {
                last = number(packet.frame);
                Ok::<_, Error>(())
            });
            again.unwrap();
            assert_eq!(last, *expected);
        }
        for _ in 0..=random.below(3) {
            if !held.is_empty() {
                let index = usize::try_from(random.below(u64::try_from(held.len()).unwrap())).unwrap();
                queue.complete(held.swap_remove(index).0);
            }
        }
        queue.flush().unwrap();
        if next < 1000 && held.is_empty() {
            queue.wait(Some(Duration::from_millis(100))).unwrap();
        }
    }
    held.into_iter().for_each(|(held, _)| queue.complete(held));
    queue.flush().unwrap();
    let host = world.host;
    let free = move |simulation: &mut vmbus_simhost::Simulation<_>| simulation.host().count(host, "free") == 16;
    assert!(world.stack.control.wait_for(Duration::from_secs(30), free).unwrap());
    adapter.close().unwrap();
    world.end();
}

#[test]
fn what_goes_beside_a_frame_comes_and_goes() {
    let world = World::new();
    let mut adapter = world.started(Settings { offloads: Offloads::all(), ..Settings::default() });
    let tag = VlanTag { priority: 3, drop_eligible: false, id: 4095 };
    let checksum =
        TransmitChecksum { network: Network::V4, tcp: true, udp: false, ip_header: true, transport_offset: 34 };
    let segmentation = Segmentation { network: Network::V4, segment_bytes: 1448, transport_offset: 34 };
    let infos = [
        PLAIN,
        TransmitInfo { vlan: Some(tag), ..PLAIN },
        TransmitInfo { checksum: Some(checksum), ..PLAIN },
        TransmitInfo { vlan: Some(tag), checksum: Some(checksum), hash: Some(5), ..PLAIN },
        TransmitInfo { segmentation: Some(segmentation), ..PLAIN },
    ];
    let queue = adapter.queue();
    for (number, info) in (0..).zip(infos) {
        queue.send(&[&frame(number, 100)], &info, None).unwrap();
        let mut seen = false;
        until(queue, |queue| {
            let received = queue.receive(1, |packet| {
                assert_eq!(packet.frame, echoed(frame(number, 100)));
                assert_eq!(packet.info.vlan, info.vlan);
                let good = packet.info.checksum.is_some_and(|sums| sums.transport_good() && sums.ip_good());
                assert_eq!(good, info.checksum.is_some());
                seen = true;
                Ok::<_, Error>(())
            });
            received.unwrap();
            seen
        });
    }
    adapter.close().unwrap();
    let counts = ["tagged", "checksums", "segmented"].map(|name| world.count(name));
    assert_eq!(counts, [2, 2, 1]);
    world.end();
}

#[test]
fn a_frame_may_come_in_pieces_and_must_fit() {
    let world = World::with(NetworkSettings { far: Far::Nowhere, ..NetworkSettings::default() });
    let mut adapter = world.started(Settings::default());
    let queue = adapter.queue();
    let whole = frame(1, 1000);
    for pieces in [1, 2, 3, 7, 8, 20] {
        let pieces: Vec<&[u8]> = whole.chunks(whole.len().div_ceil(pieces)).collect();
        queue.send(&pieces, &PLAIN, None).unwrap();
    }
    queue.send(&[], &PLAIN, None).unwrap();
    let longest = queue.longest_frame();
    queue.send(&[&vec![0; longest]], &PLAIN, None).unwrap();
    let error = queue.try_send(&[&vec![0; longest + 1]], &PLAIN).unwrap_err();
    let Error::Network { failure: Failure::TooLong { bytes, most }, .. } = error else { panic!("{error}") };
    assert_eq!((bytes, most), (longest + 1, longest));
    until(queue, |queue| {
        queue.receive(1, |_| Ok::<_, Error>(())).unwrap();
        queue.outstanding() == 0
    });
    assert_eq!(queue.statistics().transmitted_frames, 8);
    adapter.close().unwrap();
    assert_eq!(world.count("bytes"), 6 * 1000 + u64::try_from(longest).unwrap());
    world.end();
}

/// A host that does not complete is waited for as long as one likes, and not longer; the frames are not lost.
#[test]
fn a_sender_waits_for_sections_and_no_longer_than_it_wants() {
    let world = World::with(NetworkSettings { far: Far::Nowhere, ..NetworkSettings::default() });
    let mut adapter = world.started(World::small());
    world.command("hold");
    let queue = adapter.queue();
    // 32 KiB of buffer, sections of 6144 bytes.
    for number in 0..5 {
        assert!(queue.try_send(&[&frame(number, 60)], &PLAIN).unwrap());
    }
    assert!(!queue.try_send(&[&frame(5, 60)], &PLAIN).unwrap());
    let error = queue.send(&[&frame(5, 60)], &PLAIN, Some(Duration::from_millis(30))).unwrap_err();
    assert!(matches!(error, Error::Channel(vmbus_channels::Error::Stalled { .. })), "{error}");
    assert_eq!(queue.outstanding(), 5);
    let control = world.stack.control.clone();
    let host = world.host;
    let release = std::thread::spawn(move || control.command(host, "release").unwrap());
    queue.send(&[&frame(5, 60)], &PLAIN, None).unwrap();
    release.join().unwrap();
    until(queue, |queue| {
        queue.receive(1, |_| Ok::<_, Error>(())).unwrap();
        queue.outstanding() == 0
    });
    assert_eq!(queue.statistics().transmitted_frames, 6);
    adapter.close().unwrap();
    world.end();
}

#[test]
fn a_waker_ends_a_wait_and_a_wait_for_room() {
    let world = World::with(NetworkSettings { far: Far::Nowhere, ..NetworkSettings::default() });
    let mut adapter = world.started(World::small());
    world.command("hold");
    let queue = adapter.queue();
    while queue.try_send(&[&frame(0, 60)], &PLAIN).unwrap() {}
    let waker = queue.waker();
    waker.wake();
    let error = queue.send(&[&frame(1, 60)], &PLAIN, None).unwrap_err();
    assert!(matches!(error, Error::Channel(vmbus_channels::Error::Woken { .. })), "{error}");
    waker.wake();
    assert_eq!(queue.wait(None).unwrap(), vmbus_channels::Wake::Woken);
    world.command("release");
    adapter.close().unwrap();
    world.end();
}

/// The channel is taken back while frames are under way: an error, and nothing is left.
#[test]
fn a_rescind_in_the_middle_is_an_error() {
    for round in 0..10_u64 {
        let world = World::with(NetworkSettings { reorders: round % 2 == 0, ..NetworkSettings::default() });
        let mut adapter = world.started(World::small());
        let (control, host) = (world.stack.control.clone(), world.host);
        let seen = world.stack.control.clone();
        let rescind = std::thread::spawn(move || {
            let some = move |simulation: &mut vmbus_simhost::Simulation<_>| {
                simulation.host().count(host, "frames") >= 20 * round
            };
            assert!(seen.wait_for(Duration::from_secs(30), some).unwrap());
            control.rescind(host).unwrap();
        });
        let queue = adapter.queue();
        let error = loop {
            let outcome = queue.send(&[&frame(1, 700)], &PLAIN, Some(Duration::from_secs(30)));
            let outcome = outcome.and_then(|()| queue.receive(8, |_| Ok::<_, Error>(())).map(drop));
            if let Err(error) = outcome {
                break error;
            }
        };
        assert!(error.is_rescinded(), "{error}");
        rescind.join().unwrap();
        // And stays so.
        assert!(queue.receive(8, |_| Ok::<_, Error>(())).unwrap_err().is_rescinded());
        assert!(adapter.query_number(vmbus_devices::net::Oid::LINK_SPEED).unwrap_err().is_rescinded());
        adapter.close().unwrap();
        world.end();
    }
}

/// Frames longer than a section go by pages of their own, also those of 64 KiB, beside short ones.
#[test]
fn long_frames_have_pages_of_their_own() {
    let world = World::with(NetworkSettings { part_bytes: 0x1_1000, mtu: 65_535, ..NetworkSettings::default() });
    let receive_bytes = 20 * 0x1_1000;
    let settings = Settings { long_frames: 3, mtu: 65_535, receive_bytes, ..Settings::default() };
    let mut adapter = world.started(settings);
    assert_eq!(adapter.facts().mtu, 65_535);
    let longest = adapter.queue().longest_frame();
    assert!(longest >= 65_535 + 18);
    let sizes = [60, 6000, 6037, 8192, 20_000, 65_535 + 18, 4096 * 3];
    pump(adapter.queue(), 300, |number| sizes[usize::try_from(number).unwrap() % sizes.len()]);
    assert_ne!(adapter.queue().statistics().transmit_busy, 0, "three places run out");
    let error = adapter.queue().try_send(&[&vec![0; longest + 1]], &PLAIN).unwrap_err();
    assert!(matches!(error, Error::Network { failure: Failure::TooLong { .. }, .. }), "{error}");
    assert_eq!(world.count("dropped"), 0);
    adapter.close().unwrap();
    world.end();
}

/// Rings that are shorter than what may be under way: frames and completions wait for room, and nothing is forgotten.
#[test]
fn a_full_ring_forgets_nothing() {
    const PLACES: u32 = 30;
    let world = World::with(NetworkSettings { frames_per_packet: 1, ..NetworkSettings::default() });
    let mut settings = Settings { receive_bytes: 1 << 20, long_frames: PLACES, ..Settings::default() };
    (settings.open.outgoing_bytes, settings.open.incoming_bytes) = (8192, 65_536);
    let mut adapter = world.started(settings);
    let sections = usize::try_from(adapter.facts().send_sections.0).unwrap();
    assert_eq!(sections, 170);
    let (parts, queue) = (world.count("parts"), adapter.queue());
    // Frames: the ring is full before the sections are all in use.
    let deadline = std::time::Instant::now() + vmbus_tests::LONG;
    let (mut sent, mut full) = (0, 0);
    while full < 20 || sent < 2000 {
        if queue.try_send(&[&frame(sent, 60)], &PLAIN).unwrap() {
            sent += 1;
        } else {
            full += u32::from(queue.outstanding() < sections);
            queue.receive(64, |_| Ok::<_, Error>(())).unwrap();
        }
        assert!(std::time::Instant::now() < deadline, "{full} times full");
    }
    // And long ones, each of which is a packet that names many pages: ten of them fill the ring, thirty are sent at once.
    let long = frame(0, 60_000);
    for _ in 0..5 {
        while queue.try_send(&[&long], &PLAIN).unwrap() {}
        queue.receive(64, |_| Ok::<_, Error>(())).unwrap();
    }
    until(queue, |queue| {
        queue.receive(64, |_| Ok::<_, Error>(())).unwrap();
        queue.outstanding() == 0
    });
    // Completions: so many at once do not fit.
    world.command("send 500 64");
    let mut held = Vec::new();
    until(queue, |queue| {
        while let Some(packet) = queue.take().unwrap() {
            held.push(packet);
        }
        held.len() == 500
    });
    let delayed = queue.statistics().completions_delayed;
    held.into_iter().for_each(|held| queue.complete(held));
    assert!(!queue.flush().unwrap(), "500 completions in a page");
    assert!(queue.statistics().completions_delayed > delayed);
    let host = world.host;
    let back = move |simulation: &mut vmbus_simhost::Simulation<_>| simulation.host().count(host, "free") == parts;
    let back = world.stack.control.expect(vmbus_tests::LONG, back).unwrap();
    until(queue, |queue| queue.flush().unwrap());
    assert!(back.wait().unwrap());
    // Each section can be had again.
    world.command("hold");
    until(queue, |queue| {
        while queue.try_send(&[&frame(0, 60)], &PLAIN).unwrap() {}
        while queue.try_send(&[&long], &PLAIN).unwrap() {}
        queue.outstanding() == sections + usize::try_from(PLACES).unwrap()
    });
    world.command("release");
    until(queue, |queue| {
        queue.receive(64, |_| Ok::<_, Error>(())).unwrap();
        queue.outstanding() == 0
    });
    adapter.close().unwrap();
    world.end();
}
