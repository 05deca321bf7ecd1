//! Whole examinations of made-up machines, and the table of known bugs row by row.

use std::fs;

use super::*;
use crate::kernel::Kernel;

/// The facts of a healthy machine without devices.
fn healthy() -> Facts {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (path, text) in [
        ("proc/sys/kernel/osrelease", "6.18.4\n"),
        ("proc/sys/kernel/io_uring_disabled", "0\n"),
        ("proc/self/status", "Name:\tx\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"),
        ("proc/self/limits", "Max locked memory         unlimited            unlimited            bytes\n"),
        ("proc/meminfo", "MemAvailable:     400000 kB\n"),
        ("proc/buddyinfo", "Node 0, zone   Normal 1 1 1 1 1 1 1 1 1 1 9\n"),
        ("sys/bus/vmbus/drivers/uio_hv_generic/new_id", ""),
        ("dev/kmsg", "6,1,1,-;hv_vmbus: Vmbus version:5.3\n"),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::create_dir_all(root.join("sys/bus/vmbus/devices")).unwrap();
    let mut facts = Facts::gather(&Bus::at(root));
    facts.page_bytes = 4096;
    facts.devices_error = None;
    facts
}

fn with_kernel(release: &str, banner: &str) -> Facts {
    Facts { kernel: Kernel::identify(release, banner, ""), ..healthy() }
}

fn find<'a>(report: &'a Report, id: &str) -> Option<&'a Finding> {
    report.findings.iter().find(|finding| finding.id == id)
}

#[test]
fn a_healthy_machine_has_nothing_wrong() {
    let report = examine_facts(&healthy());
    assert_eq!(report.worst(), Severity::Ok, "{:#?}", report.findings);
    assert!(report.findings.iter().all(|finding| finding.fix.is_empty()));
}

#[test]
fn every_finding_that_is_not_ok_has_a_meaning_and_a_fix_that_is_a_sentence() {
    let mut facts = with_kernel("5.14.0-503.el9", "");
    facts.uio_module = Module::Missing;
    facts.user = Some(1000);
    facts.capabilities = Some(0);
    facts.free_4mib_blocks = Some(0);
    facts.available_bytes = Some(1 << 20);
    facts.confidential = true;
    facts.page_bytes = 65536;
    facts.log = KernelLog::Refused;
    let report = examine_facts(&facts);
    assert_eq!(report.worst(), Severity::Failure);
    assert!(report.count(Severity::Warning) > 5, "{:#?}", report.findings);
    for finding in report.findings.iter().filter(|finding| finding.severity > Severity::Ok) {
        assert!(finding.meaning.ends_with('.'), "{finding:?}");
        assert!(finding.severity == Severity::Note || !finding.fix.is_empty(), "{finding:?}");
        assert!(!finding.title.contains('\n') && !finding.title.ends_with('.'), "{finding:?}");
        assert!(!finding.meaning.contains("  "), "{finding:?}");
    }
    // Worst first.
    assert!(report.findings.is_sorted_by_key(|finding| std::cmp::Reverse(finding.severity)));
}

#[test]
fn no_bus_is_explained_by_what_is_missing() {
    let cases = [
        (false, Module::Available, "not running"),
        (false, Module::Missing, "has no bus driver"),
        (true, Module::Unknown, "announces a VMBus"),
        (false, Module::Unknown, "not a guest"),
    ];
    for (announced, bus_module, expected) in cases {
        let report = examine_facts(&Facts { bus: false, announced, bus_module, ..healthy() });
        let finding = find(&report, "bus").unwrap();
        assert_eq!(finding.severity, Severity::Failure);
        assert!(finding.meaning.contains(expected), "{finding:?}");
    }
}

#[test]
fn the_refusal_in_the_log_is_found_and_explained() {
    let mut facts =
        with_kernel("6.1.0-56-cloud-amd64", "Linux version 6.1.0-56-cloud-amd64 (x) Debian 6.1.192-2 (2026)");
    facts.log = KernelLog::Lines(vec!["uio_hv_generic 1: vmbus channel requires hypercall".to_owned()]);
    // The device may be gone since.
    assert_eq!(find(&examine_facts(&facts), "monitor").unwrap().severity, Severity::Note);
    facts.devices = vec![crate::fake::Tree::new().device(crate::class::Class::NIC, 1, None)];
    let report = examine_facts(&facts);
    let finding = find(&report, "monitor").unwrap();
    assert_eq!(finding.severity, Severity::Failure);
    assert!(finding.fix.contains("6.10"));
    assert_eq!(finding.evidence, ["kernel log: uio_hv_generic 1: vmbus channel requires hypercall"]);
}

#[test]
fn bugs_matter_only_where_they_apply() {
    let debian = "Linux version 6.12.57+deb13-amd64 (x) Debian 6.12.57-1 (2025-11-05)";
    // No adapter with subchannels, so the panic cannot happen.
    assert!(find(&examine_facts(&with_kernel("6.12.57+deb13-amd64", debian)), "subchannel-interrupt-panic").is_none());
    let report = examine_facts(&with_kernel("6.8.5", ""));
    assert!(find(&report, "cve-2024-36910").is_none());
    let report = examine_facts(&Facts { confidential: true, ..with_kernel("6.8.5", "") });
    let finding = find(&report, "cve-2024-36910").unwrap();
    assert_eq!(finding.severity, Severity::Failure);
    assert!(finding.fix.starts_with("run Linux 6.8.10 or later"), "{finding:?}");
}

