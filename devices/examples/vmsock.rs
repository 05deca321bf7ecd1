//! One program for every family of VM sockets: what it talks to is an address, and whose address that is.
//!
//! `cargo run -p vmbus-devices --example vmsock -- 2:5000` asks a service over AF_VSOCK. Where a bus is at hand,
//! `sockets.at(address)` is the place instead, and nothing else changes.

use std::io::{Read, Result, Write};
use std::net::Shutdown;

use vmbus_devices::socket::{ToPlace, VmListener, VmStream};

/// Says something to a service, and hears all that it answers.
pub fn ask(place: impl ToPlace, what: &str) -> Result<String> {
    let mut stream = VmStream::connect(place)?;
    stream.write_all(what.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Is such a service: sends back what each client says.
pub fn serve(place: impl ToPlace) -> Result<()> {
    for stream in &VmListener::bind(place)? {
        let mut stream = stream?;
        std::thread::spawn(move || {
            let mut said = Vec::new();
            stream.read_to_end(&mut said)?;
            stream.write_all(&said)
        });
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("--listen"), Some(address)) => serve(address),
        (Some(address), what) => {
            let answer = ask(address, what.as_deref().unwrap_or("hello"))?;
            std::io::stdout().write_all(answer.as_bytes())
        }
        (None, _) => {
            std::io::stderr().write_all(b"usage: vmsock ADDRESS [TEXT] | --listen ADDRESS\n")?;
            std::process::exit(2)
        }
    }
}
