//! Tasks that wait, are cancelled, and are woken; and threads beside them.

use std::io::{ErrorKind, Read};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use vmbus_devices::socket::Family;
use vmbus_devices::socket::tokio::VmStream;

use super::{tests, told, waits};
use crate::suite::asleep;
use crate::world::{SHORT, World, checksum, pattern};

/// More than any socket keeps for a peer that does not read.
const BOUND: usize = 4 << 20;

tests! {
    "a_cancelled_read_takes_nothing_away": cancelled_read,
    "a_cancelled_write_has_written_nothing": cancelled_write,
    "a_waiting_writer_goes_on_once_there_is_room": goes_on,
    "a_waiting_reader_does_not_keep_a_writer_waiting": independent,
    "a_task_hears_of_each_of_many": ping_pong,
    "a_task_waits_beside_a_thread": beside_thread,
    "a_runtime_has_a_stream_once": once,
}

async fn cancelled_read(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = told(world);
    for place in 0..20 {
        assert!(timeout(Duration::from_millis(1), stream.read(&mut [0; 8])).await.is_err());
        peer.send(1);
        assert_eq!(u64::from(stream.read_u8().await.unwrap()), place);
    }
    peer.end();
    Ok(())
}

/// Writes until there is no room.
async fn fill(stream: &mut VmStream) -> u64 {
    let mut written = 0;
    while let Ok(bytes) = timeout(SHORT, stream.write(&pattern(written, 10_000))).await {
        written += u64::try_from(bytes.unwrap()).unwrap();
        assert!(written < u64::try_from(BOUND).unwrap(), "nothing keeps the writer");
    }
    written
}

async fn cancelled_write(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = told(world);
    peer.stop();
    let written = fill(&mut stream).await;
    assert_eq!(stream.try_write(&[0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.go();
    let rest = pattern(written, 10_000);
    stream.write_all(&rest).await.unwrap();
    let total = written + 10_000;
    peer.wait_received((total, checksum(&pattern(0, usize::try_from(total).unwrap())), false));
    peer.end();
    Ok(())
}

async fn goes_on(world: &mut dyn World) -> Result<(), String> {
    let (mut stream, mut peer) = told(world);
    peer.stop();
    let bytes = pattern(0, BOUND);
    let sent = bytes.clone();
    let writing = tokio::spawn(async move {
        stream.write_all(&sent).await.unwrap();
        stream
    });
    let writing = waits(writing).await;
    peer.go();
    drop(writing.await.unwrap());
    peer.wait_received((u64::try_from(BOUND).unwrap(), checksum(&bytes), true));
    peer.end();
    Ok(())
}

async fn independent(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = told(world);
    let (mut reader, mut writer) = stream.into_split();
    let reading = waits(tokio::spawn(async move { reader.read_u8().await.unwrap() })).await;
    let bytes = pattern(0, 500_000);
    writer.write_all(&bytes).await.unwrap();
    peer.wait_received((500_000, checksum(&bytes), false));
    assert!(!reading.is_finished());
    peer.send(1);
    assert_eq!(reading.await.unwrap(), 0);
    peer.end();
    Ok(())
}

async fn ping_pong(world: &mut dyn World) -> Result<(), String> {
    let mut stream = VmStream::from_std(world.echo()).unwrap();
    for number in 0..500_u32 {
        stream.write_u32(number).await.unwrap();
        assert_eq!(stream.read_u32().await.unwrap(), number);
    }
    Ok(())
}

async fn beside_thread(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = world.told();
    let mut clone = stream.try_clone().unwrap();
    // It has the side before the runtime comes, and shares what it does not read.
    let reading = asleep(move || clone.read(&mut [0; 10]).unwrap());
    let mut stream = VmStream::from_std(stream).unwrap();
    let waiting = tokio::spawn(async move {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        rest.len()
    });
    let waiting = waits(waiting).await;
    for _ in 0..20 {
        peer.send(100);
    }
    peer.end();
    let rest = waiting.await.unwrap();
    assert_eq!(reading.join().unwrap() + rest, 2000);
    Ok(())
}

async fn once(world: &mut dyn World) -> Result<(), String> {
    let (stream, mut peer) = world.told();
    let clone = stream.try_clone().unwrap();
    let again = stream.try_clone().unwrap();
    let stream = VmStream::from_std(stream).unwrap();
    let second = VmStream::from_std(clone).map(drop).map_err(|error| error.kind());
    let of_kernel = matches!(stream.family(), Family::Vsock | Family::Local);
    assert_eq!(second, if of_kernel { Ok(()) } else { Err(ErrorKind::AlreadyExists) });
    drop(stream);
    let mut stream = VmStream::from_std(again).unwrap();
    peer.send(1);
    assert_eq!(stream.read_u8().await.unwrap(), 0);
    peer.end();
    Ok(())
}
