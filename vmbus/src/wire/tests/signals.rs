//! Interrupts to the guest and signals to the host.

use rustix::io::read;

use super::*;
use crate::link::Line as AnyLine;

const RING: Share = Share::Ring { outgoing_bytes: 8 << 10, incoming_bytes: 8 << 10 };

fn count(event: impl AsFd) -> u64 {
    let mut count = [0; 8];
    read(event, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
}

fn flags(interrupts: &crate::link::Interrupts) -> Vec<usize> {
    let words = (0..32).map(|word| interrupts.flags.take_word(interrupts.flags_offset + word * 8).unwrap());
    words
        .enumerate()
        .flat_map(|(at, word)| (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| at * 64 + bit))
        .collect()
}

#[test]
fn a_flag_that_the_host_raises_is_seen_on_that_processor_only() {
    let mut ends = ends(SETTINGS);
    let [first, second] = [0, 1].map(|processor| ends.link.interrupts(processor).unwrap());
    assert!(ends.link.interrupts(2).is_none());
    assert_eq!((ends.link.processors(), ends.host.interrupts.processors()), (2, 2));
    for flag in [0, 1, 63, 64, 2047] {
        assert!(ends.host.interrupts.raise(1, flag).unwrap(), "it was clear");
    }
    assert!(!ends.host.interrupts.raise(1, 64).unwrap(), "the guest has not looked yet");
    assert_eq!((count(&first.event), count(&second.event)), (0, 5));
    assert_eq!((flags(&first), flags(&second)), (vec![], vec![0, 1, 63, 64, 2047]));
    assert!(ends.host.interrupts.raise(1, 64).unwrap());
    assert_eq!((count(&second.event), flags(&second)), (1, vec![64]));
    // Another source's flags are not in reach, but it is an interrupt.
    assert!(ends.host.interrupts.raise_at(0, 5, 7).unwrap());
    ends.host.interrupts.interrupt(0).unwrap();
    assert_eq!((count(&first.event), flags(&first)), (2, vec![]));
    assert_eq!(first.flags.load(5 * 256), Some(1 << 7));
    for (processor, source, flag) in [(2, 2, 0), (0, 16, 0), (0, 2, 2048), (usize::MAX, 2, 1), (0, usize::MAX, 1)] {
        assert!(ends.host.interrupts.raise_at(processor, source, flag).is_err());
    }
}

/// Raising and taking race: whatever was raised is taken by somebody who looks after an interrupt, also when the flag was
/// set while he looked. (Seen to fail with the interrupt sent only for the first flag of a word.)
#[test]
fn no_flag_is_lost_between_raising_and_taking() {
    const ROUNDS: usize = 5_000;
    let mut ends = ends(SETTINGS);
    let interrupts = ends.link.interrupts(0).unwrap();
    let host = Arc::clone(&ends.host.interrupts);
    let (tell, seen) = channel::<usize>();
    std::thread::scope(|scope| {
        // Two flags in one word: each is raised again once it was seen.
        let raiser = scope.spawn(move || {
            let mut clear = [true; 2];
            let mut raised = 0;
            while raised < ROUNDS {
                for flag in 0..2_u32 {
                    if std::mem::take(&mut clear[flag as usize]) {
                        assert!(host.raise(0, flag).unwrap());
                        raised += 1;
                    }
                }
                clear[seen.recv_timeout(SOON).expect("a flag was lost")] = true;
            }
        });
        while !raiser.is_finished() {
            if poll_for(&interrupts.event, Duration::from_millis(100)) {
                count(&interrupts.event);
            }
            for flag in flags(&interrupts) {
                let _ = tell.send(flag);
            }
        }
        raiser.join().unwrap();
    });
}

#[test]
fn a_signal_sets_the_channel_s_bit_and_calls_the_host_once() {
    let mut ends = talking(SETTINGS, Version::V5_3);
    let host = Arc::clone(&ends.host.interrupts);
    let signals = || {
        let mut relids = Vec::new();
        host.take_signals(|relid| relids.push(relid));
        relids
    };
    let mut lines: Vec<AnyLine> = Vec::new();
    for relid in [1, 31, 32, 63, 64, 2047] {
        ends.share(relid, relid, RING);
        lines.push(ends.link.port(relid, GpadlId(relid)).unwrap().line);
    }
    for line in &lines {
        line.signal().unwrap();
        line.signal().unwrap();
    }
    assert_eq!(count(host.signals()), 6, "the second time the host had not looked yet");
    assert_eq!((signals(), signals()), (vec![1, 31, 32, 63, 64, 2047], vec![]));
    lines[2].signal().unwrap();
    assert!(is_readable(host.signals()));
    assert_eq!(signals(), [32]);
    assert!(!is_readable(host.signals()), "taking the signals takes the count");
    let mut monitors = 0;
    host.take_monitors(|_| monitors += 1);
    assert_eq!(monitors, 0);
}

#[test]
fn a_channel_with_a_monitor_id_is_polled() {
    let mut ends = talking(SETTINGS, Version::V5_3);
    let protocol = Protocol::new(Version::V5_3, Features::empty());
    // The last offer of a relid counts.
    for message in [offer(9, None), offer(9, Some(33)), offer(10, Some(5)), offer(10, None), offer(60_000, Some(1))] {
        ends.say(protocol, &message);
        ends.hear();
    }
    for relid in [9, 10] {
        ends.share(relid, relid, RING);
    }
    let [polled, called] = [9, 10].map(|relid| ends.link.port(relid, GpadlId(relid)).unwrap().line);
    polled.signal().unwrap();
    assert!(!is_readable(ends.host.interrupts.signals()), "the host is not called");
    let (mut monitors, mut relids) = (Vec::new(), Vec::new());
    ends.host.interrupts.take_monitors(|monitor| monitors.push(monitor));
    ends.host.interrupts.take_signals(|relid| relids.push(relid));
    assert_eq!((monitors, relids), (vec![33], vec![9]));
    ends.host.interrupts.take_monitors(|monitor| panic!("{monitor} was taken before"));
    called.signal().unwrap();
    assert!(is_readable(ends.host.interrupts.signals()));
}

/// A guest that makes its eventfd block does not make the host wait for a signal that is not there.
#[test]
fn taking_signals_does_not_wait_for_a_hostile_guest() {
    let ends = ends(SETTINGS);
    rustix::fs::fcntl_setfl(ends.host.interrupts.signals(), rustix::fs::OFlags::RDWR).unwrap();
    ends.host.interrupts.take_signals(|relid| panic!("{relid} has not signalled"));
}
