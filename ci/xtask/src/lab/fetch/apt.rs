//! apt with a configuration, state and cache of its own: it resolves, downloads, checks signatures and hashes, and
//! knows nothing of what is installed on this machine. Nothing here needs or uses the superuser.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::sources::{Archive, Suites};
use crate::lab::progress::Progress;
use crate::process::{self, Guarded};

/// Where packages come from if they are in there.
const BACKPORTS: &str = "bookworm-backports";

/// A folder with apt's configuration, lists and archives.
#[derive(Debug)]
pub(crate) struct Apt {
    folder: PathBuf,
}

/// A package file that apt plans to fetch or has in its archives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Planned {
    /// Name in the archives folder: package, version and architecture.
    pub(crate) file: String,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// Its SHA-256 according to the signed lists, in hexadecimal.
    sha256: String,
}

impl Apt {
    /// Writes the configuration from the machine's own sources and connection settings, and fetches the lists of these
    /// suites. `keyring` takes the place of the keys that the machine's own sources trust.
    ///
    /// # Errors
    /// The folder cannot be written, or apt fails; its message is passed on.
    pub(crate) fn update(folder: PathBuf, archive: &Archive, suites: &Suites, keyring: Option<&Path>) -> Result<Self> {
        for part in ["etc/sources", "state/lists/partial", "archives/partial", "none/partial", "cache", "log"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
        }
        fs::write(folder.join("status"), "").context("write an empty package status")?;
        fs::write(folder.join("etc/sources/lab.sources"), archive.render(suites, keyring))
            .context("write apt sources")?;
        let connection = process::output(Command::new("apt-config").arg("dump")).context("is apt installed?")?;
        fs::write(folder.join("apt.conf"), configuration(&folder, &String::from_utf8_lossy(&connection)))
            .context("write apt.conf")?;
        let apt = Self { folder };
        // By itself apt goes on with older lists where new ones can't be had or can't be trusted.
        let strict = "APT::Update::Error-Mode=any";
        apt.output("apt-get", &["update", "-o", strict])
            .context("fetch the package lists (is this machine online?)")?;
        Ok(apt)
    }

    /// The newest kernel image for cloud machines that the suites have, of a series (`6.12`) or of any: package and
    /// version.
    ///
    /// # Errors
    /// There is none, or apt fails.
    pub(crate) fn kernel(&self, series: Option<&str>) -> Result<(String, String)> {
        let mut best: Option<(String, String)> = None;
        let of_series = series.map(|series| format!("linux-image-{series}-cloud-amd64"));
        for meta in ["linux-image-cloud-amd64".to_owned()].into_iter().chain(of_series) {
            let Ok(stanzas) = self.output("apt-cache", &["show", &meta]) else { continue };
            for found in kernels(&String::from_utf8_lossy(&stanzas), series) {
                if best.as_ref().is_none_or(|best| newer(&found.1, &best.1)) {
                    best = Some(found);
                }
            }
        }
        best.with_context(|| format!("no suite here has a {} kernel for cloud machines", series.unwrap_or("signed")))
    }

    /// The files that make up a kernel: its image and, since 6.16 or so, the packages that this one is split into.
    ///
    /// # Errors
    /// There is no such version.
    pub(crate) fn kernel_files(&self, image: &(String, String)) -> Result<Vec<Planned>> {
        let (package, version) = image;
        let stanza = self.output("apt-cache", &["show", &format!("{package}={version}")])?;
        let parts = parts(&String::from_utf8_lossy(&stanza), version);
        std::iter::once(package.clone()).chain(parts).map(|part| self.single(&(part, version.clone()))).collect()
    }

    /// What it takes to run `packages`, dependencies included, beginning from nothing.
    ///
    /// # Errors
    /// apt cannot resolve them.
    pub(crate) fn closure(&self, packages: &[&str]) -> Result<Vec<Planned>> {
        let none = format!("Dir::Cache::archives={}", self.folder.join("none").display());
        let mut arguments = vec!["install", "--yes", "--print-uris", "-o", &none];
        arguments.extend(["--target-release", BACKPORTS, "--no-install-recommends"]);
        arguments.extend(packages);
        let plan = self.output("apt-get", &arguments).with_context(|| format!("resolve {packages:?}"))?;
        planned(&String::from_utf8_lossy(&plan))
    }

    /// The version of a package that apt would take, as a pair with its name.
    ///
    /// # Errors
    /// There is no such package.
    pub(crate) fn newest(&self, package: &str) -> Result<(String, String)> {
        let policy = self.output("apt-cache", &["policy", package])?;
        let candidate = candidate(&String::from_utf8_lossy(&policy));
        let candidate = candidate.with_context(|| format!("no suite here has a package {package}"))?;
        Ok((package.to_owned(), candidate))
    }

