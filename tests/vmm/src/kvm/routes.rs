//! The table of interrupt routes: numbers ("GSIs") to the I/O APIC, the old controllers, or a SynIC's SINT.

use kvm_bindings::{
    KVM_IRQ_ROUTING_HV_SINT, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, kvm_irq_routing_entry, kvm_irq_routing_hv_sint, kvm_irq_routing_irqchip,
};

use crate::layout::IO_APIC_LINES;

/// All routes of a machine; KVM takes only whole tables.
#[derive(Debug)]
pub(super) struct Routes {
    sints: Vec<(u32, u32)>,
}

impl Routes {
    /// The lines of the I/O APIC and the old controllers, as a PC has them.
    pub(super) fn new() -> Self {
        Self { sints: Vec::new() }
    }

    /// The number of the route to SINT `sint` of processor `vcpu`, and whether it is new.
    pub(super) fn sint(&mut self, vcpu: u32, sint: u32) -> (u32, bool) {
        let known = self.sints.iter().position(|route| *route == (vcpu, sint));
        let index = known.unwrap_or(self.sints.len());
        if known.is_none() {
            self.sints.push((vcpu, sint));
        }
        (IO_APIC_LINES.saturating_add(u32::try_from(index).unwrap_or(u32::MAX)), known.is_none())
    }

    /// The table.
    pub(super) fn entries(&self) -> Vec<kvm_irq_routing_entry> {
        let mut entries = Vec::new();
        for line in 0..IO_APIC_LINES {
            entries.push(chip(line, KVM_IRQCHIP_IOAPIC, line));
            match line {
                0..8 => entries.push(chip(line, KVM_IRQCHIP_PIC_MASTER, line)),
                8..16 => entries.push(chip(line, KVM_IRQCHIP_PIC_SLAVE, line - 8)),
                _ => {}
            }
        }
        for (gsi, (vcpu, sint)) in (IO_APIC_LINES..).zip(&self.sints) {
            let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_HV_SINT, ..Default::default() };
            entry.u.hv_sint = kvm_irq_routing_hv_sint { vcpu: *vcpu, sint: *sint };
            entries.push(entry);
        }
        entries
    }
}

fn chip(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
    entry
}

#[cfg(test)]
mod tests {
    use kvm_bindings::{KVM_IRQ_ROUTING_HV_SINT, KVM_IRQ_ROUTING_IRQCHIP};

    use super::Routes;

    #[test]
    fn sints_come_after_the_lines_and_keep_their_numbers() {
        let mut routes = Routes::new();
        assert_eq!(routes.entries().len(), 24 + 16);
        assert!(routes.entries().iter().all(|entry| entry.type_ == KVM_IRQ_ROUTING_IRQCHIP && entry.gsi < 24));
        assert_eq!([routes.sint(0, 2), routes.sint(1, 2), routes.sint(0, 2)], [(24, true), (25, true), (24, false)]);
        let last = *routes.entries().last().unwrap();
        assert_eq!((last.gsi, last.type_), (25, KVM_IRQ_ROUTING_HV_SINT));
    }
}
