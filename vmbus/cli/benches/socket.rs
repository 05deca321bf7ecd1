//! `vmbusctl bench socket` as a bench: VM sockets beside Unix sockets, two processes.
//!
//! `cargo bench -p vmbusctl --bench socket [-- [--json] [--rounds N] [--race NAME]]`. The exit status is that of the bars.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let status = Command::new(env!("CARGO_BIN_EXE_vmbusctl")).args(["bench", "socket"]).args(arguments).status();
    match status.map(|status| status.code()) {
        Ok(Some(0)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
