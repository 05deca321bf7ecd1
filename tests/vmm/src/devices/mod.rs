//! The devices that are not KVM's: a serial console, the agent's virtio console, the power registers and
//! a clock.

pub mod clock;
pub mod power;
pub mod serial;
pub mod virtio_console;
