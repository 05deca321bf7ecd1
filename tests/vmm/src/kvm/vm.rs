//! The virtual machine: memory, interrupt controllers, processors, and interrupts made at run time.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, KvmIrqRouting, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::hyperv;
use super::routes::Routes;
use super::vcpu::Vcpu;
use crate::layout::{IDENTITY_MAP, TASK_STATE};
use crate::memory::GuestRam;

/// A virtual machine; clones are the same one. It keeps its memory.
#[derive(Debug, Clone)]
pub struct Vm(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    // Dropped before `ram`: the machine ends before what it runs in goes.
    fd: VmFd,
    kvm: Kvm,
    ram: GuestRam,
    routes: Mutex<Routes>,
}

/// An interrupt at a SINT of a processor: write to `trigger`, and the guest's vector for that SINT is injected.
/// When the guest ends a message (EOM) or the interrupt (auto-EOI), `ended` becomes readable.
#[derive(Debug)]
pub struct SintInterrupt {
    /// Written to interrupt.
    pub trigger: EventFd,
    /// Readable after the guest's EOM.
    pub ended: EventFd,
    gsi: u32,
    vm: Vm,
}

/// A line of the I/O APIC. Not an irqfd: KVM raises those from a kernel thread, which on a machine with one processor
/// comes after whatever runs now, and that is often the guest that waits for the interrupt.
///
/// It outlives the machine: clones are one line, which [`Self::rewire`] takes to another.
#[derive(Debug, Clone)]
pub struct Line {
    vm: Arc<Mutex<Vm>>,
    line: u32,
}

impl Line {
    /// One edge.
    ///
    /// # Errors
    /// KVM does not know the line.
    pub fn pulse(&self) -> Result<()> {
        let vm = self.vm.lock().unwrap_or_else(PoisonError::into_inner);
        let set = |level| vm.0.fd.set_irq_line(self.line, level);
        set(true).and_then(|()| set(false)).with_context(|| format!("interrupt line {}", self.line))
    }

    /// From now on it is a line of another machine.
    pub fn rewire(&self, vm: &Vm) {
        *self.vm.lock().unwrap_or_else(PoisonError::into_inner) = vm.clone();
    }
}

impl Vm {
    /// A machine with `ram` at guest physical 0, and KVM's interrupt controllers.
    ///
    /// # Errors
    /// There is no usable KVM.
    pub fn new(ram: GuestRam) -> Result<Self> {
        let kvm = Kvm::new().context("open /dev/kvm: is a KVM module loaded, and may this user open it?")?;
        let fd = kvm.create_vm().context("create a virtual machine")?;
        if fd.check_extension(Cap::SetTssAddr) {
            fd.set_tss_address(TASK_STATE).context("place the task state segment")?;
        }
        if fd.check_extension(Cap::SetIdentityMapAddr) {
            fd.set_identity_map_address(IDENTITY_MAP).context("place the identity map")?;
        }
        fd.create_irq_chip().context("create the interrupt controllers")?;
        for (slot, region) in (0..).zip(ram.mapped().iter()) {
            let place = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.as_ptr().addr() as u64,
            };
            // SAFETY: the range is all of a mapping that `ram` owns, and the machine keeps `ram` until after its file
            // descriptor is closed; processors keep the kernel's machine alive, but each `Vcpu` ends with the process
            // or before `Vm`'s last clone, which it holds. The guest writes there as it likes: on our side the bytes are
            // reached only by vm-memory's and vmbus's copies, never by references.
            unsafe { fd.set_user_memory_region(place) }.context("give the guest its memory")?;
        }
        let vm = Self(Arc::new(Shared { fd, kvm, ram, routes: Mutex::new(Routes::new()) }));
        vm.apply(&Routes::new())?;
        Ok(vm)
    }

    /// The guest's memory.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.0.ram
    }

    /// What this machine's processors can do, without Hyper-V's leaves.
    ///
    /// # Errors
    /// KVM does not tell.
    pub fn supported_leaves(&self) -> Result<CpuId> {
        self.0.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("ask KVM what the processor can do")
    }

    /// Adds processor `index`.
    ///
    /// # Errors
    /// KVM has no more, or no SynIC for it.
    pub fn add_vcpu(&self, index: u32) -> Result<Vcpu> {
        let fd = self.0.fd.create_vcpu(index.into()).with_context(|| format!("create processor {index}"))?;
        Vcpu::new(fd, index, self.clone())
    }

    /// Line `line` of the I/O APIC, for a device that interrupts by edges.
    #[must_use]
    pub fn line(&self, line: u32) -> Line {
        Line { vm: Arc::new(Mutex::new(self.clone())), line }
    }

    /// Makes an interrupt at SINT `sint` of processor `vcpu`. The processor must exist.
    ///
    /// # Errors
    /// No file descriptors are left, or KVM does not know the processor.
    pub fn sint_interrupt(&self, vcpu: u32, sint: u32) -> Result<SintInterrupt> {
        let what = || format!("interrupt at SINT {sint} of processor {vcpu}");
        let trigger = EventFd::new(EFD_NONBLOCK).with_context(what)?;
        let ended = EventFd::new(EFD_NONBLOCK).with_context(what)?;
        let gsi = {
            let mut routes = self.0.routes.lock().unwrap_or_else(PoisonError::into_inner);
            let (gsi, new) = routes.sint(vcpu, sint);
            if new {
                self.apply(&routes)?;
            }
            gsi
        };
        self.0.fd.register_irqfd_with_resample(&trigger, &ended, gsi).with_context(what)?;
        Ok(SintInterrupt { trigger, ended, gsi, vm: self.clone() })
    }

    /// From now on HvSignalEvent on `connection` adds 1 to `event` and does not come as an exit. One eventfd a
    /// connection; an assigned one must be taken back first.
    ///
    /// # Errors
    /// The connection has one (EEXIST), or its number has more than 24 bits (EINVAL).
    pub fn assign_signal(&self, connection: u32, event: &impl AsRawFd) -> Result<()> {
        hyperv::signal_eventfd(&self.0.fd, connection, Some(event.as_raw_fd()))
    }

    /// Takes that back.
    ///
    /// # Errors
    /// The connection has none (ENOENT).
    pub fn deassign_signal(&self, connection: u32) -> Result<()> {
        hyperv::signal_eventfd(&self.0.fd, connection, None)
    }

    fn apply(&self, routes: &Routes) -> Result<()> {
        let table = KvmIrqRouting::from_entries(&routes.entries()).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        self.0.fd.set_gsi_routing(&table).context("set the table of interrupt routes")
    }
}

impl SintInterrupt {
    /// What to wait on for the guest's EOM.
    #[must_use]
    pub fn ended_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self.ended`, which closes it only when it is dropped; the result borrows
        // `self`, so that comes later.
        unsafe { BorrowedFd::borrow_raw(self.ended.as_raw_fd()) }
    }
}

impl Drop for SintInterrupt {
    fn drop(&mut self) {
        if let Err(error) = self.vm.0.fd.unregister_irqfd(&self.trigger, self.gsi) {
            log::debug!(target: "vmbus::vmm", "interrupt route {}: {error}", self.gsi);
        }
    }
}
