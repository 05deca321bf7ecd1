//! The executor without its thread: what is in its queue is heard by the test, one after the other.

use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, bounded};
use vmbus::link::{Interrupts, Link, LinkEvent, Port, Share, Sink};
use vmbus::memory::Mapping;
use vmbus::message::{ConnectionState, GpadlId, GuestMessage, HostMessage, VersionResponse};

use super::queue::{Event, Queue};
use super::reply::Reply;
use super::run::Executor;
use crate::Settings;
use crate::control::Command;
use crate::control::tests::control_model::{offered, subchannel};
use crate::mutation::{self, Mutation};

type Posts = Arc<Mutex<Vec<GuestMessage>>>;

/// A host that says all of this as soon as it is asked for offers.
struct Talker {
    says: Vec<HostMessage>,
    sink: Option<Sink>,
    posts: Posts,
}

impl Talker {
    fn say(&self, message: HostMessage) {
        assert!(self.sink.as_ref().unwrap()(LinkEvent::Message(message)));
    }
}

impl Link for Talker {
    fn start(&mut self, sink: Sink) -> Result<(), vmbus::Error> {
        self.sink = Some(sink);
        Ok(())
    }

    fn post(&mut self, message: &GuestMessage) -> Result<(), vmbus::Error> {
        self.posts.lock().unwrap().push(message.clone());
        match message {
            GuestMessage::InitiateContact(_) => self.say(HostMessage::VersionResponse(VersionResponse {
                supported: true,
                state: ConnectionState::SUCCESSFUL,
                selected: 4,
                features: None,
            })),
            GuestMessage::RequestOffers => std::mem::take(&mut self.says).into_iter().for_each(|said| self.say(said)),
            _ => {}
        }
        Ok(())
    }

    fn share(&mut self, _: u32, _: GpadlId, _: Share) -> Result<(), vmbus::Error> {
        unreachable!("nothing is opened")
    }

    fn unshare(&mut self, _: GpadlId) {}

    fn port(&mut self, _: u32, _: GpadlId) -> Result<Port, vmbus::Error> {
        unreachable!("nothing is opened")
    }

    fn buffer(&mut self, _: GpadlId) -> Result<Arc<Mapping>, vmbus::Error> {
        unreachable!("nothing is opened")
    }

    fn processors(&self) -> usize {
        1
    }

    fn interrupts(&mut self, _: usize) -> Option<Interrupts> {
        None
    }

    fn stop(&mut self) {
        self.sink = None;
    }
}

fn offer(relid: u32, device: u128) -> HostMessage {
    offered(subchannel(relid, device, 0))
}

/// Lets an executor hear all of this, and what follows. What is offered then, by relid, and the numbers that were given
/// back.
fn heard(says: Vec<HostMessage>) -> (Vec<u32>, Vec<u32>) {
    let posts = Posts::default();
    let link = Talker { says, sink: None, posts: Arc::clone(&posts) };
    let (queue, inbox): (Queue, Receiver<Event>) = Queue::new(Settings::default().limits.host_timeout);
    let mut executor = Executor::new(Box::new(link), Settings::default(), queue.clone()).unwrap();
    let (connected, answer) = bounded(1);
    queue.tell(Event::Command(Command::Connect, Reply::Done(connected)));
    inbox.try_iter().for_each(|event| executor.hear(event));
    answer.try_recv().unwrap().unwrap();
    let mut offered: Vec<u32> = executor.core.offers().iter().map(|offer| offer.relid).collect();
    offered.sort_unstable();
    let posts = posts.lock().unwrap();
    let released = posts.iter().filter_map(|post| match post {
        GuestMessage::RelidReleased { relid } => Some(*relid),
        _ => None,
    });
    (offered, released.collect())
}

/// Offered, taken back, and the same device offered again under the same number: all of it in the queue at once.
fn flapping() -> (Vec<u32>, Vec<u32>) {
    let rescind = |relid| HostMessage::Rescind { relid };
    heard(vec![offer(1, 7), rescind(1), offer(1, 7), rescind(1), offer(2, 7), HostMessage::AllOffersDelivered])
}

/// R1.1: offers and rescinds go through one queue to one thread, so that neither overtakes the other however many wait.
#[test]
fn r1_1_neither_offers_nor_rescinds_overtake() {
    assert_eq!(flapping(), (vec![2], vec![1, 1]));
}

/// With offers on a queue of their own the rescinds come first and find nothing, and what was taken back stays for ever.
#[test]
fn r1_1_mutant_two_queues_are_noticed() {
    let (offered, released) = mutation::with(Mutation::OffersApart, flapping);
    assert_eq!(offered, [1]);
    assert_ne!(released, [1, 1]);
}
