//! What the host says, byte by byte, as the documents have it: numbers are written out in the order of the wire.

use super::super::{
    ConnectionState, Features, GpadlId, HostMessage, OfferChannel, OfferFlags, Protocol, Status, Version,
    VersionResponse,
};
use super::{Layout, NIC, NIC_BYTES, OTHER, OTHER_BYTES, check_host, newest};
use crate::class::Class;

const V2_4: Protocol = Protocol::new(Version::V2_4, Features::empty());

#[test]
fn offer_has_196_bytes() {
    let bytes = Layout::of(1)
        .raw(&NIC_BYTES)
        .raw(&OTHER_BYTES)
        .fill(16, 0)
        .raw(&[0x11, 0x20]) // flags: enumerate, named pipe, hvsock
        .raw(&[0x08, 0x01]) // 264 MiB of address space
        .fill(119, 0xa5)
        .raw(&[0x5a])
        .raw(&[0x02, 0x01]) // subchannel 258
        .raw(&[0x10, 0x00]) // 16 MiB more, if possible
        .raw(&[0xff, 0x07, 0x00, 0x00]) // relid 2047
        .raw(&[0x7f]) // monitor id 127 ...
        .raw(&[0x01]) // ... is allocated
        .raw(&[0x01, 0x00]) // dedicated
        .raw(&[0xff, 0x27, 0x00, 0x00]) // connection 0x27ff
        .total(196);
    let mut user_defined = [0xa5; 120];
    user_defined[119] = 0x5a;
    let offer = OfferChannel {
        class: Class(NIC),
        instance: OTHER,
        flags: OfferFlags::ENUMERATE_DEVICE_INTERFACE | OfferFlags::NAMED_PIPE_MODE | OfferFlags::TLNPI_PROVIDER,
        mmio_megabytes: 264,
        mmio_megabytes_optional: 16,
        user_defined,
        subchannel_index: 258,
        relid: 2047,
        monitor_id: Some(127),
        is_dedicated: true,
        connection_id: 0x27ff,
    };
    check_host(&bytes, &HostMessage::Offer(Box::new(offer.clone())), V2_4);

    // Neither flag set: what is beside them means nothing. The other bits are reserved.
    let mut bytes = bytes;
    bytes[189] = 0xfe;
    bytes[190] = 0xfe;
    let plain = OfferChannel { monitor_id: None, is_dedicated: false, ..offer };
    assert_eq!(HostMessage::parse(&bytes, V2_4), Ok(HostMessage::Offer(Box::new(plain))));
}

#[test]
fn offer_flags_of_confidential_channels() {
    assert_eq!(OfferFlags::CONFIDENTIAL_RING_BUFFER.bits(), 2);
    assert_eq!(OfferFlags::CONFIDENTIAL_EXTERNAL_MEMORY.bits(), 4);
}

#[test]
fn rescind_has_12_bytes() {
    let bytes = Layout::of(2).raw(&[0x78, 0x56, 0x34, 0x12]).total(12);
    check_host(&bytes, &HostMessage::Rescind { relid: 0x1234_5678 }, V2_4);
}

#[test]
fn messages_without_a_body_have_8_bytes() {
    check_host(&Layout::of(4).total(8), &HostMessage::AllOffersDelivered, V2_4);
    check_host(&Layout::of(17).total(8), &HostMessage::UnloadResponse, V2_4);
    check_host(&Layout::of(28).total(8), &HostMessage::PauseResponse, newest(Features::PAUSE_RESUME));
}

#[test]
fn open_result_has_20_bytes() {
    let bytes =
        Layout::of(6).raw(&[7, 0, 0, 0]).raw(&[0x0d, 0x0c, 0x0b, 0x0a]).raw(&[0xff, 0xff, 0x00, 0x80]).total(20);
    let value = HostMessage::OpenResult { relid: 7, open_id: 0x0a0b_0c0d, status: Status::UNSUCCESSFUL };
    check_host(&bytes, &value, V2_4);
}

#[test]
fn gpadl_created_has_20_bytes() {
    let bytes = Layout::of(10).raw(&[7, 0, 0, 0]).raw(&[0x10, 0x1e, 0x0e, 0]).raw(&[0, 0, 0, 0]).total(20);
    let value = HostMessage::GpadlCreated { relid: 7, gpadl: GpadlId(0xe1e10), status: Status::SUCCESS };
    check_host(&bytes, &value, V2_4);
}

#[test]
fn gpadl_torndown_has_12_bytes_and_no_channel() {
    let bytes = Layout::of(12).raw(&[0x10, 0x1e, 0x0e, 0]).total(12);
    check_host(&bytes, &HostMessage::GpadlTorndown { gpadl: GpadlId(0xe1e10) }, V2_4);
}

#[test]
fn version_response_has_16_bytes_or_20() {
    let short = Layout::of(15).raw(&[1]).raw(&[2]).raw(&[0, 0]).raw(&[4, 0, 0x80, 0]).total(16);
    let value = VersionResponse {
        supported: true,
        state: ConnectionState::FAILED_UNKNOWN,
        selected: 0x0080_0004,
        features: None,
    };
    check_host(&short, &HostMessage::VersionResponse(value.clone()), Protocol::NONE);
    check_host(&short, &HostMessage::VersionResponse(value.clone()), newest(Features::all()));

    let long = Layout(short).raw(&[0x28, 0, 0, 0x40]).total(20);
    let features = Features::CLIENT_ID | Features::PAUSE_RESUME | Features::from_bits_retain(0x4000_0000);
    let value = VersionResponse { features: Some(features), ..value };
    check_host(&long, &HostMessage::VersionResponse(value), Protocol::NONE);
}

#[test]
fn close_reserved_response_has_12_bytes() {
    let bytes = Layout::of(20).raw(&[9, 0, 0, 0]).total(12);
    let protocol = Protocol::new(Version::V4_0, Features::empty());
    check_host(&bytes, &HostMessage::CloseReservedResponse { relid: 9 }, protocol);
}

#[test]
fn tl_connect_result_has_44_bytes() {
    let bytes = Layout::of(23).raw(&NIC_BYTES).raw(&OTHER_BYTES).raw(&[0x36, 0x02, 0x00, 0xc0]).total(44);
    let value = HostMessage::TlConnectResult { endpoint: NIC, service: OTHER, status: Status::CONNECTION_REFUSED };
    check_host(&bytes, &value, Protocol::new(Version::V4_1, Features::empty()));
}

#[test]
fn modify_channel_response_has_16_bytes() {
    let bytes = Layout::of(24).raw(&[3, 0, 0, 0]).raw(&[1, 0, 0, 0]).total(16);
    let value = HostMessage::ModifyChannelResponse { relid: 3, status: Status(1) };
    check_host(&bytes, &value, Protocol::new(Version::V5_3, Features::empty()));
}

#[test]
fn modify_connection_response_has_9_bytes() {
    let bytes = Layout::of(26).raw(&[1]).total(9);
    let value = HostMessage::ModifyConnectionResponse { state: ConnectionState::FAILED_LOW_RESOURCES };
    check_host(&bytes, &value, newest(Features::MODIFY_CONNECTION));
}
