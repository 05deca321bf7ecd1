//! The checks of kernel, bus and devices. Each looks at [`Facts`] and says at least one thing.

use super::facts::{Facts, Module};
use super::finding::{Finding, Severity};
use super::known::{Applies, KNOWN_BUGS, KnownBug, Verdict};
use super::log::KernelLog;
use crate::bind::UIO_DRIVER;
use crate::class::Class;
use crate::kernel::{Precision, Version};
use crate::sysfs::{ChannelState, Device};

/// The first kernel whose uio_hv_generic takes channels without a monitor id.
const SLOW_CHANNELS_SINCE: Version = Version::new(6, 10, 0);
/// What that driver of an older kernel logs when it refuses one.
const REFUSAL: &str = "requires hypercall";

/// Whether there is a bus, and if not, why.
pub(super) fn bus(facts: &Facts) -> Vec<Finding> {
    if facts.bus {
        let mut findings = vec![match &facts.devices_error {
            None => Finding::ok("bus", format!("VMBus is there, with {}", devices(facts.devices.len()))),
            Some(error) => Finding::new("bus", Severity::Failure, "the devices on the bus cannot be listed")
                .meaning("Nothing can be said about the devices, and no command that needs one will work.")
                .fix("check that /sys is mounted and readable")
                .evidence(error),
        }];
        findings.extend(facts.broken.iter().map(|broken| {
            Finding::new("device", Severity::Warning, "a device on the bus cannot be read")
                .meaning("Its files hold something else than this program knows; no command can use it.")
                .fix("run `vmbusctl list -vv`, and report it with the kernel's version")
                .evidence(broken)
        }));
        return findings;
    }
    let finding = Finding::new("bus", Severity::Failure, "there is no VMBus: /sys/bus/vmbus/devices does not exist");
    let (meaning, fix) = match (facts.announced, facts.bus_module) {
        (_, Module::Available) => (
            "The bus driver hv_vmbus is on disk but not running. It does not load on a machine whose hypervisor is \
             not Hyper-V or does not imitate it.",
            "run `modprobe hv_vmbus`; if it answers \"No such device\", this is not a Hyper-V guest",
        ),
        (_, Module::Missing) => (
            "This kernel has no bus driver hv_vmbus.",
            "install the kernel's extra modules (linux-modules-extra-... on Ubuntu) or a kernel with CONFIG_HYPERV",
        ),
        (true, _) => (
            "The firmware announces a VMBus, but the bus driver hv_vmbus is not running.",
            "run `modprobe hv_vmbus` and look at `dmesg | grep -i -e hv_ -e hyper-v`",
        ),
        (false, _) => (
            "The firmware announces none either: this machine is not a guest of Hyper-V, Azure or a VMM that offers \
             VMBus.",
            "run this inside such a guest; under QEMU add `-device vmbus-bridge` and the hv-* CPU flags with `kvm=off`",
        ),
    };
    vec![finding.meaning(meaning).fix(fix)]
}

/// Whether devices can be handed to user space.
pub(super) fn uio_module(facts: &Facts) -> Vec<Finding> {
    // Where there is no bus, that comes first.
    if !facts.bus {
        return Vec::new();
    }
    let id = "module-uio-hv-generic";
    let finding = |severity| Finding::new(id, severity, format!("{UIO_DRIVER} is not loaded"));
    vec![match facts.uio_module {
        Module::Present => Finding::ok(id, format!("{UIO_DRIVER} is loaded")),
        Module::Available => finding(Severity::Warning)
            .meaning("No device can be handed to user space until it is; `vmbusctl bind` needs it.")
            .fix(
                "run `modprobe uio_hv_generic`; to have it at every boot, put the name in \
                  /etc/modules-load.d/vmbus.conf",
            ),
        Module::Missing => finding(Severity::Failure)
            .meaning("This kernel does not come with it: no device can be handed to user space.")
            .fix(
                "install the kernel's extra modules (linux-modules-extra-... on Ubuntu) or a kernel with \
                  CONFIG_UIO_HV_GENERIC",
            ),
        Module::Unknown => finding(Severity::Warning)
            .meaning("No device can be handed to user space until it is. The kernel's module list could not be read.")
            .fix("run `modprobe uio_hv_generic` where the kernel's modules are"),
    }]
}

