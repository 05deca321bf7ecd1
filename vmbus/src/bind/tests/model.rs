//! A model of the driver core over a fake tree. All its state is in the tree, so a second process can go on with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::io::Errno;

use crate::bind::UIO_DRIVER;
use crate::bind::driver_core::{DriverCore, Point};
use crate::class::Class;
use crate::sysfs::{Bus, Device};

/// How the process dies at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// By unwinding: nothing that runs on errors gets a chance, and the test goes on.
    Unwind,
    /// By SIGKILL, for a process that is only there to be killed.
    Kill,
}

/// What [`Death::Unwind`] unwinds with.
pub(crate) struct Died;

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) bus: Bus,
    /// The number of points to live through.
    pub(crate) life: AtomicUsize,
    pub(crate) death: Death,
    /// What the probe of `uio_hv_generic` answers.
    pub(crate) refusal: Option<Errno>,
    /// Whether nodes appear in `/dev`.
    pub(crate) has_devtmpfs: bool,
    /// When the host takes the device back.
    pub(crate) departure: Option<Departure>,
    /// It happens once.
    pub(crate) departed: AtomicBool,
}

/// The host takes a device back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    /// Around the write to the file of this name.
    pub(crate) file: &'static str,
    /// Behind the write, or before it.
    pub(crate) behind: bool,
    /// The same instance is offered again at once: without a driver, and without its override.
    pub(crate) comes_back: bool,
    pub(crate) device: u32,
}

impl Model {
    pub(crate) fn new(bus: &Bus) -> Self {
        let life = AtomicUsize::new(usize::MAX);
        Self {
            bus: bus.clone(),
            life,
            death: Death::Unwind,
            refusal: None,
            has_devtmpfs: true,
            departure: None,
            departed: AtomicBool::new(false),
        }
    }

    fn ids(&self, driver: &str) -> Vec<Class> {
        let text = fs::read_to_string(self.ids_path(driver)).unwrap_or_default();
        text.lines().map(|line| Class::from_str(line).unwrap()).collect()
    }

    fn set_ids(&self, driver: &str, ids: &[Class]) {
        fs::write(self.ids_path(driver), ids.iter().map(|id| format!("{id}\n")).collect::<String>()).unwrap();
    }

    fn ids_path(&self, driver: &str) -> PathBuf {
        self.bus.path("model").join(driver)
    }

    /// As `vmbus_match`: an override decides alone; then the ids given at run time; then the driver's own table.
    fn matches(&self, driver: &str, device: &Device) -> bool {
        if let Some(only) = &device.driver_override {
            return only == driver;
        }
        let own = [("hv_balloon", Class::DYNAMIC_MEMORY), ("hv_netvsc", Class::NIC), ("hv_storvsc", Class::SCSI)];
        own.contains(&(driver, device.class)) || self.ids(driver).contains(&device.class)
    }

    fn attach(&self, driver: &str, device: &Device) -> io::Result<()> {
        if device.driver.is_some() {
            return Err(Errno::BUSY.into());
        }
        if !self.matches(driver, device) {
            return Err(Errno::NODEV.into());
        }
        if let (UIO_DRIVER, Some(refusal)) = (driver, self.refusal) {
            return Err(refusal.into());
        }
        let target = self.bus.path("sys/bus/vmbus/drivers").join(driver);
        std::os::unix::fs::symlink(target, device.path.join("driver")).unwrap();
        if driver == UIO_DRIVER {
            let uio = format!("uio{}", device.relid);
            fs::create_dir_all(device.path.join("uio").join(&uio)).unwrap();
            if self.has_devtmpfs {
                fs::write(self.bus.path("dev").join(uio), "").unwrap();
            }
        }
        Ok(())
    }

    fn detach(&self, driver: &str, device: &Device) -> io::Result<()> {
        if device.driver.as_deref() != Some(driver) {
            return Err(Errno::NODEV.into());
        }
        fs::remove_file(device.path.join("driver")).unwrap();
        if let Some(uio) = &device.uio {
            fs::remove_dir_all(device.path.join("uio")).unwrap();
            let _ = fs::remove_file(self.bus.path("dev").join(uio));
        }
        Ok(())
    }

    fn new_id(&self, driver: &str, class: Class) -> io::Result<()> {
        let mut ids = self.ids(driver);
        if ids.contains(&class) {
            return Err(Errno::EXIST.into());
        }
        ids.push(class);
        self.set_ids(driver, &ids);
        for device in self.bus.devices().unwrap() {
            // Every device without a driver is tried, and what the probe answers is not told.
            let _ = self.attach(driver, &device);
        }
        Ok(())
    }

    fn remove_id(&self, driver: &str, class: Class) -> io::Result<()> {
        let mut ids = self.ids(driver);
        let position = ids.iter().position(|id| *id == class).ok_or(Errno::NODEV)?;
        ids.remove(position);
        self.set_ids(driver, &ids);
        Ok(())
    }

    /// The device goes, if this is the moment for it.
    fn depart(&self, file: &str, behind: bool) {
        let Some(departure) = self.departure.filter(|departure| (departure.file, departure.behind) == (file, behind))
        else {
            return;
        };
        if self.departed.swap(true, Ordering::SeqCst) {
            return;
        }
        let name = crate::fake::instance(departure.device).to_string();
        let real = fs::canonicalize(self.bus.device_path(&name)).unwrap();
        let grave = self.bus.path("grave");
        fs::rename(&real, &grave).unwrap();
        let _ = fs::remove_file(self.bus.path("dev").join(format!("uio{}", departure.device)));
        if !departure.comes_back {
            return fs::remove_file(self.bus.device_path(&name)).unwrap();
        }
        fs::create_dir(&real).unwrap();
        for entry in fs::read_dir(&grave).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), real.join(entry.file_name())).unwrap();
        }
        fs::write(real.join("driver_override"), "(null)\n").unwrap();
    }

    fn probe(&self, device: &Device) -> io::Result<()> {
        for driver in ["hv_balloon", "hv_netvsc", "hv_storvsc", UIO_DRIVER] {
            if self.attach(driver, device).is_ok() {
                break;
            }
        }
        Ok(())
    }
}

impl DriverCore for Model {
    fn write(&self, attribute: &Path, value: &str) -> io::Result<()> {
        let file = attribute.file_name().unwrap().to_str().unwrap();
        let folder = attribute.parent().unwrap();
        let driver = folder.file_name().unwrap().to_str().unwrap();
        self.depart(file, false);
        if !attribute.exists() {
            return Err(Errno::NOENT.into());
        }
        let device = || self.bus.read_device(value).unwrap().ok_or(Errno::NODEV);
        let class = || Class::from_str(value).map_err(|_| Errno::INVAL);
        let written = match file {
            "driver_override" => {
                let value = value.trim_end_matches('\n');
                fs::write(attribute, if value.is_empty() { "(null)\n".into() } else { format!("{value}\n") })
            }
            "bind" => self.attach(driver, &device()?),
            "unbind" => self.detach(driver, &device()?),
            "new_id" => self.new_id(driver, class()?),
            "remove_id" => self.remove_id(driver, class()?),
            "drivers_probe" => self.probe(&device()?),
            other => panic!("the binder wrote to {other}"),
        };
        self.depart(file, true);
        written
    }

    fn at(&self, _point: Point) {
        let left = self.life.fetch_sub(1, Ordering::SeqCst);
        if left > 0 {
            return;
        }
        match self.death {
            Death::Unwind => std::panic::resume_unwind(Box::new(Died)),
            Death::Kill => {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
            }
        }
    }
}
