//! `vmbusctl balloon`: the Dynamic Memory driver in the foreground.

use crate::args::Balloon;
use crate::context::Context;
use crate::exit::Exit;

pub(crate) fn run(_context: &Context, args: &Balloon) -> anyhow::Result<Exit> {
    anyhow::bail!("not wired yet: {args:?}")
}
