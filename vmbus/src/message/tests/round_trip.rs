//! Any value under any protocol is encoded and comes back the same, or is refused with a reason.

use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use super::super::{
    ConnectionState, ContactTarget, Features, GpadlBody, GpadlHeader, GpadlId, GuestMessage, HostMessage,
    InitiateContact, MessageError, OfferChannel, OfferFlags, OpenChannel, OpenFlags, Status, Version, VersionResponse,
};
use super::protocols;
use crate::class::Class;

fn guid() -> impl Strategy<Value = Uuid> {
    any::<[u8; 16]>().prop_map(Uuid::from_bytes)
}

fn features() -> impl Strategy<Value = Features> {
    prop_oneof![0..64_u32, any::<u32>()].prop_map(Features::from_bits_retain)
}

fn user_defined() -> impl Strategy<Value = [u8; 120]> {
    vec(any::<u8>(), 120).prop_map(|bytes| bytes.try_into().unwrap())
}

fn offer() -> impl Strategy<Value = HostMessage> {
    let numbers = (any::<u16>(), any::<u16>(), any::<u16>(), any::<u16>(), any::<u32>(), any::<u32>());
    (guid(), guid(), numbers, user_defined(), any::<Option<u8>>(), any::<bool>()).prop_map(
        |(class, instance, numbers, user_defined, monitor_id, is_dedicated)| {
            let (flags, mmio_megabytes, mmio_megabytes_optional, subchannel_index, relid, connection_id) = numbers;
            HostMessage::Offer(Box::new(OfferChannel {
                class: Class(class),
                instance,
                flags: OfferFlags::from_bits_retain(flags),
                mmio_megabytes,
                mmio_megabytes_optional,
                user_defined,
                subchannel_index,
                relid,
                monitor_id,
                is_dedicated,
                connection_id,
            }))
        },
    )
}

fn host() -> impl Strategy<Value = HostMessage> {
    let status = || any::<u32>().prop_map(Status);
    let gpadl = || any::<u32>().prop_map(GpadlId);
    let state = || any::<u8>().prop_map(ConnectionState);
    prop_oneof![
        offer(),
        any::<u32>().prop_map(|relid| HostMessage::Rescind { relid }),
        Just(HostMessage::AllOffersDelivered),
        (any::<u32>(), any::<u32>(), status()).prop_map(|(relid, open_id, status)| HostMessage::OpenResult {
            relid,
            open_id,
            status
        }),
        (any::<u32>(), gpadl(), status()).prop_map(|(relid, gpadl, status)| HostMessage::GpadlCreated {
            relid,
            gpadl,
            status
        }),
        gpadl().prop_map(|gpadl| HostMessage::GpadlTorndown { gpadl }),
        (any::<bool>(), state(), any::<u32>(), proptest::option::of(features())).prop_map(
            |(supported, state, selected, features)| HostMessage::VersionResponse(VersionResponse {
                supported,
                state,
                selected,
                features
            })
        ),
        Just(HostMessage::UnloadResponse),
        any::<u32>().prop_map(|relid| HostMessage::CloseReservedResponse { relid }),
        (guid(), guid(), status()).prop_map(|(endpoint, service, status)| HostMessage::TlConnectResult {
            endpoint,
            service,
            status
        }),
        (any::<u32>(), status()).prop_map(|(relid, status)| HostMessage::ModifyChannelResponse { relid, status }),
        state().prop_map(|state| HostMessage::ModifyConnectionResponse { state }),
        Just(HostMessage::PauseResponse),
    ]
}

fn open() -> impl Strategy<Value = GuestMessage> {
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let flags = prop_oneof![Just(0), any::<u16>()];
    (numbers, user_defined(), any::<Option<(u32, u16)>>(), flags).prop_map(|(numbers, user_defined, signal, flags)| {
        let (relid, open_id, ring, target_vp, downstream_offset_pages) = numbers;
        GuestMessage::Open(Box::new(OpenChannel {
            relid,
            open_id,
            ring: GpadlId(ring),
            target_vp,
            downstream_offset_pages,
            user_defined,
            signal,
            flags: OpenFlags::from_bits_retain(flags),
        }))
    })
}

fn hello() -> impl Strategy<Value = GuestMessage> {
    let version = prop_oneof![proptest::sample::select(Version::ALL.as_slice()), any::<u32>().prop_map(Version)];
    let target = prop_oneof![
        any::<u64>().prop_map(ContactTarget::InterruptPage),
        (any::<u8>(), any::<u8>(), prop_oneof![Just(Features::empty()), features()])
            .prop_map(|(sint, vtl, features)| ContactTarget::Source { sint, vtl, features }),
    ];
    (version, any::<u32>(), target, any::<u64>(), any::<u64>(), proptest::option::of(guid())).prop_map(
        |(version, target_vp, target, parent_to_child_monitor, child_to_parent_monitor, client)| {
            GuestMessage::InitiateContact(InitiateContact {
                version,
                target_vp,
                target,
                parent_to_child_monitor,
                child_to_parent_monitor,
                client,
            })
        },
    )
}

