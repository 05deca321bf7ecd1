//! R3.5 and R2.5: many short connections by many threads, closed, aborted and reset at random.
//!
//! `VMBUS_CONNECTIONS=200000 cargo test --profile lab -p vmbus-tests --test sockets -- r3_5_nothing_is_left_after_a_churn` is
//! the full size: 64 threads, up to a mebibyte each. `VMBUS_SEED` plays a seed again, as far as threads allow.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vmbus_channels::Settings;
use vmbus_devices::socket::{Place, SocketSettings, VmConnect, VmListener, VmSocketAddr, VmStream};
use vmbus_simhost::device::PipeSettings;
use vmbus_simhost::{Config, Random};

use crate::bus::{self, OfBus};
use crate::world::{LONG, World};

/// Below those that connects are given.
const PORT: u32 = 100;
/// Connections in CI.
const FEW: u64 = 600;
/// From this many on it is a long run, with all threads and sizes, and memory must be level.
const MANY: u64 = 10_000;
/// By how much the most memory of the last quarter may be above that of the second: what allocators keep.
const LEVEL_BYTES: u64 = 24 << 20;

/// How much is done, and what was seen, so that a run that does nothing fails.
struct Churn {
    connections: u64,
    /// The largest message is two to this.
    order: u64,
    begun: AtomicU64,
    whole: AtomicU64,
    resets: AtomicU64,
    aborted: AtomicU64,
    accepted: AtomicU64,
    bytes: AtomicU64,
    /// The most memory in each quarter.
    resident: [AtomicU64; 4],
}

impl Churn {
    fn new(connections: u64) -> Self {
        let order = if connections < MANY { 17 } else { 20 };
        let [begun, whole, resets, aborted, accepted, bytes] = [(); 6].map(|()| AtomicU64::new(0));
        let resident = [(); 4].map(|()| AtomicU64::new(0));
        Self { connections, order, begun, whole, resets, aborted, accepted, bytes, resident }
    }

    /// One more connection; `false` when there were enough.
    fn begin(&self) -> bool {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(64) {
            let quarter = usize::try_from(number * 4 / self.connections).unwrap().min(3);
            self.resident[quarter].fetch_max(resident_bytes(), Ordering::Relaxed);
        }
        number < self.connections
    }
}

/// Format: `/proc/self/statm`, in pages; the second figure (proc(5)).
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * u64::try_from(rustix::param::page_size()).unwrap()
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The bytes of a connection from a place on, which is a multiple of eight: each word a hash of its place.
fn fill(seed: u64, place: u64, bytes: &mut [u8]) {
    for (number, word) in (place / 8..).zip(bytes.chunks_mut(8)) {
        let mut hash = (seed ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word.copy_from_slice(&(hash ^ (hash >> 32)).to_le_bytes()[..word.len()]);
    }
}

const PIECE: usize = 16 * 1024;

fn send(mut stream: &VmStream, seed: u64, bytes: u64) -> std::io::Result<()> {
    let mut buffer = [0; PIECE];
    let mut place = 0;
    while place < bytes {
        let piece = usize::try_from(bytes - place).unwrap().min(PIECE);
        fill(seed, place, &mut buffer[..piece]);
        stream.write_all(&buffer[..piece])?;
        place += u64::try_from(piece).unwrap();
    }
    stream.shutdown(Shutdown::Write)
}

/// Reads to the end; each byte must be the one that was sent. How many there were, and what ended them.
fn receive(mut stream: &VmStream, seed: u64) -> (u64, std::io::Result<()>) {
    let (mut buffer, mut expected) = ([0; PIECE], [0; PIECE + 8]);
    let mut place = 0_u64;
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(0) => return (place, Ok(())),
            Ok(read) => read,
            Err(error) => return (place, Err(error)),
        };
        let within = usize::try_from(place % 8).unwrap();
        fill(seed, place - place % 8, &mut expected[..within + read]);
        assert!(buffer[..read] == expected[within..within + read], "other bytes between {place} and {read} more");
        place += u64::try_from(read).unwrap();
    }
}

/// Sends and hears back; what comes must be the stream, also when it is cut off.
fn talk(stream: &VmStream, random: &mut Random, churn: &Churn) {
    // Few are large.
    let order = random.below(churn.order).min(random.below(churn.order)) + 1;
    let bytes = random.below(1 << order) + 1;
    let seed = random.below(u64::MAX);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            if let Err(error) = send(stream, seed, bytes) {
                let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::WriteZero];
                assert!(kinds.contains(&error.kind()), "{error:?}");
            }
        });
        let (back, ended) = receive(stream, seed);
        churn.bytes.fetch_add(back, Ordering::Relaxed);
        match ended {
            Ok(()) => {
                assert_eq!(back, bytes, "an end before all was back");
                count(&churn.whole);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error:?}");
                assert!(back <= bytes);
                count(&churn.resets);
            }
        }
        writing.join().unwrap();
    });
}

