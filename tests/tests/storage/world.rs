//! A bus with one controller, its host, and what tests ask of them.

use std::time::Duration;

use vmbus::class::Class;
use vmbus_channels::Offer;
use vmbus_devices::Error;
use vmbus_devices::storage::{Failure, Settings, Storage};
use vmbus_simhost::device::storage::DiskSettings;
use vmbus_simhost::device::{StorageController, StorageSettings};
use vmbus_simhost::{Config, OfferId, Random};
use vmbus_tests::{LONG, Stack};

/// A controller, open, with its host.
pub(crate) struct World {
    pub(crate) stack: Stack,
    pub(crate) storage: Storage,
    pub(crate) offer: Offer,
    pub(crate) host: OfferId,
}

/// A guest that waits for nobody for long, through one channel.
pub(crate) fn brief() -> Settings {
    Settings {
        subchannels: 0,
        command_timeout: LONG,
        drain_timeout: Duration::from_millis(200),
        host_timeout: Duration::from_secs(5),
        ..Settings::default()
    }
}

/// A controller with these disks in memory.
pub(crate) fn disks(disks: &[(u8, u64)]) -> StorageSettings {
    let disks = disks.iter().map(|(lun, bytes)| (*lun, DiskSettings::in_memory(*bytes))).collect();
    StorageSettings { disks, ..StorageSettings::default() }
}

/// The bus with a controller that nobody has opened.
pub(crate) fn stack(controller: StorageSettings) -> (Stack, Offer, OfferId) {
    let spec = StorageController::spec(1, controller).unwrap();
    let stack = Stack::start(Config::seeded(7).with_device(spec)).unwrap();
    let offer = stack.bus.of_class(Class::SCSI).unwrap().pop().unwrap();
    let relid = offer.relid;
    let host = stack.control.with(move |simulation| simulation.host().offer_on_relid(relid)).unwrap().unwrap();
    (stack, offer, host)
}

impl World {
    pub(crate) fn with(controller: StorageSettings, settings: Settings) -> Self {
        let (stack, offer, host) = stack(controller);
        let storage = Storage::open(&stack.bus, &offer, settings).unwrap();
        Self { stack, storage, offer, host }
    }

    /// Says something to the host's controller.
    pub(crate) fn tell(&self, words: &str) {
        self.stack.control.command(self.host, words).unwrap();
    }

    /// Waits until a number of the host's is at least so high.
    #[track_caller]
    pub(crate) fn await_count(&self, what: &'static str, least: u64) {
        let host = self.host;
        let came = self.stack.control.wait_for(LONG, move |sim| sim.host().count(host, what) >= least).unwrap();
        assert!(came, "{what} did not reach {least}");
    }

    pub(crate) fn count(&self, what: &'static str) -> u64 {
        let host = self.host;
        self.stack.control.with(move |sim| sim.host().count(host, what)).unwrap()
    }

    /// Closes, and sees that nothing is left and nobody complains.
    #[track_caller]
    pub(crate) fn end(self) {
        self.storage.close().unwrap();
        let faults = self.stack.end().unwrap();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

/// Bytes that follow from a seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..bytes.div_ceil(8)).flat_map(|_| random.next_u64().to_le_bytes()).take(bytes).collect()
}

/// What of the storage it is.
#[track_caller]
pub(crate) fn failure<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Failure {
    match outcome.unwrap_err() {
        Error::Storage { failure, .. } => failure,
        error => panic!("{error}"),
    }
}