fn guest() -> impl Strategy<Value = GuestMessage> {
    let gpadl = || any::<u32>().prop_map(GpadlId);
    prop_oneof![
        Just(GuestMessage::RequestOffers),
        open(),
        any::<u32>().prop_map(|relid| GuestMessage::Close { relid }),
        (any::<u32>(), gpadl(), any::<u16>(), any::<u16>(), vec(any::<u64>(), 0..30)).prop_map(
            |(relid, gpadl, range_bytes, ranges, words)| {
                GuestMessage::GpadlHeader(GpadlHeader { relid, gpadl, range_bytes, ranges, words })
            }
        ),
        (any::<u32>(), gpadl(), vec(any::<u64>(), 0..30))
            .prop_map(|(number, gpadl, words)| GuestMessage::GpadlBody(GpadlBody { number, gpadl, words })),
        (any::<u32>(), gpadl()).prop_map(|(relid, gpadl)| GuestMessage::GpadlTeardown { relid, gpadl }),
        any::<u32>().prop_map(|relid| GuestMessage::RelidReleased { relid }),
        hello(),
        Just(GuestMessage::Unload),
        (any::<u32>(), any::<u32>(), any::<u32>(), gpadl(), any::<u32>()).prop_map(
            |(relid, target_vp, target_sint, ring, downstream_offset_pages)| GuestMessage::OpenReserved {
                relid,
                target_vp,
                target_sint,
                ring,
                downstream_offset_pages
            }
        ),
        (any::<u32>(), any::<u32>(), any::<u32>())
            .prop_map(|(relid, target_vp, target_sint)| GuestMessage::CloseReserved { relid, target_vp, target_sint }),
        (guid(), guid(), proptest::option::of(guid())).prop_map(|(endpoint, service, silo)| GuestMessage::TlConnect {
            endpoint,
            service,
            silo
        }),
        (any::<u32>(), any::<u32>()).prop_map(|(relid, target_vp)| GuestMessage::ModifyChannel { relid, target_vp }),
        (any::<u64>(), any::<u64>()).prop_map(|(parent_to_child_monitor, child_to_parent_monitor)| {
            GuestMessage::ModifyConnection { parent_to_child_monitor, child_to_parent_monitor }
        }),
        Just(GuestMessage::Pause),
        Just(GuestMessage::Resume),
    ]
}

/// Why a value may be refused. Anything else is a bug.
fn may_refuse(error: &MessageError) -> bool {
    matches!(
        error,
        MessageError::NotAgreed { .. }
            | MessageError::Missing { .. }
            | MessageError::NoPlace { .. }
            | MessageError::TooLong { kind: 8 | 9, .. }
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_the_host_says_comes_back_the_same(message in host()) {
        let mut encoded = 0;
        for protocol in protocols() {
            match message.encode(protocol) {
                Ok(bytes) => {
                    let back = HostMessage::parse(bytes.as_ref(), protocol);
                    prop_assert_eq!(back.as_ref(), Ok(&message), "under {}", protocol);
                    encoded += 1;
                }
                Err(error) => prop_assert!(may_refuse(&error), "{error}"),
            }
        }
        prop_assert!(encoded > 0, "no protocol has a place for it");
    }

    #[test]
    fn what_the_guest_says_comes_back_the_same(message in guest()) {
        for protocol in protocols() {
            if message == GuestMessage::Unload && protocol.version.is_none() {
                continue;
            }
            match message.encode(protocol) {
                Ok(bytes) => {
                    let back = GuestMessage::parse(bytes.as_ref(), protocol);
                    prop_assert_eq!(back.as_ref(), Ok(&message), "under {}", protocol);
                }
                Err(error) => prop_assert!(may_refuse(&error), "{error}"),
            }
        }
    }
}

/// What the fuzz targets run, over what a random generator finds in a second.
mod drivers {
    use super::super::super::doubles;
    use super::*;

    /// A protocol, a type that there is, and any bytes behind it.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        (any::<[u8; 3]>(), 0..31_u8, vec(any::<u8>(), 0..250))
            .prop_map(|(protocol, kind, body)| [protocol.as_slice(), &[kind, 0, 0, 0, 0, 0, 0, 0], &body].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_bytes_of_a_host(bytes in message()) {
            doubles::host_message(&bytes);
        }

        #[test]
        fn any_bytes_of_a_guest(bytes in message()) {
            doubles::guest_message(&bytes);
        }

        #[test]
        fn any_bytes_at_all(bytes in vec(any::<u8>(), 0..300)) {
            doubles::host_message(&bytes);
            doubles::guest_message(&bytes);
        }

        #[test]
        fn any_gpadl(script in vec(any::<u8>(), 0..400)) {
            doubles::gpadl(&script);
        }
    }
}
