//! Kernels: which suite has which, with what keys its lists are checked, and where the files are once unpacked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::apt::{Apt, Planned};
use super::sources::Suites;
use super::{Fetcher, unpack};
use crate::lab::kernel::Kernel;

/// An unpacked kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KernelFiles {
    /// Folder with its packages' files as if it were `/`.
    pub(crate) root: PathBuf,
    /// Its release, as `uname -r` prints it.
    pub(crate) release: String,
    /// Its image's package.
    pub(crate) package: String,
    /// Version of that.
    pub(crate) version: String,
}

impl KernelFiles {
    /// The file to boot.
    ///
    /// # Errors
    /// The packages have none.
    pub(crate) fn image(&self) -> Result<PathBuf> {
        let boot = self.root.join(format!("boot/vmlinuz-{}", self.release));
        let images = std::iter::once(boot).chain(self.modules_folders().map(|folder| folder.join("vmlinuz")));
        images
            .into_iter()
            .find(|image| image.is_file())
            .with_context(|| format!("kernel {} has no image", self.release))
    }

    /// Folder of its modules and of what describes them.
    ///
    /// # Errors
    /// The packages have none.
    pub(crate) fn modules(&self) -> Result<PathBuf> {
        let found = self.modules_folders().find(|folder| folder.is_dir());
        found.with_context(|| format!("kernel {} has no modules", self.release))
    }

    /// Packages have moved theirs below `usr`.
    fn modules_folders(&self) -> impl Iterator<Item = PathBuf> {
        ["lib/modules", "usr/lib/modules"].into_iter().map(|folder| self.root.join(folder).join(&self.release))
    }
}

impl Fetcher<'_> {
    /// Fetches and unpacks the newest of a kernel.
    pub(super) fn kernel(&mut self, kernel: Kernel) -> Result<KernelFiles> {
        let suites = match kernel {
            Kernel::V6_12 | Kernel::V6_1 => {
                let apt = self.base()?;
                let image = apt.kernel(Some(kernel.name()))?;
                let files: BTreeSet<Planned> = apt.kernel_files(&image)?.into_iter().collect();
                return Ok(kernel_files(self.unpack(&files)?, image));
            }
            Kernel::Trixie => Suites::stable("trixie"),
            Kernel::TrixieBackports | Kernel::Sid => Suites::only(kernel.name()),
        };
        let apt = self.suite(kernel, &suites)?;
        let image = apt.kernel(None)?;
        let files: BTreeSet<Planned> = apt.kernel_files(&image)?.into_iter().collect();
        apt.download(&files, self.progress)?;
        Ok(kernel_files(unpack(self.folder, &apt.archives(), &files, self.progress)?, image))
    }

    /// apt on another suite. Keys of a release that is newer than the machine may be missing there; the lab's own release
    /// gets them by an update of the package that holds them, which is checked with the keys that are there.
    fn suite(&mut self, kernel: Kernel, suites: &Suites) -> Result<Apt> {
        let (folder, archive) = (self.folder.join(format!("apt-{kernel}")), self.archive()?);
        let task = self.progress.task(format!("looking up {kernel} on Debian's archive"));
        let first = Apt::update(folder.clone(), &archive, suites, None);
        drop(task);
        match first {
            Err(error) if format!("{error:#}").contains("NO_PUBKEY") => {
                let keyring = self.keyring().context("fetch newer keys of Debian's archive")?;
                self.progress.say(format!("{kernel} is signed with keys that this machine lacks: taking newer ones"));
                Apt::update(folder, &archive, suites, Some(&keyring))
            }
            result => result,
        }
    }

    /// The newest keys that the lab's own release has.
    fn keyring(&mut self) -> Result<PathBuf> {
        let apt = self.base()?;
        let package = apt.newest("debian-archive-keyring")?;
        let files = BTreeSet::from([apt.single(&package)?]);
        let keyring = self.unpack(&files)?.join("usr/share/keyrings/debian-archive-keyring.gpg");
        Path::canonicalize(&keyring).with_context(|| format!("{} has no keys", package.0))
    }
}

fn kernel_files(root: PathBuf, (package, version): (String, String)) -> KernelFiles {
    let release = package.strip_prefix("linux-image-").unwrap_or(&package).to_owned();
    KernelFiles { root, release, package, version }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::kernel_files;

    #[test]
    fn both_layouts_of_kernel_packages_are_understood() {
        let root = tempfile::tempdir().unwrap();
        let image = || ("linux-image-7.2.13-cloud-amd64".to_owned(), "7.2.13-1".to_owned());
        let kernel = kernel_files(root.path().to_owned(), image());
        assert!(kernel.image().is_err() && kernel.modules().is_err());
        let modules = root.path().join("usr/lib/modules/7.2.13-cloud-amd64");
        fs::create_dir_all(&modules).unwrap();
        fs::write(modules.join("vmlinuz"), "").unwrap();
        assert_eq!(kernel.image().unwrap(), modules.join("vmlinuz"));
        assert_eq!(kernel.modules().unwrap(), modules);
        fs::create_dir_all(root.path().join("boot")).unwrap();
        let boot = root.path().join("boot/vmlinuz-7.2.13-cloud-amd64");
        fs::write(&boot, "").unwrap();
        assert_eq!(kernel.image().unwrap(), boot);
    }
}
