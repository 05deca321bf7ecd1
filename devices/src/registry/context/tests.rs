//! What an instance leaves with its context, looked at from inside.

use std::sync::mpsc::{Sender, channel};

use uuid::Uuid;
use vmbus::class::Class;
use vmbus_channels::{Announcement, ChannelId, Offer};

use super::Context;
use crate::Error;
use crate::registry::{DeviceIds, Driver, Instance, Reason, Registry, Settings};

/// Hands its context out.
struct Lender(Sender<Context>);

struct Lent;

impl Driver for Lender {
    fn name(&self) -> String {
        "lender".to_owned()
    }

    fn ids(&self) -> DeviceIds {
        DeviceIds::class(Class::HEARTBEAT)
    }

    fn probe(&self, context: &Context, _: Offer) -> Result<Box<dyn Instance>, Error> {
        self.0.send(context.clone()).map_err(|_| Error::NoBus)?;
        Ok(Box::new(Lent))
    }
}

impl Instance for Lent {
    fn remove(self: Box<Self>, _: Reason) {}
}

/// Threads that have ended are joined by those that come after them: an instance that starts one for each connection does
/// not keep all their stacks until it is removed.
#[test]
fn threads_that_have_ended_are_not_kept() {
    let (lend, lent) = channel();
    let registry = Registry::by_hand(Settings::default(), None).unwrap();
    let registration = registry.register(Lender(lend)).unwrap();
    registry.announce(Announcement::Arrived(Offer::made_up(
        ChannelId::made_up(1, 1),
        Class::HEARTBEAT,
        Uuid::from_u128(1),
    )));
    registry.settle().unwrap();
    let context = lent.recv().unwrap();
    let (release, wait) = channel::<()>();
    context.thread("long", move |_| wait.recv().unwrap_or(())).unwrap();
    for _ in 0..100 {
        context.thread("short", |_| {}).unwrap();
        while context.threads().iter().filter(|thread| !thread.is_finished()).count() > 1 {
            std::thread::yield_now();
        }
    }
    assert!(context.threads().len() <= 2, "{} threads are kept", context.threads().len());
    drop(release);
    registration.unregister().unwrap();
    registry.shutdown().unwrap();
}
