//! Who waits for what, how long, and how event loops see it.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use vmbus_devices::socket::VmStream;

use super::{Test, asleep, readable};
use crate::world::{LONG, SHORT, World, checksum, pattern};

/// More than any socket keeps for a peer that does not read.
const BOUND: usize = 4 << 20;

pub(crate) fn tests() -> Vec<(&'static str, Test)> {
    vec![
        ("no_time_at_all_is_no_timeout", zero),
        ("timeouts_are_what_was_set", what_was_set),
        ("a_read_ends_in_time", read_timeout),
        ("a_write_ends_in_time", write_timeout),
        ("a_second_reader_keeps_its_own_timeout", second_reader),
        ("a_second_writer_keeps_its_own_timeout", second_writer),
        ("shutdown_wakes_all_who_read", wakes_all),
        ("a_blocked_reader_does_not_block_a_writer", independent),
        ("nonblocking_says_would_block", would_block),
        ("a_slow_reader_bounds_what_is_kept", bounded),
        ("a_blocked_writer_goes_on_once_there_is_room", goes_on),
        ("readiness_is_exact", readiness),
        ("readiness_is_had_beside_a_blocked_reader", readiness_beside_reader),
        ("a_write_that_would_block_shows_when_there_is_room", shows_room),
    ]
}

fn zero(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = world.told();
    let none = Some(Duration::ZERO);
    assert_eq!(stream.set_read_timeout(none).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(stream.set_write_timeout(none).unwrap_err().kind(), ErrorKind::InvalidInput);
    peer.end();
    Ok(())
}

fn what_was_set(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = world.told();
    assert_eq!((stream.read_timeout().unwrap(), stream.write_timeout().unwrap()), (None, None));
    let (read, write) = (Some(Duration::from_millis(1500)), Some(Duration::from_secs(2)));
    stream.set_read_timeout(read).unwrap();
    stream.try_clone().unwrap().set_write_timeout(write).unwrap();
    assert_eq!((stream.read_timeout().unwrap(), stream.write_timeout().unwrap()), (read, write));
    peer.end();
    Ok(())
}

fn read_timeout(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    stream.set_read_timeout(Some(SHORT)).unwrap();
    let start = Instant::now();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(start.elapsed() >= SHORT);
    peer.send(1);
    stream.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 1);
    peer.end();
    Ok(())
}

/// Writes until an error.
fn fill(stream: &mut VmStream) -> (u64, ErrorKind) {
    let mut written = 0;
    loop {
        match stream.write(&pattern(written, 10_000)) {
            Ok(bytes) => written += u64::try_from(bytes).unwrap(),
            Err(error) => return (written, error.kind()),
        }
        assert!(written < u64::try_from(BOUND).unwrap(), "nothing keeps the writer");
    }
}

fn write_timeout(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    peer.stop();
    stream.set_write_timeout(Some(SHORT)).unwrap();
    let start = Instant::now();
    let (written, error) = fill(&mut stream);
    assert_eq!(error, ErrorKind::WouldBlock);
    assert!(start.elapsed() >= SHORT);
    peer.go();
    peer.wait_received((written, checksum(&pattern(0, usize::try_from(written).unwrap())), false));
    peer.end();
    Ok(())
}

