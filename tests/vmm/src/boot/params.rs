//! The kernel's parameters: the header from its image, filled in, and the map of memory.

use anyhow::{Context, Result};
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::GuestAddress;

use super::{HIGH_START, LOW_END, ZERO_PAGE};
use crate::memory::GuestRam;

/// A loader without a number of its own.
const OTHER_LOADER: u8 = 0xff;
/// e820: usable.
const USABLE: u32 = 1;
/// e820: leave it alone. The ACPI tables are in there.
const RESERVED: u32 = 2;

/// Writes the parameters of the kernel with this `header` and initial file system (address and size).
pub(super) fn write(
    ram: &GuestRam,
    header: setup_header,
    initrd: (u32, u32),
    (line, line_bytes): (u64, usize),
    rsdp: u64,
) -> Result<()> {
    let mut parameters = boot_params { hdr: header, acpi_rsdp_addr: rsdp, ..Default::default() };
    parameters.hdr.type_of_loader = OTHER_LOADER;
    (parameters.hdr.ramdisk_image, parameters.hdr.ramdisk_size) = initrd;
    parameters.hdr.cmd_line_ptr = u32::try_from(line)?;
    parameters.hdr.cmdline_size = u32::try_from(line_bytes)?;
    let map = memory_map(ram.bytes());
    parameters.e820_entries = u8::try_from(map.len())?;
    let mut table = parameters.e820_table;
    for (slot, (from, to, kind)) in table.iter_mut().zip(map) {
        *slot = boot_e820_entry { addr: from, size: to - from, r#type: kind };
    }
    parameters.e820_table = table;
    let parameters = BootParams::new(&parameters, GuestAddress(ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&parameters, ram.mapped()).context("store the kernel's parameters")
}

/// The guest's memory: from, to, kind.
fn memory_map(bytes: u64) -> [(u64, u64, u32); 3] {
    [(0, LOW_END, USABLE), (LOW_END, HIGH_START, RESERVED), (HIGH_START, bytes, USABLE)]
}
