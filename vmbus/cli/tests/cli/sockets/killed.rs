//! One of two processes is killed: the other hears of it at once, as a reset and never as an end.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Host, accept, connect, is_reset, server};
use crate::process::{Process, read_lines, wait};

/// Nothing is waited for but the system, which is busy at times.
const AT_ONCE: Duration = Duration::from_secs(10);

#[test]
fn a_killed_guest_is_a_reset_for_whom_its_host_connected() {
    let (listener, target) = server();
    let host = Host::start(&[&format!("5000={target}")], &[]);
    let (mut forward, at) = host.forward("tcp:127.0.0.1:0", "vm:5000", &[]);
    let mut client = connect(at.unwrap());
    let mut peer = accept(&listener);
    client.write_all(b"x").unwrap();
    peer.read_exact(&mut [0]).unwrap();
    forward.signal("KILL");
    let start = Instant::now();
    is_reset(&peer);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    forward.end();
    // The host goes on, and serves the next guest.
    let (_forward, at) = host.forward("tcp:127.0.0.1:0", "vm:5000", &[]);
    let mut client = connect(at.unwrap());
    let mut peer = accept(&listener);
    client.write_all(b"y").unwrap();
    peer.read_exact(&mut [0]).unwrap();
}

/// The host's thread waits for room in a socket then, and not for its guest.
#[test]
fn a_killed_guest_is_a_reset_also_for_whom_reads_nothing() {
    let (listener, target) = server();
    let host = Host::start(&[&format!("5000={target}")], &[]);
    let (forward, at) = host.forward("tcp:127.0.0.1:0", "vm:5000", &[]);
    let mut client = connect(at.unwrap());
    let peer = accept(&listener);
    // Until nothing moves any more.
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while client.write_all(&[0; 1 << 16]).is_ok() {}
    forward.signal("KILL");
    let mut on = [PollFd::new(&peer, PollFlags::empty())];
    poll(&mut on, Some(&Timespec::try_from(AT_ONCE).unwrap())).unwrap();
    assert!(on[0].revents().contains(PollFlags::ERR), "{:?}", on[0].revents());
}

#[test]
fn a_killed_host_is_an_error_for_its_guests() {
    let (listener, target) = server();
    let mut host = Host::start(&[&format!("5000={target}")], &[6000]);
    let (mut forward, at) = host.forward("tcp:127.0.0.1:0", "vm:5000", &[]);
    let mut client = connect(at.unwrap());
    let mut peer = accept(&listener);
    client.write_all(b"x").unwrap();
    peer.read_exact(&mut [0]).unwrap();
    // And those who wait: one for a connection, one for more bytes.
    let mut echo = Process::start(&["echo", "6000", "--json", "--link", &host.path()]);
    echo.wait_for("listening");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmbusctl"));
    command
        .args(["nc", "5000", "--link", &host.path()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut nc = command.spawn().unwrap();
    let errors = read_lines(nc.stderr.take().unwrap());
    // A host connects before its guest is told that it is connected.
    let mut other = accept(&listener);
    other.write_all(b"y").unwrap();
    nc.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    host.process.signal("KILL");
    let start = Instant::now();
    host.process.end();
    is_reset(&client);
    for guest in [&mut forward, &mut echo] {
        let (code, last) = guest.rest();
        assert_eq!(code, Some(1), "{last}");
        assert!(last.contains("there is no host any more"), "{last}");
    }
    assert_eq!(wait(&mut nc).code(), Some(1));
    let error = errors.iter().collect::<Vec<_>>().join("\n");
    assert!(error.contains("cannot receive from 2:5000"), "{error}");
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}
