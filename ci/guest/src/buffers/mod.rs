//! The buffers that the kernel shares with the host for a device: both ends write, and both check what the other wrote.
//!
//! The device is the simulated host's that reads and writes buffers (class of a network adapter, for which kernels make
//! them). Prints `buffer` for each and `end`.

#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::json;
use vmbus::memory::Mapping;
use vmbus::uio::Options;
use vmbus_channels::{Channel, Offer, OpenOptions, OutgoingPacket, Vmbus, Wake};

use crate::bus::{self, Selector};
use crate::say::Say;

/// Bytes that the host takes at one request.
const PIECE: usize = 1 << 20;
/// Longer than the host takes for one.
const PATIENCE: Duration = Duration::from_secs(20);
/// The host fills.
const FILL: u32 = 1;
/// The host sums up.
const SUM: u32 = 2;

/// Which device.
#[derive(Debug, Clone, Args)]
pub(crate) struct BuffersArgs {
    /// The device: class, GUID, relid or uioN. It is waited for.
    #[arg(default_value = "nic")]
    selector: String,
    /// Share buffers of so many bytes from here where the kernel has made none.
    #[arg(long)]
    make: Option<u32>,
}

/// Plays on the kernel's bus.
///
/// # Errors
/// As [`play`].
pub(crate) fn run(args: &BuffersArgs) -> anyhow::Result<ExitCode> {
    let vmbus = bus::connect(Options::default())?;
    let offer = bus::find(&vmbus, &Selector::resolve(&args.selector)?, PATIENCE)?;
    play(&vmbus, &offer, args, &Say::aloud())?;
    vmbus.shutdown()?;
    Ok(ExitCode::SUCCESS)
}

/// Opens the device, and has each buffer written and checked by both ends.
///
/// # Errors
/// There are no buffers; a word is not as it was written; the device is gone.
fn play(vmbus: &Vmbus, offer: &Offer, args: &BuffersArgs, say: &Say) -> anyhow::Result<()> {
    let mut desk = Desk { channel: vmbus.open(offer.id, OpenOptions::default())?, next: 1 };
    let kernels = desk.channel.kernel_buffers()?;
    let own = match args.make.filter(|_| kernels.is_empty()) {
        Some(bytes) => vec![desk.channel.create_buffer(bytes)?, desk.channel.create_buffer(bytes)?],
        None => Vec::new(),
    };
    let of_kernel = kernels.iter().map(|buffer| (buffer.name.as_str(), buffer.gpadl.0, &*buffer.memory));
    let all: Vec<_> = of_kernel.chain(own.iter().map(|buffer| ("own", buffer.gpadl().0, buffer.memory()))).collect();
    ensure!(!all.is_empty(), "the kernel made no buffers for device {}", offer.instance);
    for (name, gpadl, memory) in &all {
        let start = Instant::now();
        desk.check(*gpadl, memory).with_context(|| format!("buffer {name} ({gpadl})"))?;
        say.line(&json!({
            "event": "buffer", "name": name, "gpadl": gpadl, "bytes": memory.bytes(), "ms": start.elapsed().as_millis(),
        }))?;
    }
    let count = all.len();
    for buffer in own {
        buffer.close()?;
    }
    drop(kernels);
    desk.channel.close()?;
    say.line(&json!({ "event": "end", "buffers": count }))
}

/// Where the host is asked.
struct Desk {
    channel: Channel,
    next: u64,
}

impl Desk {
    /// The host fills, we check; we fill, the host sums up; and what is behind the end is not there.
    fn check(&mut self, gpadl: u32, memory: &Mapping) -> anyhow::Result<()> {
        for (number, offset) in (0..memory.bytes()).step_by(PIECE).enumerate() {
            let bytes = PIECE.min(memory.bytes() - offset);
            let seed = (u64::from(gpadl) << 32) + u64::try_from(number)?;
            let words = memory.words(offset, bytes / 8).context("a buffer of whole pages")?;
            let told = self.ask(FILL, gpadl, offset, bytes, seed)?;
            let mut sum = 0;
            for (place, found) in (0_u64..).zip(words) {
                let (found, expected) = (u64::from_le(found.load(Ordering::Acquire)), word(seed, place));
                if found != expected {
                    self.gone(memory)?;
                    bail!("word {place} behind {offset} is {found:#x}, and the host wrote {expected:#x}");
                }
                sum = add(sum, found);
            }
            ensure!(told == Some(sum), "the host says that it wrote {told:x?}, found is {sum:#x}");
            // Ours, from another seed.
            let sum = (0_u64..).zip(words).fold(0, |sum, (place, here)| {
                let mine = word(!seed, place);
                here.store(mine.to_le(), Ordering::Release);
                add(sum, mine)
            });
            let told = self.ask(SUM, gpadl, offset, bytes, 0)?;
            if told != Some(sum) {
                self.gone(memory)?;
                bail!("the host found {told:x?} behind {offset}, and {sum:#x} was written");
            }
        }
        ensure!(self.ask(SUM, gpadl, memory.bytes(), 8, 0)?.is_none(), "the host finds bytes behind the end");
        Ok(())
    }

    /// An error if the buffer was taken away while it was looked at: then it is all zeroes, and that is why.
    fn gone(&mut self, memory: &Mapping) -> anyhow::Result<()> {
        if memory.is_revoked() {
            // Whoever revokes a mapping ends the channel next.
            self.channel.wait(Some(PATIENCE))?;
        }
        Ok(())
    }

    /// Asks the host; the sum, or `None` when the bytes are not there.
    fn ask(
        &mut self,
        operation: u32,
        gpadl: u32,
        offset: usize,
        bytes: usize,
        seed: u64,
    ) -> anyhow::Result<Option<u64>> {
        let id = self.next;
        self.next += 1;
        let head = u64::from(operation) | u64::from(gpadl) << 32;
        let request = [head, u64::try_from(offset)?, u64::try_from(bytes)?, seed].map(u64::to_le_bytes);
        let packet = OutgoingPacket::in_band(id).with_completion_requested();
        self.channel.send(packet, &[request.as_flattened()], Some(PATIENCE))?;
        let (start, mut answer) = (Instant::now(), None);
        while answer.is_none() {
            let wake = self.channel.wait(Some(PATIENCE.saturating_sub(start.elapsed())))?;
            ensure!(wake != Wake::TimedOut, "no answer to request {id}");
            self.channel.receive(8, |packet| {
                let word = |offset| packet.payload().read::<u64>(offset).map(u64::from_le).ok();
                answer = (packet.transaction_id() == id).then(|| (word(0), word(8)));
                Ok::<_, vmbus_channels::Error>(())
            })?;
        }
        match answer {
            Some((Some(0), Some(sum))) => Ok(Some(sum)),
            Some((Some(1), _)) => Ok(None),
            other => bail!("request {id} is answered by {other:?}"),
        }
    }
}

/// Word `place` of what a seed stands for, as the host has it.
fn word(seed: u64, place: u64) -> u64 {
    seed.wrapping_add(place).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// The sum of words, as the host has it.
fn add(before: u64, word: u64) -> u64 {
    before.rotate_left(5).wrapping_add(word)
}
