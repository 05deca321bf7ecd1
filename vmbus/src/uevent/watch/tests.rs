//! A kernel that does things and announces them, and a watcher that listens whenever it gets to it.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::fake::{Tree, instance, real};

/// Announcements on their way; the descriptor stays readable, so nobody sleeps for long.
#[derive(Debug)]
struct Script(OwnedFd, std::sync::Arc<std::sync::Mutex<VecDeque<Event>>>);

impl AsFd for Script {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Announcements for Script {
    fn next_now(&mut self) -> Result<Option<Event>, Error> {
        Ok(self.1.lock().unwrap().pop_front())
    }
}

struct Kernel {
    tree: Tree,
    said: std::sync::Arc<std::sync::Mutex<VecDeque<Event>>>,
    /// Readable at all times: the watch is asked to stop as soon as it has nothing more to tell.
    stop: OwnedFd,
    never: OwnedFd,
}

impl Kernel {
    fn new() -> Self {
        let event = |count| eventfd(count, EventfdFlags::NONBLOCK).unwrap();
        Self { tree: Tree::new(), said: std::sync::Arc::default(), stop: event(1), never: event(0) }
    }

    fn watch(&self) -> Watch {
        let script = Script(eventfd(1, EventfdFlags::NONBLOCK).unwrap(), std::sync::Arc::clone(&self.said));
        Watch::over(&self.tree.bus(), Some(Box::new(script))).unwrap()
    }

    fn announce(&self, action: &str, relid: u32, driver: Option<&str>) {
        let mut message = format!("{action}@/{}\0SUBSYSTEM=vmbus\0", &real(relid)[4..]);
        message += &format!("MODALIAS=vmbus:{}\0", Class::NIC.0.simple());
        message += &driver.map_or_else(String::new, |driver| format!("DRIVER={driver}\0"));
        self.said.lock().unwrap().push_back(Event::Uevent(super::super::parse(message.as_bytes()).unwrap()));
    }

    fn add(&self, relid: u32) {
        self.tree.device(Class::NIC, relid, None);
        self.announce("add", relid, None);
    }

    fn bind(&self, relid: u32, driver: &str) {
        self.tree.link(format!("{}/driver", real(relid)), format!("sys/bus/vmbus/drivers/{driver}"));
        self.announce("bind", relid, Some(driver));
    }

    fn unbind(&self, relid: u32) {
        fs::remove_file(self.tree.path(format!("{}/driver", real(relid)))).unwrap();
        self.announce("unbind", relid, None);
    }

    fn remove(&self, relid: u32) {
        fs::remove_file(self.tree.path(format!("sys/bus/vmbus/devices/{}", instance(relid)))).unwrap();
        fs::remove_dir_all(self.tree.path(real(relid))).unwrap();
        self.announce("remove", relid, None);
    }

