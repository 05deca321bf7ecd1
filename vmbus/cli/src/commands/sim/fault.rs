//! Faults on the command line: `TARGET=EFFECT[@PERMILLE]`.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use vmbus_simhost::fault::{Effect, Kind, Rule, Target};

/// For the help.
pub(crate) const HELP: &str = "A fault, as TARGET=EFFECT[@PERMILLE]: targets host, guest, host.TYPE, guest.TYPE (a \
message type), interrupt, signal, ring; effects drop, delay, duplicate, reorder, truncate, corrupt, mutate, inline; \
10 of a thousand times if nothing else is said. Several add up";

/// How often, if nothing is said.
const PERMILLE: u16 = 10;
/// How long a delay is at most.
const DELAY: Duration = Duration::from_millis(5);

/// A fault from the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) Rule);

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (target, effect) = text.split_once('=').context("there is no `=` between target and effect")?;
        let (effect, permille) = match effect.split_once('@') {
            Some((effect, permille)) => (effect, permille.parse().context("the number behind `@` is none")?),
            None => (effect, PERMILLE),
        };
        ensure!(permille <= 1000, "{permille} of a thousand times is too often");
        Ok(Self(Rule::sometimes(parse_target(target)?, parse_effect(effect)?, permille)))
    }
}

fn parse_target(text: &str) -> anyhow::Result<Target> {
    let kind = |number: &str| number.parse().map(Kind).with_context(|| format!("`{number}` is no message type"));
    Ok(match text.split_once('.') {
        Some(("host", number)) => Target::Host(kind(number)?),
        Some(("guest", number)) => Target::Guest(kind(number)?),
        _ => match text {
            "host" => Target::AnyHost,
            "guest" => Target::AnyGuest,
            "interrupt" => Target::Interrupt,
            "signal" => Target::Signal,
            "ring" => Target::Ring,
            other => bail!("`{other}` is no target"),
        },
    })
}

fn parse_effect(text: &str) -> anyhow::Result<Effect> {
    Ok(match text {
        "drop" => Effect::Drop,
        "delay" => Effect::Delay(DELAY),
        "duplicate" => Effect::Duplicate,
        "reorder" => Effect::Reorder(3),
        "truncate" => Effect::Truncate,
        "corrupt" => Effect::Corrupt,
        "mutate" => Effect::Mutate,
        "inline" => Effect::Inline,
        other => bail!("`{other}` is no effect"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_understood_or_refused() {
        let parse = |text: &str| text.parse::<Fault>().map(|fault| fault.0).map_err(|error| format!("{error:#}"));
        assert_eq!(parse("host.6=drop@50"), Ok(Rule::sometimes(Target::Host(Kind::OPEN_RESULT), Effect::Drop, 50)));
        assert_eq!(parse("ring=mutate"), Ok(Rule::sometimes(Target::Ring, Effect::Mutate, 10)));
        for bad in ["", "host", "host=", "host=lose", "moon=drop", "host.x=drop", "host=drop@1001", "host=drop@-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
