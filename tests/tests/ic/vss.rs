//! Snapshots: frozen while the host wants it, and thawed however it ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vmbus_devices::ic::vss::{FileSystems, Guard, Notice};
use vmbus_devices::ic::{Event, Vss};
use vmbus_simhost::device::ic::{ComponentHost, HostSettings, VssHost};
use vmbus_tests::LONG;

use crate::world::World;

/// Counts what is frozen.
#[derive(Clone, Default)]
struct Double(Arc<AtomicU64>);

impl FileSystems for Double {
    fn list(&self) -> Result<Vec<PathBuf>, String> {
        Ok(vec!["/data".into(), "/".into()])
    }

    fn freeze(&self, _: &Path) -> Result<(), String> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn thaw(&self, _: &Path) -> Result<(), String> {
        self.0.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn guard(&self, _: &[PathBuf]) -> Result<Guard, String> {
        Ok(Guard::none())
    }
}

fn world(limit: Duration) -> (World, Arc<AtomicU64>) {
    let double = Double::default();
    let spec = ComponentHost::spec(VssHost::default, HostSettings::default());
    (World::start(spec, Vss::new(double.clone(), limit)), double.0)
}

#[test]
fn a_host_takes_snapshots() {
    let (world, frozen) = world(LONG * 100);
    for round in 1..4 {
        for words in ["hot-backup", "device-info", "freeze"] {
            world.command(words);
        }
        world.wait("freezes", round);
        assert_eq!((frozen.load(Ordering::SeqCst), world.count("frozen")), (2, 1));
        world.command("thaw");
        world.wait("thaws", round);
        assert_eq!((frozen.load(Ordering::SeqCst), world.count("frozen")), (0, 0));
    }
    world.command("operation 8");
    world.wait("refused", 1);
    assert_eq!(world.count("version"), 0x5_0000);
    world.end();
}

#[test]
fn a_host_that_forgets_to_thaw_hears_of_it() {
    let (world, frozen) = world(Duration::from_millis(10));
    world.command("freeze");
    let thaw = world.until(|event| if let Event::Vss(Notice::Expired(thaw)) = event { Some(thaw) } else { None });
    assert_eq!((thaw.thawed, frozen.load(Ordering::SeqCst)), (2, 0));
    world.command("thaw");
    world.wait("late", 1);
    world.end();
}

#[test]
fn the_end_of_the_device_or_of_the_service_thaws() {
    for rescinded in [true, false] {
        let (mut world, frozen) = world(LONG * 100);
        world.command("freeze");
        world.wait("freezes", 1);
        if rescinded {
            world.rescind();
        } else {
            world.stop();
        }
        assert_eq!(frozen.load(Ordering::SeqCst), 0);
        world.end();
    }
}
