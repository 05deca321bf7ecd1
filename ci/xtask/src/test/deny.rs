//! Licences, duplicate versions and advisories, by cargo-deny. The advisory database is fetched from the
//! network by that tool: where it can't be had, that step is skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::step::{Outcome, run, say};

/// The checks that need nothing from the network.
const LOCAL: [&str; 3] = ["bans", "licenses", "sources"];

/// Licences, sources, and crates that come in two versions.
pub(super) fn licences(root: &Path) -> Result<Outcome> {
    let Some(tool) = find(root) else { return Ok(missing()) };
    let mut local = Command::new(tool);
    local.current_dir(root).args(["--workspace", "check"]).args(LOCAL);
    run(&mut local, "cargo deny check bans licenses sources")
}

/// Known vulnerabilities of the dependencies. A database that can't be fetched is told apart from a finding.
pub(super) fn advisories(root: &Path) -> Result<Outcome> {
    let Some(tool) = find(root) else { return Ok(missing()) };
    let output = Command::new(tool)
        .current_dir(root)
        .env("GIT_TERMINAL_PROMPT", "0")
        .args(["--workspace", "check", "advisories"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(Outcome::Passed);
    }
    if text.contains("failed to fetch advisory database") || text.contains("failed to load advisory database") {
        return Ok(Outcome::Skipped("the advisory database can't be fetched here".to_owned()));
    }
    say!("{}", text.trim_end());
    Ok(Outcome::Failed("cargo deny found an advisory".to_owned()))
}

/// `.ci/run` installs the tool into `target/tools`.
fn missing() -> Outcome {
    let how = "cargo install cargo-deny --locked --root target/tools";
    Outcome::Skipped(format!("cargo-deny is not installed; `{how}` brings it"))
}

/// `target/tools` first, then the PATH.
fn find(root: &Path) -> Option<PathBuf> {
    let own = root.join("target/tools/bin/cargo-deny");
    if own.is_file() {
        return Some(own);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("cargo-deny")).find(|file| file.is_file())
}
