//! The server around the host: over the wire, in this process and on a path, with guests that leave in every way, and
//! nothing of them left behind.
#![expect(clippy::unwrap_used, reason = "tests")]

mod leaks;
mod wire_guest;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use leaks::Resources;
use vmbus::link::LinkEvent;
use vmbus::message::{GuestMessage, HostMessage, Version};
use vmbus_simhost::fault::{Kind, Rule};
use vmbus_simhost::{Config, Control, DeviceSpec, Server, ServerSettings};
use wire_guest::WireGuest;

/// Nothing here takes long; this is for when it goes wrong.
const WITHIN: Duration = Duration::from_secs(20);
/// Set in processes that tests start: the path to connect to or to listen on.
const PATH: &str = "SIMHOST_TEST_PATH";

fn config(seed: u64) -> Config {
    Config::seeded(seed).with_device(DeviceSpec::echo(1)).with_device(DeviceSpec::echo(2).with_monitor())
}

fn in_process(config: Config) -> (Server, Control, WireGuest) {
    let (server, control, socket) = Server::in_process(config, ServerSettings::default()).unwrap();
    (server, control, WireGuest::over(socket))
}

/// Takes the channel with this relid back, and answers as a guest has to.
fn rescinded(control: &Control, guest: &mut WireGuest, relid: u32) {
    let id = control.with(move |simulation| simulation.host().offer_on_relid(relid)).unwrap().unwrap();
    control.rescind(id).unwrap();
    guest.wait_for(|message| *message == HostMessage::Rescind { relid });
    guest.post(&GuestMessage::RelidReleased { relid });
}

#[test]
fn a_guest_lives_at_each_version_over_the_wire() {
    let _alone = leaks::alone();
    let before = Resources::now();
    for version in Version::ALL {
        let (server, control, mut guest) = in_process(config(1));
        let offers = guest.connect(version);
        assert_eq!(offers.len(), 2);
        for offer in &offers {
            let mut open = guest.open(offer.relid);
            for id in 0..500 {
                open.round_trip(&guest, id);
            }
            guest.close(open);
        }
        for offer in offers {
            rescinded(&control, &mut guest, offer.relid);
        }
        assert!(control.wait_quiet(WITHIN).unwrap());
        assert_eq!((control.violations().unwrap(), control.live_gpadls().unwrap()), (vec![], vec![]));
        assert_eq!([control.released(1).unwrap(), control.released(2).unwrap()], [1, 1]);
        guest.post(&GuestMessage::Unload);
        guest.wait_for(|message| *message == HostMessage::UnloadResponse);
        drop((guest, server));
        assert!(control.violations().is_err(), "the simulation has ended");
    }
    before.expect_back("versions");
}

#[test]
fn the_oracles_outlive_the_guest_in_process() {
    let _alone = leaks::alone();
    let (_server, control, mut guest) = in_process(config(1));
    let offers = guest.connect(Version::V5_3);
    let _open = guest.open(offers[0].relid);
    drop(guest);
    assert!(control.wait_for(WITHIN, |simulation| simulation.host().counters().left_open == 1).unwrap());
    assert_eq!(control.counters().unwrap().opens, 1);
}

#[test]
fn faults_are_switched_while_it_runs() {
    let _alone = leaks::alone();
    let (_server, control, mut guest) = in_process(config(1));
    let offers = guest.connect(Version::V5_3);
    let relid = offers[0].relid;
    control.set_faults(vec![Rule::silent(Kind::MODIFY_CHANNEL_RESPONSE)]).unwrap();
    guest.post(&GuestMessage::ModifyChannel { relid, target_vp: 0 });
    assert!(control.wait_for(WITHIN, |simulation| simulation.faults_applied() == 1).unwrap());
    control.set_faults(vec![]).unwrap();
    guest.post(&GuestMessage::ModifyChannel { relid, target_vp: 0 });
    guest.wait_for(|message| matches!(message, HostMessage::ModifyChannelResponse { .. }));
    assert!(control.trace().unwrap().contains("dropped: Message(24:"));
}

#[test]
fn several_guests_on_a_path_have_a_host_each() {
    let _alone = leaks::alone();
    let before = Resources::now();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bus");
    let server = Server::listen(&path, config(1), ServerSettings::default()).unwrap();
    let mut guests: Vec<_> = (0..8).map(|_| WireGuest::connect_to(&path)).collect();
    let controls: Vec<_> = (0..8).map(|_| server.next_guest(WITHIN).unwrap()).collect();
    let mut opens = Vec::new();
    for (index, guest) in guests.iter_mut().enumerate() {
        let offers = guest.connect(Version::ALL[index]);
        opens.push(guest.open(offers[index % 2].relid));
    }
    for id in 0..100 {
        for (guest, open) in guests.iter().zip(&mut opens) {
            open.round_trip(guest, id);
        }
    }
    for control in &controls {
        assert_eq!(control.counters().unwrap().packets_in, 100);
    }
    // Half of the guests leave: their hosts go, the others stay.
    opens.truncate(4);
    guests.truncate(4);
    let gone = |control: &Control| control.wait_for(WITHIN, |_| false).is_err();
    assert!(controls[4..].iter().all(gone));
    for (guest, open) in guests.iter().zip(&mut opens) {
        open.round_trip(guest, 1000);
    }
    drop((opens, guests, controls, server));
    assert!(!path.exists());
    before.expect_back("guests on a path");
}

