//! The driver over a scripted channel: whole conversations, and how each of them can end.

use super::super::event::Counters;
use super::*;
use crate::balloon::wire::{
    BalloonRequest, Header, HotAddRequest, MessageType, PageRange, Status, UnballoonRequest, WireRange,
};
use crate::balloon::{Failure, Limit};
use std::cell::RefCell;
use std::fs;
use std::ops::Range;
use std::rc::Rc;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

/// What the doubles write down, in order.
type Log = Rc<RefCell<Vec<String>>>;

/// What a host does when it is waited for.
#[derive(Debug, Clone)]
enum Host {
    Say(Vec<u8>),
    /// Gives back what it was told of, in one range for each page, highest first.
    GiveBackAll,
    Silence,
    Stop,
    Rescind,
}

#[derive(Debug)]
struct DoubleTransport {
    script: VecDeque<Host>,
    log: Log,
    told: Vec<PageRange>,
    full: bool,
}

fn rescinded() -> vmbus_channels::Error {
    vmbus::Error::Rescinded { device: "double".to_owned() }.into()
}

impl Transport for DoubleTransport {
    fn send(&mut self, message: &[u8], timeout: Option<Duration>) -> Result<(), vmbus_channels::Error> {
        if self.full && timeout.is_none() {
            self.full = false;
            return Err(vmbus_channels::Error::Full { device: "double".to_owned(), needed: 1, free: 0 });
        }
        let (header, body) = Header::read_from_prefix(message).unwrap();
        assert_eq!(usize::from(header.size.get()), message.len());
        if MessageType(header.kind.get()) == MessageType::BALLOON_RESPONSE {
            let ranges = body[8..].chunks_exact(8).map(|bytes| WireRange::read_from_bytes(bytes).unwrap());
            self.told.extend(ranges.map(PageRange::from));
        }
        self.log.borrow_mut().push(format!("send {} ({})", header.kind, header.transaction));
        if MessageType(header.kind.get()) == MessageType::STATUS_REPORT {
            let status = Status::read_from_bytes(message).unwrap();
            self.log.borrow_mut().push(format!("status {} {}", status.available, status.committed));
        }
        Ok(())
    }

    fn receive(&mut self, inbox: &mut Vec<Received>) -> Result<(), vmbus_channels::Error> {
        while let Some(Host::Say(_) | Host::GiveBackAll) = self.script.front() {
            let bytes = match self.script.pop_front() {
                Some(Host::Say(bytes)) => bytes,
                _ => unballoon(&self.told.drain(..).rev().flat_map(pages_of).collect::<Vec<_>>()),
            };
            inbox.push(crate::balloon::wire::parse(&bytes).map_err(Ignored::Wire));
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, vmbus_channels::Error> {
        match self.script.front() {
            Some(Host::Say(_) | Host::GiveBackAll) => Ok(Wake::Packets),
            _ if timeout == Some(Duration::ZERO) => Ok(Wake::TimedOut),
            None => panic!("the script is over"),
            Some(_) => match self.script.pop_front() {
                Some(Host::Rescind) => Err(rescinded()),
                Some(Host::Stop) => Ok(Wake::Woken),
                _ => Ok(Wake::TimedOut),
            },
        }
    }

    fn device(&self) -> &'static str {
        "double"
    }

    fn close(self) -> Result<(), vmbus_channels::Error> {
        self.log.borrow_mut().push("close".to_owned());
        Ok(())
    }
}

/// Pages from frame 1,000 on, which are missing in the memory figures; the log says when some go back.
#[derive(Debug)]
struct DoublePool {
    next: u64,
    log: Log,
    meminfo: PathBuf,
}

impl DoublePool {
    /// 512 MiB, of which 100,000 pages less what was taken are available.
    fn write_figures(&self) {
        let available = 4 * (101_000 - self.next);
        let text = format!("MemTotal: 524288 kB\nMemAvailable: {available} kB\nCommitted_AS: 4000 kB\n");
        fs::write(&self.meminfo, text).unwrap();
    }
}

#[derive(Debug)]
struct DoubleChunk {
    frames: Vec<u64>,
    log: Log,
}

impl PagePool for DoublePool {
    type Chunk = DoubleChunk;

    fn granule_pages(&self) -> u32 {
        1
    }

    fn take(&mut self, count: usize) -> Result<Option<DoubleChunk>, vmbus::Error> {
        let end = self.next + u64::try_from(count).unwrap();
        let frames = (self.next..end).collect();
        self.next = end;
        self.write_figures();
        Ok(Some(DoubleChunk { frames, log: Rc::clone(&self.log) }))
    }

