//! Where things are in the guest's physical address space, its I/O ports and its interrupt lines.
//!
//! Memory starts at 0 and is contiguous; everything else lies above [`MEMORY_AT_MOST`].

/// Most memory a guest can have, in bytes: what lies below the devices.
pub const MEMORY_AT_MOST: u64 = 3 << 30;

/// Registers of the virtio console.
pub const VIRTIO_CONSOLE: u64 = 0xd000_0000;
/// Bytes of registers of a virtio device.
pub const VIRTIO_BYTES: u64 = 0x1000;
/// Address range that VMBus devices may give to their drivers, such as a frame buffer.
pub const VMBUS_MMIO: u64 = 0xe000_0000;
/// Its size in bytes.
pub const VMBUS_MMIO_BYTES: u64 = 0x1000_0000;
/// KVM's I/O APIC.
pub const IO_APIC: u32 = 0xfec0_0000;
/// KVM's local APICs.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// A page that KVM wants on Intel processors.
pub const IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that KVM wants on Intel processors.
pub const TASK_STATE: usize = 0xfffb_d000;

/// First of the eight ports of the serial console.
pub const SERIAL_PORT: u16 = 0x3f8;
/// First port of the power registers.
pub const POWER_PORT: u16 = 0x600;

/// Interrupt line of the serial console.
pub const SERIAL_LINE: u32 = 4;
/// Interrupt line of the virtio console.
pub const VIRTIO_CONSOLE_LINE: u32 = 5;
/// Lines of the I/O APIC, numbered from 0; interrupts made at run time are numbered from here on.
pub const IO_APIC_LINES: u32 = 24;
