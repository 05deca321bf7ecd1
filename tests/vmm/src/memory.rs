//! The guest's memory: one memfd, guest physical 0 at its start, mapped once here and by KVM.

use std::fs::File;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustix::fs::{FallocateFlags, MemfdFlags};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use crate::layout::MEMORY_AT_MOST;

/// Least memory that a kernel with its initial file system can do something with, in MiB.
const MIB_AT_LEAST: u64 = 64;

/// The guest's memory; clones share it.
#[derive(Debug, Clone)]
pub struct GuestRam {
    file: Arc<File>,
    mapped: GuestMemoryMmap,
    bytes: u64,
}

impl GuestRam {
    /// Memory of `mib` MiB, all zero and taken from the machine page by page as it is used.
    ///
    /// # Errors
    /// The size is out of reason, or there is no address space or memory.
    pub fn new(mib: u64) -> Result<Self> {
        let bytes = mib.saturating_mul(1 << 20);
        if mib < MIB_AT_LEAST || bytes > MEMORY_AT_MOST {
            bail!("a guest has {MIB_AT_LEAST} to {} MiB of memory, not {mib}", MEMORY_AT_MOST >> 20);
        }
        let file =
            rustix::fs::memfd_create("guest memory", MemfdFlags::CLOEXEC).context("create the guest's memory")?;
        let file = Arc::new(File::from(file));
        file.set_len(bytes).with_context(|| format!("make the guest's memory {mib} MiB"))?;
        let region = (GuestAddress(0), usize::try_from(bytes)?, Some(FileOffset::from_arc(Arc::clone(&file), 0)));
        let mapped = GuestMemoryMmap::from_ranges_with_files([region]).context("map the guest's memory")?;
        Ok(Self { file, mapped, bytes })
    }

    /// The memfd: guest physical address and file offset are the same number.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The mapping, for copies and virtqueues.
    #[must_use]
    pub fn mapped(&self) -> &GuestMemoryMmap {
        &self.mapped
    }

    /// Makes it all zero again. No guest may be running in it.
    ///
    /// # Errors
    /// The system can't take pages back.
    pub fn clear(&self) -> Result<()> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, hole, 0, self.bytes).context("clear the guest's memory")
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::{Bytes, GuestAddress};

    use super::GuestRam;

    #[test]
    fn the_file_and_the_mapping_are_the_same_memory() {
        let ram = GuestRam::new(64).unwrap();
        ram.mapped().write_obj(0x1234_5678_u32, GuestAddress(0x2000)).unwrap();
        let mut bytes = [0; 4];
        ram.file().read_exact_at(&mut bytes, 0x2000).unwrap();
        assert_eq!(u32::from_ne_bytes(bytes), 0x1234_5678);
        ram.file().write_all_at(&[7], ram.bytes() - 1).unwrap();
        assert_eq!(ram.mapped().read_obj::<u8>(GuestAddress(ram.bytes() - 1)).unwrap(), 7);
        assert!(ram.mapped().read_obj::<u8>(GuestAddress(ram.bytes())).is_err());
        ram.clear().unwrap();
        assert_eq!(ram.mapped().read_obj::<u32>(GuestAddress(0x2000)).unwrap(), 0);
        assert_eq!(ram.file().metadata().unwrap().len(), ram.bytes());
    }

    #[test]
    fn sizes_out_of_reason_are_refused() {
        for mib in [0, 63, 3073, u64::MAX] {
            assert!(GuestRam::new(mib).unwrap_err().to_string().contains("64 to 3072 MiB"), "{mib}");
        }
    }
}
