//! A group over a bus: a device's primary channel and its subchannels, opened as they come and cleared as they go.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::{Connection, Counts, Group, Held, Kind, Link, Over, Policy, Port, Refused};
use crate::dispatch::Ending;
use crate::{
    Announcement, ChannelId, Error, Handler, IncomingPacket, KeepAlive, Offer, OpenOptions, Probe, Probed,
    Subscription, Vmbus, Watched, here,
};

/// What is spoken over a group of channels. Its calls come from dispatchers, one at a time for each link, and must not
/// wait.
pub trait Protocol: Send + Sync + Sized + 'static {
    /// What it keeps for a link.
    type Link: Send + Sync + 'static;
    /// What it keeps for a connection.
    type Connection: Send + Sync + 'static;

    /// A link is about to be opened.
    fn link(&self, offer: &Offer) -> Self::Link;

    /// A packet has come on a link: see [`Handler::packet`].
    fn packet(&self, link: &Link<Carried<Self>>, packet: &IncomingPacket<'_>);

    /// The packets of a turn are through: see [`Handler::batch`].
    fn batch(&self, link: &Link<Carried<Self>>) {
        let _ = link;
    }

    /// There may be room on a link that was armed: see [`Handler::room`].
    fn room(&self, link: &Link<Carried<Self>>) {
        let _ = link;
    }

    /// Asks the other side of a link whether it is there: see [`Probe::probe`].
    fn probe(&self, link: &Link<Carried<Self>>) -> Probed {
        let _ = link;
        Probed::Unsent
    }

    /// A link was cleared: nothing is sent on it any more.
    fn cleared(&self, link: &Link<Carried<Self>>) {
        let _ = link;
    }

    /// A connection has moved to another link.
    fn moved(&self, connection: &Held<Carried<Self>>) {
        let _ = connection;
    }

    /// A connection is over, because its link ended, or the group.
    fn ended(&self, connection: &Held<Carried<Self>>) {
        let _ = connection;
    }
}

/// What links and connections carry where a protocol is spoken over channels.
#[derive(Debug)]
pub struct Carried<P>(PhantomData<P>);

impl<P: Protocol> Kind for Carried<P> {
    type Link = Port<P::Link>;
    type Connection = P::Connection;
}

/// What a group of channels is like.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// How each channel is opened; the processor is that of the primary one.
    pub open: OpenOptions,
    /// Dispatchers that the links are put on in turn, from that processor on.
    pub processors: u32,
    /// How connections are spread over the links.
    pub policy: Policy,
    /// Connections at most.
    pub connections: usize,
    /// Links at most, the primary one counted. A subchannel beyond that is left alone.
    pub links: usize,
    /// How a link that has gone silent is found. None: it is not. Where user space has the device from the kernel, nobody
    /// says that a subchannel was taken back, and this is the only way to find out.
    pub keep_alive: Option<KeepAlive>,
}

impl Default for GroupOptions {
    /// One processor, round robin, 4096 connections, 64 links, no keep-alive.
    fn default() -> Self {
        let open = OpenOptions::default();
        Self { open, processors: 1, policy: Policy::default(), connections: 4096, links: 64, keep_alive: None }
    }
}

/// A device's channels, and the protocol that is spoken over them. Dropping it ends all of it, waiting for nobody.
pub struct ChannelGroup<P: Protocol> {
    inner: Arc<Inner<P>>,
    /// Its drop ends the thread.
    stop: Option<Sender<()>>,
    watcher: Mutex<Option<JoinHandle<()>>>,
}

/// What handlers share with the creator.
struct Inner<P: Protocol> {
    group: Group<Carried<P>>,
    protocol: P,
    options: GroupOptions,
}

impl<P: Protocol> ChannelGroup<P> {
    /// Opens a primary channel, and all its subchannels that are offered, now or later.
    ///
    /// # Errors
    /// As [`Vmbus::open_dispatched`], for the primary channel. A subchannel that can't be opened is left alone.
    pub fn open(bus: &Vmbus, primary: &Offer, protocol: P, options: GroupOptions) -> Result<Self, Error> {
        here::may_wait("ChannelGroup::open")?;
        // Before the primary channel: a host offers subchannels once that is open.
        let news = bus.subscribe()?;
        let group = Group::new(options.policy, options.connections);
        let inner = Arc::new(Inner { group, protocol, options });
        let (stop, stopped) = bounded(0);
        let opened = Self { inner: Arc::clone(&inner), stop: Some(stop), watcher: Mutex::new(None) };
        inner.open_link(bus, primary)?;
        let watcher = Watcher { inner, bus: bus.clone(), primary: primary.id, news, stopped };
        let thread = Builder::new().name("vmbus-group".into()).spawn(move || watcher.run());
        let thread = thread.map_err(|source| Error::Thread { name: "vmbus-group", source })?;
        *opened.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(opened)
    }

    /// What is spoken.
    #[must_use]
    pub fn protocol(&self) -> &P {
        &self.inner.protocol
    }

    /// A new connection, which is not connected: see [`Held::connect`].
    ///
    /// # Errors
    /// As [`Group::connection`].
    pub fn connection(&self, carries: P::Connection, can_move: bool) -> Result<Connection<Carried<P>>, Refused> {
        self.inner.group.connection(carries, can_move)
    }

    /// Why it is over, if it is.
    #[must_use]
    pub fn over(&self) -> Option<Over> {
        self.inner.group.over()
    }

