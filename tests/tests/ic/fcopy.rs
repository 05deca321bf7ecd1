//! File copy: whole files, hostile paths, and copies that are cut off in every way.

use std::fs;

use vmbus_devices::ic::fcopy::{Notice, Settings, Store, Why};
use vmbus_devices::ic::{Event, FileCopy, wire::Status};
use vmbus_simhost::device::ic::{ComponentHost, FcopyHost, HostSettings, fcopy_content};

use crate::world::World;

fn world(settings: Settings) -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("inner")).unwrap();
    let copy = FileCopy::new(Store::open(folder.path().join("inner")).unwrap(), settings);
    (World::start(ComponentHost::spec(FcopyHost::default, HostSettings::default()), copy), folder)
}

/// Whole fragments, one byte more and less, none, and many: through rings of 64 KiB.
#[test]
fn files_of_all_sizes_come_whole() {
    let (world, folder) = world(Settings::default());
    for (index, bytes) in (1..).zip([0_u64, 1, 6143, 6144, 6145, 12288, 1_000_000]) {
        world.command(&format!("copy 2 {bytes} {index} some/folder file{index}"));
        world.wait("copied", index);
        let content = fs::read(folder.path().join(format!("inner/some/folder/file{index}"))).unwrap();
        assert!(content == fcopy_content(index, bytes), "{bytes}");
    }
    assert_eq!((world.count("failed"), world.count("version")), (0, 0x1_0001));
    assert_eq!(fs::read_dir(folder.path().join("inner/some/folder")).unwrap().count(), 7);
    world.end();
}

#[test]
fn what_the_host_may_not_do_is_answered() {
    let (world, folder) = world(Settings::default());
    let inner = folder.path().join("inner");
    fs::write(inner.join("old"), "old").unwrap();
    std::os::unix::fs::symlink("..", inner.join("link")).unwrap();
    for (index, (words, status)) in (1..).zip([
        ("copy 3 10 1 .. x", Status::INVALID_ARGUMENT),
        ("copy 3 10 1 a/../.. x", Status::INVALID_ARGUMENT),
        ("copy 3 10 1 link x", Status::FAIL),
        ("copy 3 10 1 / ../x", Status::INVALID_ARGUMENT),
        ("copy 3 10 1 / old", Status::ALREADY_EXISTS),
        ("copy 0 10 1 new/folder x", Status::FAIL),
        ("start 2 18446744073709551615 / x", Status::DISK_FULL),
    ]) {
        world.command(words);
        world.wait("failed", index);
        assert_eq!(world.count("status"), u64::from(status.0), "{words}");
    }
    assert_eq!(fs::read_to_string(inner.join("old")).unwrap(), "old");
    assert_eq!((fs::read_dir(folder.path()).unwrap().count(), fs::read_dir(&inner).unwrap().count() <= 3), (1, true));
    assert!(!folder.path().join("x").exists());
    world.end();
}

#[test]
fn a_copy_that_is_cut_off_leaves_nothing() {
    for way in ["cancel", "another", "rescind", "stop"] {
        let (mut world, folder) = world(Settings::default());
        let inner = folder.path().join("inner");
        world.command("start 0 1000000 / large");
        world.until(|event| matches!(event, Event::Copy(Notice::Started { .. })).then_some(()));
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "what there is of it");
        let (why, left) = match way {
            "cancel" => {
                world.command("cancel");
                world.wait("cancelled", 1);
                (Why::Cancelled, 0)
            }
            "another" => {
                world.command("copy 0 5 1 / small");
                world.wait("copied", 1);
                (Why::Cancelled, 1)
            }
            "rescind" => {
                world.rescind();
                (Why::Ended, 0)
            }
            _ => {
                world.stop();
                (Why::Ended, 0)
            }
        };
        let dropped = world.until(|event| match event {
            Event::Copy(Notice::Dropped { why, .. }) => Some(why),
            _ => None,
        });
        assert_eq!((dropped, fs::read_dir(&inner).unwrap().count()), (why, left), "{way}");
        world.end();
    }
}
