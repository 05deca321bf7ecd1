//! Plays scenarios: boots what they need, watches the kernel's log, tells our failures from the emulator's.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::agent::Silent;
use super::boot::{BootFailed, Nursery, Wish};
use super::guest::Guest;
use super::host::Host;
use super::kernel::Kernel;
use super::kernel_log::{Complaint, complaints};
use super::line::Gone;
use super::machine::{Acceleration, Shape};
use super::scenario::{Scenario, Scene};
use super::verdict;
use crate::process::Interrupted;

/// Scenarios that share a boot.
#[derive(Debug)]
pub(crate) struct Round {
    /// Name of the boot.
    pub(crate) name: String,
    /// The name without what tells it from others like it.
    kind: String,
    /// What is booted.
    pub(crate) wish: Wish,
    /// Nothing can be added.
    closed: bool,
    /// What is played, in this order.
    pub(crate) scenarios: Vec<&'static Scenario>,
}

/// How a scenario went.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Which one.
    pub(crate) name: &'static str,
    /// What it proves.
    pub(crate) summary: &'static str,
    /// Whose VMBus it was about.
    pub(crate) host: Host,
    /// On which kernel, as `uname -r` prints it, or its name here if it did not boot.
    pub(crate) kernel: String,
    /// Why it was not played; then it has not passed.
    pub(crate) skipped: Option<String>,
    /// How long it took, the boot not included.
    pub(crate) seconds: f64,
    /// The steps it told.
    pub(crate) steps: Vec<String>,
    /// What it measured, by name.
    pub(crate) figures: Vec<(String, f64)>,
    /// Why it failed; nothing if it passed.
    pub(crate) failure: Option<Failure>,
    /// What went wrong the first time, if this is the second.
    pub(crate) first_try: Option<String>,
}

/// Why a scenario failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// What was wrong, with its causes.
    pub(crate) why: String,
    /// It looks like the emulator's doing, or like a known race of the kernel's own, and not like the driver's.
    pub(crate) emulator: bool,
    /// What the guest's kernel complained of meanwhile.
    pub(crate) complaints: Vec<Complaint>,
}

