//! What was done to each device, on disk before it is done.
//!
//! One JSON file per device. It is replaced as a whole (write beside, fsync, rename, fsync the folder), so that it is
//! never half there. It counts for one boot: changes in sysfs do not outlive one, and neither does the journal.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::driver_core::{DriverCore, Point, Step};
use crate::Error;
use crate::sysfs::Bus;

const VERSION: u32 = 1;
const LOCK_FILE: &str = "lock";
const EXTENSION: &str = "json";
/// How long a binder waits for another one; a bind takes well below a second, its wait for a node a few.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The driver that a device goes back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Former {
    /// It had none.
    Nobody,
    /// It had this one.
    Driver(String),
    /// Nobody remembers; the kernel chooses.
    Unknown,
}

/// One device's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) version: u32,
    /// The device's sysfs name.
    pub(crate) device: String,
    pub(crate) instance: Uuid,
    pub(crate) class: Uuid,
    /// The boot that the rest is about.
    pub(crate) boot_id: String,
    pub(crate) former_driver: Former,
    pub(crate) former_override: Option<String>,
    /// Whether `uio_hv_generic` may know the class because of us.
    pub(crate) new_id: bool,
    /// Devices of the class without a driver, which `uio_hv_generic` grabs as soon as it knows the class.
    pub(crate) bystanders: Vec<String>,
    /// The change that is made next, or was made last.
    pub(crate) step: Step,
}

impl Entry {
    pub(crate) fn new(device: &crate::sysfs::Device, boot_id: String) -> Self {
        Self {
            version: VERSION,
            device: device.name.clone(),
            instance: device.instance,
            class: device.class.0,
            boot_id,
            former_driver: device.driver.clone().map_or(Former::Nobody, Former::Driver),
            former_override: device.driver_override.clone(),
            new_id: false,
            bystanders: Vec::new(),
            step: Step::Override,
        }
    }

    /// The kernel driver that had the device, where one had.
    pub(crate) fn into_former_driver(self) -> Option<String> {
        match self.former_driver {
            Former::Driver(driver) => Some(driver),
            Former::Nobody | Former::Unknown => None,
        }
    }
}

/// The folder of journals.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
}

/// Held while a binder works; given back when dropped, and by the kernel when the process dies.
#[derive(Debug)]
#[must_use]
pub(crate) struct Lock {
    _file: File,
}

impl Journal {
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates the folder where it is missing, and keeps other binders out.
    pub(crate) fn lock(&self) -> Result<Lock, Error> {
        let create = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        create.map_err(|error| Error::io("create", &self.folder, error))?;
        let path = self.folder.join(LOCK_FILE);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| Error::io("open", &path, error))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_TIMEOUT => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let why = format!("another process is binding devices and holds {}; try again", path.display());
                    return Err(Error::Busy { device: "binder".to_owned(), why });
                }
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
            }
        }
    }

    /// The devices that have a journal, by sysfs name, sorted.
    pub(crate) fn devices(&self) -> Result<Vec<String>, Error> {
        let failed = |error| Error::io("list", &self.folder, error);
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The device's journal, whatever boot it is from; `None` where there is none.
    pub(crate) fn load(&self, device: &str) -> Result<Option<Entry>, Error> {
        let Some(path) = self.path(device) else { return Ok(None) };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        let entry: Result<Entry, _> = serde_json::from_str(&text);
        match entry {
            Ok(entry) if entry.version == VERSION && entry.device == device => Ok(Some(entry)),
            _ => Err(Error::malformed(&path, "a device's journal of version 1", text)),
        }
    }

    /// Puts `entry` on disk, in place of what was there.
    pub(crate) fn store(&self, entry: &Entry, kernel: &dyn DriverCore) -> Result<(), Error> {
        let Some(path) = self.path(&entry.device) else {
            return Err(Error::malformed(&self.folder, "a device name that can name a file", &entry.device));
        };
        let beside = path.with_extension("new");
        let write = || {
            let mut file = File::create(&beside)?;
            serde_json::to_writer_pretty(&mut file, entry)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            kernel.at(Point::JournalWritten);
            fs::rename(&beside, &path)?;
            self.sync_folder()
        };
        write().map_err(|error| Error::io("write the journal", &path, error))?;
        kernel.at(Point::JournalInPlace);
        Ok(())
    }

    /// Forgets the device.
    pub(crate) fn drop_entry(&self, device: &str, kernel: &dyn DriverCore) -> Result<(), Error> {
        let Some(path) = self.path(device) else { return Ok(()) };
        match fs::remove_file(&path).and_then(|()| self.sync_folder()) {
            Ok(()) => kernel.at(Point::JournalDropped),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("remove the journal", &path, error)),
        }
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// The device's file; `None` for a name that is none of the kernel's and could lead elsewhere.
    fn path(&self, device: &str) -> Option<PathBuf> {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let valid = !device.is_empty() && device.bytes().all(harmless);
        valid.then(|| self.folder.join(format!("{device}.{EXTENSION}")))
    }
}

/// This boot's number.
pub(crate) fn boot_id(bus: &Bus) -> Result<String, Error> {
    bus.attribute(&bus.path("proc/sys/kernel/random/boot_id"))
}
