//! Sockets, by one suite for all families: hvsock and byte pipes over the wire link with the simulated host at the other
//! end, AF_VSOCK by loopback where the machine has it, and the pair in this process.
//!
//! `cargo test -p vmbus-tests --test sockets [FILTER]`. What can't run here is reported as ignored, with the reason.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

mod bus;
mod churn;
mod harness;
mod kernel;
mod own;
mod suite;
mod tasks;
mod world;

use harness::Harness;
use world::World;

/// Makes a world, or says why there is none here.
type Maker = fn() -> Result<Box<dyn World>, String>;

fn main() {
    let mut harness = Harness::from_arguments();
    let makers: [(&'static str, Maker); 5] = [
        ("hvsock", bus::hvsock),
        ("hvsock-direct", bus::hvsock_direct),
        ("pipe", bus::pipe),
        ("vsock", kernel::vsock),
        ("pair", kernel::pair),
    ];
    for (family, make) in makers {
        for (test, run) in suite::all() {
            harness.run(family, test, move || {
                let mut world = make()?;
                run(&mut *world)?;
                world.end();
                Ok(())
            });
        }
    }
    for (family, make) in makers {
        for (kind, runtime) in tasks::runtimes() {
            for (test, run) in tasks::all() {
                harness.run(&format!("{family}::tokio::{kind}"), test, move || {
                    let (mut world, runtime) = (make()?, runtime());
                    tasks::run(&runtime, run, &mut *world)?;
                    drop(runtime);
                    world.end();
                    Ok(())
                });
            }
        }
    }
    for (test, run) in own::tests() {
        harness.run("bus", test, move || {
            run();
            Ok(())
        });
    }
    harness.end();
}
