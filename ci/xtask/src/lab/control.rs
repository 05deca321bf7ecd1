//! The control socket of the VMM, from the outside: what the host offers, takes back, counts and objects to.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::control_wire::{Call, Device, Outcome, Reply, Request, Until};
use super::line::Line;

/// Longest wait for an answer that itself takes no time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The host refused something, in its own words.
#[derive(Debug, Clone)]
pub(crate) struct Refused(pub(crate) String);

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "the host refused: {}", self.0)
    }
}

impl std::error::Error for Refused {}

/// What the guest did wrong, according to the host.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Violations {
    /// How many since the host began.
    pub(crate) total: u64,
    /// The words for them, the oldest first; not all if there are very many.
    pub(crate) kept: Vec<String>,
}

/// A channel as the host lists it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Offered {
    /// Its number, by which calls name it.
    pub(crate) offer: u64,
    /// Its relid; none before it was ever offered.
    pub(crate) relid: Option<u32>,
    /// Its device's instance GUID, as sysfs writes it.
    pub(crate) instance: String,
    /// Its state: hidden, offered, opening, open, rescinded, gone.
    pub(crate) state: String,
}

/// A connection to the control socket.
#[derive(Debug)]
pub(crate) struct Control {
    line: Line,
    next: u64,
}

impl Control {
    /// A connection on a fresh line.
    pub(crate) fn new(line: Line) -> Self {
        Self { line, next: 1 }
    }

    /// Makes sure that somebody is there.
    ///
    /// # Errors
    /// No or an odd answer.
    pub(crate) fn greet(&mut self) -> Result<()> {
        self.call(Call::Hello).map(drop)
    }

    /// Has the host do something; its answer.
    ///
    /// # Errors
    /// [`Refused`], no answer, or the host has ended.
    pub(crate) fn call(&mut self, call: Call) -> Result<Value> {
        self.call_that_takes(call, Duration::ZERO)
    }

