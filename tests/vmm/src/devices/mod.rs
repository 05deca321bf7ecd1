//! The devices that are not KVM's: a serial console, the agent's virtio console, and the power registers.

pub mod power;
pub mod serial;
pub mod virtio_console;