#[test]
fn a_thousand_lives_leave_nothing_behind() {
    let _alone = leaks::alone();
    let (server, control, mut guest) = in_process(Config::seeded(7));
    guest.connect(Version::V5_3);
    let mut before = None;
    for round in 0..1000 {
        let id = control.offer(DeviceSpec::echo(round % 5)).unwrap();
        let relid = guest.next_offer().relid;
        let mut open = guest.open(relid);
        open.round_trip(&guest, round);
        let ring = open.into_ring();
        if round % 2 == 0 {
            control.rescind(id).unwrap();
        } else {
            control.reoffer(id).unwrap();
        }
        guest.wait_for(|message| *message == HostMessage::Rescind { relid });
        guest.tear_down(relid, ring);
        guest.post(&GuestMessage::RelidReleased { relid });
        if round % 2 == 1 {
            assert_eq!(guest.next_offer().relid, relid);
            rescinded(&control, &mut guest, relid);
        }
        if round == 100 {
            assert!(control.wait_quiet(WITHIN).unwrap());
            before = Some(Resources::now());
        }
    }
    assert!(control.wait_quiet(WITHIN).unwrap());
    before.unwrap().expect_back("a thousand lives");
    let counters = control.counters().unwrap();
    assert_eq!((counters.offers, counters.rescinds, counters.released), (1500, 1500, 1500));
    assert_eq!((control.violations().unwrap(), control.live_gpadls().unwrap()), (vec![], vec![]));
    drop((guest, server));
}

/// Runs a test of this file in a process of its own, with a path.
fn child(test: &str, path: &Path) -> Child {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture", "--ignored"]).env(PATH, path);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn guests_that_are_killed_leave_nothing_behind() {
    let _alone = leaks::alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bus");
    let server = Server::listen(&path, config(1), ServerSettings::default()).unwrap();
    let before = Resources::with_threads(1);
    for _ in 0..4 {
        let mut guest = child("a_guest_to_be_killed", &path);
        let control = server.next_guest(WITHIN).unwrap();
        let busy = |simulation: &mut vmbus_simhost::server::Sim| simulation.host().counters().packets_in > 1000;
        let came = control.wait_for(WITHIN, busy).unwrap();
        guest.kill().unwrap();
        guest.wait().unwrap();
        assert!(came, "the guest did not get to work");
        assert!(control.wait_for(WITHIN, |_| false).is_err(), "the host noticed");
    }
    before.expect_back("killed guests");
}

/// Not a test: what [`guests_that_are_killed_leave_nothing_behind`] starts. Sends packets until it is killed.
#[test]
#[ignore = "started by another test, in a process of its own"]
fn a_guest_to_be_killed() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let mut guest = WireGuest::connect_to(Path::new(&path));
    let offers = guest.connect(Version::V5_3);
    let mut open = guest.open(offers[0].relid);
    for id in 0.. {
        open.round_trip(&guest, id);
    }
}

#[test]
fn a_host_that_is_killed_is_noticed_and_its_path_can_be_taken_again() {
    let _alone = leaks::alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bus");
    let mut host = child("a_host_to_be_killed", &path);
    let mut lines = BufReader::new(host.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("listening"))));
    let before = Resources::now();
    let mut guest = WireGuest::connect_to(&path);
    let offers = guest.connect(Version::V5_3);
    let mut open = guest.open(offers[0].relid);
    open.round_trip(&guest, 1);
    host.kill().unwrap();
    host.wait().unwrap();
    let event = guest.events.recv_timeout(WITHIN).unwrap();
    assert!(matches!(event, LinkEvent::Lost(_)), "{event:?}");
    drop((open, guest));
    before.expect_back("a killed host");
    // What the killed host left there is no obstacle.
    drop(Server::listen(&path, config(1), ServerSettings::default()).unwrap());
}

/// Not a test: a host for one of the tests above. Listens until it is killed.
#[test]
#[ignore = "started by another test, in a process of its own"]
fn a_host_to_be_killed() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let server = Server::listen(Path::new(&path), config(1), ServerSettings::default()).unwrap();
    println!("listening");
    // Guests come and go; the test ends this.
    while let Some(_guest) = server.next_guest(Duration::from_secs(60)) {}
}
