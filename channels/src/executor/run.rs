//! The thread: one event after the other, until it is told to stop, the host is lost, or a bug ends it.
//!
//! Whatever the reason, the end is the same: users of channels are woken with an error, nobody is left waiting for an
//! answer or a credit, and only then are the link's and the dispatchers' threads joined.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use vmbus::link::{Link, LinkEvent};
use vmbus::message::{Features, HostMessage};

use super::Why;
use super::credits::Credits;
use super::direct::DirectProcessors;
use super::queue::{Event, Queue};
use super::reply::{Reply, Waiting};
use super::subscribers::Subscribers;
use crate::bus::{Counters, Settings};
use crate::channel::{Hold, Reason};
use crate::control::{Action, Command, Core, Input, Ticket};
use crate::dispatch::{self, Dispatchers, Report};
use crate::mutation::{self, Mutation};
use crate::{ChannelId, Error, Offer, here};

/// Starts the thread over a link; returns when the link listens.
///
/// # Errors
/// The link can't be started; a thread can't.
pub(crate) fn start(link: Box<dyn Link>, settings: Settings) -> Result<(Queue, JoinHandle<()>), Error> {
    const NAME: &str = "vmbus-executor";
    let (queue, inbox) = Queue::new(settings.limits.host_timeout);
    let (ready, started) = bounded(1);
    let mine = queue.clone();
    #[cfg(any(test, feature = "mutations"))]
    let broken = mutation::current();
    let thread = Builder::new().name(NAME.to_owned()).spawn(move || {
        here::serves_the_bus();
        #[cfg(any(test, feature = "mutations"))]
        mutation::adopt(broken);
        let executor = catch_unwind(AssertUnwindSafe(|| Executor::new(link, settings, mine)));
        match executor {
            Ok(Ok(mut executor)) => {
                let _ = ready.send(Ok(()));
                executor.run(inbox);
            }
            Ok(Err(error)) => drop(ready.send(Err(error))),
            Err(panic) => drop(ready.send(Err(Error::Panicked { why: words(panic.as_ref()) }))),
        }
    });
    let thread = thread.map_err(|source| Error::Thread { name: NAME, source })?;
    started.recv().map_err(|_| Error::Ended)??;
    Ok((queue, thread))
}

/// What the thread owns. Nobody else changes any of it.
pub(super) struct Executor {
    pub(super) core: Core,
    pub(super) link: Box<dyn Link>,
    pub(super) dispatchers: Dispatchers,
    /// Our own way in, for handles.
    pub(super) queue: Queue,
    /// What follows from what was done, before anything else is heard.
    pub(super) following: VecDeque<Input>,
    pub(super) waiting: HashMap<Ticket, Waiting>,
    /// What is offered now, as it was announced.
    pub(super) offers: HashMap<ChannelId, Arc<Offer>>,
    /// What the users of each open channel share. They hold it; here it is only found through them.
    pub(super) open: HashMap<ChannelId, Weak<Hold>>,
    /// Channels that are in a dispatcher's map.
    pub(super) mapped: HashSet<ChannelId>,
    pub(super) direct: DirectProcessors,
    /// Processors that applications may name: those with dispatchers.
    pub(super) shared_processors: u32,
    pub(super) subscribers: Subscribers,
    /// Whether everything that the host had at the connection has been announced.
    pub(super) all_arrived: bool,
    /// Set when the host is to be told goodbye: users of channels hear that, rather than that the host took them back.
    pub(super) leaving: bool,
    /// Set when the thread is to end.
    pub(super) over: Option<Why>,
    credits: Option<Credits>,
    actions: Vec<Action>,
    next_ticket: u64,
    start: Instant,
}

