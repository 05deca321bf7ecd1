//! A network adapter on the simulated host: agreed on, driven both ways, lied to, taken back.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

mod agreement;
mod control;
mod frames;
mod hostile;
mod life;
mod queues;
mod storms;
mod world;
