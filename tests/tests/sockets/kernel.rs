//! The kernel's sockets, with a thread at the other end: AF_VSOCK by loopback, and the pair.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::timeout;
use vmbus_devices::socket::addr::{CID_ANY, CID_LOCAL, PORT_ANY};
use vmbus_devices::socket::{Place, Sockets, VmListener, VmSocketAddr, VmStream, tokio as tasks};

use crate::world::{Dialer, Peer, SHORT, World, checksum, pattern};

struct OfKernel {
    /// `None`: the pair.
    listener: Option<VmListener>,
    threads: Vec<JoinHandle<()>>,
}

/// AF_VSOCK, if this machine can reach itself by it, which is looked up once.
pub(crate) fn vsock() -> Result<Box<dyn World>, String> {
    static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
    match WHY_NOT.get_or_init(|| try_vsock().err()) {
        Some(reason) => Err(reason.clone()),
        None => try_vsock(),
    }
}

fn try_vsock() -> Result<Box<dyn World>, String> {
    let refused = |what: &str, error: std::io::Error| format!("AF_VSOCK can't {what} here: {error}");
    let any = Sockets::kernel().at(VmSocketAddr::new(CID_ANY, PORT_ANY));
    let listener = VmListener::bind(any).map_err(|error| refused("listen", error))?;
    let port = listener.local_addr().unwrap().port().unwrap();
    let local = Sockets::kernel().at(VmSocketAddr::new(CID_LOCAL, port));
    VmStream::connect_timeout(local, Duration::from_millis(300))
        .map_err(|error| refused("connect to itself (is the module vsock_loopback there?)", error))?;
    drop(listener.accept().unwrap());
    Ok(Box::new(OfKernel { listener: Some(listener), threads: Vec::new() }))
}

pub(crate) fn pair() -> Result<Box<dyn World>, String> {
    Ok(Box::new(OfKernel { listener: None, threads: Vec::new() }))
}

/// Sends back all it gets.
fn echoes(mut stream: VmStream) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return drop(stream.shutdown(Shutdown::Write)),
            Ok(bytes) if stream.write_all(buffer.get(..bytes).unwrap()).is_ok() => {}
            _ => return,
        }
    }
}

impl OfKernel {
    fn streams(&self) -> (VmStream, VmStream) {
        let Some(listener) = &self.listener else { return VmStream::pair().unwrap() };
        let port = listener.local_addr().unwrap().port().unwrap();
        let ours = VmStream::connect((CID_LOCAL, port)).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    fn vsock_only<T>(&self, value: impl FnOnce(&VmListener) -> T) -> Result<T, String> {
        self.listener.as_ref().map(value).ok_or_else(|| "a pair is made, not connected".to_owned())
    }
}

impl World for OfKernel {
    fn echo(&mut self) -> VmStream {
        let (ours, theirs) = self.streams();
        self.threads.push(std::thread::spawn(move || echoes(theirs)));
        ours
    }

    fn told(&mut self) -> (VmStream, Box<dyn Peer>) {
        let (ours, theirs) = self.streams();
        let (orders, todo) = channel();
        let received = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(Mutex::new(false));
        let (reads, seen, over) = (theirs.try_clone().unwrap(), Arc::clone(&received), Arc::clone(&ended));
        let (holds, held) = channel();
        self.threads.push(std::thread::spawn(move || writes(&theirs, &todo)));
        self.threads.push(std::thread::spawn(move || read_on(reads, &held, &seen, &over)));
        (ours, Box::new(Thread { orders: Some(orders), holds, received, ended }))
    }

    fn echo_place(&mut self) -> Result<Place, String> {
        let listener = self.vsock_only(|listener| listener.try_clone().unwrap())?;
        let port = listener.local_addr().unwrap().port().unwrap();
        self.threads.push(std::thread::spawn(move || echoes(listener.accept().unwrap().0)));
        Ok(Sockets::kernel().at(VmSocketAddr::new(CID_LOCAL, port)))
    }

    fn nobody(&mut self) -> Result<Place, String> {
        self.vsock_only(|_| Sockets::kernel().at(VmSocketAddr::new(CID_LOCAL, 5)))
    }

