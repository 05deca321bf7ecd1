//! What keeps a channel open, and the work of opening and closing it. All of it may block in the kernel.

use std::sync::Arc;

use super::super::ending::Ended;
use super::super::{OpenDevice, Options, RingPair};
use super::host::Key;
use super::inbox::{Inbox, Request};
use super::look::{self, Bound};
use crate::Error;
use crate::link::{Line, Port};
use crate::sysfs::{Bus, Device};
use crate::uio;

/// What keeps a channel open.
#[derive(Debug, Clone)]
pub(super) enum Held {
    /// A primary channel: the device.
    Device(Arc<OpenDevice>),
    /// A subchannel: its rings, and the device.
    Subchannel {
        /// The device that it belongs to.
        device: Arc<OpenDevice>,
        /// Its number.
        relid: u32,
        /// What revokes its rings.
        line: Line,
    },
}

impl Held {
    /// Opens a device and says how that went.
    pub(super) fn open(bus: &Bus, device: &Device, incarnation: u64, options: Options, key: Key, inbox: &Inbox) {
        let gone = || Error::Rescinded { device: device.name.clone() };
        let is_ours = || Ok(look::bound(bus, &device.name)? == Bound::Since(incarnation));
        let open = || {
            // It may have waited for a worker: the node's number may have gone to another device since, or to the next
            // incarnation of this one, whose channel is not to be opened in passing.
            if !is_ours()? {
                return Err(gone());
            }
            let open = OpenDevice::open(bus, device, options)?;
            // If ours has the number still, it had it all the time.
            if !is_ours()? {
                return Err(gone());
            }
            let port = assemble(open.rings(device.relid)?, open.line(device.relid)?);
            Ok((open, port))
        };
        // Whatever is missing of a device that is going: it is going.
        let opened = open().map_err(|error| match is_ours() {
            Ok(true) if !error.is_vanished() => error,
            Ok(_) => gone(),
            Err(_) => error,
        });
        let (device, port) = match opened {
            Ok((open, port)) => {
                let ended = inbox.clone();
                open.observe(Box::new(move |how| {
                    ended.put(match how {
                        Ended::Gone => Request::Gone(key),
                        Ended::Closed => Request::Closed(key),
                    });
                }));
                (Some(Self::Device(Arc::new(open))), Ok(port))
            }
            Err(error) => (None, Err(error)),
        };
        inbox.put(Request::Opened { key, device, port });
    }

    /// Maps a subchannel of this device and says how that went.
    pub(super) fn open_subchannel(&self, relid: u32, key: Key, inbox: &Inbox) {
        let device = self.device();
        let opened = device.rings(relid).and_then(|rings| {
            // Only what is ours is given back: rings that somebody else has are refused above.
            let line = device.line(relid).inspect_err(|_| device.give_back(relid));
            Ok(assemble(rings, line?))
        });
        let (held, port) = match opened {
            Ok(port) => {
                let line = port.line.clone();
                (Some(Self::Subchannel { device: Arc::clone(device), relid, line }), Ok(port))
            }
            Err(error) => (None, Err(error)),
        };
        inbox.put(Request::Opened { key, device: held, port });
    }

    /// Takes its memory away from all who use it. Doesn't block.
    pub(super) fn revoke(&self) {
        match self {
            Self::Device(device) => device.revoke(),
            Self::Subchannel { line, .. } => line.rescind(),
        }
    }

    /// Closes it. A device says itself when it is closed, since others may still hold parts of it.
    pub(super) fn close(self, key: Key, inbox: &Inbox) {
        self.revoke();
        if let Self::Subchannel { device, relid, .. } = &self {
            device.give_back(*relid);
        }
        let is_subchannel = matches!(self, Self::Subchannel { .. });
        drop(self);
        if is_subchannel {
            inbox.put(Request::Closed(key));
        }
    }

    /// Asks the kernel whether the device is still there. If not, its observer is told.
    pub(super) fn check(&self) {
        let _ = self.device().check();
    }

    fn device(&self) -> &Arc<OpenDevice> {
        match self {
            Self::Device(device) | Self::Subchannel { device, .. } => device,
        }
    }
}

fn assemble(rings: RingPair, line: uio::Line) -> Port {
    Port { outgoing: rings.outgoing, incoming: rings.incoming, line: Line::Uio(line) }
}
