//! The ACPI tables: processors, interrupts, the three devices, power-off and reset. The hardware-reduced kind, so that
//! there is no power management block, no timer and no legacy device to emulate.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, Path,
    ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as Space, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use anyhow::{Context, Result, bail};
use vm_memory::{Bytes, GuestAddress};

use crate::devices::power::{RESET_PORT, RESET_VALUE, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT, SLEEP_TYPE_OFF};
use crate::layout::{
    IO_APIC, LOCAL_APIC, SERIAL_LINE, SERIAL_PORT, VIRTIO_BYTES, VIRTIO_CONSOLE, VIRTIO_CONSOLE_LINE, VMBUS_MMIO,
    VMBUS_MMIO_BYTES,
};
use crate::memory::GuestRam;

/// Where the tables begin: in what firmware would take below 1 MiB.
pub const RSDP: u64 = 0xe_0000;
const TABLES_END: u64 = 0xf_0000;

const MAKER: [u8; 6] = *b"VMBUS ";
const MODEL: [u8; 8] = *b"SIMHOST ";

/// Bits of the FADT's boot architecture flags: no VGA to probe, and a CMOS clock that only tells the time.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_CLOCK: u16 = 1 << 5;

/// Writes the tables of a machine with `processors` into the guest's memory, at [`RSDP`].
///
/// # Errors
/// There are too many processors, or they do not fit.
pub fn write(ram: &GuestRam, processors: u32) -> Result<()> {
    // Each table has to know where those that it names are, so the first is the last to be made.
    let mut next = RSDP + 64;
    let mut store = |table: &[u8]| -> Result<u64> {
        let at = next;
        next = (at + table.len() as u64).next_multiple_of(16);
        if next > TABLES_END {
            bail!("the ACPI tables do not fit below the reset vector");
        }
        ram.mapped().write_slice(table, GuestAddress(at)).context("store the ACPI tables")?;
        Ok(at)
    };
    let dsdt = store(devices()?.as_slice())?;
    let fadt = store(&bytes(&fixed(dsdt)))?;
    let madt = store(&bytes(&interrupts(processors)?))?;
    let mut list = XSDT::new(MAKER, MODEL, 1);
    list.add_entry(fadt);
    list.add_entry(madt);
    let list = store(&bytes(&list))?;
    ram.mapped().write_slice(&bytes(&Rsdp::new(MAKER, list)), GuestAddress(RSDP)).context("store the ACPI tables")
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// The fixed table: power-off, reset, and all that is not there.
fn fixed(dsdt: u64) -> acpi_tables::fadt::FADT {
    let register = |port: u16| GAS::new(Space::SystemIo, 8, 0, AccessSize::ByteAccess, port.into());
    let mut fixed = FADTBuilder::new(MAKER, MODEL, 1)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fixed.sleep_control_reg = register(SLEEP_CONTROL_PORT);
    fixed.sleep_status_reg = register(SLEEP_STATUS_PORT);
    fixed.reset_reg = register(RESET_PORT);
    fixed.reset_value = RESET_VALUE;
    fixed.iapc_boot_arch = (NO_VGA | NO_CMOS_CLOCK).into();
    fixed.finalize()
}

fn interrupts(processors: u32) -> Result<MADT> {
    let mut table = MADT::new(MAKER, MODEL, 1, LocalInterruptController::Address(LOCAL_APIC));
    for processor in 0..processors {
        let id = u8::try_from(processor).context("ACPI numbers 255 processors")?;
        table.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(0, IO_APIC, 0));
    Ok(table)
}

/// The differentiated table: what is where.
fn devices() -> Result<Sdt> {
    let path = Path::new;
    let zero = 0_u8;
    let uid = Name::new(path("_UID"), &zero);

    let serial_id = Name::new(path("_HID"), &EISAName::new("PNP0501"));
    let serial_line = Interrupt::new(true, true, false, false, SERIAL_LINE);
    let serial_ports = IO::new(SERIAL_PORT, SERIAL_PORT, 0, 8);
    let serial_place = Name::new(path("_CRS"), &ResourceTemplate::new(vec![&serial_line, &serial_ports]));
    let serial = Device::new(path("COM1"), vec![&serial_id, &uid, &serial_place]);

    let console_id = Name::new(path("_HID"), &"LNRO0005");
    let one = 1_u8;
    let coherent = Name::new(path("_CCA"), &one);
    let (base, length) = (u32::try_from(VIRTIO_CONSOLE)?, u32::try_from(VIRTIO_BYTES)?);
    let console_registers = Memory32Fixed::new(true, base, length);
    let console_line = Interrupt::new(true, true, false, false, VIRTIO_CONSOLE_LINE);
    let console_place = Name::new(path("_CRS"), &ResourceTemplate::new(vec![&console_registers, &console_line]));
    let console = Device::new(path("VCON"), vec![&console_id, &uid, &coherent, &console_place]);

    // The bus has no registers; drivers of its devices find their address range at its parent.
    let bus_id = Name::new(path("_HID"), &"VMBus");
    let nothing = Name::new(path("_CRS"), &ResourceTemplate::new(vec![]));
    let bus = Device::new(path("VMBS"), vec![&bus_id, &uid, &nothing]);
    let module_id = Name::new(path("_HID"), &"ACPI0004");
    let (from, to) = (u32::try_from(VMBUS_MMIO)?, u32::try_from(VMBUS_MMIO + VMBUS_MMIO_BYTES - 1)?);
    let range = AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, from, to, None);
    let module_place = Name::new(path("_CRS"), &ResourceTemplate::new(vec![&range]));
    let module = Device::new(path("VMOD"), vec![&module_id, &uid, &module_place, &bus]);

    let all = Scope::new(path("_SB_"), vec![&serial, &console, &module]);
    let off = Name::new(path("_S5_"), &Package::new(vec![&SLEEP_TYPE_OFF, &zero, &zero, &zero]));
    let mut table = Sdt::new(*b"DSDT", 36, 6, MAKER, MODEL, 1);
    table.append_slice(&bytes(&all));
    table.append_slice(&bytes(&off));
    Ok(table)
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::{RSDP, write};
    use crate::memory::GuestRam;

    fn read(ram: &GuestRam, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        ram.mapped().read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn number(bytes: &[u8]) -> u64 {
        bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    /// A table whose checksum is right.
    fn table(ram: &GuestRam, at: u64) -> Vec<u8> {
        let length = number(&read(ram, at + 4, 4));
        let table = read(ram, at, usize::try_from(length).unwrap());
        assert_eq!(sum(&table), 0, "{:?}", String::from_utf8_lossy(&table[..4]));
        table
    }

    #[test]
    fn the_tables_lead_to_one_another_with_right_checksums() {
        let ram = GuestRam::new(64).unwrap();
        write(&ram, 3).unwrap();
        let root = read(&ram, RSDP, 36);
        assert_eq!((&root[..8], sum(&root[..20]), sum(&root)), (b"RSD PTR ".as_slice(), 0, 0));
        let list = table(&ram, number(&root[24..32]));
        assert_eq!((&list[..4], list.len()), (b"XSDT".as_slice(), 36 + 16));
        let fixed = table(&ram, number(&list[36..44]));
        let madt = table(&ram, number(&list[44..52]));
        assert_eq!((&fixed[..4], &madt[..4]), (b"FACP".as_slice(), b"APIC".as_slice()));
        let dsdt = table(&ram, number(&fixed[140..148]));
        for name in ["VMBus\0", "COM1\x08", "LNRO0005"] {
            assert!(dsdt.windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn each_processor_is_listed() {
        let ram = GuestRam::new(64).unwrap();
        write(&ram, 2).unwrap();
        let list = table(&ram, number(&read(&ram, RSDP + 24, 8)));
        let madt = table(&ram, number(&list[44..52]));
        // Two processors of 8 bytes, one I/O APIC of 12.
        assert_eq!(&madt[44..60], [0, 8, 0, 0, 1, 0, 0, 0, 0, 8, 1, 1, 1, 0, 0, 0]);
        assert_eq!((madt[60], madt.len()), (1, 44 + 16 + 12));
        assert!(write(&ram, 257).is_err());
    }
}
