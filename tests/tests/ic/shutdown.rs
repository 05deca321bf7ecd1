//! Shutdown: the answer is the host's before anything happens, at every version.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use vmbus_devices::ic::shutdown::{Kind, Notice, Order, Power, Settings};
use vmbus_devices::ic::{Event, Shutdown};
use vmbus_simhost::device::ic::{ComponentHost, HostSettings, ShutdownHost};
use vmbus_tests::LONG;

use crate::world::World;

struct Double(Sender<Order>);

impl Power for Double {
    fn carry_out(&mut self, order: Order) -> Result<(), String> {
        self.0.send(order).map_err(|error| error.to_string())
    }
}

#[test]
fn orders_are_answered_and_carried_out_at_every_version() {
    for version in [(1, 0), (3, 0), (3, 1), (3, 2)] {
        let settings = HostSettings { versions: vec![version], ..HostSettings::default() };
        let (power, orders) = channel();
        let shutdown = Shutdown::new(Settings { hibernates: true, ..Settings::default() }, Double(power));
        let world = World::start(ComponentHost::spec(ShutdownHost::default, settings), shutdown);
        for (flags, kind, force) in [(0, Kind::PowerOff, false), (3, Kind::Restart, true), (4, Kind::Hibernate, false)]
        {
            world.command(&format!("order {flags} 30"));
            let order = orders.recv_timeout(LONG).unwrap();
            assert_eq!((order.kind, order.force, order.timeout), (kind, force, Some(Duration::from_secs(30))));
            world.until(|event| matches!(event, Event::Shutdown(Notice::Done(_))).then_some(()));
        }
        world.wait("accepted", 3);
        world.command("order 6");
        world.wait("refused", 1);
        assert_eq!(orders.try_recv().ok(), None);
        world.end();
    }
}

#[test]
fn an_order_stands_when_the_device_goes_and_falls_when_the_service_stops() {
    for stands in [true, false] {
        let (power, orders) = channel();
        let settings = Settings { grace: LONG * 100, ..Settings::default() };
        let spec = ComponentHost::spec(ShutdownHost::default, HostSettings::default());
        let mut world = World::start(spec, Shutdown::new(settings, Double(power)));
        world.command("order 2");
        world.wait("accepted", 1);
        world.until(|event| matches!(event, Event::Shutdown(Notice::Accepted { .. })).then_some(()));
        if stands {
            world.rescind();
        } else {
            world.stop();
        }
        assert_eq!(orders.try_recv().is_ok(), stands);
        world.end();
    }
}
