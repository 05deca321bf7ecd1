//! The program of `vmsock.rs` for tasks: one source for every family of VM sockets, on a runtime of tokio's.
//!
//! `cargo run -p vmbus-devices --features tokio --example vmsock_tokio -- 2:5000` asks a service over AF_VSOCK. Where a
//! bus is at hand, `sockets.at(address)` is the place instead, and nothing else changes.

use std::io::Result;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vmbus_devices::socket::ToPlace;
use vmbus_devices::socket::tokio::{VmListener, VmStream};

/// Says something to a service, and hears all that it answers.
pub async fn ask(place: impl ToPlace, what: &str) -> Result<String> {
    let (mut reader, mut writer) = VmStream::connect(place).await?.into_split();
    let mut answer = String::new();
    let say = async {
        writer.write_all(what.as_bytes()).await?;
        writer.shutdown().await
    };
    // Both at once, as the answer may begin before all is said.
    tokio::try_join!(say, reader.read_to_string(&mut answer))?;
    Ok(answer)
}

/// Is such a service: sends back what each client says.
pub async fn serve(place: impl ToPlace) -> Result<()> {
    let listener = VmListener::bind(place)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.split();
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await
        });
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("--listen"), Some(address)) => serve(address).await,
        (Some(address), what) => {
            let answer = ask(address, what.as_deref().unwrap_or("hello")).await?;
            std::io::Write::write_all(&mut std::io::stdout(), answer.as_bytes())
        }
        (None, _) => {
            std::io::Write::write_all(
                &mut std::io::stderr(),
                b"usage: vmsock_tokio ADDRESS [TEXT] | --listen ADDRESS\n",
            )?;
            std::process::exit(2)
        }
    }
}
