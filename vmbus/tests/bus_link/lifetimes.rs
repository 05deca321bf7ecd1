//! Rescinds at any time, relids that are used again, opens that block, subchannels, goodbyes.

use std::fs;
use std::time::Duration;

use vmbus::ErrorKind;
use vmbus::link::Link;
use vmbus::message::{GpadlId, GuestMessage, HostMessage, Version};
use vmbus::uio::{Layout, Options};
use vmbus_ringbuf::{ControlField, Memory};

use super::executor::connected;
use super::fake::{Fake, RELID, times_mapped};
use super::{NO_WAIT, OTHER, times_open};

/// Blocks a worker until the ring's file is there: as good as a kernel that waits for a silent host.
const PATIENT: Options = Options { layout: Layout::Mirrored, ring_wait: Duration::from_secs(60), watch: false };

/// The offer, one rescind, one release, and only then the next offer, however often the device came back meanwhile.
/// Red when an entry is removed before it is closed (`remove_if_over`): the next offer comes too early.
#[test]
fn r1_4_a_relid_is_offered_again_only_after_its_release() {
    let fake = Fake::new().with_fifo();
    let (mut executor, kernel, _) = connected(&fake, NO_WAIT);
    let port = executor.open(RELID, 1).unwrap();
    fake.unbind();
    kernel.announces("unbind");
    executor.hears_rescind(RELID);
    assert!(port.line.is_rescinded(), "revoked before it is said");
    assert_eq!(times_mapped(&fake.ring_path(RELID)), 0);
    for _ in 0..2 {
        fake.bind();
        kernel.announces("bind");
        executor.hears_nothing();
        fake.unbind();
        kernel.announces("unbind");
        executor.hears_nothing();
    }
    fake.bind();
    executor.tear_down(RELID, 1);
    executor.release(RELID);
    // Somebody here still has the device open: it can't be offered.
    executor.hears_nothing();
    drop(port);
    executor.link.unshare(GpadlId(1));
    executor.hears_offer(RELID);
    assert_eq!(times_open(&fake.node()), 0);
    drop(executor.open(RELID, 2).unwrap());
    executor.close(RELID, 2);
}

/// Two incarnations between two looks: the offer was for the first. Red when incarnations are not compared.
#[test]
fn r1_6_a_device_that_was_gone_for_a_moment_is_another_one() {
    let fake = Fake::new().with_fifo();
    let (mut executor, kernel, _) = connected(&fake, NO_WAIT);
    fake.unbind();
    fake.bind();
    kernel.announces("bind");
    executor.hears_rescind(RELID);
    executor.hears_nothing();
    executor.release(RELID);
    executor.hears_offer(RELID);
    kernel.announces("bind");
    executor.hears_nothing();
}

/// Whoever finds out first, the executor hears it once.
#[test]
fn an_end_that_a_user_of_the_line_finds_is_a_rescind() {
    let fake = Fake::new().with_eio();
    let (mut executor, kernel, _) = connected(&fake, NO_WAIT);
    let port = executor.open(RELID, 1).unwrap();
    assert_eq!(port.line.acknowledge().unwrap_err().kind(), ErrorKind::Rescinded);
    executor.hears_rescind(RELID);
    assert!(port.line.check().is_err());
    fake.unbind();
    kernel.announces("unbind");
    executor.hears_nothing();
}

/// A bus error in a ring, as when the kernel takes the pages away; nothing is announced.
#[test]
fn a_ring_that_the_kernel_took_is_a_rescind() {
    let fake = Fake::new().with_fifo();
    let (mut executor, _kernel, _) = connected(&fake, NO_WAIT);
    let port = executor.open(RELID, 1).unwrap();
    fake.ring_file(RELID).set_len(0).unwrap();
    assert_eq!(port.incoming.load(ControlField::WriteIndex), 0);
    assert!(port.line.is_rescinded());
    executor.hears_rescind(RELID);
}

/// A kernel that waits for a silent host holds up neither other devices nor the rescind of this one, and a device that
/// is open only after nobody wants it any more is closed. Red with one worker.
#[test]
fn r1_2_a_blocked_open_holds_up_nothing() {
    let fake = Fake::new().with_fifo();
    let other = fake.beside(OTHER, 4, "uio1").with_fifo();
    let (mut executor, kernel, _) = connected(&fake, PATIENT);
    let hidden = fake.path("hidden");
    fs::rename(fake.ring_path(RELID), &hidden).unwrap();
    executor.ask_to_open(RELID, 1);
    for ring in 2..5 {
        drop(executor.open(4, ring).unwrap());
        executor.close(4, ring);
        let file = other.ring_file(4);
        let bytes = file.metadata().unwrap().len();
        file.set_len(0).unwrap();
        file.set_len(bytes).unwrap();
    }
    fake.unbind();
    kernel.announces("unbind");
    executor.hears_rescind(RELID);
    executor.release(RELID);
    fake.bind();
    kernel.announces("bind");
    executor.hears_nothing();
    assert_eq!(times_open(&fake.node()), 1);
    fs::rename(&hidden, fake.ring_path(RELID)).unwrap();
    executor.hears_offer(RELID);
    assert_eq!(times_open(&fake.node()), 0);
    drop(executor.open(RELID, 9).unwrap());
}

