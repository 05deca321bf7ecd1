//! What a live kernel shows between two states: devices that can't be read for a moment, nodes that go while they are opened.

use std::fs;
use std::os::unix::fs::symlink;

use vmbus::ErrorKind;
use vmbus::uio::OpenDevice;

use super::executor::connected;
use super::fake::{Fake, RELID};
use super::{NO_WAIT, times_open};

/// Not to be able to look is no sign that a device is gone: a process that has run out of descriptors must not lose its
/// channels for that. Red when what can't be read counts as absent.
#[test]
fn a_device_that_can_t_be_read_for_a_moment_stays() {
    let fake = Fake::new().with_fifo();
    fake.channel(12);
    let (mut executor, kernel, _) = connected(&fake, NO_WAIT);
    let primary = executor.open(RELID, 1).unwrap();
    executor.hears_offer(12);
    let subchannel = executor.open(12, 2).unwrap();
    let (channels, hidden) = (fake.device_folder().join("channels"), fake.path("hidden"));
    fs::rename(&channels, &hidden).unwrap();
    symlink("channels", &channels).unwrap();
    kernel.announces("change");
    executor.hears_nothing();
    assert!(!primary.line.is_rescinded() && !subchannel.line.is_rescinded());
    fs::remove_file(&channels).unwrap();
    fs::rename(&hidden, &channels).unwrap();
    kernel.announces("change");
    executor.hears_nothing();
    // And it is seen when it really goes.
    fake.unbind();
    kernel.announces("unbind");
    executor.hears_rescind(12);
    executor.hears_rescind(RELID);
    assert!(primary.line.is_rescinded() && subchannel.line.is_rescinded());
}

/// The host takes the device back between the open and the kernel's answer: that is a rescind for who opens, and no error
/// of the system's.
#[test]
fn a_device_that_goes_while_it_is_opened_is_rescinded() {
    let fake = Fake::new().with_fifo();
    let (mut executor, kernel, _) = connected(&fake, NO_WAIT);
    fs::remove_file(fake.node()).unwrap();
    assert_eq!(executor.open(RELID, 1).unwrap_err().kind(), ErrorKind::Rescinded);
    executor.hears_rescind(RELID);
    executor.close(RELID, 1);
    executor.release(RELID);
    let fake = fake.with_fifo();
    kernel.announces("add");
    executor.hears_offer(RELID);
    fs::remove_dir_all(fake.device_folder().join("uio/uio0/maps")).unwrap();
    assert_eq!(executor.open(RELID, 2).unwrap_err().kind(), ErrorKind::Rescinded);
    assert_eq!(times_open(&fake.node()), 0);
}

/// The node has another incarnation's number by now: it is that one's to be opened. Red when the incarnation is looked at
/// only behind the open.
#[test]
fn r1_6_an_open_that_comes_late_leaves_the_next_incarnation_alone() {
    let fake = Fake::new().with_fifo();
    let (mut executor, kernel, _) = connected(&fake, NO_WAIT);
    fake.unbind();
    fake.bind();
    let next = OpenDevice::open(&fake.bus(), &fake.device(), NO_WAIT).unwrap();
    // The link has not looked yet.
    assert_eq!(executor.open(RELID, 1).unwrap_err().kind(), ErrorKind::Rescinded);
    kernel.announces("bind");
    executor.hears_rescind(RELID);
    executor.close(RELID, 1);
    executor.release(RELID);
    executor.hears_offer(RELID);
    drop(next);
}
