//! Each operation, and each field at its limits.

use super::facts::Facts;
use super::network::NoNetwork;
use super::*;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

struct Two;

impl Facts for Two {
    fn all(&self) -> Vec<(String, String)> {
        vec![("OSName".to_owned(), "Ürban 🐧".to_owned()), ("Long".to_owned(), "🐧".repeat(700))]
    }
}

#[derive(Clone, Default)]
struct Net(Arc<Mutex<Vec<IpSettings>>>);

impl Network for Net {
    fn settings(&mut self, _: &str) -> Result<IpSettings, Status> {
        self.0.lock().unwrap().last().cloned().ok_or(Status::GUID_NOT_FOUND)
    }

    fn configure(&mut self, settings: &IpSettings) -> Result<(), String> {
        self.0.lock().unwrap().push(settings.clone());
        Ok(())
    }
}

fn units(text: &str, into: &mut [U16]) -> U32 {
    let encoded: Vec<u16> = text.encode_utf16().chain([0]).collect();
    for (unit, encoded) in into.iter_mut().zip(&encoded) {
        *unit = U16::new(*encoded);
    }
    U32::new(u32::try_from(encoded.len() * 2).unwrap())
}

fn message(operation: Operation, pool: u8, body: &[u8]) -> Vec<u8> {
    [&[operation.0, pool, 0, 0], body].concat()
}

fn value(key: &str, kind: u32, text: &str) -> Value {
    let mut value = Value::read_from_bytes(&[0; 2572]).unwrap();
    value.kind = U32::new(kind);
    value.key_bytes = units(key, &mut value.key_text);
    value.value_bytes = units(text, &mut value.value_text);
    value
}

fn enumerate(index: u32) -> Vec<u8> {
    [&index.to_le_bytes()[..], &[0; 2572]].concat()
}

struct Guest {
    folder: tempfile::TempDir,
    kvp: Kvp<Two, Net>,
    events: Vec<Event>,
}

impl Guest {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kvp = Kvp::new(Pools::in_folder(folder.path()), Two, Net::default());
        Self { folder, kvp, events: Vec::new() }
    }

    fn ask(&mut self, body: &mut [u8]) -> Status {
        let events = &mut self.events;
        self.kvp.request(Duration::ZERO, Version::new(4, 0), body, &mut |event| events.push(event))
    }
}

fn read(body: &[u8], at: usize) -> (String, String) {
    let value = Value::read_from_prefix(&body[at..]).unwrap().0;
    assert_eq!(value.kind.get(), 1);
    let key = if value.key_bytes.get() == 0 { String::new() } else { value.key().unwrap() };
    (key, value.value().unwrap())
}

#[test]
fn keys_are_set_got_enumerated_and_deleted() {
    let mut guest = Guest::new();
    let mut number = value("n64", 8, "");
    number.value_text[..4].copy_from_slice(&[U16::new(1), U16::ZERO, U16::ZERO, U16::new(1)]);
    for pool in [0, 1, 3, 4] {
        for set in [value("schlüssel", 1, "wert"), value("n32", 4, "\u{7}"), number] {
            assert_eq!(guest.ask(&mut message(Operation::SET, pool, set.as_bytes())), Status::OK);
        }
        let mut get = message(Operation::GET, pool, value("schlüssel", 1, "").as_bytes());
        assert_eq!((guest.ask(&mut get), read(&get, 4).1), (Status::OK, "wert".to_owned()));
        for (index, expected) in [(0, Some("wert")), (1, Some("7")), (2, Some("281474976710657")), (3, None)] {
            let mut next = message(Operation::ENUMERATE, pool, &enumerate(index));
            let status = guest.ask(&mut next);
            assert_eq!(status, if expected.is_some() { Status::OK } else { Status::NO_MORE_ITEMS });
            assert_eq!(expected.map(ToOwned::to_owned), status.is_ok().then(|| read(&next, 8).1));
        }
        let mut delete = Delete::read_from_bytes(&[0; 516]).unwrap();
        delete.key_bytes = units("n32", &mut delete.key_text);
        for expected in [Status::OK, Status::NO_MORE_ITEMS] {
            assert_eq!(guest.ask(&mut message(Operation::DELETE, pool, delete.as_bytes())), expected);
        }
        assert!(guest.folder.path().join(format!(".kvp_pool_{pool}")).exists());
    }
    assert_eq!(guest.events.len(), 4 * 4);
}

#[test]
fn facts_are_told_and_not_written() {
    let mut guest = Guest::new();
    let mut first = message(Operation::ENUMERATE, AUTO_POOL, &enumerate(0));
    assert_eq!((guest.ask(&mut first), read(&first, 8)), (Status::OK, ("OSName".to_owned(), "Ürban 🐧".to_owned())));
    let mut second = message(Operation::ENUMERATE, AUTO_POOL, &enumerate(1));
    assert_eq!((guest.ask(&mut second), read(&second, 8).1), (Status::OK, "🐧".repeat(511)));
    for index in [2, u32::MAX] {
        assert_eq!(guest.ask(&mut message(Operation::ENUMERATE, AUTO_POOL, &enumerate(index))), Status::NO_MORE_ITEMS);
    }
    let set = value("OSName", 1, "x");
    for pool in [AUTO_POOL, 5, 255] {
        assert_eq!(guest.ask(&mut message(Operation::SET, pool, set.as_bytes())), Status::INVALID_ARGUMENT);
    }
    let mut get = message(Operation::GET, AUTO_POOL, set.as_bytes());
    assert_eq!((guest.ask(&mut get), read(&get, 4).1), (Status::OK, "Ürban 🐧".to_owned()));
}

