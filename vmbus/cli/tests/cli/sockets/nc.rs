//! `vmbusctl nc`: ends one at a time, commands, refusals.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::{Host, accept, connect, hear, is_reset, reset, say, server};
use crate::process::{LONG, read_lines, wait};

fn nc(host: &Host, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmbusctl"));
    command.args(["nc", "-v", "--link", &host.path()]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// One that listens already.
fn listening(host: &Host, arguments: &[&str]) -> (Child, Receiver<String>) {
    let mut child = nc(host, &[&["-l", "5000"], arguments].concat());
    let errors = read_lines(child.stderr.take().unwrap());
    assert_eq!(errors.recv_timeout(LONG).unwrap(), "vmbusctl: listening on any:5000");
    (child, errors)
}

/// Everything that comes until the end.
fn rest(errors: &Receiver<String>) -> String {
    errors.iter().collect::<Vec<_>>().join("\n")
}

/// How it ends, with what on standard output and on standard error.
fn end(mut child: Child) -> (Option<i32>, String, String) {
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let output = output.map(|mut from| {
        std::thread::spawn(move || {
            let mut text = String::new();
            from.read_to_string(&mut text).unwrap();
            text
        })
    });
    let errors = errors.map(read_lines);
    let status = wait(&mut child);
    let output = output.map(|thread| thread.join().unwrap()).unwrap_or_default();
    let errors = errors.map(|lines| rest(&lines)).unwrap_or_default();
    (status.code(), output, errors)
}

#[test]
fn the_end_of_input_is_told_and_the_answer_is_heard() {
    let (listener, target) = server();
    let host = Host::start(&[&format!("5000={target}")], &[]);
    let mut child = nc(&host, &["5000"]);
    child.stdin.take().unwrap().write_all(b"question").unwrap();
    let peer = accept(&listener);
    assert_eq!(hear(&peer), b"question");
    say(&peer, b"answer");
    let (code, output, errors) = end(child);
    assert_eq!((code, output.as_str()), (Some(0), "answer"), "{errors}");
    assert_eq!(errors, "vmbusctl: connected to 2:5000");
}

#[test]
fn a_peer_that_has_ended_hears_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peer");
    let listener = UnixListener::bind(&path).unwrap();
    let host = Host::start(&[&format!("5000=unix:{}", path.display())], &[]);
    let mut child = nc(&host, &["host:5000"]);
    let mut peer = listener.accept().unwrap().0;
    peer.set_read_timeout(Some(LONG)).unwrap();
    peer.write_all(b"that is all").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let mut all = [0; 11];
    child.stdout.as_mut().unwrap().read_exact(&mut all).unwrap();
    // Its output is over; what is said now still arrives, more than fits anywhere on the way.
    let late = vec![b'x'; 3 << 20];
    let (mut input, sent) = (child.stdin.take().unwrap(), late.clone());
    let writing = std::thread::spawn(move || input.write_all(&sent).unwrap());
    // Slower than it is sent: when nc has written everything, much of it is not read yet.
    let (mut heard, mut buffer) = (Vec::<u8>::new(), vec![0_u8; 32 << 10]);
    loop {
        let read = peer.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        heard.extend(&buffer[..read]);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(heard == late, "{} bytes of {}", heard.len(), late.len());
    writing.join().unwrap();
    assert_eq!(end(child).0, Some(0));
}

#[test]
fn until_end_leaves_the_rest_of_the_input() {
    let (listener, target) = server();
    let host = Host::start(&[&format!("5000={target}")], &[]);
    let mut child = nc(&host, &["--until-end", "5000"]);
    let input = child.stdin.take();
    let peer = accept(&listener);
    say(&peer, b"bye");
    let (code, output, errors) = end(child);
    assert_eq!((code, output.as_str()), (Some(0), "bye"), "{errors}");
    assert_eq!(hear(&peer), b"");
    drop(input);
}

#[test]
fn who_listens_is_connected_to() {
    let host = Host::start(&[], &[5000]);
    let (mut child, _errors) = listening(&host, &[]);
    let peer = connect(host.published[0]);
    child.stdin.take().unwrap().write_all(b"from the guest").unwrap();
    assert_eq!(hear(&peer), b"from the guest");
    say(&peer, b"from the host");
    let (code, output, _) = end(child);
    assert_eq!((code, output.as_str()), (Some(0), "from the host"));
}

#[test]
fn a_command_has_the_connection_as_input_and_output() {
    let host = Host::start(&[], &[5000]);
    let (child, _errors) = listening(&host, &["--exec", "tr a-z A-Z"]);
    let peer = connect(host.published[0]);
    say(&peer, b"louder");
    assert_eq!(hear(&peer), b"LOUDER");
    assert_eq!(end(child).0, Some(0));
    // One that reads nothing, and ends before its peer does.
    let (child, errors) = listening(&host, &["-e", "echo hello; exit 3"]);
    let peer = connect(host.published[0]);
    assert_eq!(hear(&peer), b"hello\n");
    drop(peer);
    let (code, errors) = (end(child).0, rest(&errors));
    assert!(code == Some(1) && errors.contains("ended with exit status: 3"), "{errors}");
}

/// Nor does nc wait for what the command has started: that has the command's output, too.
#[test]
fn a_command_does_not_outlive_a_reset() {
    let host = Host::start(&[], &[5000]);
    let (child, errors) = listening(&host, &["-e", "echo ready; sleep 20 2>/dev/null; true"]);
    let mut peer = connect(host.published[0]);
    peer.read_exact(&mut [0; 6]).unwrap();
    let start = Instant::now();
    reset(peer);
    let (code, errors) = (end(child).0, rest(&errors));
    assert!(code == Some(1) && errors.contains("cannot receive from"), "{errors}");
    assert!(start.elapsed() < Duration::from_secs(15), "it waited for the sleeper");
}

#[test]
fn a_reset_is_an_error_and_no_end() {
    let (listener, target) = server();
    let host = Host::start(&[&format!("5000={target}")], &[]);
    let mut child = nc(&host, &["5000"]);
    let input = child.stdin.take();
    let mut peer = accept(&listener);
    peer.write_all(b"half").unwrap();
    let mut half = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut half).unwrap();
    reset(peer);
    let (code, _, errors) = end(child);
    assert!(code == Some(1) && errors.contains("cannot receive from 2:5000"), "{errors}");
    drop(input);
}

#[test]
fn a_peer_that_closed_takes_no_more() {
    let (listener, target) = server();
    let host = Host::start(&[&format!("5000={target}")], &[]);
    let mut child = nc(&host, &["5000"]);
    drop(accept(&listener));
    // As much as it takes until it is noticed; without that there is no end of it.
    let mut input = child.stdin.take().unwrap();
    let start = Instant::now();
    while input.write_all(&[0; 4096]).is_ok() {
        assert!(start.elapsed() < LONG, "nobody notices");
    }
    let (code, _, errors) = end(child);
    assert!(code == Some(1) && errors.contains("cannot send to 2:5000"), "{errors}");
}

#[test]
fn refusals_say_what_to_look_at() {
    let (listener, target) = server();
    drop(listener);
    let host = Host::start(&[&format!("5000={target}")], &[5000]);
    // Nobody there; and a service that leads nowhere.
    for port in ["5001", "5000"] {
        let (code, _, errors) = end(nc(&host, &[port]));
        assert!(code == Some(1) && errors.contains("nobody listens there"), "{errors}");
    }
    // The other way: no guest is there.
    is_reset(&connect(host.published[0]));
}

#[test]
fn echoes_and_sinks_end_when_their_peer_does() {
    let host = Host::start(&["7=echo", "9=sink"], &[]);
    for (port, back) in [("7", "said"), ("9", "")] {
        let mut child = nc(&host, &[port]);
        child.stdin.take().unwrap().write_all(b"said").unwrap();
        let (code, output, errors) = end(child);
        assert_eq!((code, output.as_str()), (Some(0), back), "{errors}");
    }
    // And without a host of another process.
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmbusctl"));
    let mut child =
        command.args(["nc", "any:1", "--link", "sim"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"within").unwrap();
    assert_eq!(end(child).1, "within");
}
