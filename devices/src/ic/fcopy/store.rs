//! The one folder that files of the host go to. Every look-up below it is the kernel's, which follows no link and leaves
//! the folder on no path; a file has its name only when it is whole.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FallocateFlags, Mode, OFlags, RenameFlags, ResolveFlags, fallocate, mkdirat, open, openat2, renameat,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::ic::wire::Status;

/// What ends the name of a file that is not whole.
const PARTIAL: &str = ".vmbus-partial";
/// Folders below each other.
const DEPTH_AT_MOST: usize = 32;
/// Bytes of a file's name, so that the ending has room.
const NAME_BYTES_AT_MOST: usize = 255 - PARTIAL.len();

/// Where files go.
#[derive(Debug)]
pub struct Store {
    folder: OwnedFd,
    path: PathBuf,
}

/// A file that is being copied. Dropping it takes away what there is of it.
#[derive(Debug)]
pub(super) struct Partial {
    folder: OwnedFd,
    file: File,
    name: String,
    partial: String,
    overwrite: bool,
    kept: bool,
}

impl Store {
    /// Files go below this folder, which has to be there.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let folder = open(&path, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { folder, path })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a file. What the host calls the folder is below this one, wherever it says that it is.
    pub(super) fn begin(&self, folder: &str, name: &str, rules: Rules) -> Result<Partial, Status> {
        if !is_name(name) || name.len() > NAME_BYTES_AT_MOST || name.ends_with(PARTIAL) {
            return Err(Status::INVALID_ARGUMENT);
        }
        let folder = self.folder(folder, rules.make_folders)?;
        match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Err(error) => return Err(status(error)),
            Ok(_) if !rules.overwrite => return Err(Status::ALREADY_EXISTS),
            Ok(there) if rustix::fs::FileType::from_raw_mode(there.st_mode).is_file() => {}
            // A link, a folder, a device: nothing to be written over.
            Ok(_) => return Err(Status::FAIL),
        }
        let partial = format!("{name}{PARTIAL}");
        // Of an attempt that was cut off by a crash.
        let _ = unlinkat(&folder, &partial, AtFlags::empty());
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat2(&folder, &partial, flags, Mode::RUSR | Mode::WUSR, resolve()).map_err(status)?;
        let file = File::from(file);
        let begun = Partial { folder, file, name: name.to_owned(), partial, overwrite: rules.overwrite, kept: false };
        // All of its room now: a full disk is told before anything is sent. From here on a failure takes it away.
        match rules.bytes {
            0 => {}
            bytes => match fallocate(&begun.file, FallocateFlags::empty(), 0, bytes) {
                // Such file systems tell when they are full.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(status(error)),
            },
        }
        Ok(begun)
    }

    /// A folder below this one.
    fn folder(&self, folder: &str, make: bool) -> Result<OwnedFd, Status> {
        let open_at = |at: rustix::fd::BorrowedFd<'_>, name: &str| {
            openat2(at, name, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve())
        };
        let mut at = open_at(self.folder.as_fd(), ".").map_err(status)?;
        let parts = folder.split('/').filter(|part| !part.is_empty() && *part != ".");
        for (depth, part) in parts.enumerate() {
            if !is_name(part) || depth >= DEPTH_AT_MOST {
                return Err(Status::INVALID_ARGUMENT);
            }
            let next = match open_at(at.as_fd(), part) {
                Err(Errno::NOENT) if make => {
                    // Somebody else may make it just now.
                    match mkdirat(&at, part, Mode::RWXU) {
                        Ok(()) | Err(Errno::EXIST) => open_at(at.as_fd(), part),
                        Err(error) => Err(error),
                    }
                }
                opened => opened,
            };
            at = next.map_err(status)?;
        }
        Ok(at)
    }
}

/// What a file is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) overwrite: bool,
    pub(super) make_folders: bool,
    pub(super) bytes: u64,
}

/// No link anywhere on the way, nothing above, no other mount's magic.
fn resolve() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

/// One part of a path, and nothing that means something else. A backslash divides paths where the host comes from.
fn is_name(part: &str) -> bool {
    !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\\', '\0'])
}

/// What a host is told of an error here.
pub(super) fn status(error: Errno) -> Status {
    match error {
        Errno::NOSPC | Errno::DQUOT => Status::DISK_FULL,
        Errno::EXIST => Status::ALREADY_EXISTS,
        _ => Status::FAIL,
    }
}

impl Partial {
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Result<(), Status> {
        let written = self.file.write_all_at(data, offset);
        written
            .map_err(|error| error.raw_os_error().map_or(Status::FAIL, |code| status(Errno::from_raw_os_error(code))))
    }

    /// It is whole: it gets its name.
    pub(super) fn keep(mut self) -> Result<(), Status> {
        self.file.sync_all().map_err(|_| Status::FAIL)?;
        let (from, to) = (self.partial.as_str(), self.name.as_str());
        let named = if self.overwrite {
            renameat(&self.folder, from, &self.folder, to)
        } else {
            // Somebody may have made such a file meanwhile.
            renameat_with(&self.folder, from, &self.folder, to, RenameFlags::NOREPLACE)
        };
        named.map_err(status)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            // Gone already is as good.
            let _ = unlinkat(&self.folder, &self.partial, AtFlags::empty());
        }
    }
}