    /// The file of one package in one version, without dependencies.
    ///
    /// # Errors
    /// There is no such version.
    pub(crate) fn single(&self, (package, version): &(String, String)) -> Result<Planned> {
        let wanted = format!("{package}={version}");
        let plan = self.output("apt-get", &["download", "--print-uris", &wanted])?;
        planned(&String::from_utf8_lossy(&plan))?.pop().with_context(|| format!("no file for {wanted}"))
    }

    /// Fetches what of `files` is not in the archives yet, or is not as the signed lists say.
    ///
    /// # Errors
    /// A download fails or a hash is wrong.
    pub(crate) fn download(&self, files: &BTreeSet<Planned>, progress: &Progress) -> Result<()> {
        let archives = self.archives();
        let missing = self.missing(files)?;
        if missing.is_empty() {
            return Ok(());
        }
        // apt takes a file of the right size for the right file, so what is wrong has to go.
        for file in missing.iter().map(|file| archives.join(&file.file)).filter(|path| path.exists()) {
            fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        }
        let bar =
            progress.bytes(format!("fetching {} packages", missing.len()), missing.iter().map(|file| file.bytes).sum());
        let mut command = self.command("apt-get");
        command.current_dir(&archives).arg("download");
        for file in &missing {
            let (package, version) = file.package_and_version()?;
            command.arg(format!("{package}={version}"));
        }
        let log = self.folder.join("log/download");
        let output = fs::File::create(&log).with_context(|| log.display().to_string())?;
        let mut child = Guarded::spawn_with(&command, output.try_clone()?.into(), output.into())?;
        let status = loop {
            if let Some(status) = child.wait(Duration::from_millis(200))? {
                break status;
            }
            bar.reached(missing.iter().map(|file| present(&archives, &file.file)).sum());
        };
        if !status.success() {
            bail!("fetching packages failed: {}", fs::read_to_string(&log).unwrap_or_default().trim());
        }
        match self.missing(files)?.first() {
            Some(file) => bail!("{} is not what the archive's signed list says", file.file),
            None => Ok(()),
        }
    }

    /// Those of `files` that are not in the archives with the right content.
    fn missing<'a>(&self, files: &'a BTreeSet<Planned>) -> Result<Vec<&'a Planned>> {
        let archives = self.archives();
        let mut command = Command::new("sha256sum");
        command.current_dir(&archives).args(["--binary", "--"]);
        command.args(files.iter().map(|file| &file.file).filter(|file| archives.join(file).exists()));
        let sums = if command.get_args().count() > 2 { process::output(&command)? } else { Vec::new() };
        let sums = String::from_utf8_lossy(&sums);
        let good: BTreeSet<(&str, &str)> = sums.lines().filter_map(|line| line.split_once(" *")).collect();
        Ok(files.iter().filter(|file| !good.contains(&(file.sha256.as_str(), file.file.as_str()))).collect())
    }

    /// Folder of the package files.
    pub(crate) fn archives(&self) -> PathBuf {
        self.folder.join("archives")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    fn output(&self, program: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        process::output(self.command(program).args(arguments))
    }
}

impl Planned {
    /// Package and version, from the file's name (where a colon is written `%3a`).
    ///
    /// # Errors
    /// The name has another form.
    pub(crate) fn package_and_version(&self) -> Result<(String, String)> {
        let mut parts = self.file.split('_');
        match (parts.next(), parts.next()) {
            (Some(package), Some(version)) => Ok((package.to_owned(), version.replace("%3a", ":"))),
            _ => bail!("{} is not the name of a package file", self.file),
        }
    }
}

fn present(archives: &Path, file: &str) -> u64 {
    let done = fs::metadata(archives.join(file));
    done.or_else(|_| fs::metadata(archives.join("partial").join(file))).map_or(0, |metadata| metadata.len())
}

/// apt.conf(5) of the lab: everything below `folder`, keys and connection settings of the machine.
fn configuration(folder: &Path, machine: &str) -> String {
    let folder = folder.display();
    let connection = ["Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries", "Acquire::ForceIPv"];
    let kept = machine.lines().filter(|line| connection.iter().any(|prefix| line.starts_with(prefix)));
    let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
    format!(
        "{kept}\
         Dir::Etc \"{folder}/etc\";\n\
         Dir::Etc::main \"/dev/null\";\n\
         Dir::Etc::parts \"/dev/null\";\n\
         Dir::Etc::sourcelist \"/dev/null\";\n\
         Dir::Etc::sourceparts \"{folder}/etc/sources\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\n\
         Dir::Etc::netrc \"/etc/apt/auth.conf\";\n\
         Dir::Etc::netrcparts \"/etc/apt/auth.conf.d\";\n\
         Dir::Etc::trusted \"/etc/apt/trusted.gpg\";\n\
         Dir::Etc::trustedparts \"/etc/apt/trusted.gpg.d\";\n\
         Dir::State \"{folder}/state\";\n\
         Dir::State::status \"{folder}/status\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         Dir::Cache::archives \"{folder}/archives\";\n\
         Dir::Log \"{folder}/log\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures {{ \"amd64\"; }};\n\
         APT::Install-Recommends \"false\";\n\
         APT::Sandbox::User \"\";\n\
         Acquire::ForceHash \"SHA256\";\n\
         Acquire::Languages \"none\";\n"
    )
}