    fn frames(chunk: &DoubleChunk) -> &[u64] {
        &chunk.frames
    }

    fn give_back(&mut self, _: &mut DoubleChunk, _: Range<usize>) -> Result<(), vmbus::Error> {
        Ok(())
    }
}

impl Drop for DoubleChunk {
    fn drop(&mut self) {
        self.log.borrow_mut().push(format!("free {}", self.frames.len()));
    }
}

fn header<T>(kind: MessageType, extra: usize) -> Header {
    let size = u16::try_from(size_of::<T>() + extra).unwrap();
    Header { kind: U16::new(kind.0), size: U16::new(size), transaction: U32::new(77) }
}

fn flags(kind: MessageType, flags: u64) -> Host {
    let header = header::<crate::balloon::wire::VersionResponse>(kind, 0);
    Host::Say(crate::balloon::wire::VersionResponse { header, flags: U64::new(flags) }.as_bytes().to_vec())
}

fn balloon(pages: u32) -> Host {
    let header = header::<BalloonRequest>(MessageType::BALLOON_REQUEST, 0);
    Host::Say(BalloonRequest { header, pages: U32::new(pages), reserved: U32::ZERO }.as_bytes().to_vec())
}

fn pages_of(range: PageRange) -> Vec<PageRange> {
    (range.start..range.end()).rev().map(|start| PageRange { start, count: 1 }).collect()
}

fn unballoon(ranges: &[PageRange]) -> Vec<u8> {
    let wire: Vec<WireRange> = ranges.iter().map(|range| range.to_wire().unwrap()).collect();
    let request = UnballoonRequest {
        header: header::<UnballoonRequest>(MessageType::UNBALLOON_REQUEST, wire.len() * 8),
        flags: U32::ZERO,
        range_count: U32::new(u32::try_from(wire.len()).unwrap()),
    };
    [request.as_bytes(), wire.as_slice().as_bytes()].concat()
}

/// The frames that the first 500 pages of the double are.
fn unballoon_all() -> Vec<u8> {
    unballoon(&[PageRange { start: 1000, count: 500 }])
}

/// Runs the driver against a script after a negotiation, and gives what came out, the log, and the events.
fn run(script: Vec<Host>, full: bool) -> (Result<Summary, Error>, Vec<String>, Vec<Event>) {
    let mut all = vec![flags(MessageType::VERSION_RESPONSE, 1), flags(MessageType::CAPABILITIES_RESPONSE, 1)];
    all.extend(script);
    run_raw(all, full)
}

fn run_raw(script: Vec<Host>, full: bool) -> (Result<Summary, Error>, Vec<String>, Vec<Event>) {
    let folder = tempfile::tempdir().unwrap();
    let meminfo = folder.path().join("meminfo");
    let log = Log::default();
    let transport = DoubleTransport { script: script.into(), log: Rc::clone(&log), told: Vec::new(), full };
    let pool = DoublePool { next: 1000, log: Rc::clone(&log), meminfo: meminfo.clone() };
    pool.write_figures();
    let mut events = Vec::new();
    let outcome = Driver::new(transport, pool, meminfo, Settings::default()).run(|event| events.push(*event));
    (outcome, log.take(), events)
}

const NEGOTIATION: [&str; 2] = ["send 1 (1)", "send 3 (2)"];
/// 1,000 pages are committed, and the floor of 512 MiB is 168 MiB.
const REPORT: [&str; 2] = ["send 5 (3)", "status 100000 44008"];

fn negotiated() -> Event {
    Event::Negotiated { version: super::super::wire::Version::V2_0, status_reports: true }
}

#[test]
fn pages_go_to_the_host_and_come_back() {
    let script = vec![Host::Silence, balloon(500), Host::Silence, Host::GiveBackAll, Host::Stop];
    let (outcome, log, events) = run(script, false);
    assert_eq!(outcome.unwrap().gave_back_pages, 0);
    assert_eq!(log[..4], [&NEGOTIATION[..], &REPORT[..]].concat());
    assert_eq!(log[4..], ["send 7 (4)", "free 500", "send 9 (5)", "close"]);
    let status = Event::Status { available_pages: 100_000, committed_pages: 44_008, ballooned_pages: 0 };
    let expected = [
        negotiated(),
        status,
        Event::Ballooned { requested: 500, pages: 500, limit: None, ballooned_pages: 500 },
        Event::Deflated { pages: 500, ballooned_pages: 0 },
        Event::GaveBack { pages: 0 },
    ];
    assert_eq!(events, expected);
}

#[test]
fn what_the_host_was_not_told_of_yet_does_not_come_back() {
    let (outcome, log, _) = run(vec![Host::Silence, balloon(500), Host::Say(unballoon_all()), Host::Stop], false);
    let summary = outcome.unwrap();
    assert_eq!(log[4..], ["send 9 (4)", "send 7 (5)", "close", "free 500"]);
    assert_eq!((summary.gave_back_pages, summary.counters.foreign_pages), (500, 500));
}

#[test]
fn at_the_end_the_channel_closes_before_the_pages_go() {
    for (end, rescinded) in [(Host::Stop, false), (Host::Rescind, true)] {
        let (outcome, log, events) = run(vec![balloon(600), Host::Silence, end], false);
        assert_eq!(log[log.len() - 3..], ["close", "free 512", "free 88"]);
        assert_eq!(events.last(), Some(&Event::GaveBack { pages: 600 }));
        match outcome {
            Ok(summary) => assert_eq!((summary.gave_back_pages, rescinded), (600, false)),
            Err(error) => assert!(error.is_rescinded() && rescinded, "{error}"),
        }
    }
}

#[test]
fn what_is_odd_is_counted_and_survived() {
    let hot_add = HotAddRequest {
        header: header::<HotAddRequest>(MessageType::HOT_ADD_REQUEST, 0),
        range: PageRange { start: 1, count: 9 }.to_wire().unwrap(),
    };
    let script = vec![
        Host::Say(vec![1, 2, 3]),
        Host::Say(vec![13, 0, 8, 0, 0, 0, 0, 0]),
        flags(MessageType::VERSION_RESPONSE, 0),
        Host::Say(unballoon(&[PageRange { start: 5, count: 7 }])),
        Host::Say(hot_add.as_bytes().to_vec()),
        Host::Stop,
    ];
    let (outcome, log, events) = run(script, false);
    let expected = Counters { malformed: 1, unknown: 1, unexpected: 1, foreign_pages: 7, other_packets: 0 };
    assert_eq!(outcome.unwrap().counters, expected);
    assert!(log.contains(&"send 9 (4)".to_owned()) && log.contains(&"send 11 (3)".to_owned()), "{log:?}");
    assert!(events.contains(&Event::HotAddRefused { pages: 9 }));
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Ignored(_))).count(), 4);
}

