//! What a service tells while it runs: lines for people, objects for programs.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::carrier::Carrier;
use super::stop::Stop;
use crate::context::Context;
use crate::output;

/// One line of output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    Listening {
        from: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    Connected {
        connection: u64,
        peer: String,
    },
    Refused {
        connection: u64,
        error: String,
    },
    Closed {
        connection: u64,
        there: u64,
        back: u64,
    },
    Reset {
        connection: u64,
        there: u64,
        back: u64,
        error: String,
    },
    Ended,
}

impl Event {
    fn sentence(&self) -> String {
        match self {
            Self::Listening { from, to: None } => format!("listening on {from}"),
            Self::Listening { from, to: Some(to) } => format!("listening on {from} for {to}"),
            Self::Connected { connection, peer } => format!("connection {connection} from {peer}"),
            Self::Refused { connection, error } => format!("connection {connection} was refused: {error}"),
            Self::Closed { connection, there, back } => {
                format!("connection {connection} has ended: {there} bytes there, {back} back")
            }
            Self::Reset { connection, there, back, error } => {
                format!("connection {connection} was reset after {there} bytes there and {back} back: {error}")
            }
            Self::Ended => "ended".to_owned(),
        }
    }
}

/// Tells what happens, from any thread.
pub(crate) struct Teller {
    json: bool,
    quiet: bool,
    stop: Arc<Stop>,
    failed: Mutex<Option<anyhow::Error>>,
}

impl Teller {
    pub(crate) fn new(context: &Context, stop: &Arc<Stop>) -> Self {
        Self { json: context.json, quiet: context.quiet, stop: Arc::clone(stop), failed: Mutex::new(None) }
    }

    /// Tells it. If nobody can be told any more, that ends the service.
    pub(crate) fn tell(&self, event: &Event) {
        let told = match (self.json, self.quiet) {
            (true, _) => output::json_line(event),
            (_, true) => Ok(()),
            _ => output::line_now(event.sentence()),
        };
        if let Err(error) = told {
            self.fail(error);
        }
    }

    /// Something ends the service: the first that does is what the program ends with.
    pub(crate) fn fail(&self, error: anyhow::Error) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.stop();
    }

    /// A bus that ends takes the service with it.
    pub(crate) fn watch(self: &Arc<Self>, carrier: &Carrier) -> anyhow::Result<()> {
        let me = Arc::clone(self);
        carrier.when_over(move |error| me.fail(anyhow::Error::new(error).context("there is no host any more")))
    }

    /// What ended the service, if it was not a signal.
    pub(crate) fn end(&self) -> anyhow::Result<()> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}
