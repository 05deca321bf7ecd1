//! The host takes a device back while it is bound, and may offer it again at once.

use std::time::{Duration, Instant};

use super::model::{Departure, Model};
use super::*;

/// Every moment of a bind by override at which the device can go.
fn moments(comes_back: bool) -> impl Iterator<Item = Departure> {
    let files = ["driver_override", "unbind", "bind"].into_iter();
    files.flat_map(move |file| [false, true].map(|behind| Departure { file, behind, comes_back, device: 1 }))
}

/// A device that is to go then, and how the bind ended.
fn bound_while_it_goes(departure: Departure) -> (Setup, Result<Bound, Error>) {
    let setup = Setup::new();
    let device = setup.tree.device(Class::DYNAMIC_MEMORY, 1, Some("hv_balloon"));
    let binder = setup.binder_with(Model { departure: Some(departure), ..Model::new(&setup.bus) });
    let start = Instant::now();
    let bound = binder.bind(&device, BindOptions::default());
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{departure:?}: nobody waits for the node of a device that is gone"
    );
    (setup, bound)
}

#[test]
fn a_device_that_goes_while_it_is_bound_is_rescinded_and_leaves_nothing() {
    for departure in moments(false) {
        let (setup, bound) = bound_while_it_goes(departure);
        assert_eq!(bound.unwrap_err().kind(), ErrorKind::Rescinded, "{departure:?}");
        assert!(setup.binder().pending().unwrap().is_empty(), "{departure:?}");
        assert_eq!(setup.ids(), "", "{departure:?}");
    }
}

/// Its override has gone with it. Either the new one is bound, or the caller hears that the old one has gone; and binding it
/// then works, and is undone as ever.
#[test]
fn a_device_that_comes_back_while_it_is_bound_can_be_bound() {
    for departure in moments(true) {
        let (setup, bound) = bound_while_it_goes(departure);
        match bound {
            Ok(bound) => assert_eq!(bound.uio, "uio1", "{departure:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Rescinded, "{departure:?}: {error}"),
        }
        let again = setup.bus.find("1").unwrap();
        let bound = setup.binder().bind(&again, BindOptions::default()).unwrap();
        assert_eq!((bound.uio.as_str(), setup.driver(1).as_deref()), ("uio1", Some(UIO_DRIVER)), "{departure:?}");
        setup.binder().restore("1").unwrap();
        assert_eq!(setup.driver(1).as_deref(), Some("hv_balloon"), "{departure:?}");
        assert!(setup.binder().pending().unwrap().is_empty(), "{departure:?}");
    }
}

/// Giving back what the host has just taken is done, and no error; the next bind finds no journal of the past.
#[test]
fn a_device_that_goes_while_it_is_given_back_is_gone() {
    for departure in moments(false) {
        let setup = Setup::new();
        let device = setup.tree.device(Class::DYNAMIC_MEMORY, 1, Some("hv_balloon"));
        setup.binder().bind(&device, BindOptions::default()).unwrap();
        let binder = setup.binder_with(Model { departure: Some(departure), ..Model::new(&setup.bus) });
        let restored = binder.unbind(&device).unwrap_or_else(|error| panic!("{departure:?}: {error}"));
        assert_eq!((restored.outcome, restored.driver), (Outcome::Gone, None), "{departure:?}");
        assert!(setup.binder().pending().unwrap().is_empty(), "{departure:?}");
    }
}
