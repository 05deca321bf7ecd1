//! The first processor at the kernel's 64-bit entry: long mode, flat segments, the first GiB mapped onto itself.

use anyhow::{Context, Result};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};

use super::Loaded;
use crate::memory::GuestRam;

const DESCRIPTORS: u64 = 0x500;
const PAGE_MAP: u64 = 0x9000;
const POINTERS: u64 = 0xa000;
const DIRECTORY: u64 = 0xb000;
const STACK: u64 = 0x8000;

/// Present and writable; and a page of 2 MiB.
const TABLE: u64 = 0b11;
const LARGE_PAGE: u64 = TABLE | (1 << 7);

/// Descriptors by the kernel's numbers: code at 0x10, data at 0x18.
const CODE: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;

const PROTECTED_AND_PAGING: u64 = 1 | (1 << 31);
const PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const LONG_MODE: u64 = (1 << 8) | (1 << 10);

/// Writes the tables that the processor needs, and gives the registers that use them; `special` is what they are now.
///
/// # Errors
/// There is no memory where the tables belong.
pub fn first_processor(ram: &GuestRam, loaded: Loaded, mut special: kvm_sregs) -> Result<(kvm_sregs, kvm_regs)> {
    let store = |at: u64, words: &[u64]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        ram.mapped().write_slice(&bytes, GuestAddress(at)).context("store the first processor's tables")
    };
    let descriptors = [0, 0, CODE, DATA];
    store(DESCRIPTORS, &descriptors)?;
    store(PAGE_MAP, &[POINTERS | TABLE])?;
    store(POINTERS, &[DIRECTORY | TABLE])?;
    let pages: Vec<u64> = (0..512).map(|page| (page << 21) | LARGE_PAGE).collect();
    store(DIRECTORY, &pages)?;

    special.gdt.base = DESCRIPTORS;
    special.gdt.limit = 8 * 4 - 1;
    let flat = kvm_segment { limit: u32::MAX, present: 1, s: 1, g: 1, ..Default::default() };
    special.cs = kvm_segment { selector: 0x10, type_: 0xb, l: 1, ..flat };
    let data = kvm_segment { selector: 0x18, type_: 0x3, db: 1, ..flat };
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    special.cr0 |= PROTECTED_AND_PAGING;
    special.cr3 = PAGE_MAP;
    special.cr4 |= PHYSICAL_ADDRESS_EXTENSION;
    special.efer |= LONG_MODE;
    // Bit 1 of the flags is always set; interrupts are off.
    let general =
        kvm_regs { rip: loaded.entry, rsi: loaded.parameters, rsp: STACK, rbp: STACK, rflags: 2, ..Default::default() };
    Ok((special, general))
}
