//! A small virtual machine monitor: an unmodified Linux guest on KVM, with the simulated host as its VMBus.
//!
//! ```text
//!     host  ->  ringbuf  <-  vmbus  <-  channels  <-  devices  <-  application
//!                              ^                         ^
//!                              +------ tests/simhost ----+
//!                                      tests/vmm         the host core of simhost, under a real kernel
//!                                      ^^^^^^^^^ you are here
//! ```
//!
//! It emulates what a kernel needs to boot and to find VMBus, and no more: processors and interrupt controllers are
//! KVM's, so are the hypercall page, the SynIC and the timers; there is a serial console, a virtio console for the lab's
//! agent, and power-off. It has no disk, no network and no PCI.

#![deny(unsafe_code)]

pub mod acpi;
pub mod boot;
pub mod bus;
pub mod bus_memory;
pub mod control;
pub mod cpuid;
pub mod devices;
pub mod ending;
pub mod endpoint;
mod event;
pub mod exits;
pub mod hypercall;
pub mod kvm;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod shared;
pub mod synic;
pub mod vcpu;
pub mod wires;
