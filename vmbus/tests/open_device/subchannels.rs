//! Subchannels of an open device: waited for, claimed once, and ended with it.

use std::thread;
use std::time::Duration;

use vmbus::uio::{OpenDevice, Options};
use vmbus::{Error, ErrorKind};
use vmbus_ringbuf::{ControlField, Memory as _};

use super::fake::{Fake, times_mapped};
use super::{NO_WAIT, open, over_socket};

#[test]
fn subchannels_are_waited_for_and_end_with_the_link() {
    let fake = Fake::new();
    let (node, host) = Fake::socket();
    let patient = Options { ring_wait: Duration::from_secs(30), ..NO_WAIT };
    let link = OpenDevice::from_node(node, &fake.bus(), &fake.device(), patient).unwrap();
    let rings = thread::scope(|scope| {
        let waiting = scope.spawn(|| link.rings(12));
        fake.channel(12);
        waiting.join().unwrap().unwrap()
    });
    assert_eq!(link.rings(12).unwrap_err().kind(), ErrorKind::Busy);
    fake.ring(12, 1).store(ControlField::WriteIndex, 24);
    assert_eq!(rings.incoming.load(ControlField::WriteIndex), 24);
    drop(host);
    link.check().unwrap_err();
    assert_eq!(rings.incoming.load(ControlField::WriteIndex), 0);
    assert_eq!(times_mapped(&fake.ring_path(12)), 0);
}

#[test]
fn a_missing_subchannel_times_out_and_may_be_asked_for_again() {
    let fake = Fake::new();
    let (link, _host) = over_socket(&fake);
    assert!(matches!(link.rings(12), Err(Error::Timeout { .. })));
    fake.channel(12);
    link.rings(12).unwrap();
}

/// Two threads that ask at once: one of them has the rings. Red when the look and the claim are two steps.
#[test]
fn subchannel_rings_are_handed_out_once_to_threads_at_once() {
    let fake = Fake::new().with_fifo();
    fake.channel(12);
    for round in 0..100 {
        let link = open(&fake).unwrap();
        let start = std::sync::Barrier::new(2);
        let ask = || {
            start.wait();
            link.rings(12).is_ok()
        };
        let got = thread::scope(|scope| [scope.spawn(ask), scope.spawn(ask)].map(|thread| thread.join().unwrap()));
        assert_eq!(got.iter().filter(|got| **got).count(), 1, "round {round}");
    }
}
