//! Processors without a dispatcher: who gets one, what is left behind on them, and that nobody waits.

use std::thread;
use std::time::Duration;

use vmbus_channels::{Channel, Error, OpenOptions, OutgoingPacket, Placement, Settings, Vmbus, Wake};

use crate::host::{Host, LONG, instance};
use crate::receive;

/// The first processor without a dispatcher.
const DIRECT: usize = 2;

/// A bus with two dispatchers and so many processors beside them.
pub fn bus(offers: impl IntoIterator<Item = u32>, direct: usize) -> (Vmbus, Host) {
    let (link, host) = Host::new(DIRECT + direct, offers);
    let mut settings = Settings::default();
    settings.dispatch.direct = direct;
    (Vmbus::start(link, settings).unwrap(), host)
}

pub fn open(bus: &Vmbus, relid: u32, placement: Placement) -> Result<Channel, Error> {
    bus.open(bus.find(instance(relid))?.id, OpenOptions { placement, ..OpenOptions::default() })
}

fn processor(host: &Host, relid: u32) -> usize {
    host.lock().open.get(&relid).unwrap().processor
}

/// One round trip whose packet comes while the owner sleeps.
fn is_woken(channel: &mut Channel, host: &Host, relid: u32, id: u64) {
    // Closes the mask, which a new ring has open.
    assert!(receive(channel).unwrap().is_empty());
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            assert_eq!(channel.wait(Some(LONG)).unwrap(), Wake::Packets);
            receive(channel).unwrap()
        });
        // Not before it is about to sleep: then an interrupt is due.
        host.until("it does not ask for interrupts", |state| {
            use vmbus_ringbuf::{ControlField, Memory};
            (state.open.get(&relid)?.writer.memory().load(ControlField::InterruptMask) == 0).then_some(())
        });
        host.send(relid, id);
        assert_eq!(sleeper.join().unwrap(), [id]);
    });
}

#[test]
fn each_has_a_processor_for_itself_and_the_next_falls_back() {
    let (bus, host) = bus(1..=4, 2);
    let mut channels: Vec<_> = (1..=3).map(|relid| open(&bus, relid, Placement::Direct).unwrap()).collect();
    assert_eq!(channels.iter().map(Channel::is_direct).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!([1, 2, 3].map(|relid| processor(&host, relid)), [DIRECT, DIRECT + 1, 0]);
    for round in 0..50 {
        for (relid, channel) in (1..).zip(&mut channels) {
            is_woken(channel, &host, relid, round);
        }
    }
    // Only the one with a dispatcher is known to one.
    assert_eq!(bus.counters().unwrap().dispatch.entries, 1);
    channels.remove(0).close().unwrap();
    let mut next = (0..).find_map(|_| open(&bus, 4, Placement::Direct).ok()).unwrap();
    assert_eq!((next.is_direct(), processor(&host, 4)), (true, DIRECT), "given back by the close");
    is_woken(&mut next, &host, 4, 1);
}

#[test]
fn nobody_names_them_or_moves_from_there() {
    let (bus, host) = bus([1], 1);
    let id = bus.find(instance(1)).unwrap().id;
    let named = OpenOptions { processor: u32::try_from(DIRECT).unwrap(), ..OpenOptions::default() };
    assert!(matches!(bus.open(id, named), Err(Error::Argument(_))));
    let channel = open(&bus, 1, Placement::Direct).unwrap();
    assert!(matches!(bus.move_channel(id, 0), Err(Error::State { .. })));
    assert!(matches!(open(&bus, 1, Placement::Direct), Err(Error::State { .. })), "it is open");
    assert_eq!(processor(&host, 1), DIRECT);
    channel.close().unwrap();
    let shared = open(&bus, 1, Placement::Shared).unwrap();
    assert!(matches!(bus.move_channel(id, u32::try_from(DIRECT).unwrap()), Err(Error::Argument(_))));
    bus.move_channel(id, 1).unwrap();
    shared.close().unwrap();
}

/// A handler is called by a dispatcher, so its channel has one.
#[test]
fn a_handlers_channel_has_a_dispatcher_in_any_case() {
    let (bus, host) = bus([1], 1);
    let options = OpenOptions { placement: Placement::Direct, ..OpenOptions::default() };
    let channel = bus
        .open_dispatched(bus.find(instance(1)).unwrap().id, options, |_: &vmbus_channels::IncomingPacket<'_>| {})
        .unwrap();
    assert_eq!(processor(&host, 1), 0);
    channel.close().unwrap();
}

/// What a host does late for the channel that was here: the next one looks for nothing, and sleeps on; its own
/// interrupt wakes it.
#[test]
fn r1_6_a_late_interrupt_is_no_event_of_the_next_channel() {
    let (bus, host) = bus([1, 2], 1);
    let first = open(&bus, 1, Placement::Direct).unwrap();
    assert!(first.is_direct());
    first.close().unwrap();
    let mut next = open(&bus, 2, Placement::Direct).unwrap();
    assert!(next.is_direct());
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| next.wait(Some(Duration::from_millis(200))).unwrap());
        while !sleeper.is_finished() {
            // Flags of the one that was here, and interrupts without any; the first flag stays set for good.
            host.lock().raise(DIRECT, 1);
            host.lock().interrupt(DIRECT);
        }
        assert_eq!(sleeper.join().unwrap(), Wake::TimedOut);
    });
    is_woken(&mut next, &host, 2, 5);
}

