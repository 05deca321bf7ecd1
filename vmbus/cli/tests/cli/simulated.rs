//! What runs against the simulated host: `demo`, `storm`, and `sim` with another process as its guest.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::process::Process;

fn vmbusctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmbusctl")).args(arguments).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A host of its own process.
fn sim(path: &Path, arguments: &[&str]) -> Process {
    Process::start(&[&["sim", "--json", "--listen", path.to_str().unwrap()], arguments].concat())
}

/// The demonstration is also what the program does without a command.
#[test]
fn the_demonstration_leaves_nothing_behind() {
    for arguments in [&["demo", "--json"][..], &["--json"]] {
        let output = vmbusctl(arguments);
        let report = json(&output);
        assert_eq!(output.status.code(), Some(0), "{report}");
        assert_eq!(report["leaks"], 0, "{report}");
        assert_eq!(report["violations"], Value::Array(vec![]), "{report}");
        let devices = report["devices"].as_array().unwrap();
        for device in ["echo", "byte pipe", "dynamic memory"] {
            assert!(devices.iter().any(|row| row["device"] == device), "no {device}: {report}");
        }
        assert_eq!(report["offers"], report["releases"]);
    }
}

/// What the oracles find is tested with them (`storm/oracles.rs`); this is their way out.
#[test]
fn a_storm_ends_with_what_it_found() {
    let output = vmbusctl(&["storm", "--cycles", "300", "--seed", "7", "--threads", "4", "--json"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!((&report["passed"], &report["seed"], &report["cycles"]), (&true.into(), &7.into(), &300.into()));
    for (name, value) in [("offers", 300), ("released", 300), ("leaked", 0), ("stale_events", 0)] {
        assert_eq!(report[name], value, "{name}: {report}");
    }
    assert!(report["cycles_per_second"].as_f64().unwrap() > 0.0 && report["rss_delta_bytes"].is_i64());
}

#[test]
fn a_host_on_a_path_serves_guests_of_other_processes_until_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host");
    let mut host = sim(&path, &["--echo", "3", "--protocol", "5.2"]);
    assert_eq!(host.event()["event"], "listening");
    for number in 1..=2 {
        let listing = json(&vmbusctl(&["list", "--json", "--link", path.to_str().unwrap()]));
        assert_eq!((&listing["version"], listing["offers"].as_array().unwrap().len()), (&"5.2".into(), 5));
        assert_eq!(host.event(), serde_json::json!({"event": "connected", "guest": number}));
        assert_eq!(host.event(), serde_json::json!({"event": "gone", "guest": number}));
    }
    host.signal("TERM");
    assert_eq!(host.event()["event"], "ended");
    assert_eq!(host.end().code(), Some(0));
    // And its path goes with it.
    let output = vmbusctl(&["list", "--link", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("cannot connect to") && error.contains("No such file"), "{error}");
}

/// A killed host leaves its path behind; who connects is told, and the next host takes the path over.
#[test]
fn a_killed_host_is_an_error_and_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host");
    let mut host = sim(&path, &[]);
    assert_eq!(host.event()["event"], "listening");
    host.signal("KILL");
    host.end();
    let output = vmbusctl(&["list", "--link", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("refused"));
    let mut host = sim(&path, &[]);
    assert_eq!(host.event()["event"], "listening");
    assert_eq!(vmbusctl(&["list", "--link", path.to_str().unwrap()]).status.code(), Some(0));
    host.signal("INT");
    assert_eq!(host.end().code(), Some(0));
}
