//! The lab's software: Debian packages fetched once, unpacked into a folder, and found again without a network.

mod apt;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::apt::{Apt, Planned};
use super::progress::Progress;
use super::{Kernel, wire};
use crate::process;

/// Packages whose dependency closure is unpacked; the kernels come in addition.
const PACKAGES: [&str; 4] = ["qemu-system-x86", "qemu-system-data", "seabios", "busybox-static"];

/// The unpacked packages, and which versions they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Software {
    /// Folder with the packages' files as if it were `/`.
    pub(crate) root: PathBuf,
    /// Version of each package that matters to a result, by name.
    pub(crate) versions: BTreeMap<String, String>,
    /// Kernel release (as `uname -r` prints it) by series.
    releases: BTreeMap<Kernel, String>,
}

impl Software {
    /// The software of an earlier run, or else fetched now; `update` looks for newer versions.
    ///
    /// # Errors
    /// It has to be fetched and that fails.
    pub(crate) fn obtain(folder: &Path, update: bool, progress: &Progress) -> Result<Self> {
        let stamp = folder.join("software.json");
        if !update {
            let text = fs::read_to_string(&stamp).ok();
            let known = text.and_then(|text| serde_json::from_str::<Self>(&text).ok());
            if let Some(known) = known.filter(|known| known.root.is_dir()) {
                return Ok(known);
            }
        }
        let task = progress.task("looking up packages on Debian's archive");
        let apt = Apt::update(folder.join("apt"))?;
        let mut files: BTreeSet<Planned> = apt.closure(&PACKAGES)?.into_iter().collect();
        let (mut versions, mut releases) = (BTreeMap::new(), BTreeMap::new());
        for kernel in Kernel::ALL {
            let image = apt.kernel(kernel.series())?;
            files.insert(apt.single(&image)?);
            let release = image.0.strip_prefix("linux-image-").unwrap_or(&image.0);
            releases.insert(kernel, release.to_owned());
        }
        drop(task);
        apt.download(&files, progress)?;
        for file in &files {
            let mut parts = file.file.split('_');
            if let (Some(package), Some(version)) = (parts.next(), parts.next())
                && (PACKAGES.contains(&package) || package.starts_with("linux-image"))
            {
                versions.insert(package.to_owned(), version.replace("%3a", ":"));
            }
        }
        let software = Self { root: unpack(folder, &apt.archives(), &files, progress)?, versions, releases };
        fs::write(&stamp, serde_json::to_vec_pretty(&software)?).context("write the list of software")?;
        software.remove_others(folder)?;
        Ok(software)
    }

    /// Removes what earlier sets of packages were unpacked to.
    fn remove_others(&self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("root-") && path != self.root {
                fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Kernel release of a series.
    ///
    /// # Errors
    /// The stamp of an earlier run does not have it.
    pub(crate) fn release(&self, kernel: Kernel) -> Result<&str> {
        let release = self.releases.get(&kernel);
        release.map(String::as_str).with_context(|| format!("no kernel {kernel} fetched: run with --update"))
    }

    /// A file of the packages, by its path below `/`.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Command line that runs the fetched QEMU with the fetched libraries and firmware.
    pub(crate) fn qemu(&self) -> Command {
        let mut command = Command::new(self.file("lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(self.library_path()).arg(self.file("usr/bin/qemu-system-x86_64"));
        for folder in ["usr/share/seabios", "usr/share/qemu"] {
            command.arg("-L").arg(self.file(folder));
        }
        command
    }

    /// Every library that QEMU loads, the dynamic loader included: file names to paths.
    ///
    /// # Errors
    /// The loader fails or a library is missing.
    pub(crate) fn qemu_libraries(&self) -> Result<BTreeMap<String, PathBuf>> {
        let mut command = Command::new(self.file("lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(self.library_path()).arg("--list");
        let listing = process::output(command.arg(self.file("usr/bin/qemu-system-x86_64")))?;
        let mut libraries = BTreeMap::new();
        for line in String::from_utf8_lossy(&listing).lines() {
            let Some((name, found)) = line.trim().split_once(" => ") else { continue };
            let path = found.split(" (").next().unwrap_or(found);
            if path == "not found" {
                bail!("QEMU's library {name} is in none of the fetched packages");
            }
            let name = name.rsplit('/').next().unwrap_or(name);
            libraries.insert(name.to_owned(), PathBuf::from(path));
        }
        Ok(libraries)
    }

    fn library_path(&self) -> std::ffi::OsString {
        let mut path = self.file("lib/x86_64-linux-gnu").into_os_string();
        path.push(":");
        path.push(self.file("usr/lib/x86_64-linux-gnu"));
        path
    }
}

/// Unpacks the packages into a folder named after the set of them; a set that is there already is left as it is.
fn unpack(folder: &Path, archives: &Path, files: &BTreeSet<Planned>, progress: &Progress) -> Result<PathBuf> {
    let names: String = files.iter().flat_map(|file| [&file.file, "\n"]).collect();
    let root = folder.join(format!("root-{:016x}", wire::checksum(names.as_bytes())));
    if root.is_dir() {
        return Ok(root);
    }
    let unfinished = root.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("remove {}", unfinished.display()))?;
    }
    fs::create_dir_all(&unfinished).with_context(|| format!("create {}", unfinished.display()))?;
    let bar = progress.count(format!("unpacking {} packages", files.len()), files.len());
    for (done, file) in files.iter().enumerate() {
        bar.reached(done as u64);
        process::output(Command::new("dpkg-deb").arg("--extract").arg(archives.join(&file.file)).arg(&unfinished))?;
    }
    fs::rename(&unfinished, &root).with_context(|| format!("rename {}", unfinished.display()))?;
    Ok(root)
}
