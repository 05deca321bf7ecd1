//! Moves channels from processor to processor while they are used: through sysfs where the kernel owns them, else by the
//! bus.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use vmbus::sysfs::Bus;
use vmbus_channels::{Offer, Vmbus};

/// How channels are moved, and how often they were.
#[derive(Debug)]
pub(crate) struct Mover {
    /// The device's folder of channels, where the kernel owns them.
    folder: Option<PathBuf>,
    processors: u32,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    turn: usize,
    moves: u64,
    /// The first moves that were refused: of a channel that is gone, for instance.
    refused: Vec<String>,
}

impl Mover {
    /// Writes a processor's number to the channel's `cpu` file: the kernel tells the host by MODIFYCHANNEL.
    pub(crate) fn through_sysfs(primary: &Offer) -> anyhow::Result<Self> {
        let device = Bus::system().find(&primary.instance.to_string())?;
        Ok(Self { folder: Some(device.path.join("channels")), ..Self::by_bus(online()) })
    }

    /// Asks the bus.
    pub(crate) fn by_bus(processors: u32) -> Self {
        Self { folder: None, processors: processors.max(1), tally: Mutex::default() }
    }

    /// Moves the channel whose turn it is to the processor whose turn it is.
    pub(super) fn next(&self, vmbus: &Vmbus, offers: &[Offer]) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = tally.turn;
        tally.turn = turn.wrapping_add(1);
        let Some((index, processor)) = goes(turn, offers.len(), self.processors) else { return };
        let Some(offer) = offers.get(index) else { return };
        let moved = match &self.folder {
            Some(folder) => {
                let file = folder.join(offer.relid.to_string()).join("cpu");
                fs::write(&file, processor.to_string()).map_err(|error| format!("{}: {error}", file.display()))
            }
            None => vmbus.move_channel(offer.id, processor).map_err(|error| error.to_string()),
        };
        match moved {
            Ok(()) => tally.moves += 1,
            Err(error) if tally.refused.len() < 8 => {
                tally.refused.push(format!("channel {} to processor {processor}: {error}", offer.relid));
            }
            Err(_) => {}
        }
    }

    pub(super) fn moves(&self) -> u64 {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).moves
    }

    pub(super) fn refused(&self) -> Vec<String> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).refused.clone()
    }
}

/// Which channel's turn it is, and where it goes: on to the next processor with each round, however many of either.
fn goes(turn: usize, channels: usize, processors: u32) -> Option<(usize, u32)> {
    let (index, round) = (turn.checked_rem(channels)?, turn.checked_div(channels)?);
    let place = round.saturating_add(index).saturating_add(1);
    u32::try_from(place).ok()?.checked_rem(processors).map(|processor| (index, processor))
}

/// Processors of this machine.
fn online() -> u32 {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(count).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::goes;

    #[test]
    fn each_channel_goes_to_another_processor_with_each_of_its_turns() {
        for (channels, processors) in [(1, 2), (2, 2), (3, 2), (3, 4), (4, 3), (5, 1)] {
            let mut seen = vec![BTreeSet::new(); channels];
            for turn in 0..channels * 4 {
                let (index, processor) = goes(turn, channels, processors).unwrap();
                seen[index].insert(processor);
            }
            assert!(seen.iter().all(|of| of.len() == processors as usize), "{channels}, {processors}: {seen:?}");
        }
        assert_eq!(goes(1, 0, 2), None);
    }
}
