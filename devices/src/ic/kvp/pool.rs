//! Pools on disk, in the format of the kernel's tools: a file for each, of records with 512 bytes of key and 2048 of
//! value, both UTF-8 that ends with a zero; a lock on the file keeps readers and writers apart.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fcntl_lock};

/// Pools in all: external, guest, auto, auto external, auto internal.
pub const POOLS: u8 = 5;
/// Where the kernel's tools have them.
pub const DEFAULT_FOLDER: &str = "/var/lib/hyperv";

const KEY_BYTES: usize = 512;
const RECORD_BYTES: usize = KEY_BYTES + 2048;
/// Records of one pool: a host adds no more.
const RECORDS_AT_MOST: usize = 1024;
/// How long another process may have the lock. Anybody who may read a pool can lock it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// Why a pool can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// Its file.
    #[error("can't {what} the pool {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody keeps its lock.
    #[error("the pool {} is locked by another process, which should let go of it", .0.display())]
    Locked(PathBuf),
    /// It has as many records as it may.
    #[error("the pool {} is full", .0.display())]
    Full(PathBuf),
    /// Longer than a record has room for.
    #[error("a key of {key} bytes or a value of {value} bytes is too long for a pool")]
    Long {
        /// Of the key.
        key: usize,
        /// Of the value.
        value: usize,
    },
}

/// The pools of a folder.
#[derive(Debug, Clone)]
pub struct Pools {
    folder: PathBuf,
}

/// A pool with its lock, which goes with the file.
struct Locked {
    file: File,
    path: PathBuf,
    records: Vec<u8>,
}

impl Pools {
    /// Those in a folder, which is made when the first key is set.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn value(&self, pool: u8, key: &str) -> Result<Option<String>, PoolError> {
        let Some(locked) = self.lock(pool, false)? else { return Ok(None) };
        Ok(locked.find(key).and_then(|index| locked.record(index)).map(|(_, value)| value))
    }

    /// The key and value at a place.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn at(&self, pool: u8, index: usize) -> Result<Option<(String, String)>, PoolError> {
        let Some(locked) = self.lock(pool, false)? else { return Ok(None) };
        Ok(locked.record(index))
    }

    /// Sets a key.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn set(&self, pool: u8, key: &str, value: &str) -> Result<(), PoolError> {
        if key.len() >= KEY_BYTES || value.len() >= RECORD_BYTES - KEY_BYTES {
            return Err(PoolError::Long { key: key.len(), value: value.len() });
        }
        let Some(locked) = self.lock(pool, true)? else { return Ok(()) };
        let index = locked.find(key).unwrap_or(locked.records.len() / RECORD_BYTES);
        if index >= RECORDS_AT_MOST {
            return Err(PoolError::Full(locked.path));
        }
        let mut record = key.as_bytes().to_vec();
        record.resize(KEY_BYTES, 0);
        record.extend(value.as_bytes());
        record.resize(RECORD_BYTES, 0);
        locked.write(index, &record)
    }

    /// Deletes a key; whether it was there.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn delete(&self, pool: u8, key: &str) -> Result<bool, PoolError> {
        let Some(locked) = self.lock(pool, true)? else { return Ok(false) };
        let Some(index) = locked.find(key) else { return Ok(false) };
        let behind = locked.records.get((index + 1) * RECORD_BYTES..).unwrap_or_default();
        locked.write(index, behind)?;
        let left = locked.records.len() - RECORD_BYTES;
        let cut = u64::try_from(left).map_err(io::Error::other).and_then(|left| locked.file.set_len(left));
        cut.map_err(|source| locked.error("shorten", source))?;
        Ok(true)
    }

    /// Locks a pool and reads it. `None`: there is no such file, and none is to be made.
    fn lock(&self, pool: u8, create: bool) -> Result<Option<Locked>, PoolError> {
        let path = self.folder.join(format!(".kvp_pool_{pool}"));
        let error = |what, source| PoolError::File { what, path: path.clone(), source };
        if create {
            fs::create_dir_all(&self.folder).map_err(|source| error("make the folder of", source))?;
        }
        let opened = OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o644).open(&path);
        let file = match opened {
            Err(source) if source.kind() == io::ErrorKind::NotFound && !create => return Ok(None),
            opened => opened.map_err(|source| error("open", source))?,
        };
        let since = Instant::now();
        loop {
            match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) if since.elapsed() < LOCK_TIMEOUT => {
                    std::thread::sleep(LOCK_INTERVAL);
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => return Err(PoolError::Locked(path)),
                Err(source) => return Err(error("lock", source.into())),
            }
        }
        let bytes = file.metadata().map_err(|source| error("read", source))?.len();
        let whole = usize::try_from(bytes).unwrap_or(usize::MAX) / RECORD_BYTES;
        let mut records = vec![0; whole.min(RECORDS_AT_MOST) * RECORD_BYTES];
        file.read_exact_at(&mut records, 0).map_err(|source| error("read", source))?;
        Ok(Some(Locked { file, path, records }))
    }
}

