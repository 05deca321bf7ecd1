//! Addresses, ends, resets and bells.

use std::io::{ErrorKind, Read};
use std::sync::Arc;

use super::*;

const LONG: Duration = Duration::from_secs(30);

fn tcp() -> (Plain, TcpStream) {
    let listener = PlainListener::bind(&"tcp:127.0.0.1:0".parse().unwrap()).unwrap();
    let connected = Plain::connect(&listener.local().unwrap(), LONG).unwrap();
    let Plain::Tcp(accepted) = listener.accept(&Bell::new().unwrap()).unwrap() else { panic!("not TCP") };
    (connected, accepted)
}

#[test]
fn addresses_are_read_and_shown() {
    for text in ["tcp:localhost:80", "tcp:127.0.0.1:0", "tcp:[::1]:65535", "unix:/a:b=c", "unix:relative"] {
        assert_eq!(text.parse::<PlainAddr>().unwrap().to_string(), text);
    }
    for text in ["", "tcp:", "tcp::80", "tcp:host", "tcp:host:", "tcp:host:+1", "tcp:host:65536", "tcp:::1:80", "unix:"]
    {
        assert!(text.parse::<PlainAddr>().is_err(), "{text}");
    }
}

#[test]
fn an_end_is_an_end_and_a_reset_a_reset() {
    let (ours, mut theirs) = tcp();
    ours.write_all(b"all", &Bell::new().unwrap()).unwrap();
    ours.end().unwrap();
    let mut all = Vec::new();
    theirs.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"all");

    let (ours, mut theirs) = tcp();
    ours.reset();
    drop(ours);
    assert_eq!(theirs.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Also one who writes to a peer that reads nothing.
#[test]
fn a_bell_ends_all_waits_and_says_nothing_to_the_peer() {
    let (ours, mut theirs) = tcp();
    let (ours, bell) = (Arc::new(ours), Arc::new(Bell::new().unwrap()));
    let both = [true, false].map(|reads| {
        let (ours, bell) = (Arc::clone(&ours), Arc::clone(&bell));
        std::thread::spawn(move || {
            loop {
                let outcome =
                    if reads { ours.read(&mut [0; 16], &bell) } else { ours.write_all(&[0; 4096], &bell).map(|()| 1) };
                if let Err(error) = outcome {
                    return error.kind();
                }
            }
        })
    });
    theirs.read_exact(&mut [0; 4096]).unwrap();
    bell.ring();
    for thread in both {
        assert_eq!(thread.join().unwrap(), ErrorKind::ConnectionAborted);
    }
    ours.reset();
    drop(ours);
    assert_eq!(theirs.read_to_end(&mut Vec::new()).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_path_is_taken_over_from_the_dead_alone() {
    let folder = tempfile::tempdir().unwrap();
    let addr = PlainAddr::Unix(folder.path().join("socket"));
    // Killed: std's listener leaves its path behind.
    let PlainAddr::Unix(path) = &addr else { return };
    drop(UnixListenerOfStd::bind(path).unwrap());
    let listener = PlainListener::bind(&addr).unwrap();
    assert_eq!(PlainListener::bind(&addr).unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(listener);
    assert!(!path.exists());
    std::fs::write(path, "a file").unwrap();
    assert!(PlainListener::bind(&addr).is_err() && path.exists());
}

use std::os::unix::net::UnixListener as UnixListenerOfStd;
