//! Dynamic Memory with the real driver, over pages that are only numbers: pinning real ones needs rights.

use std::ops::Range;

use anyhow::{bail, ensure};
use vmbus::Error;
use vmbus_channels::{Offer, OpenOptions};
use vmbus_devices::balloon::pages::PagePool;
use vmbus_devices::balloon::{Balloon, Settings};

use crate::simulated::{PATIENCE, Simulated};

/// Pages that the host takes and gives back: 64 MiB.
const PAGES: u64 = 16_384;

/// Pages of 4 KiB that nobody has.
#[derive(Debug, Default)]
struct NumberedPages {
    next: u64,
}

impl PagePool for NumberedPages {
    type Chunk = Vec<u64>;

    fn granule_pages(&self) -> u32 {
        1
    }

    fn take(&mut self, count: usize) -> Result<Option<Self::Chunk>, Error> {
        let first = self.next + 1;
        self.next += count as u64;
        Ok(Some((first..=self.next).collect()))
    }

    fn frames(chunk: &Self::Chunk) -> &[u64] {
        chunk
    }

    fn give_back(&mut self, _chunk: &mut Self::Chunk, _pages: Range<usize>) -> Result<(), Error> {
        Ok(())
    }
}

/// Lets the host take pages and give them back; what was done, in words.
pub(super) fn balloon(both: &Simulated, offer: &Offer) -> anyhow::Result<String> {
    let instance = offer.instance;
    let channel = both.bus.open(offer.id, OpenOptions::default())?;
    let driver = Balloon::over(channel, NumberedPages::default(), "/proc/meminfo".into(), Settings::default());
    let waker = driver.waker();
    let thread = std::thread::Builder::new().name("demo-memory".to_owned()).spawn(move || driver.run(|_| {}))?;
    let wait_until = move |held: u64| {
        both.host.wait_for(PATIENCE, move |sim| {
            let host = sim.host();
            let id = host.offered().iter().find(|offered| offered.instance == instance).map(|offered| offered.id);
            // What the host has asked for and not heard of yet is with the driver: it must not be stopped over that.
            id.is_some_and(|id| host.count(id, "ballooned") == held && host.count(id, "owed") == 0)
        })
    };
    let command = |words: &'static str| {
        both.host.with(move |sim| {
            let host = sim.host();
            let id = host.offered().iter().find(|offered| offered.instance == instance).map(|offered| offered.id);
            id.map(|id| host.command(id, words))
        })
    };
    command("balloon 16384")?;
    ensure!(wait_until(PAGES)?, "the driver did not give {PAGES} pages in {} s", PATIENCE.as_secs());
    command("unballoon all")?;
    ensure!(wait_until(0)?, "the driver did not take its pages back in {} s", PATIENCE.as_secs());
    waker.wake();
    match thread.join() {
        Ok(summary) => {
            let summary = summary?;
            ensure!(summary.gave_back_pages == 0, "{} pages were left", summary.gave_back_pages);
        }
        Err(_) => bail!("the driver panicked"),
    }
    Ok(format!("{} MiB taken and given back", PAGES / 256))
}
