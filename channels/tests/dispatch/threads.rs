//! With their threads: interrupts, orders while asleep, moves, descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vmbus_channels::dispatch::parts::channel_id;
use vmbus_channels::dispatch::{
    Attention, Dispatchers, Ending, Entry, Notifier, Progress, RELIDS, Report, Serve, Served, Settings, Source,
};
use vmbus_channels::{IncomingPacket, OutgoingPacket};
use vmbus_ringbuf::Writer;

use crate::link::{PagesLink, Processor, event, is_readable, link, ring};
use crate::serve::CountingLine;

/// Long enough for any machine; only a test that fails waits so long.
const LONG: Duration = Duration::from_secs(20);

fn team(processors: usize) -> (Dispatchers, Vec<Processor>, Receiver<Report>) {
    let (mut link, host) = link(processors);
    let (reports, heard) = channel();
    let reports = Mutex::new(reports);
    let report = move |report| {
        let _ = reports.lock().unwrap().send(report);
    };
    (Dispatchers::start(&mut link, &Settings::default(), report).unwrap(), host, heard)
}

/// Sends its relid's events into a channel of the test.
struct Tell(std::sync::mpsc::Sender<u32>, u32);

impl Serve for Tell {
    fn event(&mut self) -> Attention {
        let _ = self.0.send(self.1);
        Attention::Told
    }

    fn serve(&mut self, _budget: usize) -> Progress {
        Progress::Drained(0)
    }

    fn ended(&mut self, _why: Option<Ending>) {}
}

#[test]
fn every_flag_of_the_page_finds_its_channel() {
    let (mut team, host, _reports) = team(1);
    let (tell, told) = channel();
    let last = u32::try_from(RELIDS).unwrap() - 1;
    for relid in [1, 63, 64, 1000, last] {
        team.insert(0, relid, channel_id(relid, 1), Entry::serve(Box::new(Tell(tell.clone(), relid))));
        assert_eq!(told.recv_timeout(LONG), Ok(relid), "looked after at once");
    }
    for relid in [1, 63, 64, 1000, last] {
        host[0].interrupt(relid);
        assert_eq!(told.recv_timeout(LONG), Ok(relid));
    }
    for relid in [0, last + 1, u32::MAX] {
        team.insert(0, relid, channel_id(9999, 1), Entry::serve(Box::new(Tell(tell.clone(), relid))));
    }
    assert_eq!(team.counters().stale, 3);
}

/// One write for any number of events that nobody has taken note of.
#[test]
fn a_notifier_is_raised_once_until_it_is_cleared() {
    let (mut team, host, reports) = team(1);
    let notifier = Notifier::new().unwrap();
    let (tell, told) = channel();
    team.insert(0, 5, channel_id(5, 1), Entry::notify(notifier.clone()));
    team.insert(0, 6, channel_id(6, 1), Entry::serve(Box::new(Tell(tell, 6))));
    told.recv_timeout(LONG).unwrap();
    notifier.clear();
    for _ in 0..3 {
        host[0].flag(5);
        host[0].interrupt(6);
        told.recv_timeout(LONG).unwrap();
    }
    assert!(notifier.wait(Some(LONG)).unwrap());
    let mut writes = [0; 8];
    rustix::io::read(&notifier, &mut writes).unwrap();
    assert_eq!(u64::from_ne_bytes(writes), 1);
    notifier.clear();
    assert!(!notifier.is_raised());
    team.retire(0, 5, channel_id(5, 1));
    assert_eq!(reports.recv_timeout(LONG), Ok(Report::Retired(channel_id(5, 1))));
    assert!(is_readable(&notifier), "whoever sleeps is told that nobody will wake it any more");
}

