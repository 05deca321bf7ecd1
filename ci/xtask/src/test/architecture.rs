//! What the house looks like: dependencies point one way, unsafe code stays in the rooms that may hold it,
//! and files keep to one role.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::step::{Outcome, say};

/// Each crate of the workspace and the crates of the workspace it may depend on.
const MAY_DEPEND_ON: [(&str, &[&str]); 10] = [
    ("vmbus-ringbuf", &[]),
    ("vmbus", &["vmbus-ringbuf"]),
    ("vmbus-channels", &["vmbus-ringbuf", "vmbus"]),
    ("vmbus-devices", &["vmbus-ringbuf", "vmbus", "vmbus-channels"]),
    ("vmbus-simhost", &["vmbus-ringbuf", "vmbus"]),
    ("vmbus-vmm", &["vmbus-ringbuf", "vmbus", "vmbus-simhost"]),
    ("vmbusctl", &["vmbus-ringbuf", "vmbus", "vmbus-channels", "vmbus-devices", "vmbus-simhost"]),
    ("vmbus-tests", &["vmbus-ringbuf", "vmbus", "vmbus-channels", "vmbus-devices", "vmbus-simhost"]),
    ("vmbus-lab-guest", &["vmbus-ringbuf", "vmbus", "vmbus-channels", "vmbus-devices", "vmbus-simhost"]),
    ("xtask", &[]),
];

/// The only places whose code may say `unsafe`.
const UNSAFE_ROOMS: [&str; 3] = ["ringbuf/src/mapped/", "vmbus/src/memory/", "tests/vmm/src/kvm/"];

/// Past this many lines a file is split by role.
const LINES_AT_MOST: usize = 400;

pub(super) fn check(root: &Path) -> Result<Outcome> {
    let mut findings = dependency_findings(root)?;
    for file in tracked_files(root)? {
        let Ok(text) = fs::read_to_string(root.join(&file)) else { continue };
        if file.extension().is_some_and(|extension| extension == "rs") {
            findings.extend(source_findings(&file, &text));
        }
    }
    for finding in &findings {
        say!("    {finding}");
    }
    let count = findings.len();
    Ok(if count == 0 { Outcome::Passed } else { Outcome::Failed(format!("findings listed above: {count}")) })
}

/// Files git tracks or would track, relative to the root.
fn tracked_files(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("git ls-files could not be started")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect())
}

/// Edges of the workspace's graph that point the wrong way, and crates nobody gave a place.
fn dependency_findings(root: &Path) -> Result<Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .context("cargo metadata could not be started")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let allowed: BTreeMap<_, _> = MAY_DEPEND_ON.into_iter().collect();
    let mut findings = Vec::new();
    for package in list(&metadata, "packages") {
        let name = text(package, "name");
        let Some(may) = allowed.get(name) else {
            findings.push(format!("crate {name} has no place in the house: add it to {}", file!()));
            continue;
        };
        for target in list(package, "dependencies").map(|dependency| text(dependency, "name")) {
            if target != name && allowed.contains_key(target) && !may.contains(&target) {
                findings.push(format!("{name} depends on {target}: that arrow points the wrong way"));
            }
        }
    }
    Ok(findings)
}

/// The entries of an array in cargo's JSON; none where it is missing.
fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// A string in cargo's JSON; empty where it is missing.
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What a source file says that it should not.
fn source_findings(file: &Path, text: &str) -> Vec<String> {
    let name = file.display().to_string();
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_AT_MOST {
        findings.push(format!("{name}: {lines} lines; past {LINES_AT_MOST} a file is split by role"));
    }
    if !text.trim_start_matches("#![no_main]").trim_start().starts_with("//!") {
        findings.push(format!("{name}: no //! line says what room this is"));
    }
    let may_be_unsafe = UNSAFE_ROOMS.iter().any(|room| name.starts_with(room)) || is_test_code(&name);
    if !may_be_unsafe {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| says_unsafe(line)) {
            findings.push(format!("{name}:{}: unsafe code outside its rooms: {}", number + 1, line.trim()));
        }
    }
    let library = name.ends_with("src/lib.rs") || name.ends_with("src/main.rs");
    if library && !text.contains("#![forbid(unsafe_code)]") && !text.contains("#![deny(unsafe_code)]") {
        findings.push(format!("{name}: neither forbids nor denies unsafe code"));
    }
    findings
}

/// Tests, benches and fuzz targets map memory of their own.
fn is_test_code(name: &str) -> bool {
    ["/tests/", "/benches/", "/fuzz/"].iter().any(|folder| name.contains(folder)) || name.ends_with("/tests.rs")
}

/// An unsafe block, function, impl or extern; comments, strings and the lint's own name do not count.
fn says_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["{", "fn", "impl", "extern", "trait"].iter().any(|what| {
        code.split_once("unsafe ").is_some_and(|(before, after)| {
            after.starts_with(what)
                && !before.contains('"')
                && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_code_is_told_from_talk_about_it() {
        for code in ["    unsafe { x() }", "pub unsafe fn f() {}", "unsafe impl Send for T {}"] {
            assert!(says_unsafe(code), "{code}");
        }
        for talk in ["// unsafe { x }", "#![forbid(unsafe_code)]", "let unsafe_rooms = 1;", "/// an unsafe fn"] {
            assert!(!says_unsafe(talk), "{talk}");
        }
    }

    #[test]
    fn a_source_file_outside_the_rooms_may_not_say_unsafe() {
        let text = "//! A room.\nfn f() { unsafe { g() } }\n";
        assert_eq!(source_findings(Path::new("channels/src/x.rs"), text).len(), 1);
        assert!(source_findings(Path::new("ringbuf/src/mapped/mod.rs"), text).is_empty());
        assert!(source_findings(Path::new("vmbus/src/memory/mapping.rs"), text).is_empty());
    }

    #[test]
    fn long_files_and_nameless_rooms_are_found() {
        let long = format!("//! A room.\n{}", "\n".repeat(LINES_AT_MOST));
        assert_eq!(source_findings(Path::new("channels/src/x.rs"), &long).len(), 1);
        assert_eq!(source_findings(Path::new("channels/src/x.rs"), "fn f() {}\n").len(), 1);
    }
}
