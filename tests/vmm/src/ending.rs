//! How a machine ends, and the handle by which any thread ends it.

use std::fmt;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Why the machine is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The guest powered itself off.
    PowerOff,
    /// The guest asked for a reset, or fell so hard that a processor would restart.
    Reset(String),
    /// The control socket pulled the plug.
    Killed,
    /// The machine itself failed: what, where, and what to try.
    Failed(String),
}

impl Ending {
    /// Exit code of the process.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::PowerOff | Self::Killed => 0,
            Self::Failed(_) => 1,
            Self::Reset(_) => 3,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => formatter.write_str("the guest powered off"),
            Self::Reset(how) => write!(formatter, "the guest was reset: {how}"),
            Self::Killed => formatter.write_str("the guest was killed over the control socket"),
            Self::Failed(why) => write!(formatter, "the machine failed: {why}"),
        }
    }
}

/// Ends the machine from any thread; the first word counts.
#[derive(Debug, Clone)]
pub struct Ender(Sender<Ending>);

impl Ender {
    /// A handle, and what its machine's owner waits on.
    #[must_use]
    pub fn new() -> (Self, Receiver<Ending>) {
        let (sender, receiver) = bounded(1);
        (Self(sender), receiver)
    }

    /// Ends the machine soon; returns at once. The process exits, and with it all threads.
    pub fn end(&self, ending: Ending) {
        // A full channel says that somebody was first.
        let _ = self.0.try_send(ending);
    }
}

#[cfg(test)]
mod tests {
    use super::{Ender, Ending};

    #[test]
    fn the_first_word_counts() {
        let (ender, ended) = Ender::new();
        ender.clone().end(Ending::Reset("by its register".to_owned()));
        ender.end(Ending::PowerOff);
        let ending = ended.recv().unwrap();
        assert_eq!((ending.code(), ending.to_string().as_str()), (3, "the guest was reset: by its register"));
        assert!(ended.is_empty());
    }

    #[test]
    fn only_a_failure_of_our_own_gives_1() {
        assert_eq!([Ending::PowerOff.code(), Ending::Killed.code(), Ending::Failed(String::new()).code()], [0, 0, 1]);
    }
}
