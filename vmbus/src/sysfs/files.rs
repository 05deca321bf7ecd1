//! Reading files below a root that no symbolic link leads out of.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Bus;
use crate::Error;
use crate::error::is_vanished;

/// The most that one sysfs attribute can hold is a page; pages are at most 64 KiB.
const LONGEST_ATTRIBUTE: u64 = 64 * 1024;

impl Bus {
    /// `path` without symbolic links; an error where it leads out of the root.
    pub(crate) fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let real = fs::canonicalize(path)?;
        if self.is_system() || real.starts_with(fs::canonicalize(&self.root)?) {
            return Ok(real);
        }
        let message = format!("{} leads out of {}", path.display(), self.root.display());
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    }

    /// `path` as it may be opened: it must not lead out of the root. Nothing leads out of the machine's own, so there it
    /// is taken as it is: to follow it part by part would cost more than to read what is there.
    pub(crate) fn confined<'a>(&self, path: &'a Path) -> io::Result<Cow<'a, Path>> {
        if self.is_system() { Ok(Cow::Borrowed(path)) } else { self.resolve(path).map(Cow::Owned) }
    }

    /// Whether this is the machine's own tree.
    pub(crate) fn is_system(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A whole file, such as one of `/proc`; bytes that are not UTF-8 are replaced.
    pub(crate) fn text(&self, path: &Path) -> Result<String, Error> {
        let read = self.confined(path).and_then(fs::read);
        let bytes = read.map_err(|error| Error::io("read", path, error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// One sysfs attribute without the blanks around it.
    pub(crate) fn attribute(&self, path: &Path) -> Result<String, Error> {
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            File::open(self.confined(path)?)?.take(LONGEST_ATTRIBUTE).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| Error::io("read", path, error))?;
        match str::from_utf8(&bytes) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(_) => Err(Error::malformed(path, "text", String::from_utf8_lossy(&bytes))),
        }
    }

    /// One attribute that this kernel may lack, or may not be able to show now.
    ///
    /// `EINVAL` is what the attributes of a ring that is not open answer.
    pub(crate) fn optional(&self, path: &Path) -> Result<Option<String>, Error> {
        match self.attribute(path) {
            Ok(text) => Ok(Some(text)),
            Err(Error::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound
                    || source.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The names in a folder, sorted; none where the folder is not there.
    pub(crate) fn names(&self, path: &Path) -> Result<Vec<String>, Error> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(self.confined(path)?)? {
                // A name that is not UTF-8 is none that the kernel gives.
                names.extend(entry?.file_name().into_string());
            }
            names.sort_unstable();
            Ok(names)
        };
        match list() {
            Ok(names) => Ok(names),
            Err(error) if is_vanished(&error) => Ok(Vec::new()),
            Err(error) => Err(Error::io("list", path, error)),
        }
    }

    /// The last part of what a symbolic link points at; `None` where there is no link.
    pub(crate) fn link_name(&self, path: &Path) -> Result<Option<String>, Error> {
        match fs::read_link(path) {
            Ok(target) => Ok(target.file_name().and_then(|name| name.to_str()).map(str::to_owned)),
            Err(error) if is_vanished(&error) => Ok(None),
            Err(error) => Err(Error::io("read the link", path, error)),
        }
    }
}
