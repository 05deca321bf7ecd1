//! `vmbusctl forward`: connections to one socket go on to another, of which one or both are VM sockets.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use vmbus_simhost::plain::{Bell, Plain, PlainListener};

use crate::args::Forward;
use crate::context::Context;
use crate::exit::Exit;
use crate::sockets::address::Address;
use crate::sockets::carried::{Carried, End};
use crate::sockets::carrier::{Carrier, Wish};
use crate::sockets::error::{of_socket, of_vm_socket};
use crate::sockets::event::{Event, Teller};
use crate::sockets::service::{self, Listener};
use crate::sockets::stop::Stop;

/// How long a TCP connect may take, for each address that a name stands for.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn run(context: &Context, args: &Forward) -> anyhow::Result<Exit> {
    let stop = Stop::install()?;
    let teller = Arc::new(Teller::new(context, &stop));
    let wishes = [vm(&args.from).map(Wish::Listen), vm(&args.to).map(Wish::Connect)];
    let wishes: Vec<_> = wishes.into_iter().flatten().collect();
    let carrier = match wishes.as_slice() {
        [] => None,
        wishes => Some(Arc::new(Carrier::open(context, &args.via.link, wishes)?)),
    };
    if let Some(carrier) = &carrier {
        teller.watch(carrier)?;
    }
    let listener = listen(carrier.as_deref(), &args.from)?;
    let from = listener.local().map_err(|error| of_socket("find out the address of", args.from.to_string(), error))?;
    teller.tell(&Event::Listening { from, to: Some(args.to.to_string()) });
    let (onward, to) = (carrier.clone(), args.to.clone());
    let join = Box::new(move |near| join(onward.as_deref(), near, &to));
    let served = service::serve(&listener, args.via.connections, &stop, &teller, join);
    drop(listener);
    // A connect that is under way may have it still; then the process's end is its end.
    if let Some(carrier) = carrier.and_then(Arc::into_inner) {
        carrier.finish();
    }
    served.map(|()| Exit::Ok)
}

fn vm(address: &Address) -> Option<crate::sockets::address::VmAddress> {
    match address {
        Address::Vm(addr) => Some(*addr),
        Address::Plain(_) => None,
    }
}

fn listen(carrier: Option<&Carrier>, from: &Address) -> anyhow::Result<Listener> {
    match from {
        Address::Vm(addr) => Ok(Listener::Vm(carrier.context("nobody carries VM sockets")?.listen(*addr)?)),
        Address::Plain(addr) => {
            let listener =
                PlainListener::bind(addr).map_err(|error| of_socket("listen on", addr.to_string(), error))?;
            Ok(Listener::Plain(listener, Arc::new(Bell::new().context("no descriptors are left")?)))
        }
    }
}

/// Connects on. If that can't be, whoever connected is reset.
fn join(carrier: Option<&Carrier>, near: End, to: &Address) -> anyhow::Result<Arc<Carried>> {
    let far = connect(carrier, to).inspect_err(|_| near.reset())?;
    Carried::between(near, far).context("no descriptors are left")
}

fn connect(carrier: Option<&Carrier>, to: &Address) -> anyhow::Result<End> {
    match to {
        Address::Plain(addr) => {
            let plain = Plain::connect(addr, CONNECT_WITHIN);
            Ok(End::Plain(plain.map_err(|error| of_socket("connect to", addr.to_string(), error))?))
        }
        Address::Vm(addr) => {
            let carrier = carrier.context("nobody carries VM sockets")?;
            let stream = carrier.connect(*addr, None);
            Ok(End::Vm(stream.map_err(|error| of_vm_socket("connect to", to.to_string(), error))?))
        }
    }
}
