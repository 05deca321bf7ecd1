//! The lab's software: Debian packages fetched once, unpacked into folders, and found again without a network.

mod apt;
mod kernels;
mod lsvmbus;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::apt::{Apt, Planned};
pub(crate) use self::kernels::KernelFiles;
pub(crate) use self::lsvmbus::Lsvmbus;
use self::sources::{Archive, Suites};
use super::kernel::Kernel;
use super::progress::Progress;
use super::wire;
use crate::process::{self, Interrupted};

/// Debian release that the lab takes its packages from, whatever the machine runs; other suites only have kernels.
const RELEASE: &str = "bookworm";

/// Packages whose dependency closure is unpacked; the kernels come in addition.
const PACKAGES: [&str; 4] = ["qemu-system-x86", "qemu-system-data", "seabios", "busybox-static"];

/// Where busybox is among them.
pub(crate) const BUSYBOX: &str = "bin/busybox";

/// What a run needs beyond QEMU and the first kernel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Kernels of guests under test.
    pub(crate) kernels: BTreeSet<Kernel>,
    /// A Python, and the kernel's own `lsvmbus` for it.
    pub(crate) lsvmbus: bool,
    /// Look for newer packages even if there are some already.
    pub(crate) update: bool,
}

/// The unpacked packages, and which versions they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Software {
    /// Folder with the packages' files as if it were `/`.
    pub(crate) root: PathBuf,
    /// Version of each package that matters to a result, by name; kernels have their own.
    pub(crate) versions: BTreeMap<String, String>,
    kernels: BTreeMap<Kernel, KernelFiles>,
    lsvmbus: Option<Lsvmbus>,
    /// Why there is none of a kernel that was wanted.
    #[serde(skip)]
    missing: BTreeMap<Kernel, String>,
}

impl Software {
    /// The software of an earlier run, and what of it is missing or is to be looked for again.
    ///
    /// # Errors
    /// QEMU, L1's kernel or `lsvmbus` has to be fetched and that fails. Other kernels are [missing](Software::kernel).
    pub(crate) fn obtain(folder: &Path, wanted: &Wanted, progress: &Progress) -> Result<Self> {
        let stamp = folder.join("software.json");
        let text = fs::read_to_string(&stamp).ok().filter(|_| !wanted.update);
        let known = text.and_then(|text| serde_json::from_str::<Self>(&text).ok()).filter(Self::is_there);
        let mut fetcher = Fetcher { folder, progress, archive: None, base: None };
        let mut software = match known {
            Some(known) => known,
            None => fetcher.software()?,
        };
        for kernel in std::iter::once(Kernel::V6_12).chain(wanted.kernels.iter().copied()) {
            if software.kernels.contains_key(&kernel) {
                continue;
            }
            match fetcher.kernel(kernel) {
                Ok(files) => drop(software.kernels.insert(kernel, files)),
                Err(error) if kernel == Kernel::V6_12 || error.is::<Interrupted>() => return Err(error),
                Err(error) => {
                    progress.say(format!("no kernel {kernel}: {error:#}"));
                    software.missing.insert(kernel, format!("{error:#}"));
                }
            }
        }
        if wanted.lsvmbus && software.lsvmbus.is_none() {
            software.lsvmbus = Some(fetcher.lsvmbus(&software.file(BUSYBOX))?);
        }
        fs::write(&stamp, serde_json::to_vec_pretty(&software)?).context("write the list of software")?;
        software.remove_others(folder)?;
        Ok(software)
    }

    fn is_there(&self) -> bool {
        let folders =
            self.kernels.values().map(|kernel| &kernel.root).chain(self.lsvmbus.iter().map(|lsvmbus| &lsvmbus.root));
        self.root.is_dir() && folders.into_iter().all(|folder| folder.is_dir())
    }

