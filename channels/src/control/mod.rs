//! The control plane without its thread: a pure step from what happened to what is to be done.

mod action;
mod input;
mod refusal;

pub use action::{Action, Answer};
pub use input::{Command, Input, OpenSettings, Ticket};
pub use refusal::Refusal;
