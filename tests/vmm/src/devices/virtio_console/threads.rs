//! The two threads between the agent's port and its far end.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, sleep};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Shared;
use crate::endpoint::Endpoint;

/// As much as one read of the far end takes.
const READ_AT_MOST: usize = 32 << 10;
/// Between two looks at a port that nobody holds on the other side.
const NOBODY_THERE: Duration = Duration::from_millis(200);

/// The connection's output, while there is one.
#[derive(Debug, Default)]
struct Connection {
    file: Mutex<Option<Arc<File>>>,
    made: Condvar,
}

/// Starts both.
pub(super) fn start(shared: &Arc<Shared>, endpoint: Endpoint) -> Result<()> {
    let connection = Arc::new(Connection::default());
    let (console, made) = (Arc::clone(shared), Arc::clone(&connection));
    let output = move || write(&console, &made);
    Builder::new().name("agent-out".to_owned()).spawn(output).context("start the agent's output thread")?;
    let console = Arc::clone(shared);
    let input = move || loop {
        match endpoint.connect() {
            Ok((input, output)) => {
                connection.set(Some(output));
                read(&console, input, &endpoint);
                connection.set(None);
            }
            Err(error) => {
                log::warn!(target: "vmbus::vmm", "the agent's line: {error:#}");
                sleep(NOBODY_THERE);
            }
        }
    };
    Builder::new().name("agent-in".to_owned()).spawn(input).context("start the agent's input thread")?;
    Ok(())
}

impl Connection {
    fn set(&self, file: Option<File>) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file.map(Arc::new);
        self.made.notify_all();
    }

    fn wait(&self) -> Arc<File> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*file {
                Some(file) => return Arc::clone(file),
                None => file = self.made.wait(file).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// From the guest to the far end. What meets a broken connection is lost.
fn write(console: &Shared, connection: &Connection) {
    loop {
        let bytes = console.output.take();
        if let Err(error) = connection.wait().as_ref().write_all(&bytes) {
            log::debug!(target: "vmbus::vmm", "{} bytes of the agent lost: {error}", bytes.len());
        }
    }
}

/// From the far end to the guest, until the connection ends.
fn read(console: &Shared, mut input: File, endpoint: &Endpoint) {
    let mut bytes = vec![0; READ_AT_MOST];
    loop {
        match input.read(&mut bytes) {
            Ok(0) if endpoint.is_socket() => return,
            Ok(0) => sleep(NOBODY_THERE),
            Ok(length) => {
                let state = console.lock();
                let pending = |state: &mut super::State| state.sent < state.input.len();
                let state = console.delivered.wait_while(state, pending);
                let mut state = state.unwrap_or_else(PoisonError::into_inner);
                console.input(&mut state, bytes.get(..length).unwrap_or_default());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                log::debug!(target: "vmbus::vmm", "the agent's line: {error}");
                if endpoint.is_socket() {
                    return;
                }
                sleep(NOBODY_THERE);
            }
        }
    }
}
