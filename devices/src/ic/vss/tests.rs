//! Freezing and thawing in every order, and the watchdog against a host and a file system that take too long.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// What is frozen, and what was done in order.
#[derive(Clone, Default)]
struct Double(Arc<Mutex<(BTreeSet<PathBuf>, Vec<String>)>>);

impl FileSystems for Double {
    fn list(&self) -> Result<Vec<PathBuf>, String> {
        Ok(["/a", "/b", "/"].map(PathBuf::from).to_vec())
    }

    fn freeze(&self, point: &Path) -> Result<(), String> {
        let mut inner = self.0.lock().unwrap();
        inner.1.push(format!("freeze {}", point.display()));
        if inner.0.insert(point.to_owned()) { Ok(()) } else { Err("busy".to_owned()) }
    }

    fn thaw(&self, point: &Path) -> Result<(), String> {
        let mut inner = self.0.lock().unwrap();
        inner.1.push(format!("thaw {}", point.display()));
        if inner.0.remove(point) { Ok(()) } else { Err("not frozen".to_owned()) }
    }

    fn guard(&self, _: &[PathBuf]) -> Result<Guard, String> {
        Ok(Guard::none())
    }
}

impl Double {
    fn frozen(&self) -> usize {
        self.0.lock().unwrap().0.len()
    }
}

const LONG: Duration = Duration::from_secs(1000);

fn ask<F: FileSystems>(vss: &mut Vss<F>, now: Duration, operation: u8) -> (Status, u32, Vec<Event>) {
    let mut body = [&[operation][..], &[0; 7], &[9, 0, 0, 0]].concat();
    let mut events = Vec::new();
    let status = vss.request(now, Version::new(5, 0), &mut body, &mut |event| events.push(event));
    (status, u32::from_le_bytes(body[8..12].try_into().unwrap()), events)
}

#[test]
fn each_operation_has_its_answer() {
    let double = Double::default();
    let mut vss = Vss::new(double.clone(), LONG);
    for (operation, status, flags) in [
        (0, Status::OK, 9),
        (1, Status::OK, 9),
        (2, Status::OK, 5),
        (3, Status::OK, 0),
        (4, Status::OK, 9),
        (6, Status::OK, 9),
        (7, Status::OK, 9),
        (8, Status::NOT_SUPPORTED, 9),
        (255, Status::NOT_SUPPORTED, 9),
    ] {
        assert_eq!(ask(&mut vss, Duration::ZERO, operation), (status, flags, vec![]), "{operation}");
    }
    for bytes in 0..12 {
        let status = vss.request(Duration::ZERO, Version::new(5, 0), &mut vec![5; bytes], &mut |_| {});
        assert_eq!(status, Status::INVALID_ARGUMENT);
    }
    assert_eq!(ask(&mut vss, Duration::ZERO, 5).2, [Event::Vss(Notice::Frozen(3))]);
    assert_eq!(double.frozen(), 3);
    let thaw = Thaw { thawed: 3, failed: vec![] };
    assert_eq!(ask(&mut vss, Duration::ZERO, 6), (Status::OK, 9, vec![Event::Vss(Notice::Thawed(thaw))]));
    let done = double.0.lock().unwrap().1.clone();
    assert_eq!(done, ["freeze /a", "freeze /b", "freeze /", "thaw /", "thaw /b", "thaw /a"]);
}

#[test]
fn when_one_does_not_freeze_all_thaw() {
    let double = Double::default();
    double.0.lock().unwrap().0.insert(PathBuf::from("/b"));
    let mut vss = Vss::new(double.clone(), LONG);
    let (status, _, events) = ask(&mut vss, Duration::ZERO, 5);
    assert_eq!((status, vss.deadline(), double.frozen()), (Status::FAIL, None, 0));
    assert!(matches!(&events[..], [Event::Vss(Notice::NotFrozen(why))] if why.contains("busy")), "{events:?}");
    assert_eq!(ask(&mut vss, Duration::ZERO, 5).0, Status::OK, "and another try");
}

#[test]
fn the_host_gets_no_more_time_by_asking_again_and_hears_that_it_was_late() {
    let double = Double::default();
    let mut vss = Vss::new(double.clone(), LONG);
    assert_eq!(ask(&mut vss, Duration::ZERO, 5).0, Status::OK);
    assert_eq!(ask(&mut vss, LONG / 2, 5).0, Status::OK);
    assert_eq!(vss.deadline(), Some(LONG));
    let mut events = Vec::new();
    vss.elapsed(LONG / 2, &mut |event| events.push(event));
    assert_eq!((double.frozen(), events.len()), (3, 0));
    vss.elapsed(LONG, &mut |event| events.push(event));
    assert_eq!((double.frozen(), vss.deadline()), (0, None));
    assert!(matches!(events[..], [Event::Vss(Notice::Expired(_))]));
    assert_eq!(ask(&mut vss, LONG, 6).0, Status::FAIL, "its snapshot is of no use");
    assert_eq!(ask(&mut vss, LONG, 6).0, Status::OK);
}

