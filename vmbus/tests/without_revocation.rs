//! What revocation is for: without it, a ring of a device that is gone still reaches the device's memory. One test,
//! because the protection is taken away for the whole process.
#![expect(clippy::unwrap_used, reason = "a test may fail by panic")]

#[expect(dead_code, reason = "made for all tests of devices, of which this needs a part")]
mod fake;

use std::time::Duration;

use vmbus::ErrorKind;
use vmbus::mutation;
use vmbus::uio::{Layout, OpenDevice, Options};
use vmbus_ringbuf::{ControlField, Memory};

use fake::{Fake, RELID, times_mapped};

const NO_WAIT: Options = Options { layout: Layout::Auto, ring_wait: Duration::ZERO, watch: false };

/// Ends a device and writes to its ring: what the device's memory holds then, and how often it is still mapped.
fn late_write() -> (u32, usize) {
    let fake = Fake::new();
    let (node, host) = Fake::socket();
    let link = OpenDevice::from_node(node, &fake.bus(), &fake.device(), NO_WAIT).unwrap();
    let rings = link.rings(RELID).unwrap();
    drop(host);
    assert_eq!(link.wait(None, None).unwrap_err().kind(), ErrorKind::Rescinded);
    assert!(link.is_rescinded());
    let mapped = times_mapped(&fake.ring_path(RELID));
    rings.outgoing.store(ControlField::WriteIndex, 0x1234);
    (fake.ring(RELID, 0).load(ControlField::WriteIndex), mapped)
}

#[test]
fn a_late_write_reaches_the_device_without_revocation_only() {
    assert_eq!(late_write(), (0, 0));
    mutation::leave_mappings();
    let (found, mapped) = late_write();
    assert!(found == 0x1234 && mapped > 0, "{found:#x} is there, mapped {mapped} times");
}
