//! Reads the guest kernel's log for complaints, and tells those that an emulator two layers deep causes by itself, and those
//! of races inside the kernel that no driver can keep out of.

/// A line of the log that makes a scenario fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// The line.
    pub(crate) line: String,
    /// It may be the emulator's doing: a processor that got no time, or a timer that came late. Or it is a known race of the
    /// kernel's own. What has only such complaints is played once more.
    pub(crate) emulator: bool,
}

/// Signs of a processor that stood still; a real hang of ours shows as one too, so these are "maybe".
const STALLS: [&str; 6] = [
    "rcu: INFO: rcu_",
    "rcu_sched detected stalls",
    "rcu_preempt detected",
    "soft lockup",
    "hard LOCKUP",
    "kthread starved for",
];

/// Signs of a kernel that something was done to.
const COMPLAINTS: [&str; 16] = [
    "WARNING:",
    "BUG:",
    "BUG at",
    "Oops",
    "Kernel panic",
    "general protection fault",
    "KASAN",
    "UBSAN",
    "blocked for more than",
    "unable to handle",
    "Bad page",
    "Bad rss-counter",
    "refcount_t:",
    "list_del corruption",
    "list_add corruption",
    "double fault",
];

/// Races of the kernel's own: `docs/kernels.md` has each.
const RACES: [&str; 1] = [" untrack_pfn+"];

/// All complaints among `lines`; stalls count as the emulator's where one is at work (`nested`).
pub(crate) fn complaints<'a>(lines: impl IntoIterator<Item = &'a str>, nested: bool) -> Vec<Complaint> {
    let found = lines.into_iter().filter_map(|line| {
        let stall = STALLS.iter().any(|sign| line.contains(sign));
        let complaint = stall || COMPLAINTS.iter().any(|sign| line.contains(sign));
        let race = RACES.iter().any(|sign| line.contains(sign));
        complaint.then(|| Complaint { line: line.trim_end().to_owned(), emulator: stall && nested || race })
    });
    found.collect()
}

/// A sign in L1's console, or that of QEMU itself, that the emulator gave up on the guest.
pub(crate) fn emulator_failure(text: &str) -> Option<String> {
    const SIGNS: [&str; 5] =
        ["KVM internal error", "KVM: entry failed", "Triple fault", "emulation failure", "kvm run failed"];
    let lines = text.lines().find(|line| SIGNS.iter().any(|sign| line.contains(sign)));
    let in_l1 = || complaints(text.lines(), true).into_iter().next().map(|complaint| complaint.line);
    lines.map(str::to_owned).or_else(in_l1)
}

#[cfg(test)]
mod tests {
    use super::{complaints, emulator_failure};

    #[test]
    fn complaints_are_found_and_stalls_told_apart() {
        let log = "1.0 hv_vmbus: Vmbus version:4.0\n\
                   2.0 WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2\n\
                   3.0 watchdog: BUG: soft lockup - CPU#1 stuck for 22s!\n\
                   4.0 INFO: task vmbusctl:77 blocked for more than 30 seconds.\n";
        let found = complaints(log.lines(), true);
        assert_eq!(found.iter().map(|complaint| complaint.emulator).collect::<Vec<_>>(), [false, true, false]);
        assert!(complaints(log.lines(), false).iter().all(|complaint| !complaint.emulator));
    }

    #[test]
    fn a_known_race_is_told_apart_and_told() {
        let log = "73.0 WARNING: CPU: 0 PID: 492 at arch/x86/mm/pat/memtype.c:983 untrack_pfn+0x110/0x120\n\
                   73.1 Call Trace:\n 73.2 ? untrack_pfn+0x110/0x120\n";
        let found = complaints(log.lines(), false);
        assert!(found.len() == 1 && found[0].emulator, "{found:?}");
    }

    #[test]
    fn an_ordinary_boot_has_none() {
        let log = "0.2 kvm: kvm [155]: vcpu0, guest rIP: 0x1 Unhandled WRMSR(0xc0010007)\n";
        assert!(complaints(log.lines(), true).is_empty());
        assert_eq!(
            emulator_failure("x\nKVM internal error. Suberror: 1\n").as_deref(),
            Some("KVM internal error. Suberror: 1")
        );
        assert_eq!(emulator_failure("lab: fine\n"), None);
    }
}