    /// What there is now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.group.counts()
    }

    /// Ends it: connections are over, the host has let go of the channels, and the thread that looked after them is gone.
    ///
    /// # Errors
    /// [`Error::Callback`], and then it is ended as by a drop; as [`Dispatched::close`](crate::Dispatched::close), for the
    /// first channel that says so.
    pub fn close(mut self) -> Result<(), Error> {
        here::may_wait("ChannelGroup::close")?;
        drop(self.stop.take());
        let links = self.inner.group.links();
        // Nothing is sent any more.
        let cleared = self.inner.group.end(Over::Closed);
        let closed = links.iter().rev().map(|link| link.close()).fold(Ok(()), Result::and);
        self.inner.tell(cleared);
        let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Its panics are its own.
        let _ = watcher.map(JoinHandle::join);
        closed
    }
}

impl<P: Protocol> Drop for ChannelGroup<P> {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.inner.end(Over::Closed);
    }
}

impl<P: Protocol> fmt::Debug for ChannelGroup<P> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ChannelGroup").field("group", &self.inner.group).finish_non_exhaustive()
    }
}

impl<P: Protocol> Inner<P> {
    /// Opens a channel and makes it a link.
    fn open_link(self: &Arc<Self>, bus: &Vmbus, offer: &Offer) -> Result<(), Error> {
        let gone = |_| Error::Link(vmbus::Error::Rescinded { device: offer.instance.to_string() });
        let processors = self.options.processors.max(1);
        let processor = u32::from(offer.subchannel_index) % processors + self.options.open.processor;
        let port = Port::new(offer.clone(), self.protocol.link(offer));
        let link = self.group.link(port, offer.subchannel_index == 0, processor).map_err(gone)?;
        let handler = LinkHandler { inner: Arc::clone(self), link: link.clone() };
        let handler = Watched::new(handler, self.options.keep_alive);
        let options = OpenOptions { processor, ..self.options.open.clone() };
        let joined = bus.open_dispatched(offer.id, options, handler).and_then(|channel| {
            link.open(channel);
            // Only now: nobody finds a link that is half built.
            self.group.join(&link).map_err(gone)
        });
        if joined.is_err() {
            self.clear(&link);
        }
        joined
    }

    /// A link has ended, however that was found out.
    fn clear(&self, link: &Link<Carried<P>>) {
        let cleared = self.group.clear(link);
        link.shut();
        self.tell(cleared);
    }

    fn end(&self, over: Over) {
        let cleared = self.group.end(over);
        self.tell(cleared);
    }

    fn tell(&self, cleared: super::Cleared<Carried<P>>) {
        // Subchannels before their primary one.
        for link in cleared.links.iter().rev() {
            link.shut();
            self.protocol.cleared(link);
        }
        cleared.moved.iter().for_each(|connection| self.protocol.moved(connection));
        cleared.ended.iter().for_each(|connection| self.protocol.ended(connection));
    }

    fn link_of(&self, channel: ChannelId) -> Option<Link<Carried<P>>> {
        self.group.links().into_iter().find(|link| link.offer().id == channel)
    }
}

/// What the dispatcher calls for a link.
struct LinkHandler<P: Protocol> {
    inner: Arc<Inner<P>>,
    link: Link<Carried<P>>,
}

impl<P: Protocol> Handler for LinkHandler<P> {
    fn packet(&mut self, packet: &IncomingPacket<'_>) {
        self.inner.protocol.packet(&self.link, packet);
    }

    fn batch(&mut self) {
        self.inner.protocol.batch(&self.link);
    }

    fn room(&mut self) {
        self.inner.protocol.room(&self.link);
    }

    fn ended(&mut self, why: Ending) {
        if let Ending::Dead(silent) = why {
            let offer = self.link.offer();
            log::warn!(
                target: "vmbus::channels",
                "device {}: link {} has said nothing for {} ms and answers no keep-alive; what is on it moves to another",
                offer.instance, offer.subchannel_index, silent.as_millis()
            );
        }
        self.inner.clear(&self.link);
    }
}

impl<P: Protocol> Probe for LinkHandler<P> {
    fn probe(&mut self) -> Probed {
        self.inner.protocol.probe(&self.link)
    }
}

/// Who opens subchannels that come later.
struct Watcher<P: Protocol> {
    inner: Arc<Inner<P>>,
    bus: Vmbus,
    primary: ChannelId,
    news: Subscription,
    stopped: Receiver<()>,
}

impl<P: Protocol> Watcher<P> {
    fn run(mut self) {
        loop {
            let news = select! {
                recv(self.stopped) -> _ => return,
                recv(self.news.receiver()) -> news => news,
            };
            match news {
                Ok(news) => self.hear(&news),
                // Cut off, and everything present follows; or the end of the bus.
                Err(_) => match self.news.next(None) {
                    Ok(Some(news)) => self.hear(&news),
                    Ok(None) | Err(Error::Lagged) => {}
                    Err(_) => return self.inner.end(Over::PrimaryLost),
                },
            }
        }
    }

    fn hear(&self, news: &Announcement) {
        match news {
            Announcement::Arrived(offer) if offer.primary == Some(self.primary) => {
                let links = self.inner.group.links();
                let known = links.iter().any(|link| link.offer().id == offer.id);
                if known || links.len() >= self.inner.options.links || self.inner.group.over().is_some() {
                    return;
                }
                if let Err(error) = self.inner.open_link(&self.bus, offer) {
                    log::debug!(target: "vmbus::channels", "subchannel {} is left alone: {error}", offer.id);
                }
            }
            Announcement::Departed(offer) => {
                if let Some(link) = self.inner.link_of(offer.id) {
                    self.inner.clear(&link);
                }
            }
            _ => {}
        }
    }
}
