//! `watch` on a machine made of files: what is there, what comes and goes, and how it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::machines;

struct Watch {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    fn start(root: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmbusctl"));
        command.arg("--root").arg(root).arg("watch").args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line; without its time, which is checked to be one.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        let line = line.trim_end();
        let (before, rest) = line.split_at(if line.starts_with('{') { r#"{"time":""#.len() } else { 0 });
        let (time, rest) = rest.split_at("2026-02-03T04:05:06.789Z".len());
        assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{line}");
        format!("{before}{}", rest.trim_start())
    }

    fn end(mut self, signal: &str) {
        let killed = Command::new("kill").args([format!("-{signal}"), self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "after SIG{signal}");
    }
}

#[test]
fn it_tells_what_is_there_and_what_changes_until_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    machines::no_driver(root);
    let device = root.join("sys/bus/vmbus/devices").join(machines::BALLOON);
    let (mut json, mut plain) = (Watch::start(root, &["--json"]), Watch::start(root, &[]));
    let shape = |event: &str, driver: &str| {
        format!(
            r#"{{"time":"","event":"{event}","class_name":"balloon","device":"{0}","instance":"{0}","class":"{1}","relid":1,"driver":"{driver}","uio":null}}"#,
            machines::BALLOON,
            machines::DYNAMIC_MEMORY
        )
    };
    assert_eq!(json.line(), shape("present", "hv_balloon"));
    assert_eq!(plain.line(), format!("present  balloon    {}  relid 1  hv_balloon", machines::BALLOON));
    // The kernel does not announce what happens to these files: they are looked at.
    fs::remove_file(device.join("driver")).unwrap();
    assert_eq!(json.line(), shape("unbound", "hv_balloon"));
    assert!(plain.line().starts_with("unbound  balloon"));
    fs::remove_file(&device).unwrap();
    assert_eq!(plain.line(), format!("removed  balloon    {}  relid 1  no driver", machines::BALLOON));
    json.end("TERM");
    plain.end("INT");
}

/// What is there is left out; whenever it looks first, the first line is a change.
#[test]
fn what_is_there_can_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    machines::no_driver(folder.path());
    let driver = folder.path().join("sys/bus/vmbus/devices").join(machines::BALLOON).join("driver");
    let target = fs::read_link(&driver).unwrap();
    let mut watch = Watch::start(folder.path(), &["--json", "--no-initial"]);
    let heard = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !heard.load(Ordering::Relaxed) {
                fs::remove_file(&driver).unwrap();
                thread::yield_now();
                symlink(&target, &driver).unwrap();
                thread::yield_now();
            }
        });
        let line = watch.line();
        heard.store(true, Ordering::Relaxed);
        assert!(line.contains(r#""event":"unbound""#) || line.contains(r#""event":"bound""#), "{line}");
    });
    watch.end("TERM");
}
