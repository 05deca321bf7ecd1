//! The results in three forms: a table for people, JUnit's XML for CI, JSON for programs.

use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::runner::Outcome;

/// A whole run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// How each scenario went.
    pub(crate) outcomes: Vec<Outcome>,
    /// Names and values worth knowing: versions, how guests ran.
    pub(crate) facts: Vec<(String, String)>,
    /// From the start to here.
    pub(crate) seconds: f64,
}

impl Report {
    /// Whether nothing failed.
    pub(crate) fn passed(&self) -> bool {
        self.failed() == 0
    }

    fn failed(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.failure.is_some()).count()
    }

    fn skipped(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.skipped.is_some()).count()
    }

    /// The table, the facts and the sum.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        if table.width().is_none() {
            table.set_width(140);
        }
        table.set_header(["Scenario", "Host", "Kernel", "Result", "Seconds", "What"]);
        for outcome in &self.outcomes {
            let wrong = outcome.failure.as_ref().map(|failure| failure.why.as_str());
            let what = wrong.or(outcome.skipped.as_deref()).or(outcome.first_try.as_deref());
            let what = what.unwrap_or(outcome.summary);
            let seconds = format!("{:.1}", outcome.seconds);
            table.add_row([outcome.name, outcome.host.name(), &outcome.kernel, outcome.verdict(), &seconds, what]);
        }
        let facts: String = self.facts.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let (failed, skipped) = (self.failed(), self.skipped());
        let passed = self.outcomes.len() - failed - skipped;
        let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
        format!("{table}\n{facts}{passed} passed, {failed} failed{skipped}, {:.0} s", self.seconds)
    }

    /// The run as one JSON value.
    pub(crate) fn json(&self) -> Value {
        let outcomes: Vec<Value> = self.outcomes.iter().map(Outcome::json).collect();
        let facts: serde_json::Map<String, Value> =
            self.facts.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        json!({ "passed": self.passed(), "seconds": self.seconds, "facts": facts, "scenarios": outcomes })
    }

    /// The run in the format that CI systems read (the de facto JUnit schema).
    pub(crate) fn junit(&self) -> String {
        let (failed, skipped) = (self.failed(), self.skipped());
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"lab\" tests=\"{}\" \
             failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\" time=\"{:.3}\">\n    <properties>\n",
            self.outcomes.len(),
            self.seconds
        );
        for (name, value) in &self.facts {
            let _ = writeln!(xml, "      <property name=\"{}\" value=\"{}\"/>", escape(name), escape(value));
        }
        xml.push_str("    </properties>\n");
        for outcome in &self.outcomes {
            outcome.junit(&mut xml);
        }
        xml.push_str("  </testsuite>\n</testsuites>\n");
        xml
    }
}

