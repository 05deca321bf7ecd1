//! Binding on a model of the driver core.

mod gone;
mod kill;
mod model;

use std::fs;

use rustix::io::Errno;

use super::*;
use crate::ErrorKind;
use crate::class::Class;
use crate::fake::{Tree, instance, real};
use model::Model;

/// A tree with what the refusal checks read, and a binder with a model of the kernel.
struct Setup {
    tree: Tree,
    bus: Bus,
}

impl Setup {
    fn new() -> Self {
        let tree = Tree::new();
        tree.write("proc/self/mountinfo", "1 1 0:2 / / rw - rootfs none rw\n");
        tree.folder_at("model");
        let bus = tree.bus();
        Self { tree, bus }
    }

    /// As a kernel before 4.20: the device has no override.
    fn old(&self, relid: u32) {
        fs::remove_file(self.tree.path(format!("{}/driver_override", real(relid)))).unwrap();
    }

    fn binder_with(&self, model: Model) -> Binder {
        Binder::with_driver_core(&self.bus, self.tree.path("state"), Box::new(model))
    }

    fn binder(&self) -> Binder {
        self.binder_with(Model::new(&self.bus))
    }

    fn driver(&self, relid: u32) -> Option<String> {
        self.bus.find(&relid.to_string()).unwrap().driver
    }

    fn overridden(&self, relid: u32) -> Option<String> {
        self.bus.find(&relid.to_string()).unwrap().driver_override
    }

    /// The classes that `uio_hv_generic` was told about and not made to forget.
    fn ids(&self) -> String {
        fs::read_to_string(self.tree.path("model").join(UIO_DRIVER)).unwrap_or_default()
    }
}

#[test]
fn bind_and_unbind_by_override() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::DYNAMIC_MEMORY, 1, Some("hv_balloon"));
    let binder = setup.binder();
    let bound = binder.bind(&device, BindOptions::default()).unwrap();
    assert_eq!((bound.uio.as_str(), bound.method), ("uio1", Method::DriverOverride));
    assert_eq!((bound.node, bound.former_driver.as_deref()), (setup.tree.path("dev/uio1"), Some("hv_balloon")));
    assert_eq!(setup.driver(1).as_deref(), Some(UIO_DRIVER));
    assert_eq!(setup.ids(), "", "the class was not touched");
    assert_eq!(binder.pending().unwrap(), [device.name.as_str()]);
    let files = fs::read_dir(setup.tree.path("state")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, [format!("{}.json", device.name), "lock".into()], "no half of a journal is left");
    let again = binder.bind(&device, BindOptions::default()).unwrap();
    assert_eq!((again.method, again.former_driver.as_deref()), (Method::Already, Some("hv_balloon")));
    let restored = binder.unbind(&device).unwrap();
    assert_eq!((restored.outcome, restored.driver.as_deref()), (Outcome::Restored, Some("hv_balloon")));
    assert_eq!((setup.driver(1).as_deref(), setup.overridden(1)), (Some("hv_balloon"), None));
    assert!(binder.pending().unwrap().is_empty());
    assert_eq!(binder.restore("balloon").unwrap().outcome, Outcome::Nothing, "restoring twice is fine");
    assert_eq!(binder.unbind(&device).unwrap().outcome, Outcome::Nothing);
}

#[test]
fn the_former_override_and_no_driver_come_back() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::DYNAMIC_MEMORY, 1, None);
    setup.tree.write(format!("{}/driver_override", real(1)), "vfio\n");
    setup.binder().bind(&device, BindOptions::default()).unwrap();
    assert_eq!(setup.overridden(1).as_deref(), Some(UIO_DRIVER));
    let restored = setup.binder().restore(&device.name).unwrap();
    assert_eq!(restored.driver, None);
    assert_eq!((setup.driver(1), setup.overridden(1).as_deref()), (None, Some("vfio")));
}

#[test]
fn bind_and_unbind_by_class_leave_others_alone() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::NIC, 1, Some("hv_netvsc"));
    setup.tree.device(Class::NIC, 2, Some("hv_netvsc"));
    setup.tree.device(Class::NIC, 3, None);
    for relid in 1..=3 {
        setup.old(relid);
    }
    let bound = setup.binder().bind(&device, BindOptions::default()).unwrap();
    assert_eq!(bound.method, Method::NewId);
    assert_eq!((setup.driver(1).as_deref(), setup.driver(2).as_deref()), (Some(UIO_DRIVER), Some("hv_netvsc")));
    assert_eq!((setup.driver(3), setup.ids().as_str()), (None, ""), "the class is forgotten, the bystander is free");
    assert_eq!(setup.binder().unbind(&device).unwrap().driver.as_deref(), Some("hv_netvsc"));
}

