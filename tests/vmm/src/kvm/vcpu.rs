//! One virtual processor: its state at the start, and running it from exit to exit.

use anyhow::{Context, Result};
use kvm_bindings::{
    CpuId, KVM_CAP_HYPERV_SYNIC2, KVM_EXIT_HYPERV_HCALL, KVM_EXIT_HYPERV_SYNIC, kvm_enable_cap, kvm_hyperv_exit,
    kvm_regs, kvm_run, kvm_sregs,
};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::hyperv;
use super::vm::Vm;
use crate::exits::{Hypercall, Hyperv, Synic};

/// A virtual processor.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    index: u32,
    /// The guest's memory must outlive the last processor that can touch it.
    _vm: Vm,
}

/// Why a processor stopped running; what it points at is answered before it runs again.
pub type Exit<'a> = VcpuExit<'a>;

impl Vcpu {
    /// Wraps a new processor, with a SynIC whose pages KVM does not clear by itself.
    pub(super) fn new(fd: VcpuFd, index: u32, vm: Vm) -> Result<Self> {
        let synic = kvm_enable_cap { cap: KVM_CAP_HYPERV_SYNIC2, ..Default::default() };
        fd.enable_cap(&synic).with_context(|| {
            format!(
                "a SynIC for processor {index}: this KVM lacks KVM_CAP_HYPERV_SYNIC2 (is kvm_amd or kvm_intel in use?)"
            )
        })?;
        Ok(Self { fd, index, _vm: vm })
    }

    /// Its number, from 0 on; also its APIC id and its Hyper-V VP index.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The leaves from 0x4000_0000 on that KVM can emulate.
    ///
    /// # Errors
    /// KVM does not emulate Hyper-V.
    pub fn hyperv_leaves(&self) -> Result<CpuId> {
        hyperv::supported_leaves(&self.fd)
    }

    /// Decides what the processor says that it is.
    ///
    /// # Errors
    /// KVM refuses the leaves.
    pub fn set_cpuid(&self, leaves: &CpuId) -> Result<()> {
        self.fd.set_cpuid2(leaves).with_context(|| format!("CPUID leaves of processor {}", self.index))
    }

    /// Special registers, as they are before the first instruction.
    ///
    /// # Errors
    /// KVM does not tell.
    pub fn special_registers(&self) -> Result<kvm_sregs> {
        self.fd.get_sregs().with_context(|| format!("special registers of processor {}", self.index))
    }

    /// Sets where and how the processor starts.
    ///
    /// # Errors
    /// KVM refuses a value.
    pub fn set_registers(&self, special: &kvm_sregs, general: &kvm_regs) -> Result<()> {
        self.fd.set_sregs(special).with_context(|| format!("special registers of processor {}", self.index))?;
        self.fd.set_regs(general).with_context(|| format!("registers of processor {}", self.index))
    }

    /// General registers, for a report.
    ///
    /// # Errors
    /// KVM does not tell.
    pub fn registers(&self) -> Result<kvm_regs> {
        self.fd.get_regs().with_context(|| format!("registers of processor {}", self.index))
    }

    /// Runs the guest until it needs something. [`Exit::Hyperv`] is to be answered by [`Self::answer_hyperv`].
    ///
    /// # Errors
    /// KVM can't run the processor; EINTR and EAGAIN say to try again.
    pub fn run(&mut self) -> std::result::Result<Exit<'_>, kvm_ioctls::Error> {
        self.fd.run()
    }

    /// Asks `hyperv` what the guest asked for in the exit just seen, and leaves the answer where KVM looks for it.
    pub fn answer_hyperv(&mut self, hyperv: &dyn Hyperv) {
        let index = self.index;
        let exit = hyperv_exit(self.fd.get_kvm_run());
        match exit.type_ {
            KVM_EXIT_HYPERV_HCALL => {
                // SAFETY: KVM fills this member of the union in exits of this type. All members are plain integers,
                // so any bytes are a value. KVM writes here only inside KVM_RUN, which this thread alone calls.
                let call = unsafe { &mut exit.u.hcall };
                let [first, second] = call.params;
                call.result = hyperv.hypercall(index, Hypercall { input: call.input, first, second });
            }
            KVM_EXIT_HYPERV_SYNIC => {
                // SAFETY: as above; KVM fills this member in exits of this type.
                let synic = unsafe { exit.u.synic };
                let (register, control) = (synic.msr, synic.control);
                let (event_page, message_page) = (synic.evt_page, synic.msg_page);
                hyperv.synic(index, Synic { register, control, event_page, message_page });
            }
            other => log::debug!(target: "vmbus::vmm", "processor {index}: Hyper-V exit {other} ignored"),
        }
    }
}

/// The part of the exit area that is about Hyper-V.
fn hyperv_exit(run: &mut kvm_run) -> &mut kvm_hyperv_exit {
    // SAFETY: all members of this union are plain integers or arrays of them, so any bytes are a value of this one; and
    // `run` is borrowed mutably, so nobody else on our side holds a reference. KVM writes only inside KVM_RUN.
    unsafe { &mut run.__bindgen_anon_1.hyperv }
}
