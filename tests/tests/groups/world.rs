//! A device with some subchannels, its host, and what tests do with both.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vmbus_channels::Vmbus;
use vmbus_devices::multiplex::{Multiplex, Settings, Stream};
use vmbus_simhost::device::MultiplexSettings;
use vmbus_simhost::{Config, DeviceSpec, OfferId, Random};
use vmbus_tests::{LONG, Stack};

/// A device and its host.
pub(crate) struct World {
    pub(crate) stack: Stack,
    pub(crate) device: Multiplex,
}

impl World {
    /// With so many subchannels, all of which are links when it returns.
    pub(crate) fn start(seed: u64, subchannels: u16, host: MultiplexSettings, settings: Settings) -> Self {
        let primary = DeviceSpec::multiplex(1, host);
        let mut config = Config::seeded(seed).with_device(primary.clone());
        for index in 1..=subchannels {
            config = config.with_device(primary.subchannel(index));
        }
        let stack = Stack::start(config).unwrap();
        let offer = stack.bus.of_class(Settings::CLASS).unwrap().pop().unwrap();
        let device = Multiplex::open(&stack.bus, &offer, settings).unwrap();
        let world = Self { stack, device };
        world.wait_links(usize::from(subchannels) + 1);
        world
    }

    /// Waits until there are so many links.
    pub(crate) fn wait_links(&self, links: usize) {
        until(|| self.device.counts().links == links);
    }

    pub(crate) fn bus(&self) -> &Vmbus {
        &self.stack.bus
    }

    /// The host's offer of a link.
    pub(crate) fn offer(&self, index: u16) -> OfferId {
        let found = self.stack.control.with(move |simulation| {
            let offered = simulation.host().offered();
            offered.iter().find(|offer| offer.subchannel_index == index && offer.state == "open").map(|offer| offer.id)
        });
        found.unwrap().unwrap_or_else(|| panic!("link {index} is not open"))
    }

    /// The host takes a link back.
    pub(crate) fn rescind(&self, index: u16) {
        self.stack.control.rescind(self.offer(index)).unwrap();
    }

    /// What the host has counted for the device.
    pub(crate) fn count(&self, name: &'static str) -> u64 {
        let id = self.offer(0);
        self.stack.control.with(move |simulation| simulation.host().count(id, name)).unwrap()
    }

    /// Both sides have forgotten all streams.
    pub(crate) fn wait_forgotten(&self) {
        until(|| self.device.streams() == 0 && self.device.counts().connected == 0);
        until(|| self.count("streams") == 0);
    }

    /// Nothing is left, and neither side has anything to complain about.
    #[track_caller]
    pub(crate) fn end(self) {
        self.device.close().unwrap();
        let faults = self.stack.end().unwrap();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "it does not come about");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// So many bytes, of this seed.
pub(crate) fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    std::iter::repeat_with(|| random.next_u64().to_le_bytes()).flatten().take(count).collect()
}

/// Sends bytes and hears them back while they are sent, then both ends.
pub(crate) fn echo(stream: &Stream, sent: &[u8]) -> std::io::Result<()> {
    let back = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut writer = stream;
            writer.write_all(sent).and_then(|()| stream.shutdown(std::net::Shutdown::Write))
        });
        let mut back = Vec::new();
        let mut reader = stream;
        let read = reader.read_to_end(&mut back);
        let written = writing.join().unwrap();
        read.and(written).map(|()| back)
    })?;
    assert!(back == sent, "{} bytes came back for {}, or others", back.len(), sent.len());
    stream.finish()
}

/// Says that it is over when it goes, also by a panic: others wait for that.
pub(crate) struct Ends<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
