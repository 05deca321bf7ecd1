//! A harness that says of each test whether it passed, failed, or could not run here and why.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Longer than any test takes.
fn long() -> Duration {
    let churned = std::env::var("VMBUS_CONNECTIONS").ok().and_then(|count| count.parse::<u64>().ok());
    Duration::from_secs(120 + churned.unwrap_or(0) / 100)
}

/// What was run so far.
pub(crate) struct Harness {
    filters: Vec<String>,
    /// Nothing is all of them.
    families: Vec<String>,
    list: bool,
    passed: usize,
    failed: Vec<String>,
    ignored: usize,
}

impl Harness {
    /// Filters as libtest has them, `--list`, and `--family=NAME`, with all variants of it; other options mean nothing here.
    pub(crate) fn from_arguments() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let list = arguments.iter().any(|argument| argument == "--list");
        let families = arguments.iter().filter_map(|argument| argument.strip_prefix("--family="));
        let families = families.map(str::to_owned).collect();
        let filters = arguments.into_iter().filter(|argument| !argument.starts_with("--")).collect();
        Self { filters, families, list, passed: 0, failed: Vec::new(), ignored: 0 }
    }

    /// Runs a test if it is wanted, on a thread of its own. `Err` is why it can't run here.
    pub(crate) fn run(&mut self, family: &str, test: &str, run: impl FnOnce() -> Result<(), String> + Send + 'static) {
        let name = format!("{family}::{test}");
        let is_of = |of: &String| {
            family.strip_prefix(of.as_str()).is_some_and(|it| it.is_empty() || it.starts_with(['-', ':']))
        };
        if !self.families.is_empty() && !self.families.iter().any(is_of) {
            return;
        }
        if !self.filters.is_empty() && !self.filters.iter().any(|filter| name.contains(filter.as_str())) {
            return;
        }
        if self.list {
            println!("{name}: test");
            return;
        }
        let (done, outcome) = channel();
        let start = Instant::now();
        std::thread::spawn(move || done.send(catch_unwind(AssertUnwindSafe(run))));
        let outcome = outcome.recv_timeout(long());
        let ms = start.elapsed().as_millis();
        match outcome {
            Ok(Ok(Ok(()))) => {
                self.passed += 1;
                println!("test {name} ... ok ({ms} ms)");
            }
            Ok(Ok(Err(reason))) => {
                self.ignored += 1;
                println!("test {name} ... ignored, {reason}");
            }
            Ok(Err(_)) => {
                println!("test {name} ... FAILED ({ms} ms)");
                self.failed.push(name);
            }
            Err(_) => {
                println!("test {name} ... FAILED (nothing in {} s)", long().as_secs());
                self.failed.push(name);
            }
        }
    }

    /// Says how it went, and ends the process.
    pub(crate) fn end(self) {
        if self.list {
            return;
        }
        let verdict = if self.failed.is_empty() { "ok" } else { "FAILED" };
        println!("\nfailures: {:?}", self.failed);
        println!(
            "test result: {verdict}. {} passed; {} failed; {} ignored",
            self.passed,
            self.failed.len(),
            self.ignored
        );
        std::process::exit(i32::from(!self.failed.is_empty()) * 101);
    }
}
