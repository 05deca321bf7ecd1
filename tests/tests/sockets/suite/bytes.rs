//! Bytes arrive, all of them, once, in order, however they are written and read.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;

use super::Test;
use crate::world::{World, checksum, pattern};

pub(crate) fn tests() -> Vec<(&'static str, Test)> {
    vec![
        ("few_bytes_come_back", few),
        ("a_mebibyte_comes_back_by_two_threads", mebibyte),
        ("writes_of_all_sizes_arrive", sizes),
        ("reads_of_all_sizes_see_the_stream", reads),
        ("vectored_writes_and_reads", vectored),
        ("peek_leaves_bytes_where_they_are", peek),
        ("clones_are_the_same_stream", clones),
        ("nothing_to_read_or_write_is_nothing", nothing),
    ]
}

fn few(world: &mut dyn World) -> Result<(), String> {
    let mut stream = world.echo();
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut back).unwrap(), 0);
    Ok(())
}

fn mebibyte(world: &mut dyn World) -> Result<(), String> {
    let mut stream = world.echo();
    let bytes = pattern(0, 1 << 20);
    let (mut writer, sent) = (stream.try_clone().unwrap(), bytes.clone());
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == bytes, "{} bytes came back, and not those that were sent", back.len());
    Ok(())
}

fn sizes(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    let mut sent = Vec::new();
    for bytes in [1, 7, 8, 9, 4095, 4096, 4097, 16_376, 16_384, 16_385, 65_536, 200_000] {
        let next = pattern(u64::try_from(sent.len()).unwrap(), bytes);
        stream.write_all(&next).unwrap();
        sent.extend(next);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    peer.wait_received((u64::try_from(sent.len()).unwrap(), checksum(&sent), true));
    peer.end();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    Ok(())
}

fn reads(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    peer.send(300_000);
    peer.end();
    let mut place = 0;
    for bytes in (1..2000).chain([16_384, 16_385, 100_000, 1 << 20]).cycle() {
        let mut buffer = vec![0; bytes];
        let read = stream.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        buffer.truncate(read);
        assert!(buffer == pattern(place, read), "other bytes at {place}");
        place += u64::try_from(read).unwrap();
    }
    assert_eq!(place, 300_000);
    stream.shutdown(Shutdown::Write).unwrap();
    Ok(())
}

fn vectored(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    let sent = pattern(0, 30_000);
    let cuts = [0, 0, 1, 1, 8, 100, 5_000, 5_000, 29_999, 30_000];
    let slices: Vec<IoSlice<'_>> = cuts.windows(2).map(|cut| IoSlice::new(&sent[cut[0]..cut[1]])).collect();
    let written = stream.write_vectored(&slices).unwrap();
    assert!(written > 0);
    stream.write_all(&sent[written..]).unwrap();
    peer.wait_received((30_000, checksum(&sent), false));
    // More pieces than go into one packet.
    let pieces: Vec<IoSlice<'_>> = sent[..100].chunks(1).map(IoSlice::new).collect();
    let written = stream.write_vectored(&pieces).unwrap();
    stream.write_all(&sent[written..100]).unwrap();
    peer.send(20_000);
    let (mut one, mut none, mut two) = ([0; 3], [0; 0], [0; 9_000]);
    let mut got: Vec<u8> = Vec::new();
    while got.len() < 20_000 {
        let mut buffers = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut none), IoSliceMut::new(&mut two)];
        let read = stream.read_vectored(&mut buffers).unwrap();
        assert_ne!(read, 0);
        got.extend(one.iter().chain(&two).take(read));
    }
    assert!(got == pattern(0, 20_000));
    peer.end();
    Ok(())
}

fn peek(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    peer.send(100);
    let (mut three, mut more) = ([0; 3], [0; 200]);
    assert_eq!(stream.peek(&mut three).unwrap(), 3);
    assert_eq!(three, [0, 1, 2]);
    assert_eq!(stream.peek(&mut more).unwrap(), 100);
    let mut all = [0; 100];
    stream.read_exact(&mut all).unwrap();
    assert_eq!(all.as_slice(), pattern(0, 100));
    peer.end();
    assert_eq!(stream.peek(&mut more).unwrap(), 0);
    Ok(())
}

fn clones(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = world.told();
    let mut other = stream.try_clone().unwrap();
    assert_eq!(other.peer_addr().unwrap(), stream.peer_addr().unwrap());
    (&stream).write_all(b"ab").unwrap();
    drop(stream);
    other.write_all(b"cd").unwrap();
    peer.wait_received((4, checksum(b"abcd"), false));
    drop(other);
    peer.end();
    Ok(())
}

fn nothing(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    assert_eq!(stream.read(&mut []).unwrap(), 0);
    assert_eq!(stream.write(&[]).unwrap(), 0);
    assert_eq!(peer.received(), (0, 0, false), "which is no end");
    stream.write_all(b"x").unwrap();
    peer.wait_received((1, 0, false));
    peer.end();
    Ok(())
}