#[test]
fn the_end_thaws_in_every_way() {
    for way in 0..3 {
        let double = Double::default();
        let mut vss = Vss::new(double.clone(), LONG);
        assert_eq!(ask(&mut vss, Duration::ZERO, 5).0, Status::OK);
        match way {
            0 => vss.ended(Ending::Lost, &mut |_| {}),
            1 => drop(vss),
            _ => drop(
                std::thread::spawn(move || {
                    let _vss = vss;
                    panic!("a thread that is stuck in something else");
                })
                .join(),
            ),
        }
        assert_eq!(double.frozen(), 0, "{way}");
    }
}

/// A file system that takes until somebody lets it go on, to freeze.
struct Stuck {
    double: Double,
    reached: Sender<()>,
    go_on: Mutex<Receiver<()>>,
    thawing: Sender<PathBuf>,
}

impl FileSystems for Stuck {
    fn list(&self) -> Result<Vec<PathBuf>, String> {
        self.double.list()
    }

    fn freeze(&self, point: &Path) -> Result<(), String> {
        if point == Path::new("/b") {
            self.reached.send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
        self.double.freeze(point)
    }

    fn thaw(&self, point: &Path) -> Result<(), String> {
        let thawed = self.double.thaw(point);
        self.thawing.send(point.to_owned()).unwrap();
        thawed
    }

    fn guard(&self, points: &[PathBuf]) -> Result<Guard, String> {
        self.double.guard(points)
    }
}

/// The watchdog thaws while the component's own thread hangs in a freeze; and what freezes after that thaws as well.
#[test]
fn the_watchdog_does_not_wait_for_a_thread_that_is_stuck() {
    let (double, (reached, at), (go, go_on), (thawing, thawed)) = (Double::default(), channel(), channel(), channel());
    let stuck = Stuck { double: double.clone(), reached, go_on: Mutex::new(go_on), thawing };
    let mut vss = Vss::new(stuck, Duration::from_millis(20));
    let asking = std::thread::spawn(move || ask(&mut vss, Duration::ZERO, 5));
    at.recv_timeout(LONG).unwrap();
    // The one that is stuck first, then the one that is frozen.
    assert_eq!(
        [thawed.recv_timeout(LONG).unwrap(), thawed.recv_timeout(LONG).unwrap()],
        ["/b", "/a"].map(PathBuf::from)
    );
    assert_eq!(double.frozen(), 0, "thawed while it hangs");
    go.send(()).unwrap();
    let (status, _, events) = asking.join().unwrap();
    assert_eq!((status, double.frozen()), (Status::FAIL, 0));
    assert!(matches!(&events[..], [Event::Vss(Notice::NotFrozen(why))] if why.contains("longer")), "{events:?}");
}

/// The guard's process does nothing while this one lives, and thaws by its command when its pipe closes.
#[test]
fn the_guard_thaws_when_its_process_dies() {
    let folder = tempfile::tempdir().unwrap();
    let points = ["one", "two words"].map(|name| folder.path().join(name));
    let mut guard = Guard::start(&["touch", "--"], &points).unwrap();
    drop(guard);
    assert!(points.iter().all(|point| !point.exists()));
    guard = Guard::start(&["touch", "--"], &points).unwrap();
    guard.die_instead_of_this_process();
    assert!(points.iter().all(|point| point.exists()));
}

proptest! {
    /// Whatever a host asks in whatever order: at the end nothing is frozen.
    #[test]
    fn nothing_stays_frozen(operations in proptest::collection::vec((0..9_u8, 0..2000_u64), 0..12)) {
        let double = Double::default();
        let mut vss = Vss::new(double.clone(), LONG);
        let mut now = Duration::ZERO;
        for (operation, seconds) in operations {
            now += Duration::from_secs(seconds);
            vss.elapsed(now, &mut |_| {});
            let _ = ask(&mut vss, now, operation);
            prop_assert_eq!(double.frozen() == 3, vss.deadline().is_some());
        }
        vss.ended(Ending::Stopped, &mut |_| {});
        prop_assert_eq!(double.frozen(), 0);
    }
}
