//! What a virtual processor asks of the machine when KVM can't answer by itself. All calls come on the processor's own
//! thread, which runs on when they return: they must be short, and must not wait for the guest.

/// A hypercall that KVM leaves to us: HvPostMessage, HvSignalEvent without an eventfd, extended calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hypercall {
    /// The call's input value: code, flags, counts.
    pub input: u64,
    /// Guest physical address of the input block, or its first 8 bytes if the call is [fast](Self::is_fast).
    pub first: u64,
    /// Guest physical address of the output block, or the second 8 bytes of input if the call is fast.
    pub second: u64,
}

impl Hypercall {
    /// HvPostMessage.
    pub const POST_MESSAGE: u16 = 0x5c;
    /// HvSignalEvent.
    pub const SIGNAL_EVENT: u16 = 0x5d;
    /// Result of a call that does not exist (HV_STATUS_INVALID_HYPERCALL_CODE).
    pub const INVALID_CODE: u64 = 2;

    /// Which call it is.
    #[must_use]
    pub fn code(&self) -> u16 {
        let [low, high, ..] = self.input.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Whether the input is in registers, not in memory.
    #[must_use]
    pub fn is_fast(&self) -> bool {
        self.input & (1 << 16) != 0
    }
}

/// A processor's SynIC after its guest wrote one of the registers that the machine must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synic {
    /// Number of the register written: SCONTROL 0x4000_0080, SIEFP 0x4000_0082, SIMP 0x4000_0083.
    pub register: u32,
    /// SCONTROL; bit 0: the SynIC is on.
    pub control: u64,
    /// SIEFP: bit 0 enables the event flags page, whose address the bits from 12 on are.
    pub event_page: u64,
    /// SIMP: the same of the message page.
    pub message_page: u64,
}

/// The Hyper-V side of the machine.
pub trait Hyperv: Send + Sync {
    /// Processor `vcpu` called; the return value is the call's result (a HV_STATUS in the low 16 bits).
    fn hypercall(&self, vcpu: u32, call: Hypercall) -> u64;

    /// The guest changed the SynIC of processor `vcpu`.
    fn synic(&self, vcpu: u32, synic: Synic);
}

/// A Hyper-V without a bus: calls do not exist, messages never come.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBus;

impl Hyperv for NoBus {
    fn hypercall(&self, vcpu: u32, call: Hypercall) -> u64 {
        log::debug!(target: "vmbus::vmm", "processor {vcpu}: hypercall {:#x} with no bus", call.code());
        Hypercall::INVALID_CODE
    }

    fn synic(&self, vcpu: u32, synic: Synic) {
        log::debug!(target: "vmbus::vmm", "processor {vcpu}: {synic:x?} with no bus");
    }
}

/// A device at I/O ports.
pub trait Ports: Send + Sync {
    /// The guest reads; `offset` counts from the device's first port. What is not filled in reads as ones.
    fn read(&self, offset: u16, data: &mut [u8]);

    /// The guest writes.
    fn write(&self, offset: u16, data: &[u8]);
}

/// A device at memory addresses.
pub trait Mmio: Send + Sync {
    /// The guest reads; `offset` counts from the device's first address. What is not filled in reads as ones.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// The guest writes.
    fn write(&self, offset: u64, data: &[u8]);
}

#[cfg(test)]
mod tests {
    use super::Hypercall;

    #[test]
    fn a_call_is_taken_apart() {
        let call = Hypercall { input: 0x0001_005d, first: 3, second: 0 };
        assert_eq!((call.code(), call.is_fast()), (Hypercall::SIGNAL_EVENT, true));
        let call = Hypercall { input: 0xffff_0000_0000_005c, ..call };
        assert_eq!((call.code(), call.is_fast()), (Hypercall::POST_MESSAGE, false));
    }
}