impl Executor {
    pub(super) fn new(mut link: Box<dyn Link>, settings: Settings, queue: Queue) -> Result<Self, Error> {
        let (credits, taker) = Credits::new(settings.backlog);
        let sink = queue.clone();
        link.start(Arc::new(move |event| taker.take() && sink.tell(Event::Link(event))))?;
        let reports = queue.clone();
        let dispatchers = Dispatchers::start(link.as_mut(), &settings.dispatch, move |report| {
            reports.tell(Event::Dispatcher(report));
        });
        let dispatchers = match dispatchers {
            Ok(dispatchers) => dispatchers,
            Err(error) => {
                // Its threads may wait for a credit.
                drop(credits);
                link.stop();
                return Err(error);
            }
        };
        let mut limits = settings.limits;
        // Bits without a name are nothing that anybody here could keep to, and who does not say who it is can't say so.
        let named = Features::all().iter_names().fold(Features::empty(), |named, (_, feature)| named | feature);
        limits.features &= named;
        if limits.contact.client.is_none() {
            limits.features.remove(Features::CLIENT_ID);
        }
        let shared = Dispatchers::dispatched(link.as_mut(), &settings.dispatch);
        let direct = DirectProcessors::new(link.as_mut(), shared);
        let shared_processors = limits.processors.min(u32::try_from(shared).unwrap_or(u32::MAX));
        limits.processors = u32::try_from(link.processors()).unwrap_or(u32::MAX);
        Ok(Self {
            core: Core::new(limits),
            link,
            dispatchers,
            queue,
            following: VecDeque::new(),
            waiting: HashMap::new(),
            offers: HashMap::new(),
            open: HashMap::new(),
            mapped: HashSet::new(),
            direct,
            shared_processors,
            subscribers: Subscribers::new(settings.unread),
            all_arrived: false,
            leaving: false,
            over: None,
            credits: Some(credits),
            actions: Vec::new(),
            next_ticket: 0,
            start: Instant::now(),
        })
    }

