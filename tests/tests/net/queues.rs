//! More queues: how many come, who gets which frames, and threads of their own.

use super::world::{World, echoed, pump};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use vmbus_devices::Error;
use vmbus_devices::net::{Queue, Settings, TransmitInfo, Version};
use vmbus_simhost::device::NetworkSettings;
use vmbus_tests::LONG;

const PLAIN: TransmitInfo = TransmitInfo { vlan: None, checksum: None, segmentation: None, hash: None };

/// A TCP packet of IPv4 of flow `flow`.
fn tcp(flow: u16, number: u64) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(flow.to_be_bytes());
    frame.extend([0, 80]);
    frame.extend([0; 16]);
    frame.extend(number.to_le_bytes());
    frame
}

#[test]
fn as_many_queues_as_both_can() {
    let table = [(4, 4, 4), (4, 2, 2), (2, 8, 2), (1, 8, 1), (4, 1, 1), (4, 0, 1)];
    for (there, wanted, expected) in table {
        let world = World::with(NetworkSettings { queues: there, ..NetworkSettings::default() });
        let mut adapter = world.started(World::small());
        let more = adapter.add_queues(&world.stack.bus, wanted).unwrap();
        assert_eq!(more.len() + 1, expected, "{there} there, {wanted} wanted");
        let indices: Vec<_> = more.iter().map(|queue| usize::from(queue.index())).collect();
        assert_eq!(indices, (1..expected).collect::<Vec<_>>());
        more.into_iter().for_each(|queue| queue.close().unwrap());
        pump(adapter.queue(), 10, |_| 100);
        adapter.close().unwrap();
        world.end();
    }
}

#[test]
fn old_hosts_have_one_queue() {
    let world = World::with(NetworkSettings { versions: vec![Version::V4.0], ..NetworkSettings::default() });
    let mut adapter = world.started(World::small());
    assert!(adapter.add_queues(&world.stack.bus, 4).unwrap().is_empty());
    adapter.close().unwrap();
    world.end();
}

