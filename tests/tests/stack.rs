//! Executor, wire link and simulated host: connect at each version, open, move packets, be rescinded, and nothing is
//! left. The trace of a failing run is in the assertion's text.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use vmbus::message::{Features, Version};
use vmbus_channels::{Announcement, Channel, Error, OpenOptions, Settings, Wake};
use vmbus_ringbuf::OutgoingPacket;
use vmbus_simhost::device::{Echo, EchoSettings};
use vmbus_simhost::fault::{Kind, Rule};
use vmbus_simhost::{Config, DeviceSpec, Latency, Random, ServerSettings};
use vmbus_tests::{LONG, Stack};

/// No complaints.
#[track_caller]
fn clean(faults: Result<Vec<String>, vmbus_tests::Error>) {
    let faults = faults.unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Sends that many packets that want a completion, many at a time, and waits for all completions. The error that ended
/// it, if one did.
fn pump(channel: &mut Channel, packets: u64) -> Result<(), Error> {
    let (mut sent, mut completed) = (0_u64, 0_u64);
    while completed < packets {
        while sent < packets && sent - completed < 200 {
            let packet = OutgoingPacket::in_band(sent).with_completion_requested();
            match channel.try_send(packet, &[&sent.to_le_bytes(), &[0x5a; 24]]) {
                Ok(()) => sent += 1,
                Err(Error::Full { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        channel.receive(usize::MAX, |packet| {
            assert_eq!(packet.transaction_id(), completed, "in order, and none twice");
            assert_eq!(packet.payload().read::<u64>(0).unwrap(), completed);
            completed += 1;
            Ok::<_, Error>(())
        })?;
        if completed < sent {
            assert_ne!(channel.wait(Some(LONG))?, Wake::TimedOut, "{completed} of {packets} came, {sent} were sent");
        }
    }
    Ok(())
}

#[test]
fn ten_thousand_messages_at_each_version_and_everything_is_released() {
    for version in Version::ALL {
        let config = Config::seeded(1).with_version(version).with_device(DeviceSpec::echo(1));
        let stack = Stack::start(config).unwrap();
        assert_eq!(stack.bus.version().unwrap(), version);
        let offer = stack.bus.of_class(Echo::CLASS).unwrap().pop().unwrap();
        let mut channel = stack.bus.open(offer.id, OpenOptions::default()).unwrap();
        pump(&mut channel, 10_000).unwrap();
        let id = stack.control.with(move |simulation| simulation.host().offer_on_relid(offer.relid)).unwrap().unwrap();
        assert_eq!(stack.control.with(move |simulation| simulation.host().count(id, "packets")).unwrap(), 10_000);
        stack.control.rescind(id).unwrap();
        assert!(pump(&mut channel, 1).unwrap_err().is_rescinded());
        channel.close().unwrap();
        assert!(stack.control.wait_quiet(LONG).unwrap());
        assert_eq!(stack.control.released(offer.relid).unwrap(), 1);
        assert!(stack.control.live_gpadls().unwrap().is_empty());
        assert!(stack.bus.offers().unwrap().is_empty());
        clean(stack.end());
    }
}

#[test]
fn channels_with_monitor_ids_are_signalled_by_their_pages() {
    let stack = Stack::start(Config::seeded(1).with_device(DeviceSpec::echo(1).with_monitor())).unwrap();
    let offer = stack.bus.offers().unwrap().pop().unwrap();
    assert!(offer.monitor_id.is_some());
    let mut channel = stack.bus.open(offer.id, OpenOptions::default()).unwrap();
    pump(&mut channel, 2000).unwrap();
    assert_ne!(stack.control.counters().unwrap().monitor_signals, 0);
    channel.close().unwrap();
    clean(stack.end());
}

#[test]
fn every_feature_of_6_0_or_none() {
    for features in [Features::empty(), Features::all()] {
        let config =
            Config { features, ..Config::seeded(1) }.with_version(Version::V6_0).with_device(DeviceSpec::echo(1));
        let stack = Stack::start(config).unwrap();
        assert!(features.contains(stack.bus.features().unwrap()));
        let offer = stack.bus.offers().unwrap().pop().unwrap();
        let mut channel = stack.bus.open(offer.id, OpenOptions::default()).unwrap();
        pump(&mut channel, 100).unwrap();
        channel.close().unwrap();
        clean(stack.end());
    }
}

/// The host takes its channel back at a random moment of its life, again and again, and offers it again at once on the
/// same relid. Threads are real here, so a seed decides the moments only roughly.
#[test]
fn a_channel_is_taken_back_at_any_moment() {
    let millis = |millis| Duration::from_millis(millis);
    let mut config =
        Config::seeded(2).with_device(DeviceSpec::echo_with(1, EchoSettings { greets: 4, ..Default::default() }));
    config.latency = Latency { open: millis(2), gpadl: millis(2), teardown: millis(2), modify: millis(2) };
    let stack = Stack::start(config).unwrap();
    let mut changes = stack.bus.subscribe().unwrap();
    let (mut random, mut lives) = (Random::new(2), 0);
    while lives < 150 {
        let Some(Announcement::Arrived(offer)) = changes.next(Some(LONG)).unwrap() else { continue };
        let relid = offer.relid;
        lives += 1;
        let control = stack.control.clone();
        let host = control.with(move |simulation| simulation.host().offer_on_relid(relid)).unwrap().unwrap();
        let after = Duration::from_micros(random.below(6000));
        let rescind = std::thread::spawn(move || {
            let until = Instant::now() + after;
            while Instant::now() < until {
                std::thread::yield_now();
            }
            control.reoffer(host).unwrap();
        });
        match stack.bus.open(offer.id, OpenOptions::default()) {
            Ok(mut channel) => loop {
                // The greetings are among what comes.
                if channel.is_rescinded() {
                    break;
                }
                let _ = channel.try_send(OutgoingPacket::in_band(1), &[&[1; 100]]);
                match channel.receive(64, |_| Ok::<_, Error>(())) {
                    Ok(_) => {}
                    Err(error) => {
                        assert!(error.is_rescinded(), "{error}");
                        break;
                    }
                }
            },
            // A host refuses the memory of a channel that it has rescinded, and the guest may hear that first.
            Err(Error::Host { .. } | Error::Gone(_)) => {}
            Err(error) => assert!(error.is_rescinded(), "{error}"),
        }
        rescind.join().unwrap();
    }
    drop(changes);
    clean(stack.end());
}

#[test]
fn an_open_that_is_not_answered_ends_with_the_rescind() {
    let stack = Stack::start(Config::seeded(3).with_device(DeviceSpec::echo(1))).unwrap();
    stack.control.set_faults(vec![Rule::silent(Kind::OPEN_RESULT)]).unwrap();
    let offer = stack.bus.offers().unwrap().pop().unwrap();
    let (bus, control) = (stack.bus.clone(), stack.control.clone());
    let opener = std::thread::spawn(move || bus.open(offer.id, OpenOptions::default()));
    assert!(control.wait_for(LONG, |simulation| simulation.host().counters().opens == 1).unwrap());
    let before = Instant::now();
    let relid = offer.relid;
    let id = control.with(move |simulation| simulation.host().offer_on_relid(relid)).unwrap().unwrap();
    control.rescind(id).unwrap();
    let error = opener.join().unwrap().map(drop).unwrap_err();
    assert!(error.is_rescinded(), "{error}");
    assert!(before.elapsed() < Duration::from_secs(3), "no timeout was waited for");
    clean(stack.end());
}

#[test]
fn buffers_go_before_their_channel_and_a_buffer_may_have_64_mib() {
    let stack = Stack::start(Config::seeded(4).with_device(DeviceSpec::echo(1))).unwrap();
    let offer = stack.bus.offers().unwrap().pop().unwrap();
    let channel = stack.bus.open(offer.id, OpenOptions::default()).unwrap();
    let buffers: Vec<_> =
        [4096, 1 << 20, 64 << 20].into_iter().map(|bytes| channel.create_buffer(bytes).unwrap()).collect();
    assert_eq!(stack.control.live_gpadls().unwrap().len(), 4);
    drop(buffers);
    channel.close().unwrap();
    clean(stack.end());
}

#[test]
fn suspend_and_resume_find_the_same_devices() {
    let config = (1..=10).map(DeviceSpec::echo).fold(Config::seeded(5), Config::with_device);
    let stack = Stack::start(config).unwrap();
    let instances = |stack: &Stack| {
        let mut all: Vec<_> = stack.bus.offers().unwrap().into_iter().map(|offer| offer.instance).collect();
        all.sort();
        all
    };
    let before = instances(&stack);
    stack.bus.suspend().unwrap();
    assert!(instances(&stack).is_empty());
    stack.bus.resume().unwrap();
    assert_eq!(instances(&stack), before);
    let counters = stack.control.counters().unwrap();
    assert_eq!((counters.contacts, counters.unloads, counters.left_open), (2, 1, 0));
    assert!(stack.faults().unwrap().is_empty());
}

/// Every fault there is, at once: what it does to the guest is an error, at worst of the whole bus; never a panic, a
/// hang, or something left behind in this process.
#[test]
fn a_hostile_host_does_no_harm() {
    for seed in 0..12 {
        let config = (1..=6).map(DeviceSpec::echo).fold(Config::seeded(seed), Config::with_device);
        // A host that loses answers is not waited for for long.
        let mut settings = Settings::default();
        settings.limits.host_timeout = Duration::from_millis(20);
        settings.limits.unload_timeout = Duration::from_millis(20);
        // ... which on a busy machine is too short for an honest one now and then.
        let start = || Stack::start_with(config.clone(), ServerSettings::default(), settings.clone()).ok();
        let stack = (0..100).find_map(|_| start()).unwrap();
        stack.control.set_faults(Rule::chaos(60)).unwrap();
        for round in 0..40_u64 {
            let control = &stack.control;
            let _ = control.offer(DeviceSpec::echo(100 + round));
            let Ok(offers) = stack.bus.offers() else { break };
            for offer in offers.into_iter().take(3) {
                let Ok(mut channel) = open_briefly(&stack, &offer) else { continue };
                for id in 0..20 {
                    let _ = channel.try_send(OutgoingPacket::in_band(id), &[&[2; 64]]);
                    let _ = channel.receive(64, |_| Ok::<_, Error>(()));
                }
                drop(channel);
                let relid = offer.relid;
                let _ = control.with(move |simulation| {
                    let host = simulation.host();
                    host.offer_on_relid(relid).map(|id| host.reoffer(id))
                });
            }
        }
        // It may end in error, but it ends; and so do the threads that the drop joins.
        let _ = stack.bus.shutdown();
    }
}

/// Opens without waiting long for a host that loses answers.
fn open_briefly(stack: &Stack, offer: &vmbus_channels::Offer) -> Result<Channel, Error> {
    stack.bus.open(offer.id, OpenOptions { outgoing_bytes: 16384, incoming_bytes: 16384, ..OpenOptions::default() })
}
