//! R3.5 for tasks: many on few threads, each connecting, talking and being cancelled at random, while the host rescinds.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use vmbus_devices::socket::Place;
use vmbus_devices::socket::tokio::{OwnedReadHalf, OwnedWriteHalf, VmStream};
use vmbus_simhost::Random;

use crate::bus;
use crate::churn::{Churn, PIECE, count, fill, rescind};
use crate::world::{LONG, World};

const TASKS: u64 = 64;
const CONNECTIONS: u64 = 600;

async fn send(mut writer: OwnedWriteHalf, seed: u64, bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut place = 0;
    while place < bytes {
        let piece = usize::try_from(bytes - place).unwrap().min(PIECE);
        fill(seed, place, &mut buffer[..piece]);
        writer.write_all(&buffer[..piece]).await?;
        place += u64::try_from(piece).unwrap();
    }
    writer.shutdown().await
}

/// Reads to the end; each byte must be the one that was sent.
async fn receive(mut reader: OwnedReadHalf, seed: u64, bytes: u64) -> io::Result<u64> {
    let mut expected = vec![0; usize::try_from(bytes).unwrap()];
    fill(seed, 0, &mut expected);
    let (mut back, mut buffer) = (0, vec![0; PIECE]);
    loop {
        let read = reader.read(&mut buffer).await?;
        if read == 0 {
            return Ok(u64::try_from(back).unwrap());
        }
        assert!(expected.get(back..back + read) == Some(&buffer[..read]), "other bytes at {back}");
        back += read;
    }
}

/// Sends and hears back, unless that takes longer than somebody likes to wait.
async fn talk(stream: VmStream, random: &mut Random, churn: &Churn) {
    let (order, seed) = (random.below(16) + 1, random.below(u64::MAX));
    let bytes = random.below(1 << order) + 1;
    let patience = if random.below(4) == 0 { Duration::from_micros(random.below(2000)) } else { LONG };
    let (reader, writer) = stream.into_split();
    let both = async { tokio::join!(receive(reader, seed, bytes), send(writer, seed, bytes)) };
    match timeout(patience, both).await {
        Ok((Ok(back), _)) => {
            assert_eq!(back, bytes, "an end before all was back");
            count(&churn.whole);
        }
        Ok((Err(error), _)) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error:?}");
            count(&churn.resets);
        }
        Err(_) => assert!(patience < LONG, "nothing comes any more"),
    }
}

async fn connect(place: &Place, random: &mut Random, churn: &Churn) {
    let patience = if random.below(4) == 0 { Duration::from_micros(random.below(1000)) } else { LONG };
    match timeout(patience, VmStream::connect(place)).await {
        Ok(Ok(stream)) => talk(stream, random, churn).await,
        // Taken back before it was open.
        Ok(Err(error)) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error:?}"),
        Err(_) => {
            assert!(patience < LONG, "no connection comes about");
            count(&churn.aborted);
        }
    }
}

pub(crate) fn churn() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let world = Arc::new(bus::hvsock_small(seed));
    let churn = Arc::new(Churn::new(CONNECTIONS));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = (0..TASKS).map(|task| {
            let (world, churn) = (Arc::clone(&world), Arc::clone(&churn));
            tokio::spawn(async move {
                let mut random = Random::new(seed ^ task << 32);
                let place = world.sockets.at(bus::echo_service());
                while churn.begin() {
                    if random.below(5) == 0 {
                        rescind(&world, &mut random);
                    }
                    connect(&place, &mut random, &churn).await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
    drop(runtime);
    println!("whole, reset, aborted: {:?}", churn.seen());
    assert!(churn.seen().iter().all(|count| *count != 0));
    Arc::into_inner(world).unwrap().end();
}