/// Frames of many flows are spread over all queues by their hash, each flow through one queue and in order.
#[test]
fn each_flow_has_its_queue() {
    const FLOWS: u16 = 64;
    const EACH: u64 = 20;
    let world = World::new();
    let mut adapter = world.started(Settings::default());
    let mut more = adapter.add_queues(&world.stack.bus, 4).unwrap();
    let mut seen: BTreeMap<u16, (u16, u64)> = BTreeMap::new();
    let mut back = 0;
    let mut receive = |queue: &mut Queue, back: &mut u64| {
        let index = queue.index();
        let received = queue.receive(64, |packet| {
            let flow = u16::from_be_bytes(packet.frame[34..36].try_into().unwrap());
            let number = u64::from_le_bytes(packet.frame[54..62].try_into().unwrap());
            assert_eq!(packet.frame, echoed(tcp(flow, number)));
            assert!(packet.info.hash.is_some());
            let (queue, next) = seen.entry(flow).or_insert((index, 0));
            assert_eq!((*queue, *next), (index, number), "flow {flow}");
            *next += 1;
            *back += 1;
            Ok::<_, Error>(())
        });
        received.unwrap();
    };
    for number in 0..EACH {
        for flow in 0..FLOWS {
            let frame = tcp(flow, number);
            while !adapter.queue().try_send(&[&frame], &PLAIN).unwrap() {
                receive(adapter.queue(), &mut back);
                more.iter_mut().for_each(|queue| receive(queue, &mut back));
            }
        }
    }
    let deadline = Instant::now() + LONG;
    while back < u64::from(FLOWS) * EACH {
        receive(adapter.queue(), &mut back);
        more.iter_mut().for_each(|queue| receive(queue, &mut back));
        assert!(Instant::now() < deadline, "{back} came back");
    }
    let used: std::collections::BTreeSet<_> = seen.values().map(|(queue, _)| *queue).collect();
    assert_eq!(used.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    more.into_iter().for_each(|queue| queue.close().unwrap());
    adapter.close().unwrap();
    world.end();
}

/// Each queue on a thread of its own; they share sections and parts, and few of them.
#[test]
fn queues_on_threads_share_the_buffers() {
    let world = World::with(NetworkSettings { reorders: true, most_parts: 30, ..NetworkSettings::default() });
    let mut adapter = world.started(World::small());
    let more = adapter.add_queues(&world.stack.bus, 4).unwrap();
    assert_eq!(more.len(), 3);
    let run = |queue: &mut Queue| {
        let (mut sent, deadline) = (0_u64, Instant::now() + LONG);
        while sent < 2000 || queue.outstanding() != 0 {
            if sent < 2000 && queue.try_send(&[&super::world::frame(sent, 200)], &PLAIN).unwrap() {
                sent += 1;
                continue;
            }
            queue.receive(64, |_| Ok::<_, Error>(())).unwrap();
            if queue.outstanding() != 0 {
                queue.wait(Some(Duration::from_millis(20))).unwrap();
            }
            assert!(Instant::now() < deadline, "{:?}", queue.statistics());
        }
        assert_eq!(queue.statistics().transmitted_frames, 2000);
    };
    std::thread::scope(|scope| {
        for mut queue in more {
            scope.spawn(move || {
                run(&mut queue);
                // What comes late is for nobody.
                queue.close().unwrap();
            });
        }
        let (queue, deadline) = (adapter.queue(), Instant::now() + LONG);
        run(queue);
        // What is not IPv4 comes back through the first queue.
        while world.count("dropped") + queue.statistics().received_frames < 8000 {
            queue.receive(64, |_| Ok::<_, Error>(())).unwrap();
            queue.wait(Some(Duration::from_millis(20))).unwrap();
            assert!(Instant::now() < deadline, "{:?}", queue.statistics());
        }
    });
    adapter.close().unwrap();
    world.end();
}

#[test]
fn the_host_says_which_queue_to_send_on() {
    let world = World::new();
    let mut adapter = world.started(Settings::default());
    assert_eq!((0..20).map(|hash| adapter.queue_of(hash, 4)).max(), Some(0));
    world.command("table 0 1 2 3 0 1 2 3 0 1 2 3 0 1 2 99");
    for _ in 0..1000 {
        if adapter.queue_of(1, 4) == 1 {
            break;
        }
        adapter.queue().wait(Some(Duration::from_millis(30))).unwrap();
        adapter.notice().unwrap();
    }
    let queues: Vec<_> = (0..18).map(|hash| adapter.queue_of(hash, 4)).collect();
    // One that is not there is the first.
    assert_eq!(queues, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 0, 0, 1]);
    assert_eq!(adapter.queue_of(3, 2), 0);
    adapter.close().unwrap();
    world.end();
}

/// A subchannel is taken back: its queue ends with an error, the others go on; and then all of them.
#[test]
fn a_queue_that_is_taken_back_ends_alone() {
    let world = World::new();
    let mut adapter = world.started(World::small());
    let mut more = adapter.add_queues(&world.stack.bus, 3).unwrap();
    let relids = world.stack.bus.offers().unwrap();
    let relid = relids.iter().find(|offer| offer.subchannel_index == 1).unwrap().relid;
    let control = &world.stack.control;
    let id = control.with(move |simulation| simulation.host().offer_on_relid(relid)).unwrap().unwrap();
    control.rescind(id).unwrap();
    let deadline = Instant::now() + LONG;
    let error = loop {
        assert!(Instant::now() < deadline);
        if let Err(error) = more[0].wait(Some(Duration::from_millis(50))) {
            break error;
        }
    };
    assert!(error.is_rescinded(), "{error}");
    pump(adapter.queue(), 100, |_| 100);
    world.rescind();
    for queue in &mut more {
        while queue.wait(Some(Duration::from_millis(50))).is_ok() {
            assert!(Instant::now() < deadline);
        }
    }
    more.into_iter().for_each(|queue| queue.close().unwrap());
    adapter.close().unwrap();
    world.end();
}