#[test]
fn a_newer_kernel_can_be_treated_as_an_old_one() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::NIC, 1, Some("hv_netvsc"));
    let bound = setup.binder().with_new_id().bind(&device, BindOptions::default()).unwrap();
    assert_eq!((bound.method, setup.overridden(1)), (Method::NewId, None));
    assert_eq!(setup.binder().unbind(&device).unwrap().driver.as_deref(), Some("hv_netvsc"));
}

#[test]
fn a_class_that_the_user_gave_stays() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::NIC, 1, Some("hv_netvsc"));
    setup.old(1);
    setup.tree.write("model/uio_hv_generic", format!("{}\n", Class::NIC));
    setup.binder().bind(&device, BindOptions::default()).unwrap();
    setup.binder().unbind(&device).unwrap();
    assert_eq!(setup.ids(), format!("{}\n", Class::NIC));
}

#[test]
fn a_refused_bind_is_undone_and_explained() {
    let errors = [(Errno::from_raw_os_error(524), "Linux 6.10"), (Errno::NOMEM, "4 MiB"), (Errno::NODEV, "hv_sock")];
    for (errno, words) in errors {
        let setup = Setup::new();
        let device = setup.tree.device(Class::DYNAMIC_MEMORY, 1, Some("hv_balloon"));
        let binder = setup.binder_with(Model { refusal: Some(errno), ..Model::new(&setup.bus) });
        let error = binder.bind(&device, BindOptions::default()).unwrap_err();
        assert!(matches!(error, Error::BindFailed { .. }) && error.to_string().contains(words), "{error}");
        assert_eq!((setup.driver(1).as_deref(), setup.overridden(1)), (Some("hv_balloon"), None));
        assert!(binder.pending().unwrap().is_empty());
    }
}

#[test]
fn a_missing_node_is_said_and_undone() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::DYNAMIC_MEMORY, 1, Some("hv_balloon"));
    let binder = setup.binder_with(Model { has_devtmpfs: false, ..Model::new(&setup.bus) });
    let error = binder.take_within(&device, BindOptions::default(), std::time::Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("devtmpfs"), "{error}");
    assert_eq!(setup.driver(1).as_deref(), Some("hv_balloon"));
}

#[test]
fn drivers_that_are_not_loaded_are_named() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::DYNAMIC_MEMORY, 1, Some("hv_balloon"));
    fs::rename(setup.tree.path("sys/bus/vmbus/drivers/uio_hv_generic"), setup.tree.path("aside")).unwrap();
    let error = setup.binder().bind(&device, BindOptions::default()).unwrap_err();
    assert!(error.to_string().contains("modprobe uio_hv_generic"), "{error}");
    fs::rename(setup.tree.path("aside"), setup.tree.path("sys/bus/vmbus/drivers/uio_hv_generic")).unwrap();

    setup.binder().bind(&device, BindOptions::default()).unwrap();
    fs::rename(setup.tree.path("sys/bus/vmbus/drivers/hv_balloon"), setup.tree.path("aside")).unwrap();
    let error = setup.binder().unbind(&device).unwrap_err();
    assert!(error.to_string().contains("modprobe hv_balloon"), "{error}");
    assert_eq!(setup.binder().pending().unwrap().len(), 1, "the journal stays for another attempt");
    fs::rename(setup.tree.path("aside"), setup.tree.path("sys/bus/vmbus/drivers/hv_balloon")).unwrap();
    assert_eq!(setup.binder().restore_all().unwrap().remove(0).result.unwrap().outcome, Outcome::Restored);
    assert_eq!(setup.driver(1).as_deref(), Some("hv_balloon"));
}

#[test]
fn a_device_in_use_is_not_unbound_with_or_without_a_journal() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::NIC, 1, Some("hv_netvsc"));
    let binder = setup.binder();
    binder.bind(&device, BindOptions { force: true }).unwrap();
    setup.tree.write("proc/42/comm", "driver\n");
    setup.tree.folder_at("proc/42/fd");
    std::os::unix::fs::symlink("/dev/uio1", setup.tree.path("proc/42/fd/3")).unwrap();
    for journal in [true, false] {
        for error in [binder.unbind(&device).map(drop), binder.restore("1").map(drop)] {
            match error {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
                    assert!(error.to_string().contains("process 42 (driver, has it open)"), "{error}");
                }
                Ok(()) => assert!(!journal, "only without a journal is there nothing to restore"),
            }
            assert_eq!(
                (setup.driver(1).as_deref(), setup.overridden(1).as_deref()),
                (Some(UIO_DRIVER), Some(UIO_DRIVER))
            );
        }
        assert_eq!(binder.pending().unwrap().len(), usize::from(journal));
        let _ = fs::remove_dir_all(setup.tree.path("state"));
    }
    fs::remove_dir_all(setup.tree.path("proc/42")).unwrap();
    assert_eq!(binder.unbind(&device).unwrap().driver.as_deref(), Some("hv_netvsc"));
}

