//! What the VMM's host says about a scenario afterwards: a guest that broke the protocol has not passed.

use std::fs;

use anyhow::{Result, ensure};

use super::control::Violations;
use super::guest::Guest;
use super::host::HostLine;

/// Lines of the host's trace that are kept of a scenario that failed.
const TRACE_LINES: usize = 400;

/// Insists that the guest did nothing wrong since it was last asked about but what is tolerated. What happened while it
/// booted is held against the first scenario.
///
/// # Errors
/// It did, or the host does not answer.
pub(crate) fn obeyed(guest: &mut Guest, tolerates: &[&str]) -> Result<()> {
    let HostLine::Control(control) = &mut guest.host else { return Ok(()) };
    let before = std::mem::replace(&mut guest.violations, control.violations()?);
    judge(&before, &guest.violations, tolerates)
}

/// Offers that the guest has, or may have; none where the host does not say.
///
/// # Errors
/// The host does not answer.
pub(crate) fn standing(guest: &mut Guest) -> Result<Vec<u64>> {
    let HostLine::Control(control) = &mut guest.host else { return Ok(Vec::new()) };
    let offers = control.offers()?.into_iter();
    Ok(offers.filter(|offer| offer.state != "gone" && offer.state != "hidden").map(|offer| offer.offer).collect())
}

/// Whether nothing is on offer that was not before, so that another scenario can start from there.
pub(crate) fn tidy(guest: &mut Guest, before: &[u64]) -> bool {
    standing(guest).is_ok_and(|standing| standing.iter().all(|offer| before.contains(offer)))
}

fn judge(before: &Violations, after: &Violations, tolerates: &[&str]) -> Result<()> {
    let new = after.total.saturating_sub(before.total);
    let kept = after.kept.len().saturating_sub(usize::try_from(new).unwrap_or(usize::MAX));
    let told: Vec<&String> = after.kept.iter().skip(kept).collect();
    let tolerated = |words: &&String| tolerates.iter().any(|part| words.contains(part));
    let wrong: Vec<&str> = told.iter().copied().filter(|words| !tolerated(words)).map(String::as_str).collect();
    // Where more happened than is kept, nobody knows whether the rest could be tolerated.
    let unknown = new.saturating_sub(told.len() as u64);
    ensure!(
        wrong.is_empty() && unknown == 0,
        "the guest broke the protocol {new} times: {}{}",
        wrong.join("; "),
        if unknown == 0 { String::new() } else { format!("; {unknown} times in ways that were not kept") }
    );
    Ok(())
}

/// Keeps the end of the host's trace among the logs, if there is one and it still answers.
pub(crate) fn keep_trace(guest: &mut Guest) {
    if let HostLine::Control(control) = &mut guest.host
        && let Ok(trace) = control.trace(TRACE_LINES)
    {
        let _ = fs::write(guest.logs.join("host-trace.log"), trace);
    }
}

#[cfg(test)]
mod tests {
    use super::{Violations, judge};

    fn violations(total: u64, kept: &[&str]) -> Violations {
        Violations { total, kept: kept.iter().map(|words| (*words).to_owned()).collect() }
    }

    #[test]
    fn only_what_is_new_and_not_tolerated_counts() {
        let (before, after) = (violations(1, &["old"]), violations(3, &["old", "released twice", "late event"]));
        assert!(judge(&before, &before, &[]).is_ok());
        let error = judge(&before, &after, &["late"]).unwrap_err().to_string();
        assert!(error.contains("released twice") && !error.contains("late") && !error.contains("old"), "{error}");
        assert!(judge(&before, &after, &["late", "twice"]).is_ok());
    }

    #[test]
    fn what_was_not_kept_is_not_tolerated() {
        let (before, after) = (violations(0, &[]), violations(9, &["late", "late"]));
        assert!(judge(&before, &after, &["late"]).unwrap_err().to_string().contains("7 times"));
    }
}
