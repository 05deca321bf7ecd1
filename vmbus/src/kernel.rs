//! Which kernel runs, and how far its version number can be trusted.
//!
//! A distribution's release string often hides the stable release it is built from (`6.1.0-56-cloud-amd64` is 6.1.192)
//! or names one to which hundreds of fixes were added (`5.14.0-503.el9`): [`Precision`] keeps the two apart.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::sysfs::Bus;

/// A version of the mainline or stable kernel: `major.minor.patch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 6 in 6.12.117.
    pub major: u32,
    /// 12 in 6.12.117.
    pub minor: u32,
    /// 117 in 6.12.117, 0 for a mainline release.
    pub patch: u32,
}

impl Version {
    /// The version `major.minor.patch`.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads the version at the front of `text`; whatever follows the numbers is left alone.
    ///
    /// ```
    /// use vmbus::kernel::Version;
    /// assert_eq!(Version::parse("6.12.117-1~deb12u1"), Some(Version::new(6, 12, 117)));
    /// assert_eq!(Version::parse("6.18"), Some(Version::new(6, 18, 0)));
    /// assert_eq!(Version::parse("trixie"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let major = leading_number(parts.next()?)?;
        let minor = leading_number(parts.next()?)?;
        let patch = parts.next().and_then(leading_number).unwrap_or(0);
        Some(Self { major, minor, patch })
    }

    /// Whether both belong to one stable series (6.12.1 and 6.12.117 do).
    #[must_use]
    pub const fn same_series(self, other: Self) -> bool {
        self.major == other.major && self.minor == other.minor
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.patch == 0 {
            write!(formatter, "{}.{}", self.major, self.minor)
        } else {
            write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
        }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the version number says about the fixes in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Built from exactly this stable release (or a distribution's that follows it closely).
    Exact,
    /// The stable series is known, the patch level is not.
    Series,
    /// A vendor's kernel: the number is where it branched off; fixes and features were added since.
    Vendor,
}

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// What `uname -r` prints: `6.12.117+deb12-cloud-amd64`.
    pub release: String,
    /// The distribution's package version, where the kernel tells it: `6.12.117-1~deb12u1`.
    pub package: Option<String>,
    /// The upstream version it is built from; `None` when the release string has no number.
    pub version: Option<Version>,
    /// How far `version` can be trusted.
    pub precision: Precision,
}

impl Kernel {
    /// The kernel below the root of `bus`; unknown where its files can't be read.
    #[must_use]
    pub fn running(bus: &Bus) -> Self {
        let text = |path| std::fs::read_to_string(bus.path(path)).unwrap_or_default();
        Self::identify(&text("proc/sys/kernel/osrelease"), &text("proc/version"), &text("proc/version_signature"))
    }

    /// Whether it withdraws a channel's sysfs `ring` file, and with that every mapping of it, before it frees the
    /// ring. Commit f31fe8165d36 (6.15, and 6.12's stable series in 2025) does; `false` where that is not certain.
    #[must_use]
    pub fn withdraws_ring_files(&self) -> bool {
        /// A patch level of 6.12 that has it for certain; the exact one was not found out.
        const STABLE: Version = Version::new(6, 12, 60);
        self.version.is_some_and(|version| {
            let backported = self.precision == Precision::Exact && version.same_series(STABLE) && version >= STABLE;
            version >= Version::new(6, 15, 0) || backported
        })
    }

    /// Works out the kernel from the texts of `/proc/sys/kernel/osrelease`, `/proc/version` and (Ubuntu only)
    /// `/proc/version_signature`. Missing files are empty strings.
    #[must_use]
    pub fn identify(release: &str, banner: &str, signature: &str) -> Self {
        let release = release.trim().to_owned();
        let named = Version::parse(&release);
        // Ubuntu: "Ubuntu 6.8.0-1018.21-azure 6.8.12": the third word is the stable release it contains.
        let mut words = signature.split_whitespace();
        if let (Some(_), Some(package), Some(version)) =
            (words.next(), words.next(), words.next().and_then(Version::parse))
        {
            return Self {
                release,
                package: Some(package.to_owned()),
                version: Some(version),
                precision: Precision::Vendor,
            };
        }
        // Debian: "Linux version 6.1.0-56-cloud-amd64 (...) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)".
        if let Some(package) = word_after(banner, "Debian")
            && let Some(version) = Version::parse(package)
        {
            return Self {
                release,
                package: Some(package.to_owned()),
                version: Some(version),
                precision: Precision::Exact,
            };
        }
        let precision = precision_of(&release, named);
        Self { release, package: None, version: named, precision }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.release.is_empty() { "unknown" } else { &self.release })?;
        match (&self.package, self.version) {
            (Some(package), Some(version)) if !package.starts_with(&version.to_string()) => {
                write!(formatter, " (package {package}, Linux {version})")
            }
            (Some(package), _) => write!(formatter, " (package {package})"),
            (None, _) => Ok(()),
        }
    }
}

