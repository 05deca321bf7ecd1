//! `vmbusctl nc`: one connection of a VM socket, with standard input and output, or a command, at this end.

mod command;
mod standard;

use std::io::Write as _;
use std::sync::Arc;

use vmbus_devices::socket::VmStream;

use crate::args::Nc;
use crate::context::Context;
use crate::exit::Exit;
use crate::sockets::carrier::{Carrier, Wish};
use crate::sockets::error::of_vm_socket;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

pub(crate) fn run(context: &Context, args: &Nc) -> anyhow::Result<Exit> {
    let wish = if args.listen { Wish::Listen(args.address) } else { Wish::Connect(args.address) };
    let carrier = Carrier::open(context, &args.link, &[wish])?;
    let stream = Arc::new(if args.listen { accept(&carrier, args)? } else { connect(&carrier, args)? });
    let ended = match &args.exec {
        Some(command) => command::run(&stream, command),
        None => standard::run(&stream, args.until_end),
    };
    drop(stream);
    carrier.finish();
    ended.map(|()| Exit::Ok)
}

fn connect(carrier: &Carrier, args: &Nc) -> anyhow::Result<VmStream> {
    let to = args.address.to_connect().to_string();
    let stream = carrier.connect(args.address, args.timeout).map_err(|error| of_vm_socket("connect to", &to, error))?;
    say(args, &format!("connected to {to}"));
    Ok(stream)
}

/// Takes one connection; whoever comes later is refused.
fn accept(carrier: &Carrier, args: &Nc) -> anyhow::Result<VmStream> {
    let listener = carrier.listen(args.address)?;
    let at = listener.local_addr().map_or_else(|_| args.address.to_string(), |addr| addr.to_string());
    say(args, &format!("listening on {at}"));
    let (stream, peer) = listener.accept().map_err(|error| of_vm_socket("accept a connection on", &at, error))?;
    say(args, &format!("connected by {peer}"));
    Ok(stream)
}

/// On standard error, as standard output is the peer's. Nobody reads it: then nobody misses it.
fn say(args: &Nc, what: &str) {
    if args.verbose {
        let _ = writeln!(anstream::stderr(), "vmbusctl: {what}");
    }
}
