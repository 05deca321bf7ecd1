//! The disks by themselves, and the bytes of answers as the standards have them.

use super::format::{OLD_BYTES, Packet, operation};
use super::medium::Medium;
use super::scsi::{Did, Reply, carry_out};
use super::shared::{Shared, Stage};
use super::unit::{CAPACITY_CHANGED, POWER_ON, Unit};
use super::*;

fn unit() -> Unit {
    let mut unit = Unit::new(DiskSettings::in_memory(1 << 20), 0x1234).unwrap();
    assert_eq!(unit.told(), Some(POWER_ON));
    unit
}

fn ask(unit: &mut Unit, command: &[u8], data: &[u8], room: usize) -> Reply {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(command).for_each(|(to, from)| *to = *from);
    carry_out(unit, &bytes, data, room).0
}

#[track_caller]
fn good(reply: Reply) -> Vec<u8> {
    match reply {
        Reply::Good(bytes) => bytes,
        Reply::Check(sense) => panic!("{sense:?}"),
    }
}

#[test]
fn memory_is_zeroes_until_it_is_written_and_again_when_it_is_given_up() {
    let mut medium = Medium::open(&Backing::Memory, 1 << 40).unwrap();
    let mut read = vec![9; 200_000];
    medium.read(1 << 39, &mut read).unwrap();
    assert!(read.iter().all(|byte| *byte == 0));
    // Across the borders of pieces.
    let data: Vec<u8> = (0..200_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    medium.write(65_000, &data).unwrap();
    medium.read(65_000, &mut read).unwrap();
    assert_eq!(read, data);
    medium.discard(65_536, 131_072).unwrap();
    medium.read(65_000, &mut read).unwrap();
    let (kept, given) = (536..131_608, 0);
    for (at, byte) in read.iter().enumerate() {
        assert_eq!(*byte, if kept.contains(&at) { given } else { data[at] }, "{at}");
    }
    let Medium::Memory(pieces) = &medium else { panic!("no memory") };
    assert_eq!(pieces.keys().copied().collect::<Vec<_>>(), [0, 3, 4], "whole pieces are gone");
}

#[test]
fn answers_byte_by_byte() {
    let mut unit = unit();
    assert_eq!(good(ask(&mut unit, &[0x25], &[], 8)), [0, 0, 7, 0xff, 0, 0, 2, 0]);
    let long = good(ask(&mut unit, &[0x9e, 0x10], &[], 32));
    assert_eq!(long[..16], [0, 0, 0, 0, 0, 0, 7, 0xff, 0, 0, 2, 0, 0, 3, 0xc0, 0]);
    let inquiry = good(ask(&mut unit, &[0x12], &[], 96));
    assert_eq!((inquiry.len(), &inquiry[..8], &inquiry[8..16]), (36, &[0, 0, 5, 2, 31, 0, 0, 2][..], &b"Msft    "[..]));
    assert_eq!(good(ask(&mut unit, &[0x12], &[], 5)).len(), 5, "no more than there is room for");
    assert_eq!(good(ask(&mut unit, &[0x12, 1, 0], &[], 99)), [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
    let limits = good(ask(&mut unit, &[0x12, 1, 0xb0], &[], 99));
    assert_eq!(
        (limits.len(), &limits[6..8], &limits[20..32]),
        (64, &[0, 8][..], &[0, 2, 0, 0, 0, 0, 0, 64, 0, 0, 0, 8][..])
    );
    assert_eq!(good(ask(&mut unit, &[0x1a, 8, 8], &[], 99))[..7], [23, 0, 0x10, 0, 8, 0x12, 4]);
    assert_eq!(good(ask(&mut unit, &[0x5a, 8, 8], &[], 99))[..11], [0, 26, 0, 0x10, 0, 0, 0, 0, 8, 0x12, 4]);
    assert_eq!(ask(&mut unit, &[0x12, 1, 0x77], &[], 99), Reply::Check((5, 0x24, 0)));
    assert_eq!(ask(&mut unit, &[0xc0], &[], 99), Reply::Check((5, 0x20, 0)));
}

#[test]
fn blocks_at_the_borders() {
    let mut unit = unit();
    let write = |block: u32, count: u16| {
        let ([a, b, c, d], [high, low]) = (block.to_be_bytes(), count.to_be_bytes());
        [0x2a, 0, a, b, c, d, 0, high, low]
    };
    assert_eq!(ask(&mut unit, &write(2047, 1), &[7; 512], 512), Reply::Good(vec![]));
    assert_eq!(ask(&mut unit, &write(2047, 2), &[7; 1024], 1024), Reply::Check((5, 0x21, 0)));
    assert_eq!(ask(&mut unit, &write(2048, 1), &[7; 512], 512), Reply::Check((5, 0x21, 0)));
    assert_eq!(ask(&mut unit, &write(u32::MAX, u16::MAX), &[], 0), Reply::Check((5, 0x21, 0)));
    assert_eq!(ask(&mut unit, &write(0, 1), &[7; 511], 511), Reply::Check((5, 0x24, 0)), "not as many data as blocks");
    assert_eq!(good(ask(&mut unit, &[0x28, 0, 0, 0, 7, 0xff, 0, 0, 1], &[], 512)), [7; 512]);
    let last = [0xff; 8];
    let long = [&[0x88, 0][..], &last, &[0, 0, 0, 1]].concat();
    assert_eq!(ask(&mut unit, &long, &[], 512), Reply::Check((5, 0x21, 0)));
    let mut list = [0; 24];
    list[3] = 16;
    list[14..20].copy_from_slice(&[7, 0xff, 0, 0, 0, 2]);
    assert_eq!(ask(&mut unit, &[0x42], &list, 24), Reply::Check((5, 0x21, 0)), "behind the end");
    list[19] = 1;
    assert_eq!(ask(&mut unit, &[0x42], &list, 24), Reply::Good(vec![]));
    assert_eq!(good(ask(&mut unit, &[0x28, 0, 0, 0, 7, 0xff, 0, 0, 1], &[], 512)), [0; 512]);
    list[3] = 17;
    assert_eq!(ask(&mut unit, &[0x42], &list, 24), Reply::Check((5, 0x24, 0)), "longer than it is");
}

#[test]
fn what_there_is_to_tell_is_told_once_and_not_to_who_only_looks() {
    let mut unit = unit();
    unit.tell(CAPACITY_CHANGED);
    assert_eq!(good(ask(&mut unit, &[0x12], &[], 36)).len(), 36);
    assert_eq!(ask(&mut unit, &[0x00], &[], 0), Reply::Check(CAPACITY_CHANGED));
    assert_eq!(ask(&mut unit, &[0x00], &[], 0), Reply::Good(vec![]));
    unit.tell(POWER_ON);
    let sense = good(ask(&mut unit, &[0x03], &[], 18));
    assert_eq!((sense[0], sense[2], sense[12]), (0x70, 6, 0x29));
    assert_eq!(carry_out(&mut unit, &[0; 16], &[], 0), (Reply::Good(vec![]), Did::Else));
}

#[test]
fn packets_that_are_short_or_say_nothing() {
    assert!(Packet::parse(&[0; OLD_BYTES - 1]).is_none());
    let mut bytes = [0; OLD_BYTES];
    bytes[0] = 3;
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!((packet.operation, packet.command()), (operation::EXECUTE_SRB, None), "a command without bytes");
    for length in [6, 10, 12, 16, 17, 255] {
        bytes[20] = length;
        assert_eq!(Packet::parse(&bytes).unwrap().command().is_some(), length <= 16, "{length}");
    }
    // Sense data are as long as there is room, and the old packet has no more.
    bytes[21] = 255;
    let answer = Packet::parse(&bytes).unwrap().outcome(4, 2, 0, &[1; 30]);
    assert_eq!((answer.len(), answer[14], answer[15], answer[21]), (OLD_BYTES, 0x84, 2, 20));
}

#[test]
fn words_that_make_no_sense_change_nothing() {
    let mut shared = Shared::new(StorageSettings::default()).unwrap();
    shared.stage = Stage::Running;
    let nonsense = [
        "",
        "add",
        "add 0",
        "add 256 1MiB",
        "add 0 1000",
        "add 0 0",
        "add 0 99999999999TiB",
        "remove 0",
        "grow 0 1MiB",
        "fail 1 1",
        "lie",
        "lie x 1",
        "short x",
        "dance",
    ];
    for words in nonsense {
        assert!(shared.command(words).is_err(), "{words}");
    }
    assert!(shared.units.is_empty() && shared.announcements.is_empty() && shared.lies.is_empty());
    shared.command("add 0 1MiB").unwrap();
    assert!(shared.command("add 0 1MiB").is_err() && shared.command("grow 0 512").is_err());
    assert_eq!((shared.units.len(), shared.announcements.len()), (1, 1));
}