/// Files of `--print-uris`: lines of quoted address, file name, size and hash.
fn planned(plan: &str) -> Result<Vec<Planned>> {
    let lines = plan.lines().filter(|line| line.starts_with('\''));
    let parse = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let file = words.next()?.to_owned();
        let bytes = words.next()?.parse().ok()?;
        let sha256 = words.next()?.strip_prefix("SHA256:")?.to_owned();
        Some(Planned { file, bytes, sha256 })
    };
    lines.map(|line| parse(line).with_context(|| format!("apt's plan has an odd line: {line}"))).collect()
}

/// Image packages (of a series, if one is asked for) that a kernel metapackage depends on, in each of its versions.
fn kernels(stanzas: &str, series: Option<&str>) -> Vec<(String, String)> {
    let images = dependencies(stanzas).filter_map(|(package, version)| {
        let release = package.strip_prefix("linux-image-")?;
        let fits = series.is_none_or(|series| release.strip_prefix(series).is_some_and(|rest| rest.starts_with('.')));
        (fits && release.ends_with("-cloud-amd64")).then(|| (package.to_owned(), version.to_owned()))
    });
    images.collect()
}

/// The packages that an image of this version is split into.
fn parts(stanza: &str, version: &str) -> Vec<String> {
    let part =
        |package: &str| ["linux-binary-", "linux-modules-", "linux-base-"].iter().any(|p| package.starts_with(p));
    let parts = dependencies(stanza).filter(|(package, of)| *of == version && part(package));
    parts.map(|(package, _)| package.to_owned()).collect()
}

/// Dependencies on one exact version each: package and version.
fn dependencies(stanzas: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = stanzas.lines().filter_map(|line| line.strip_prefix("Depends: "));
    lines.flat_map(|line| line.split(", ")).filter_map(|one| one.strip_suffix(')')?.split_once(" (= "))
}

/// The candidate in what `apt-cache policy` says of one package.
fn candidate(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Whether a package version is newer than another.
pub(crate) fn newer(left: &str, right: &str) -> bool {
    process::output(Command::new("dpkg").args(["--compare-versions", left, "gt", right])).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{Planned, candidate, kernels, parts, planned};

    #[test]
    fn a_plan_names_files_and_sizes() {
        let plan = "Reading...\n'http://mirror.example/a.deb' q_1%3a10.0-2_amd64.deb 123 SHA256:00ff\n";
        let files = planned(plan).unwrap();
        let expected = ("q_1%3a10.0-2_amd64.deb".to_owned(), 123, "00ff".to_owned());
        assert_eq!(files, [Planned { file: expected.0, bytes: expected.1, sha256: expected.2 }]);
        assert_eq!(files[0].package_and_version().unwrap(), ("q".to_owned(), "1:10.0-2".to_owned()));
    }

    #[test]
    fn kernels_are_told_by_series() {
        let stanzas = "Version: 6.12.95-1\nDepends: linux-image-6.12.95+deb12-cloud-amd64 (= 6.12.95-1)\n\n\
                       Version: 6.1.192-2\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        let new = [("linux-image-6.12.95+deb12-cloud-amd64".to_owned(), "6.12.95-1".to_owned())];
        let old = [("linux-image-6.1.0-56-cloud-amd64".to_owned(), "6.1.192-2".to_owned())];
        assert_eq!(kernels(stanzas, Some("6.12")), new);
        assert_eq!(kernels(stanzas, Some("6.1")), old);
        assert_eq!(kernels(stanzas, None), [new, old].concat());
    }

    #[test]
    fn a_kernel_that_is_split_has_parts() {
        let stanza = "Package: linux-image-7.2.13+deb14-cloud-amd64\nDepends: dracut | initramfs-tools (>= 0.120), \
                      linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-binary-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), \
                      linux-modules-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), kmod (= 34)\n";
        let names =
            ["linux-base-", "linux-binary-", "linux-modules-"].map(|name| format!("{name}7.2.13+deb14-cloud-amd64"));
        assert_eq!(parts(stanza, "7.2.13-1"), names);
        assert!(parts("Depends: kmod, initramfs-tools (>= 0.120)\n", "6.12.107-1").is_empty());
    }

    #[test]
    fn a_package_that_nobody_has_has_no_candidate() {
        assert_eq!(candidate("a:\n  Installed: (none)\n  Candidate: 1:2-3\n"), Some("1:2-3".to_owned()));
        assert_eq!(candidate("a:\n  Installed: (none)\n  Candidate: (none)\n"), None);
    }
}