/// The executor gave up waiting; the device opens nevertheless and closes at once.
#[test]
fn an_open_that_is_given_up_is_closed() {
    let fake = Fake::new().with_fifo();
    let (mut executor, _kernel, _) = connected(&fake, PATIENT);
    let hidden = fake.path("hidden");
    fs::rename(fake.ring_path(RELID), &hidden).unwrap();
    executor.ask_to_open(RELID, 1);
    executor.tear_down(RELID, 1);
    executor.hears_nothing();
    fs::rename(&hidden, fake.ring_path(RELID)).unwrap();
    assert_eq!(executor.hear(), HostMessage::GpadlTorndown { gpadl: GpadlId(1) });
    assert_eq!(times_open(&fake.node()), 0);
}

/// The ring file appears after the node.
#[test]
fn a_late_ring_is_waited_for() {
    let fake = Fake::new().with_fifo();
    let (mut executor, _kernel, _) = connected(&fake, PATIENT);
    let hidden = fake.path("hidden");
    fs::rename(fake.ring_path(RELID), &hidden).unwrap();
    let open_id = executor.ask_to_open(RELID, 1);
    executor.hears_nothing();
    fs::rename(&hidden, fake.ring_path(RELID)).unwrap();
    assert!(executor.opened(RELID, 1, open_id).unwrap().incoming.is_mirrored());
}

#[test]
fn an_offer_that_nobody_wants_is_made_once() {
    let fake = Fake::new().with_fifo();
    let (mut executor, kernel, _) = connected(&fake, NO_WAIT);
    executor.release(RELID);
    kernel.announces("change");
    executor.hears_nothing();
    fake.unbind();
    kernel.announces("unbind");
    executor.hears_nothing();
    fake.bind();
    kernel.announces("bind");
    executor.hears_offer(RELID);
}

#[test]
fn subchannels_come_and_go_with_their_primary() {
    let fake = Fake::new().with_fifo();
    let (mut executor, kernel, _) = connected(&fake, NO_WAIT);
    fake.channel(12);
    kernel.announces("add");
    executor.hears_nothing();
    let primary = executor.open(RELID, 1).unwrap();
    assert_eq!(executor.hears_offer(12).instance, fake.device().instance);
    let first = executor.open(12, 2).unwrap();
    fake.channel(13);
    fake.write("channels/13/subchannel_id", "2\n");
    kernel.announces("add");
    assert_eq!(executor.hears_offer(13).subchannel_index, 2);
    let second = executor.open(13, 3).unwrap();
    // One by one: the others stay.
    fs::rename(fake.device_folder().join("channels/13"), fake.path("gone")).unwrap();
    kernel.announces("remove");
    executor.hears_rescind(13);
    assert!(second.line.is_rescinded() && !first.line.is_rescinded() && !primary.line.is_rescinded());
    second.line.rescind();
    assert!(!primary.line.is_rescinded());
    executor.tear_down(13, 3);
    assert_eq!(executor.hear(), HostMessage::GpadlTorndown { gpadl: GpadlId(3) });
    executor.release(13);
    drop(second);
    // A subchannel closes and opens again below its primary.
    drop(first);
    executor.close(12, 2);
    assert_eq!(times_mapped(&fake.ring_path(12)), 0);
    let first = executor.open(12, 4).unwrap();
    // The primary closes under it.
    drop(primary);
    executor.tear_down(RELID, 1);
    executor.hears_rescind(12);
    assert!(first.line.is_rescinded());
    executor.hears_nothing();
    drop(first);
    executor.tear_down(12, 4);
    executor.release(12);
    // Nobody waits for the GPADL of what is released.
    assert_eq!(executor.hear(), HostMessage::GpadlTorndown { gpadl: GpadlId(1) });
    assert_eq!(times_open(&fake.node()), 0);
}

#[test]
fn a_primary_takes_its_subchannels_along() {
    let fake = Fake::new().with_fifo();
    fake.channel(12);
    let (mut executor, kernel, _) = connected(&fake, NO_WAIT);
    let primary = executor.open(RELID, 1).unwrap();
    executor.hears_offer(12);
    let subchannel = executor.open(12, 2).unwrap();
    fake.unbind();
    kernel.announces("unbind");
    executor.hears_rescind(12);
    executor.hears_rescind(RELID);
    assert!(primary.line.is_rescinded() && subchannel.line.is_rescinded());
}

#[test]
fn after_a_goodbye_everything_is_closed_and_offered_anew() {
    let fake = Fake::new().with_fifo();
    let (mut executor, kernel, offers) = connected(&fake, NO_WAIT);
    let port = executor.open(RELID, 1).unwrap();
    executor.post(GuestMessage::Unload);
    assert_eq!(executor.hear(), HostMessage::UnloadResponse);
    assert!(port.line.is_rescinded());
    drop(port);
    kernel.announces("change");
    executor.hears_nothing();
    fake.ring_file(RELID).set_len(0).unwrap();
    fake.ring_file(RELID).set_len(6 * 4096).unwrap();
    // It may still be closing, and is then offered a moment later.
    let again = executor.connect(Version::V6_0);
    let again = again.into_iter().next().unwrap_or_else(|| executor.hears_offer(RELID));
    assert_eq!(again.instance, offers[0].instance);
    drop(executor.open(RELID, 2).unwrap());
}
