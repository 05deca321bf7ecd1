//! How streams come about: connecting, listening, and how either is closed.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use vmbus_devices::socket::{VmConnect, VmListener, VmStream};

use super::{Test, readable};
use crate::world::{LONG, SHORT, World};

pub(crate) fn tests() -> Vec<(&'static str, Test)> {
    vec![
        ("one_source_runs_on_every_family", application),
        ("connect_timeout_connects", connect_timeout),
        ("nobody_there_is_refused", refused),
        ("a_connect_is_closed", connect_closed),
        ("a_listener_accepts", accepts),
        ("a_listener_shows_who_waits", listener_readiness),
        ("an_address_is_bound_once", bound_once),
        ("r3_4_close_ends_accept_at_once", close_ends_accept),
        ("r3_4_a_callback_closes_its_own_listener", own_callback),
    ]
}

#[path = "../../../../devices/examples/vmsock.rs"]
#[expect(unreachable_pub, dead_code, reason = "it is a program")]
mod example;

fn application(world: &mut dyn World) -> Result<(), String> {
    let place = world.echo_place()?;
    assert_eq!(example::ask(&place, "the same source").unwrap(), "the same source");
    Ok(())
}

/// Says something and hears it back, and the end.
fn talk(mut stream: VmStream) {
    stream.write_all(b"to you").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(back, "to you");
}

fn connect_timeout(world: &mut dyn World) -> Result<(), String> {
    let place = world.echo_place()?;
    let none = VmStream::connect_timeout(&place, Duration::ZERO);
    assert_eq!(none.unwrap_err().kind(), ErrorKind::InvalidInput);
    let stream = VmStream::connect_timeout(&place, LONG).unwrap();
    assert_eq!(stream.peer_addr().unwrap().service_id(), place.addr().service_id());
    assert_ne!(stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    talk(stream);
    Ok(())
}

fn refused(world: &mut dyn World) -> Result<(), String> {
    let place = world.nobody()?;
    let error = VmStream::connect(place).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset), "{error:?}");
    Ok(())
}

fn connect_closed(world: &mut dyn World) -> Result<(), String> {
    let place = world.nobody()?;
    let mut connect = VmConnect::start(place).unwrap();
    connect.closer().unwrap().close();
    let start = Instant::now();
    let error = connect.wait(Some(LONG)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
    assert!(start.elapsed() < LONG);
    Ok(())
}

fn accepts(world: &mut dyn World) -> Result<(), String> {
    let (place, mut dialer) = world.listening()?;
    let listener = VmListener::bind(&place).unwrap();
    assert_eq!(listener.local_addr().unwrap().port(), place.addr().port());
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    listener.set_nonblocking(false).unwrap();
    dialer.dial();
    let (stream, peer) = listener.accept().unwrap();
    assert_eq!(stream.peer_addr().unwrap(), peer);
    assert_eq!(stream.local_addr().unwrap().port(), place.addr().port());
    talk(stream);
    for _ in 0..3 {
        dialer.dial();
    }
    for stream in listener.try_clone().unwrap().incoming().take(3) {
        talk(stream.unwrap());
    }
    Ok(())
}

fn listener_readiness(world: &mut dyn World) -> Result<(), String> {
    let (place, mut dialer) = world.listening()?;
    let listener = VmListener::bind(&place).unwrap();
    assert!(!readable(&listener, SHORT));
    dialer.dial();
    assert!(readable(&listener, LONG));
    talk(listener.accept().unwrap().0);
    assert!(!readable(&listener, SHORT));
    Ok(())
}

fn bound_once(world: &mut dyn World) -> Result<(), String> {
    let (place, _) = world.listening()?;
    let listener = VmListener::bind(&place).unwrap();
    assert_eq!(VmListener::bind(&place).unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(listener);
    VmListener::bind(&place).unwrap();
    Ok(())
}

fn close_ends_accept(world: &mut dyn World) -> Result<(), String> {
    let (place, _) = world.listening()?;
    let listener = VmListener::bind(&place).unwrap();
    let other = listener.try_clone().unwrap();
    let accepting = super::asleep(move || other.accept().map(drop).map_err(|error| error.kind()));
    assert!(!accepting.is_finished());
    listener.close();
    assert_eq!(accepting.join().unwrap(), Err(ErrorKind::ConnectionAborted));
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::ConnectionAborted, "and so it stays");
    Ok(())
}

fn own_callback(world: &mut dyn World) -> Result<(), String> {
    let (place, mut dialer) = world.listening()?;
    let listener = VmListener::bind(&place).unwrap();
    let (tell, told) = channel();
    let accepts = listener.try_clone().unwrap();
    accepts.set_nonblocking(true).unwrap();
    let set = listener.call_back(move |closer| {
        let accepted = accepts.accept().map(|(stream, _)| stream);
        closer.close();
        tell.send(accepted).unwrap();
    });
    set.map_err(|error| error.to_string())?;
    dialer.dial();
    talk(told.recv_timeout(LONG).unwrap().unwrap());
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::ConnectionAborted);
    Ok(())
}