/// A flag that the host left, or set late, must not keep the next channel of that relid from being interrupted: the
/// host interrupts for a flag that was clear. Red without the take in `OneFlag::begin`.
#[test]
fn r1_6_a_flag_that_was_left_does_not_deafen_the_next_channel() {
    let (bus, host) = bus([1], 1);
    for round in 0..20 {
        let mut channel = open(&bus, 1, Placement::Direct).unwrap();
        assert!(channel.is_direct());
        is_woken(&mut channel, &host, 1, round);
        // Behind the last look of its owner.
        host.lock().raise(DIRECT, 1);
        channel.close().unwrap();
    }
}

/// The same relid, offered again at once, while an owner of the old channel sleeps: he hears of the end, and the new
/// one of what is its own.
#[test]
fn r1_6_rescinded_and_offered_again_on_the_same_relid() {
    let (bus, host) = bus([1], 1);
    let mut changes = bus.subscribe().unwrap();
    for round in 0..50 {
        let mut old = (0..).find_map(|_| open(&bus, 1, Placement::Direct).ok()).unwrap();
        assert!(old.is_direct(), "round {round}: given back by the last reference");
        thread::scope(|scope| {
            let sleeper = scope.spawn(move || {
                let error = old.wait(Some(LONG)).unwrap_err();
                assert!(error.is_rescinded(), "{error}");
            });
            host.rescind(1);
            sleeper.join().unwrap();
        });
        host.until("it is not released", |state| (state.released.get(&1) == Some(&(round + 1))).then_some(()));
        host.offer(1);
        while !matches!(changes.next(Some(LONG)), Ok(Some(vmbus_channels::Announcement::Arrived(_)))) {}
        let mut new = (0..).find_map(|_| open(&bus, 1, Placement::Direct).ok()).unwrap();
        assert!(new.is_direct());
        is_woken(&mut new, &host, 1, 9);
        new.close().unwrap();
    }
}

/// Nobody in the guest has to answer for a channel without a dispatcher: a rescind is over when its last user goes,
/// also one who sleeps in another thread, and an end of the bus wakes him.
#[test]
fn retirement_waits_for_nobody_and_the_end_wakes() {
    let (bus, _host) = bus([1], 1);
    let mut channel = open(&bus, 1, Placement::Direct).unwrap();
    thread::scope(|scope| {
        let sleeper = scope.spawn(move || channel.wait(Some(LONG)));
        bus.shutdown().unwrap();
        assert!(matches!(sleeper.join().unwrap(), Err(Error::Ended)));
    });
}

/// An open that fails gives its processor back; one that fails because the channel is open takes nobody's.
#[test]
fn a_processor_is_given_back_by_an_open_that_fails() {
    let (bus, host) = bus([1, 2], 1);
    let id = bus.find(instance(1)).unwrap().id;
    let placement = Placement::Direct;
    for _ in 0..3 {
        let wrong = OpenOptions { outgoing_bytes: 1, placement, ..OpenOptions::default() };
        assert!(matches!(bus.open(id, wrong), Err(Error::Argument(_))));
    }
    host.be_silent(crate::host::Silent::Open);
    thread::scope(|scope| {
        let opener = scope.spawn(|| open(&bus, 1, placement));
        host.until("no open came", |state| (!state.unanswered.is_empty()).then_some(()));
        host.rescind(1);
        assert!(opener.join().unwrap().is_err());
    });
    host.speak(crate::host::Silent::Open);
    let mut channel = open(&bus, 2, placement).unwrap();
    assert!(channel.is_direct());
    channel.try_send(OutgoingPacket::in_band(1), &[]).unwrap();
    is_woken(&mut channel, &host, 2, 1);
}

/// With busy polling the host need not interrupt: the mask stays closed while somebody looks.
#[test]
fn a_wait_that_polls_needs_no_interrupt() {
    let (bus, host) = bus([1], 1);
    let mut channel = open(&bus, 1, Placement::Direct).unwrap();
    channel.set_busy_poll(LONG);
    for id in 0..100 {
        thread::scope(|scope| {
            let poller = scope.spawn(|| {
                assert_eq!(channel.wait(Some(LONG)).unwrap(), Wake::Packets);
                receive(&mut channel).unwrap()
            });
            let interrupted = host.send(1, id);
            assert!(!interrupted || id == 0, "before the first wait the mask is open");
            assert_eq!(poller.join().unwrap(), [id]);
        });
    }
    let waker = channel.waker();
    thread::scope(|scope| {
        let poller = scope.spawn(|| channel.wait(Some(LONG)).unwrap());
        waker.wake();
        assert_eq!(poller.join().unwrap(), Wake::Woken);
        host.rescind(1);
    });
    let started = std::time::Instant::now();
    assert!(channel.wait(Some(LONG)).unwrap_err().is_rescinded());
    assert!(started.elapsed() < LONG / 2);
}
