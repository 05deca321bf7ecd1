//! What the doctor says: findings with a severity, a meaning and a fix.

use serde::Serialize;

use crate::kernel::Kernel;

/// How much a finding matters, mildest first (the order of the variants is the order of severity).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Looked at and found in order.
    Ok,
    /// Worth knowing; nothing has to be done.
    Note,
    /// Something may go wrong, or goes wrong only for some devices.
    Warning,
    /// A driver will not work, or can bring the kernel down, until this is fixed.
    Failure,
}

/// One thing that the doctor looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable name for scripts, in kebab case: `module-uio-hv-generic`, `cve-2024-46739`.
    pub id: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What was seen, in one line.
    pub title: String,
    /// What it means for a driver in user space. Empty for [`Severity::Ok`].
    pub meaning: String,
    /// What to do about it. Empty when there is nothing to do.
    pub fix: String,
    /// Where the claim comes from: a CVE, a commit, a line of the kernel's log.
    pub evidence: Vec<String>,
}

impl Finding {
    /// A finding that everything is in order.
    pub(super) fn ok(id: &'static str, title: impl Into<String>) -> Self {
        Self::new(id, Severity::Ok, title)
    }

    /// A finding with a severity and its one line; meaning, fix and evidence are added to it.
    pub(super) fn new(id: &'static str, severity: Severity, title: impl Into<String>) -> Self {
        Self { id, severity, title: title.into(), meaning: String::new(), fix: String::new(), evidence: Vec::new() }
    }

    pub(super) fn meaning(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = meaning.into();
        self
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    pub(super) fn evidence(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }
}

/// Everything that one examination found, worst findings first.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The kernel that was judged.
    pub kernel: Kernel,
    /// The findings, worst first; those of one severity in the order of the checks.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(kernel: Kernel, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Self { kernel, findings }
    }

    /// The severity of the worst finding.
    #[must_use]
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
    }

    /// How many findings have this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}
