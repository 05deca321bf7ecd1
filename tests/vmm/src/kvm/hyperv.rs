//! KVM's calls for Hyper-V guests that `kvm-ioctls` lacks: the leaves it can emulate, and signals as eventfds.

use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result};
use kvm_bindings::{CpuId, KVM_HYPERV_EVENTFD_DEASSIGN, KVMIO, kvm_cpuid2, kvm_hyperv_eventfd};
use vmm_sys_util::ioctl::{ioctl_with_mut_ptr, ioctl_with_ref};
use vmm_sys_util::{ioctl_iow_nr, ioctl_iowr_nr};

ioctl_iowr_nr!(KVM_GET_SUPPORTED_HV_CPUID, KVMIO, 0xc1, kvm_cpuid2);
ioctl_iow_nr!(KVM_HYPERV_EVENTFD, KVMIO, 0xbd, kvm_hyperv_eventfd);

/// More leaves than KVM has for Hyper-V.
const LEAVES_AT_MOST: usize = 64;

/// The leaves from 0x4000_0000 on that a Hyper-V guest of this processor can have.
pub(super) fn supported_leaves(vcpu: &impl AsRawFd) -> Result<CpuId> {
    let mut leaves = CpuId::new(LEAVES_AT_MOST).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    // SAFETY: the pointer is to a `kvm_cpuid2` followed by LEAVES_AT_MOST entries, owned by `leaves` and nobody else's
    // for the length of the call; its `nent` says so, KVM writes no more entries than that, and leaves in `nent` how
    // many there are.
    let result = unsafe { ioctl_with_mut_ptr(vcpu, KVM_GET_SUPPORTED_HV_CPUID(), leaves.as_mut_fam_struct_ptr()) };
    check(result).context("ask KVM for Hyper-V's CPUID leaves; it needs KVM_CAP_HYPERV_CPUID")?;
    Ok(leaves)
}

/// Makes HvSignalEvent on `connection` a write to `fd`; with no file, it comes as an exit again.
pub(super) fn signal_eventfd(vm: &impl AsRawFd, connection: u32, fd: Option<RawFd>) -> Result<()> {
    let flags = if fd.is_none() { KVM_HYPERV_EVENTFD_DEASSIGN } else { 0 };
    let argument = kvm_hyperv_eventfd { conn_id: connection, fd: fd.unwrap_or(-1), flags, ..Default::default() };
    // SAFETY: KVM only reads the structure, which is alive and of the type the call is defined with. It takes a
    // reference of its own to the eventfd, so nothing depends on how long the caller keeps it open.
    let result = unsafe { ioctl_with_ref(vm, KVM_HYPERV_EVENTFD(), &argument) };
    check(result).with_context(|| format!("eventfd of Hyper-V connection {connection:#x}"))
}

fn check(result: i32) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}
