//! `vmbusctl echo`: a VM socket service that sends back what it is sent.

use std::sync::Arc;

use anyhow::Context as _;

use crate::args::Echo;
use crate::context::Context;
use crate::exit::Exit;
use crate::sockets::carried::Carried;
use crate::sockets::carrier::{Carrier, Wish};
use crate::sockets::error::of_vm_socket;
use crate::sockets::event::{Event, Teller};
use crate::sockets::service::{self, Listener};
use crate::sockets::stop::Stop;

pub(crate) fn run(context: &Context, args: &Echo) -> anyhow::Result<Exit> {
    let stop = Stop::install()?;
    let teller = Arc::new(Teller::new(context, &stop));
    let carrier = Carrier::open(context, &args.via.link, &[Wish::Listen(args.address)])?;
    teller.watch(&carrier)?;
    let listener = Listener::Vm(carrier.listen(args.address)?);
    let from =
        listener.local().map_err(|error| of_vm_socket("find out the address of", args.address.to_string(), error))?;
    teller.tell(&Event::Listening { from, to: None });
    let join = Box::new(|near| Carried::back(near).context("no descriptors are left"));
    let served = service::serve(&listener, args.via.connections, &stop, &teller, join);
    drop(listener);
    carrier.finish();
    served.map(|()| Exit::Ok)
}
