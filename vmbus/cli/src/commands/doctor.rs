//! `vmbusctl doctor`: what keeps drivers from working, and the fix.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use vmbus::doctor::{self, Finding, Report, Severity};
use vmbus::kernel::Kernel;

use crate::args::Doctor;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, BOLD, DIM};

/// The shape of `doctor --json`.
#[derive(Serialize)]
struct Json<'a> {
    worst: Severity,
    kernel: &'a Kernel,
    findings: &'a [Finding],
}

pub(crate) fn run(context: &Context, args: &Doctor) -> anyhow::Result<Exit> {
    let report = doctor::examine(&context.bus);
    if context.json {
        output::json(&Json { worst: report.worst(), kernel: &report.kernel, findings: &report.findings })?;
    } else {
        print(&report, args.verbose, context.quiet)?;
    }
    Ok(if report.worst() == Severity::Failure { Exit::Failed } else { Exit::Ok })
}

fn print(report: &Report, verbose: bool, quiet: bool) -> anyhow::Result<()> {
    let width = usize::from(output::columns().unwrap_or(100)).clamp(40, 120);
    for finding in &report.findings {
        match finding.severity {
            Severity::Ok if !verbose => {}
            severity if quiet && severity < Severity::Warning => {}
            _ => print_finding(finding, width)?,
        }
    }
    if quiet {
        return Ok(());
    }
    let count = |severity| report.count(severity);
    let (failures, warnings) = (count(Severity::Failure), count(Severity::Warning));
    let verdict = match (failures, warnings) {
        (0, 0) => "Nothing is wrong.".to_owned(),
        (0, warnings) => format!("Nothing fails; {}.", plural(warnings, "warning")),
        (failures, 0) => format!("{}.", plural(failures, "failure")),
        (failures, warnings) => format!("{}, {}.", plural(failures, "failure"), plural(warnings, "warning")),
    };
    let fine = count(Severity::Ok);
    let more = if fine > 0 && !verbose {
        format!(" {DIM}({} in order; -v shows them){DIM:#}", plural(fine, "check"))
    } else {
        String::new()
    };
    output::line(format!("{BOLD}{verdict}{BOLD:#}{more}"))
}

fn print_finding(finding: &Finding, width: usize) -> anyhow::Result<()> {
    let (word, style) = badge(finding.severity);
    let mut stdout = output::stdout();
    let title = output::wrap(&finding.title, width.saturating_sub(9));
    for (number, line) in title.iter().enumerate() {
        let word = if number == 0 { word } else { "" };
        writeln!(stdout, "{style}{word:<8}{style:#} {line}")?;
    }
    let mut paragraph = |text: &str| -> anyhow::Result<()> {
        for (number, line) in output::wrap(text, width.saturating_sub(13)).iter().enumerate() {
            let hang = if number == 0 { "" } else { "    " };
            writeln!(stdout, "         {hang}{line}")?;
        }
        Ok(())
    };
    for line in output::wrap(&finding.meaning, width.saturating_sub(13)) {
        paragraph(&line)?;
    }
    if !finding.fix.is_empty() {
        paragraph(&format!("fix: {}", finding.fix))?;
    }
    if !finding.evidence.is_empty() {
        paragraph(&format!("see: {}", finding.evidence.join("; ")))?;
    }
    Ok(())
}

fn badge(severity: Severity) -> (&'static str, Style) {
    match severity {
        Severity::Ok => ("ok", AnsiColor::Green.on_default()),
        Severity::Note => ("note", AnsiColor::Cyan.on_default()),
        Severity::Warning => ("warning", AnsiColor::Yellow.on_default().bold()),
        Severity::Failure => ("failure", AnsiColor::Red.on_default().bold()),
    }
}

fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
