//! A guest against hosts that answer wrongly, stop to listen, or leave.

use std::sync::mpsc::RecvTimeoutError;

use rustix::net::{SendFlags, send};

use super::super::transport::{Buffer, Frame, MAX_FRAME_BYTES, Received, receive, receive_with};
use super::*;

/// A guest whose host is a bare socket that has taken the hello.
fn guest() -> (WireLink, Receiver<LinkEvent>, OwnedFd) {
    let (ours, theirs) = transport::pair().unwrap();
    let mut link = WireLink::over(ours, SETTINGS).unwrap();
    let mut buffer: Buffer = [0; MAX_FRAME_BYTES + 1];
    assert!(matches!(receive_with(theirs.as_fd(), &mut buffer), Ok((Received::Frame(_), Some(_)))));
    let (sink, heard) = sink();
    link.start(sink).unwrap();
    (link, heard, theirs)
}

fn say(host: &OwnedFd, frame: &[u8]) {
    send(host, frame, SendFlags::empty()).unwrap();
}

/// The link's last word, and that there is none behind it.
fn last_word(heard: &Receiver<LinkEvent>) -> Error {
    let LinkEvent::Lost(error) = heard.recv_timeout(SOON).unwrap() else { panic!("not the end") };
    assert_eq!(heard.recv_timeout(SOON).err(), Some(RecvTimeoutError::Disconnected), "the end comes once");
    error
}

