//! A line that leads nowhere: takes everything, and ends when the guest does.

use crate::device::{Line, Taken};

/// A line that leads nowhere.
pub(super) fn new() -> Box<dyn Line> {
    Box::new(Sink { ended: false, told: false })
}

struct Sink {
    ended: bool,
    /// Its end was taken.
    told: bool,
}

impl Line for Sink {
    fn note(&mut self) {}

    fn has_news(&self) -> bool {
        self.ended && !self.told
    }

    fn is_broken(&self) -> bool {
        false
    }

    fn give(&mut self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn give_end(&mut self) {
        self.ended = true;
    }

    fn take(&mut self, _bytes: &mut Vec<u8>, _most: usize) -> Taken {
        self.told = self.ended;
        if self.ended { Taken::End } else { Taken::Nothing }
    }

    fn close(&mut self) {}
}
