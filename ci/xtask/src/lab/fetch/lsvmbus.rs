//! The kernel's own `lsvmbus`, to compare ours with, and a Python to run it. No binary package of Debian has the script
//! (hyperv-daemons leaves it out), so it comes out of the package with the kernel's source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Fetcher, libraries};
use crate::process;

/// Where in its folder the script is.
const SCRIPT: &str = "lsvmbus";

/// Package with the kernel's source.
const SOURCE: &str = "linux-source-6.12";

/// Python, its libraries and the script.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Lsvmbus {
    /// Folder with the packages' files as if it were `/`, and the script.
    pub(crate) root: PathBuf,
    /// Python's program and the folder of its library, both relative to the root.
    python: (String, String),
    /// Version of the kernel's source that the script is from.
    pub(crate) version: String,
}

impl Lsvmbus {
    /// Python's program.
    pub(crate) fn python(&self) -> PathBuf {
        self.root.join(&self.python.0)
    }

    /// Folder of Python's library.
    pub(crate) fn library(&self) -> PathBuf {
        self.root.join(&self.python.1)
    }

    /// Every shared library that Python loads.
    ///
    /// # Errors
    /// One is missing.
    pub(crate) fn shared_libraries(&self) -> Result<BTreeMap<String, PathBuf>> {
        libraries(&self.root, &self.python.0)
    }

    /// The script.
    pub(crate) fn script(&self) -> PathBuf {
        self.root.join(SCRIPT)
    }
}

impl Fetcher<'_> {
    /// Fetches Python and the script; `busybox` unpacks.
    pub(super) fn lsvmbus(&mut self, busybox: &Path) -> Result<Lsvmbus> {
        let python = self.base()?.closure(&["python3-minimal"])?.into_iter().collect();
        let root = self.unpack(&python)?;
        let folder = fs::read_dir(root.join("usr/lib")).context("read Python's folder")?;
        let names = folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let name =
            names.filter(|name| name.starts_with("python3.")).max().context("no Python in Debian's package of it")?;
        let python = (format!("usr/bin/{name}"), format!("usr/lib/{name}"));
        let progress = self.progress;
        let apt = self.base()?;
        let (package, version) = apt.newest(SOURCE)?;
        let lsvmbus = Lsvmbus { root, python, version };
        if !lsvmbus.script().exists() {
            let file = apt.single(&(package, lsvmbus.version.clone()))?;
            apt.download(&BTreeSet::from([file.clone()]), progress)?;
            let deb = apt.archives().join(&file.file);
            let _task = progress.task("looking for lsvmbus in the kernel's source");
            // Each program ends as soon as the next one has what it wanted, and complains; so only the result counts.
            let pipeline = format!(
                "dpkg-deb --fsys-tarfile \"$0\" | tar -xO ./usr/src/{SOURCE}.tar.xz | \"$1\" xz -dc \
                 | tar -xO --occurrence=1 {SOURCE}/tools/hv/lsvmbus 2>/dev/null"
            );
            let mut shell = Command::new("sh");
            shell.args(["-c", &pipeline]).arg(&deb).arg(busybox);
            let script = process::output(&shell).context("find lsvmbus in the kernel's source")?;
            ensure!(script.starts_with(b"#!"), "the kernel's source has no lsvmbus");
            fs::write(lsvmbus.script(), script).context("write lsvmbus")?;
            fs::remove_file(&deb).context("remove the kernel's source")?;
        }
        Ok(lsvmbus)
    }
}
