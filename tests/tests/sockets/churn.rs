//! R3.5 and R2.5 in small: many short connections by many threads, closed, aborted and reset at random.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use vmbus_devices::socket::{Place, VmConnect, VmListener, VmSocketAddr, VmStream};
use vmbus_simhost::Random;
use vmbus_simhost::device::PipeSettings;

use crate::bus::{self, OfBus};
use crate::world::{LONG, World, pattern};

const THREADS: u64 = 8;
const ROUNDS: u64 = 60;
const PORT: u32 = 7000;

/// What was seen, so that a run that does nothing fails.
#[derive(Default)]
struct Seen {
    whole: AtomicU64,
    resets: AtomicU64,
    aborted: AtomicU64,
    accepted: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Sends and hears back; what comes must be the stream, also when it is cut off.
fn talk(stream: &VmStream, random: &mut Random, seen: &Seen) {
    let order = random.below(18).max(1);
    let bytes = usize::try_from(random.below(1 << order)).unwrap() + 1;
    let sent = pattern(0, bytes);
    let mut writer = stream.try_clone().unwrap();
    let to_write = sent.clone();
    let writing = std::thread::spawn(move || {
        let written = writer.write_all(&to_write).and_then(|()| writer.shutdown(Shutdown::Write));
        if let Err(error) = written {
            let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::WriteZero];
            assert!(kinds.contains(&error.kind()), "{error:?}");
        }
    });
    let mut back = Vec::new();
    match (&*stream).read_to_end(&mut back) {
        Ok(_) => {
            assert!(back == sent, "an end behind {} of {bytes} bytes", back.len());
            count(&seen.whole);
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error:?}");
            assert!(sent.starts_with(&back), "other bytes before a reset");
            count(&seen.resets);
        }
    }
    writing.join().unwrap();
}

fn connect(place: &Place, random: &mut Random, seen: &Seen) {
    if random.below(3) != 0 {
        match VmStream::connect(place) {
            Ok(stream) => talk(&stream, random, seen),
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
            count(&seen.aborted);
        }
    }
    closing.join().unwrap();
}

fn listen(world: &OfBus, port: u32, random: &mut Random, seen: &Seen) {
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
        std::thread::sleep(Duration::from_millis(if late { 20 } else { 0 }));
        closer.close();
    });
    while let Ok((stream, _)) = listener.accept() {
        count(&seen.accepted);
        if random.below(2) == 0 {
            talk(&stream, random, seen);
        }
    }
    closing.join().unwrap();
}

/// The host takes connections back at random.
fn rescinds(world: &OfBus, over: &AtomicBool) {
    let mut random = Random::new(99);
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(random.below(5)));
        let pick = usize::try_from(random.below(1000)).unwrap();
        let rescinded = world.control().with(move |simulation| {
            let open: Vec<_> =
                simulation.host().offered().iter().filter(|offer| offer.state == "open").map(|o| o.id).collect();
            open.get(pick % open.len().max(1)).map(|id| simulation.host().rescind(*id))
        });
        drop(rescinded.unwrap());
    }
}

pub(crate) fn churn() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut world = bus::hvsock_with(seed);
    let place = world.echo_place().unwrap();
    let (seen, over) = (Seen::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let rescinding = scope.spawn(|| rescinds(&world, &over));
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (world, place, seen) = (&world, &place, &seen);
                scope.spawn(move || {
                    let mut random = Random::new(seed ^ thread << 32);
                    for _ in 0..ROUNDS {
                        match random.below(4) {
                            0 => listen(world, PORT + u32::try_from(thread).unwrap(), &mut random, seen),
                            _ => connect(place, &mut random, seen),
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        rescinding.join().unwrap();
    });
    let Seen { whole, resets, aborted, accepted } = &seen;
    let counts = [whole, resets, aborted, accepted].map(|counter| counter.load(Ordering::Relaxed));
    println!("whole, reset, aborted, accepted: {counts:?}");
    assert!(counts.iter().all(|count| *count != 0), "{counts:?}");
    world.end();
}