fn connect(place: &Place, random: &mut Random, churn: &Churn) {
    if random.below(4) != 0 {
        match VmStream::connect(place) {
            Ok(stream) => talk(&stream, random, churn),
            // Taken back before it was open.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error:?}"),
        }
        return;
    }
    let mut connect = VmConnect::start(place).unwrap();
    let closer = connect.closer().unwrap();
    let spins = random.below(20_000);
    let closing = std::thread::spawn(move || {
        (0..spins).for_each(|_| std::hint::spin_loop());
        closer.close();
    });
    match connect.wait(Some(LONG)) {
        Ok(stream) => drop(stream),
        Err(error) => {
            let kinds = [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset];
            assert!(kinds.contains(&error.kind()), "{error:?}");
            count(&churn.aborted);
        }
    }
    closing.join().unwrap();
}

fn listen(world: &OfBus, port: u32, random: &mut Random, churn: &Churn) {
    let addr = VmSocketAddr::any(port);
    let listener = VmListener::bind_with_backlog(world.sockets.at(addr), 2).unwrap();
    let service = addr.service_id().unwrap();
    let settings = PipeSettings { echoes: true, ..PipeSettings::default() };
    let dials = random.below(4);
    for _ in 0..dials {
        world.control().with(move |simulation| simulation.host().connect(service, settings)).unwrap().unwrap();
    }
    let closer = listener.closer();
    let late = random.below(2) == 0;
    let closing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(if late { 10 } else { 0 }));
        closer.close();
    });
    while let Ok((stream, _)) = listener.accept() {
        count(&churn.accepted);
        if random.below(2) == 0 {
            talk(&stream, random, churn);
        }
    }
    closing.join().unwrap();
    // What nobody took is the host's until it takes it back: its time goes faster than ours.
    let later = |simulation: &mut vmbus_simhost::server::Sim| {
        let now = simulation.host().now();
        simulation.elapsed(now + Duration::from_millis(250));
    };
    world.control().with(later).unwrap();
}

/// The host takes a connection back, in a while that is counted in what happens to it.
fn rescind(world: &OfBus, random: &mut Random) {
    let (mut left, pick) = (random.below(200), usize::try_from(random.below(1000)).unwrap());
    let work = move |simulation: &mut vmbus_simhost::server::Sim| {
        if left != 0 {
            left -= 1;
            return false;
        }
        let offered = simulation.host().offered();
        let open: Vec<_> = offered.iter().filter(|offer| offer.state == "open").map(|offer| offer.id).collect();
        if let Some(id) = open.get(pick % open.len().max(1)) {
            simulation.host().rescind(*id).unwrap();
        }
        true
    };
    world.control().when(work).unwrap();
}

fn number(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap())
}

pub(crate) fn churn() {
    let seed = number("VMBUS_SEED").unwrap_or(u64::from(std::process::id()));
    let churn = Churn::new(number("VMBUS_CONNECTIONS").unwrap_or(FEW));
    println!("seed {seed}, {} connections", churn.connections);
    let mut config = Config::seeded(seed);
    // Those that linger count, too.
    config.limits.connections = 2000;
    config.services.push(bus::echo_service());
    let mut sockets = SocketSettings::default();
    sockets.ring_bytes = 32 * 1024;
    let mut world = bus::start_with(config, false, Settings::default(), sockets);
    let place = world.echo_place().unwrap();
    let (start, threads) = (Instant::now(), if churn.connections < MANY { 8 } else { 64 });
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (world, place, churn) = (&world, &place, &churn);
            scope.spawn(move || {
                let mut random = Random::new(seed ^ thread << 32);
                while churn.begin() {
                    if random.below(5) == 0 {
                        rescind(world, &mut random);
                    }
                    match random.below(8) {
                        0 => listen(world, PORT + u32::try_from(thread).unwrap(), &mut random, churn),
                        _ => connect(place, &mut random, churn),
                    }
                }
            });
        }
    });
    let Churn { whole, resets, aborted, accepted, bytes, .. } = &churn;
    let counts = [whole, resets, aborted, accepted, bytes].map(|counter| counter.load(Ordering::Relaxed));
    println!("whole, reset, aborted, accepted, bytes back: {counts:?} in {:.1?}", start.elapsed());
    assert!(counts.iter().all(|count| *count != 0), "{counts:?}");
    // The tables are empty: it looks.
    world.end();
    let resident = churn.resident.each_ref().map(|most| most.load(Ordering::Relaxed));
    println!("resident at most, by quarters: {resident:?}; at the end {}", resident_bytes());
    let [_, second, _, last] = resident;
    assert!(churn.connections < MANY || last <= second + LEVEL_BYTES, "it grows: {resident:?}");
}