#[test]
fn packets_reach_their_handler_and_the_channel_retires() {
    let (mut team, host, reports) = team(1);
    let (host_ring, guest_ring) = ring();
    let mut writer = Writer::new(host_ring).unwrap();
    let (got, packets) = channel();
    let handler = move |packet: &IncomingPacket<'_>| got.send(packet.transaction_id()).unwrap();
    let hold = Arc::new(());
    let entry = Entry::serve(Box::new(Served::new(guest_ring, CountingLine::default(), handler).unwrap()));
    team.insert(0, 5, channel_id(5, 1), entry.holding(Arc::clone(&hold)));
    for id in 0..1000 {
        if writer.try_write(&OutgoingPacket::in_band(id), &[]).unwrap().is_needed() {
            host[0].interrupt(5);
        }
        assert_eq!(packets.recv_timeout(LONG), Ok(id));
    }
    team.retire(0, 5, channel_id(5, 1));
    assert_eq!(reports.recv_timeout(LONG), Ok(Report::Retired(channel_id(5, 1))));
    assert_eq!(Arc::strong_count(&hold), 1, "given back before the answer");
    assert!(packets.recv_timeout(LONG).is_err(), "the handler is dropped");
    assert!(!host[0].is_flagged(5));
    let counters = team.counters();
    assert_eq!((counters.packets, counters.entries, counters.stale), (1000, 0, 0));
}

/// A host that interrupts the old processor or the new one while a move is not settled: nothing is lost. Red without the
/// marker (`Place::Left`).
#[test]
fn r1_8_packets_survive_moves() {
    let (mut team, host, reports) = team(2);
    let (host_ring, guest_ring) = ring();
    let mut writer = Writer::new(host_ring).unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let (done, finished) = channel();
    let counter = Arc::clone(&count);
    let handler = move |packet: &IncomingPacket<'_>| {
        assert_eq!(packet.transaction_id(), counter.fetch_add(1, Ordering::SeqCst));
        let _ = done.send(());
    };
    let entry = Entry::serve(Box::new(Served::new(guest_ring, CountingLine::default(), handler).unwrap()));
    let id = channel_id(5, 1);
    team.insert(0, 5, id, entry);
    let (mut home, mut settled) = (0_u32, true);
    for packet in 0..3000_u64 {
        match packet % 4 {
            1 => {
                team.move_entry(5, id, home, 1 - home);
                (home, settled) = (1 - home, false);
            }
            3 => {
                team.settle(5, id);
                settled = true;
            }
            _ => {}
        }
        // Until the move is settled, signals go to the old processor or to the new one.
        let to = if settled || packet % 3 == 0 { home } else { 1 - home };
        if writer.try_write(&OutgoingPacket::in_band(packet), &[]).unwrap().is_needed() {
            host[to as usize].interrupt(5);
        }
        finished.recv_timeout(LONG).unwrap();
    }
    // One move that is never settled: the retirement goes by way of it.
    team.move_entry(5, id, home, 1 - home);
    team.retire(1 - home, 5, id);
    assert_eq!(reports.recv_timeout(LONG), Ok(Report::Retired(id)));
    assert_eq!(count.load(Ordering::SeqCst), 3000);
    let counters = team.counters();
    assert_eq!((counters.entries, counters.markers, counters.panics), (0, 0, 0));
}

/// An interrupt of a device with a descriptor.
#[derive(Clone)]
struct Device(Arc<(OwnedFd, std::sync::atomic::AtomicBool)>);

impl Source for Device {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.0.as_fd())
    }

    fn acknowledge(&self) -> bool {
        if self.0.1.load(Ordering::SeqCst) {
            return false;
        }
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.0.0, &mut count);
        true
    }
}

