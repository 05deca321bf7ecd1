//! Bytes arrive, all of them, once, in order, whoever awaits them.

use std::io::{ErrorKind, IoSlice};

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use vmbus_devices::socket::tokio::VmStream;

use super::{tests, told};
use crate::world::{World, checksum, pattern};

tests! {
    "few_bytes_come_back": few,
    "a_mebibyte_comes_back_by_two_tasks": two_tasks,
    "a_mebibyte_comes_back_by_one_task": one_task,
    "reads_of_all_sizes_see_the_stream": reads,
    "vectored_writes": vectored,
    "peek_leaves_bytes_where_they_are": peek,
    "attempts_and_readiness": attempts,
    "a_stream_leaves_the_runtime_and_comes_back": there_and_back,
}

async fn few(world: &mut dyn World) -> Result<(), String> {
    let mut stream = VmStream::from_std(world.echo()).unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut back).await.unwrap(), 0);
    Ok(())
}

async fn two_tasks(world: &mut dyn World) -> Result<(), String> {
    let (mut reader, mut writer) = VmStream::from_std(world.echo()).unwrap().into_split();
    let bytes = pattern(0, 1 << 20);
    let sent = bytes.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
        writer
    });
    let mut back = Vec::new();
    reader.read_to_end(&mut back).await.unwrap();
    assert!(back == bytes, "{} bytes came back, and not those that were sent", back.len());
    let whole = reader.reunite(writing.await.unwrap()).unwrap();
    assert_eq!(whole.try_write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    Ok(())
}

async fn one_task(world: &mut dyn World) -> Result<(), String> {
    let mut stream = VmStream::from_std(world.echo()).unwrap();
    let bytes = pattern(0, 1 << 20);
    let (mut reader, mut writer) = stream.split();
    let (mut back, mut buffer, mut sent) = (Vec::new(), vec![0; 50_000], 0);
    // It waits for either at once.
    while back.len() < bytes.len() {
        tokio::select! {
            read = reader.read(&mut buffer) => back.extend_from_slice(&buffer[..read.unwrap()]),
            written = writer.write(&bytes[sent..]), if sent < bytes.len() => sent += written.unwrap(),
        }
    }
    assert!(back == bytes);
    writer.shutdown().await.unwrap();
    assert_eq!(reader.read(&mut buffer).await.unwrap(), 0);
    Ok(())
}

async fn reads(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = told(world);
    peer.send(300_000);
    peer.end();
    let mut place = 0;
    for bytes in (1..1000).chain([16_384, 16_385, 100_000, 1 << 20]).cycle() {
        let mut buffer = Vec::with_capacity(bytes);
        let read = stream.read_buf(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        assert!(buffer == pattern(place, read), "other bytes at {place}");
        place += u64::try_from(read).unwrap();
    }
    assert_eq!(place, 300_000);
    assert_eq!(stream.read(&mut []).await.unwrap(), 0);
    stream.shutdown().await.unwrap();
    Ok(())
}

async fn vectored(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = told(world);
    let sent = pattern(0, 30_000);
    assert!(stream.is_write_vectored());
    let cuts = [0, 0, 1, 8, 100, 5_000, 5_000, 30_000];
    let slices: Vec<IoSlice<'_>> = cuts.windows(2).map(|cut| IoSlice::new(&sent[cut[0]..cut[1]])).collect();
    let written = stream.write_vectored(&slices).await.unwrap();
    assert!(written > 0);
    stream.write_all(&sent[written..]).await.unwrap();
    peer.wait_received((30_000, checksum(&sent), false));
    peer.end();
    Ok(())
}

async fn peek(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = told(world);
    peer.send(100);
    let mut three = [0; 3];
    assert_eq!(stream.peek(&mut three).await.unwrap(), 3);
    assert_eq!(three, [0, 1, 2]);
    let mut all = [0; 100];
    stream.read_exact(&mut all).await.unwrap();
    assert_eq!(all.as_slice(), pattern(0, 100));
    peer.end();
    assert_eq!(stream.peek(&mut three).await.unwrap(), 0);
    Ok(())
}

async fn attempts(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = told(world);
    let mut buffer = [0; 1000];
    assert_eq!(stream.try_read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.send(1000);
    let mut got = 0;
    while got < 1000 {
        stream.readable().await.unwrap();
        match stream.try_read(&mut buffer[got..]) {
            Ok(read) => got += read,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    assert_eq!(buffer.as_slice(), pattern(0, 1000));
    stream.writable().await.unwrap();
    assert_eq!(stream.try_write(b"abc").unwrap(), 3);
    peer.wait_received((3, checksum(b"abc"), false));
    peer.end();
    Ok(())
}

async fn there_and_back(world: &mut dyn World) -> Result<(), String> {
    use std::io::{Read, Write};
    let (mut stream, mut peer) = told(world);
    peer.send(10);
    stream.read_exact(&mut [0; 4]).await.unwrap();
    let mut stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.read_exact(&mut [0; 6]).unwrap();
    stream.write_all(b"ab").unwrap();
    let mut stream = VmStream::from_std(stream).unwrap();
    peer.send(1);
    assert_eq!(stream.read_u8().await.unwrap(), 10);
    stream.write_all(b"cd").await.unwrap();
    peer.wait_received((4, checksum(b"abcd"), false));
    peer.end();
    Ok(())
}