/// The first waits without limit; the second does not wait for the first's end.
fn second_reader(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = world.told();
    let (mut first, mut second) = (stream.try_clone().unwrap(), stream.try_clone().unwrap());
    let reading = asleep(move || first.read(&mut [0; 1]).unwrap());
    stream.set_read_timeout(Some(SHORT)).unwrap();
    let start = Instant::now();
    assert_eq!(second.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!((SHORT..LONG).contains(&start.elapsed()));
    assert!(!reading.is_finished());
    // And it has its turn behind the first.
    stream.set_read_timeout(Some(LONG)).unwrap();
    let waiting = asleep(move || second.read(&mut [0; 1]).unwrap());
    peer.send(1);
    peer.send(1);
    assert_eq!((reading.join().unwrap(), waiting.join().unwrap()), (1, 1));
    peer.end();
    Ok(())
}

fn second_writer(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = world.told();
    peer.stop();
    let (mut first, mut second) = (stream.try_clone().unwrap(), stream.try_clone().unwrap());
    let bytes = pattern(0, BOUND);
    let sent = bytes.clone();
    let writing = asleep(move || first.write_all(&sent).unwrap());
    stream.set_write_timeout(Some(SHORT)).unwrap();
    let start = Instant::now();
    assert_eq!(second.write(&[1; 100_000]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!((SHORT..LONG).contains(&start.elapsed()));
    assert!(!writing.is_finished());
    peer.go();
    writing.join().unwrap();
    peer.wait_received((u64::try_from(BOUND).unwrap(), checksum(&bytes), false));
    peer.end();
    Ok(())
}

fn wakes_all(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = world.told();
    let reader = || {
        let mut reader = stream.try_clone().unwrap();
        asleep(move || reader.read(&mut [0; 1]).unwrap())
    };
    let reading = [reader(), reader(), reader()];
    stream.shutdown(std::net::Shutdown::Read).unwrap();
    for reading in reading {
        assert_eq!(reading.join().unwrap(), 0);
    }
    peer.end();
    Ok(())
}

fn independent(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    let mut reader = stream.try_clone().unwrap();
    let reading = asleep(move || reader.read(&mut [0; 1]).unwrap());
    let bytes = pattern(0, 500_000);
    stream.write_all(&bytes).unwrap();
    peer.wait_received((500_000, checksum(&bytes), false));
    assert!(!reading.is_finished());
    peer.send(1);
    assert_eq!(reading.join().unwrap(), 1);
    peer.end();
    Ok(())
}

fn would_block(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    stream.set_nonblocking(true).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(stream.peek(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.send(3);
    assert!(readable(&stream, LONG));
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 3);
    assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    stream.try_clone().unwrap().set_nonblocking(false).unwrap();
    peer.end();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    Ok(())
}

fn bounded(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    peer.stop();
    stream.set_nonblocking(true).unwrap();
    let (written, error) = fill(&mut stream);
    assert_eq!(error, ErrorKind::WouldBlock);
    assert!(written > 0);
    peer.go();
    peer.wait_received((written, checksum(&pattern(0, usize::try_from(written).unwrap())), false));
    peer.end();
    Ok(())
}

fn goes_on(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    peer.stop();
    let bytes = pattern(0, BOUND);
    let sent = bytes.clone();
    let writing = asleep(move || {
        stream.write_all(&sent).unwrap();
        stream
    });
    assert!(!writing.is_finished());
    peer.go();
    drop(writing.join().unwrap());
    peer.wait_received((u64::try_from(BOUND).unwrap(), checksum(&bytes), true));
    peer.end();
    Ok(())
}

/// Nothing is to be read, and soon the descriptor shows it: a signal may come for nothing, which a look takes note of.
fn quiet(stream: &VmStream) {
    stream.set_nonblocking(true).unwrap();
    settled(stream);
    stream.set_nonblocking(false).unwrap();
}

/// The same for a stream that is nonblocking.
fn settled(stream: &VmStream) {
    for _ in 0..10 {
        if !readable(stream, SHORT) {
            return;
        }
        assert_eq!(stream.peek(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    panic!("readable again and again, with nothing to read");
}

fn readiness(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    quiet(&stream);
    peer.send(1000);
    assert!(readable(&stream, LONG));
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 10);
    assert!(readable(&stream, Duration::ZERO), "990 are left");
    stream.read_exact(&mut [0; 990]).unwrap();
    quiet(&stream);
    // Also where a blocking read took note of the event.
    let mut reader = stream.try_clone().unwrap();
    let reading = asleep(move || reader.read(&mut [0; 10]).unwrap());
    peer.send(100);
    assert_eq!(reading.join().unwrap(), 10);
    assert!(readable(&stream, Duration::ZERO), "90 are left");
    stream.read_exact(&mut [0; 90]).unwrap();
    quiet(&stream);
    peer.end();
    assert!(readable(&stream, LONG), "the end is something to read");
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
    assert!(readable(&stream, Duration::ZERO), "and stays it");
    Ok(())
}

fn readiness_beside_reader(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = world.told();
    let mut reader = stream.try_clone().unwrap();
    let reading = asleep(move || reader.read(&mut [0; 10]).unwrap());
    let _ = readable(&stream, SHORT);
    assert!(!reading.is_finished(), "it sleeps again");
    peer.send(20);
    assert_eq!(reading.join().unwrap(), 10);
    assert!(readable(&stream, LONG));
    peer.end();
    Ok(())
}

fn shows_room(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    stream.set_nonblocking(true).unwrap();
    peer.stop();
    let (mut written, _) = fill(&mut stream);
    if stream.family() == vmbus_devices::socket::Family::Vsock
        || stream.family() == vmbus_devices::socket::Family::Local
    {
        peer.go();
        peer.end();
        return Err("the kernel's sockets show room as writable".to_owned());
    }
    settled(&stream);
    peer.go();
    for _ in 0..3 {
        assert!(readable(&stream, LONG), "there is room");
        match stream.write(&pattern(written, 1000)) {
            Ok(bytes) => written += u64::try_from(bytes).unwrap(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => panic!("{error}"),
        }
        break;
    }
    peer.wait_received((written, checksum(&pattern(0, usize::try_from(written).unwrap())), false));
    // The signal for room looks like one for bytes until somebody has looked.
    quiet(&stream);
    peer.end();
    Ok(())
}
