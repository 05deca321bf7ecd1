//! Kernel bugs that a VMBus driver in user space meets, with the releases that have them.
//!
//! Sources: the kernel's stable change logs and CVE announcements, Debian's kernel change log and bug 1120602, and the
//! stable review mails of November and December 2025. A row says where each range comes from.

use super::finding::Severity;
use crate::kernel::{Kernel, Precision, Version};

/// When a bug can bite at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// On every machine with VMBus.
    Always,
    /// Only in a confidential VM (SEV-SNP, TDX), whose memory has to be re-encrypted before it is freed.
    ConfidentialVm,
    /// Only where the system page is not 4 KiB.
    LargePages,
    /// Only for devices that open subchannels: network and storage adapters.
    Subchannels,
    /// Only where the guest file copy device is offered.
    FileCopy,
    /// Only where user space has a device.
    InUserSpace,
}

/// The part of one stable series that has a bug: from `introduced` up to, but not including, `fixed`.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// The first bad release of the series.
    pub introduced: Version,
    /// The first good release after it.
    pub fixed: Version,
}

/// One bug.
#[derive(Clone, Copy, Debug)]
pub struct KnownBug {
    /// The finding's stable name.
    pub id: &'static str,
    /// What goes wrong, in one line.
    pub title: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do, besides running a fixed kernel.
    pub workaround: &'static str,
    /// CVE, commit or bug number.
    pub references: &'static [&'static str],
    /// How bad it is on a kernel that certainly has it.
    pub severity: Severity,
    /// Where it matters.
    pub applies: Applies,
    /// The mainline releases that have it: first bad, first good. `None`: only backports brought it.
    pub mainline: Option<(Version, Version)>,
    /// Stable series that differ from what `mainline` says.
    pub stable: &'static [Series],
    /// From this mainline release on a kernel can't have it, whatever its vendor did.
    pub gone_since: Version,
}

/// What a version says about a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel does not have the bug.
    Clear,
    /// The kernel's version does not settle it.
    Possible,
    /// The kernel has the bug.
    Affected,
}

impl KnownBug {
    /// Judges a kernel.
    #[must_use]
    pub fn verdict(&self, kernel: &Kernel) -> Verdict {
        let Some(version) = kernel.version else { return Verdict::Possible };
        if version >= self.gone_since {
            return Verdict::Clear;
        }
        let series = self.stable.iter().find(|series| series.fixed.same_series(version));
        let bad = match (series, self.mainline) {
            (Some(series), _) => series.introduced <= version && version < series.fixed,
            (None, Some((since, fixed))) => since <= version && version < fixed,
            (None, None) => false,
        };
        match (kernel.precision, bad) {
            (Precision::Exact, true) => Verdict::Affected,
            (Precision::Exact, false) => Verdict::Clear,
            // Inside the series but at an unknown patch level: only a series that changed its mind is in doubt.
            (Precision::Series, bad) => match (series, bad) {
                (Some(_), _) => Verdict::Possible,
                (None, true) => Verdict::Affected,
                (None, false) => Verdict::Clear,
            },
            // A vendor may have taken the bug in or the fix: a good patch level clears it, nothing convicts it.
            (Precision::Vendor, true) => Verdict::Possible,
            (Precision::Vendor, false) => match series {
                Some(series) if version >= series.fixed => Verdict::Clear,
                _ => Verdict::Possible,
            },
        }
    }

    /// The release to run instead of `kernel`: of its own series where that has a fix, else the mainline one; none that is
    /// known.
    #[must_use]
    pub fn fixed_in(&self, kernel: &Kernel) -> Option<Version> {
        let version = kernel
            .version
            .and_then(|version| self.stable.iter().find(|series| series.fixed.same_series(version)))
            .map_or(self.gone_since, |series| series.fixed);
        (version < NOT_YET).then_some(version)
    }
}

/// Where a fix would be, of which nothing is known: later than all releases.
pub(super) const NOT_YET: Version = Version::new(u32::MAX, 0, 0);

const fn v(major: u32, minor: u32, patch: u32) -> Version {
    Version::new(major, minor, patch)
}

/// Bad from the start of the series (or of time) until `fixed`.
const fn until(fixed: Version) -> Series {
    Series { introduced: Version::new(0, 0, 0), fixed }
}

const fn between(introduced: Version, fixed: Version) -> Series {
    Series { introduced, fixed }
}

