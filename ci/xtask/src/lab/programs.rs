//! The programs that run inside the guests, linked statically: there are no libraries in there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{Guarded, ending};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where the programs are once built.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The agent and the programs that load a device.
    pub(crate) lab_guest: PathBuf,
    /// The command under test.
    pub(crate) vmbusctl: PathBuf,
    /// The suite of sockets.
    pub(crate) sockets: PathBuf,
    vmm: Option<PathBuf>,
}

impl Programs {
    /// Builds all below `folder`, the VMM if it is wanted; cargo's own messages go to standard error.
    ///
    /// # Errors
    /// The build fails.
    pub(crate) fn build(repository: &Path, folder: &Path, vmm: bool) -> Result<Self> {
        let target = folder.join("cargo");
        let mut command = cargo(repository, &target);
        command.args(["--package", "vmbus-lab-guest", "--package", "vmbusctl"]);
        if vmm {
            command.args(["--package", "vmbus-vmm"]);
        }
        finish(&command, Stdio::inherit())?;
        let sockets = build_sockets(repository, folder, &target)?;
        let built = |name: &str| target.join(TARGET).join("lab").join(name);
        let vmm = vmm.then(|| built("vmbus-vmm"));
        Ok(Self { lab_guest: built("vmbus-lab-guest"), vmbusctl: built("vmbusctl"), sockets, vmm })
    }

    /// The VMM.
    ///
    /// # Errors
    /// It was not wanted.
    pub(crate) fn vmm(&self) -> Result<&Path> {
        self.vmm.as_deref().context("the VMM was not built")
    }
}

fn cargo(repository: &Path, target: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--profile", "lab", "--locked", "--target", TARGET]);
    command.current_dir(repository).env("CARGO_TARGET_DIR", target);
    command.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

fn finish(command: &Command, stdout: Stdio) -> Result<()> {
    let mut cargo = Guarded::spawn_with(command, stdout, Stdio::inherit())?;
    let status = cargo.wait(Duration::from_secs(1800))?;
    if !status.is_some_and(|status| status.success()) {
        bail!("building the guest's programs: cargo {}", ending(status));
    }
    Ok(())
}

/// Builds the suite of sockets, a test whose file's name cargo alone knows.
fn build_sockets(repository: &Path, folder: &Path, target: &Path) -> Result<PathBuf> {
    let mut command = cargo(repository, target);
    command.args(["--package", "vmbus-tests", "--test", "sockets", "--message-format", "json-render-diagnostics"]);
    let said = folder.join("sockets.json");
    let file = File::create(&said).with_context(|| format!("create {}", said.display()))?;
    finish(&command, file.into())?;
    let said = fs::read_to_string(&said).with_context(|| format!("read {}", said.display()))?;
    let artifacts = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut executables = artifacts.filter_map(|it| it.get("executable")?.as_str().map(PathBuf::from));
    executables.next_back().context("cargo built no suite of sockets")
}
