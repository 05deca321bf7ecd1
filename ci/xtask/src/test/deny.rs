//! Licences, duplicate versions and advisories, by cargo-deny. The advisory database is fetched from the
//! network by that tool: where it can't be had, the rest is checked and the report says so.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::step::{Outcome, run, say};

/// The checks that need nothing from the network.
const LOCAL: [&str; 3] = ["bans", "licenses", "sources"];

/// Runs cargo-deny if the machine has it; `.ci/run` installs it into `target/tools`.
pub(super) fn check(root: &Path) -> Result<Outcome> {
    let Some(tool) = find(root) else {
        let how = "cargo install cargo-deny --locked --root target/tools";
        return Ok(Outcome::Skipped(format!("cargo-deny is not installed; `{how}` brings it")));
    };
    let mut local = Command::new(&tool);
    local.current_dir(root).args(["--workspace", "check"]).args(LOCAL);
    if let Outcome::Failed(why) = run(&mut local, "cargo deny check bans licenses sources")? {
        return Ok(Outcome::Failed(why));
    }
    advisories(root, &tool)
}

/// A failure to fetch the database is told apart from an advisory that was found.
fn advisories(root: &Path, tool: &Path) -> Result<Outcome> {
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
        say!("    note: the advisory database can't be fetched here; licences, bans and sources were checked");
        return Ok(Outcome::Passed);
    }
    say!("{}", text.trim_end());
    Ok(Outcome::Failed("cargo deny found an advisory".to_owned()))
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
