//! Criterion: event to callback at 1, 64 and 2,048 channels, one or all of them active, and the control plane's cycles;
//! with an uncontended mutex, an atomic addition and an `Arc` clone as yardsticks.
//!
//! `cargo bench -p vmbus-channels --bench receive`. For ratios on a noisy machine see `ratios`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

mod common;

use common::events::{self, MOST};
use common::{Race, arc_clone, atomic_add, control, mutex};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn measure(criterion: &mut Criterion, group: &str, name: BenchmarkId, make: impl FnOnce() -> Race) {
    let mut race = make();
    criterion.benchmark_group(group).bench_function(name, |bencher| bencher.iter_custom(&mut race));
}

fn events(criterion: &mut Criterion) {
    for channels in [1, 64, MOST] {
        let of = |what: &str| BenchmarkId::new(what, channels);
        measure(criterion, "event", of("one active"), || events::one_active(channels));
        measure(criterion, "event", of("one active, turn"), || events::one_active_turn(channels));
        measure(criterion, "event", of("all active"), || events::all_active(channels));
    }
    let named = BenchmarkId::from_parameter;
    measure(criterion, "event", named("packet to handler"), events::packet_to_handler);
    measure(criterion, "event", named("idle scan"), events::idle_scan);
    measure(criterion, "event", named("flag alone"), events::flag_alone);
    measure(criterion, "yardstick", named("mutex"), mutex);
    measure(criterion, "yardstick", named("atomic add"), atomic_add);
    measure(criterion, "yardstick", named("arc clone"), arc_clone);
}

fn cycles(criterion: &mut Criterion) {
    let named = BenchmarkId::from_parameter;
    measure(criterion, "core", named("open and close"), control::core_open_close);
    measure(criterion, "core", named("message"), control::core_messages);
}

criterion_group!(benches, events, cycles);
criterion_main!(benches);
