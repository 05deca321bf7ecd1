//! KVM: the virtual machine, its processors, and interrupts and eventfds of Hyper-V's kind.
//!
//! The only unsafe code of this crate is in this folder: calls that `kvm-ioctls` does not have or leaves to its user to
//! get right (memory slots, Hyper-V's calls, the exit area). Each block carries its proof.
#![expect(unsafe_code, reason = "KVM's Hyper-V calls have no safe wrapper; each block carries its proof")]

mod hyperv;
mod routes;
mod vcpu;
mod vm;

pub use vcpu::{Exit, Vcpu};
pub use vm::{Line, SintInterrupt, Vm};
