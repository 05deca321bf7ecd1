//! What can't be seen from outside: the references to a channel.

#[path = "../../tests/bus/host.rs"]
#[expect(dead_code, unreachable_pub, reason = "made for the tests of the whole bus, of which this needs a part")]
mod host;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::{Channel, Dispatched, Hold};
use crate::{
    Error, Handler, IncomingPacket, KeepAlive, OpenOptions, OutgoingPacket, Probe, Probed, Settings, Vmbus, Wake,
    Watched,
};
use host::{Host, LONG, instance};

fn bus() -> (Vmbus, Host) {
    let (link, host) = Host::new(1, [1]);
    (Vmbus::start(link, Settings::default()).unwrap(), host)
}

fn references(hold: &Arc<Hold>) -> usize {
    // Less the one that looks.
    Arc::strong_count(hold) - 1
}

fn receive(channel: &mut Channel, hold: &Arc<Hold>) -> usize {
    channel
        .receive(usize::MAX, |_| {
            assert_eq!(references(hold), 1, "while a packet is shown");
            Ok::<_, Error>(())
        })
        .unwrap()
}

/// One reference from open to close, whatever is sent and received between. Red if a handle were cloned for a packet, a
/// batch or a wait.
#[test]
fn r1_5_traffic_takes_no_reference() {
    let (bus, host) = bus();
    let mut channel = bus.open(bus.find(instance(1)).unwrap().id, OpenOptions::default()).unwrap();
    let hold = channel.owner().share();
    assert_eq!(references(&hold), 1);
    let mut received = 0;
    for id in 0..1000 {
        host.send(1, id);
        channel.try_send(OutgoingPacket::in_band(id), &[]).unwrap();
        host.receive(1);
        assert_eq!(channel.wait(Some(LONG)).unwrap(), Wake::Packets);
        received += receive(&mut channel, &hold);
        assert_eq!(references(&hold), 1);
    }
    assert_eq!(received, 1000);
    let buffer = channel.create_buffer(4096).unwrap();
    assert!(references(&hold) > 1, "a buffer is a user");
    buffer.close().unwrap();
    assert_eq!(references(&hold), 1);
    drop(channel);
    assert_eq!(references(&hold), 0);
}

/// The same for a handler: the entry's references stay as they are while it is called.
#[test]
fn r1_5_a_handlers_packets_take_no_reference() {
    let (bus, host) = bus();
    let shared: Arc<Mutex<Option<Arc<Hold>>>> = Arc::default();
    let (seen, counts) = crossbeam_channel::unbounded();
    let looked = Arc::clone(&shared);
    let handler = move |_: &IncomingPacket<'_>| {
        let hold = looked.lock().unwrap_or_else(PoisonError::into_inner);
        seen.send(hold.as_ref().map(references)).unwrap();
    };
    let offer = bus.find(instance(1)).unwrap();
    let channel = bus.open_dispatched(offer.id, OpenOptions::default(), handler).unwrap();
    let hold = channel.hold();
    *shared.lock().unwrap() = Some(Arc::clone(&hold));
    let before = Arc::strong_count(&hold) - 1;
    for id in 0..1000 {
        host.send(1, id);
        assert_eq!(counts.recv_timeout(LONG).unwrap(), Some(before));
    }
    *shared.lock().unwrap() = None;
    drop(hold);
    channel.close().unwrap();
}

/// A protocol whose probe is answered on the spot, which is the end of the channel's last user.
struct Completing {
    last: Arc<Mutex<Option<Dispatched>>>,
    hold: Option<Weak<Hold>>,
    /// The references behind the completion, and how many there were before.
    left: crossbeam_channel::Sender<(usize, usize)>,
}

impl Handler for Completing {
    fn packet(&mut self, _packet: &IncomingPacket<'_>) {}
}

impl Probe for Completing {
    fn probe(&mut self) -> Probed {
        if let Some(last) = self.last.lock().unwrap().take() {
            let hold = self.hold.insert(Arc::downgrade(&last.hold()));
            let before = hold.strong_count();
            drop(last);
            self.left.send((before, hold.strong_count())).unwrap();
        }
        Probed::Answered
    }
}

/// Whoever submits has a use of its own: the dispatcher's outlives the last user, who goes in the middle of its call, and
/// the host gets the memory back behind it. Red without the entry's reference and that of `Turns`.
#[test]
fn r5_1_the_dispatch_outlives_the_last_user_who_goes_inline() {
    let (bus, host) = bus();
    let (left, counts) = crossbeam_channel::unbounded();
    let last = Arc::new(Mutex::new(None));
    let handler = Completing { last: Arc::clone(&last), hold: None, left };
    let keep_alive = KeepAlive::new(Duration::from_millis(5), Duration::from_millis(5), 1).unwrap();
    let offer = bus.find(instance(1)).unwrap();
    let mut held = last.lock().unwrap();
    *held = Some(bus.open_dispatched(offer.id, OpenOptions::default(), Watched::new(handler, keep_alive)).unwrap());
    let hold = held.as_ref().map(|dispatched| Arc::downgrade(&dispatched.hold())).unwrap();
    drop(held);
    let (before, left) = counts.recv_timeout(LONG).unwrap();
    assert_eq!(left, before - 1, "the user's, and no other");
    assert!(left >= 1, "the dispatcher's");
    host.until("the end", |host| host.gpadls.is_empty().then_some(()));
    assert_eq!(hold.strong_count(), 0);
}
