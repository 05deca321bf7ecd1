//! One step of the test run: a name, what it does, how it ended; and the commands steps are made of.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use comfy_table::Table;

/// Prints a line. A reader that went away (`| head`) is no reason to stop.
macro_rules! say {
    ($($what:tt)*) => { $crate::test::step::line(format_args!($($what)*)) };
}
pub(crate) use say;

pub(crate) fn line(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{what}");
}

/// How a step ended.
pub(crate) enum Outcome {
    /// It ran, and all of it held.
    Passed,
    /// It could not run here, or was not asked for; the reason.
    Skipped(String),
    /// It ran and something did not hold, or it could not be started.
    Failed(String),
}

type Body = Box<dyn Fn(&Path) -> Result<Outcome>>;

/// A named check over the repository.
pub(crate) struct Step {
    /// What `--only` takes.
    pub(crate) name: &'static str,
    /// One line for people.
    pub(crate) what: &'static str,
    /// Takes minutes; `--quick` leaves it out.
    pub(crate) slow: bool,
    body: Body,
}

impl Step {
    /// A step of seconds.
    pub(crate) fn quick(
        name: &'static str,
        what: &'static str,
        body: impl Fn(&Path) -> Result<Outcome> + 'static,
    ) -> Self {
        Self { name, what, slow: false, body: Box::new(body) }
    }

    /// A step of minutes.
    pub(crate) fn slow(
        name: &'static str,
        what: &'static str,
        body: impl Fn(&Path) -> Result<Outcome> + 'static,
    ) -> Self {
        Self { slow: true, ..Self::quick(name, what, body) }
    }
}

/// A step's line in the report.
pub(crate) struct Line {
    name: &'static str,
    /// How it ended.
    pub(crate) outcome: Outcome,
    took: Duration,
}

/// Runs the chosen steps in order, also after a failure: one run tells everything.
pub(crate) fn run_all<'a>(root: &Path, steps: impl Iterator<Item = (&'a Step, bool)>) -> Vec<Line> {
    let steps: Vec<_> = steps.collect();
    let total = steps.iter().filter(|(_, chosen)| *chosen).count();
    let mut number = 0;
    let mut report = Vec::new();
    for (step, chosen) in steps {
        if !chosen {
            continue;
        }
        number += 1;
        say!("\n==> [{number}/{total}] {}: {}", step.name, step.what);
        let start = Instant::now();
        let outcome = (step.body)(root).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        let took = start.elapsed();
        match &outcome {
            Outcome::Passed => say!("==> {} passed in {:.1} s", step.name, took.as_secs_f32()),
            Outcome::Skipped(why) => say!("==> {} skipped: {why}", step.name),
            Outcome::Failed(why) => say!("==> {} FAILED: {why}", step.name),
        }
        report.push(Line { name: step.name, outcome, took });
    }
    report
}

/// The names of the steps, for `--list`.
pub(crate) fn print_list(steps: &[Step]) {
    for step in steps {
        say!("{:<14} {}{}", step.name, step.what, if step.slow { " (minutes)" } else { "" });
    }
}

/// The table at the end, and the counts on a line of their own.
pub(crate) fn print_report(report: &[Line], left_out: &[&str]) {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["step", "result", "seconds", ""]);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for line in report {
        let (word, why) = match &line.outcome {
            Outcome::Passed => {
                passed += 1;
                ("passed", "")
            }
            Outcome::Skipped(why) => {
                skipped += 1;
                ("skipped", why.as_str())
            }
            Outcome::Failed(why) => {
                failed += 1;
                ("FAILED", why.as_str())
            }
        };
        table.add_row([line.name, word, &format!("{:.1}", line.took.as_secs_f32()), why]);
    }
    say!("\n{table}");
    if !left_out.is_empty() {
        say!("not run, as asked: {}", left_out.join(", "));
    }
    say!("{passed} passed, {failed} failed, {skipped} skipped");
}

/// Runs cargo in the repository with its output on ours.
pub(crate) fn cargo(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Outcome> {
    say!("    cargo {}", arguments.join(" "));
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root).args(arguments).envs(environment.iter().copied());
    run(&mut command, &format!("cargo {}", arguments.join(" ")))
}

/// Like [`cargo`], for a component that a minimal toolchain may lack; lacking it skips the step.
pub(crate) fn cargo_tool(root: &Path, tool: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Outcome> {
    let there = Command::new(env!("CARGO")).args([tool, "--version"]).output().is_ok_and(|out| out.status.success());
    if there {
        cargo(root, arguments, environment)
    } else {
        Ok(Outcome::Skipped(format!("this toolchain has no `cargo {tool}`; `rustup component add` brings it")))
    }
}

/// Runs a script of the repository with its output on ours. Exit status 77: it can't run here, and said why.
pub(crate) fn script(root: &Path, path: &str) -> Result<Outcome> {
    let status = Command::new(root.join(path)).current_dir(root).env("CARGO", env!("CARGO")).status();
    let status = status.with_context(|| format!("`{path}` could not be started"))?;
    match status.code() {
        Some(0) => Ok(Outcome::Passed),
        Some(77) => Ok(Outcome::Skipped("see above".to_owned())),
        _ => bail!("`{path}` ended with {status}"),
    }
}

/// What cargo prints on standard output, run in the repository; its errors are on ours.
pub(crate) fn output(root: &Path, arguments: &[&str]) -> Result<String> {
    say!("    cargo {}", arguments.join(" "));
    let mut command = Command::new(env!("CARGO"));
    let ended = command.current_dir(root).args(arguments).stderr(Stdio::inherit()).output();
    let ended = ended.with_context(|| format!("cargo {} could not be started", arguments.join(" ")))?;
    let text = String::from_utf8(ended.stdout).context("cargo printed no text")?;
    if !ended.status.success() {
        say!("{text}");
        bail!("`cargo {}` ended with {}", arguments.join(" "), ended.status);
    }
    Ok(text)
}

/// Runs a command to its end and turns its exit status into an outcome.
pub(crate) fn run(command: &mut Command, name: &str) -> Result<Outcome> {
    let status = command.status().with_context(|| format!("`{name}` could not be started"))?;
    if status.success() { Ok(Outcome::Passed) } else { bail!("`{name}` ended with {status}") }
}
