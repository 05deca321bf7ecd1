//! What is carried: bytes from one end to another and back, or back to the same; ends as ends, and resets as resets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmbus_devices::socket::VmStream;
use vmbus_simhost::plain::{Bell, Plain};

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// One end of a connection.
#[derive(Debug)]
pub(crate) enum End {
    Vm(VmStream),
    Plain(Plain),
}

impl End {
    fn read(&self, buffer: &mut [u8], bell: &Bell) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Vm(stream) => (&mut &*stream).read(buffer),
                Self::Plain(plain) => plain.read(buffer, bell),
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    fn write_all(&self, bytes: &[u8], bell: &Bell) -> io::Result<()> {
        match self {
            Self::Vm(stream) => (&mut &*stream).write_all(bytes),
            Self::Plain(plain) => plain.write_all(bytes, bell),
        }
    }

    fn end(&self) -> io::Result<()> {
        match self {
            Self::Vm(stream) => stream.shutdown(Shutdown::Write),
            Self::Plain(plain) => plain.end(),
        }
    }

    /// Its peer is reset rather than told an end, as far as its kind of socket knows resets.
    pub(crate) fn reset(&self) {
        match self {
            // It is gone already.
            Self::Vm(stream) => drop(stream.reset()),
            Self::Plain(plain) => plain.reset(),
        }
    }
}

/// A connection, or two that are one.
#[derive(Debug)]
pub(crate) struct Carried {
    near: End,
    /// None: everything goes back where it came from.
    far: Option<End>,
    /// Ends all waits of plain sockets.
    bell: Bell,
    is_reset: AtomicBool,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Bytes from the near end to the far one.
    pub(crate) there: u64,
    /// Bytes back.
    pub(crate) back: u64,
    /// Both ends were said, or why not.
    pub(crate) ended: Result<(), String>,
}

/// One direction's.
struct Flow {
    bytes: u64,
    ended: io::Result<()>,
}

impl Carried {
    /// From the near end to the far one, and back.
    pub(crate) fn between(near: End, far: End) -> io::Result<Arc<Self>> {
        Self::new(near, Some(far))
    }

    /// From an end to itself.
    pub(crate) fn back(near: End) -> io::Result<Arc<Self>> {
        Self::new(near, None)
    }

    fn new(near: End, far: Option<End>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { near, far, bell: Bell::new()?, is_reset: AtomicBool::new(false) }))
    }

    /// Carries until both ends were said, or something went wrong: then both are reset.
    pub(crate) fn carry(self: &Arc<Self>) -> Outcome {
        let Some(far) = &self.far else {
            let flow = self.flow(&self.near, &self.near);
            let ended = flow.ended.map_err(|error| error.to_string());
            return Outcome { there: flow.bytes, back: flow.bytes, ended };
        };
        let me = Arc::clone(self);
        let other_way = std::thread::Builder::new().name("carry".to_owned()).spawn(move || {
            let far = me.far.as_ref().unwrap_or(&me.near);
            me.flow(far, &me.near)
        });
        let other_way = match other_way {
            Ok(thread) => thread,
            Err(error) => {
                self.reset();
                return Outcome { there: 0, back: 0, ended: Err(format!("cannot start a thread: {error}")) };
            }
        };
        let there = self.flow(&self.near, far);
        let panicked = |_| Flow { bytes: 0, ended: Err(io::Error::other("a thread panicked")) };
        let back = other_way.join().unwrap_or_else(panicked);
        // Who was merely told to stop knows nothing of why.
        let mut causes: Vec<_> = [there.ended, back.ended].into_iter().filter_map(Result::err).collect();
        causes.sort_by_key(|error| error.kind() == ErrorKind::ConnectionAborted);
        let ended = causes.first().map_or(Ok(()), |error| Err(error.to_string()));
        Outcome { there: there.bytes, back: back.bytes, ended }
    }

    /// Resets both, also while somebody carries.
    pub(crate) fn reset(&self) {
        self.is_reset.store(true, Ordering::SeqCst);
        self.bell.ring();
        self.near.reset();
        if let Some(far) = &self.far {
            far.reset();
        }
    }

    fn flow(&self, from: &End, to: &End) -> Flow {
        let mut flow = Flow { bytes: 0, ended: Ok(()) };
        flow.ended = self.copy(from, to, &mut flow.bytes);
        if flow.ended.is_err() {
            self.reset();
        }
        flow
    }

    fn copy(&self, from: &End, to: &End, carried: &mut u64) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = from.read(&mut buffer, &self.bell)?;
            // A stream that was reset here says its end, which is not its peer's.
            if self.is_reset.load(Ordering::SeqCst) {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            if read == 0 {
                return to.end();
            }
            to.write_all(buffer.get(..read).unwrap_or_default(), &self.bell)?;
            *carried += u64::try_from(read).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn tcp() -> (End, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (End::Plain(Plain::Tcp(listener.accept().unwrap().0)), theirs)
    }

    fn vm() -> (End, VmStream) {
        let (ours, theirs) = VmStream::pair().unwrap();
        (End::Vm(ours), theirs)
    }

    #[test]
    fn ends_are_carried_one_at_a_time() {
        let ((near, mut client), (far, mut server)) = (tcp(), vm());
        let carried = Carried::between(near, far).unwrap();
        let carrying = std::thread::spawn(move || carried.carry());
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "question");
        // The other way is still open.
        server.write_all(b"an answer").unwrap();
        drop(server);
        heard.clear();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "an answer");
        let outcome = carrying.join().unwrap();
        assert_eq!((outcome.there, outcome.back, outcome.ended), (8, 9, Ok(())));
    }

    #[test]
    fn a_reset_on_one_side_is_one_on_the_other() {
        let ((near, mut client), (far, server)) = (tcp(), tcp());
        let carried = Carried::between(near, far).unwrap();
        let carrying = std::thread::spawn(move || carried.carry());
        let server = Plain::Tcp(server);
        server.reset();
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(carrying.join().unwrap().ended.unwrap_err().contains("reset"));
    }

    #[test]
    fn whoever_stops_it_resets_both_and_fakes_no_end() {
        let ((near, mut client), (far, _server)) = (tcp(), vm());
        let carried = Carried::between(near, far).unwrap();
        let me = Arc::clone(&carried);
        let carrying = std::thread::spawn(move || me.carry());
        carried.reset();
        drop(carried);
        assert!(carrying.join().unwrap().ended.is_err());
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn what_goes_back_goes_back() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let carried = Carried::back(End::Plain(Plain::Unix(ours))).unwrap();
        let carrying = std::thread::spawn(move || carried.carry());
        theirs.write_all(b"echo").unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).unwrap();
        assert_eq!((heard.as_str(), carrying.join().unwrap().there), ("echo", 4));
    }
}
