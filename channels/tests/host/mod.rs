//! A channel over a device made of files, and the host at its other end.
#![expect(unreachable_pub, clippy::unwrap_used, reason = "part of tests, which may panic")]

#[path = "../../../vmbus/tests/fake/mod.rs"]
#[expect(dead_code, reason = "made for the link's tests, of which this needs a part")]
pub mod fake;

pub mod one_device;

use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use vmbus::memory::Ring;
use vmbus_channels::{Channel, Error, OpenOptions, OutgoingPacket, Settings, Vmbus};
use vmbus_ringbuf::{ControlField, Memory, Reader, Writer};

use fake::{Fake, RELID};
use one_device::OneDevice;

/// The host's end: its rings, and the other end of the node.
pub struct Host {
    pub reader: Reader<Ring>,
    pub writer: Writer<Ring>,
    pub node: OwnedFd,
    pub count: u32,
    /// Mask the guest's ring before each interrupt, as older kernels do on the guest's side.
    pub kernel_masks: bool,
}

pub fn open() -> (Fake, Channel, Host) {
    let fake = Fake::new();
    let (guest, node) = Fake::socket();
    fcntl_setfl(&node, OFlags::NONBLOCK).unwrap();
    let link = OneDevice::new(&fake, guest);
    let vmbus = Vmbus::start(Box::new(link), Settings::default()).unwrap();
    let offer = vmbus.find(fake.device().instance).unwrap();
    let channel = vmbus.open(offer.id, OpenOptions::default()).unwrap();
    let (reader, writer) = fake.host(RELID);
    let host = Host { reader, writer, node, count: 0, kernel_masks: false };
    (fake, channel, host)
}

impl Host {
    pub fn interrupt(&mut self) {
        if self.kernel_masks {
            self.writer.memory().store(ControlField::InterruptMask, 1);
        }
        self.count += 1;
        rustix::io::write(&self.node, &self.count.to_ne_bytes()).unwrap();
    }

    /// Sends, and interrupts the guest if that is due; whether it was.
    pub fn send(&mut self, id: u64) -> bool {
        let signal = self.writer.try_write(&OutgoingPacket::in_band(id), &[&id.to_le_bytes()]).unwrap();
        if signal.is_needed() {
            self.interrupt();
        }
        signal.is_needed()
    }

    pub fn send_all(&mut self, ids: RangeInclusive<u64>) {
        ids.for_each(|id| {
            self.send(id);
        });
    }

    /// Signals of the guest since the last call; each is the number 1.
    pub fn signals(&self) -> usize {
        let mut signal = [0; 8];
        let mut signals = 0;
        while let Ok(4) = rustix::io::read(&self.node, &mut signal) {
            assert_eq!(signal[..4], 1_i32.to_ne_bytes());
            signals += 1;
        }
        signals
    }

    /// Reads all there is, and interrupts the guest if it waits for room.
    pub fn receive(&mut self) -> Vec<u64> {
        let mut ids = Vec::new();
        let mut batch = self.reader.batch();
        while let Some(packet) = batch.next().unwrap() {
            ids.push(packet.transaction_id());
        }
        if batch.finish().is_needed() {
            self.interrupt();
        }
        ids
    }

    pub fn sleep(&self) {
        poll(&mut [PollFd::new(&self.node, PollFlags::IN)], None).unwrap();
    }

    pub fn guest_mask(&self) -> u32 {
        self.writer.memory().load(ControlField::InterruptMask)
    }
}

pub fn receive(channel: &mut Channel, budget: usize) -> Vec<u64> {
    let mut ids = Vec::new();
    let packets = channel.receive(budget, |packet| {
        ids.push(packet.transaction_id());
        Ok::<_, Error>(())
    });
    assert_eq!(packets.unwrap(), ids.len());
    ids
}

pub fn send(channel: &mut Channel, id: u64) -> Result<(), Error> {
    channel.try_send(OutgoingPacket::in_band(id), &[&id.to_le_bytes()])
}

/// Fills the outgoing ring; the number of packets that took.
pub fn fill(channel: &mut Channel) -> u64 {
    let sent = (0..).find(|id| matches!(send(channel, *id), Err(Error::Full { .. }))).unwrap();
    assert!(sent > 100);
    sent
}