#[test]
fn answers_that_are_no_welcome_end_the_link_with_a_reason() {
    let refused = Frame::refused("no room\u{7} here").unwrap();
    let early = Frame::message(0, &[4, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut other = Frame::welcome().unwrap().as_ref().to_vec();
    other[4] = 9;
    for (frame, word) in
        [(refused.as_ref(), "no room here"), (early.as_ref(), "before"), (&other, "9"), (&[1], "1 bytes")]
    {
        let (mut link, heard, host) = guest();
        say(&host, frame);
        drop(host);
        let Error::Handshake { why } = last_word(&heard) else { panic!("{word}") };
        assert!(why.contains(word), "{why}");
        assert!(matches!(link.post(&contact(Version::V5_3)), Err(Error::Disconnected { .. })));
    }
}

/// The refusal is read even where the host has closed its end with our frames unread, which resets ours.
#[test]
fn a_refusal_is_read_behind_a_reset() {
    let (ours, theirs) = transport::pair().unwrap();
    let mut link = WireLink::over(ours, SETTINGS).unwrap();
    say(&theirs, Frame::refused("full").unwrap().as_ref());
    drop(theirs);
    let (sink, heard) = sink();
    link.start(sink).unwrap();
    assert!(matches!(last_word(&heard), Error::Handshake { why } if why.contains("full")));
}

#[test]
fn nothing_is_posted_before_the_welcome_and_everything_after_it_in_order() {
    let (mut link, _heard, host) = guest();
    for version in [Version::V5_3, Version::V4_0] {
        link.post(&contact(version)).unwrap();
    }
    assert!(!is_readable(&host));
    say(&host, Frame::welcome().unwrap().as_ref());
    let mut buffer: Buffer = [0; MAX_FRAME_BYTES + 1];
    for version in [Version::V5_3, Version::V4_0] {
        assert!(readable_soon(&host));
        let Ok(Received::Frame(frame)) = receive(host.as_fd(), &mut buffer) else { panic!("nothing there") };
        assert_eq!(frame[16..20], version.0.to_le_bytes());
    }
}

/// Frames and messages that are none are described, one by one, and the link goes on.
#[test]
fn what_is_no_message_is_reported_and_the_next_one_is_heard() {
    let (_link, heard, host) = guest();
    let welcome = Frame::welcome().unwrap();
    say(&host, welcome.as_ref());
    let no_message = Frame::message(0, &[0xff; 12]).unwrap();
    let short = Frame::message(0, &[15, 0]).unwrap();
    let guests = Frame::post(0, &[3, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let long = [no_message.as_ref(), &[0; 240]].concat();
    for frame in [no_message.as_ref(), short.as_ref(), guests.as_ref(), &long, &[7]] {
        say(&host, frame);
        assert!(matches!(heard.recv_timeout(SOON).unwrap(), LinkEvent::Malformed(_)), "{frame:?}");
    }
    say(&host, Frame::message(0, accepted(1).encode(Protocol::NONE).unwrap().as_ref()).unwrap().as_ref());
    assert!(matches!(heard.recv_timeout(SOON).unwrap(), LinkEvent::Message(HostMessage::VersionResponse(_))));
    say(&host, welcome.as_ref());
    assert!(matches!(last_word(&heard), Error::Disconnected { why } if why.contains("twice")));
}

/// A host that stops to listen costs a bounded queue, and `post` never waits for it. (Seen to fail without the bound.)
#[test]
fn a_host_that_does_not_read_is_given_up() {
    let (mut link, heard, host) = guest();
    say(&host, Frame::welcome().unwrap().as_ref());
    let posted = (0..100_000).take_while(|_| link.post(&contact(Version::V5_3)).is_ok()).count();
    assert!((8192..20_000).contains(&posted), "{posted}");
    assert!(matches!(last_word(&heard), Error::Disconnected { why } if why.contains("unread")));
    let mut buffer: Buffer = [0; MAX_FRAME_BYTES + 1];
    while matches!(receive(host.as_fd(), &mut buffer), Ok(Received::Frame(_))) {}
    assert_eq!(receive(host.as_fd(), &mut buffer), Ok(Received::Ended), "the host finds out when it looks");
}

/// What the host said before it left is heard before the end.
#[test]
fn a_host_that_leaves_is_heard_out() {
    let mut ends = talking(SETTINGS, Version::V5_3);
    let protocol = Protocol::new(Version::V5_3, Features::empty());
    for relid in 1..=100 {
        ends.say(protocol, &offer(relid, None));
    }
    ends.link.post(&GuestMessage::RequestOffers).unwrap();
    drop(ends.host);
    for relid in 1..=100 {
        let LinkEvent::Message(message) = ends.heard.recv_timeout(SOON).unwrap() else { panic!("relid {relid}") };
        assert_eq!(message, offer(relid, None));
    }
    assert!(matches!(last_word(&ends.heard), Error::Disconnected { why } if why.contains("host closed it or died")));
    assert!(matches!(ends.link.post(&GuestMessage::RequestOffers), Err(Error::Disconnected { .. })));
}

/// A host that closes one direction only is gone as well.
#[test]
fn a_host_that_only_stops_receiving_is_lost() {
    let (mut link, heard, host) = guest();
    say(&host, Frame::welcome().unwrap().as_ref());
    rustix::net::shutdown(&host, rustix::net::Shutdown::Read).unwrap();
    while link.post(&contact(Version::V5_3)).is_ok() {}
    assert!(matches!(last_word(&heard), Error::Disconnected { .. }));
}

/// A sink that refuses ends the thread; a link that is stopped says nothing more, and the host sees it go.
#[test]
fn stopping_is_quiet_and_joins() {
    let mut ends = talking(SETTINGS, Version::V5_3);
    ends.link.stop();
    assert_eq!(ends.heard.try_recv().err(), Some(std::sync::mpsc::TryRecvError::Disconnected), "the sink is dropped");
    assert!(matches!(end_of(&mut ends.host.connection), Error::Disconnected { .. }));
    assert!(matches!(ends.link.post(&GuestMessage::Unload), Err(Error::Disconnected { .. })));
    ends.link.stop();

    let (link, heard, host) = guest();
    drop(heard);
    say(&host, Frame::welcome().unwrap().as_ref());
    say(&host, Frame::message(0, &[0xff; 12]).unwrap().as_ref());
    drop(link);
}
