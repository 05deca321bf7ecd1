//! The fault layer: each effect does what it says, on what it is about, as often as it says, and can be switched off.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "shared by several tests, of which each needs a part")]
mod common;

use std::time::Duration;

use common::{Guest, RING_PAGES};
use vmbus::message::{GuestMessage, HostMessage, Status, Version};
use vmbus_ringbuf::{ControlField, Memory as _, OutgoingPacket};
use vmbus_simhost::fault::{Effect, Kind, RingFault, Rule, Target, mutate};
use vmbus_simhost::{Config, DeviceSpec, Random};

fn guest() -> Guest {
    let config = (1..=8).map(DeviceSpec::echo).fold(Config::seeded(5), Config::with_device);
    Guest::connected(config, Version::V5_3)
}

/// The rescinds of these channels, as they arrive.
fn rescinds(guest: &mut Guest, relids: &[u32]) -> Vec<u32> {
    for relid in relids {
        let id = guest.host().offer_on_relid(*relid).unwrap();
        guest.host().rescind(id).unwrap();
    }
    guest.drain();
    arrived(guest)
}

fn arrived(guest: &mut Guest) -> Vec<u32> {
    let all = guest.inbox.drain(..);
    all.filter_map(|message| if let HostMessage::Rescind { relid } = message { Some(relid) } else { None }).collect()
}

const RESCIND: Target = Target::Host(Kind::RESCIND);

#[test]
fn messages_are_dropped_doubled_and_left_alone() {
    for (rules, expected) in [
        (vec![], vec![1, 2, 3]),
        (vec![Rule::silent(Kind::RESCIND)], vec![]),
        (vec![Rule::once(RESCIND, Effect::Drop)], vec![2, 3]),
        (vec![Rule::once(RESCIND, Effect::Duplicate)], vec![1, 1, 2, 3]),
        (vec![Rule::once(RESCIND, Effect::Reorder(1))], vec![2, 1, 3]),
        (vec![Rule::once(RESCIND, Effect::Reorder(2))], vec![2, 3, 1]),
        (vec![Rule::silent(Kind::OFFER)], vec![1, 2, 3]),
        (vec![Rule::always(RESCIND, Effect::Inline), Rule::always(Target::AnyHost, Effect::Drop)], vec![1, 2, 3]),
        (vec![Rule::always(Target::AnyHost, Effect::Drop), Rule::always(RESCIND, Effect::Inline)], vec![]),
    ] {
        let mut guest = guest();
        guest.sim.set_faults(&rules);
        assert_eq!(rescinds(&mut guest, &[1, 2, 3]), expected, "{rules:?}");
        let faults = rules.iter().any(|rule| rule.effect != Effect::Inline && rule.target != Target::Host(Kind::OFFER));
        assert_eq!(guest.sim.faults_applied() != 0, faults, "{rules:?}");
    }
}

#[test]
fn a_shuffled_message_that_nothing_overtakes_comes_in_time() {
    let mut guest = guest();
    guest.sim.set_faults(&[Rule::once(RESCIND, Effect::Reorder(5))]);
    assert!(rescinds(&mut guest, &[1]).is_empty());
    assert!(!guest.sim.is_quiet());
    guest.settle();
    assert_eq!(arrived(&mut guest), [1]);
}

#[test]
fn delayed_messages_come_when_their_time_has_come() {
    let mut guest = guest();
    guest.sim.set_faults(&[Rule::always(RESCIND, Effect::Delay(Duration::from_millis(10)))]);
    assert!(rescinds(&mut guest, &[1, 2, 3, 4, 5]).is_empty());
    guest.elapse(Duration::from_millis(5));
    let early = arrived(&mut guest);
    assert!(!early.is_empty() && early.len() < 5, "{early:?}: the times are spread");
    guest.elapse(Duration::from_millis(5));
    assert_eq!(early.len() + arrived(&mut guest).len(), 5);
}

#[test]
fn messages_are_cut_and_corrupted() {
    for effect in [Effect::Truncate, Effect::Corrupt] {
        let mut guest = guest();
        guest.sim.set_faults(&[Rule::always(Target::Host(Kind::MODIFY_CHANNEL_RESPONSE), effect)]);
        for _ in 0..50 {
            guest.post(&GuestMessage::ModifyChannel { relid: 1, target_vp: 0 });
        }
        let whole = HostMessage::ModifyChannelResponse { relid: 1, status: Status::UNSUCCESSFUL };
        let spoiled = 50 - guest.inbox.iter().filter(|message| **message == whole).count();
        assert!(spoiled > 45, "{spoiled}");
    }
}

/// Every field is reached, and only one at a time.
#[test]
fn mutations_change_one_field() {
    let honest = HostMessage::OpenResult { relid: 5, open_id: 6, status: Status(7) };
    let mut random = Random::new(1);
    let mut changed = [0; 3];
    for _ in 0..300 {
        let mut message = honest.clone();
        mutate(&mut message, &mut random);
        let HostMessage::OpenResult { relid, open_id, status } = message else { unreachable!("it stays what it is") };
        let fields = [relid != 5, open_id != 6, status != Status(7)];
        assert!(fields.iter().filter(|changed| **changed).count() <= 1);
        changed.iter_mut().zip(fields).for_each(|(count, changed)| *count += u32::from(changed));
    }
    assert!(changed.iter().all(|count| *count > 50), "{changed:?}");
}

