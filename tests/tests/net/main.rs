//! A network adapter on the simulated host: agreed on, driven both ways, lied to, taken back.
#![expect(clippy::unwrap_used, reason = "tests")]

mod agreement;
mod control;
mod frames;
mod hostile;
mod queues;
mod world;
