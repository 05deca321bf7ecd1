//! How streams end: exactly half, with all that was written, by a reset, or by a drop.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::{Test, asleep};
use crate::world::{LONG, SHORT, World, checksum, pattern};

pub(crate) fn tests() -> Vec<(&'static str, Test)> {
    vec![
        ("half_close_is_exact", half_close),
        ("the_peers_half_close_leaves_writing", peers_half_close),
        ("what_was_sent_before_the_end_is_read_after_it", lingering),
        ("what_was_written_before_the_drop_arrives", written_before_drop),
        ("a_reset_is_told_from_an_end", reset),
        ("a_reset_behind_an_end_is_no_reset", reset_behind_end),
        ("a_reset_is_told_behind_what_came_before_it", reset_behind_bytes),
        ("the_end_is_said_however_full_it_is", end_when_full),
        ("take_error_tells_a_reset_once", take_error),
        ("shutdown_wakes_a_reader", wakes_reader),
        ("shutdown_wakes_a_writer_and_says_the_end", wakes_writer),
        ("a_second_shutdown_does_nothing", twice),
    ]
}

fn half_close(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    stream.write_all(b"all of it").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    peer.wait_received((9, checksum(b"all of it"), true));
    peer.send(100_000);
    peer.end();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert!(all == pattern(0, 100_000));
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "an end stays one");
    Ok(())
}

fn peers_half_close(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    peer.end();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    let bytes = pattern(0, 100_000);
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    peer.wait_received((100_000, checksum(&bytes), true));
    Ok(())
}

fn lingering(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    peer.send(20_000);
    peer.end();
    stream.shutdown(Shutdown::Write).unwrap();
    peer.wait_received((0, 0, true));
    // Both have said their end by now, and the host may be done with it; what was sent is still there.
    peer.wait_gone();
    assert!(stream.take_error().unwrap().is_none(), "that is no reset");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert!(all == pattern(0, 20_000));
    Ok(())
}

fn written_before_drop(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    peer.stop();
    let bytes = pattern(0, 40_000);
    stream.write_all(&bytes).unwrap();
    drop(stream);
    // Whoever does not linger is gone by then.
    std::thread::sleep(SHORT);
    peer.go();
    peer.wait_received((40_000, checksum(&bytes), true));
    peer.end();
    Ok(())
}

fn reset(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    let mut reader = stream.try_clone().unwrap();
    let reading = asleep(move || reader.read(&mut [0; 1]).map_err(|error| error.kind()));
    peer.reset()?;
    assert_eq!(reading.join().unwrap(), Err(ErrorKind::ConnectionReset));
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset, "and so it stays");
    assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(stream.take_error().unwrap().is_none(), "it was told");
    Ok(())
}

fn reset_behind_end(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    peer.send(3);
    peer.end();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 3);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    peer.reset()?;
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "whenever it comes");
    peer.wait_gone();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "nothing was lost");
    assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert!(stream.take_error().unwrap().is_none());
    Ok(())
}

fn reset_behind_bytes(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    peer.send(300);
    assert!(super::readable(&stream, LONG));
    peer.reset()?;
    peer.wait_gone();
    let (mut begins, mut rest) = ([0; 100], [0; 300]);
    assert_eq!(stream.peek(&mut begins).unwrap(), 100);
    assert_eq!(stream.read(&mut begins).unwrap(), 100);
    assert!(super::readable(&stream, LONG), "200 are left");
    assert!(stream.take_error().unwrap().is_none(), "not yet");
    assert_eq!(stream.read(&mut rest).unwrap(), 200);
    assert_eq!([&begins[..], &rest[..200]].concat(), pattern(0, 300));
    assert!(super::readable(&stream, LONG), "an error is something to read");
    assert_eq!(stream.read(&mut rest).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(stream.take_error().unwrap().is_none(), "it was told");
    Ok(())
}

fn end_when_full(world: &mut dyn World) -> Result<(), String> {
    for first in [10_000, 4000, 57] {
        let (mut stream, mut peer) = world.told();
        peer.stop();
        stream.set_nonblocking(true).unwrap();
        let mut written = 0;
        for bytes in [first, 50, 1] {
            while let Ok(count) = stream.write(&pattern(written, bytes)) {
                written += u64::try_from(count).unwrap();
            }
        }
        stream.shutdown(Shutdown::Write).unwrap();
        peer.go();
        peer.wait_received((written, checksum(&pattern(0, usize::try_from(written).unwrap())), true));
        peer.end();
    }
    Ok(())
}

fn take_error(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = world.told();
    assert!(stream.take_error().unwrap().is_none());
    peer.reset()?;
    let start = Instant::now();
    let error = loop {
        assert!(super::readable(&stream, LONG), "an error is something to read");
        // A signal may have come for nothing before that.
        if let Some(error) = stream.take_error().unwrap() {
            break error;
        }
        assert!(start.elapsed() < LONG, "no error in time");
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(stream.take_error().unwrap().is_none());
    Ok(())
}

fn wakes_reader(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = world.told();
    let mut reader = stream.try_clone().unwrap();
    let reading = asleep(move || reader.read(&mut [0; 1]).unwrap());
    stream.shutdown(Shutdown::Read).unwrap();
    assert_eq!(reading.join().unwrap(), 0);
    (&stream).write_all(b"x").unwrap();
    peer.wait_received((1, 0, false));
    peer.end();
    Ok(())
}

fn wakes_writer(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = world.told();
    peer.stop();
    let mut writer = stream.try_clone().unwrap();
    let writing = asleep(move || {
        let mut written = 0;
        loop {
            match writer.write(&pattern(written, 50_000)) {
                Ok(bytes) => written += u64::try_from(bytes).unwrap(),
                Err(error) => return (written, error.kind()),
            }
        }
    });
    assert!(!writing.is_finished(), "the writer is not kept waiting");
    stream.shutdown(Shutdown::Both).unwrap();
    let (written, error) = writing.join().unwrap();
    assert_eq!(error, ErrorKind::BrokenPipe);
    peer.go();
    let all = pattern(0, usize::try_from(written).unwrap());
    peer.wait_received((written, checksum(&all), true));
    peer.end();
    Ok(())
}

fn twice(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = world.told();
    for _ in 0..2 {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    peer.wait_received((0, 0, true));
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.end();
    stream.set_read_timeout(None).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    Ok(())
}