/// The known bugs of this kernel.
pub(super) fn kernel(facts: &Facts) -> Vec<Finding> {
    let kernel = &facts.kernel;
    let mut findings: Vec<Finding> = KNOWN_BUGS.iter().filter_map(|bug| known_bug(facts, bug)).collect();
    let title = format!("Linux {kernel}");
    let bad = findings.iter().filter(|finding| finding.severity >= Severity::Warning).count();
    findings.push(match (kernel.version, kernel.precision) {
        (None, _) => Finding::new("kernel", Severity::Warning, format!("{title}: the version cannot be read"))
            .meaning("It was judged as if it might have every known bug.")
            .fix("compare the evidence of each finding with the change log of this kernel"),
        (Some(version), Precision::Vendor) => {
            Finding::new("kernel", Severity::Note, format!("{title} is a vendor's kernel, branched off {version}"))
                .meaning(
                    "Vendors add fixes without changing that number: what is said about known bugs is a possibility.",
                )
        }
        (Some(version), Precision::Series) => Finding::new(
            "kernel",
            Severity::Note,
            format!("{title} belongs to the series {version}, patch level unknown"),
        )
        .meaning("Fixes of that series may or may not be in: what is said about known bugs may be a possibility only."),
        (Some(_), Precision::Exact) if bad == 0 => Finding::ok("kernel", format!("{title}: no known bug applies")),
        (Some(_), Precision::Exact) => Finding::ok("kernel", title),
    });
    findings
}

fn known_bug(facts: &Facts, bug: &KnownBug) -> Option<Finding> {
    let applies = match bug.applies {
        Applies::Always => true,
        Applies::ConfidentialVm => facts.confidential,
        Applies::LargePages => facts.page_bytes != 4096,
        Applies::Subchannels => facts.devices.iter().any(|device| opens_subchannels(device.class)),
        Applies::FileCopy => facts.offers(Class::FCOPY),
        Applies::InUserSpace => facts.devices.iter().any(|device| device.driver.as_deref() == Some(UIO_DRIVER)),
    };
    let verdict = bug.verdict(&facts.kernel);
    if !applies || verdict == Verdict::Clear {
        return None;
    }
    let (severity, title) = match verdict {
        Verdict::Affected => (bug.severity, format!("this kernel has a known bug: {}", bug.title)),
        _ => (bug.severity.min(Severity::Warning), format!("this kernel may have a known bug: {}", bug.title)),
    };
    let mut fix = bug.fixed_in(&facts.kernel).map_or_else(String::new, |fixed| format!("run Linux {fixed} or later"));
    if !fix.is_empty() && facts.kernel.precision != Precision::Exact {
        fix.push_str(", or make sure that the vendor's change log names the fix");
    }
    if !bug.workaround.is_empty() {
        let between = if fix.is_empty() { "" } else { "; " };
        fix = format!("{fix}{between}{}", bug.workaround);
    }
    let finding = Finding::new(bug.id, severity, title).meaning(bug.meaning).fix(fix);
    Some(bug.references.iter().fold(finding, |finding, reference| finding.evidence(*reference)))
}

fn opens_subchannels(class: Class) -> bool {
    class == Class::NIC || class == Class::SCSI
}

