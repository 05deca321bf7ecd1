//! Criterion: 64 KiB and 2 MiB rings, payloads of 16 B to 16 KiB; one thread, batches, in place, two threads; with two
//! `memcpy` and `rtrb` as yardsticks. `cargo bench -p vmbus-ringbuf --bench ring`, about seven minutes.
//!
//! For ratios on a noisy machine see `ratios`, whose contestants take turns.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use common::pairs::{self, Race};
use common::{RINGS, Run, SIZES, contiguous, mirrored, single};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A named contestant of a group, made when its turn comes.
type Contestant<T> = (&'static str, fn(u32, usize) -> T);

fn measure(criterion: &mut Criterion, name: &str, contestants: &[Contestant<Run>]) {
    for (ring, pages) in RINGS {
        let mut group = criterion.benchmark_group(format!("{name}/{ring}"));
        for bytes in SIZES {
            group.throughput(Throughput::Bytes(bytes as u64));
            for (contestant, make) in contestants {
                let mut run = make(pages, bytes);
                group.bench_function(BenchmarkId::new(*contestant, bytes), |bencher| {
                    bencher.iter_custom(|messages| {
                        let start = std::time::Instant::now();
                        run(messages);
                        start.elapsed()
                    });
                });
            }
        }
        group.finish();
    }
}

fn measure_pairs(criterion: &mut Criterion, name: &str, contestants: &[Contestant<Race>]) {
    for (ring, pages) in RINGS {
        let mut group = criterion.benchmark_group(format!("{name}/{ring}"));
        for bytes in SIZES {
            for (contestant, make) in contestants {
                let mut race = make(pages, bytes);
                let id = BenchmarkId::new(*contestant, bytes);
                group.bench_function(id, |bencher| bencher.iter_custom(&mut race));
            }
        }
        group.finish();
    }
}

fn one_thread(criterion: &mut Criterion) {
    measure(
        criterion,
        "one",
        &[
            ("ours", |pages, bytes| single::ours_one(contiguous(pages), bytes)),
            ("mirrored", |pages, bytes| single::ours_one(mirrored(pages), bytes)),
            ("unfenced", |pages, bytes| single::ours_one(common::unfenced(pages), bytes)),
            ("rtrb", single::rtrb_one),
            ("rtrb-bare", single::rtrb_bare),
            ("memcpy", single::memcpy_one),
        ],
    );
    measure(
        criterion,
        "batch-32",
        &[
            ("ours", |pages, bytes| single::ours_batch(contiguous(pages), bytes)),
            ("mirrored", |pages, bytes| single::ours_batch(mirrored(pages), bytes)),
            ("rtrb", single::rtrb_batch_of_single),
            ("rtrb-chunk", single::rtrb_batch),
        ],
    );
    measure(
        criterion,
        "peek",
        &[
            ("in-place", |pages, bytes| single::ours_peek(contiguous(pages), bytes)),
            ("copied", |pages, bytes| single::ours_peek_copy(contiguous(pages), bytes)),
            ("in-place-batch-32", |pages, bytes| single::ours_peek_batch(contiguous(pages), bytes)),
            ("copied-batch-32", |pages, bytes| single::ours_peek_copy_batch(contiguous(pages), bytes)),
            ("sum-in-place", |pages, bytes| single::ours_sum_in_place(contiguous(pages), bytes)),
            ("sum-copied", |pages, bytes| single::ours_sum_copy(contiguous(pages), bytes)),
        ],
    );
}

fn two_threads(criterion: &mut Criterion) {
    measure_pairs(
        criterion,
        "stream-each",
        &[
            ("ours", |pages, bytes| pairs::ours_stream(contiguous(pages), bytes, false)),
            ("rtrb", |pages, bytes| pairs::rtrb_stream(pages, bytes, false)),
        ],
    );
    measure_pairs(
        criterion,
        "stream-batch",
        &[
            ("ours", |pages, bytes| pairs::ours_stream(contiguous(pages), bytes, true)),
            ("mirrored", |pages, bytes| pairs::ours_stream(mirrored(pages), bytes, true)),
            ("rtrb-chunk", |pages, bytes| pairs::rtrb_stream(pages, bytes, true)),
        ],
    );
    measure_pairs(
        criterion,
        "ping-pong",
        &[
            ("ours", |pages, bytes| pairs::ours_ping_pong(contiguous(pages), contiguous(pages), bytes)),
            ("rtrb", pairs::rtrb_ping_pong),
        ],
    );
}

/// Copies whose source and destination differ by a few bytes modulo the page size; `ratios cliff` sweeps all of them.
fn copy_distance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("copy-distance/4096");
    for distance in [0, 8, 16, 64, 2048, 4088] {
        for (name, mut copy) in common::cliff::copies(4096, distance) {
            group.bench_function(BenchmarkId::new(name, distance), |bencher| bencher.iter(&mut copy));
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20);
    targets = one_thread, two_threads, copy_distance
}
criterion_main!(benches);
