//! What the guest says, byte by byte, as the documents have it: numbers are written out in the order of the wire.

use super::super::{
    ContactTarget, Features, GpadlBody, GpadlHeader, GpadlId, GuestMessage, InitiateContact, OpenChannel, OpenFlags,
    Protocol, Version,
};
use super::{Layout, NIC, NIC_BYTES, OTHER, OTHER_BYTES, check_guest, newest};

const V2_4: Protocol = Protocol::new(Version::V2_4, Features::empty());

#[test]
fn messages_without_a_body_have_8_bytes() {
    check_guest(&Layout::of(3).total(8), &GuestMessage::RequestOffers, V2_4);
    check_guest(&Layout::of(16).total(8), &GuestMessage::Unload, V2_4);
    check_guest(&Layout::of(27).total(8), &GuestMessage::Pause, newest(Features::PAUSE_RESUME));
    check_guest(&Layout::of(29).total(8), &GuestMessage::Resume, newest(Features::PAUSE_RESUME));
}

#[test]
fn open_has_148_bytes_or_156() {
    let short = Layout::of(5)
        .raw(&[0x15, 0, 0, 0]) // relid
        .raw(&[0x15, 0, 0, 0x77]) // open id
        .raw(&[0x10, 0x1e, 0x0e, 0]) // GPADL
        .raw(&[3, 0, 0, 0]) // processor
        .raw(&[0, 2, 0, 0]) // incoming ring from page 512 on
        .fill(120, 0xee)
        .total(148);
    let open = OpenChannel {
        relid: 0x15,
        open_id: 0x7700_0015,
        ring: GpadlId(0xe1e10),
        target_vp: 3,
        downstream_offset_pages: 512,
        user_defined: [0xee; 120],
        signal: None,
        flags: OpenFlags::empty(),
    };
    check_guest(&short, &GuestMessage::Open(Box::new(open.clone())), V2_4);
    check_guest(&short, &GuestMessage::Open(Box::new(open.clone())), newest(Features::CLIENT_ID));

    let signal = Some((0x0001_2015, 0x0415));
    let long = |signal: [u8; 6], flags: [u8; 2]| Layout(short.clone()).raw(&signal).raw(&flags).total(156);
    let both = Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS | Features::CHANNEL_INTERRUPT_REDIRECTION;
    let value = OpenChannel { signal, flags: OpenFlags::REDIRECT_INTERRUPT, ..open.clone() };
    let bytes = long([0x15, 0x20, 0x01, 0x00, 0x15, 0x04], [1, 0]);
    check_guest(&bytes, &GuestMessage::Open(Box::new(value)), newest(both));

    // With one of the features alone, the other's field means nothing.
    let value = OpenChannel { signal, ..open.clone() };
    let message = GuestMessage::Open(Box::new(value));
    assert_eq!(GuestMessage::parse(&bytes, newest(Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS)).as_ref(), Ok(&message));
    let value = OpenChannel { flags: OpenFlags::REDIRECT_INTERRUPT, ..open };
    let message = GuestMessage::Open(Box::new(value));
    let redirection = newest(Features::CHANNEL_INTERRUPT_REDIRECTION);
    assert_eq!(GuestMessage::parse(&bytes, redirection).as_ref(), Ok(&message));
    check_guest(&long([0; 6], [1, 0]), &message, redirection);
}

#[test]
fn close_and_release_have_12_bytes() {
    check_guest(&Layout::of(7).raw(&[1, 2, 3, 4]).total(12), &GuestMessage::Close { relid: 0x0403_0201 }, V2_4);
    check_guest(
        &Layout::of(13).raw(&[1, 2, 3, 4]).total(12),
        &GuestMessage::RelidReleased { relid: 0x0403_0201 },
        V2_4,
    );
}

#[test]
fn gpadl_header_has_20_bytes_and_words() {
    let bytes = Layout::of(8)
        .raw(&[7, 0, 0, 0]) // relid
        .raw(&[0x10, 0x1e, 0x0e, 0]) // GPADL
        .raw(&[24, 0]) // bytes of range words
        .raw(&[1, 0]) // ranges
        .raw(&[0, 0x20, 0, 0, 0, 0, 0, 0]) // 8192 bytes from offset 0
        .raw(&[0x34, 0x12, 0, 0, 0, 0, 0, 0])
        .raw(&[0x35, 0x12, 0, 0, 0, 0, 0, 0x80])
        .total(44);
    let value = GuestMessage::GpadlHeader(GpadlHeader {
        relid: 7,
        gpadl: GpadlId(0xe1e10),
        range_bytes: 24,
        ranges: 1,
        words: vec![0x2000, 0x1234, 0x8000_0000_0000_1235],
    });
    check_guest(&bytes, &value, V2_4);
    // A rest that makes no word is padding.
    let padded = Layout(bytes).fill(7, 0xff).total(51);
    assert_eq!(GuestMessage::parse(&padded, V2_4), Ok(value));
}

#[test]
fn gpadl_body_has_16_bytes_and_words() {
    let bytes =
        Layout::of(9).raw(&[2, 0, 0, 0]).raw(&[0x10, 0x1e, 0x0e, 0]).raw(&[0x36, 0x12, 0, 0, 0, 0, 0, 0]).total(24);
    let value = GuestMessage::GpadlBody(GpadlBody { number: 2, gpadl: GpadlId(0xe1e10), words: vec![0x1236] });
    check_guest(&bytes, &value, V2_4);
}

