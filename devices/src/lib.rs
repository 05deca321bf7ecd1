//! Drivers that speak over VMBus channels: what a device's packets mean, and what to do about them.
//!
//! ```text
//! ringbuf  <-  vmbus  <-  channels  <-  devices  <-  application
//!                                       ^^^^^^^ you are here
//!
//!     registry: one thread with the table (pure) --- workers --- drivers' callbacks
//!
//!     balloon: driver (one thread) --- state (pure) --- wire (formats)
//!                 |           |
//!              channel     pages (pinned) and report (/proc/meminfo)
//!
//!     ic: service (one thread each) --- session (pure) --- component: heartbeat, shutdown, time, keys, snapshots, files
//!
//!     socket: streams and listeners --- connections over channels, or the kernel's AF_VSOCK
//!                 |
//!             endpoints (names, who waits for what)
//!
//!     multiplex: streams (flow: pure) --- links of a channel group, which move them when one dies
//! ```
//!
//! Each driver is a state machine without I/O, formats without state, and a thin loop that joins them. What this
//! crate does not do: move packets (the channel's work), bind devices to `uio_hv_generic`, or print; a driver tells
//! its caller what happens.
//!
//! ```no_run
//! use vmbus::class::Class;
//! use vmbus::sysfs::Bus;
//! use vmbus::uio::BusLink;
//! use vmbus_channels::Vmbus;
//! use vmbus_devices::balloon::{Balloon, Event, Settings};
//!
//! let machine = Bus::system();
//! let vmbus = Vmbus::start(Box::new(BusLink::new(machine.clone())?), Default::default())?;
//! let offers = vmbus.of_class(Class::DYNAMIC_MEMORY)?;
//! let offer = offers.first().expect("a device that is bound to uio_hv_generic");
//! let settings = Settings { floor_pages: 64 << 8, ..Settings::default() }; // 64 MiB stay available
//! let balloon = Balloon::open(&vmbus, offer, &machine, settings)?;
//! let stop = balloon.waker(); // for another thread, or a signal's
//! let summary = balloon.run(|event| match event {
//!     Event::Ballooned { pages, .. } => println!("the host took {pages} pages"),
//!     Event::Deflated { pages, .. } => println!("the host gave {pages} pages back"),
//!     _ => {}
//! })?;
//! println!("{} pages were left", summary.gave_back_pages);
//! # drop(stop);
//! # Ok::<(), vmbus_devices::Error>(())
//! ```
//!
//! On a bus whose devices come and go, the [`registry`] does the opening and the ending:
//!
//! ```no_run
//! use vmbus_devices::balloon::{BalloonDriver, Settings};
//! use vmbus_devices::registry::{self, Registry};
//!
//! # fn run(vmbus: &vmbus_channels::Vmbus) -> Result<(), vmbus_devices::Error> {
//! let registry = Registry::start(vmbus, registry::Settings::default())?;
//! let balloon = BalloonDriver::new(Settings::default(), |offer, event| println!("{}: {event:?}", offer.instance));
//! let registration = registry.register(balloon)?; // whatever is there already is probed
//! // ...
//! registration.unregister()?; // when this returns, nothing of the driver runs any more
//! registry.shutdown()
//! # }
//! ```
//!
//! An application that only wants bytes moved uses a [`socket`], the same way on every family:
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::Shutdown;
//! use vmbus_devices::socket::VmStream;
//!
//! // Elsewhere: VmStream::connect("2:5000"), or VmStream::connect(Sockets::hvsock(&vmbus, Default::default()).at(addr)).
//! let (mut one, mut other) = VmStream::pair()?;
//! one.write_all(b"hello")?;
//! one.shutdown(Shutdown::Write)?;
//! let mut said = String::new();
//! other.read_to_string(&mut said)?;
//! assert_eq!(said, "hello");
//! # Ok::<(), std::io::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod balloon;
mod error;
pub mod ic;
pub mod multiplex;
pub mod net;
pub mod registry;
pub mod socket;
pub mod storage;

pub use error::Error;
