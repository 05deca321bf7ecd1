//! The fuzz targets, built and run without nightly or cargo-fuzz: the coverage instrumentation is LLVM's own
//! pass, and libFuzzer comes with its crate. Two targets run at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};

use super::step::{Outcome, run, say};

/// What makes rustc instrument the code under test for libFuzzer.
const INSTRUMENTATION: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks";
/// The target is named so that build scripts and proc macros stay uninstrumented.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// How many targets run at a time: one per core of the machine the project is built for.
const AT_A_TIME: usize = 2;

/// Builds every target and runs each for `seconds`; a crash leaves its input under `ringbuf/fuzz/artifacts`.
pub(super) fn run_all(root: &Path, seconds: u32) -> Result<Outcome> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Outcome::Skipped("the fuzz targets are built for x86_64 only".to_owned()));
    }
    let folder = root.join("ringbuf/fuzz");
    let built = root.join("target/fuzz");
    ensure_compiler()?;
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(&folder).env("RUSTFLAGS", INSTRUMENTATION).env("CARGO_TARGET_DIR", &built).args([
        "build",
        "--release",
        "--bins",
        "--target",
        TARGET,
    ]);
    if let Outcome::Failed(why) = run(&mut build, "cargo build of the fuzz targets")? {
        return Ok(Outcome::Failed(why));
    }
    let names = target_names(&folder)?;
    for group in names.chunks(AT_A_TIME) {
        let running = group
            .iter()
            .map(|name| start(&folder, &built.join(TARGET).join("release").join(name), name, seconds))
            .collect::<Result<Vec<_>>>()?;
        for (name, child, log) in running {
            finish(&name, child, &log)?;
        }
    }
    Ok(Outcome::Passed)
}

/// The targets are the files of `fuzz_targets`.
fn target_names(folder: &Path) -> Result<Vec<String>> {
    let targets = folder.join("fuzz_targets");
    let mut names: Vec<String> = fs::read_dir(&targets)
        .with_context(|| format!("{} can't be listed", targets.display()))?
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    if names.is_empty() {
        bail!("{} holds no fuzz target", targets.display());
    }
    Ok(names)
}

fn start(folder: &Path, program: &Path, name: &str, seconds: u32) -> Result<(String, Child, PathBuf)> {
    let corpus = folder.join("corpus").join(name);
    let artifacts = folder.join("artifacts").join(name);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let log_path = artifacts.with_extension("log");
    let log = fs::File::create(&log_path)?;
    say!("    {name}: {seconds} s");
    let mut command = Command::new(program);
    command.arg(&corpus);
    let seeds = folder.join("seeds").join(name);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    command
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .stdout(log.try_clone()?)
        .stderr(log);
    let child = command.spawn().with_context(|| format!("{} could not be started", program.display()))?;
    Ok((name.to_owned(), child, log_path))
}

/// libFuzzer stops by itself; its last lines tell the number of runs, or the crash.
fn finish(name: &str, mut child: Child, log: &Path) -> Result<()> {
    let status = child.wait()?;
    let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    if !status.success() {
        let tail: Vec<&str> = text.lines().rev().take(40).collect();
        for line in tail.iter().rev() {
            say!("    {line}");
        }
        bail!("fuzz target {name} ended with {status}; the input is beside {}", log.display());
    }
    let runs = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    say!("    {name}: {} runs, no finding", runs.unwrap_or("?").trim());
    Ok(())
}

/// libFuzzer is C++; Debian machines with Rust may lack the compiler for it.
fn ensure_compiler() -> Result<()> {
    let there = || Command::new("c++").arg("--version").output().is_ok_and(|out| out.status.success());
    if there() {
        return Ok(());
    }
    say!("    libFuzzer needs a C++ compiler and this machine has none: installing g++ with apt-get");
    for arguments in [&["update"][..], &["install", "--yes", "--no-install-recommends", "g++"][..]] {
        let status = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
        if !status.is_ok_and(|status| status.success()) {
            bail!("no C++ compiler, and apt-get could not install one: run `apt-get install g++` as root");
        }
    }
    if there() { Ok(()) } else { bail!("g++ was installed but `c++` does not run") }
}
