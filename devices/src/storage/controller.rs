//! A controller: its channels, its pages and what is under way, from the first word to the close.
//!
//! At the end the channels close first and the pages go second: until the host has heard of the end it may still write
//! to pages of requests that nobody waits for any more. A host that does not let go keeps them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use vmbus::class::Class;
use vmbus_channels::{Announcement, Offer, Subscription, Vmbus};

use super::inventory::Unit;
use super::link::{Link, Parcel};
use super::pool::Pool;
use super::requests::{Answer, Counters, Kind, PRIMARY, Pending, Requests, Time};
use super::scsi::Command;
use super::state::{Action, Agreed, Input, Machine};
use super::wire::{Completion, Direction, GuestPacket, Version};
use super::{Address, Changes, Disk, Failure, Outcome, Settings};
use crate::Error;

/// A storage controller that is open. Disks on it hold on to it, but it ends with [`close`](Self::close), or when it is
/// dropped, which does the same on a thread of its own and waits for nobody.
///
/// ```no_run
/// use vmbus::class::Class;
/// use vmbus_devices::storage::{Settings, Storage};
///
/// # fn run(vmbus: &vmbus_channels::Vmbus) -> Result<(), vmbus_devices::Error> {
/// let offers = vmbus.of_class(Class::SCSI)?;
/// let offer = offers.first().expect("a controller that is bound to uio_hv_generic");
/// let storage = Storage::open(vmbus, offer, Settings::default())?;
/// for unit in storage.scan()?.units {
///     let disk = storage.disk(unit.address)?;
///     let mut first = vec![0; 4096];
///     disk.read_at(0, &mut first)?;
///     println!("{}: {} bytes", unit.address, disk.bytes());
/// }
/// storage.close()
/// # }
/// ```
#[derive(Debug)]
pub struct Storage {
    /// `None` once it is being closed.
    controller: Option<Arc<Controller>>,
}

/// What a controller and its disks share.
#[derive(Debug)]
pub(super) struct Controller {
    vmbus: Vmbus,
    pub(super) settings: Settings,
    pub(super) requests: Arc<Requests>,
    /// By their numbers.
    links: RwLock<Vec<Arc<Link>>>,
    /// Held while one is added.
    opening: Mutex<()>,
    pool: Arc<Pool>,
    agreed: OnceLock<Agreed>,
    /// Units that were found by the last look.
    pub(super) known: Mutex<BTreeMap<Address, Unit>>,
}

/// What goes with a command.
#[derive(Debug)]
pub enum Data<'a> {
    /// Nothing.
    None,
    /// These bytes go to the device.
    Out(&'a [u8]),
    /// So many bytes may come from it.
    In(usize),
}

impl Data<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Out(bytes) => bytes.len(),
            Self::In(bytes) => *bytes,
        }
    }
}

impl Storage {
    /// Opens a SCSI controller: agrees with the host on a version, and opens the subchannels that it offers.
    ///
    /// # Errors
    /// [`Error::Argument`] for a device of another class or settings that make no sense; [`Error::Channel`] as
    /// [`Vmbus::open`] and [`Vmbus::direct_memory`]; [`Failure::Negotiation`].
    pub fn open(vmbus: &Vmbus, offer: &Offer, settings: Settings) -> Result<Self, Error> {
        if ![Class::SCSI, Class::IDE].contains(&offer.class) {
            return Err(Error::Argument("this device is no storage controller; choose one of class scsi"));
        }
        let announcements = match settings.subchannels {
            0 => None,
            _ => Some(vmbus.subscribe()?),
        };
        let pool = Pool::new(vmbus.direct_memory(settings.pool_bytes.max(64 * 1024))?);
        let requests = Requests::new(offer.instance.to_string(), settings.depth);
        let controller = Arc::new(Controller {
            vmbus: vmbus.clone(),
            settings,
            requests,
            links: RwLock::default(),
            opening: Mutex::default(),
            pool,
            agreed: OnceLock::new(),
            known: Mutex::default(),
        });
        let agreed = match controller.add_link(offer).and_then(|()| controller.negotiate()) {
            Ok(agreed) => agreed,
            Err(error) => {
                // No pages are under way yet, so there is nothing to wait for but the host.
                controller.requests.close();
                if let Err(error) = controller.close_links() {
                    log::warn!(target: "vmbus::storage", "the channel of a controller that failed: {error}");
                }
                return Err(error);
            }
        };
        let _ = controller.agreed.set(agreed);
        // From here on a drop closes what is open.
        let storage = Self { controller: Some(Arc::clone(&controller)) };
        if let Some(announcements) = announcements.filter(|_| agreed.subchannels != 0) {
            controller.open_subchannels(offer, agreed.subchannels, announcements);
        }
        Ok(storage)
    }

