//! File copy: the host copies files into one folder of this guest, and nowhere else.
//!
//! `wire` is formats, `store` the folder. Fragments come in order; a file that is not whole in the end goes away.

mod store;
pub mod wire;

use std::time::Duration;

use vmbus::class::Class;
use zerocopy::FromBytes;

use super::VERSION_3_0;
use super::component::{Component, Ending, Profile, Tell};
use super::event::Event;
use super::negotiate::Known;
use super::wire::{MessageType, Status, Version};
use store::{Partial, Rules};
use wire::{FRAGMENT_BYTES, Header, Operation, Start, Write, text_of};

pub use store::Store;

/// What the host may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Files may be written over, if the host asks for that.
    pub overwrite: bool,
    /// Folders may be made, if the host asks for that.
    pub make_folders: bool,
    /// No file is larger.
    pub bytes_at_most: u64,
    /// A copy without a message for so long has ended.
    pub idle_at_most: Duration,
}

impl Default for Settings {
    /// Nothing is written over; folders are made; 1 TiB; ten minutes.
    fn default() -> Self {
        Self { overwrite: false, make_folders: true, bytes_at_most: 1 << 40, idle_at_most: Duration::from_secs(600) }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A file comes.
    Started {
        /// The path as the host says it: folder and name.
        path: String,
        /// All of its bytes.
        bytes: u64,
    },
    /// It is whole, and has its name.
    Copied {
        /// As above.
        path: String,
        /// As above.
        bytes: u64,
    },
    /// It came to nothing, and what there was of it is gone.
    Dropped {
        /// As above.
        path: String,
        /// Why.
        why: Why,
    },
}

/// Why a copy came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The host said so, or began another.
    Cancelled,
    /// It was answered with this.
    Failed(Status),
    /// Nothing came any more.
    Idle,
    /// The device or the service ended.
    Ended,
}

/// The file-copy component of this guest.
#[derive(Debug)]
pub struct FileCopy {
    store: Store,
    settings: Settings,
    copy: Option<Copy>,
    /// Of the copy, by the service's clock.
    due: Option<Duration>,
}

/// A file on its way.
#[derive(Debug)]
struct Copy {
    partial: Partial,
    path: String,
    bytes: u64,
    written: u64,
}

impl FileCopy {
    /// What it is.
    pub const PROFILE: Profile = Profile {
        name: "fcopy",
        class: Class::FCOPY,
        kind: MessageType::FCOPY,
        known: Known { frameworks: &[VERSION_3_0], messages: &[Version::new(1, 1)] },
    };

    /// One that copies into a folder.
    #[must_use]
    pub const fn new(store: Store, settings: Settings) -> Self {
        Self { store, settings, copy: None, due: None }
    }

    fn serve(&mut self, body: &[u8], tell: Tell<'_>) -> Result<(), Status> {
        let (header, _) = Header::read_from_prefix(body).map_err(|_| Status::INVALID_ARGUMENT)?;
        match Operation(header.operation.get()) {
            Operation::START => {
                self.give_up(Why::Cancelled, tell);
                self.start(body, tell)
            }
            Operation::WRITE => self.write(body).inspect_err(|status| self.give_up(Why::Failed(*status), tell)),
            Operation::COMPLETE => self.complete(tell),
            Operation::CANCEL => {
                self.give_up(Why::Cancelled, tell);
                Ok(())
            }
            _ => Err(Status::NOT_SUPPORTED),
        }
    }

    fn start(&mut self, body: &[u8], tell: Tell<'_>) -> Result<(), Status> {
        let (start, _) = Start::read_from_prefix(body).map_err(|_| Status::INVALID_ARGUMENT)?;
        let (folder, name) = (text_of(&start.folder)?, text_of(&start.name)?);
        let (flags, bytes) = (start.flags.get(), start.bytes.get());
        if bytes > self.settings.bytes_at_most {
            return Err(Status::DISK_FULL);
        }
        let overwrite = self.settings.overwrite && flags & 1 != 0;
        let make_folders = self.settings.make_folders && flags & 2 != 0;
        let partial = self.store.begin(&folder, &name, Rules { overwrite, make_folders, bytes })?;
        let path = format!("{}/{name}", folder.trim_end_matches('/'));
        tell(Event::Copy(Notice::Started { path: path.clone(), bytes }));
        self.copy = Some(Copy { partial, path, bytes, written: 0 });
        Ok(())
    }

    fn write(&mut self, body: &[u8]) -> Result<(), Status> {
        let copy = self.copy.as_mut().ok_or(Status::FAIL)?;
        let (write, data) = Write::read_from_prefix(body).map_err(|_| Status::INVALID_ARGUMENT)?;
        let bytes = usize::try_from(write.bytes.get()).ok().filter(|bytes| *bytes <= FRAGMENT_BYTES);
        let data = bytes.and_then(|bytes| data.get(..bytes)).ok_or(Status::INVALID_ARGUMENT)?;
        // In order and without gaps: otherwise nobody knows whether a file is whole.
        let end = copy.written.checked_add(write.bytes.get().into()).filter(|end| *end <= copy.bytes);
        let (true, Some(end)) = (write.offset.get() == copy.written, end) else {
            return Err(Status::INVALID_ARGUMENT);
        };
        copy.partial.write(copy.written, data)?;
        copy.written = end;
        Ok(())
    }

    fn complete(&mut self, tell: Tell<'_>) -> Result<(), Status> {
        let Copy { partial, path, bytes, written } = self.copy.take().ok_or(Status::FAIL)?;
        let kept = if written == bytes { partial.keep() } else { Err(Status::INVALID_ARGUMENT) };
        tell(Event::Copy(match kept {
            Ok(()) => Notice::Copied { path, bytes },
            Err(status) => Notice::Dropped { path, why: Why::Failed(status) },
        }));
        kept
    }

    /// Takes away what there is.
    fn give_up(&mut self, why: Why, tell: Tell<'_>) {
        if let Some(Copy { path, .. }) = self.copy.take() {
            tell(Event::Copy(Notice::Dropped { path, why }));
        }
    }
}

impl Component for FileCopy {
    fn profile(&self) -> Profile {
        Self::PROFILE
    }

    fn request(&mut self, now: Duration, _: Version, body: &mut [u8], tell: Tell<'_>) -> Status {
        let served = self.serve(body, tell);
        self.due = self.copy.as_ref().map(|_| now.saturating_add(self.settings.idle_at_most));
        served.err().unwrap_or(Status::OK)
    }

    fn deadline(&self) -> Option<Duration> {
        self.due
    }

    fn elapsed(&mut self, now: Duration, tell: Tell<'_>) {
        if self.due.take_if(|due| *due <= now).is_some() {
            self.give_up(Why::Idle, tell);
        }
    }

    fn ended(&mut self, _: Ending, tell: Tell<'_>) {
        self.due = None;
        self.give_up(Why::Ended, tell);
    }
}

#[cfg(test)]
mod tests;
