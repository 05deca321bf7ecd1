//! Layouts of what is said about the connection, and of hvsock connections.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian as le};

use super::{Guid, HEADER_BYTES, Long};

/// Body of 14. The long form has a GUID behind it.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct InitiateContactBody {
    pub(in crate::message) version: le::U32,
    pub(in crate::message) target_vp: le::U32,
    /// An address, or (from 5.0 on) a byte for the interrupt source, one for the trust level, two of padding, and
    /// (from 6.0 on) four with features.
    pub(in crate::message) target: [u8; 8],
    pub(in crate::message) parent_to_child_monitor: le::U64,
    pub(in crate::message) child_to_parent_monitor: le::U64,
}

const _: () = assert!(HEADER_BYTES + size_of::<InitiateContactBody>() == 40);
const _: () = assert!(HEADER_BYTES + size_of::<Long<InitiateContactBody, Guid>>() == 56);

/// Body of 15. The long form has 32 bits of features behind it.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct VersionResponseBody {
    pub(in crate::message) supported: u8,
    pub(in crate::message) state: u8,
    pub(in crate::message) padding: [u8; 2],
    pub(in crate::message) selected: le::U32,
}

const _: () = assert!(HEADER_BYTES + size_of::<VersionResponseBody>() == 16);
const _: () = assert!(HEADER_BYTES + size_of::<Long<VersionResponseBody, le::U32>>() == 20);

/// Body of 21. The long form has a third GUID behind it.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct ServiceBody {
    pub(in crate::message) endpoint: Guid,
    pub(in crate::message) service: Guid,
}

const _: () = assert!(HEADER_BYTES + size_of::<ServiceBody>() == 40);
const _: () = assert!(HEADER_BYTES + size_of::<Long<ServiceBody, Guid>>() == 56);

/// Body of 23.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct ServiceResultBody {
    pub(in crate::message) service: ServiceBody,
    pub(in crate::message) status: le::U32,
}

const _: () = assert!(HEADER_BYTES + size_of::<ServiceResultBody>() == 44);

/// Body of 25.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct ModifyConnectionBody {
    pub(in crate::message) parent_to_child_monitor: le::U64,
    pub(in crate::message) child_to_parent_monitor: le::U64,
}

const _: () = assert!(HEADER_BYTES + size_of::<ModifyConnectionBody>() == 24);

/// Body of 26.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct ConnectionStateBody {
    pub(in crate::message) state: u8,
}

const _: () = assert!(HEADER_BYTES + size_of::<ConnectionStateBody>() == 9);
