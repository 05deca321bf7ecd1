//! How streams end for tasks: exactly half, by a reset, or by a drop.

use std::io::ErrorKind;
use std::net::Shutdown;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vmbus_devices::socket::tokio::VmStream;

use super::{tests, told, waits};
use crate::world::{World, checksum, pattern};

tests! {
    "shutdown_says_the_end_and_leaves_reading": half_close,
    "what_was_written_before_the_drop_arrives": written_before_drop,
    "the_writing_halfs_drop_says_the_end": drop_of_half,
    "halves_of_two_streams_are_not_one": reunite,
    "a_reset_wakes_who_reads_and_who_writes": reset,
    "shutdown_by_a_clone_wakes_who_reads_and_who_writes": by_clone,
}

async fn half_close(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = told(world);
    stream.write_all(b"all of it").await.unwrap();
    stream.shutdown().await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    peer.wait_received((9, checksum(b"all of it"), true));
    peer.send(100_000);
    peer.end();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert!(all == pattern(0, 100_000));
    Ok(())
}

async fn written_before_drop(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = told(world);
    peer.stop();
    let bytes = pattern(0, 40_000);
    stream.write_all(&bytes).await.unwrap();
    drop(stream);
    peer.go();
    peer.wait_received((40_000, checksum(&bytes), true));
    peer.end();
    Ok(())
}

async fn drop_of_half(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = told(world);
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(b"a").await.unwrap();
    drop(writer);
    peer.wait_received((1, 0, true));
    peer.send(3);
    peer.end();
    assert_eq!(reader.read_to_end(&mut Vec::new()).await.unwrap(), 3);
    let (stream, mut peer) = told(world);
    let (mut reader, writer) = stream.into_split();
    writer.forget();
    peer.send(1);
    assert_eq!(reader.read_u8().await.unwrap(), 0);
    assert_eq!(peer.received(), (0, 0, false), "no end was said");
    peer.end();
    Ok(())
}

async fn reunite(world: &mut dyn World) -> Result<(), String> {
    let (one, mut first) = told(world);
    let (other, mut second) = told(world);
    let ((reader, writer), (other_reader, other_writer)) = (one.into_split(), other.into_split());
    let error = reader.reunite(other_writer).unwrap_err();
    let one = error.0.reunite(writer).unwrap();
    VmStream::reunite(other_reader, error.1).unwrap().write_all(b"x").await.unwrap();
    drop(one);
    first.wait_received((0, 0, true));
    second.wait_received((1, 0, true));
    first.end();
    second.end();
    Ok(())
}

/// Writes until there is an error.
async fn pour(mut writer: impl AsyncWriteExt + Unpin) -> ErrorKind {
    let bytes = pattern(0, 50_000);
    loop {
        if let Err(error) = writer.write(&bytes).await {
            return error.kind();
        }
    }
}

async fn reset(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = told(world);
    peer.stop();
    let (mut reader, writer) = stream.into_split();
    let writing = waits(tokio::spawn(pour(writer))).await;
    let reading = tokio::spawn(async move { reader.read(&mut [0; 1]).await.map_err(|error| error.kind()) });
    let reading = waits(reading).await;
    if let Err(reason) = peer.reset() {
        peer.go();
        writing.abort();
        peer.end();
        assert_eq!(reading.await.unwrap(), Ok(0));
        return Err(reason);
    }
    assert_eq!(reading.await.unwrap(), Err(ErrorKind::ConnectionReset));
    assert_eq!(writing.await.unwrap(), ErrorKind::ConnectionReset);
    Ok(())
}

async fn by_clone(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = world.told();
    let clone = stream.try_clone().unwrap();
    peer.stop();
    let (mut reader, writer) = VmStream::from_std(stream).unwrap().into_split();
    let writing = waits(tokio::spawn(pour(writer))).await;
    let reading = waits(tokio::spawn(async move { reader.read(&mut [0; 1]).await.unwrap() })).await;
    clone.shutdown(Shutdown::Both).unwrap();
    assert_eq!(reading.await.unwrap(), 0);
    assert_eq!(writing.await.unwrap(), ErrorKind::BrokenPipe);
    peer.go();
    peer.end();
    Ok(())
}
