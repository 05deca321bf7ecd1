//! `vmbusctl balloon`: the Dynamic Memory driver in the foreground.

mod event;
mod signals;
mod teller;

use crate::args::Balloon;
use crate::context::Context;
use crate::exit::Exit;

use self::event::Event;
use self::signals::Stop;
use self::teller::Teller;

pub(crate) fn run(context: &Context, args: &Balloon) -> anyhow::Result<Exit> {
    let _ = (Event::Closed, Stop::install()?, Teller::new(context), args);
    anyhow::bail!("not wired yet")
}
