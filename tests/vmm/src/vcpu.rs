//! A processor's thread: runs the guest from exit to exit, and takes each to the device that it is for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::devices::clock::{CLOCK_PORT, CLOCK_PORTS, Clock};
use crate::devices::power::{POWER_PORTS, Power};
use crate::devices::serial::Console;
use crate::devices::virtio_console::VirtioConsole;
use crate::ending::{Ender, Ending};
use crate::exits::{Hyperv, Mmio, Ports};
use crate::kvm::{Exit, Vcpu};
use crate::layout::{POWER_PORT, SERIAL_PORT, VIRTIO_BYTES, VIRTIO_CONSOLE};

const SERIAL_PORTS: u16 = 8;
/// The keyboard controller's command port, and the command that pulls the reset line: the kernel's second way.
const KEYBOARD_PORT: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;

const EVENT_SHUTDOWN: u32 = 1;
const EVENT_RESET: u32 = 2;
const EVENT_CRASH: u32 = 3;

const EINTR: i32 = 4;
const EAGAIN: i32 = 11;

/// Everything that an exit can be for.
pub struct Devices {
    /// The serial console.
    pub serial: Console,
    /// The agent's console.
    pub agent: VirtioConsole,
    /// Power-off and reset.
    pub power: Power,
    /// The time of day.
    pub clock: Clock,
    /// Hypercalls and SynIC.
    pub hyperv: Arc<dyn Hyperv>,
    /// Ends the machine.
    pub ender: Ender,
}

impl std::fmt::Debug for Devices {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Devices").finish_non_exhaustive()
    }
}

impl Devices {
    fn ports(&self, port: u16) -> Option<(&dyn Ports, u16)> {
        let within = |first: u16, length: u16| port.checked_sub(first).filter(|offset| *offset < length);
        if let Some(offset) = within(SERIAL_PORT, SERIAL_PORTS) {
            return Some((&self.serial, offset));
        }
        if let Some(offset) = within(CLOCK_PORT, CLOCK_PORTS) {
            return Some((&self.clock, offset));
        }
        within(POWER_PORT, POWER_PORTS).map(|offset| (&self.power as &dyn Ports, offset))
    }

    fn mmio(&self, address: u64) -> Option<(&dyn Mmio, u64)> {
        let offset = address.checked_sub(VIRTIO_CONSOLE).filter(|offset| *offset < VIRTIO_BYTES)?;
        Some((&self.agent, offset))
    }

    fn out(&self, port: u16, data: &[u8]) {
        match self.ports(port) {
            Some((device, offset)) => device.write(offset, data),
            None if port == KEYBOARD_PORT && data.first() == Some(&KEYBOARD_RESET) => {
                self.ender.end(Ending::Reset("by the keyboard controller".to_owned()));
            }
            None => {}
        }
    }
}

/// Runs the processor until the machine ends, or a signal comes after `stop` was set.
pub fn run(mut vcpu: Vcpu, devices: &Devices, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let step = step(&mut vcpu, devices);
        if let Err(ending) = step {
            devices.ender.end(ending);
            return;
        }
    }
}

/// Runs the guest to its next exit and answers that.
fn step(vcpu: &mut Vcpu, devices: &Devices) -> Result<(), Ending> {
    let index = vcpu.index();
    match vcpu.run() {
        Ok(Exit::IoOut(port, data)) => devices.out(port, data),
        Ok(Exit::IoIn(port, data)) => {
            data.fill(0xff);
            if let Some((device, offset)) = devices.ports(port) {
                device.read(offset, data);
            }
        }
        Ok(Exit::MmioWrite(address, data)) => {
            if let Some((device, offset)) = devices.mmio(address) {
                device.write(offset, data);
            }
        }
        Ok(Exit::MmioRead(address, data)) => {
            data.fill(0xff);
            if let Some((device, offset)) = devices.mmio(address) {
                device.read(offset, data);
            }
        }
        Ok(Exit::Hyperv) => vcpu.answer_hyperv(&*devices.hyperv),
        Ok(Exit::Intr | Exit::IrqWindowOpen | Exit::Hlt) => {}
        Ok(Exit::Shutdown) => return Err(Ending::Reset(format!("processor {index} fell thrice{}", place(vcpu)))),
        Ok(Exit::SystemEvent(EVENT_SHUTDOWN, _)) => return Err(Ending::PowerOff),
        Ok(Exit::SystemEvent(EVENT_RESET, _)) => return Err(Ending::Reset("by Hyper-V's reset register".to_owned())),
        Ok(Exit::SystemEvent(EVENT_CRASH, data)) => {
            log::warn!(target: "vmbus::vmm", "the guest says that it has crashed: {data:x?}");
        }
        Ok(Exit::FailEntry(reason, cpu)) => {
            return Err(Ending::Failed(format!("processor {index} can't be entered: {reason:#x} on processor {cpu}")));
        }
        Ok(other) => {
            let other = format!("{other:?}");
            return Err(Ending::Failed(format!("processor {index} stopped: {other}{}", place(vcpu))));
        }
        Err(error) if [EINTR, EAGAIN].contains(&error.errno()) => {}
        Err(error) => return Err(Ending::Failed(format!("run processor {index}: {error}{}", place(vcpu)))),
    }
    Ok(())
}

/// Where the guest was, for a report.
fn place(vcpu: &Vcpu) -> String {
    vcpu.registers().map_or_else(|_| String::new(), |registers| format!(" at {:#x}", registers.rip))
}