impl Locked {
    fn record(&self, index: usize) -> Option<(String, String)> {
        let start = index.checked_mul(RECORD_BYTES)?;
        let (key, value) = self.records.get(start..start.checked_add(RECORD_BYTES)?)?.split_at_checked(KEY_BYTES)?;
        Some((text(key), text(value)))
    }

    fn find(&self, key: &str) -> Option<usize> {
        (0..self.records.len() / RECORD_BYTES).find(|index| self.record(*index).is_some_and(|(found, _)| found == key))
    }

    fn write(&self, index: usize, bytes: &[u8]) -> Result<(), PoolError> {
        let offset = u64::try_from(index * RECORD_BYTES).map_err(io::Error::other);
        let written = offset.and_then(|offset| self.file.write_all_at(bytes, offset));
        written.map_err(|source| self.error("write", source))
    }

    fn error(&self, what: &'static str, source: io::Error) -> PoolError {
        PoolError::File { what, path: self.path.clone(), source }
    }
}

/// What is before the zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_the_file_that_the_kernels_tools_read() {
        let folder = tempfile::tempdir().unwrap();
        let pools = Pools::in_folder(folder.path().join("hyperv"));
        let path = folder.path().join("hyperv/.kvp_pool_1");
        assert_eq!((pools.value(1, "a").unwrap(), pools.delete(1, "a").unwrap()), (None, false));
        for (key, value) in [("a", "1"), ("b", "two"), ("c", "3"), ("a", "again")] {
            pools.set(1, key, value).unwrap();
        }
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 3 * 2560);
        assert_eq!((&bytes[..2], &bytes[512..518], &bytes[2560..2562]), (&b"a\0"[..], &b"again\0"[..], &b"b\0"[..]));
        assert!(pools.delete(1, "b").unwrap() && !pools.delete(1, "b").unwrap());
        assert_eq!(pools.at(1, 1).unwrap(), Some(("c".to_owned(), "3".to_owned())));
        assert_eq!((pools.at(1, 2).unwrap(), pools.at(1, usize::MAX).unwrap()), (None, None));
        assert_eq!(fs::metadata(&path).unwrap().len(), 2 * 2560);
        // A file that was cut off: whole records count, and the next one takes the place of what is left.
        fs::write(&path, &bytes[..2560 + 100]).unwrap();
        assert_eq!(pools.at(1, 1).unwrap(), None);
        pools.set(1, "d", "").unwrap();
        assert_eq!(pools.at(1, 1).unwrap(), Some(("d".to_owned(), String::new())));
    }

    #[test]
    fn limits() {
        let folder = tempfile::tempdir().unwrap();
        let pools = Pools::in_folder(folder.path());
        let (key, value) = ("k".repeat(511), "v".repeat(2047));
        pools.set(0, &key, &value).unwrap();
        assert_eq!(pools.value(0, &key).unwrap(), Some(value.clone()));
        assert!(matches!(pools.set(0, &"k".repeat(512), ""), Err(PoolError::Long { .. })));
        assert!(matches!(pools.set(0, "k", &"v".repeat(2048)), Err(PoolError::Long { .. })));
        File::options().write(true).open(folder.path().join(".kvp_pool_0")).unwrap().set_len(1024 * 2560).unwrap();
        assert!(matches!(pools.set(0, "one more", ""), Err(PoolError::Full(_))));
        pools.set(0, &key, "but this is there").unwrap();
    }
}
