//! How streams come about for tasks: connecting, listening, and how either is closed.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::time::timeout;
use vmbus_devices::socket::tokio::{VmConnect, VmListener, VmStream};

use super::{talk, tests, waits};
use crate::world::{LONG, World};

tests! {
    "one_source_runs_on_every_family": application,
    "a_connect_comes_about": connects,
    "nobody_there_is_refused": refused,
    "a_connect_is_closed": connect_closed,
    "a_cancelled_connect_leaves_nothing": connect_cancelled,
    "a_listener_accepts": accepts,
    "two_tasks_accept": two_accept,
    "r3_4_close_ends_accept_at_once": close_ends_accept,
}

#[path = "../../../../devices/examples/vmsock_tokio.rs"]
#[expect(unreachable_pub, dead_code, reason = "it is a program")]
mod example;

async fn application(world: &mut dyn World) -> Result<(), String> {
    let place = world.echo_place()?;
    assert_eq!(example::ask(&place, "the same source").await.unwrap(), "the same source");
    Ok(())
}

async fn connects(world: &mut dyn World) -> Result<(), String> {
    let place = world.echo_place()?;
    let stream = timeout(LONG, VmStream::connect(&place)).await.unwrap().unwrap();
    assert_eq!(stream.peer_addr().unwrap().service_id(), place.addr().service_id());
    assert_ne!(stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    talk(stream).await;
    Ok(())
}

async fn refused(world: &mut dyn World) -> Result<(), String> {
    let place = world.nobody()?;
    let error = VmStream::connect(place).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset), "{error:?}");
    Ok(())
}

async fn connect_closed(world: &mut dyn World) -> Result<(), String> {
    let place = world.nobody()?;
    let mut connect = VmConnect::start(place).unwrap();
    connect.closer().unwrap().close();
    let error = connect.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
    Ok(())
}

async fn connect_cancelled(world: &mut dyn World) -> Result<(), String> {
    // Too short for some, and not for others; the world looks for what is left.
    for microseconds in [0, 20, 100, 400] {
        let Ok(place) = world.echo_place() else { return Err("a pair is made, not connected".to_owned()) };
        if let Ok(stream) = timeout(Duration::from_micros(microseconds), VmStream::connect(place)).await {
            drop(stream.unwrap());
        }
        if world.nobody().is_err() {
            break;
        }
    }
    Ok(())
}

async fn accepts(world: &mut dyn World) -> Result<(), String> {
    let (place, mut dialer) = world.listening()?;
    let listener = VmListener::bind(&place).unwrap();
    assert_eq!(listener.local_addr().unwrap().port(), place.addr().port());
    assert!(timeout(Duration::from_millis(5), listener.accept()).await.is_err(), "nobody is there");
    for _ in 0..3 {
        dialer.dial();
    }
    for _ in 0..3 {
        let (stream, peer) = listener.accept().await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), peer);
        talk(stream).await;
    }
    let accepted = waits(Box::pin(listener.accept())).await;
    dialer.dial();
    talk(accepted.await.unwrap().0).await;
    Ok(())
}

async fn two_accept(world: &mut dyn World) -> Result<(), String> {
    let (place, mut dialer) = world.listening()?;
    let listener = VmListener::bind(&place).unwrap();
    let both = Box::pin(async { tokio::join!(listener.accept(), listener.accept()) });
    let both = waits(both).await;
    dialer.dial();
    dialer.dial();
    let (one, other) = both.await;
    talk(one.unwrap().0).await;
    talk(other.unwrap().0).await;
    Ok(())
}

async fn close_ends_accept(world: &mut dyn World) -> Result<(), String> {
    let (place, _) = world.listening()?;
    let listener = VmListener::bind(&place).unwrap();
    let closer = listener.closer();
    let accepting = waits(Box::pin(listener.accept())).await;
    closer.close();
    assert_eq!(accepting.await.map(drop).unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(listener.accept().await.map(drop).unwrap_err().kind(), ErrorKind::ConnectionAborted, "and so it stays");
    Ok(())
}
