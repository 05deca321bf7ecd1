//! Layouts of what is said about an offered channel: open, close, GPADLs, moves, release.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian as le};

use super::super::value::USER_DEFINED_BYTES;
use super::{HEADER_BYTES, Long};

/// Body of 2, 7, 13 and 20: nothing but the channel.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct Relid {
    pub(in crate::message) relid: le::U32,
}

const _: () = assert!(HEADER_BYTES + size_of::<Relid>() == 12);

/// Body of 5, and the first part of its long form.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct OpenBody {
    pub(in crate::message) relid: le::U32,
    pub(in crate::message) open_id: le::U32,
    pub(in crate::message) ring: le::U32,
    pub(in crate::message) target_vp: le::U32,
    pub(in crate::message) downstream_offset_pages: le::U32,
    pub(in crate::message) user_defined: [u8; USER_DEFINED_BYTES],
}

const _: () = assert!(HEADER_BYTES + size_of::<OpenBody>() == 148);

/// What the long form of 5 has behind the short one.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct OpenSignal {
    pub(in crate::message) connection_id: le::U32,
    pub(in crate::message) event_flag: le::U16,
    pub(in crate::message) flags: le::U16,
}

const _: () = assert!(HEADER_BYTES + size_of::<Long<OpenBody, OpenSignal>>() == 156);

/// Body of 6.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct OpenResultBody {
    pub(in crate::message) relid: le::U32,
    pub(in crate::message) open_id: le::U32,
    pub(in crate::message) status: le::U32,
}

const _: () = assert!(HEADER_BYTES + size_of::<OpenResultBody>() == 20);

/// What 8 has before its words.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct GpadlHeaderHead {
    pub(in crate::message) relid: le::U32,
    pub(in crate::message) gpadl: le::U32,
    pub(in crate::message) range_bytes: le::U16,
    pub(in crate::message) ranges: le::U16,
}

const _: () = assert!(HEADER_BYTES + size_of::<GpadlHeaderHead>() == 20);

/// What 9 has before its words.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct GpadlBodyHead {
    pub(in crate::message) number: le::U32,
    pub(in crate::message) gpadl: le::U32,
}

const _: () = assert!(HEADER_BYTES + size_of::<GpadlBodyHead>() == 16);

/// Body of 10.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct GpadlResult {
    pub(in crate::message) relid: le::U32,
    pub(in crate::message) gpadl: le::U32,
    pub(in crate::message) status: le::U32,
}

const _: () = assert!(HEADER_BYTES + size_of::<GpadlResult>() == 20);

/// Body of 11.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct RelidGpadl {
    pub(in crate::message) relid: le::U32,
    pub(in crate::message) gpadl: le::U32,
}

const _: () = assert!(HEADER_BYTES + size_of::<RelidGpadl>() == 16);

/// Body of 12.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct TorndownGpadl {
    pub(in crate::message) gpadl: le::U32,
}

const _: () = assert!(HEADER_BYTES + size_of::<TorndownGpadl>() == 12);

/// Body of 18.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct OpenReservedBody {
    pub(in crate::message) target: ReservedTarget,
    pub(in crate::message) ring: le::U32,
    pub(in crate::message) downstream_offset_pages: le::U32,
}

const _: () = assert!(HEADER_BYTES + size_of::<OpenReservedBody>() == 28);

/// Body of 19, and the first part of 18.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct ReservedTarget {
    pub(in crate::message) relid: le::U32,
    pub(in crate::message) target_vp: le::U32,
    pub(in crate::message) target_sint: le::U32,
}

const _: () = assert!(HEADER_BYTES + size_of::<ReservedTarget>() == 20);

/// Body of 22.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct RelidTarget {
    pub(in crate::message) relid: le::U32,
    pub(in crate::message) target_vp: le::U32,
}

const _: () = assert!(HEADER_BYTES + size_of::<RelidTarget>() == 16);

/// Body of 24.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::message) struct RelidStatus {
    pub(in crate::message) relid: le::U32,
    pub(in crate::message) status: le::U32,
}

const _: () = assert!(HEADER_BYTES + size_of::<RelidStatus>() == 16);
