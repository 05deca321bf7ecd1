//! The programs that run inside the guests, linked statically: there are no libraries in there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Guarded, ending};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where the programs are once built.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The agent and the programs that load a device.
    pub(crate) lab_guest: PathBuf,
    /// The command under test.
    pub(crate) vmbusctl: PathBuf,
    vmm: Option<PathBuf>,
}

impl Programs {
    /// Builds all below `folder`, the VMM if it is wanted; cargo's own messages go to standard error.
    ///
    /// # Errors
    /// The build fails.
    pub(crate) fn build(repository: &Path, folder: &Path, vmm: bool) -> Result<Self> {
        let target = folder.join("cargo");
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--profile", "lab", "--locked", "--target", TARGET]);
        command.args(["--package", "vmbus-lab-guest", "--package", "vmbusctl"]);
        if vmm {
            command.args(["--package", "vmbus-vmm"]);
        }
        command.current_dir(repository).env("CARGO_TARGET_DIR", &target);
        command.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
        let mut cargo = Guarded::spawn_with(&command, Stdio::inherit(), Stdio::inherit())?;
        let status = cargo.wait(Duration::from_secs(1800))?;
        if !status.is_some_and(|status| status.success()) {
            bail!("building the guest's programs: cargo {}", ending(status));
        }
        let built = |name: &str| target.join(TARGET).join("lab").join(name);
        let vmm = vmm.then(|| built("vmbus-vmm"));
        Ok(Self { lab_guest: built("vmbus-lab-guest"), vmbusctl: built("vmbusctl"), vmm })
    }

    /// The VMM.
    ///
    /// # Errors
    /// It was not wanted.
    pub(crate) fn vmm(&self) -> Result<&Path> {
        self.vmm.as_deref().context("the VMM was not built")
    }
}