#[test]
fn a_report_without_room_is_left_out() {
    let (outcome, log, _) = run(vec![Host::Silence, Host::Stop], true);
    outcome.unwrap();
    assert_eq!(log, [&NEGOTIATION[..], &["close"]].concat());
}

#[test]
fn a_host_that_accepts_nothing_ends_it() {
    let refusal = flags(MessageType::VERSION_RESPONSE, 0);
    let (outcome, log, events) = run_raw(vec![refusal; 3], false);
    assert!(matches!(outcome, Err(Error::Negotiation { failure: Failure::NoVersion, .. })));
    assert_eq!(log, ["send 1 (1)", "send 1 (2)", "send 1 (3)", "close"]);
    assert_eq!(events, [Event::GaveBack { pages: 0 }]);
}

#[test]
fn the_floor_limits_what_goes() {
    let (_, _, events) = run(vec![balloon(100_000), Host::Silence, Host::Stop], false);
    let answer = events.iter().find_map(|event| match event {
        Event::Ballooned { pages, limit, .. } => Some((*pages, *limit)),
        _ => None,
    });
    let (pages, limit) = answer.unwrap();
    let left = Memory { total_pages: 131_072, ballooned_pages: pages, ..Memory::default() };
    assert_eq!(limit, Some(Limit::Floor));
    assert!((0..=1).contains(&(100_000 - pages - left.floor_pages())), "{pages}");
}

#[test]
fn the_log_gets_a_line_at_powers_of_two() {
    let mut counters = Counters::default();
    let lines: Vec<usize> = (1..=20).filter(|_| counters.count(Ignored::PacketType(1))).collect();
    assert_eq!(lines, [1, 2, 4, 8, 16]);
    assert!(counters.count(Ignored::ForeignPages(u64::MAX)));
    assert!(!counters.count(Ignored::ForeignPages(u64::MAX)));
}
