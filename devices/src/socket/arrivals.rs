//! One thread that hears what the host offers, for the listeners of a bus.

use std::io;
use std::sync::Weak;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use vmbus_channels::{Announcement, Error, Subscription};

use super::sockets::OfOneBus;

/// The thread, as long as this is there.
pub(super) struct Arrivals {
    /// Nothing is sent; its drop ends the thread.
    _stop: Sender<()>,
}

impl Arrivals {
    pub(super) fn start(subscription: Subscription, sockets: Weak<OfOneBus>) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let thread = std::thread::Builder::new().name("vmsock-arrivals".into());
        thread.spawn(move || run(subscription, &stopped, &sockets))?;
        Ok(Self { _stop: stop })
    }
}

fn run(mut subscription: Subscription, stopped: &Receiver<()>, sockets: &Weak<OfOneBus>) {
    loop {
        let receiver = subscription.receiver().clone();
        let heard = select! {
            recv(stopped) -> _ => return,
            recv(receiver) -> heard => heard,
        };
        let Some(sockets) = sockets.upgrade() else { return };
        match heard {
            Ok(Announcement::Arrived(offer)) => sockets.arrived(&offer),
            Ok(_) => {}
            // Cut off, or the end; and `next` knows which.
            Err(_) => match subscription.next(None) {
                Ok(Some(Announcement::Arrived(offer))) => sockets.arrived(&offer),
                Ok(_) | Err(Error::Lagged) => {}
                Err(error) => {
                    log::debug!(target: "vmbus::socket", "nothing arrives any more: {error}");
                    return sockets.over();
                }
            },
        }
    }
}
