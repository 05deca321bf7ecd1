//! quick
mod common;
#[path = "../tests/support/mod.rs"]
mod support;
use common::{Run, SIZES, single};
use std::time::Instant;
fn main() {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for (name, pages) in common::RINGS {
        for bytes in SIZES {
            if let Ok(s) = std::env::var("SIZE") {
                if s != bytes.to_string() {
                    continue;
                }
            }
            let mut cases: Vec<(&str, Run)> = vec![
                ("one", single::ours_one(common::contiguous(pages), bytes)),
                ("onem", single::ours_one(common::mirrored(pages), bytes)),
                ("rtrb", single::rtrb_one(pages, bytes)),
                ("bare", single::rtrb_bare(pages, bytes)),
                ("floor", single::memcpy_one(pages, bytes)),
                ("batch", single::ours_batch(common::contiguous(pages), bytes)),
                ("batchm", single::ours_batch(common::mirrored(pages), bytes)),
                ("rbatch", single::rtrb_batch(pages, bytes)),
                ("sumc", single::ours_sum_copy(common::contiguous(pages), bytes)),
                ("sumz", single::ours_sum_in_place(common::contiguous(pages), bytes)),
            ];
            cases.retain(|(n, _)| filter.is_empty() || filter.iter().any(|f| f == n));
            let mut results = vec![vec![]; cases.len()];
            for _ in 0..std::env::var("ROUNDS").map_or(41, |r| r.parse().unwrap()) {
                for (i, (_, run)) in cases.iter_mut().enumerate() {
                    let n = (300_000 / (20 + bytes as u64 / 16)).max(200);
                    let start = Instant::now();
                    run(n);
                    results[i].push(start.elapsed().as_nanos() as f64 / n as f64);
                }
            }
            print!("{name} {bytes:6}");
            for (i, (n, _)) in cases.iter().enumerate() {
                results[i].sort_by(f64::total_cmp);
                print!("  {n} {:.1}", results[i][results[i].len() / 2]);
            }
            println!();
        }
    }
}
