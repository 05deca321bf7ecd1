//! What is asked of the host and told by it, also while frames come.

use super::world::{World, pump, until};
use std::time::Duration;
use vmbus_devices::Error;
use vmbus_devices::net::{Failure, Link, Notice, Oid, Settings};

/// The next notice.
#[track_caller]
fn notice(adapter: &mut vmbus_devices::net::Adapter) -> Notice {
    for _ in 0..1000 {
        if let Some(notice) = adapter.notice().unwrap() {
            return notice;
        }
        adapter.queue().wait(Some(Duration::from_millis(30))).unwrap();
    }
    panic!("nothing was told");
}

#[test]
fn the_link_comes_and_goes_and_has_a_speed() {
    let world = World::new();
    let mut adapter = world.started(Settings::default());
    let link = |up, bits_per_second| Link { up, bits_per_second: Some(bits_per_second) };
    world.command("link down");
    assert_eq!(notice(&mut adapter), Notice::Link(link(false, 10_000_000_000)));
    assert!(!adapter.link().up);
    world.command("speed 4000000000");
    assert_eq!(notice(&mut adapter), Notice::Link(link(false, 400_000_000_000)));
    world.command("link up");
    assert_eq!(notice(&mut adapter), Notice::Link(link(true, 400_000_000_000)));
    world.command("network");
    assert_eq!(notice(&mut adapter), Notice::NetworkChange);
    world.command("vf 7");
    assert_eq!(notice(&mut adapter), Notice::VirtualFunction { allocated: true, serial: 7 });
    world.command("vf none");
    assert_eq!(notice(&mut adapter), Notice::VirtualFunction { allocated: false, serial: 0 });
    assert_eq!(adapter.notice().unwrap(), None);
    adapter.close().unwrap();
    world.end();
}

#[test]
fn a_link_that_is_down_at_the_begin_is_known() {
    let world = World::new();
    world.command("link down");
    // What is said before the adapter is open goes with the last open.
    let mut adapter = world.started(Settings::default());
    assert!(!adapter.link().up);
    pump(adapter.queue(), 10, |_| 100);
    adapter.close().unwrap();
    world.end();
}

#[test]
fn a_sign_of_life_both_ways() {
    let world = World::new();
    let mut adapter = world.started(Settings::default());
    adapter.probe().unwrap();
    world.command("keep-alive");
    let mut rounds = 0;
    while world.count("alive") == 0 {
        assert_eq!(adapter.notice().unwrap(), None);
        adapter.queue().wait(Some(Duration::from_millis(30))).unwrap();
        rounds += 1;
        assert!(rounds < 1000);
    }
    adapter.close().unwrap();
    world.end();
}

/// Frames that come while an answer is waited for are there afterwards, in order.
#[test]
fn questions_lose_no_frames() {
    let world = World::new();
    let mut adapter = world.started(Settings::default());
    for round in 0..20_u64 {
        world.command("send 200 64");
        assert_eq!(adapter.query_number(Oid::LINK_SPEED).unwrap(), 100_000_000);
        let mut next = 0;
        until(adapter.queue(), |queue| {
            let received = queue.receive(1000, |packet| {
                assert_eq!(super::world::number(packet.frame), next, "round {round}");
                next += 1;
                Ok::<_, Error>(())
            });
            received.unwrap();
            next == 200
        });
    }
    adapter.close().unwrap();
    world.end();
}

#[test]
fn what_a_host_does_not_know_it_refuses() {
    let world = World::new();
    let mut adapter = world.started(Settings::default());
    let oid = Oid(0x0001_0102);
    for outcome in [adapter.query(oid, &[]).map(drop), adapter.set(oid, &[1])] {
        let error = outcome.unwrap_err();
        let Error::Network { failure, .. } = &error else { panic!("{error}") };
        assert_eq!(*failure, Failure::Object { oid, status: 0xc000_00bb });
    }
    // An address is no number.
    let error = adapter.query_number(Oid::PERMANENT_ADDRESS).unwrap_err();
    assert!(error.to_string().contains("number"), "{error}");
    // And the adapter goes on.
    pump(adapter.queue(), 10, |_| 100);
    adapter.close().unwrap();
    world.end();
}

/// A host that falls silent is waited for once, for as long as was said; late answers are to nothing.
#[test]
fn a_silent_host_is_an_error() {
    let world = World::new();
    let mut adapter = world.started(Settings { host_timeout: Duration::from_millis(100), ..Settings::default() });
    world.command("silent");
    let error = adapter.query_number(Oid::LINK_SPEED).unwrap_err();
    let Error::Network { failure, .. } = &error else { panic!("{error}") };
    assert_eq!(*failure, Failure::Silent("question"));
    assert!(adapter.probe().is_err());
    pump(adapter.queue(), 10, |_| 100);
    world.command("talk");
    assert_eq!(adapter.query_number(Oid::MAXIMUM_FRAME_SIZE).unwrap(), 1500, "and not the link's speed, late");
    assert_eq!(adapter.queue().statistics().unexpected, 2);
    adapter.close().unwrap();
    world.end();
}

/// A rescind ends a question at once, whatever its time.
#[test]
fn a_rescind_ends_a_question() {
    let world = World::new();
    let mut adapter = world.started(Settings { host_timeout: Duration::from_secs(3600), ..Settings::default() });
    world.command("silent");
    let (control, host) = (world.stack.control.clone(), world.host);
    let rescind = std::thread::spawn(move || control.rescind(host).unwrap());
    let error = adapter.probe().unwrap_err();
    assert!(error.is_rescinded(), "{error}");
    rescind.join().unwrap();
    adapter.close().unwrap();
    world.end();
}

#[test]
fn frames_come_when_they_are_wanted() {
    let world = World::new();
    let mut adapter = world.open(Settings::default()).unwrap();
    assert_eq!(world.count("filter"), 0);
    adapter.start().unwrap();
    assert_eq!(world.count("filter"), 0xd);
    adapter.stop().unwrap();
    assert_eq!(world.count("filter"), 0);
    adapter.close().unwrap();
    world.end();
}
