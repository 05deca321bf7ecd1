//! Memory shared beside the rings: given back before the channel, by whoever and whenever.

use std::time::Duration;

use vmbus::message::GuestMessage;
use vmbus_channels::{Error, OpenOptions, Settings, Vmbus};

use crate::host::{Host, Silent, instance};
use crate::{bus, open};

#[test]
fn a_buffer_is_shared_and_given_back() {
    let (bus, host) = bus([1]);
    let channel = open(&bus, 1).unwrap();
    let free = host.memory.free_pages();
    // More than one message's worth of pages.
    let buffer = channel.create_buffer(1 << 20).unwrap();
    assert_eq!(host.lock().gpadls[&buffer.gpadl()].len(), 256);
    assert_eq!(buffer.memory().bytes(), 1 << 20);
    assert_eq!(host.memory.free_pages(), free - 256);
    buffer.close().unwrap();
    assert_eq!(host.lock().gpadls.len(), 1, "the ring is left");
    assert_eq!(host.memory.free_pages(), free);
    assert!(matches!(channel.create_buffer(100), Err(Error::Argument(_))));
}

/// The order of teardown, as the host sees it: buffers, then the channel's ring.
#[test]
fn a_dropped_buffer_goes_before_the_channel() {
    let (bus, host) = bus([1]);
    let channel = open(&bus, 1).unwrap();
    let buffer = channel.create_buffer(4096).unwrap();
    let gpadl = buffer.gpadl();
    drop(buffer);
    channel.close().unwrap();
    let heard = &host.lock().heard;
    let at = |like: &dyn Fn(&GuestMessage) -> bool| heard.iter().position(like).unwrap();
    let buffer = at(&|message| matches!(message, GuestMessage::GpadlTeardown { gpadl: which, .. } if *which == gpadl));
    let close = at(&|message| matches!(message, GuestMessage::Close { .. }));
    assert!(buffer < close, "{heard:?}");
}

#[test]
fn a_channel_with_a_buffer_left_closes_with_the_buffer() {
    let (link, host) = Host::new(1, [1]);
    let mut settings = Settings::default();
    settings.limits.host_timeout = Duration::from_millis(200);
    let bus = Vmbus::start(link, settings).unwrap();
    let channel = open(&bus, 1).unwrap();
    let buffer = channel.create_buffer(4096).unwrap();
    assert!(matches!(channel.close(), Err(Error::InUse { .. })));
    assert_eq!(host.lock().count(|message| matches!(message, GuestMessage::Close { .. })), 0);
    assert!(matches!(open(&bus, 1), Err(Error::State { .. })));
    drop(buffer);
    host.until("closed", |host| host.gpadls.is_empty().then_some(()));
}

#[test]
fn buffers_are_torn_down_after_a_rescind_too() {
    let (bus, host) = bus([1]);
    let free = host.memory.free_pages();
    let channel = open(&bus, 1).unwrap();
    let buffers: Vec<_> = (0..3).map(|_| channel.create_buffer(8192).unwrap()).collect();
    host.rescind(1);
    while !channel.is_rescinded() {
        std::thread::yield_now();
    }
    assert!(channel.create_buffer(8192).unwrap_err().is_rescinded());
    drop(channel);
    for buffer in buffers {
        buffer.close().unwrap();
    }
    host.until("released", |host| host.released.get(&1).copied());
    assert_eq!(host.memory.free_pages(), free);
    let torn_down = host.lock().count(|message| matches!(message, GuestMessage::GpadlTeardown { .. }));
    assert_eq!(torn_down, 4, "three buffers and the ring");
}

#[test]
fn a_host_that_does_not_let_go_is_silent_and_the_memory_stays_out_of_use() {
    let (link, host) = Host::new(1, [1]);
    let mut settings = Settings::default();
    settings.limits.host_timeout = Duration::from_millis(200);
    let bus = Vmbus::start(link, settings).unwrap();
    let offer = bus.find(instance(1)).unwrap();
    let channel = bus.open(offer.id, OpenOptions::default()).unwrap();
    let free = host.memory.free_pages();
    host.be_silent(Silent::Teardown);
    let buffer = channel.create_buffer(4096).unwrap();
    let gpadl = buffer.gpadl();
    assert!(matches!(buffer.close(), Err(Error::Silent { .. })));
    assert_eq!(host.memory.free_pages(), free - 1);
    host.say(&vmbus::message::HostMessage::GpadlTorndown { gpadl });
    while host.memory.free_pages() != free {
        std::thread::yield_now();
    }
}
