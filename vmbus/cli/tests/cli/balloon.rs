//! Signals and the service manager, while the balloon driver waits for its device.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::machines;

/// A process that is told to end while it waits has begun nothing, so it ends with 0; systemd knows what it waits for.
#[test]
fn a_signal_ends_the_wait_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    machines::no_driver(folder.path());
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    for signal in ["TERM", "INT"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vmbusctl"))
            .arg("--root")
            .arg(folder.path())
            .args(["balloon", "--wait", "30", "--json"])
            .env("NOTIFY_SOCKET", &socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The line comes after the handlers are in place.
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "{\"event\":\"waiting\",\"selector\":\"balloon\"}\n");
        let mut message = [0; 256];
        let length = manager.recv(&mut message).unwrap();
        assert_eq!(&message[..length], b"STATUS=waiting for balloon to be bound to uio_hv_generic\n");

        let killed = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(child.wait().unwrap().code(), Some(0), "after SIG{signal}");
    }
}
