//! The suite for tasks: the same families, awaited, on a runtime of one thread and on one of several.

mod bytes;
mod ends;
mod meeting;
mod waiting;

use std::pin::Pin;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use vmbus_devices::socket::tokio::VmStream;

use crate::world::{LONG, Peer, SHORT, World};

/// What a test does; `Err` is why it can't run with that family.
pub(crate) type Outcome<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// A test.
pub(crate) type Test = fn(&mut dyn World) -> Outcome<'_>;

/// Names tests that are async functions.
macro_rules! tests {
    ($($name:literal: $test:ident,)*) => {
        pub(crate) fn tests() -> Vec<(&'static str, super::Test)> {
            vec![$(($name, |world| Box::pin($test(world)))),*]
        }
    };
}
use tests;

/// All of them.
pub(crate) fn all() -> Vec<(&'static str, Test)> {
    [bytes::tests(), ends::tests(), meeting::tests(), waiting::tests()].into_iter().flatten().collect()
}

/// Makes a runtime.
type Maker = fn() -> Runtime;

/// The kinds of runtimes.
pub(crate) fn runtimes() -> [(&'static str, Maker); 2] {
    [
        ("one-thread", || Builder::new_current_thread().enable_all().build().unwrap()),
        ("threads", || Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()),
    ]
}

/// Runs a test on such a runtime. Nothing takes longer than too long.
pub(crate) fn run(runtime: &Runtime, test: Test, world: &mut dyn World) -> Result<(), String> {
    runtime.block_on(async { timeout(LONG, test(world)).await.unwrap() })
}

/// A stream to a peer that does as it is told.
fn told(world: &mut dyn World) -> (VmStream, Box<dyn Peer>) {
    let (stream, peer) = world.told();
    (VmStream::from_std(stream).unwrap(), peer)
}

/// Sees that something does not come about by itself, and gives it back.
async fn waits<F: Future + Unpin>(mut future: F) -> F
where
    F::Output: std::fmt::Debug,
{
    let early = timeout(SHORT, &mut future).await;
    assert!(early.is_err(), "it does not wait: {early:?}");
    future
}

/// Says something and hears it back, and the end.
async fn talk(mut stream: VmStream) {
    stream.write_all(b"to you").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "to you");
}
