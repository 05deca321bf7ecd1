//! A host that lies: ids, ranges, sets, completions, and each word of each of its messages.

use super::world::{World, frame, pump, until};
use std::time::Duration;
use vmbus_devices::Error;
use vmbus_devices::net::{Settings, TransmitInfo};
use vmbus_simhost::device::NetworkSettings;
use vmbus_simhost::device::net::Layer;

/// The id of a packet indexes a table as long as there are parts in the driver for DPDK, which lets one too many pass
/// (`xactid > rxbuf_section_cnt`). Here the last one is taken, and the first that is none is not.
#[test]
fn the_first_transaction_id_that_is_none_is_not_taken() {
    let world = World::new();
    let mut adapter = world.started(World::small());
    let parts = world.count("parts");
    assert_eq!(u64::from(adapter.facts().receive_parts.0), parts);
    for (count, id) in (1..).zip([parts, parts + 1, 1 << 32, u64::MAX]) {
        world.command(&format!("transfer {id} 51966 0 8"));
        until(adapter.queue(), |queue| {
            queue.receive(8, |_| Ok::<_, Error>(())).unwrap();
            queue.statistics().bad_transactions == count
        });
    }
    // Nothing is there, so that it is malformed; but it is looked at, and completed.
    world.command(&format!("transfer {} 51966 0 8", parts - 1));
    until(adapter.queue(), |queue| {
        queue.receive(8, |_| Ok::<_, Error>(())).unwrap();
        true
    });
    let mut rounds = 0;
    while adapter.queue().statistics().malformed == 0 {
        adapter.notice().unwrap();
        adapter.queue().wait(Some(Duration::from_millis(30))).unwrap();
        rounds += 1;
        assert!(rounds < 1000);
    }
    assert_eq!(adapter.queue().statistics().bad_transactions, 4);
    pump(adapter.queue(), 200, |_| 100);
    adapter.close().unwrap();
    world.end();
}

#[test]
fn ranges_outside_of_the_buffer_fail_and_are_completed() {
    let world = World::new();
    let mut adapter = world.started(World::small());
    let bytes = 64_u64 << 10;
    let ranges = [(bytes, 1), (bytes - 7, 8), (u64::from(u32::MAX), 8), (0, u64::from(u32::MAX)), (0, 0x1_1001)];
    for (count, (offset, length)) in (1..).zip(ranges) {
        world.command(&format!("transfer 5 51966 {offset} {length}"));
        until(adapter.queue(), |queue| {
            queue.receive(8, |_| Ok::<_, Error>(())).unwrap();
            queue.statistics().bad_ranges == count
        });
        let host = world.host;
        let failed =
            move |simulation: &mut vmbus_simhost::Simulation<_>| simulation.host().count(host, "failed") == count;
        assert!(world.stack.control.wait_for(Duration::from_secs(30), failed).unwrap());
    }
    world.command("transfer 5 7 0 8");
    until(adapter.queue(), |queue| {
        queue.receive(8, |_| Ok::<_, Error>(())).unwrap();
        queue.statistics().malformed == 1
    });
    pump(adapter.queue(), 200, |_| 100);
    adapter.close().unwrap();
    world.end();
}

#[test]
fn completions_of_nothing_free_nothing() {
    let world = World::new();
    let mut adapter = world.started(World::small());
    world.command("hold");
    let queue = adapter.queue();
    while queue.try_send(&[&frame(0, 60)], &TransmitInfo::default()).unwrap() {}
    let outstanding = queue.outstanding();
    for (count, id) in (1..).zip([0, 1, 0xff_ffff, 1 << 24, u64::MAX]) {
        world.command(&format!("complete {id}"));
        until(queue, |queue| {
            queue.receive(8, |_| Ok::<_, Error>(())).unwrap();
            queue.statistics().unknown_completions == count
        });
    }
    assert_eq!(queue.outstanding(), outstanding);
    assert!(!queue.try_send(&[&frame(0, 60)], &TransmitInfo::default()).unwrap());
    world.command("release");
    until(queue, |queue| {
        queue.receive(8, |_| Ok::<_, Error>(())).unwrap();
        queue.outstanding() == 0
    });
    adapter.close().unwrap();
    world.end();
}