    fn told(&self, watch: &mut Watch, changes: usize) -> Vec<String> {
        (0..changes).map(|_| text(&watch.next(self.never.as_fd()).unwrap().unwrap())).collect()
    }
}

fn text(change: &Change) -> String {
    match change {
        Change::Lost { .. } => "lost".to_owned(),
        Change::Device { what, seen, .. } => {
            let relid = seen.relid.map_or("?".to_owned(), |relid| relid.to_string());
            format!("{what:?} {relid} {}", seen.driver.as_deref().unwrap_or("-"))
        }
    }
}

#[test]
fn what_is_there_comes_first_and_then_everything_in_order() {
    let kernel = Kernel::new();
    kernel.tree.device(Class::NIC, 1, Some("hv_netvsc"));
    let mut watch = kernel.watch();
    kernel.add(2);
    kernel.unbind(1);
    kernel.bind(1, "uio_hv_generic");
    kernel.bind(2, "hv_netvsc");
    kernel.unbind(2);
    kernel.remove(2);
    // Read only now: of what is gone again, all is told that was announced.
    let told = kernel.told(&mut watch, 7);
    let expected = [
        "Present 1 hv_netvsc",
        "Arrived ? -",
        "Unbound 1 hv_netvsc",
        "Bound 1 uio_hv_generic",
        "Bound ? hv_netvsc",
        "Unbound ? hv_netvsc",
        "Removed ? -",
    ];
    assert_eq!(told, expected);
}

#[test]
fn an_announced_device_is_told_as_sysfs_shows_it() {
    let kernel = Kernel::new();
    let mut watch = kernel.watch();
    kernel.add(7);
    let Some(Change::Device { what: What::Arrived, seen, .. }) = watch.next(kernel.never.as_fd()).unwrap() else {
        panic!("nothing arrived")
    };
    assert_eq!((seen.relid, seen.class, seen.instance), (Some(7), Some(Class::NIC), Some(instance(7))));
    kernel.announce("add", 8, None);
    let Some(Change::Device { seen, .. }) = watch.next(kernel.never.as_fd()).unwrap() else { panic!("nothing") };
    assert_eq!((seen.relid, seen.class, seen.instance), (None, Some(Class::NIC), Some(instance(8))));
}

/// Red when a look does not compare: nothing would be told of what was lost.
#[test]
fn lost_announcements_lead_to_a_look() {
    let kernel = Kernel::new();
    let mut watch = kernel.watch();
    for relid in 1..=3 {
        kernel.add(relid);
    }
    assert_eq!(kernel.told(&mut watch, 3), ["Arrived 1 -", "Arrived 2 -", "Arrived 3 -"]);
    kernel.bind(1, "hv_netvsc");
    // What is queued is told first; what was lost after it comes from the look.
    kernel.said.lock().unwrap().push_front(Event::Lost);
    let queued = kernel.said.lock().unwrap().len();
    kernel.remove(2);
    kernel.add(4);
    kernel.bind(4, "hv_netvsc");
    kernel.said.lock().unwrap().truncate(queued);
    let expected = ["lost", "Bound 1 hv_netvsc", "Removed 2 -", "Arrived 4 -", "Bound 4 hv_netvsc"];
    assert_eq!(kernel.told(&mut watch, 5), expected);
}

/// `udevadm trigger` and the like; red without the look at `SYNTH_UUID`.
#[test]
fn what_somebody_has_announced_again_is_no_news() {
    let kernel = Kernel::new();
    kernel.tree.device(Class::NIC, 1, Some("hv_netvsc"));
    let mut watch = kernel.watch();
    for action in ["remove", "unbind", "add"] {
        let message = format!("{action}@/{}\0SUBSYSTEM=vmbus\0SYNTH_UUID=0\0", &real(1)[4..]);
        kernel.said.lock().unwrap().push_back(Event::Uevent(super::super::parse(message.as_bytes()).unwrap()));
    }
    kernel.add(2);
    assert_eq!(kernel.told(&mut watch, 2), ["Present 1 hv_netvsc", "Arrived 2 -"]);
}

#[test]
fn nothing_is_told_twice_and_without_announcements_it_is_looked() {
    let kernel = Kernel::new();
    kernel.tree.device(Class::NIC, 1, Some("hv_netvsc"));
    kernel.announce("add", 1, None);
    kernel.announce("bind", 1, Some("hv_netvsc"));
    let mut watch = kernel.watch();
    kernel.unbind(1);
    assert_eq!(kernel.told(&mut watch, 2), ["Present 1 hv_netvsc", "Unbound 1 hv_netvsc"]);
    let mut silent = Watch::over(&kernel.tree.bus(), None).unwrap();
    kernel.bind(1, "uio_hv_generic");
    assert_eq!(kernel.told(&mut silent, 2), ["Present 1 -", "Bound 1 uio_hv_generic"]);
    assert_eq!(silent.next(kernel.stop.as_fd()).unwrap(), None);
}

/// Another device may have the name of one that is gone: kernels before 4.16 number them.
#[test]
fn another_relid_is_another_device() {
    let kernel = Kernel::new();
    kernel.tree.device(Class::NIC, 1, None);
    let mut watch = Watch::over(&kernel.tree.bus(), None).unwrap();
    kernel.tree.write(format!("{}/id", real(1)), "9\n");
    assert_eq!(kernel.told(&mut watch, 3), ["Present 1 -", "Removed 1 -", "Arrived 9 -"]);
}

/// Each line once and in order, whenever the watcher gets to it: a random kernel, and a watcher that is slow at random.
/// Replay one with `SEED=n`.
#[test]
fn a_slow_watcher_misses_nothing() {
    let one = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in one.map_or(0..40, |seed: u64| seed..seed + 1) {
        let kernel = Kernel::new();
        let mut watch = kernel.watch();
        let (mut truth, mut told) = (Vec::new(), Vec::new());
        let mut drivers: BTreeMap<u32, Option<&str>> = BTreeMap::new();
        let mut random = seed;
        for _ in 0..60 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let relid = u32::try_from(random >> 40 & 1).unwrap() + 1;
            match (random >> 50 & 3, drivers.get(&relid).copied()) {
                (0, _) => told.extend(kernel.told(&mut watch, truth.len() - told.len())),
                (_, None) => {
                    kernel.add(relid);
                    drivers.insert(relid, None);
                    truth.push(format!("Arrived {relid} -"));
                }
                (1, Some(None)) => {
                    kernel.remove(relid);
                    drivers.remove(&relid);
                    truth.push(format!("Removed {relid} -"));
                }
                (_, Some(None)) => {
                    kernel.bind(relid, "uio_hv_generic");
                    drivers.insert(relid, Some("uio_hv_generic"));
                    truth.push(format!("Bound {relid} uio_hv_generic"));
                }
                (_, Some(Some(_))) => {
                    kernel.unbind(relid);
                    drivers.insert(relid, None);
                    truth.push(format!("Unbound {relid} uio_hv_generic"));
                }
            }
        }
        told.extend(kernel.told(&mut watch, truth.len() - told.len()));
        // The number of a device that was gone again when it was heard of can't be known.
        let known = |(told, truth): (&String, &String)| told == truth || *told == truth.replace(['1', '2'], "?");
        assert!(told.iter().zip(&truth).all(known), "SEED={seed}\n{told:#?}\n{truth:#?}");
    }
}