impl Outcome {
    fn verdict(&self) -> &'static str {
        match &self.failure {
            None if self.skipped.is_some() => "skipped",
            None if self.first_try.is_some() => "passed (2nd try)",
            None => "passed",
            Some(failure) if failure.emulator => "FAILED (emulator)",
            Some(_) => "FAILED",
        }
    }

    fn json(&self) -> Value {
        let failure = self.failure.as_ref().map(|failure| {
            let complaints: Vec<&str> = failure.complaints.iter().map(|complaint| complaint.line.as_str()).collect();
            json!({ "why": failure.why, "emulator": failure.emulator, "kernel_complaints": complaints })
        });
        let figures: serde_json::Map<String, Value> =
            self.figures.iter().map(|(name, value)| (name.clone(), Value::from(*value))).collect();
        json!({
            "name": self.name, "host": self.host.name(), "kernel": self.kernel, "skipped": self.skipped,
            "passed": self.failure.is_none() && self.skipped.is_none(), "seconds": self.seconds,
            "steps": self.steps, "figures": figures, "failure": failure, "first_try": self.first_try,
        })
    }

    fn junit(&self, xml: &mut String) {
        let _ = writeln!(
            xml,
            "    <testcase classname=\"lab.{}.{}\" name=\"{}\" time=\"{:.3}\">",
            self.host,
            escape(&self.kernel),
            escape(self.name),
            self.seconds
        );
        if !self.figures.is_empty() {
            xml.push_str("      <properties>\n");
            for (name, value) in &self.figures {
                let _ = writeln!(xml, "        <property name=\"{}\" value=\"{value:.3}\"/>", escape(name));
            }
            xml.push_str("      </properties>\n");
        }
        if let Some(why) = &self.skipped {
            let _ = writeln!(xml, "      <skipped message=\"{}\"/>", escape(why));
        }
        if let Some(failure) = &self.failure {
            let kind = if failure.emulator { "emulator" } else { "failure" };
            let mut details = failure.why.clone();
            for complaint in &failure.complaints {
                let _ = write!(details, "\nkernel: {}", complaint.line);
            }
            let message = failure.why.lines().next().unwrap_or_default();
            let (message, details) = (escape(message), escape(&details));
            let _ = writeln!(xml, "      <failure type=\"{kind}\" message=\"{message}\">{details}</failure>");
        }
        let first_try = self.first_try.iter().map(|why| format!("first try: {why}"));
        let told: Vec<String> = first_try.chain(self.steps.iter().cloned()).collect();
        let _ = writeln!(xml, "      <system-out>{}</system-out>", escape(&told.join("\n")));
        xml.push_str("    </testcase>\n");
    }
}

/// Text for an attribute or an element; characters that XML cannot hold become U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            '\0'..='\u{1f}' | '\u{7f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Report, escape};
    use crate::lab::host::Host;
    use crate::lab::kernel_log::Complaint;
    use crate::lab::runner::Failure;

    fn report() -> Report {
        let passed = Outcome {
            name: "list",
            summary: "lists",
            host: Host::Vmm,
            kernel: "6.12.1".to_owned(),
            skipped: None,
            seconds: 1.5,
            steps: vec!["relid 1".to_owned()],
            figures: vec![("64 B: <x>".to_owned(), 1.25)],
            failure: None,
            first_try: None,
        };
        let complaint = Complaint { line: "1.0 WARNING: <x>".to_owned(), emulator: false };
        let failure = Failure { why: "a < b & \"c\"".to_owned(), emulator: false, complaints: vec![complaint] };
        let failed = Outcome { name: "busy", failure: Some(failure), ..passed.clone() };
        let skipped = Outcome { name: "new", skipped: Some("no <kernel>".to_owned()), ..passed.clone() };
        Report {
            outcomes: vec![passed, failed, skipped],
            facts: vec![("QEMU".to_owned(), "10.0".to_owned())],
            seconds: 9.0,
        }
    }

    #[test]
    fn junit_counts_and_escapes() {
        let xml = report().junit();
        assert!(xml.contains("tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\""), "{xml}");
        assert!(xml.contains("<skipped message=\"no &lt;kernel&gt;\"/>"), "{xml}");
        assert!(xml.contains("classname=\"lab.vmm.6.12.1\" name=\"list\""), "{xml}");
        assert!(xml.contains("message=\"a &lt; b &amp; &quot;c&quot;\""), "{xml}");
        assert!(xml.contains("kernel: 1.0 WARNING: &lt;x&gt;</failure>"), "{xml}");
        assert!(xml.contains("<property name=\"64 B: &lt;x&gt;\" value=\"1.250\"/>"), "{xml}");
        assert_eq!(escape("\u{1b}[0m\n"), "\u{fffd}[0m\n");
    }

    #[test]
    fn a_failure_shows_in_every_form() {
        let report = report();
        assert!(!report.passed());
        assert!(report.table().contains("1 passed, 1 failed, 1 skipped"), "{}", report.table());
        assert_eq!(report.json()["scenarios"][2]["passed"], false);
        assert_eq!(report.json()["scenarios"][1]["failure"]["kernel_complaints"][0], "1.0 WARNING: <x>");
    }
}
