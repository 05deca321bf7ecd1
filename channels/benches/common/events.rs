//! From a flag in an event page to the callback.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};
use vmbus::memory::{Mapping, Piece, map_mirrored};
use vmbus_channels::dispatch::parts::{Dispatcher, Lines, Mailbox, Mutant, Order, PageFlags, Role, Tally, channel_id};
use vmbus_channels::dispatch::{Attention, Bell, Ending, Entry, Progress, RELIDS, Report, Serve, Served};
use vmbus_channels::{IncomingPacket, OutgoingPacket};
use vmbus_ringbuf::Writer;

use super::{Race, each};

/// Where the bus's flags begin in the page.
const FLAGS_OFFSET: usize = 2 * 256;

/// Relids of a map, zero included.
pub(crate) const MOST: usize = RELIDS;

/// The callback: counts, without a locked instruction.
struct Callback(Arc<AtomicU64>);

impl Serve for Callback {
    fn event(&mut self) -> Attention {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Attention::Told
    }

    fn serve(&mut self, _budget: usize) -> Progress {
        Progress::Drained(0)
    }

    fn ended(&mut self, _why: Option<Ending>) {}
}

fn memfd(bytes: usize) -> File {
    let file = File::from(memfd_create("vmbus-bench", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(bytes as u64).unwrap();
    file
}

/// The host's window onto the flags, and a dispatcher that sees them.
pub(crate) struct Bench {
    pub(crate) page: Mapping,
    pub(crate) dispatcher: Dispatcher<PageFlags>,
    called: Arc<AtomicU64>,
}

impl Bench {
    /// A dispatcher with this many channels, spread over the map.
    pub(crate) fn new(channels: usize) -> (Self, Vec<usize>) {
        let file = memfd(4096);
        let map = || Mapping::new(&[Piece { file: file.as_fd(), file_offset: 0, bytes: 4096 }]).unwrap();
        let mail: Arc<[Mailbox]> = [Mailbox::new(Mutant::default()).unwrap()].into();
        let role = Role {
            number: 0,
            relids: RELIDS,
            budget: 64,
            mail: Arc::clone(&mail),
            reports: Arc::new(|_: Report| ()),
            mutant: Mutant::default(),
        };
        let flags = PageFlags::new(Arc::new(map()), FLAGS_OFFSET);
        let mut dispatcher = Dispatcher::new(role, flags, Lines::none(), Arc::new(Tally::default()));
        let called = Arc::new(AtomicU64::new(0));
        let relids: Vec<_> = (0..channels).map(|number| number * RELIDS / channels).collect();
        for relid in &relids {
            let entry = Entry::serve(Box::new(Callback(Arc::clone(&called))));
            mail[0].post(Order::Insert(*relid, channel_id(u32::try_from(*relid).unwrap(), 1), entry));
        }
        dispatcher.turn();
        (Self { page: map(), dispatcher, called }, relids)
    }

    /// As a host does: one locked instruction in the page.
    pub(crate) fn flag(&self, relid: usize) {
        self.page.set_bits(FLAGS_OFFSET + relid / 32 * 4, 1 << (relid % 32));
    }

    pub(crate) fn called(&self) -> u64 {
        self.called.load(Ordering::Relaxed)
    }
}

/// The host flags one channel of so many, and the dispatcher looks: scan of the page, lookup, call. The flag that the
/// host sets is part of it.
pub(crate) fn one_active(channels: usize) -> Race {
    let (mut bench, relids) = Bench::new(channels);
    let active = relids[channels / 2];
    Box::new(move |times| {
        let before = bench.called();
        let start = std::time::Instant::now();
        for _ in 0..times {
            bench.flag(active);
            bench.dispatcher.scan();
        }
        let took = start.elapsed();
        assert_eq!(bench.called() - before, times);
        took
    })
}

/// A whole turn of a dispatcher: it also looks whether there are orders and whether somebody is ready.
pub(crate) fn one_active_turn(channels: usize) -> Race {
    let (mut bench, relids) = Bench::new(channels);
    let active = relids[channels / 2];
    each(move || {
        bench.flag(active);
        bench.dispatcher.turn();
    })
}

/// The host flags all of so many channels; per event.
pub(crate) fn all_active(channels: usize) -> Race {
    let (mut bench, relids) = Bench::new(channels);
    Box::new(move |times| {
        let rounds = times.div_ceil(channels as u64);
        let before = bench.called();
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            for relid in &relids {
                bench.flag(*relid);
            }
            bench.dispatcher.scan();
        }
        let took = start.elapsed();
        assert_eq!(bench.called() - before, rounds * channels as u64);
        // As if it had been exactly so often.
        took.mul_f64(times as f64 / (rounds * channels as u64) as f64)
    })
}

/// Only what the host does.
pub(crate) fn flag_alone() -> Race {
    let (bench, _) = Bench::new(1);
    each(move || bench.flag(1))
}

/// A look at a page without flags.
pub(crate) fn idle_scan() -> Race {
    let (mut bench, _) = Bench::new(1);
    each(move || bench.dispatcher.scan())
}

/// A line that is never needed here.
struct Quiet;

impl Bell for Quiet {
    fn signal(&self) -> bool {
        true
    }

    fn unmasks(&self) -> bool {
        false
    }

    fn is_rescinded(&self) -> bool {
        false
    }

    fn is_gone(&self) -> bool {
        false
    }
}

/// A packet from the host's ring to a handler: written, flagged, found, masked, read, unmasked.
pub(crate) fn packet_to_handler() -> Race {
    let file = memfd(16384);
    let end = || map_mirrored(file.as_fd(), 0, 16384).unwrap().0;
    let (mut bench, _) = Bench::new(1);
    let mut writer = Writer::new(end()).unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&seen);
    let handler = move |packet: &IncomingPacket<'_>| counter.store(packet.transaction_id(), Ordering::Relaxed);
    let entry = Entry::serve(Box::new(Served::new(end(), Quiet, handler).unwrap()));
    bench.dispatcher.mail().unwrap().post(Order::Insert(5, channel_id(5, 1), entry));
    while bench.dispatcher.turn() {}
    let mut id = 0;
    each(move || {
        id += 1;
        if writer.try_write(&OutgoingPacket::in_band(id), &[&[7; 16]]).unwrap().is_needed() {
            bench.flag(5);
        }
        bench.dispatcher.turn();
        assert_eq!(seen.load(Ordering::Relaxed), id);
    })
}