/// Judges a release string for which no package version is known.
fn precision_of(release: &str, version: Option<Version>) -> Precision {
    let Some(version) = version else { return Precision::Vendor };
    let suffix = release.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let vendor = [".el", ".ol", ".amzn", ".azl", ".cm2", ".oe", ".an", ".tl"].iter().any(|mark| suffix.contains(mark));
    // "6.4.0-150600.23.7-default" (SUSE) and "6.8.0-45-generic" (Ubuntu) number their own releases after a fixed ".0".
    let own_numbering = version.patch == 0 && suffix.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
    if vendor || (own_numbering && !suffix.contains("-amd64") && !suffix.contains("-arm64")) {
        Precision::Vendor
    } else if own_numbering || suffix.starts_with("-rc") {
        Precision::Series
    } else {
        Precision::Exact
    }
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

/// The word that follows `marker` in `text`, where `marker` is a whole word.
fn word_after<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    let mut words = text.split_whitespace();
    words.find(|word| *word == marker)?;
    words.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identify(release: &str, banner: &str, signature: &str) -> (Option<Version>, Precision) {
        let kernel = Kernel::identify(release, banner, signature);
        (kernel.version, kernel.precision)
    }

    #[test]
    fn debian_kernels_are_known_to_the_patch_level() {
        let banner = "Linux version 6.12.117+deb12-cloud-amd64 (builder@example.org) (gcc 12) #1 SMP \
                      PREEMPT_DYNAMIC Debian 6.12.117-1~deb12u1 (2026-11-14)";
        let kernel = Kernel::identify("6.12.117+deb12-cloud-amd64\n", banner, "");
        assert_eq!((kernel.version, kernel.precision), (Some(Version::new(6, 12, 117)), Precision::Exact));
        assert_eq!(kernel.to_string(), "6.12.117+deb12-cloud-amd64 (package 6.12.117-1~deb12u1)");
        let banner = "Linux version 6.1.0-56-cloud-amd64 (x) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)";
        assert_eq!(identify("6.1.0-56-cloud-amd64", banner, ""), (Some(Version::new(6, 1, 192)), Precision::Exact));
        // Without /proc/version only the series is certain.
        assert_eq!(identify("6.1.0-56-cloud-amd64", "", ""), (Some(Version::new(6, 1, 0)), Precision::Series));
    }

    #[test]
    fn only_a_certain_kernel_withdraws_ring_files() {
        let withdraws = |release: &str| Kernel::identify(release, "", "").withdraws_ring_files();
        for (release, expected) in [
            ("6.12.117+deb12-cloud-amd64", true),
            ("6.15.0", true),
            ("6.18.44", true),
            ("6.12.20", false),
            ("6.12.0-55.el10", false),
            ("6.14.9", false),
            ("6.1.192", false),
            ("mystery", false),
        ] {
            assert_eq!(withdraws(release), expected, "{release}");
        }
    }

    #[test]
    fn other_kernels_are_trusted_as_far_as_they_deserve() {
        let cases = [
            ("6.18.44", "", Some(Version::new(6, 18, 44)), Precision::Exact),
            ("6.6.87.2-microsoft-standard-WSL2", "", Some(Version::new(6, 6, 87)), Precision::Exact),
            ("6.11.5-300.fc41.x86_64", "", Some(Version::new(6, 11, 5)), Precision::Exact),
            ("6.18.0-rc3", "", Some(Version::new(6, 18, 0)), Precision::Series),
            ("5.14.0-503.11.1.el9_5.x86_64", "", Some(Version::new(5, 14, 0)), Precision::Vendor),
            ("6.4.0-150600.23.7-default", "", Some(Version::new(6, 4, 0)), Precision::Vendor),
            ("6.8.0-45-generic", "", Some(Version::new(6, 8, 0)), Precision::Vendor),
            ("6.8.0-1018-azure", "Ubuntu 6.8.0-1018.21-azure 6.8.12", Some(Version::new(6, 8, 12)), Precision::Vendor),
            ("6.6.47.1-1.azl3", "", Some(Version::new(6, 6, 47)), Precision::Vendor),
            ("mystery", "", None, Precision::Vendor),
            ("", "", None, Precision::Vendor),
        ];
        for (release, signature, version, precision) in cases {
            assert_eq!(identify(release, "", signature), (version, precision), "{release}");
        }
    }
}
