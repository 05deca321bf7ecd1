//! An adapter, its host, and frames that can be told apart.

use std::time::{Duration, Instant};

use vmbus::ErrorKind;
use vmbus::class::Class;
use vmbus_channels::Offer;
use vmbus_devices::Error;
use vmbus_devices::net::{Adapter, Queue, Settings, TransmitInfo};
use vmbus_simhost::device::NetworkSettings;
use vmbus_simhost::device::net::Network;
use vmbus_simhost::{Config, OfferId};
use vmbus_tests::{LONG, Stack};

/// An adapter's host, and its offer on both sides.
pub(super) struct World {
    pub(super) stack: Stack,
    pub(super) offer: Offer,
    pub(super) host: OfferId,
}

impl World {
    pub(super) fn with(settings: NetworkSettings) -> Self {
        let stack = Stack::start(Config::seeded(1).with_device(Network::offer(1, settings))).unwrap();
        let offer = stack.bus.of_class(Class::NIC).unwrap().pop().unwrap();
        let relid = offer.relid;
        let host = stack.control.with(move |simulation| simulation.host().offer_on_relid(relid)).unwrap().unwrap();
        Self { stack, offer, host }
    }

    pub(super) fn new() -> Self {
        Self::with(NetworkSettings::default())
    }

    /// Small buffers, so that sections and parts run out; nothing but the send buffer for what goes to the host.
    pub(super) fn small() -> Settings {
        Settings { receive_bytes: 64 << 10, send_bytes: 32 << 10, long_frames: 0, ..Settings::default() }
    }

    pub(super) fn open(&self, settings: Settings) -> Result<Adapter, Error> {
        Adapter::open(&self.stack.bus, &self.offer, settings)
    }

    /// Opened and started.
    pub(super) fn started(&self, settings: Settings) -> Adapter {
        let mut adapter = self.open(settings).unwrap();
        adapter.start().unwrap();
        adapter
    }

    /// The same, after an adapter that was dropped: that one may still be closing.
    pub(super) fn reopened(&self, settings: Settings) -> Adapter {
        let deadline = Instant::now() + LONG;
        let mut adapter = loop {
            match self.open(settings.clone()) {
                Err(error) if error.kind() == ErrorKind::Busy && Instant::now() < deadline => std::thread::yield_now(),
                outcome => break outcome.unwrap(),
            }
        };
        adapter.start().unwrap();
        adapter
    }

    pub(super) fn count(&self, name: &'static str) -> u64 {
        let host = self.host;
        self.stack.control.with(move |simulation| simulation.host().count(host, name)).unwrap()
    }

    pub(super) fn command(&self, words: &str) {
        self.stack.control.command(self.host, words).unwrap();
    }

    pub(super) fn rescind(&self) {
        self.stack.control.rescind(self.host).unwrap();
    }

    /// Nobody has found anything wrong, and nothing is left.
    #[track_caller]
    pub(super) fn end(self) {
        let faults = self.stack.end().unwrap();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    /// How many complaints the checker has, for worlds in which that is the point.
    pub(super) fn complaints(&self) -> Vec<String> {
        self.stack.control.violations().unwrap().iter().map(ToString::to_string).collect()
    }
}

/// Frame `number`, of so many bytes: Ethernet, a type for experiments, and a pattern.
pub(super) fn frame(number: u64, bytes: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    frame.extend(number.to_le_bytes());
    let pattern = (0_u8..=255).cycle().skip(usize::try_from(number % 251).unwrap());
    frame.extend(pattern.take(bytes.saturating_sub(22)));
    frame
}

/// What comes back of it.
pub(super) fn echoed(mut frame: Vec<u8>) -> Vec<u8> {
    let (destination, source) = frame.split_at_mut(6);
    destination.swap_with_slice(&mut source[..6]);
    frame
}

/// Number of a frame.
pub(super) fn number(frame: &[u8]) -> u64 {
    u64::from_le_bytes(frame[14..22].try_into().unwrap())
}

/// Lets a queue work until something is so.
#[track_caller]
pub(super) fn until(queue: &mut Queue, mut so: impl FnMut(&mut Queue) -> bool) {
    let deadline = Instant::now() + LONG;
    while !so(queue) {
        assert!(Instant::now() < deadline, "it never came: {:?}", queue.statistics());
        queue.wait(Some(Duration::from_millis(50))).unwrap();
    }
}

/// Sends frames `0..count` of a size that depends on the number and receives all echoes, in order.
#[track_caller]
pub(super) fn pump(queue: &mut Queue, count: u64, bytes: impl Fn(u64) -> usize) {
    let (mut sent, mut back) = (0, 0);
    let deadline = Instant::now() + LONG;
    while back < count {
        while sent < count && queue.try_send(&[&frame(sent, bytes(sent))], &TransmitInfo::default()).unwrap() {
            sent += 1;
        }
        let came = queue
            .receive(64, |packet| {
                assert_eq!(packet.frame, echoed(frame(back, bytes(back))), "frame {back}");
                back += 1;
                Ok::<_, Error>(())
            })
            .unwrap();
        if came == 0 && back < count {
            queue.wait(Some(Duration::from_millis(100))).unwrap();
        }
        assert!(Instant::now() < deadline, "{sent} sent, {back} back: {:?}", queue.statistics());
    }
}
