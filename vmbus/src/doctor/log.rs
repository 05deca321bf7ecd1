//! The kernel's log, as far as it speaks of VMBus. Reads `/dev/kmsg` records without blocking and without end.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// More records than any kernel buffer holds; a log that grows while it is read cannot keep us here.
const MAX_RECORDS: usize = 100_000;
/// Lines kept; the newest matter.
const MAX_LINES: usize = 64;

/// What was found in the kernel's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelLog {
    /// The lines about VMBus and `uio_hv_generic`, oldest first.
    Lines(Vec<String>),
    /// This process may not read the log.
    Refused,
    /// There is no log.
    Absent,
}

impl KernelLog {
    /// The newest line that contains `needle`.
    pub(super) fn newest(&self, needle: &str) -> Option<&str> {
        match self {
            Self::Lines(lines) => lines.iter().rev().find(|line| line.contains(needle)).map(String::as_str),
            Self::Refused | Self::Absent => None,
        }
    }
}

/// Reads the log device at `path` (a plain file in tests).
pub(super) fn read(path: &Path) -> KernelLog {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut file = match OpenOptions::new().read(true).custom_flags(nonblocking).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return KernelLog::Refused,
        Err(_) => return KernelLog::Absent,
    };
    let mut lines = Vec::new();
    let mut buffer = vec![0u8; 8192];
    for _ in 0..MAX_RECORDS {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                lines.extend(text.lines().filter_map(message).filter(|line| concerns(line)).map(str::to_owned));
            }
            // EPIPE: the record was overwritten before it was read; the next read continues behind it.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return KernelLog::Refused,
            Err(_) => break,
        }
    }
    let surplus = lines.len().saturating_sub(MAX_LINES);
    lines.drain(..surplus);
    KernelLog::Lines(lines)
}

/// The message of a record `priority,sequence,time,flags;message`; a line that is not the head of a record has none.
fn message(line: &str) -> Option<&str> {
    if line.starts_with(' ') {
        return None;
    }
    line.split_once(';').map(|(_, message)| message)
}

fn concerns(line: &str) -> bool {
    ["hv_vmbus", "uio_hv_generic", "vmbus", "Hyper-V", "hv_balloon"].iter().any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_concerns_vmbus() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmsg");
        let text = "6,1,10,-;hv_vmbus: Vmbus version:4.0\n SUBSYSTEM=;vmbus\n6,2,11,-;random: crng init done\n\
                    3,3,12,-;uio_hv_generic 1234: vmbus channel requires hypercall\n";
        std::fs::write(&path, text).unwrap();
        let log = read(&path);
        assert_eq!(log.newest("requires hypercall"), Some("uio_hv_generic 1234: vmbus channel requires hypercall"));
        assert_eq!(log.newest("Vmbus version"), Some("hv_vmbus: Vmbus version:4.0"));
        assert_eq!(
            log,
            KernelLog::Lines(vec![
                "hv_vmbus: Vmbus version:4.0".to_owned(),
                "uio_hv_generic 1234: vmbus channel requires hypercall".to_owned(),
            ])
        );
        assert_eq!(read(&folder.path().join("none")), KernelLog::Absent);
    }
}