#[test]
fn the_machine_s_own_network_needs_force() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::NIC, 1, Some("hv_netvsc"));
    setup.tree.folder_at(format!("{}/net/eth0", real(1)));
    setup.tree.write("proc/net/route", "eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0\n");
    let error = setup.binder().bind(&device, BindOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::Refused { why, .. } if why.contains("--force")), "{error}");
    assert_eq!(setup.driver(1).as_deref(), Some("hv_netvsc"));
    assert!(setup.binder().pending().unwrap().is_empty());
    setup.binder().bind(&device, BindOptions { force: true }).unwrap();
}

#[test]
fn without_a_journal_the_kernel_chooses() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::NIC, 1, None);
    setup.binder().bind(&device, BindOptions::default()).unwrap();
    fs::remove_dir_all(setup.tree.path("state")).unwrap();
    let restored = setup.binder().unbind(&device).unwrap();
    assert_eq!((restored.outcome, restored.driver.as_deref()), (Outcome::Restored, Some("hv_netvsc")));
    assert_eq!(setup.overridden(1), None);
}

#[test]
fn a_journal_of_another_boot_is_dropped() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::NIC, 1, Some("hv_netvsc"));
    setup.binder().bind(&device, BindOptions::default()).unwrap();
    setup.tree.write("proc/sys/kernel/random/boot_id", "99999999-2222-4333-8444-555555555555\n");
    let restored = setup.binder().restore(&device.name).unwrap();
    assert_eq!((restored.outcome, restored.driver.as_deref()), (Outcome::Stale, Some(UIO_DRIVER)));
    assert!(setup.binder().pending().unwrap().is_empty());
}

#[test]
fn a_device_that_is_gone_leaves_no_journal() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::NIC, 1, Some("hv_netvsc"));
    setup.binder().bind(&device, BindOptions::default()).unwrap();
    fs::remove_file(setup.tree.path(format!("sys/bus/vmbus/devices/{}", device.name))).unwrap();
    assert_eq!(setup.binder().restore(&device.name).unwrap().outcome, Outcome::Gone);
    assert!(setup.binder().pending().unwrap().is_empty());
    assert_eq!(setup.binder().restore(&device.name).unwrap_err().kind(), ErrorKind::NoDevice);
    assert_eq!(setup.binder().restore("../../etc/passwd").unwrap_err().kind(), ErrorKind::NoDevice);
}

#[test]
fn what_the_user_did_meanwhile_stays() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::NIC, 1, Some("hv_netvsc"));
    setup.binder().bind(&device, BindOptions::default()).unwrap();
    setup.tree.write(format!("{}/driver_override", real(1)), "hv_storvsc\n");
    let model = Model::new(&setup.bus);
    model.write(&setup.tree.path("sys/bus/vmbus/drivers/uio_hv_generic/unbind"), &device.name).unwrap();
    model.write(&setup.tree.path("sys/bus/vmbus/drivers/hv_storvsc/bind"), &device.name).unwrap();
    assert_eq!(setup.binder().restore("nic").unwrap().driver.as_deref(), Some("hv_storvsc"));
    assert_eq!(setup.overridden(1).as_deref(), Some("hv_storvsc"));
}

#[test]
fn binders_take_turns() {
    let setup = Setup::new();
    let lock = setup.binder().journal.lock().unwrap();
    let path = setup.tree.path("state/lock");
    assert!(fs::File::open(&path).unwrap().try_lock().is_err());
    drop(lock);
    fs::File::open(&path).unwrap().try_lock().unwrap();
}

#[test]
fn an_edited_journal_is_an_error_that_names_it() {
    let setup = Setup::new();
    let device = setup.tree.device(Class::NIC, 1, Some("hv_netvsc"));
    setup.tree.write(format!("state/{}.json", instance(1)), "{\"version\": 2}");
    let error = setup.binder().bind(&device, BindOptions::default()).unwrap_err();
    assert!(error.to_string().contains(&format!("{}.json", instance(1))), "{error}");
    assert_eq!(setup.driver(1).as_deref(), Some("hv_netvsc"), "nothing was changed");
}
