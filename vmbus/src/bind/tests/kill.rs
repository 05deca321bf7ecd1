//! Death at every point of a bind and of a restore, and what the next process makes of it.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicUsize;

use super::model::{Death, Died, Model};
use super::*;

const LIFE: &str = "VMBUS_TEST_LIFE";
const ROOT: &str = "VMBUS_TEST_ROOT";

/// Runs `work` with a binder that dies after `life` points; whether it died.
fn dies(setup: &Setup, life: usize, work: impl FnOnce(&Binder)) -> bool {
    let binder = setup.binder_with(Model { life: AtomicUsize::new(life), ..Model::new(&setup.bus) });
    match catch_unwind(AssertUnwindSafe(|| work(&binder))) {
        Ok(()) => false,
        Err(payload) => {
            assert!(payload.is::<Died>(), "it panicked by itself");
            true
        }
    }
}

/// The balloon with its driver, and for old kernels a second device of its class without one.
fn prepared(old: bool, former: Option<&str>) -> (Setup, Device) {
    let setup = Setup::new();
    let device = setup.tree.device(Class::DYNAMIC_MEMORY, 1, former);
    setup.tree.device(Class::DYNAMIC_MEMORY, 2, None);
    if old {
        setup.old(1);
        setup.old(2);
    }
    (setup, device)
}

fn assert_as_before(setup: &Setup, former: Option<&str>, context: &str) {
    assert_eq!(setup.driver(1).as_deref(), former, "{context}");
    assert_eq!(setup.driver(2), None, "{context}");
    assert_eq!((setup.overridden(1), setup.ids().as_str()), (None, ""), "{context}");
    assert!(setup.binder().pending().unwrap().is_empty(), "{context}");
}

/// Every way a device can be set up: by override or by class, with and without a former driver.
fn cases() -> impl Iterator<Item = (bool, Option<&'static str>)> {
    [false, true].into_iter().flat_map(|old| [Some("hv_balloon"), None].map(|former| (old, former)))
}

#[test]
fn a_bind_killed_anywhere_is_restored() {
    for (old, former) in cases() {
        for life in 0.. {
            let (setup, device) = prepared(old, former);
            let died = dies(&setup, life, |binder| {
                binder.bind(&device, BindOptions::default()).unwrap();
            });
            let context = format!("old {old}, former {former:?}, life {life}");
            for attempt in setup.binder().restore_all().unwrap() {
                assert_eq!(attempt.result.unwrap().outcome, Outcome::Restored, "{context}");
            }
            assert_as_before(&setup, former, &context);
            if !died {
                assert!(life >= 6, "{context}: too few points for a bind");
                break;
            }
        }
    }
}

#[test]
fn a_bind_killed_anywhere_can_be_finished_and_restored() {
    for (old, former) in cases() {
        for life in 0.. {
            let (setup, device) = prepared(old, former);
            let died = dies(&setup, life, |binder| {
                binder.bind(&device, BindOptions::default()).unwrap();
            });
            let context = format!("old {old}, former {former:?}, life {life}");
            setup.binder().bind(&device, BindOptions::default()).unwrap();
            assert_eq!(setup.driver(1).as_deref(), Some(UIO_DRIVER), "{context}");
            assert_eq!((setup.driver(2), setup.ids().as_str()), (None, ""), "{context}");
            setup.binder().restore("1").unwrap();
            assert_as_before(&setup, former, &context);
            if !died {
                break;
            }
        }
    }
}

#[test]
fn a_restore_killed_anywhere_is_finished_by_the_next() {
    for (old, former) in cases() {
        // A bind that died half way leaves the most to undo; one that ended leaves the usual.
        for bind_life in [5, usize::MAX] {
            for life in 0.. {
                let (setup, device) = prepared(old, former);
                dies(&setup, bind_life, |binder| {
                    binder.bind(&device, BindOptions::default()).unwrap();
                });
                let died = dies(&setup, life, |binder| {
                    binder.restore("1").unwrap();
                });
                setup.binder().restore_all().unwrap().into_iter().for_each(|attempt| {
                    attempt.result.unwrap();
                });
                assert_as_before(&setup, former, &format!("old {old}, former {former:?}, life {life}"));
                if !died {
                    break;
                }
            }
        }
    }
}

/// Not a test of its own: the process that [`a_real_kill_is_survived`] starts to be killed.
#[test]
fn victim() {
    let (Ok(life), Some(root)) = (env::var(LIFE), env::var_os(ROOT)) else { return };
    let bus = Bus::at(&root);
    let model = Model { life: AtomicUsize::new(life.parse().unwrap()), death: Death::Kill, ..Model::new(&bus) };
    let binder = Binder::with_driver_core(&bus, bus.path("state"), Box::new(model));
    binder.bind(&bus.find("1").unwrap(), BindOptions::default()).unwrap();
}

#[test]
fn a_real_kill_is_survived() {
    for life in 0.. {
        let (setup, _) = prepared(false, Some("hv_balloon"));
        let mut victim = Command::new(env::current_exe().unwrap());
        victim.args(["--exact", "bind::tests::kill::victim"]).stdout(Stdio::null()).stderr(Stdio::null());
        let status = victim.env(LIFE, life.to_string()).env(ROOT, setup.tree.path("")).status().unwrap();
        assert!(setup.binder().journal.lock().is_ok(), "the lock of a dead process holds nobody up");
        setup.binder().restore_all().unwrap().into_iter().for_each(|attempt| {
            attempt.result.unwrap();
        });
        assert_as_before(&setup, Some("hv_balloon"), &format!("life {life}"));
        if status.success() {
            assert!(life >= 6, "the victim was not killed often enough");
            break;
        }
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "life {life}");
    }
}