    /// What was agreed on with the host.
    #[must_use]
    pub fn agreed(&self) -> Option<Agreed> {
        self.controller.as_ref().and_then(|controller| controller.agreed.get().copied())
    }

    /// Channels that requests can go through now.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.controller.as_ref().map_or(0, |controller| controller.channels())
    }

    /// The most that one command may move, in bytes.
    #[must_use]
    pub fn max_command_bytes(&self) -> usize {
        self.controller.as_ref().map_or(0, |controller| controller.max_command_bytes())
    }

    /// A subchannel that was offered after the open: requests go through it, too.
    ///
    /// # Errors
    /// [`Error::Argument`] for a channel of another device; as [`Vmbus::open`].
    pub fn add_subchannel(&self, offer: &Offer) -> Result<(), Error> {
        let controller = self.controller()?;
        if offer.subchannel_index == 0 {
            return Err(Error::Argument("this is no subchannel; give one of the controller's"));
        }
        controller.add_link(offer)
    }

    /// Sends a command, after waiting for room if need be; what becomes of it says [`Pending::wait`].
    ///
    /// # Errors
    /// [`Failure::TooLarge`], [`Failure::Busy`], [`Failure::Closed`]; the device is gone.
    pub fn submit(&self, to: Address, command: Command, data: &Data<'_>, timeout: Duration) -> Result<Pending, Error> {
        self.controller()?.submit(to, command, data, (Time::from_now(timeout), timeout))
    }

    /// Sends a command that takes or brings no data, or brings as many as `destination` has room for, and waits.
    ///
    /// # Errors
    /// As [`submit`](Self::submit) and [`Pending::wait`]. A command that failed is no error here.
    pub fn execute(&self, to: Address, command: Command, destination: &mut [u8]) -> Result<Outcome, Error> {
        let controller = self.controller()?;
        controller.execute(to, command, destination)
    }

    /// All units there are, as the host says now; and what of them is new since the last look, or gone.
    ///
    /// # Errors
    /// As [`execute`](Self::execute); [`Failure::Nonsense`].
    pub fn scan(&self) -> Result<Changes, Error> {
        self.controller()?.scan()
    }

    /// Waits until the host says that units have come, gone or changed, since it was last waited for: then
    /// [`scan`](Self::scan). `false`: it did not, in time.
    ///
    /// # Errors
    /// [`Failure::Closed`]; the device is gone.
    pub fn wait_change(&self, timeout: Duration) -> Result<bool, Error> {
        self.controller()?.requests.wait_change(timeout)
    }

    /// Looks at a unit and gets ready to read and write it.
    ///
    /// # Errors
    /// [`Failure::NoUnit`], [`Failure::Unsupported`] for one that is no disk; as [`execute`](Self::execute).
    pub fn disk(&self, unit: Address) -> Result<Disk, Error> {
        Disk::open(Arc::clone(self.controller()?), unit)
    }

    /// Everything that is under way at a unit ends; a host that can't reset units says so.
    ///
    /// # Errors
    /// [`Failure::Timeout`], [`Failure::Refused`], [`Failure::Closed`]; the device is gone.
    pub fn reset_unit(&self, unit: Address) -> Result<(), Error> {
        self.controller()?.reset(&GuestPacket::ResetLun(unit), "the reset of a unit")
    }

    /// Everything that is under way on a bus ends.
    ///
    /// # Errors
    /// As [`reset_unit`](Self::reset_unit).
    pub fn reset_bus(&self, path: u8) -> Result<(), Error> {
        self.controller()?.reset(&GuestPacket::ResetBus(path), "the reset of a bus")
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.controller.as_ref().map(|controller| controller.requests.counters()).unwrap_or_default()
    }

    /// Closes the controller: nothing new begins, what is under way is waited for (and, if it takes too long, ended by a
    /// reset of the bus), then the channels close. Disks on it fail from now on with [`Failure::Closed`].
    ///
    /// # Errors
    /// [`Error::Channel`] as [`vmbus_channels::Channel::close`]: the host has not let go, and keeps the pages. A device that
    /// is gone is no error.
    pub fn close(mut self) -> Result<(), Error> {
        self.controller.take().map_or(Ok(()), |controller| controller.close())
    }

    fn controller(&self) -> Result<&Arc<Controller>, Error> {
        self.controller.as_ref().ok_or(Error::Argument("the controller is being closed"))
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let Some(controller) = self.controller.take() else { return };
        let pool = Arc::clone(&controller.pool);
        let work = move || {
            if let Err(error) = controller.close() {
                log::warn!(target: "vmbus::storage", "a controller was dropped, and its close failed: {error}");
            }
        };
        if std::thread::Builder::new().name("storage-close".to_owned()).spawn(work).is_err() {
            // The channels close by themselves, and the host keeps the pages.
            std::mem::forget(pool);
        }
    }
}

mod carry;