/// Groups scenarios by boot: those that can share one, and each that wants its own, in the order of the list.
pub(crate) fn rounds(chosen: &[(&'static Scenario, Kernel)]) -> Vec<Round> {
    let mut rounds: Vec<Round> = Vec::new();
    for (scenario, kernel) in chosen {
        let Scenario { host, shape, lsvmbus, .. } = **scenario;
        let wish = Wish { host, kernel: *kernel, shape, lsvmbus };
        let open = rounds.iter_mut().find(|round| {
            // A Python more in the image does no harm to the others.
            let alike = Wish { lsvmbus, ..round.wish } == wish;
            alike && !scenario.own_boot && !scenario.bare && !round.closed
        });
        if let Some(round) = open {
            round.wish.lsvmbus |= lsvmbus;
            round.scenarios.push(scenario);
            continue;
        }
        let kind = match shape.processors {
            processors if processors == Shape::of(host).processors => format!("{host}-{kernel}"),
            processors => format!("{host}-{kernel}-{processors}cpu"),
        };
        let first = scenario.kernels.first() == Some(kernel);
        let name = match (scenario.own_boot, first) {
            (false, _) => kind,
            (true, true) => scenario.name.to_owned(),
            (true, false) => format!("{}-{kernel}", scenario.name),
        };
        let alike = rounds.iter().filter(|round| round.kind == name).count();
        let (kind, name) = (name.clone(), if alike == 0 { name } else { format!("{name}-{}", alike + 1) });
        rounds.push(Round { name, kind, wish, closed: scenario.own_boot, scenarios: vec![scenario] });
    }
    rounds
}

/// Plays a round; each outcome is passed on as it comes. Returns the guest if it is still good.
///
/// A scenario that fails gets the guest taken away, so that the next one starts from a fresh boot. One that the
/// emulator seems to have broken is played once more.
///
/// # Errors
/// This process was interrupted, or something around the guests failed.
pub(crate) fn play(nursery: &Nursery, round: &Round, outcomes: &mut Vec<Outcome>) -> Result<Option<Guest>> {
    let mut guest: Option<Guest> = None;
    for scenario in &round.scenarios {
        let mut first_try = None;
        for attempt in 1..=2 {
            let (mut outcome, after) = play_one(nursery, round, scenario, guest.take(), attempt)?;
            guest = after;
            let again = attempt == 1 && outcome.failure.as_ref().is_some_and(|failure| failure.emulator);
            tell(nursery, &outcome, again);
            outcome.first_try = first_try.take();
            if !again {
                outcomes.push(outcome);
                break;
            }
            first_try = outcome.failure.map(|failure| failure.why);
        }
    }
    Ok(guest)
}

fn play_one(
    nursery: &Nursery,
    round: &Round,
    scenario: &'static Scenario,
    guest: Option<Guest>,
    attempt: u32,
) -> Result<(Outcome, Option<Guest>)> {
    let mut outcome = Outcome::of(scenario, round.wish.kernel);
    let boot = match (attempt, scenario.name == round.scenarios.first().map_or("", |first| first.name)) {
        (1, true) => round.name.clone(),
        (1, false) => format!("{}-from-{}", round.name, scenario.name),
        _ => format!("{}-again-{}", round.name, scenario.name),
    };
    let booted = guest.map_or_else(|| nursery.boot(&round.wish, &boot), Ok);
    let mut guest = match booted {
        Ok(guest) => guest,
        Err(error) if error.is::<BootFailed>() => {
            // A second boot has been tried already: no third here.
            outcome.failure = Some(Failure { why: format!("{error:#}"), emulator: false, complaints: Vec::new() });
            return Ok((outcome, None));
        }
        Err(error) => return Err(error),
    };
    outcome.kernel.clone_from(&guest.hello.release);
    nursery.progress.say(format!("{}: {}", scenario.name, scenario.summary));
    let start = Instant::now();
    let offers = verdict::standing(&mut guest);
    let played = play_in(nursery, scenario, &mut guest, &mut outcome);
    outcome.seconds = start.elapsed().as_secs_f64();
    let (result, found) = played?;
    outcome.failure = judge(&mut guest, result, found)?;
    if outcome.failure.is_some() {
        verdict::keep_trace(&mut guest);
        return Ok((outcome, None));
    }
    let tidy = guest.end_jobs().is_ok() && offers.is_ok_and(|offers| verdict::tidy(&mut guest, &offers));
    Ok((outcome, tidy.then_some(guest)))
}

/// Plays the scenario and reads the kernel's log of that time. Fails only if the lab itself has to stop.
fn play_in(
    nursery: &Nursery,
    scenario: &'static Scenario,
    guest: &mut Guest,
    outcome: &mut Outcome,
) -> Result<(Result<()>, Vec<Complaint>)> {
    let nested = guest.acceleration == Acceleration::Nested;
    let prepared = if scenario.bare { Ok(()) } else { guest.load_modules() };
    let log_start = match prepared.and_then(|()| guest.kernel_log_mark()) {
        Ok(mark) => mark,
        Err(error) => return stop_or(error).map(|error| (Err(error), Vec::new())),
    };
    let (steps, figures) = (Vec::new(), Vec::new());
    let mut scene = Scene { guest, name: scenario.name, progress: &nursery.progress, log_start, steps, figures };
    let result = (scenario.play)(&mut scene);
    outcome.steps = std::mem::take(&mut scene.steps);
    outcome.figures = std::mem::take(&mut scene.figures);
    // A guest that was reset has a log that begins anew.
    let log_start = scene.log_start;
    let result = result.and_then(|()| verdict::obeyed(guest, scenario.tolerates));
    let result = match result {
        Err(error) => Err(stop_or(error)?),
        Ok(()) => Ok(()),
    };
    match guest.kernel_log(log_start) {
        Ok((lines, _)) => {
            let mut log = OpenOptions::new().create(true).append(true).open(guest.logs.join("kernel.log"))?;
            writeln!(log, "--- {}", scenario.name).and_then(|()| writeln!(log, "{}", lines.join("\n")))?;
            Ok((result, complaints(lines.iter().map(String::as_str), nested)))
        }
        Err(error) => Ok((result.and(Err(stop_or(error)?).context("read the kernel's log afterwards")), Vec::new())),
    }
}

/// Passes an interruption on as an error of the lab; any other error is the scenario's.
fn stop_or(error: anyhow::Error) -> Result<anyhow::Error> {
    if error.is::<Interrupted>() { bail!(error) } else { Ok(error) }
}

fn judge(guest: &mut Guest, result: Result<()>, complaints: Vec<Complaint>) -> Result<Option<Failure>> {
    let all_emulator = !complaints.is_empty() && complaints.iter().all(|complaint| complaint.emulator);
    let (why, emulator) = match result {
        Ok(()) => match complaints.first() {
            None => return Ok(None),
            Some(first) => (format!("the guest's kernel complained: {}", first.line), all_emulator),
        },
        Err(error) if error.is::<Gone>() || error.is::<Silent>() => match guest.post_mortem()? {
            Some(sign) => (format!("{error:#}; {}", sign.text), sign.emulator || all_emulator),
            None => (format!("{error:#}"), all_emulator),
        },
        Err(error) => (format!("{error:#}"), all_emulator),
    };
    Ok(Some(Failure { why, emulator, complaints }))
}

impl Outcome {
    /// A scenario that has not been played yet.
    fn of(scenario: &Scenario, kernel: Kernel) -> Self {
        Self {
            name: scenario.name,
            summary: scenario.summary,
            host: scenario.host,
            kernel: kernel.to_string(),
            skipped: None,
            seconds: 0.0,
            steps: Vec::new(),
            figures: Vec::new(),
            failure: None,
            first_try: None,
        }
    }

    /// A scenario that can't be played, and why.
    pub(crate) fn skipped(scenario: &Scenario, kernel: Kernel, why: String) -> Self {
        Self { skipped: Some(why), ..Self::of(scenario, kernel) }
    }
}

fn tell(nursery: &Nursery, outcome: &Outcome, again: bool) {
    let seconds = Duration::from_secs_f64(outcome.seconds);
    match &outcome.failure {
        None => nursery.progress.say(format!("{}: passed in {:.1} s", outcome.name, seconds.as_secs_f64())),
        Some(failure) => {
            let whose =
                if failure.emulator { " (the emulator's doing or a known race of the kernel's, it seems)" } else { "" };
            let next = if again { "; playing it once more on a fresh boot" } else { "" };
            nursery.progress.say(format!("{}: FAILED{whose}: {}{next}", outcome.name, failure.why));
            for complaint in &failure.complaints {
                nursery.progress.say(format!("    kernel: {}", complaint.line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Host, Kernel, rounds};
    use crate::lab::scenario::all;

    #[test]
    fn scenarios_share_a_boot_unless_they_want_their_own() {
        let chosen: Vec<_> = all()
            .filter(|scenario| scenario.host == Host::Qemu)
            .map(|scenario| (scenario, scenario.kernels[0]))
            .collect();
        let rounds = rounds(&chosen);
        let names: Vec<&str> = rounds.iter().map(|round| round.name.as_str()).collect();
        let own = ["unbind-under-load", "unbind-contiguous", "registry-100"];
        assert_eq!(names, [&["qemu-6.12"], &own[..], &["qemu-6.1"]].concat());
        assert_eq!(rounds.iter().map(|round| round.scenarios.len()).sum::<usize>(), chosen.len());
        assert_eq!(rounds[4].wish.kernel, Kernel::V6_1);
    }

    #[test]
    fn no_round_mixes_hosts_kernels_or_machines_and_none_shares_its_name() {
        let chosen: Vec<_> =
            all().flat_map(|scenario| scenario.kernels.iter().map(move |kernel| (scenario, *kernel))).collect();
        let rounds = rounds(&chosen);
        for round in &rounds {
            for scenario in &round.scenarios {
                assert_eq!((scenario.host, scenario.shape), (round.wish.host, round.wish.shape), "{}", round.name);
                assert!(scenario.kernels.contains(&round.wish.kernel));
                assert!(round.wish.lsvmbus || !scenario.lsvmbus);
            }
            assert!(round.scenarios.iter().skip(1).all(|scenario| !scenario.bare), "{}", round.name);
        }
        let mut names: Vec<_> = rounds.iter().map(|round| &round.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), rounds.len());
        assert_eq!(rounds.iter().map(|round| round.scenarios.len()).sum::<usize>(), chosen.len());
    }
}
