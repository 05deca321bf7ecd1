//! `bench socket`: that it runs and says what it has to. What it measures is for a quiet machine.

use std::process::Command;

use serde_json::Value;

fn bench(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_vmbusctl")).args(["bench", "socket"]).args(arguments).output().unwrap()
}

/// The host process is a judge as well: a violation would end it with another error.
#[test]
fn every_race_has_a_ratio() {
    let output = bench(&["--json", "--rounds", "1"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert!(report.get("error").is_none(), "{report}");
    let ratios = report["ratios"].as_object().unwrap();
    let names = ["connections", "pingpong_blocking", "pingpong_polling", "throughput_1k", "throughput_64k"];
    assert_eq!(ratios.keys().collect::<Vec<_>>(), names);
    assert!(ratios.values().all(|ratio| ratio.as_f64().unwrap() > 0.0), "{report}");
    let expected = if report["passed"] == true { 0 } else { 1 };
    assert_eq!(output.status.code(), Some(expected), "{report}");
}

#[test]
fn a_race_that_is_none_is_an_error() {
    let output = bench(&["--race", "marathon"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no race is called so"), "{output:?}");
}
