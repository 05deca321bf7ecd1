//! Puts a Linux kernel where the first processor starts it: the image, its parameters, and the registers of the 64-bit
//! entry (Documentation/arch/x86/boot.rst).

mod params;
mod registers;

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use linux_loader::cmdline::Cmdline;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, KernelLoader, load_cmdline};
use vm_memory::{Bytes, GuestAddress};

pub use self::registers::first_processor;
use crate::devices::power::{RESET_PORT, RESET_VALUE};
use crate::memory::GuestRam;

/// Where the 64-bit entry is in a loaded kernel.
const ENTRY_64: u64 = 0x200;
/// Bit of `xloadflags` that says there is one.
const HAS_ENTRY_64: u16 = 1;

/// The parameters ("zero page").
pub(crate) const ZERO_PAGE: u64 = 0x7000;
/// The command line.
const COMMAND_LINE: u64 = 0x2_0000;
/// Where memory below 1 MiB ends for the kernel.
pub(crate) const LOW_END: u64 = 0x9_fc00;
/// Where the kernel is loaded, and memory begins again.
pub(crate) const HIGH_START: u64 = 0x10_0000;

/// Where a processor starts that is reset, in real mode. A kernel that finds hardware-reduced ACPI and no EFI resets by
/// jumping there.
const RESET_VECTOR: u64 = 0xf_fff0;

/// A kernel in the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Address of its first instruction.
    pub entry: u64,
    /// Address of its parameters.
    pub parameters: u64,
}

/// Loads a bzImage, its initial file system and its command line; `rsdp` is where the ACPI tables begin.
///
/// # Errors
/// A file can't be read, is not what it should be, or does not fit.
pub fn load(ram: &GuestRam, kernel: &Path, initrd: &Path, command_line: &str, rsdp: u64) -> Result<Loaded> {
    let name = kernel.display();
    let mut image = File::open(kernel).with_context(|| format!("open the kernel {name}"))?;
    let start = Some(GuestAddress(HIGH_START));
    let loaded = BzImage::load(ram.mapped(), None, &mut image, start)
        .with_context(|| format!("load {name}: is it a bzImage, and the guest's memory large enough?"))?;
    let header = loaded.setup_header.ok_or_else(|| anyhow!("{name} has no header"))?;
    if header.xloadflags & HAS_ENTRY_64 == 0 {
        bail!("{name} has no 64-bit entry: it must be a 64-bit kernel");
    }
    let needed = loaded.kernel_load.0.saturating_add(u64::from(header.init_size));
    let initrd = load_initrd(ram, initrd, &header, needed.max(loaded.kernel_end))?;
    let limit = usize::try_from(header.cmdline_size)?;
    let line = Cmdline::try_from(command_line, limit)
        .map_err(|error| anyhow!("the kernel's command line ({limit} bytes at most): {error}"))?;
    load_cmdline(ram.mapped(), GuestAddress(COMMAND_LINE), &line).context("store the kernel's command line")?;
    params::write(ram, header, initrd, (COMMAND_LINE, command_line.len()), rsdp)?;
    ram.mapped().write_slice(&reset_code(), GuestAddress(RESET_VECTOR)).context("store the reset vector")?;
    Ok(Loaded { entry: loaded.kernel_load.0 + ENTRY_64, parameters: ZERO_PAGE })
}

/// Loads the initial file system as far up as the kernel allows, and above `kernel_end`: its address and size.
fn load_initrd(ram: &GuestRam, path: &Path, header: &setup_header, kernel_end: u64) -> Result<(u32, u32)> {
    let name = path.display();
    let mut file = File::open(path).with_context(|| format!("open the initial file system {name}"))?;
    let bytes = file.metadata().with_context(|| format!("look at {name}"))?.len();
    let top = ram.bytes().min(u64::from(header.initrd_addr_max).saturating_add(1));
    let place = top.checked_sub(bytes).map(|place| place & !0xfff).filter(|place| *place >= kernel_end);
    let Some(place) = place else {
        bail!("{name} ({} MiB) does not fit beside the kernel: give the guest more memory", bytes >> 20);
    };
    let size = usize::try_from(bytes)?;
    let memory = ram.mapped();
    memory.read_exact_volatile_from(GuestAddress(place), &mut file, size).with_context(|| format!("read {name}"))?;
    Ok((u32::try_from(place)?, u32::try_from(bytes)?))
}

/// All the firmware there is: `mov al, value; mov dx, port; out dx, al`, and then halts for ever.
fn reset_code() -> [u8; 9] {
    let [low, high] = RESET_PORT.to_le_bytes();
    [0xb0, RESET_VALUE, 0xba, low, high, 0xee, 0xf4, 0xeb, 0xfd]
}

#[cfg(test)]
mod tests;