#[test]
fn a_descriptor_wakes_all_channels_of_its_device() {
    let (reports, heard) = channel();
    let reports = Mutex::new(reports);
    let report = move |report| {
        let _ = reports.lock().unwrap().send(report);
    };
    let mut link = PagesLink::without_flags(2);
    let mut team = Dispatchers::start(&mut link, &Settings::default(), report).unwrap();
    let (tell, told) = channel();
    let device = Device(Arc::new((event(), false.into())));
    for relid in [1, 2] {
        let entry = Entry::serve(Box::new(Tell(tell.clone(), relid))).on_source(Box::new(device.clone()));
        // Another processor for each: they stay together all the same, for they share a descriptor.
        team.insert(relid, relid, channel_id(relid, 1), entry);
        assert_eq!(told.recv_timeout(LONG), Ok(relid));
    }
    for _ in 0..3 {
        rustix::io::write(&device.0.0, &1_u64.to_ne_bytes()).unwrap();
        let mut both = [told.recv_timeout(LONG).unwrap(), told.recv_timeout(LONG).unwrap()];
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
    }
    team.move_entry(1, channel_id(1, 1), 0, 1);
    team.retire(1, 1, channel_id(1, 1));
    assert_eq!(heard.recv_timeout(LONG), Ok(Report::Retired(channel_id(1, 1))));
    // Gone: told once more, and not watched any more, although it stays readable.
    device.0.1.store(true, Ordering::SeqCst);
    rustix::io::write(&device.0.0, &1_u64.to_ne_bytes()).unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok(2));
    team.retire(1, 2, channel_id(2, 1));
    assert_eq!(heard.recv_timeout(LONG), Ok(Report::Retired(channel_id(2, 1))));
    assert!(is_readable(&device.0.0));
    assert_eq!(Arc::strong_count(&device.0), 1, "it is given back with its last channel");
    assert!(team.counters().sleeps < 100, "{:?}", team.counters());
}

#[test]
fn stopping_drops_what_is_in_the_maps() {
    let (mut team, _host, _reports) = team(2);
    let hold = Arc::new(());
    for relid in 1..100 {
        let entry = Entry::notify(Notifier::new().unwrap()).holding(Arc::clone(&hold));
        team.insert(relid % 2, relid, channel_id(relid, 1), entry);
    }
    team.stop();
    drop(team);
    assert_eq!(Arc::strong_count(&hold), 1);
}

#[test]
fn a_channel_with_all_the_traffic_leaves_room_for_another() {
    struct Greedy;
    impl Serve for Greedy {
        fn event(&mut self) -> Attention {
            Attention::Ready
        }
        fn serve(&mut self, budget: usize) -> Progress {
            Progress::More(budget)
        }
        fn ended(&mut self, _why: Option<Ending>) {}
    }
    let (mut team, host, reports) = team(1);
    let (tell, told) = channel();
    team.insert(0, 1, channel_id(1, 1), Entry::serve(Box::new(Greedy)));
    team.insert(0, 2, channel_id(2, 1), Entry::serve(Box::new(Tell(tell, 2))));
    for _ in 0..10 {
        assert_eq!(told.recv_timeout(LONG), Ok(2));
        host[0].interrupt(2);
    }
    team.retire(0, 1, channel_id(1, 1));
    assert_eq!(reports.recv_timeout(LONG), Ok(Report::Retired(channel_id(1, 1))));
}

/// A dispatcher that polls on before it sleeps looks at devices as well: what they say does not wait until its time is
/// over.
#[test]
fn polling_on_hears_descriptors() {
    let mut settings = Settings::default();
    settings.busy_poll = LONG;
    let mut team = Dispatchers::start(&mut PagesLink::without_flags(1), &settings, |_| {}).unwrap();
    let (tell, told) = channel();
    let device = Device(Arc::new((event(), false.into())));
    team.insert(0, 1, channel_id(1, 1), Entry::serve(Box::new(Tell(tell, 1))).on_source(Box::new(device.clone())));
    assert_eq!(told.recv_timeout(LONG), Ok(1));
    for _ in 0..3 {
        rustix::io::write(&device.0.0, &1_u64.to_ne_bytes()).unwrap();
        assert_eq!(told.recv_timeout(LONG / 4), Ok(1));
    }
    assert_eq!(team.counters().sleeps, 0);
    let start = Instant::now();
    team.stop();
    assert!(start.elapsed() < LONG / 4, "the end does not wait for it either");
}