    /// Removes what earlier sets of packages were unpacked to.
    fn remove_others(&self, folder: &Path) -> Result<()> {
        let kernels = self.kernels.values().map(|kernel| &kernel.root);
        let used: Vec<&PathBuf> = std::iter::once(&self.root)
            .chain(kernels)
            .chain(self.lsvmbus.iter().map(|lsvmbus| &lsvmbus.root))
            .collect();
        for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("root-") && !used.contains(&&path) {
                fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// A kernel's files; else why there are none.
    pub(crate) fn kernel(&self, kernel: Kernel) -> Result<&KernelFiles, String> {
        self.kernels.get(&kernel).ok_or_else(|| {
            self.missing.get(&kernel).cloned().unwrap_or_else(|| format!("kernel {kernel} was not fetched"))
        })
    }

    /// The newest of several kernels, the first one if none is there.
    pub(crate) fn newest(&self, among: &[Kernel]) -> Kernel {
        let mut there = among.iter().filter_map(|kernel| Some((*kernel, self.kernels.get(kernel)?)));
        let first = there.next();
        let newest = there.fold(first, |best, found| match best {
            Some(best) if !apt::newer(&found.1.version, &best.1.version) => Some(best),
            _ => Some(found),
        });
        newest.map(|(kernel, _)| kernel).or(among.first().copied()).unwrap_or(Kernel::Sid)
    }

    /// Python and `lsvmbus`.
    ///
    /// # Errors
    /// They were not wanted.
    pub(crate) fn lsvmbus(&self) -> Result<&Lsvmbus> {
        self.lsvmbus.as_ref().context("lsvmbus was not fetched")
    }

    /// A file of the packages, by its path below `/`.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Command line that runs the fetched QEMU with the fetched libraries and firmware.
    pub(crate) fn qemu(&self) -> Command {
        let mut command = dynamic(&self.root, "usr/bin/qemu-system-x86_64", &[]);
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
        libraries(&self.root, "usr/bin/qemu-system-x86_64")
    }
}

/// Command line that runs a program below `root` with the libraries there.
fn dynamic(root: &Path, program: &str, loader_options: &[&str]) -> Command {
    let mut path = root.join("lib/x86_64-linux-gnu").into_os_string();
    path.push(":");
    path.push(root.join("usr/lib/x86_64-linux-gnu"));
    let mut command = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(path).args(loader_options).arg(root.join(program));
    command
}

/// Every library that a program below `root` loads, the dynamic loader included: file names to paths.
fn libraries(root: &Path, program: &str) -> Result<BTreeMap<String, PathBuf>> {
    let listing = process::output(&dynamic(root, program, &["--list"]))?;
    let mut libraries = BTreeMap::new();
    for line in String::from_utf8_lossy(&listing).lines() {
        let Some((name, found)) = line.trim().split_once(" => ") else { continue };
        let path = found.split(" (").next().unwrap_or(found);
        if path == "not found" {
            bail!("{program}'s library {name} is in none of the fetched packages");
        }
        let name = name.rsplit('/').next().unwrap_or(name);
        libraries.insert(name.to_owned(), PathBuf::from(path));
    }
    Ok(libraries)
}

/// Fetches; its lists of packages are as fresh as this.
#[derive(Debug)]
struct Fetcher<'a> {
    folder: &'a Path,
    progress: &'a Progress,
    archive: Option<Archive>,
    base: Option<Apt>,
}

impl Fetcher<'_> {
    /// QEMU, its firmware and busybox; no kernel yet.
    fn software(&mut self) -> Result<Software> {
        let files: BTreeSet<Planned> = self.base()?.closure(&PACKAGES)?.into_iter().collect();
        let versions = files.iter().filter_map(|file| file.package_and_version().ok());
        let versions = versions.filter(|(package, _)| PACKAGES.contains(&package.as_str())).collect();
        let root = self.unpack(&files)?;
        Ok(Software { root, versions, kernels: BTreeMap::new(), lsvmbus: None, missing: BTreeMap::new() })
    }

    /// apt on the lab's own release.
    fn base(&mut self) -> Result<&Apt> {
        if self.base.is_none() {
            let _task = self.progress.task("looking up packages on Debian's archive");
            let (folder, archive) = (self.folder.join("apt"), self.archive()?);
            self.base = Some(Apt::update(folder, &archive, &Suites::release(RELEASE), None)?);
        }
        self.base.as_ref().context("no package lists")
    }

    /// The archives that this machine's own apt sources name.
    fn archive(&mut self) -> Result<Archive> {
        if self.archive.is_none() {
            self.archive = Some(Archive::choose(&sources::read(Path::new("/etc/apt"))?)?);
        }
        self.archive.clone().context("no archive")
    }

    /// Fetches files of the lab's own release and unpacks them.
    fn unpack(&mut self, files: &BTreeSet<Planned>) -> Result<PathBuf> {
        let (folder, progress) = (self.folder, self.progress);
        let apt = self.base()?;
        apt.download(files, progress)?;
        unpack(folder, &apt.archives(), files, progress)
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
