//! Lines for the lab: JSON, one for each finding, on standard output; tests collect them.

use std::io::Write as _;
#[cfg(test)]
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use serde_json::Value;

/// Where lines go. Any thread may have one.
#[derive(Debug, Clone)]
pub(crate) struct Say(To);

#[derive(Debug, Clone)]
enum To {
    Lab,
    #[cfg(test)]
    Test(Arc<(Mutex<Vec<Value>>, Condvar)>),
}

impl Say {
    /// To standard output.
    pub(crate) fn aloud() -> Self {
        Self(To::Lab)
    }

    /// Prints a line for the lab.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(crate) fn line(&self, line: &Value) -> anyhow::Result<()> {
        match &self.0 {
            To::Lab => {
                let mut out = std::io::stdout().lock();
                writeln!(out, "{line}")?;
                out.flush()?;
            }
            #[cfg(test)]
            To::Test(lines) => {
                lines.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
                lines.1.notify_all();
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn kept() -> Self {
        Self(To::Test(Arc::default()))
    }

    #[cfg(test)]
    pub(crate) fn lines(&self) -> Vec<Value> {
        let To::Test(lines) = &self.0 else { return Vec::new() };
        lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last line of this event, which is waited for.
    #[cfg(test)]
    pub(crate) fn heard(&self, event: &str) -> Value {
        let To::Test(lines) = &self.0 else { return Value::Null };
        let named = |lines: &[Value]| lines.iter().rev().find(|line| line["event"] == event).cloned();
        let kept = lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, _) = lines
            .1
            .wait_timeout_while(kept, crate::testing::LONG, |kept| named(kept).is_none())
            .unwrap_or_else(PoisonError::into_inner);
        named(&kept).unwrap_or_else(|| panic!("no {event} among {kept:?}"))
    }
}
