//! R2 and R5.4 with the whole stack: streams over a group of channels whose links the simulated host takes away at random.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests; seeds are printed")]

mod flaps;
mod life;
mod moves;
mod room;
mod silence;
mod world;
