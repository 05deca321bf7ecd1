//! The checks of what a driver needs besides the bus: rights, locked memory, `io_uring`, contiguous memory.

use super::facts::Facts;
use super::finding::{Finding, Severity};
use crate::bind::UIO_DRIVER;
use crate::class::Class;

const CAP_SYS_ADMIN: u32 = 21;
const CAP_IPC_LOCK: u32 = 14;
/// Receive, send and ring buffers that the kernel allocates for each device bound to `uio_hv_generic`.
const BOUND_DEVICE_BYTES: u64 = 51 << 20;

/// Whether this process may bind devices and see page frame numbers.
pub(super) fn rights(facts: &Facts) -> Vec<Finding> {
    let id = "rights";
    match facts.user {
        None => Vec::new(),
        Some(0) if facts.may(CAP_SYS_ADMIN) => vec![Finding::ok(id, "this process is root, with CAP_SYS_ADMIN")],
        Some(0) => vec![
            Finding::new(id, Severity::Warning, "this process is root without CAP_SYS_ADMIN")
                .meaning(
                    "The kernel hides page frame numbers from it, which the balloon driver has to report to the \
                          host.",
                )
                .fix("in a container add the capability (`--cap-add SYS_ADMIN`) and mount /sys writable"),
        ],
        Some(user) => vec![
            Finding::new(id, Severity::Warning, format!("this process runs as user {user}, not as root"))
                .meaning(
                    "Binding writes to /sys/bus/vmbus/drivers, and /dev/uioN belongs to root; both will be refused. \
                     Listing works.",
                )
                .fix("run vmbusctl with sudo, or give your group /dev/uioN by a udev rule and leave binding to root"),
        ],
    }
}

/// Whether pages can be pinned for the balloon.
pub(super) fn pinning(facts: &Facts) -> Vec<Finding> {
    if !facts.offers(Class::DYNAMIC_MEMORY) {
        return Vec::new();
    }
    let id = "io-uring";
    let meaning = "The balloon driver pins the pages it takes by registering them with io_uring; locking memory does \
                   not stop the kernel from moving it, and a moved page would tell the host the wrong address.";
    let mut findings = Vec::new();
    let privileged = facts.may(CAP_SYS_ADMIN);
    match facts.io_uring_disabled {
        Some(2..) => findings.push(
            Finding::new(id, Severity::Failure, "io_uring is disabled: the balloon driver cannot pin pages")
                .meaning(meaning)
                .fix("run `sysctl kernel.io_uring_disabled=1`; it leaves io_uring to privileged processes"),
        ),
        Some(1) if !privileged => findings.push(
            Finding::new(id, Severity::Warning, "io_uring is left to privileged processes, and this one is not")
                .meaning(meaning)
                .fix("run `vmbusctl balloon` as root, or add its group to kernel.io_uring_group"),
        ),
        _ => findings.push(Finding::ok(id, "io_uring is allowed, so the balloon driver can pin pages")),
    }
    if let Some(limit) = facts.locked_memory_bytes
        && limit != u64::MAX
        && !facts.may(CAP_IPC_LOCK)
    {
        findings.push(
            Finding::new("locked-memory", Severity::Warning, format!("at most {} MiB may be locked", limit >> 20))
                .meaning("Pinned pages count as locked memory; the balloon cannot grow past this limit.")
                .fix("raise it (`ulimit -l unlimited`, LimitMEMLOCK= in a systemd unit) or grant CAP_IPC_LOCK"),
        );
    }
    findings
}

/// Whether another device can be bound: its rings are one physically contiguous block, its buffers plain memory.
pub(super) fn memory(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match facts.free_4mib_blocks {
        Some(0) => findings.push(
            Finding::new("contiguous-memory", Severity::Warning, "no free block of 4 MiB is left")
                .meaning(format!(
                    "Binding most devices to {UIO_DRIVER} allocates both rings as one physically contiguous block of \
                     4 MiB; it fails with \"Cannot allocate memory\" while memory is this fragmented."
                ))
                .fix(
                    "run `sysctl vm.compact_memory=1` and bind again; best bind early after boot, before reserving \
                      huge pages",
                ),
        ),
        Some(blocks) => {
            findings.push(Finding::ok("contiguous-memory", format!("{blocks} free blocks of 4 MiB for rings")));
        }
        None => {}
    }
    if let Some(available) = facts.available_bytes
        && available < BOUND_DEVICE_BYTES + (BOUND_DEVICE_BYTES >> 2)
    {
        findings.push(
            Finding::new("memory", Severity::Warning, format!("only {} MiB of memory are available", available >> 20))
                .meaning(
                    "Each device bound to uio_hv_generic takes up to 51 MiB (network adapters always, others \
                          before 6.14).",
                )
                .fix("free memory, give the guest more, or bind fewer devices"),
        );
    }
    findings
}
