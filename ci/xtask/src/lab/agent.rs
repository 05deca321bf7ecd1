//! The lab's end of the line to the agent in the guest: requests, replies, and what is sent again when bytes were lost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::line::Line;
use super::wire::{self, Call, Fault, Hello, Reply, Request};

/// What the line and a slow guest may add to the time that a request itself takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The guest's operating system refused something; `errno` tells what kind of refusal.
#[derive(Debug, Clone)]
pub(crate) struct Refused(pub(crate) Fault);

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "in the guest: {}", self.0.message)
    }
}

impl std::error::Error for Refused {}

/// The agent says nothing though its line is there: the guest hangs. Later requests fail with this at once.
#[derive(Debug)]
pub(crate) struct Silent;

impl std::fmt::Display for Silent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the guest's agent does not answer")
    }
}

impl std::error::Error for Silent {}

/// A connection to the agent.
#[derive(Debug)]
pub(crate) struct Agent {
    line: Line,
    next: u64,
    resent: u64,
    silent: bool,
}

impl Agent {
    /// A connection whose requests are numbered from `first` on; the agent must not have seen that number before.
    pub(crate) fn new(line: Line, first: u64) -> Self {
        Self { line, next: first, resent: 0, silent: false }
    }

    /// Waits for the greeting of an agent that starts.
    ///
    /// # Errors
    /// There is none within `timeout`, or the guest has ended.
    pub(crate) fn greet(&mut self, timeout: Duration) -> Result<Hello> {
        let deadline = Instant::now() + timeout;
        while let Some(line) = self.line.receive(deadline)? {
            if let Some(Reply { result: Ok(value), .. }) = wire::decode::<Reply>(&line)
                && let Ok(hello) = serde_json::from_value(value)
            {
                return Ok(hello);
            }
            self.line.send(&wire::encode(&Request { id: 0, call: Call::Hello })?)?;
        }
        bail!("no word from the guest's agent")
    }

    /// Has the agent do something that itself takes no longer than `takes`, and returns what it returns.
    ///
    /// # Errors
    /// [`Refused`], [`Silent`], or the guest has ended.
    pub(crate) fn call<T: DeserializeOwned>(&mut self, call: Call, takes: Duration) -> Result<T> {
        let value = self.forward(call, takes)?.map_err(Refused)?;
        serde_json::from_value(value).context("odd reply of the agent")
    }

    /// As [`Agent::call`], with the agent's answer as it is.
    ///
    /// # Errors
    /// [`Silent`], or the guest has ended.
    pub(crate) fn forward(&mut self, call: Call, takes: Duration) -> Result<Result<Value, Fault>> {
        let id = self.next;
        self.next += 1;
        let request = wire::encode(&Request { id, call })?;
        let deadline = Instant::now() + takes + PATIENCE;
        self.line.send(&request)?;
        while !self.silent {
            match self.line.receive(deadline)?.map(|line| wire::decode::<Reply>(&line)) {
                Some(Some(reply)) if reply.id == id => return Ok(reply.result),
                Some(None | Some(Reply { result: Err(Fault { garbled: true, .. }), .. })) => {
                    self.resent += 1;
                    self.line.send(&request)?;
                }
                Some(Some(_)) => {}
                None => self.silent = true,
            }
        }
        bail!(Silent)
    }

    /// Asks for power off; there is no reply to wait for.
    ///
    /// # Errors
    /// The guest has ended.
    pub(crate) fn power_off(&mut self) -> Result<()> {
        self.line.send(&wire::encode(&Request { id: self.next, call: Call::PowerOff })?)
    }

    /// How many requests had to be sent again because the line lost bytes.
    pub(crate) fn resent(&self) -> u64 {
        self.resent
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::super::line::Line;
    use super::super::wire::{self, Call, Chunk, Fault, Reply, Request};
    use super::Agent;

    /// An agent whose first reply is damaged on its way and whose second says that the request was.
    #[test]
    fn what_the_line_damages_is_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("agent")).unwrap();
        let guest = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            for time in 0..3 {
                let mut line = Vec::new();
                lines.read_until(b'\n', &mut line).unwrap();
                let request: Request = wire::decode(&line).unwrap();
                let garbled = Fault { errno: None, message: String::new(), garbled: true };
                let chunk = serde_json::to_value(Chunk { text: "x".to_owned(), next: 1 }).unwrap();
                let (id, result) = if time == 1 { (0, Err(garbled)) } else { (request.id, Ok(chunk)) };
                let mut reply = wire::encode(&Reply { id, result }).unwrap();
                if time == 0 {
                    reply.remove(20);
                }
                stream.write_all(&reply).unwrap();
            }
        });
        let line = Line::connect(&folder.path().join("agent"), Duration::from_secs(10)).unwrap();
        let mut agent = Agent::new(line, 7);
        let chunk: Chunk = agent.call(Call::Echo { text: "x".to_owned() }, Duration::ZERO).unwrap();
        assert_eq!((chunk.text.as_str(), agent.resent()), ("x", 2));
        guest.join().unwrap();
    }
}