/// Whether the kernel takes channels that have no monitor id.
pub(super) fn monitor(facts: &Facts) -> Vec<Finding> {
    let id = "monitor";
    let without: Vec<&Device> = facts.devices.iter().filter(|device| device.monitor_id.is_none()).collect();
    let refusal = facts.log.newest(REFUSAL);
    let old = facts.kernel.version.is_none_or(|version| version < SLOW_CHANNELS_SINCE);
    let meaning = "Before 6.10 uio_hv_generic refuses a channel that is not signalled through a monitor page (\"vmbus \
                   channel requires hypercall\", error 524), and no /dev/uioN appears. Hosts give monitor ids to some \
                   devices only, and at most 128 of them.";
    let fix = "run Linux 6.10 or later (on Debian 12: the kernel of bookworm-backports), or use devices with a \
               monitor id only";
    if let Some(line) = refusal {
        // What was refused may have gone since, with nothing left that would be.
        let gone = facts.bus && without.is_empty();
        let severity = if gone { Severity::Note } else { Severity::Failure };
        return vec![
            Finding::new(id, severity, "this kernel refused a device that has no monitor id")
                .meaning(meaning)
                .fix(fix)
                .evidence(format!("kernel log: {line}")),
        ];
    }
    if !facts.bus || without.is_empty() {
        return Vec::new();
    }
    if !old {
        return vec![Finding::ok(id, format!("{} without a monitor id can be used", devices(without.len())))];
    }
    let names: Vec<String> = without.iter().map(|device| name(device)).collect();
    let (severity, verb) = match facts.kernel.precision {
        Precision::Vendor => (Severity::Warning, "may refuse"),
        Precision::Exact | Precision::Series => (Severity::Failure, "refuses"),
    };
    vec![
        Finding::new(id, severity, format!("this kernel {verb} {} without a monitor id", devices(without.len())))
            .meaning(meaning)
            .fix(fix)
            .evidence(names.join(", ")),
    ]
}

/// Whether devices that are in user space's hands have their ring files.
pub(super) fn rings(facts: &Facts) -> Vec<Finding> {
    let bound: Vec<&Device> =
        facts.devices.iter().filter(|device| device.driver.as_deref() == Some(UIO_DRIVER)).collect();
    let mut findings = Vec::new();
    for device in &bound {
        let name = name(device);
        if device.uio.is_none() {
            findings.push(
                Finding::new(
                    "uio-node",
                    Severity::Failure,
                    format!("{name} is bound to {UIO_DRIVER} but has no /dev/uioN"),
                )
                .meaning("The driver accepted the device and failed to set it up, so no program can open it.")
                .fix("look at `dmesg | grep uio_hv_generic`, then `vmbusctl unbind` and `vmbusctl bind` it again"),
            );
        } else if device.channels.iter().all(|channel| channel.ring.is_none()) {
            findings.push(
                Finding::new("ring-file", Severity::Note, format!("{name} has no channels/<relid>/ring file"))
                    .meaning(
                        "The rings are mapped through /dev/uioN instead; subchannels cannot be opened on this kernel.",
                    )
                    .fix("run Linux 6.12 or later if the device needs subchannels"),
            );
        }
    }
    if findings.is_empty() && !bound.is_empty() {
        findings.push(Finding::ok("ring-file", format!("{} in user space, all with ring files", devices(bound.len()))));
    }
    findings
}

/// Whether a channel stayed open without a driver. `uio_release` skips its part once the device was removed (seen on
/// 6.12.117): after an unbind under an open node nobody closes the channel, and opening it again answers `EINVAL`.
pub(super) fn left_open(facts: &Facts) -> Vec<Finding> {
    let orphans =
        facts.devices.iter().filter(|device| device.driver.is_none() && device.state == Some(ChannelState::OPENED));
    orphans
        .map(|device| {
            let title = format!("the channel of {} is open, but no driver has the device", name(device));
            Finding::new("channel-left-open", Severity::Failure, title)
                .meaning(
                    "It was unbound while a process had its node open. The kernel never closed the channel, so every \
                     driver that opens it, also the kernel's own, fails with \"Invalid argument\".",
                )
                .fix(
                    "restart the guest, or have the host remove the device and add it again; unbind with `vmbusctl \
                      unbind`",
                )
        })
        .collect()
}

/// Whether the kernel's log could be consulted.
pub(super) fn log(facts: &Facts) -> Vec<Finding> {
    if facts.log != KernelLog::Refused {
        return Vec::new();
    }
    vec![
        Finding::new("kernel-log", Severity::Note, "the kernel's log may not be read")
            .meaning(
                "Refusals that only the kernel explains (a channel without a monitor id, no memory for rings) \
                      stay unseen.",
            )
            .fix("run the doctor as root, or set `sysctl kernel.dmesg_restrict=0`"),
    ]
}

fn name(device: &Device) -> String {
    match device.class.short_name() {
        Some(class) => format!("{class} (relid {})", device.relid),
        None => format!("{} (relid {})", device.name, device.relid),
    }
}

fn devices(count: usize) -> String {
    match count {
        1 => "1 device".to_owned(),
        count => format!("{count} devices"),
    }
}