#[test]
fn sizes_types_and_text_are_checked() {
    let mut guest = Guest::new();
    let good = value("key", 1, "value");
    let bad = |change: fn(&mut Value)| {
        let mut value = good;
        change(&mut value);
        value
    };
    for (refused, expected) in [
        (bad(|value| value.key_bytes = U32::ZERO), Status::INVALID_ARGUMENT),
        (bad(|value| value.key_bytes = U32::new(514)), Status::INVALID_ARGUMENT),
        (bad(|value| value.key_bytes = U32::new(u32::MAX)), Status::INVALID_ARGUMENT),
        (bad(|value| value.value_bytes = U32::new(2050)), Status::INVALID_ARGUMENT),
        (bad(|value| value.value_bytes = U32::new(u32::MAX)), Status::INVALID_ARGUMENT),
        (bad(|value| value.kind = U32::ZERO), Status::INVALID_ARGUMENT),
        (bad(|value| value.kind = U32::new(3)), Status::INVALID_ARGUMENT),
        (bad(|value| value.key_text[1] = U16::new(0xd800)), Status::INVALID_ARGUMENT),
        (bad(|value| value.value_text[0] = U16::new(0xdc00)), Status::INVALID_ARGUMENT),
    ] {
        assert_eq!(guest.ask(&mut message(Operation::SET, 0, refused.as_bytes())), expected);
    }
    // Without the zero at the end, and with nothing for a value.
    let mut full = bad(|value| value.value_bytes = U32::ZERO);
    full.key_text = [U16::new(0x61); 256];
    full.key_bytes = U32::new(512);
    assert_eq!(guest.ask(&mut message(Operation::SET, 0, full.as_bytes())), Status::OK);
    // In UTF-8 it is longer than a record's key.
    full.key_text = [U16::new(0x4e00); 256];
    assert_eq!(guest.ask(&mut message(Operation::SET, 0, full.as_bytes())), Status::FAIL);
    for bytes in [0, 1, 3, 4, 5, 2575] {
        let mut short = message(Operation::SET, 0, good.as_bytes());
        short.truncate(bytes);
        assert_eq!(guest.ask(&mut short), Status::INVALID_ARGUMENT, "{bytes}");
    }
    for operation in [6, 7, 100, 255] {
        assert_eq!(guest.ask(&mut message(Operation(operation), 0, good.as_bytes())), Status::NOT_SUPPORTED);
    }
}

#[test]
fn addresses_are_checked_before_anything_is_done() {
    let mut guest = Guest::new();
    let set = |adapter: &str, addresses: &str, subnets: &str| {
        let mut message = IpMessage::read_from_bytes(&[0; 7428]).unwrap();
        message.operation = 5;
        units(adapter, &mut message.adapter);
        units(addresses, &mut message.addresses);
        units(subnets, &mut message.subnets);
        units("10.0.0.1", &mut message.gateways);
        message
    };
    let guid = "{F8615163-DF3E-46C5-913F-F2D2F965ED0E}";
    let good = set(guid, "10.0.0.5;fe80::1", "255.255.255.0;/64");
    assert_eq!(guest.ask(&mut good.as_bytes().to_vec()), Status::OK);
    let expected = IpSettings {
        adapter: guid.trim_matches(['{', '}']).to_lowercase(),
        dhcp: false,
        addresses: vec!["10.0.0.5".parse().unwrap(), "fe80::1".parse().unwrap()],
        subnets: vec!["255.255.255.0".to_owned(), "/64".to_owned()],
        gateways: vec!["10.0.0.1".parse().unwrap()],
        name_servers: vec![],
    };
    assert_eq!(guest.events, [Event::Kvp(Notice::Network(expected.clone()))]);
    let mut get = good;
    get.operation = 4;
    get.addresses.fill(U16::ZERO);
    let mut bytes = get.as_bytes().to_vec();
    assert_eq!(guest.ask(&mut bytes), Status::OK);
    let told = IpMessage::read_from_bytes(&bytes).unwrap();
    assert_eq!((text_of(&told.addresses).unwrap().as_str(), told.family), ("10.0.0.5;fe80::1", 3));
    for (adapter, addresses, subnets, status) in [
        ("eth0; reboot", "10.0.0.5", "", Status::GUID_NOT_FOUND),
        (guid, "10.0.0.5;$(reboot)", "", Status::INVALID_ARGUMENT),
        (guid, "10.0.0.5", "255.255.255.0\nx", Status::INVALID_ARGUMENT),
        (guid, "10.0.0.5", "/129", Status::INVALID_ARGUMENT),
    ] {
        assert_eq!(guest.ask(&mut set(adapter, addresses, subnets).as_bytes().to_vec()), status);
    }
    assert_eq!(guest.kvp.network.0.lock().unwrap().len(), 1);
    let refused = NoNetwork.configure(&expected).unwrap_err();
    assert!(refused.contains("no hook"), "{refused}");
}

proptest! {
    #[test]
    fn nothing_that_comes_breaks_it(
        operation in 0..8_u8, pool in 0..6_u8, fill: u8, fields: [u32; 4], bytes in 0..7500_usize,
    ) {
        let mut guest = Guest::new();
        let mut body = vec![fill; 7500];
        let fields = fields.map(u32::to_le_bytes).concat();
        body[..4].copy_from_slice(&[operation, pool, 0, 0]);
        body[4..20].copy_from_slice(&fields);
        body.truncate(bytes);
        let _ = guest.ask(&mut body);
        prop_assert_eq!(body.len(), bytes);
    }
}
