//! What the lab shows while it works: bars on a terminal, plain lines elsewhere; all on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Where progress goes; cheap to clone, shared by threads.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bars: MultiProgress,
    terminal: bool,
    start: Instant,
}

impl Progress {
    /// Progress on standard error, its clock starting now.
    pub(crate) fn new() -> Self {
        Self { bars: MultiProgress::new(), terminal: std::io::stderr().is_terminal(), start: Instant::now() }
    }

    /// Prints a line that stays, with the seconds since the start in front.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        let line = format!("[{:6.1}] {}", self.start.elapsed().as_secs_f64(), text.as_ref());
        let printed = self.terminal && self.bars.println(&line).is_ok();
        if !printed {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }

    /// Shows something under way: a spinner on a terminal, elsewhere a line now.
    pub(crate) fn task(&self, text: impl Into<String>) -> Task {
        let text = text.into();
        if !self.terminal {
            self.say(&text);
        }
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(style("{spinner} {elapsed:>4} {wide_msg}"));
        bar.set_message(text);
        bar.enable_steady_tick(Duration::from_millis(120));
        Task { bar }
    }

    /// Shows a number of bytes under way.
    pub(crate) fn bytes(&self, text: impl Into<String>, total: u64) -> Task {
        let text = text.into();
        if !self.terminal {
            self.say(format!("{text}, {} MB", total / 1_000_000));
        }
        let bar = self.bars.add(ProgressBar::new(total));
        bar.set_style(style("{msg} [{wide_bar}] {bytes}/{total_bytes} {binary_bytes_per_sec}"));
        bar.set_message(text);
        Task { bar }
    }

    /// Shows a number of things under way.
    pub(crate) fn count(&self, text: impl Into<String>, total: usize) -> Task {
        let text = text.into();
        if !self.terminal {
            self.say(&text);
        }
        let bar = self.bars.add(ProgressBar::new(total as u64));
        bar.set_style(style("{msg} [{wide_bar}] {pos}/{len}"));
        bar.set_message(text);
        Task { bar }
    }
}

/// Something under way; dropping it takes it off the terminal.
#[derive(Debug)]
pub(crate) struct Task {
    bar: ProgressBar,
}

impl Task {
    /// Sets how far it is.
    pub(crate) fn reached(&self, position: u64) {
        self.bar.set_position(position);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
