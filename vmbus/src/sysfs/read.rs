//! One device out of its folder.
//!
//! Any file may vanish between two reads: the host can take a device back at any time. That is no error, and
//! neither is a file that an older kernel does not have.

use std::path::Path;

use super::parse::{self, Expected};
use super::{Bus, Channel, ChannelState, Counters, Device, RingFile, RingFill, RingIndices, Rings};
use crate::Error;
use crate::class::Class;
use crate::error::is_vanished;

impl Bus {
    /// The device in the folder `name`; `None` where it is not there (any more).
    pub(crate) fn read_device(&self, name: &str) -> Result<Option<Device>, Error> {
        let path = self.path(super::DEVICES).join(name);
        let gone = || path.metadata().is_err_and(|error| is_vanished(&error));
        match self.read_folder(name, &path) {
            // ENODEV is the answer of a device that lost its channel, also while its folder is still there.
            Err(Error::Io { source, .. }) if is_no_device(&source) || (is_vanished(&source) && gone()) => Ok(None),
            read => read.map(Some),
        }
    }

    fn read_folder(&self, name: &str, path: &Path) -> Result<Device, Error> {
        let monitor_id = self.parsed(&path.join("monitor_id"), parse::monitor_id)?.flatten();
        let relid = self.required(&path.join("id"), parse::number)?;
        let override_text = self.optional(&path.join("driver_override"))?;
        Ok(Device {
            name: name.to_owned(),
            instance: self.required(&path.join("device_id"), parse::guid)?,
            class: Class(self.required(&path.join("class_id"), parse::guid)?),
            relid,
            state: self.parsed(&path.join("state"), parse::number)?.map(ChannelState),
            monitor_id,
            vendor_id: self.parsed(&path.join("vendor"), parse::hexadecimal)?,
            product_id: self.parsed(&path.join("device"), parse::hexadecimal)?,
            numa_node: self.parsed(&path.join("numa_node"), parse::node)?,
            driver: self.link_name(&path.join("driver"))?,
            has_driver_override: override_text.is_some(),
            driver_override: override_text.as_deref().and_then(parse::driver_override),
            uio: self.names(&path.join("uio"))?.into_iter().find(|name| parse::is_uio(name)),
            vp_mapping: self.parsed(&path.join("channel_vp_mapping"), parse::vp_mapping)?.unwrap_or_default(),
            channels: self.channels(path, relid)?,
            rings: self.rings(path)?,
            path: path.to_owned(),
        })
    }

    /// The channels of the device at `path`, the primary first.
    fn channels(&self, path: &Path, primary: u32) -> Result<Vec<Channel>, Error> {
        let folder = path.join("channels");
        let mut channels = Vec::new();
        for name in self.names(&folder)? {
            let path = folder.join(&name);
            let relid =
                parse::number(&name).map_err(|_| Error::malformed(&path, "a folder named by a relid", &name))?;
            match self.channel(&path, relid) {
                Ok(channel) => channels.extend(channel),
                Err(error) if error.is_vanished() => {}
                Err(error) => return Err(error),
            }
        }
        channels.sort_by_key(|channel| (channel.relid != primary, channel.relid));
        Ok(channels)
    }

    /// One channel; `None` while the kernel is still filling its folder (it announces the channel after that).
    fn channel(&self, path: &Path, relid: u32) -> Result<Option<Channel>, Error> {
        let Some(cpu) = self.parsed(&path.join("cpu"), parse::number)? else { return Ok(None) };
        let counter = |name: &str| self.parsed(&path.join(name), parse::counter);
        Ok(Some(Channel {
            relid,
            subchannel_index: self.parsed(&path.join("subchannel_id"), parse::number)?.unwrap_or(0),
            cpu,
            monitor_id: self.parsed(&path.join("monitor_id"), parse::monitor_id)?.flatten(),
            monitor_pending: self.parsed(&path.join("pending"), parse::number)?,
            monitor_latency: self.parsed(&path.join("latency"), parse::number)?,
            ring: self.ring_file(&path.join("ring"))?,
            fill: self.fill(path)?,
            counters: Counters {
                interrupts: counter("interrupts")?,
                signals: counter("events")?,
                interrupts_incoming_full: counter("intr_in_full")?,
                signals_outgoing_empty: counter("intr_out_empty")?,
                outgoing_full_first: counter("out_full_first")?,
                outgoing_full_total: counter("out_full_total")?,
            },
        }))
    }

    fn ring_file(&self, path: &Path) -> Result<Option<RingFile>, Error> {
        match self.confined(path).and_then(|real| real.metadata()) {
            Ok(metadata) => Ok(Some(RingFile { path: path.to_owned(), bytes: metadata.len() })),
            Err(error) if is_vanished(&error) => Ok(None),
            Err(error) => Err(Error::io("look at", path, error)),
        }
    }

    fn fill(&self, path: &Path) -> Result<Option<RingFill>, Error> {
        let value = |name: &str| self.parsed(&path.join(name), parse::ring_word);
        let values = (value("out_mask")?, value("in_mask")?, value("read_avail")?, value("write_avail")?);
        let (Some(outgoing_mask), Some(incoming_mask), Some(readable_bytes), Some(writable_bytes)) = values else {
            return Ok(None);
        };
        Ok(Some(RingFill { outgoing_mask, incoming_mask, readable_bytes, writable_bytes }))
    }

    fn rings(&self, path: &Path) -> Result<Option<Rings>, Error> {
        let outgoing = self.ring_indices(path, "out")?;
        let incoming = self.ring_indices(path, "in")?;
        Ok(outgoing.zip(incoming).map(|(outgoing, incoming)| Rings { outgoing, incoming }))
    }

    fn ring_indices(&self, path: &Path, direction: &str) -> Result<Option<RingIndices>, Error> {
        let value = |name: &str| self.parsed(&path.join(format!("{direction}_{name}")), parse::ring_word);
        let indices = (value("intr_mask")?, value("read_index")?, value("write_index")?);
        let bytes = (value("read_bytes_avail")?, value("write_bytes_avail")?);
        let ((Some(interrupt_mask), Some(read_index), Some(write_index)), (Some(readable_bytes), Some(writable_bytes))) =
            (indices, bytes)
        else {
            return Ok(None);
        };
        Ok(Some(RingIndices { interrupt_mask, read_index, write_index, readable_bytes, writable_bytes }))
    }

    /// An attribute that every kernel has.
    fn required<T>(&self, path: &Path, parse: fn(&str) -> Result<T, Expected>) -> Result<T, Error> {
        let text = self.attribute(path)?;
        parse(&text).map_err(|expected| Error::malformed(path, expected, text))
    }

    /// An attribute that this kernel may lack, or may not be able to show now.
    fn parsed<T>(&self, path: &Path, parse: fn(&str) -> Result<T, Expected>) -> Result<Option<T>, Error> {
        let Some(text) = self.optional(path)? else { return Ok(None) };
        parse(&text).map(Some).map_err(|expected| Error::malformed(path, expected, text))
    }
}

fn is_no_device(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}