/// Every bug the doctor knows.
pub const KNOWN_BUGS: &[KnownBug] = &[
    KnownBug {
        id: "subchannel-interrupt-panic",
        title: "an interrupt on a subchannel panics the kernel",
        meaning: "uio_hv_generic leaves the interrupts of subchannels unmasked, but its handler looks up the device \
                  of the primary channel only and dereferences a null pointer: the first packet on a subchannel takes \
                  the machine down.",
        workaround: "until then do not open subchannels (one queue per network adapter)",
        references: &["Debian bug 1120602", "b15b7d2a1b09 without d062463edf17"],
        severity: Severity::Failure,
        applies: Applies::Subchannels,
        mainline: None,
        // Introduced: the releases into which b15b7d2a1b09 went. Fixed: review mails of 21 and 27 November (6.12.59,
        // 6.6.118) and 1 and 3 December 2025; 6.1.159 also in Debian's change log.
        stable: &[
            between(v(5, 4, 301), v(5, 4, 302)),
            between(v(5, 10, 246), v(5, 10, 247)),
            between(v(5, 15, 195), v(5, 15, 197)),
            between(v(6, 1, 156), v(6, 1, 159)),
            between(v(6, 6, 112), v(6, 6, 118)),
            between(v(6, 12, 53), v(6, 12, 59)),
        ],
        gone_since: v(6, 15, 0),
    },
    KnownBug {
        id: "cve-2024-46739",
        title: "a rescinded device crashes the kernel, or never comes back",
        meaning: "When the host takes a device away, hv_uio_rescind may dereference a null pointer; where it does \
                  not, the device is never unregistered, its relid never released, and the host cannot offer it again.",
        workaround: "until then unbind the device before the host removes it",
        references: &["CVE-2024-46739", "fb1adbd7e50f", "6fd28941447b"],
        severity: Severity::Failure,
        applies: Applies::Always,
        mainline: Some((v(4, 18, 0), v(6, 11, 0))),
        // Both fixes went out together, in the stable releases of 12 September 2024.
        stable: &[
            until(v(4, 19, 322)),
            until(v(5, 4, 284)),
            until(v(5, 10, 226)),
            until(v(5, 15, 167)),
            until(v(6, 1, 110)),
            until(v(6, 6, 51)),
            until(v(6, 10, 10)),
        ],
        gone_since: v(6, 11, 0),
    },
    KnownBug {
        id: "rescind-behind-unbind",
        title: "a device that was used in user space, unbound and then rescinded crashes the kernel",
        meaning: "uio_hv_generic registers its rescind callback with a channel when the device is opened, and leaves it \
                  there when the device is unbound. When the host takes the device away later, whichever driver has \
                  it then, the callback reads that driver's data as its own, or a null pointer.",
        workaround: "leave a device that was opened with uio_hv_generic until the next reboot, unless the host keeps it",
        references: &["ca3cda6fcf1e", "hv_uio_rescind in drivers/uio/uio_hv_generic.c of 6.12.117"],
        severity: Severity::Warning,
        applies: Applies::InUserSpace,
        // Seen on 6.12.117. The release of the commit that brought the callback, to the last that was looked at.
        mainline: Some((v(4, 20, 0), NOT_YET)),
        stable: &[],
        gone_since: NOT_YET,
    },
    KnownBug {
        id: "cve-2024-36910",
        title: "decrypted pages go back to the kernel's free memory",
        meaning: "In a confidential VM, buffers that could not be encrypted again are freed while the host can still \
                  read and write them; whatever the kernel puts there next is exposed.",
        workaround: "until then do not bind devices to uio_hv_generic in this VM",
        references: &["CVE-2024-36910", "CVE-2024-36909"],
        severity: Severity::Failure,
        applies: Applies::ConfidentialVm,
        mainline: Some((v(4, 16, 0), v(6, 9, 0))),
        stable: &[until(v(6, 1, 91)), until(v(6, 6, 31)), until(v(6, 8, 10))],
        gone_since: v(6, 9, 0),
    },
    KnownBug {
        id: "uio-page-size",
        title: "rings and pages are mapped with the wrong size",
        meaning: "On systems whose page is not 4 KiB, uio_hv_generic reports ring, interrupt-page and monitor-page \
                  sizes that do not match what it allocated: mapping them fails or reaches past them.",
        workaround: "until then run a kernel built with 4 KiB pages",
        references: &["0315fef2", "c951ab8f", "09eea7ad"],
        severity: Severity::Failure,
        applies: Applies::LargePages,
        mainline: Some((v(4, 16, 0), v(6, 16, 0))),
        // 6.1.143 is in Debian's change log; the others are the releases of the same two weeks (June and July 2025).
        stable: &[until(v(6, 1, 143)), until(v(6, 6, 96)), until(v(6, 12, 36)), until(v(6, 15, 5))],
        gone_since: v(6, 16, 0),
    },
    KnownBug {
        id: "interrupt-mask-race",
        title: "the kernel masks interrupts behind the driver's back",
        meaning: "Up to this release uio_hv_generic sets the ring's interrupt mask after each interrupt, which can \
                  swallow a wake-up. The drivers here mask, unmask and look again themselves and work with either; \
                  others may hang.",
        workaround: "",
        references: &["b15b7d2a1b09"],
        severity: Severity::Note,
        applies: Applies::Always,
        mainline: Some((v(4, 16, 0), v(6, 18, 0))),
        stable: &[
            until(v(5, 4, 301)),
            until(v(5, 10, 246)),
            until(v(5, 15, 195)),
            until(v(6, 1, 156)),
            until(v(6, 6, 112)),
            until(v(6, 12, 53)),
            until(v(6, 17, 3)),
        ],
        gone_since: v(6, 18, 0),
    },
    KnownBug {
        id: "fcopy-ring-size",
        title: "the guest file copy device has small rings",
        meaning: "Since 6.10 the ring size follows the device class (16 KiB and a header for file copy). Programs \
                  with a hard-coded size, such as older hv_fcopy_uio_daemon builds, fail to map it; read the size \
                  from sysfs.",
        workaround: "use a hv_fcopy_uio_daemon of July 2025 or later",
        references: &["547fa4ff", "a4131a50d072"],
        severity: Severity::Note,
        applies: Applies::FileCopy,
        mainline: Some((v(6, 10, 0), v(6, 16, 0))),
        stable: &[],
        gone_since: v(6, 16, 0),
    },
];
