//! A service: takes connections, carries each on threads of its own, so many at a time, until a signal ends it.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmbus_devices::socket::VmListener;
use vmbus_simhost::plain::{Bell, PlainListener};

use super::carried::{Carried, End};
use super::error::{of_socket, of_vm_socket};
use super::event::{Event, Teller};
use super::stop::Stop;

/// How long connections that were reset may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Accepting failed for want of descriptors or memory: again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// What is listened on.
pub(crate) enum Listener {
    Vm(VmListener),
    Plain(PlainListener, Arc<Bell>),
}

impl Listener {
    fn accept(&self) -> io::Result<(End, String)> {
        match self {
            Self::Vm(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((End::Vm(stream), format!("vm:{peer}")))
            }
            Self::Plain(listener, bell) => {
                let plain = listener.accept(bell)?;
                let peer = plain.peer();
                Ok((End::Plain(plain), peer))
            }
        }
    }

    /// Ends the wait for connections when the service is to end.
    fn stops_with(&self, stop: &Stop) {
        match self {
            Self::Vm(listener) => {
                let closer = listener.closer();
                stop.when_asked(move || closer.close());
            }
            Self::Plain(_, bell) => {
                let bell = Arc::clone(bell);
                stop.when_asked(move || bell.ring());
            }
        }
    }

    /// Where it listens.
    pub(crate) fn local(&self) -> io::Result<String> {
        match self {
            Self::Vm(listener) => listener.local_addr().map(|addr| format!("vm:{addr}")),
            Self::Plain(listener, _) => listener.local().map(|addr| addr.to_string()),
        }
    }

    fn failed(&self, error: io::Error) -> vmbus::Error {
        let place = self.local().unwrap_or_else(|_| "a socket".to_owned());
        match self {
            Self::Vm(_) => of_vm_socket("accept connections on", place, error),
            Self::Plain(..) => of_socket("accept connections on", place, error),
        }
    }
}

/// What is to be done with an accepted end: makes of it what is carried.
pub(crate) type Joined = dyn Fn(End) -> Result<Arc<Carried>, anyhow::Error> + Send + Sync;

/// Connections under way.
#[derive(Default)]
struct Running {
    count: usize,
    stopped: bool,
    carried: HashMap<u64, Arc<Carried>>,
}

/// What the threads of a service share.
struct Shared {
    running: Mutex<Running>,
    changed: Condvar,
    teller: Arc<Teller>,
    join: Box<Joined>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service is to end: so are all connections, without an end being faked.
    fn stop(&self) {
        let mut running = self.lock();
        running.stopped = true;
        running.carried.values().for_each(|carried| carried.reset());
        drop(running);
        self.changed.notify_all();
    }

    /// Waits until there is room for one more; `false`: the service is to end.
    fn take_room(&self, most: usize) -> bool {
        let mut running = self.lock();
        while running.count >= most && !running.stopped {
            running = self.changed.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        running.count += usize::from(!running.stopped);
        !running.stopped
    }

    fn give_room(&self) {
        self.lock().count -= 1;
        self.changed.notify_all();
    }

    /// Waits until all connections are gone.
    fn wait_gone(&self) {
        let deadline = Instant::now() + GONE_WITHIN;
        let mut running = self.lock();
        while running.count != 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return log::warn!("{} connections do not end", running.count);
            }
            running = self.changed.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One connection from its first byte to its last.
    fn one(&self, connection: u64, near: End, peer: String) {
        self.teller.tell(&Event::Connected { connection, peer });
        let carried = match (self.join)(near) {
            Ok(carried) => carried,
            Err(error) => return self.teller.tell(&Event::Refused { connection, error: format!("{error:#}") }),
        };
        let mut running = self.lock();
        if running.stopped {
            carried.reset();
        }
        running.carried.insert(connection, Arc::clone(&carried));
        drop(running);
        let outcome = carried.carry();
        self.lock().carried.remove(&connection);
        drop(carried);
        let (there, back) = (outcome.there, outcome.back);
        self.teller.tell(&match outcome.ended {
            Ok(()) => Event::Closed { connection, there, back },
            Err(error) => Event::Reset { connection, there, back, error },
        });
    }
}

/// Serves until a signal comes, or something is wrong for good. So many connections at a time; more wait.
pub(crate) fn serve(
    listener: &Listener,
    most: usize,
    stop: &Stop,
    teller: &Arc<Teller>,
    join: Box<Joined>,
) -> anyhow::Result<()> {
    let shared =
        Arc::new(Shared { running: Mutex::default(), changed: Condvar::new(), teller: Arc::clone(teller), join });
    listener.stops_with(stop);
    let me = Arc::clone(&shared);
    stop.when_asked(move || me.stop());
    let mut connection = 0;
    while shared.take_room(most) {
        match accept(listener, stop, teller) {
            Some((near, peer)) => {
                connection += 1;
                start(&shared, connection, near, peer);
            }
            None => shared.give_room(),
        }
    }
    shared.wait_gone();
    teller.end()?;
    teller.tell(&Event::Ended);
    Ok(())
}

/// The next connection. None: the service is to end, or it is worth another try.
fn accept(listener: &Listener, stop: &Stop, teller: &Teller) -> Option<(End, String)> {
    let error = match listener.accept() {
        Ok(accepted) => return Some(accepted),
        Err(error) => error,
    };
    if stop.asked() {
        return None;
    }
    match error.kind() {
        // The bus is gone for good.
        ErrorKind::NetworkDown => teller.fail(listener.failed(error).into()),
        _ => {
            log::warn!("{}", listener.failed(error));
            std::thread::sleep(PAUSE);
        }
    }
    None
}

fn start(shared: &Arc<Shared>, connection: u64, near: End, peer: String) {
    let me = Arc::clone(shared);
    let run = move || {
        me.one(connection, near, peer);
        me.give_room();
    };
    if let Err(error) = std::thread::Builder::new().name(format!("connection-{connection}")).spawn(run) {
        shared.teller.tell(&Event::Refused { connection, error: format!("cannot start a thread: {error}") });
        shared.give_room();
    }
}