#[test]
fn a_bug_without_a_fix_names_none() {
    let mut facts = with_kernel("6.12.117", "");
    assert!(find(&examine_facts(&facts), "rescind-behind-unbind").is_none(), "nothing is in user space");
    let mut device = crate::fake::Tree::new().device(crate::class::Class::NIC, 1, None);
    device.driver = Some(crate::bind::UIO_DRIVER.to_owned());
    facts.devices = vec![device];
    let report = examine_facts(&facts);
    let finding = find(&report, "rescind-behind-unbind").unwrap();
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.fix.starts_with("leave a device"), "{finding:?}");
}

#[test]
fn an_honest_doctor_says_may() {
    let report = examine_facts(&with_kernel("5.14.0-503.11.1.el9_5.x86_64", ""));
    let finding = find(&report, "cve-2024-46739").unwrap();
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.title.contains("may have"), "{finding:?}");
    assert_eq!(find(&report, "kernel").unwrap().severity, Severity::Note);
}

/// Row by row: bug, release, `/proc/version`, verdict.
#[test]
fn verdicts() {
    use Verdict::{Affected, Clear, Possible};
    let debian = |package: &str| format!("Linux version x (y) #1 SMP PREEMPT_DYNAMIC Debian {package} (2026-01-01)");
    let cases = [
        ("subchannel-interrupt-panic", "6.12.57+deb13-amd64", debian("6.12.57-1"), Affected),
        ("subchannel-interrupt-panic", "6.1.0-42-amd64", debian("6.1.158-1"), Affected),
        ("subchannel-interrupt-panic", "6.1.0-42-amd64", debian("6.1.159-1"), Clear),
        ("subchannel-interrupt-panic", "6.1.0-42-amd64", String::new(), Possible),
        ("subchannel-interrupt-panic", "6.12.117+deb12-cloud-amd64", debian("6.12.117-1~deb12u1"), Clear),
        ("subchannel-interrupt-panic", "6.12.52", String::new(), Clear),
        ("subchannel-interrupt-panic", "6.12.53", String::new(), Affected),
        ("subchannel-interrupt-panic", "6.14.3", String::new(), Clear),
        ("subchannel-interrupt-panic", "6.8.0-45-generic", String::new(), Possible),
        ("subchannel-interrupt-panic", "6.18.0", String::new(), Clear),
        ("cve-2024-46739", "6.1.109", String::new(), Affected),
        ("cve-2024-46739", "6.1.110", String::new(), Clear),
        ("cve-2024-46739", "6.9.3", String::new(), Affected),
        ("cve-2024-46739", "6.10.10", String::new(), Clear),
        ("cve-2024-46739", "6.11.0-9-generic", String::new(), Clear),
        ("cve-2024-46739", "6.12.0-55.el10", String::new(), Clear),
        ("cve-2024-46739", "6.4.0-150600.23.7-default", String::new(), Possible),
        ("cve-2024-46739", "unreadable", String::new(), Possible),
        ("rescind-behind-unbind", "4.19.1", String::new(), Clear),
        ("rescind-behind-unbind", "6.12.117", String::new(), Affected),
        ("rescind-behind-unbind", "7.2.13", String::new(), Affected),
        ("cve-2024-36910", "6.6.31", String::new(), Clear),
        ("cve-2024-36910", "5.15.100", String::new(), Affected),
        ("uio-page-size", "6.12.35", String::new(), Affected),
        ("uio-page-size", "6.12.36", String::new(), Clear),
        ("interrupt-mask-race", "6.17.2", String::new(), Affected),
        ("interrupt-mask-race", "6.17.3", String::new(), Clear),
        ("interrupt-mask-race", "6.18.0-rc3", String::new(), Clear),
        ("fcopy-ring-size", "6.9.3", String::new(), Clear),
        ("fcopy-ring-size", "6.12.117", String::new(), Affected),
    ];
    for (id, release, banner, expected) in cases {
        let bug = KNOWN_BUGS.iter().find(|bug| bug.id == id).unwrap();
        assert_eq!(bug.verdict(&Kernel::identify(release, &banner, "")), expected, "{id} on {release} {banner}");
    }
}

#[test]
fn the_table_is_consistent() {
    for bug in KNOWN_BUGS {
        assert!(bug.meaning.ends_with('.') && !bug.references.is_empty(), "{}", bug.id);
        assert!(bug.mainline.is_none_or(|(since, fixed)| since < fixed && fixed <= bug.gone_since), "{}", bug.id);
        for series in bug.stable {
            assert!(series.introduced < series.fixed && series.fixed < bug.gone_since, "{}", bug.id);
        }
        assert!(bug.mainline.is_some() || !bug.stable.is_empty(), "{}", bug.id);
    }
}

proptest::proptest! {
    /// Whatever the files hold, the doctor comes to a verdict.
    #[test]
    fn any_kernel_text_is_judged(
        release in ".{0,40}",
        banner in "(.{0,20}Debian ?)?.{0,40}",
        signature in "([a-zA-Z0-9.]+ ){0,4}",
    ) {
        let kernel = Kernel::identify(&release, &banner, &signature);
        for bug in KNOWN_BUGS {
            let verdict = bug.verdict(&kernel);
            // Without a number nothing can be cleared, and nothing can be proven.
            proptest::prop_assert!(kernel.version.is_some() || verdict == Verdict::Possible);
        }
    }

    /// A kernel that follows its stable series does not get a bug back that it was cleared of.
    #[test]
    fn fixed_stays_fixed(minor in 0u32..40, patch in 0u32..400, later in 0u32..400) {
        let at = |patch| Kernel::identify(&format!("6.{minor}.{patch}"), "", "");
        for bug in KNOWN_BUGS.iter().filter(|bug| bug.mainline.is_some()) {
            if patch < later && bug.verdict(&at(patch)) == Verdict::Clear {
                proptest::prop_assert_eq!(bug.verdict(&at(later)), Verdict::Clear, "{} 6.{}.{}", bug.id, minor, later);
            }
        }
    }
}
