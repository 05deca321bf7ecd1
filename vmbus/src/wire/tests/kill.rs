//! Either side is killed without warning: the other finds out, says so clearly, and keeps nothing.

use std::process::Child;

use super::*;

const PATH: &str = "VMBUS_TEST_PATH";
const RING: Share = Share::Ring { outgoing_bytes: 8 << 10, incoming_bytes: 8 << 10 };

/// A guest in a process of its own: connects, agrees on a version, shares a ring, signals, and then waits for its end.
#[test]
#[ignore = "a process that the tests below start and kill"]
fn as_guest() {
    let path = std::env::var_os(PATH).expect("started by another test");
    let mut link = WireLink::connect(path, SETTINGS).unwrap();
    let (sink, heard) = sink();
    link.start(sink).unwrap();
    link.post(&contact(Version::V5_3)).unwrap();
    assert!(matches!(heard.recv().unwrap(), LinkEvent::Message(HostMessage::VersionResponse(_))));
    link.share(1, GpadlId(1), RING).unwrap();
    link.port(1, GpadlId(1)).unwrap().line.signal().unwrap();
    let end = heard.recv();
    panic!("not killed, but {end:?}");
}

/// A host in a process of its own: welcomes a guest, agrees on a version, takes a ring, interrupts, and waits.
#[test]
#[ignore = "a process that the tests below start and kill"]
fn as_host() {
    let path = std::env::var_os(PATH).expect("started by another test");
    let listener = HostListener::bind(path).unwrap();
    println!("listening");
    assert!(readable_soon(&listener));
    let mut host = listener.accept().unwrap().unwrap().wait(SOON).unwrap();
    welcome(&mut host);
    host.interrupts.raise(0, 1).unwrap();
    let end = end_of(&mut host.connection);
    panic!("not killed, but {end:?}");
}

/// The host's part until the ring is shared.
fn welcome(host: &mut Guest) -> Vec<u64> {
    next_post(&mut host.connection);
    host.connection.send(0, &accepted(1).encode(Protocol::NONE).unwrap()).unwrap();
    shared_pages(&mut host.connection)
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_guest_that_is_killed_leaves_its_host_as_it_was() {
    if !alone("kill::a_guest_that_is_killed_leaves_its_host_as_it_was") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host");
    let listener = HostListener::bind(&path).unwrap();
    let before = (descriptors(), mapped_areas());
    for _ in 0..3 {
        let mut child = again("kill::as_guest", PATH, path.as_os_str());
        assert!(readable_soon(&listener));
        let mut host = listener.accept().unwrap().unwrap().wait(SOON).unwrap();
        let pages = welcome(&mut host);
        let (ring, _) = host.memory.ring(&pages[..2]).unwrap();
        assert!(readable_soon(host.interrupts.signals()));
        kill(&mut child);
        let Error::Disconnected { why } = end_of(&mut host.connection) else { panic!("not the end") };
        assert!(why.contains("the guest closed it or died"), "{why}");
        // Its memory lives as long as we hold it, and so do its eventfds: nothing of this faults or waits.
        vmbus_ringbuf::Memory::write(&ring, 0, &[1; 4096]);
        host.memory.write(&pages, 0, &[1; 4096]).unwrap();
        assert!(host.interrupts.raise(0, 1).unwrap());
        host.interrupts.take_signals(|relid| assert_eq!(relid, 1));
        let message = accepted(1).encode(Protocol::NONE).unwrap();
        assert!(matches!(host.connection.send(0, &message), Err(Error::Disconnected { .. })));
        drop((host, ring));
        assert_eq!((descriptors(), mapped_areas()), before);
    }
}

#[test]
fn a_host_that_is_killed_leaves_its_guest_as_it_was() {
    if !alone("kill::a_host_that_is_killed_leaves_its_guest_as_it_was") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host");
    let before = (descriptors(), mapped_areas());
    for _ in 0..3 {
        let mut child = again_listening("kill::as_host", &path);
        let mut link = WireLink::connect(&path, SETTINGS).unwrap();
        let (sink, heard) = sink();
        link.start(sink).unwrap();
        link.post(&contact(Version::V5_3)).unwrap();
        assert!(matches!(heard.recv_timeout(SOON).unwrap(), LinkEvent::Message(HostMessage::VersionResponse(_))));
        link.share(1, GpadlId(1), RING).unwrap();
        let port = link.port(1, GpadlId(1)).unwrap();
        let interrupts = link.interrupts(0).unwrap();
        assert!(readable_soon(&interrupts.event));
        kill(&mut child);
        let LinkEvent::Lost(Error::Disconnected { why }) = heard.recv_timeout(SOON).unwrap() else {
            panic!("not lost")
        };
        assert!(why.contains("the host closed it or died"), "{why}");
        assert!(heard.recv_timeout(SOON).is_err(), "once");
        port.line.signal().unwrap();
        port.line.rescind();
        link.unshare(GpadlId(1));
        assert!(matches!(link.post(&GuestMessage::Unload), Err(Error::Disconnected { .. })));
        drop((port, interrupts, link, heard));
        assert_eq!((descriptors(), mapped_areas()), before);
    }
}

/// Starts a host and waits until it listens.
fn again_listening(name: &str, path: &std::path::Path) -> Child {
    use std::io::{BufRead, BufReader};
    let name = format!("wire::tests::{name}");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(PATH, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("listening")), "the host never listened");
    child
}