#[test]
fn gpadl_teardown_has_16_bytes() {
    let bytes = Layout::of(11).raw(&[7, 0, 0, 0]).raw(&[0x10, 0x1e, 0x0e, 0]).total(16);
    check_guest(&bytes, &GuestMessage::GpadlTeardown { relid: 7, gpadl: GpadlId(0xe1e10) }, V2_4);
}

/// The hello with this version and this union, up to where the long form goes on.
fn hello(version: [u8; 4], target: [u8; 8]) -> Vec<u8> {
    Layout::of(14)
        .raw(&version)
        .raw(&[5, 0, 0, 0]) // processor
        .raw(&target)
        .raw(&[0, 0x10, 0, 0, 1, 0, 0, 0]) // page from host to guest
        .raw(&[0, 0x20, 0, 0, 1, 0, 0, 0]) // page from guest to host
        .total(40)
}

fn contact(version: Version, target: ContactTarget) -> InitiateContact {
    InitiateContact {
        version,
        target_vp: 5,
        target,
        parent_to_child_monitor: 0x1_0000_1000,
        child_to_parent_monitor: 0x1_0000_2000,
        client: None,
    }
}

#[test]
fn initiate_contact_has_40_bytes_or_56() {
    let bytes = hello([1, 0, 4, 0], [0, 0x30, 0, 0, 2, 0, 0, 0]);
    let value = contact(Version::V4_1, ContactTarget::InterruptPage(0x2_0000_3000));
    check_guest(&bytes, &GuestMessage::InitiateContact(value), Protocol::NONE);

    let source = |features| ContactTarget::Source { sint: 2, vtl: 1, features };
    let bytes = hello([3, 0, 5, 0], [2, 1, 0, 0, 0, 0, 0, 0]);
    let value = contact(Version::V5_3, source(Features::empty()));
    check_guest(&bytes, &GuestMessage::InitiateContact(value.clone()), Protocol::NONE);
    // What 6.0 has there is reserved in 5.3, and so is what comes behind it.
    let noisy = Layout(hello([3, 0, 5, 0], [2, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])).fill(200, 0xff).total(240);
    assert_eq!(GuestMessage::parse(&noisy, Protocol::NONE), Ok(GuestMessage::InitiateContact(value)));

    let long = Layout(hello([0, 0, 6, 0], [2, 1, 0, 0, 0x0b, 0, 0, 0])).raw(&OTHER_BYTES).total(56);
    let features =
        Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS | Features::CHANNEL_INTERRUPT_REDIRECTION | Features::CLIENT_ID;
    let value = InitiateContact { client: Some(OTHER), ..contact(Version::V6_0, source(features)) };
    check_guest(&long, &GuestMessage::InitiateContact(value), Protocol::NONE);
}

#[test]
fn open_reserved_has_28_bytes() {
    let bytes = Layout::of(18)
        .raw(&[9, 0, 0, 0])
        .raw(&[4, 0, 0, 0])
        .raw(&[7, 0, 0, 0])
        .raw(&[0x10, 0x1e, 0x0e, 0])
        .raw(&[16, 0, 0, 0])
        .total(28);
    let value = GuestMessage::OpenReserved {
        relid: 9,
        target_vp: 4,
        target_sint: 7,
        ring: GpadlId(0xe1e10),
        downstream_offset_pages: 16,
    };
    check_guest(&bytes, &value, Protocol::new(Version::V4_0, Features::empty()));
}

#[test]
fn close_reserved_has_20_bytes() {
    let bytes = Layout::of(19).raw(&[9, 0, 0, 0]).raw(&[4, 0, 0, 0]).raw(&[7, 0, 0, 0]).total(20);
    check_guest(&bytes, &GuestMessage::CloseReserved { relid: 9, target_vp: 4, target_sint: 7 }, Protocol::NONE);
}

#[test]
fn tl_connect_has_40_bytes_or_56() {
    let short = Layout::of(21).raw(&OTHER_BYTES).raw(&NIC_BYTES).total(40);
    let value = GuestMessage::TlConnect { endpoint: OTHER, service: NIC, silo: None };
    check_guest(&short, &value, Protocol::new(Version::V4_0, Features::empty()));
    check_guest(&short, &value, Protocol::new(Version::V5_2, Features::empty()));

    let long = Layout(short).raw(&OTHER_BYTES).total(56);
    let with_silo = GuestMessage::TlConnect { endpoint: OTHER, service: NIC, silo: Some(OTHER) };
    check_guest(&long, &with_silo, Protocol::new(Version::V5_2, Features::empty()));
    let older = Protocol::new(Version::V5_1, Features::empty());
    assert_eq!(GuestMessage::parse(&long, older), Ok(value));
}

#[test]
fn modify_channel_has_16_bytes() {
    let bytes = Layout::of(22).raw(&[3, 0, 0, 0]).raw(&[0xff, 0xff, 0xff, 0xff]).total(16);
    let value = GuestMessage::ModifyChannel { relid: 3, target_vp: u32::MAX };
    check_guest(&bytes, &value, Protocol::new(Version::V4_1, Features::empty()));
}

#[test]
fn modify_connection_has_24_bytes() {
    let bytes = Layout::of(25).raw(&[0, 0x10, 0, 0, 1, 0, 0, 0]).raw(&[0, 0x20, 0, 0, 1, 0, 0, 0]).total(24);
    let value = GuestMessage::ModifyConnection {
        parent_to_child_monitor: 0x1_0000_1000,
        child_to_parent_monitor: 0x1_0000_2000,
    };
    check_guest(&bytes, &value, newest(Features::MODIFY_CONNECTION));
}