    fn listening(&mut self) -> Result<(Place, Box<dyn Dialer>), String> {
        let port = self.vsock_only(|listener| listener.local_addr().unwrap().port().unwrap())?;
        // That one is in use; the next is free with some luck.
        let port = port.wrapping_add(7);
        let dialer = Connects { port };
        Ok((Sockets::kernel().at(VmSocketAddr::new(CID_ANY, port)), Box::new(dialer)))
    }

    fn end(&mut self) {
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

struct Connects {
    port: u32,
}

impl Dialer for Connects {
    fn dial(&mut self) {
        let port = self.port;
        std::thread::spawn(move || {
            if let Ok(stream) = VmStream::connect((CID_LOCAL, port)) {
                echoes(stream);
            }
        });
    }
}

enum Order {
    Send(u64),
    End,
}

/// The writing side of a peer.
fn writes(mut stream: &VmStream, todo: &Receiver<Order>) {
    let mut place = 0;
    for order in todo {
        match order {
            Order::Send(bytes) => {
                if stream.write_all(&pattern(place, usize::try_from(bytes).unwrap())).is_err() {
                    return;
                }
                place += bytes;
            }
            Order::End => drop(stream.shutdown(Shutdown::Write)),
        }
    }
}

/// The reading side, which stops between `true` and `false`.
fn read_on(mut stream: VmStream, held: &Receiver<bool>, seen: &Mutex<Vec<u8>>, ended: &Mutex<bool>) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match held.try_recv() {
            Ok(true) => while held.recv() == Ok(true) {},
            Ok(false) | Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        match stream.read(&mut buffer) {
            Ok(0) => break *ended.lock().unwrap() = true,
            Ok(bytes) => seen.lock().unwrap().extend_from_slice(buffer.get(..bytes).unwrap()),
            Err(_) => return,
        }
    }
}

/// A peer that two threads are.
struct Thread {
    orders: Option<Sender<Order>>,
    holds: Sender<bool>,
    received: Arc<Mutex<Vec<u8>>>,
    ended: Arc<Mutex<bool>>,
}

impl Peer for Thread {
    fn send(&mut self, bytes: u64) {
        self.orders.as_ref().unwrap().send(Order::Send(bytes)).unwrap();
    }

    fn end(&mut self) {
        self.orders.as_ref().unwrap().send(Order::End).unwrap();
    }

    fn stop(&mut self) {
        self.holds.send(true).unwrap();
    }

    fn go(&mut self) {
        self.holds.send(false).unwrap();
    }

    fn reset(&mut self) -> Result<(), String> {
        Err("a peer in this process can't go without an end".to_owned())
    }

    fn received(&mut self) -> (u64, u64, bool) {
        let ended = *self.ended.lock().unwrap();
        let received = self.received.lock().unwrap();
        (u64::try_from(received.len()).unwrap(), checksum(&received), ended)
    }
}

/// What can be seen without anybody who connects: tasks that accept or connect hear of a close at once.
pub(crate) fn closing() -> Result<(), String> {
    let any = Sockets::kernel().at(VmSocketAddr::new(CID_ANY, PORT_ANY));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tasks::VmListener::bind(any).map_err(|error| format!("AF_VSOCK can't listen here: {error}"))?;
        let mut accepting = Box::pin(listener.accept());
        assert!(timeout(SHORT, &mut accepting).await.is_err(), "nobody is there");
        listener.close();
        let aborted = accepting.await.map(drop).unwrap_err();
        assert_eq!(aborted.kind(), std::io::ErrorKind::ConnectionAborted);
        // Nobody answers there, or there is nobody.
        let started = tasks::VmConnect::start((CID_LOCAL, 1));
        let mut connect = started.map_err(|error| format!("AF_VSOCK can't connect here: {error}"))?;
        let refused = timeout(SHORT, connect.wait()).await;
        if let Some(closer) = connect.closer().filter(|_| refused.is_err()) {
            closer.close();
            let aborted = connect.wait().await.map(drop).unwrap_err();
            assert_eq!(aborted.kind(), std::io::ErrorKind::ConnectionAborted);
        }
        Ok(())
    })
}
