//! `lab --shell`: a guest in which a person sits at the terminal instead of the lab's agent.

use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::boot::{Nursery, Wish};
use super::host::Host;
use super::kernel::Kernel;
use super::machine::{Occupant, Shape};
use super::telnet::{self, Decoder};
use crate::process::{Usage, check_interrupt};

/// Ctrl-], which ends the guest at once.
const ESCAPE: u8 = 0x1d;

/// What the VMM's host has to look at.
const DEVICES: &str =
    r#"{"devices":[{"kind":"echo","number":1,"monitored":true},{"kind":"dynamic-memory","number":1}]}"#;

/// How often a signal to stop is looked for while nobody says anything.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Boots a guest and joins this terminal with a shell in it, until that ends or Ctrl-] is pressed.
///
/// # Errors
/// [`Usage`] without a terminal; the guest does not start; this process was interrupted.
pub(crate) fn run(nursery: &Nursery, host: Host, kernel: Kernel) -> Result<ExitCode> {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    if !stdin.is_terminal() || !stdout.is_terminal() {
        bail!(Usage("--shell wants a terminal; `lab --keep` and `lab-guest` do without".to_owned()));
    }
    let occupant = Occupant::Person(std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned()));
    let settings = if host == Host::Vmm { DEVICES } else { "" };
    let shape = Shape { memory_mib: 1024, settings, ..Shape::of(host) };
    let wish = Wish { host, kernel, shape, lsvmbus: false };
    let mut started = nursery.start(&wish, "shell", &occupant)?;
    let sockets = started.sockets.path();
    let port = UnixStream::connect(sockets.join("agent")).context("connect to the guest's terminal")?;
    let progress = &nursery.progress;
    progress.say("a shell comes up in half a minute; its end, or Ctrl-], ends the guest");
    progress.say(format!("  the host:  socat - UNIX-CONNECT:{}", sockets.join(host.socket()).display()));
    progress.say(format!("  logs:      {}", started.logs.display()));
    let raw = Raw::new()?;
    let ended = join(&port);
    drop(raw);
    started.machine.kill();
    let words = std::fs::read_to_string(started.logs.join("machine.log")).unwrap_or_default();
    progress.say(match words.trim() {
        "" => "the guest has ended".to_owned(),
        words => format!("the guest has ended: {words}"),
    });
    ended.map(|()| ExitCode::SUCCESS)
}

/// Passes bytes both ways until one side ends.
fn join(port: &UnixStream) -> Result<()> {
    let (mut from_guest, mut to_guest) = (port, port);
    let mut buffer = [0; 4096];
    let stdin = std::io::stdin();
    let (mut decoder, mut told) = (Decoder::default(), None);
    loop {
        check_interrupt()?;
        let size = tcgetwinsize(&stdin).ok().map(|size| (size.ws_col.max(20), size.ws_row.max(5)));
        // Before the guest speaks there is nobody who would understand it.
        if let Some((columns, rows)) = size.filter(|_| decoder.spoke())
            && told != size
        {
            told = size;
            let _ = to_guest.write_all(&telnet::window(columns, rows));
        }
        let (guest, person) = {
            let mut ends = [PollFd::new(port, PollFlags::IN), PollFd::new(&stdin, PollFlags::IN)];
            match poll(&mut ends, Some(&LOOK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for the terminal"),
            }
            let [guest, person] = &ends;
            (!guest.revents().is_empty(), !person.revents().is_empty())
        };
        if guest {
            let bytes = match from_guest.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                bytes => bytes.context("read from the guest")?,
            };
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&decoder.text(buffer.get(..bytes).unwrap_or_default()))?;
            stdout.flush()?;
        }
        if person {
            // Read past the buffer of `Stdin`, which `poll` does not see.
            let bytes = rustix::io::read(&stdin, &mut buffer).context("read from the terminal")?;
            let typed = buffer.get(..bytes).unwrap_or_default();
            let wanted = typed.split(|byte| *byte == ESCAPE).next().unwrap_or_default();
            let _ = to_guest.write_all(&telnet::typed(wanted));
            if bytes == 0 || wanted.len() < bytes {
                let _ = port.shutdown(Shutdown::Both);
                return Ok(());
            }
        }
    }
}

/// The terminal in raw mode; dropping it restores what was.
struct Raw(Termios);

impl Raw {
    fn new() -> Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).context("settings of the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Flush, &raw).context("make the terminal raw")?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
    }
}