#[test]
fn the_guest_can_be_unheard_or_heard_twice() {
    let mut guest = guest();
    guest.sim.set_faults(&[Rule::deaf(Kind::GPADL_HEADER)]);
    let pages = guest.pages(1);
    let _ = guest.post_gpadl(1, pages);
    assert!(guest.inbox.is_empty() && guest.host().live_gpadls().is_empty());
    guest.sim.set_faults(&[Rule::always(Target::AnyGuest, Effect::Duplicate)]);
    guest.post(&GuestMessage::ModifyChannel { relid: 1, target_vp: 0 });
    assert_eq!(guest.inbox.len(), 2);
}

#[test]
fn interrupts_and_signals_are_lost_or_late() {
    let mut guest = guest();
    let mut open = guest.open(1);
    let ping = |guest: &mut Guest, open: &mut common::Open, id| {
        guest.send(open, &OutgoingPacket::in_band(id), &[]);
        std::mem::take(&mut guest.interrupts).len()
    };
    assert_eq!(ping(&mut guest, &mut open, 1), 1);
    guest.receive(&mut open);
    guest.sim.set_faults(&[Rule::always(Target::Interrupt, Effect::Drop)]);
    assert_eq!(ping(&mut guest, &mut open, 2), 0);
    assert_eq!(guest.receive(&mut open).len(), 1, "the packet is there");
    guest.sim.set_faults(&[Rule::always(Target::Signal, Effect::Delay(Duration::from_millis(1)))]);
    assert_eq!(ping(&mut guest, &mut open, 3), 0);
    guest.settle();
    assert_eq!(guest.receive(&mut open).len(), 1, "late");
    guest.interrupts.clear();
    guest.sim.switch_off(Target::Signal);
    assert_eq!(ping(&mut guest, &mut open, 4), 1);
}

/// Each fault changes what it names: a guest that reads the ring finds it, or bytes that are not what was sent.
#[test]
fn rings_are_spoiled_where_it_is_said() {
    let mut hits = Vec::new();
    for fault in RingFault::ALL {
        let mut guest = guest();
        let open = guest.open(1);
        guest.sim.set_faults(&[]);
        let id = guest.host().offer_on_relid(1).unwrap();
        guest.host().command(id, "send 1").unwrap();
        let pages = |guest: &mut Guest| {
            let (outgoing, incoming) = guest.host().ring_pages(id).unwrap();
            [outgoing, incoming]
                .concat()
                .into_iter()
                .map(|page| {
                    let mut bytes = vec![0; 4096];
                    assert!(vmbus_simhost::Memory::read(&guest.memory, page * 4096, &mut bytes));
                    bytes
                })
                .collect::<Vec<_>>()
        };
        let before = pages(&mut guest);
        for _ in 0..20 {
            assert!(guest.sim.spoil(id, fault));
        }
        let after = pages(&mut guest);
        let changed: Vec<_> = (0..8).filter(|page| before[*page] != after[*page]).collect();
        let in_control = |field: ControlField, page: usize| {
            let at = field.offset();
            assert_eq!(changed, [page], "{fault:?}");
            assert_ne!(before[page][at..at + 4], after[page][at..at + 4], "{fault:?}");
        };
        let incoming = usize::try_from(RING_PAGES).unwrap();
        match fault {
            RingFault::WriteIndex => in_control(ControlField::WriteIndex, incoming),
            RingFault::ReadIndex => in_control(ControlField::ReadIndex, 0),
            RingFault::InterruptMask => in_control(ControlField::InterruptMask, 0),
            RingFault::PendingSendSize => in_control(ControlField::PendingSendSize, incoming),
            RingFault::FeatureBits => in_control(ControlField::FeatureBits, incoming),
            RingFault::PacketHead => assert_ne!(before[5][..8], after[5][..8]),
            RingFault::TransactionId => assert_ne!(before[5][8..16], after[5][8..16]),
            RingFault::Data => assert!(changed.iter().all(|page| *page > incoming)),
        }
        hits.push(open.reader.memory().data_bytes());
    }
    assert_eq!(hits.len(), 8);
}

#[test]
fn rules_about_rings_fire_before_the_interrupt() {
    let mut guest = guest();
    let mut open = guest.open(1);
    guest.sim.set_faults(&[Rule::sometimes(Target::Ring, Effect::Mutate, 1000)]);
    let mut corrupt = false;
    for id in 0..200 {
        if open.writer.try_write(&OutgoingPacket::in_band(id), &[&[0; 8]]).is_err() {
            corrupt = true;
            break;
        }
        guest.sim.signal(1);
        guest.drain();
        let mut batch = open.reader.batch();
        corrupt |= loop {
            match batch.next() {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        let _ = batch.finish();
    }
    assert!(corrupt, "{}", guest.sim.faults_applied());
}

/// An honest guest in foul weather: late interrupts, doubled ones, late signals. Nothing is lost, nobody is to blame.
#[test]
fn an_honest_guest_stands_the_weather() {
    for seed in 0..20 {
        let mut guest = Guest::connected(Config::seeded(seed).with_device(DeviceSpec::echo(1)), Version::V5_3);
        guest.sim.set_faults(&Rule::weather(300));
        let mut open = guest.open(1);
        let mut ids = Vec::new();
        for id in 0..200 {
            guest.send(&mut open, &OutgoingPacket::in_band(id), &id.to_le_bytes());
            if id % 7 == 0 {
                guest.settle();
            }
            ids.extend(guest.receive(&mut open).into_iter().map(|(_, id, _)| id));
        }
        guest.settle();
        ids.extend(guest.receive(&mut open).into_iter().map(|(_, id, _)| id));
        assert_eq!(ids, (0..200).collect::<Vec<_>>(), "seed {seed}");
        guest.assert_honest();
    }
}
