//! Programs under test that go on while the test talks to them: each line is awaited for so long and no longer.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything takes; for when it goes wrong.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A running vmbusctl. Its drop kills it.
pub(crate) struct Process {
    pub(crate) child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts it; what it prints is read here. Input and errors are the caller's, if it wants them.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmbusctl"));
        Self::of(command.args(arguments).stdin(Stdio::null()))
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = read_lines(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line that it prints.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(LONG).unwrap()
    }

    /// The next line, which is an object.
    pub(crate) fn event(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// The next line that tells of this; others are passed over.
    pub(crate) fn wait_for(&self, event: &str) -> Value {
        loop {
            let there = self.event();
            if there["event"] == event {
                return there;
            }
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let killed = Command::new("kill").args([format!("-{signal}"), self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Waits for its end: how it ended, and what it had printed that nobody read.
    pub(crate) fn rest(&mut self) -> (Option<i32>, String) {
        let status = self.end();
        assert_eq!(status.signal(), None);
        (status.code(), self.lines.iter().collect::<Vec<_>>().join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a child, so long and no longer.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < LONG, "it does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Lines of what is read, as they come.
pub(crate) fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (line, lines) = channel();
    std::thread::spawn(move || {
        for text in BufReader::new(from).lines() {
            if text.is_err() || line.send(text.unwrap_or_default()).is_err() {
                return;
            }
        }
    });
    lines
}
