//! hv_vmbus and uio_hv_generic: drivers/hv/channel.c and channel_mgmt.c, drivers/uio/uio_hv_generic.c.

use std::time::Duration;

use vmbus::message::{GuestMessage, HostMessage, Status, Version};
use vmbus_simhost::{Config, DeviceSpec, Latency};

use crate::common::Guest;

/// `target_cpu_store` lets go of its lock while it waits, so the channel may be closed meanwhile.
#[test]
fn a_channel_that_is_closed_while_it_moves_is_answered_still() {
    let latency = Latency { modify: Duration::from_millis(5), ..Latency::default() };
    for (version, answers) in [(Version::V5_3, 1), (Version::V5_2, 0)] {
        let config = Config { latency, ..Config::seeded(1).with_device(DeviceSpec::echo(1)) };
        let mut guest = Guest::connected(config, version);
        let open = guest.open(1);
        guest.post(&GuestMessage::ModifyChannel { relid: 1, target_vp: 1 });
        guest.post(&GuestMessage::Close { relid: 1 });
        guest.settle();
        let status = Status::UNSUCCESSFUL;
        assert_eq!(guest.inbox, vec![HostMessage::ModifyChannelResponse { relid: 1, status }; answers], "{version}");
        guest.inbox.clear();
        guest.post(&GuestMessage::GpadlTeardown { relid: 1, gpadl: open.ring });
        guest.expect(&HostMessage::GpadlTorndown { gpadl: open.ring });
        guest.assert_honest();
    }
}
