//! What a processor says that it is: KVM's own answer, without a topology, and with Hyper-V in place of KVM.

use anyhow::{Result, anyhow};
use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// First leaf of the hypervisor.
const HYPERVISOR: u32 = 0x4000_0000;
/// Last leaf that a hypervisor may have.
const HYPERVISOR_END: u32 = 0x4fff_ffff;
/// Leaf of Hyper-V's features.
const FEATURES: u32 = 0x4000_0003;
/// Its EBX bit of the calls from 0x8001 on. KVM passes those on to us, who have none of them.
const EXTENDED_CALLS: u32 = 1 << 20;
/// Its EAX bit of the synthetic timers.
const TIMERS: u32 = 1 << 3;
/// What `Microsoft Hv` is in three registers. KVM calls itself otherwise, and Linux looks for this.
const SIGNATURE: [&[u8; 4]; 3] = [b"Micr", b"osof", b"t Hv"];
/// Leaves that tell a processor its place among others. Without them each is a package of its own.
const TOPOLOGY: [u32; 4] = [0xb, 0x1f, 0x8000_001e, 0x8000_0026];

/// The leaves of processor `index`, from those of any processor and those of Hyper-V, whose timers it has or has not.
///
/// # Errors
/// They are more than KVM takes, or Hyper-V's lack something without which the guest has no VMBus.
pub fn leaves(supported: &CpuId, hyperv: &CpuId, index: u32, timers: bool) -> Result<CpuId> {
    let mut leaves = Vec::new();
    for entry in supported.as_slice() {
        let mut entry = *entry;
        if (HYPERVISOR..=HYPERVISOR_END).contains(&entry.function) || TOPOLOGY.contains(&entry.function) {
            continue;
        }
        alone(&mut entry, index);
        leaves.push(entry);
    }
    check(hyperv)?;
    for entry in hyperv.as_slice() {
        let mut entry = *entry;
        match entry.function {
            HYPERVISOR => [entry.ebx, entry.ecx, entry.edx] = SIGNATURE.map(|part| u32::from_le_bytes(*part)),
            FEATURES => {
                entry.ebx &= !EXTENDED_CALLS;
                entry.eax &= if timers { u32::MAX } else { !TIMERS };
            }
            _ => {}
        }
        leaves.push(entry);
    }
    CpuId::from_entries(&leaves).map_err(|error| anyhow!("{} CPUID leaves: {error:?}", leaves.len()))
}

/// Makes the processor one of a package of its own, in a virtual machine.
fn alone(entry: &mut kvm_cpuid_entry2, index: u32) {
    match entry.function {
        1 => {
            // APIC id, and one logical processor.
            entry.ebx = (entry.ebx & 0x0000_ffff) | (1 << 16) | (index << 24);
            // There is a hypervisor.
            entry.ecx |= 1 << 31;
            // No more than one logical processor (HTT).
            entry.edx &= !(1 << 28);
        }
        // Cores of the package, and processors that share the cache.
        4 => entry.eax &= 0x0000_3fff,
        0x8000_001d => entry.eax &= 0x0000_3fff,
        // No extended topology, and not several cores the old way.
        0x8000_0001 => entry.ecx &= !((1 << 22) | (1 << 1)),
        0x8000_0008 => entry.ecx = 0,
        _ => {}
    }
}

/// Whether Hyper-V's leaves have what VMBus needs.
fn check(hyperv: &CpuId) -> Result<()> {
    // SynIC, hypercalls and VP index in EAX, posting and signalling in EBX.
    let features = hyperv.as_slice().iter().find(|entry| entry.function == FEATURES);
    let features = features.ok_or_else(|| anyhow!("this KVM has no Hyper-V features"))?;
    let needs = [
        (features.eax & (1 << 2), "the SynIC"),
        (features.eax & (1 << 5), "hypercalls"),
        (features.eax & (1 << 6), "the VP index"),
        (features.ebx & (1 << 4), "HvPostMessage"),
        (features.ebx & (1 << 5), "HvSignalEvent"),
    ];
    match needs.iter().find(|(bit, _)| *bit == 0) {
        Some((_, missing)) => Err(anyhow!("this KVM does not emulate {missing} of Hyper-V, which VMBus needs")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use kvm_bindings::{CpuId, kvm_cpuid_entry2};

    use super::leaves;

    fn entry(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() }
    }

    fn registers(leaves: &CpuId, function: u32) -> Option<[u32; 4]> {
        let entry = leaves.as_slice().iter().find(|entry| entry.function == function)?;
        Some([entry.eax, entry.ebx, entry.ecx, entry.edx])
    }

    fn hyperv(features: u32) -> CpuId {
        let signature = entry(0x4000_0000, [0x4000_000a, 1, 2, 3]);
        CpuId::from_entries(&[signature, entry(0x4000_0003, [features, 0x10_0030, 0, 0])]).unwrap()
    }

    #[test]
    fn hyperv_takes_the_place_of_kvm() {
        let kvm = [entry(0x4000_0000, [0x4000_0001, 9, 9, 9]), entry(0x4000_0001, [9; 4]), entry(0xb, [9; 4])];
        let made = leaves(&CpuId::from_entries(&kvm).unwrap(), &hyperv(0xff), 1, true).unwrap();
        let words = b"Microsoft Hv".chunks(4).map(|part| u32::from_le_bytes(part.try_into().unwrap()));
        assert_eq!(registers(&made, 0x4000_0000).unwrap()[1..], words.collect::<Vec<_>>());
        assert_eq!(registers(&made, 0x4000_0000).unwrap()[0], 0x4000_000a);
        assert_eq!(registers(&made, 0x4000_0003), Some([0xff, 0x30, 0, 0]));
        assert_eq!((registers(&made, 0x4000_0001), registers(&made, 0xb)), (None, None));
    }

    #[test]
    fn each_processor_is_a_package_of_its_own() {
        let entries = [entry(1, [7, 0xff10_0800, 0, u32::MAX]), entry(0x8000_0008, [0x3028, 5, 0x7007, 6])];
        let made = leaves(&CpuId::from_entries(&entries).unwrap(), &hyperv(0xff), 1, false).unwrap();
        assert_eq!(registers(&made, 0x4000_0003).unwrap()[0], 0xf7);
        assert_eq!(registers(&made, 1), Some([7, 0x0101_0800, 1 << 31, !(1 << 28)]));
        assert_eq!(registers(&made, 0x8000_0008), Some([0x3028, 5, 0, 6]));
    }

    #[test]
    fn what_the_bus_needs_and_kvm_lacks_is_named() {
        let none = CpuId::from_entries(&[]).unwrap();
        assert!(leaves(&none, &none, 0, true).unwrap_err().to_string().contains("no Hyper-V"));
        assert!(leaves(&none, &hyperv(0xff & !4), 0, true).unwrap_err().to_string().contains("the SynIC"));
    }
}