    /// As [`Control::call`], with an answer of a known form.
    ///
    /// # Errors
    /// As [`Control::call`], or the answer has another form.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, call: Call) -> Result<T> {
        let what = format!("{call:?}");
        let answer = self.call(call)?;
        serde_json::from_value(answer.clone()).with_context(|| format!("{what}: odd answer {answer}"))
    }

    fn call_that_takes(&mut self, call: Call, takes: Duration) -> Result<Value> {
        self.next += 1;
        let request = Request { id: self.next, call };
        let mut text = serde_json::to_vec(&request)?;
        text.push(b'\n');
        self.line.send(&text)?;
        let deadline = Instant::now() + takes + PATIENCE;
        while let Some(line) = self.line.receive(deadline)? {
            // Answers to requests that nobody waits for any more are passed over, and so is noise.
            match serde_json::from_slice::<Reply>(&line) {
                Ok(Reply { id, outcome: Outcome::Ok(value) }) if id == request.id => return Ok(value),
                Ok(Reply { id, outcome: Outcome::Error(why) }) if id == request.id => {
                    return Err(Refused(why)).with_context(|| format!("{:?}", request.call));
                }
                _ => {}
            }
        }
        bail!("the host does not answer {:?}", request.call)
    }

    /// Offers a device; its number.
    ///
    /// # Errors
    /// As [`Control::call`].
    pub(crate) fn offer(&mut self, device: Device) -> Result<u64> {
        let answer = self.call(Call::Offer(device))?;
        answer.get("offer").and_then(Value::as_u64).with_context(|| format!("offer: odd answer {answer}"))
    }

    /// Takes one channel back.
    ///
    /// # Errors
    /// As [`Control::call`].
    pub(crate) fn rescind(&mut self, offer: u64) -> Result<()> {
        self.call(Call::Rescind { offer }).map(drop)
    }

    /// Insists that something becomes true in time.
    ///
    /// # Errors
    /// It does not, or as [`Control::call`].
    pub(crate) fn wait(&mut self, until: Until, timeout: Duration) -> Result<()> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let answer = self.call_that_takes(Call::Wait { until: until.clone(), timeout_ms }, timeout)?;
        if answer.get("came").and_then(Value::as_bool) != Some(true) {
            bail!("the host waited {} s in vain for {until:?}: {answer}", timeout.as_secs());
        }
        Ok(())
    }

    /// Insists that a channel comes into a state in time.
    ///
    /// # Errors
    /// As [`Control::wait`].
    pub(crate) fn wait_state(&mut self, offer: u64, state: &str, timeout: Duration) -> Result<()> {
        self.wait(Until::State { offer, state: state.to_owned() }, timeout)
    }

    /// All channels.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub(crate) fn offers(&mut self) -> Result<Vec<Offered>> {
        self.ask(Call::Offers)
    }

    /// One channel.
    ///
    /// # Errors
    /// There is none of that number, or as [`Control::ask`].
    pub(crate) fn offered(&mut self, offer: u64) -> Result<Offered> {
        let found = self.offers()?.into_iter().find(|offered| offered.offer == offer);
        found.with_context(|| format!("the host does not list offer {offer}"))
    }

    /// How often the guest has released a relid since it was offered last.
    ///
    /// # Errors
    /// As [`Control::call`].
    pub(crate) fn released(&mut self, relid: u32) -> Result<u64> {
        let answer = self.call(Call::Released { relid })?;
        answer.get("times").and_then(Value::as_u64).with_context(|| format!("released: odd answer {answer}"))
    }

    /// The host's counters.
    ///
    /// # Errors
    /// As [`Control::call`].
    pub(crate) fn counters(&mut self) -> Result<Value> {
        self.call(Call::Counters)
    }

    /// What the guest did wrong so far.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub(crate) fn violations(&mut self) -> Result<Violations> {
        self.ask(Call::Violations)
    }

    /// The last lines of the host's trace.
    ///
    /// # Errors
    /// As [`Control::call`].
    pub(crate) fn trace(&mut self, lines: usize) -> Result<String> {
        let answer = self.call(Call::Trace { lines })?;
        Ok(answer.get("text").and_then(Value::as_str).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::super::control_wire::{Call, Device, Request, Until};
    use super::super::line::Line;
    use super::{Control, Refused};

    /// A host that says these lines, one for each request, after a late answer to somebody else.
    fn host(answers: &'static [&'static str]) -> (Control, std::thread::JoinHandle<Vec<Request>>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let _folder = folder;
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            let answer = |answer: &&str| {
                let mut line = String::new();
                lines.read_line(&mut line).unwrap();
                let request: Request = serde_json::from_str(&line).unwrap();
                writeln!(stream, "{{\"id\":0,\"ok\":null}}\nnoise\n{{\"id\":{},{answer}}}", request.id).unwrap();
                request
            };
            answers.iter().map(answer).collect()
        });
        (Control::new(Line::connect(&path, Duration::from_secs(10)).unwrap()), thread)
    }

    #[test]
    fn answers_are_told_apart_by_number_and_refusals_by_their_words() {
        let (mut control, thread) =
            host(&[r#""ok":{"offer":3}"#, r#""error":"no such offer""#, r#""ok":{"total":1,"kept":["x"]}"#]);
        assert_eq!(control.offer(Device { kind: "echo".to_owned(), ..Device::default() }).unwrap(), 3);
        let error = control.rescind(9).unwrap_err();
        assert_eq!(error.downcast_ref::<Refused>().unwrap().0, "no such offer");
        assert_eq!(control.violations().unwrap().kept, ["x"]);
        let requests = thread.join().unwrap();
        assert!(matches!(requests[1].call, Call::Rescind { offer: 9 }));
    }

    #[test]
    fn a_wait_that_ends_in_vain_is_an_error() {
        let (mut control, thread) = host(&[r#""ok":{"came":true}"#, r#""ok":{"came":false}"#]);
        control.wait(Until::Quiet, Duration::from_millis(5)).unwrap();
        let error = control.wait_state(1, "open", Duration::from_millis(5)).unwrap_err();
        assert!(error.to_string().contains("open"), "{error}");
        thread.join().unwrap();
    }
}
