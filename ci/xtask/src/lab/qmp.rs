//! QEMU's machine protocol, the host's side of the story: what the balloon device was told and what it believes.
//! (docs/interop/qmp-spec.rst and qapi/machine.json of QEMU)

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::line::Line;

/// Longest wait for an answer: QMP goes through an emulated serial port.
const PATIENCE: Duration = Duration::from_secs(30);

/// A guest memory report as the host received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Report {
    /// Memory the guest has committed to, in bytes.
    pub(crate) committed: u64,
    /// Memory the guest has available, in bytes.
    pub(crate) available: u64,
}

/// A connection to the QEMU that the guest under test runs in.
#[derive(Debug)]
pub(crate) struct Qmp {
    line: Line,
    next: u64,
    events: VecDeque<Value>,
}

impl Qmp {
    /// A connection; [`Qmp::negotiate`] comes first, once QEMU runs.
    pub(crate) fn new(line: Line) -> Self {
        Self { line, next: 0, events: VecDeque::new() }
    }

    /// Leaves the capabilities phase, in which QEMU takes no other command.
    ///
    /// # Errors
    /// No or an odd answer.
    pub(crate) fn negotiate(&mut self) -> Result<()> {
        self.execute("qmp_capabilities", json!({})).map(drop)
    }

    /// Runs a command and returns what it returns.
    ///
    /// # Errors
    /// QEMU refuses it (its words are in the message) or does not answer.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.next += 1;
        let id = self.next;
        let mut request = serde_json::to_vec(&json!({"execute": command, "arguments": arguments, "id": id}))?;
        request.push(b'\n');
        self.line.send(&request)?;
        let deadline = Instant::now() + PATIENCE;
        while let Some(message) = self.message(deadline)? {
            if message.get("id").and_then(Value::as_u64) != Some(id) {
                self.keep_event(message);
                continue;
            }
            if let Some(error) = message.get("error") {
                bail!("QMP {command}: {}", error.get("desc").and_then(Value::as_str).unwrap_or("refused"));
            }
            return message.get("return").cloned().with_context(|| format!("QMP {command}: odd answer {message}"));
        }
        bail!("QMP {command}: no answer in {} s", PATIENCE.as_secs())
    }

    /// Asks the guest, through the balloon device, to make do with `bytes` of memory.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub(crate) fn balloon(&mut self, bytes: u64) -> Result<()> {
        self.execute("balloon", json!({"value": bytes})).map(drop)
    }

    /// How many bytes of memory the host believes the guest has.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub(crate) fn query_balloon(&mut self) -> Result<u64> {
        let answer = self.execute("query-balloon", json!({}))?;
        answer.get("actual").and_then(Value::as_u64).context("QMP query-balloon: no `actual`")
    }

    /// The last report the guest's driver sent.
    ///
    /// # Errors
    /// There was none yet, or as [`Qmp::execute`].
    pub(crate) fn last_report(&mut self) -> Result<Report> {
        let answer = self.execute("query-hv-balloon-status-report", json!({}))?;
        Ok(serde_json::from_value(answer)?)
    }

    /// Forgets events that came so far.
    ///
    /// # Errors
    /// The connection is gone.
    pub(crate) fn forget_events(&mut self) -> Result<()> {
        while let Some(message) = self.message(Instant::now())? {
            drop(message);
        }
        self.events.clear();
        Ok(())
    }

    /// The next report event, the oldest first; `None` if there is none in time.
    ///
    /// # Errors
    /// The connection is gone, or the event has no numbers in it.
    pub(crate) fn next_report(&mut self, timeout: Duration) -> Result<Option<Report>> {
        let deadline = Instant::now() + timeout;
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => match self.message(deadline)? {
                    Some(message) => message,
                    None => return Ok(None),
                },
            };
            if event.get("event").and_then(Value::as_str) == Some("HV_BALLOON_STATUS_REPORT") {
                let data = event.get("data").cloned().unwrap_or_default();
                return Ok(Some(serde_json::from_value(data).context("HV_BALLOON_STATUS_REPORT")?));
            }
        }
    }

    fn keep_event(&mut self, message: Value) {
        if message.get("event").is_some() {
            self.events.push_back(message);
        }
    }

    fn message(&mut self, deadline: Instant) -> Result<Option<Value>> {
        while let Some(line) = self.line.receive(deadline)? {
            if let Ok(message) = serde_json::from_slice(&line) {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}