    fn run(&mut self, inbox: Receiver<Event>) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve(&inbox)));
        let why = served.unwrap_or_else(|panic| Why::Panicked(words(panic.as_ref())));
        log::info!(target: "vmbus::executor", "ends: {why:?}");
        self.queue.end(why);
        guarded(|| self.queue.leave(self.counters()));
        for (_, hold) in self.open.drain() {
            guarded(|| {
                if let Some(hold) = hold.upgrade() {
                    hold.end(Reason::Ended);
                }
            });
        }
        // Whoever waits finds the other end gone, and why in the queue.
        self.credits = None;
        guarded(|| drop(inbox));
        guarded(|| self.waiting.clear());
        self.subscribers = Subscribers::new(1);
        guarded(|| self.dispatchers.stop());
        guarded(|| self.link.stop());
    }

    fn serve(&mut self, inbox: &Receiver<Event>) -> Why {
        loop {
            let deadline = self.core.deadline().and_then(|deadline| self.start.checked_add(deadline));
            // Neither may keep the other from happening: events that never end, and a deadline that is always over.
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.feed(Input::Elapsed);
                inbox.try_recv().into_iter().for_each(|event| self.hear(event));
            } else {
                let event = match deadline {
                    Some(deadline) => inbox.recv_deadline(deadline),
                    None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                match event {
                    Ok(event) => self.hear(event),
                    // The executor has a way in of its own, so there is always one.
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => self.feed(Input::Elapsed),
                }
            }
            if let Some(why) = self.over.take() {
                return why;
            }
        }
    }

    pub(super) fn hear(&mut self, event: Event) {
        match event {
            Event::Link(event) => {
                match event {
                    LinkEvent::Message(message @ HostMessage::Offer(_)) if mutation::is(Mutation::OffersApart) => {
                        self.queue.tell(Event::Input(Input::Message(message)));
                    }
                    LinkEvent::Message(message) => self.feed(Input::Message(message)),
                    LinkEvent::Malformed(error) => self.feed(Input::Malformed(error)),
                    LinkEvent::Lost(error) => {
                        self.lost(error.to_string());
                        self.settle();
                    }
                }
                if let Some(credits) = &self.credits {
                    credits.give_back();
                }
            }
            Event::Input(input) => {
                if let Input::Unreferenced(channel) = &input {
                    self.open.remove(channel);
                    self.direct.left(*channel);
                }
                self.feed(input);
            }
            Event::Dispatcher(Report::Retired(channel)) => self.feed(Input::Retired(channel)),
            Event::Dispatcher(Report::Ended(channel, ending)) => self.ended(channel, ending),
            Event::Command(command, reply) => self.command(command, reply),
            Event::Offers(to) => drop(to.send(Ok(self.core.offers()))),
            Event::Agreed(to) => drop(to.send(Ok(self.core.agreed()))),
            Event::Count(to) => drop(to.send(Ok(self.counters()))),
            Event::Subscribe(to) => {
                let mut present = self.core.offers();
                present.sort_by_key(|offer| offer.subchannel_index != 0);
                let _ = to.send(Ok(self.subscribers.add(present, self.all_arrived)));
            }
            Event::Stop(to) => {
                self.leaving = true;
                self.queue.end(Why::Stopped);
                self.command(Command::Unload, Reply::Stopped(to));
            }
        }
    }

    /// Lets the core take note of something, and does what it wants done, until nothing follows from it.
    fn feed(&mut self, input: Input) {
        self.following.push_back(input);
        self.settle();
    }

    fn settle(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        while let Some(input) = self.following.pop_front() {
            self.core.step(self.start.elapsed(), input, &mut actions);
            for action in actions.drain(..) {
                self.carry_out(action);
            }
        }
        self.actions = actions;
    }

    fn command(&mut self, mut command: Command, reply: Reply) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket = self.next_ticket.wrapping_add(1);
        if let Err(error) = self.place(ticket, &mut command, &reply) {
            return reply.fail(error);
        }
        let channel = match &command {
            Command::Open(channel, _)
            | Command::Close(channel)
            | Command::CreateGpadl(channel, _)
            | Command::TearDownGpadl(channel, _)
            | Command::Move(channel, _)
            | Command::OpenReserved(channel, ..) => Some(channel),
            _ => None,
        };
        let offer = channel.and_then(|channel| self.offers.get(channel)).cloned();
        if matches!(command, Command::Suspend | Command::Resume | Command::Unload) {
            self.all_arrived = false;
        }
        self.waiting.insert(ticket, Waiting::new(reply, &command, offer));
        self.feed(Input::Command(ticket, command));
    }

    /// The host is lost: the core is told next, answers everybody and takes back all channels; then it is over.
    pub(super) fn lost(&mut self, why: String) {
        if !matches!(self.over, Some(Why::Lost(_))) {
            log::warn!(target: "vmbus::executor", "the connection to the host is lost: {why}");
            self.queue.end(Why::Lost(why.clone()));
            self.over = Some(Why::Lost(why));
            self.following.push_back(Input::Lost);
        }
    }

    /// A dispatcher can't go on with a channel: the application is told, and the channel is closed.
    fn ended(&mut self, channel: ChannelId, ending: dispatch::Ending) {
        if let Some(hold) = self.open.get(&channel).and_then(Weak::upgrade) {
            log::warn!(target: "vmbus::executor", "channel {channel} is closed: {ending:?}");
            hold.end(Reason::of(ending));
        }
        self.command(Command::Close(channel), Reply::Nobody);
    }

    fn counters(&self) -> Counters {
        Counters {
            control: self.core.counters(),
            dispatch: self.dispatchers.counters(),
            lagged: self.subscribers.lagged,
            channels: self.core.live_channels().try_into().unwrap_or(u64::MAX),
            gpadls: self.core.live_gpadls().try_into().unwrap_or(u64::MAX),
            open: self.open.len().try_into().unwrap_or(u64::MAX),
            waiting: self.waiting.len().try_into().unwrap_or(u64::MAX),
        }
    }
}

/// One step of the end, which must not keep the next from happening.
fn guarded(step: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(step)) {
        log::error!(target: "vmbus::executor", "a panic at the end: {}", words(panic.as_ref()));
    }
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no words".to_owned())
}
