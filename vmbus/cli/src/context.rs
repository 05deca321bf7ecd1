//! What every command works with: the bus, the journal's place, and how to talk.

use std::path::PathBuf;

use vmbus::bind::Binder;
use vmbus::sysfs::Bus;

use crate::args::Global;

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) bus: Bus,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    state_directory: PathBuf,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        Self {
            bus: Bus::at(global.root),
            json: global.json,
            quiet: global.quiet,
            state_directory: global.state_directory,
        }
    }

    pub(crate) fn binder(&self) -> Binder {
        Binder::new(&self.bus, &self.state_directory)
    }
}
