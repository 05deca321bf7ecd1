//! Both ends of a wire against each other, over real sockets and real shared memory; and each against a hostile other.

mod hostile_guest;
mod hostile_host;
mod kill;
mod link;
mod memory;
mod signals;

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use uuid::Uuid;

use super::*;
use crate::Error;
use crate::link::{Link, LinkEvent, Share, Sink};
use crate::message::{
    ConnectionState, ContactTarget, Features, GpadlId, GuestMessage, HostMessage, InitiateContact, Message,
    OfferChannel, OfferFlags, Protocol, USER_DEFINED_BYTES, Version, VersionResponse,
};

/// What a test waits for happens at once or not at all.
const SOON: Duration = Duration::from_secs(20);

const SETTINGS: Settings = Settings { processors: 2, memory_bytes: 1 << 20 };

/// A guest and its host, connected, with what the link hears.
struct Ends {
    link: WireLink,
    heard: Receiver<LinkEvent>,
    host: Guest,
}

fn ends(settings: Settings) -> Ends {
    let (ours, theirs) = transport::pair().unwrap();
    let mut link = WireLink::over(ours, settings).unwrap();
    let Greeting::Guest(host) = Arrival::over(theirs).greet().unwrap() else { panic!("the hello was sent before") };
    let (sink, heard) = sink();
    link.start(sink).unwrap();
    Ends { link, heard, host }
}

/// As [`ends`], with a version agreed on.
fn talking(settings: Settings, version: Version) -> Ends {
    let mut ends = ends(settings);
    ends.link.post(&contact(version)).unwrap();
    assert!(matches!(ends.next_post(Protocol::NONE).1, GuestMessage::InitiateContact(_)));
    ends.say(Protocol::NONE, &accepted(7));
    assert_eq!(ends.hear(), accepted(7));
    ends
}

fn sink() -> (Sink, Receiver<LinkEvent>) {
    let (tell, heard) = channel();
    (Arc::new(move |event| tell.send(event).is_ok()), heard)
}

fn contact(version: Version) -> GuestMessage {
    GuestMessage::InitiateContact(InitiateContact {
        version,
        target_vp: 0,
        target: ContactTarget::Source { sint: 0, vtl: 0, features: Features::PAUSE_RESUME },
        parent_to_child_monitor: 0,
        child_to_parent_monitor: 0,
        client: None,
    })
}

fn accepted(selected: u32) -> HostMessage {
    let state = ConnectionState::SUCCESSFUL;
    HostMessage::VersionResponse(VersionResponse { supported: true, state, selected, features: None })
}

fn offer(relid: u32, monitor_id: Option<u8>) -> HostMessage {
    HostMessage::Offer(Box::new(OfferChannel {
        class: crate::class::Class::SHUTDOWN,
        instance: Uuid::from_u128(u128::from(relid)),
        flags: OfferFlags::empty(),
        mmio_megabytes: 0,
        mmio_megabytes_optional: 0,
        user_defined: [0; USER_DEFINED_BYTES],
        subchannel_index: 0,
        relid,
        monitor_id,
        is_dedicated: true,
        connection_id: relid + 0x1000,
    }))
}

impl Ends {
    /// The next message of the guest's, and where it was posted to.
    fn next_post(&mut self, protocol: Protocol) -> (u32, GuestMessage) {
        let post = next_post(&mut self.host.connection);
        (post.connection, GuestMessage::parse(post.message.as_ref(), protocol).unwrap())
    }

    fn say(&mut self, protocol: Protocol, message: &HostMessage) {
        self.host.connection.send(0, &message.encode(protocol).unwrap()).unwrap();
    }

    fn hear(&self) -> HostMessage {
        match self.heard.recv_timeout(SOON).unwrap() {
            LinkEvent::Message(message) => message,
            other => panic!("{other:?}"),
        }
    }

    /// Shares something and waits until all of it has been posted.
    fn share(&mut self, relid: u32, gpadl: u32, what: Share) -> Vec<u64> {
        self.link.share(relid, GpadlId(gpadl), what).unwrap();
        shared_pages(&mut self.host.connection)
    }
}

/// Receives a GPADL, and returns its pages.
fn shared_pages(connection: &mut HostConnection) -> Vec<u64> {
    use crate::message::gpadl::{Assembler, Limits, Progress};
    let protocol = Protocol::new(Version::V5_3, Features::empty());
    let mut progress = None;
    loop {
        let post = next_post(connection);
        let step = match (progress.take(), GuestMessage::parse(post.message.as_ref(), protocol).unwrap()) {
            (None, GuestMessage::GpadlHeader(header)) => Assembler::start(&header, Limits::default()),
            (Some(Progress::More(assembler)), GuestMessage::GpadlBody(body)) => assembler.push(&body),
            other => panic!("{other:?}"),
        };
        match step.unwrap() {
            Progress::Done(gpadl) => return gpadl.ranges.into_iter().flat_map(|range| range.pages).collect(),
            more => progress = Some(more),
        }
    }
}

fn next_post(connection: &mut HostConnection) -> Post {
    loop {
        if let Some(post) = connection.receive().unwrap() {
            return post;
        }
        assert!(readable_soon(&*connection), "the guest has posted nothing");
    }
}

/// What the host sees at the end.
fn end_of(connection: &mut HostConnection) -> Error {
    loop {
        match connection.receive() {
            Ok(None) => assert!(readable_soon(&*connection), "the guest is still there"),
            Ok(Some(_)) => {}
            Err(error) => return error,
        }
    }
}

fn readable_soon(descriptor: impl AsFd) -> bool {
    poll_for(descriptor, SOON)
}

fn is_readable(descriptor: impl AsFd) -> bool {
    poll_for(descriptor, Duration::ZERO)
}

fn poll_for(descriptor: impl AsFd, timeout: Duration) -> bool {
    let timeout = Timespec::try_from(timeout).unwrap();
    poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}

fn new_eventfd() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// Runs a test of this program again, in a process of its own: `name` from this folder on.
fn again(name: &str, key: &str, value: &std::ffi::OsStr) -> Child {
    let name = format!("wire::tests::{name}");
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(key, value)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// For tests that count what the whole process has: `true` in a process that runs this test only, which is started (and
/// judged) by the `false` in the one that runs all tests.
fn alone(name: &str) -> bool {
    const KEY: &str = "VMBUS_TEST_ALONE";
    if std::env::var_os(KEY).is_some() {
        return true;
    }
    assert!(again(name, KEY, name.as_ref()).wait().unwrap().success(), "{name} failed in a process of its own");
    false
}

/// Descriptors that this process has open.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Areas of guest memory that this process has mapped.
fn mapped_areas() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains("vmbus-guest")).count()
}
