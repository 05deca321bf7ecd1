//! VMBus ring buffers.
#![no_std]