/// A host whose messages have one wrong word, each word of each message in turn and each of these values: the adapter
/// opens or it does not, frames come back or they do not; nothing panics, hangs or is left.
fn lie(layer: Layer, kind: u32, words: std::ops::Range<usize>, honest: &[u32]) {
    for word in words {
        let near = honest.iter().flat_map(|value| [value.wrapping_sub(1), value.wrapping_add(1)]);
        for value in [0, 1, u32::MAX, 0x8000_0000].into_iter().chain(near) {
            let world = World::with(NetworkSettings::default().with_lie(layer, kind, word, value));
            let settings = Settings { host_timeout: Duration::from_millis(60), ..World::small() };
            let outcome = world.open(settings).and_then(|mut adapter| {
                // Frames may come back garbled, or not at all.
                let outcome = adapter.start().and_then(|()| exchange(&mut adapter));
                let closed = adapter.close();
                outcome.and(closed)
            });
            if let Err(error) = outcome {
                assert!(!error.to_string().is_empty());
                assert!(!error.is_rescinded(), "{layer:?} {kind:#x}, word {word} is {value:#x}: {error}");
            }
            // What the host says against the guest is its own fault; but nothing may be left.
            let complaints = world.complaints();
            let left: Vec<_> = world.stack.end().unwrap();
            let left: Vec<_> = left.into_iter().filter(|fault| fault.starts_with("left behind")).collect();
            assert!(left.is_empty(), "{layer:?} {kind:#x}, word {word} is {value:#x}: {left:?} ({complaints:?})");
        }
    }
}

/// Sends a few frames and receives what comes, for a short time; asks something.
fn exchange(adapter: &mut vmbus_devices::net::Adapter) -> Result<(), Error> {
    for number in 0..10 {
        adapter.queue().try_send(&[&frame(number, 100)], &TransmitInfo::default())?;
    }
    for _ in 0..10 {
        adapter.queue().receive(64, |_| Ok::<_, Error>(()))?;
        adapter.notice()?;
        adapter.queue().wait(Some(Duration::from_millis(1)))?;
    }
    adapter.probe()
}

/// More queues of a host that lies about them: some come or none, with an error or without.
#[test]
fn each_word_of_the_answer_about_subchannels() {
    for word in 0..3 {
        for value in [0, 1, 2, 3, 4, 0x8000_0000, u32::MAX] {
            let world = World::with(NetworkSettings::default().with_lie(Layer::Nvsp, 133, word, value));
            let settings = Settings { host_timeout: Duration::from_millis(300), ..World::small() };
            let mut adapter = world.started(settings);
            let more = adapter.add_queues(&world.stack.bus, 4);
            let honest = [133, 1, 3][word] == value;
            match more {
                Ok(more) => {
                    // Fewer than asked for are a host's right.
                    assert!(honest || word == 2 && value < 3, "word {word} is {value:#x}");
                    assert_eq!(more.len(), if word == 2 { usize::try_from(value).unwrap() } else { 3 });
                    more.into_iter().for_each(|queue| queue.close().unwrap());
                }
                Err(error) => assert!(!honest && !error.is_rescinded(), "word {word} is {value:#x}: {error}"),
            }
            pump(adapter.queue(), 10, |_| 100);
            adapter.close().unwrap();
            world.end();
        }
    }
}

#[test]
fn each_word_of_the_negotiation() {
    lie(Layer::Nvsp, 2, 0..4, &[1]);
    lie(Layer::Nvsp, 102, 0..7, &[1, 1728, 37]);
    lie(Layer::Nvsp, 105, 0..3, &[1, 6144]);
}

#[test]
fn each_word_of_packets_and_completions() {
    lie(Layer::Nvsp, 107, 0..4, &[107]);
    lie(Layer::Nvsp, 108, 0..2, &[108]);
}

#[test]
fn each_word_of_a_frame() {
    lie(Layer::Rndis, 1, 0..11, &[36, 100, 144]);
}

#[test]
fn each_word_of_the_answers() {
    lie(Layer::Rndis, 0x8000_0002, 0..13, &[52]);
    lie(Layer::Rndis, 0x8000_0004, 0..8, &[16, 24]);
    lie(Layer::Rndis, 0x8000_0005, 0..4, &[16]);
    lie(Layer::Rndis, 0x8000_0008, 0..4, &[16]);
}
