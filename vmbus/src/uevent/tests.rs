//! Announcements parsed, believed and waited for.

use std::fs;
use std::os::fd::AsRawFd;

use super::wait::{Hints, wait_until};
use super::*;
use crate::class::Class;
use crate::fake::{Tree, real};

const GOOD: &[u8] = b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=vmbus\0";

#[test]
fn only_the_kernel_is_believed() {
    assert!(matches!(classify(GOOD, GOOD.len(), Some(0)), Some(Event::Uevent(event)) if event.concerns_vmbus()));
    assert_eq!(classify(GOOD, GOOD.len(), Some(4711)), None);
    assert_eq!(classify(GOOD, GOOD.len(), None), None);
    assert_eq!(classify(GOOD, GOOD.len() + 1, Some(0)), Some(Event::Lost), "a message that did not fit");
    assert_eq!(classify(b"nonsense", 8, Some(0)), Some(Event::Lost));
}

#[test]
fn an_announcement_is_told_from_another_devices() {
    let about = |path: &str| parse(format!("add@{path}\0").as_bytes()).unwrap().concerns("4a-b");
    assert!(about("/devices/MSFT1000:00/4a-b") && about("/devices/MSFT1000:00/4a-b/uio/uio0"));
    assert!(!about("/devices/MSFT1000:00/4a-bc") && !about("/devices/MSFT1000:00/4a"));
}

/// Sends a message to the monitor's own address, as any process may.
fn forge(monitor: &Monitor, message: &[u8]) {
    let address = SocketAddrNetlink::try_from(rustix::net::getsockname(monitor).unwrap()).unwrap();
    let flags = SocketFlags::CLOEXEC;
    let sender = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT)).unwrap();
    let to = SocketAddrNetlink::new(address.pid(), 0);
    rustix::net::sendto(&sender, message, rustix::net::SendFlags::empty(), &to).unwrap();
}

#[test]
fn a_real_socket_hears_the_kernel_and_no_forger() {
    let mut monitor = Monitor::open().unwrap();
    assert!(monitor.as_fd().as_raw_fd() > 2);
    forge(&monitor, GOOD);
    // Writing to an object's uevent file makes the kernel announce it; without the right to, only the forger speaks.
    let announced = fs::write("/sys/class/mem/null/uevent", "change").is_ok();
    let deadline = Instant::now() + Duration::from_secs(if announced { 20 } else { 0 });
    let mut heard = false;
    while let Some(event) = monitor.next(Some(deadline.saturating_duration_since(Instant::now()))).unwrap() {
        let Event::Uevent(event) = event else { continue };
        assert_ne!(event.devpath, "/devices/x", "the forger was believed");
        heard |= event.devpath.ends_with("/mem/null") && event.action == Action::Change;
        if heard {
            break;
        }
    }
    assert_eq!(heard, announced);
}

#[test]
fn an_overrun_is_reported_once_and_not_swallowed() {
    let mut monitor = Monitor::open().unwrap();
    sockopt::set_socket_recv_buffer_size(&monitor, 0).unwrap();
    for _ in 0..200 {
        if fs::write("/sys/class/mem/null/uevent", "change").is_err() {
            println!("skipped: this process may not make the kernel announce anything");
            return;
        }
    }
    let mut events = std::iter::from_fn(|| monitor.next(Some(Duration::ZERO)).unwrap());
    assert!(events.any(|event| event == Event::Lost));
}

/// Hints that change the tree: what happens while the caller waits.
struct Script<F>(Vec<F>);

impl<F: FnOnce()> Hints for Script<F> {
    fn hint(&mut self, _pause: Duration) -> Result<bool, Error> {
        Ok(self.0.pop().map(|happen| happen()).is_some())
    }
}

#[test]
fn a_device_is_waited_for_through_all_its_stages() {
    let tree = Tree::new();
    let at = real(1);
    let steps: Vec<Box<dyn FnOnce() + '_>> = vec![
        // Taken from the end.
        Box::new(|| tree.write("dev/uio0", "")),
        Box::new(|| {
            tree.link(format!("{at}/driver"), "sys/bus/vmbus/drivers/uio_hv_generic");
            tree.folder_at(format!("{at}/uio/uio0"));
        }),
        Box::new(|| {
            tree.device(Class::DYNAMIC_MEMORY, 1, None);
        }),
    ];
    let (device, node) =
        tree.bus().wait_for_uio_with(&mut Script(steps), "balloon", Duration::from_secs(600), || Ok(())).unwrap();
    assert_eq!((device.uio.as_deref(), node), (Some("uio0"), tree.path("dev/uio0")));
}

#[test]
fn a_wait_ends_and_says_what_was_missing() {
    let tree = Tree::new();
    let bus = tree.bus();
    let missing = |error: Error| match error {
        Error::Timeout { waiting_for, .. } => waiting_for,
        other => panic!("{other}"),
    };
    let short = Duration::from_millis(1);
    assert_eq!(missing(bus.wait_for_device("nic", short).unwrap_err()), "the device");
    assert_eq!(missing(bus.wait_for_uio("nic", short).unwrap_err()), "the device");
    let device = tree.device(Class::NIC, 1, Some("uio_hv_generic"));
    assert_eq!(bus.wait_for_device("nic", Duration::ZERO).unwrap().relid, 1);
    assert_eq!(missing(bus.wait_for_uio("nic", short).unwrap_err()), "a UIO device for it");
    tree.folder_at(format!("{}/uio/uio0", real(1)));
    assert_eq!(missing(bus.wait_for_uio("nic", short).unwrap_err()), "its node in /dev");
    assert_eq!(missing(bus.wait_for_ring(&device, 1, short).unwrap_err()), "channels/1/ring");
    tree.write(format!("{}/channels/1/ring", real(1)), "");
    assert!(bus.wait_for_ring(&device, 1, short).unwrap().primary().unwrap().ring.is_some());
    tree.device(Class::NIC, 2, None);
    assert!(matches!(bus.wait_for_device("nic", Duration::from_secs(600)), Err(Error::Selector { .. })));
}

#[test]
fn without_hints_the_pauses_grow() {
    struct Silence(Vec<Duration>);
    impl Hints for Silence {
        fn hint(&mut self, pause: Duration) -> Result<bool, Error> {
            self.0.push(pause);
            Ok(false)
        }
    }
    let mut silence = Silence(Vec::new());
    let mut looks = 0;
    let found = wait_until(&mut silence, Duration::from_secs(600), || {
        looks += 1;
        Ok((looks == 10).then_some(()))
    });
    assert_eq!(found.unwrap(), Some(()));
    assert_eq!(silence.0.len(), 9);
    assert_eq!(
        (silence.0[0], silence.0[1], silence.0[8]),
        (Duration::from_millis(5), Duration::from_millis(10), Duration::from_millis(500))
    );
}
