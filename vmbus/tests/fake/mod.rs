//! A device without a host: a sysfs tree in a temporary folder, a file for the rings, and a stand-in for `/dev/uio0`.
#![expect(unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing, reason = "part of tests, which may panic")]

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::param::page_size;
use tempfile::TempDir;
use vmbus::memory::{Ring, map_mirrored};
use vmbus::sysfs::{Bus, Device};
use vmbus_ringbuf::{Reader, Writer};

pub const NAME: &str = "1eccfd72-4b41-45ef-b73a-4a6e44c12924";
pub const RELID: u32 = 11;
/// Pages of one ring: control page and two of data.
pub const RING_PAGES: usize = 3;
/// The maps of the shared pages; their file offsets lie behind the rings, which map 0 shows.
const INTERRUPT_MAP: usize = 20;
const MONITOR_MAP: usize = 21;

pub struct Fake {
    folder: Rc<TempDir>,
    name: &'static str,
    relid: u32,
    uio: &'static str,
}

impl Fake {
    /// A bound device with a `ring` file and no `/dev/uio0` yet.
    pub fn new() -> Self {
        let fake = Self { folder: Rc::new(TempDir::new().unwrap()), name: NAME, relid: RELID, uio: "uio0" };
        fs::create_dir_all(fake.path("dev")).unwrap();
        fake.fill();
        fs::create_dir_all(fake.path("proc/sys/kernel")).unwrap();
        let own = std::process::id().to_string();
        symlink(Path::new("/proc").join(&own), fake.path("proc").join(&own)).unwrap();
        // One that takes the mappings of a ring file back itself.
        fake.with_kernel("6.15.0")
    }

    /// Another device on the same bus.
    pub fn beside(&self, name: &'static str, relid: u32, uio: &'static str) -> Self {
        let fake = Self { folder: Rc::clone(&self.folder), name, relid, uio };
        fake.fill();
        fake
    }

    fn fill(&self) {
        self.write("id", &format!("{}\n", self.relid));
        self.write("device_id", &format!("{{{}}}\n", self.name));
        self.write("class_id", "{525074dc-8985-46e2-8057-a307dc18a502}\n");
        self.write("state", "3\n");
        self.channel(self.relid);
        self.bind();
    }

    /// As the kernel does: the driver first, then the UIO device.
    pub fn bind(&self) {
        symlink("../../drivers/uio_hv_generic", self.device_folder().join("driver")).unwrap();
        self.map(0, "txrx_rings", 2 * RING_PAGES * page_size());
        self.map(INTERRUPT_MAP, "int_page", 4096);
        self.map(MONITOR_MAP, "monitor_page", 4096);
    }

    /// The folder moves away, so that the next one is another one for certain.
    pub fn unbind(&self) {
        fs::remove_file(self.device_folder().join("driver")).unwrap();
        let grave = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        fs::rename(self.device_folder().join("uio"), grave.join("uio")).unwrap();
    }

    pub fn with_kernel(self, release: &str) -> Self {
        fs::write(self.path("proc/sys/kernel/osrelease"), release).unwrap();
        self
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// The node is a FIFO: it can be opened, locked, polled, read and written, but not mapped.
    pub fn with_fifo(self) -> Self {
        mknodat(CWD, self.node(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        self
    }

    /// The node is a file that can be mapped as a UIO node can.
    pub fn with_file(self) -> Self {
        let file = File::create(self.node()).unwrap();
        file.set_len((64 * page_size()) as u64).unwrap();
        self
    }

    /// The node answers each read with EIO, as one whose device is gone.
    pub fn with_eio(self) -> Self {
        symlink("/proc/self/mem", self.node()).unwrap();
        self
    }

    pub fn with_monitor(self, monitor: u8) -> Self {
        self.write("monitor_id", &format!("{monitor}\n"));
        self
    }

    pub fn node(&self) -> PathBuf {
        self.path("dev").join(self.uio)
    }

    /// A node without a name, and its other end: what is sent there is read from the node, and the other way round.
    pub fn socket() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.device_folder().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn map(&self, index: usize, name: &str, bytes: usize) {
        let folder = format!("uio/{}/maps/map{index}", self.uio);
        self.write(&format!("{folder}/name"), &format!("{name}\n"));
        self.write(&format!("{folder}/size"), &format!("{bytes:#x}\n"));
        self.write(&format!("{folder}/offset"), "0x0\n");
    }

    /// A channel with its `ring` file, as after an open: zeroes, and the kernel's feature bits.
    pub fn channel(&self, relid: u32) {
        // Elsewhere first: whoever waits for the channel must find it whole, as in sysfs.
        let unfinished = self.path(&format!("unfinished/{relid}"));
        fs::create_dir_all(&unfinished).unwrap();
        fs::write(unfinished.join("cpu"), "0\n").unwrap();
        File::create(unfinished.join("ring")).unwrap().set_len((2 * RING_PAGES * page_size()) as u64).unwrap();
        let channels = self.device_folder().join("channels");
        fs::create_dir_all(&channels).unwrap();
        fs::rename(unfinished, channels.join(relid.to_string())).unwrap();
        let (mut outgoing, mut incoming) = (Writer::new(self.ring(relid, 0)).unwrap(), self.host(relid).1);
        outgoing.announce_flow_control();
        incoming.announce_flow_control();
    }

    pub fn device_folder(&self) -> PathBuf {
        self.folder.path().join("sys/bus/vmbus/devices").join(self.name)
    }

    pub fn ring_path(&self, relid: u32) -> PathBuf {
        self.device_folder().join(format!("channels/{relid}/ring"))
    }

    pub fn ring_file(&self, relid: u32) -> File {
        OpenOptions::new().read(true).write(true).open(self.ring_path(relid)).unwrap()
    }

    /// The host's ends of a channel: it reads the outgoing ring and writes the incoming one.
    pub fn host(&self, relid: u32) -> (Reader<Ring>, Writer<Ring>) {
        (Reader::new(self.ring(relid, 0)).unwrap(), Writer::new(self.ring(relid, 1)).unwrap())
    }

    pub fn ring(&self, relid: u32, number: usize) -> Ring {
        let ring_bytes = RING_PAGES * page_size();
        map_mirrored(self.ring_file(relid).as_fd(), (number * ring_bytes) as u64, ring_bytes).unwrap().0
    }

    pub fn bus(&self) -> Bus {
        Bus::at(self.folder.path())
    }

    pub fn device(&self) -> Device {
        self.bus().find(self.name).unwrap()
    }

    /// The shared pages as the host sees them: the set bits of each, counted from its start.
    pub fn page_bits(&self) -> (Vec<usize>, Vec<usize>) {
        let bytes = fs::read(self.node()).unwrap();
        let bits = |map: usize| {
            let page = &bytes[map * page_size()..][..4096];
            (0..4096 * 8).filter(|bit| page[bit / 8] & (1 << (bit % 8)) != 0).collect()
        };
        (bits(INTERRUPT_MAP), bits(MONITOR_MAP))
    }
}

/// How often this process has the file mapped.
pub fn times_mapped(file: &Path) -> usize {
    let file = file.canonicalize().unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.ends_with(file.to_str().unwrap())).count()
}
