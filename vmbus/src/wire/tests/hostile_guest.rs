//! A host against guests that say hello wrongly, or nothing, or too much.

use std::os::fd::BorrowedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{SendFlags, send};
use rustix::pipe::{PipeFlags, pipe_with};

use super::super::transport::{
    Buffer, Frame, FromHost, Hello, MAX_FRAME_BYTES, Received, TRANSPORT_VERSION, receive, send_with,
};
use super::*;

const HELLO: Hello = Hello { version: TRANSPORT_VERSION, processors: 1, memory_bytes: 64 << 10 };
const ALL_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

fn memory(bytes: u64, seals: SealFlags) -> OwnedFd {
    let file = memfd_create("vmbus-guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, bytes).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file
}

fn good() -> Vec<OwnedFd> {
    vec![memory(HELLO.memory_bytes, ALL_SEALS), new_eventfd(), new_eventfd()]
}

fn with(change: impl FnOnce(&mut Vec<OwnedFd>)) -> Vec<OwnedFd> {
    let mut descriptors = good();
    change(&mut descriptors);
    descriptors
}

/// Sends a first frame, and returns what the host makes of it.
fn greet(frame: &[u8], descriptors: &[OwnedFd]) -> (Result<Greeting, Error>, OwnedFd) {
    let (guest, host) = transport::pair().unwrap();
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    send_with(guest.as_fd(), frame, &descriptors).unwrap();
    (Arrival::over(host).greet(), guest)
}

/// A first frame, what comes with it, and a word of the reason for which it is refused.
fn bad_hellos() -> Vec<(Vec<u8>, Vec<OwnedFd>, &'static str)> {
    let hello = |change: &dyn Fn(&mut Hello)| {
        let mut hello = HELLO;
        change(&mut hello);
        Frame::hello(hello).unwrap().as_ref().to_vec()
    };
    let plain = || hello(&|_| {});
    let mut wrong_magic = plain();
    wrong_magic[8] ^= 1;
    let blocking = || eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let pipe = || pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap().1;
    vec![
        (wrong_magic, good(), "magic"),
        (plain()[..31].to_vec(), good(), "31 bytes of 32"),
        (plain()[..3].to_vec(), good(), "3 bytes"),
        ([plain(), vec![0; MAX_FRAME_BYTES]].concat(), good(), "249 bytes"),
        (Frame::welcome().unwrap().as_ref().to_vec(), good(), "type 2"),
        (Frame::post(1, &[14; 40]).unwrap().as_ref().to_vec(), good(), "before the hello"),
        (hello(&|hello| hello.version = 2), good(), "version 2"),
        (hello(&|hello| hello.processors = 0), good(), "not 0"),
        (hello(&|hello| hello.processors = 241), good(), "not 241"),
        (hello(&|hello| hello.processors = u32::MAX), good(), "not 4294967295"),
        (hello(&|hello| hello.processors = 2), good(), "3 eventfds"),
        (hello(&|hello| hello.memory_bytes = 0), good(), "0 bytes"),
        (hello(&|hello| hello.memory_bytes = 5 * 4096), good(), "20480 bytes"),
        (hello(&|hello| hello.memory_bytes += 1), good(), "whole pages"),
        (hello(&|hello| hello.memory_bytes += 4096), good(), "the hello says"),
        (hello(&|hello| hello.memory_bytes = !4095), good(), "at most"),
        (plain(), vec![], "no guest memory"),
        (plain(), with(|all| all.truncate(1)), "and 0 came"),
        (plain(), with(|all| all.truncate(2)), "and 1 came"),
        (plain(), with(|all| all.push(new_eventfd())), "and 3 came"),
        (plain(), with(|all| all.extend((0..200).map(|_| pipe()))), "and 202 came"),
        (plain(), with(|all| all[0] = pipe()), "no memfd"),
        (plain(), with(|all| all[0] = memory(HELLO.memory_bytes, SealFlags::empty())), "sealed"),
        (plain(), with(|all| all[0] = memory(HELLO.memory_bytes, SealFlags::SHRINK)), "sealed"),
        (plain(), with(|all| all[0] = memory(HELLO.memory_bytes, ALL_SEALS | SealFlags::WRITE)), "nothing else"),
        (plain(), with(|all| all[0] = memory(HELLO.memory_bytes, ALL_SEALS | SealFlags::FUTURE_WRITE)), "nothing else"),
        (plain(), with(|all| all[0] = memory(4096, ALL_SEALS)), "has 4096 bytes"),
        (plain(), with(|all| all[1] = pipe()), "no eventfd"),
        (plain(), with(|all| all[2] = blocking()), "no eventfd"),
    ]
}

/// Each is refused with a reason that the guest can read. (The table itself is checked by its last line: the hello that
/// all of them are made from is welcome.)
#[test]
fn bad_hellos_are_refused_with_a_reason() {
    for (frame, descriptors, word) in bad_hellos() {
        let (outcome, guest) = greet(&frame, &descriptors);
        let Err(Error::Handshake { why }) = outcome else { panic!("{word}: {outcome:?}") };
        assert!(why.contains(word), "{why:?} has no {word:?}");
        let mut buffer: Buffer = [0; MAX_FRAME_BYTES + 1];
        let Received::Frame(frame) = receive(guest.as_fd(), &mut buffer).unwrap() else { panic!("{word}: no answer") };
        let answer = FromHost::parse(frame).unwrap();
        assert!(matches!(answer, FromHost::Refused(reason) if why.as_bytes().starts_with(reason)), "{answer:?}");
        assert_eq!(receive(guest.as_fd(), &mut buffer), Ok(Received::Ended), "{word}: the host has let go of it");
    }
    let Ok(Greeting::Guest(host)) = greet(Frame::hello(HELLO).unwrap().as_ref(), &good()).0 else { panic!("refused") };
    let flags = rustix::io::fcntl_getfd(host.interrupts.signals()).unwrap();
    assert_eq!(flags, rustix::io::FdFlags::CLOEXEC, "what a guest sends is not inherited by programs that are started");
}

/// Nothing of a refused guest stays open or mapped, nor of one that was welcome and is gone.
#[test]
fn a_guest_leaves_no_descriptor_behind() {
    if !alone("hostile_guest::a_guest_leaves_no_descriptor_behind") {
        return;
    }
    let before = (descriptors(), mapped_areas());
    for _ in 0..3 {
        for (frame, descriptors, word) in bad_hellos() {
            let (outcome, _) = greet(&frame, &descriptors);
            assert!(outcome.is_err(), "{word}");
        }
        let (outcome, guest) = greet(Frame::hello(HELLO).unwrap().as_ref(), &good());
        let Ok(Greeting::Guest(host)) = outcome else { panic!("{outcome:?}") };
        assert!(mapped_areas() > before.1);
        drop((guest, host));
    }
    assert_eq!((descriptors(), mapped_areas()), before);
}

#[test]
fn a_guest_that_says_nothing_is_waited_for_and_one_that_leaves_is_not() {
    let (guest, host) = transport::pair().unwrap();
    let Greeting::Waiting(arrival) = Arrival::over(host).greet().unwrap() else { panic!("nothing was said") };
    let Greeting::Waiting(arrival) = arrival.greet().unwrap() else { panic!("nothing was said") };
    drop(guest);
    assert!(matches!(arrival.greet(), Err(Error::Disconnected { .. })));

    let (_guest, host) = transport::pair().unwrap();
    let outcome = Arrival::over(host).wait(Duration::from_millis(10));
    assert!(matches!(&outcome, Err(Error::Handshake { why }) if why.contains("10 ms")), "{outcome:?}");
}

/// After the welcome, too, whatever is no message ends this guest, and what comes with it is closed.
#[test]
fn frames_that_are_no_messages_end_the_connection() {
    let hello = Frame::hello(HELLO).unwrap();
    let welcome = Frame::welcome().unwrap();
    let long = [Frame::post(1, &[0; 240]).unwrap().as_ref(), &[0]].concat();
    for (frame, word) in
        [(hello.as_ref(), "twice"), (welcome.as_ref(), "type 2"), (&[4, 0, 0], "3 bytes"), (&long, "249")]
    {
        let (outcome, guest) = greet(hello.as_ref(), &good());
        let Ok(Greeting::Guest(mut host)) = outcome else { panic!("{outcome:?}") };
        send(&guest, Frame::post(1, &[3; 8]).unwrap().as_ref(), SendFlags::empty()).unwrap();
        send(&guest, frame, SendFlags::empty()).unwrap();
        assert_eq!(host.connection.receive().unwrap().unwrap().message.as_ref(), [3; 8], "what came before counts");
        let Err(Error::Disconnected { why }) = host.connection.receive() else { panic!("{word}") };
        assert!(why.contains(word), "{why}");
    }
}

#[test]
fn descriptors_that_come_with_a_message_are_closed() {
    let (outcome, guest) = greet(Frame::hello(HELLO).unwrap().as_ref(), &good());
    let Ok(Greeting::Guest(mut host)) = outcome else { panic!("{outcome:?}") };
    let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    send_with(guest.as_fd(), Frame::post(1, &[3; 8]).unwrap().as_ref(), &[write_end.as_fd()]).unwrap();
    drop(write_end);
    assert!(!is_readable(&read_end), "on its way");
    assert!(host.connection.receive().unwrap().is_some());
    assert!(is_readable(&read_end), "no write end is left");
}

/// The host's queue is bounded, and says so; it never waits.
#[test]
fn a_guest_that_does_not_read_is_given_up() {
    let (outcome, guest) = greet(Frame::hello(HELLO).unwrap().as_ref(), &good());
    let Ok(Greeting::Guest(mut host)) = outcome else { panic!("{outcome:?}") };
    let message = Message::try_from(&[4_u8, 0, 0, 0, 0, 0, 0, 0][..]).unwrap();
    let sent = (0..100_000).take_while(|_| host.connection.send(0, &message).is_ok()).count();
    assert!((8192..20_000).contains(&sent), "{sent}");
    assert!(host.connection.wants_write());
    // One that reads again gets all of it, in order.
    let mut buffer: Buffer = [0; MAX_FRAME_BYTES + 1];
    let mut read = 0;
    while host.connection.wants_write() || is_readable(&guest) {
        host.connection.flush().unwrap();
        while matches!(receive(guest.as_fd(), &mut buffer), Ok(Received::Frame(_))) {
            read += 1;
        }
    }
    assert_eq!(read, sent + 1, "the welcome, too");
}

#[test]
fn a_listener_replaces_a_dead_one_leaves_a_living_one_and_cleans_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host");
    let listener = HostListener::bind(&path).unwrap();
    assert!(listener.accept().unwrap().is_none());
    assert!(matches!(HostListener::bind(&path), Err(Error::Busy { .. })));
    // The attempt above connected, and left.
    assert!(matches!(listener.accept().unwrap().unwrap().greet(), Err(Error::Disconnected { .. })));
    let links = [SETTINGS, Settings::default()].map(|settings| WireLink::connect(&path, settings).unwrap());
    for link in &links {
        assert!(readable_soon(&listener));
        let Greeting::Guest(host) = listener.accept().unwrap().unwrap().greet().unwrap() else { panic!("no hello") };
        assert_eq!(host.memory.layout(), link.memory().layout());
    }
    drop(listener);
    assert!(!path.exists());
    assert!(matches!(WireLink::connect(&path, SETTINGS), Err(Error::Io { .. })));
    // A host that was killed leaves its socket there.
    drop(transport::listen(&path).unwrap());
    assert!(path.exists());
    assert!(HostListener::bind(&path).is_ok());
    std::fs::write(&path, "a file").unwrap();
    assert!(matches!(HostListener::bind(&path), Err(Error::Busy { .. })), "not ours to remove");
}
