//! Faults as text: `KIND:EFFECT:PERMILLE[:TIMES]`.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vmbus_simhost::fault::{Effect, Kind, RingFault, Rule, Target};

/// Delays are no longer than this.
const DELAY_AT_MOST: Duration = Duration::from_secs(60);

/// Messages of the host, by name.
const OF_HOST: [(&str, Kind); 13] = [
    ("offer", Kind::OFFER),
    ("rescind", Kind::RESCIND),
    ("all-offers-delivered", Kind::ALL_OFFERS_DELIVERED),
    ("open-result", Kind::OPEN_RESULT),
    ("gpadl-created", Kind::GPADL_CREATED),
    ("gpadl-torndown", Kind::GPADL_TORNDOWN),
    ("version-response", Kind::VERSION_RESPONSE),
    ("unload-response", Kind::UNLOAD_RESPONSE),
    ("close-reserved-response", Kind::CLOSE_RESERVED_RESPONSE),
    ("tl-connect-result", Kind::TL_CONNECT_RESULT),
    ("modify-channel-response", Kind::MODIFY_CHANNEL_RESPONSE),
    ("modify-connection-response", Kind::MODIFY_CONNECTION_RESPONSE),
    ("pause-response", Kind::PAUSE_RESPONSE),
];

/// Messages of the guest, by name.
const OF_GUEST: [(&str, Kind); 16] = [
    ("request-offers", Kind::REQUEST_OFFERS),
    ("open", Kind::OPEN),
    ("close", Kind::CLOSE),
    ("gpadl-header", Kind::GPADL_HEADER),
    ("gpadl-body", Kind::GPADL_BODY),
    ("gpadl-teardown", Kind::GPADL_TEARDOWN),
    ("relid-released", Kind::RELID_RELEASED),
    ("initiate-contact", Kind::INITIATE_CONTACT),
    ("unload", Kind::UNLOAD),
    ("open-reserved", Kind::OPEN_RESERVED),
    ("close-reserved", Kind::CLOSE_RESERVED),
    ("tl-connect", Kind::TL_CONNECT),
    ("modify-channel", Kind::MODIFY_CHANNEL),
    ("modify-connection", Kind::MODIFY_CONNECTION),
    ("pause", Kind::PAUSE),
    ("resume", Kind::RESUME),
];

/// One rule.
pub(super) fn rule(text: &str) -> Result<Rule> {
    let mut parts = text.split(':');
    let (Some(kind), Some(how), Some(permille)) = (parts.next(), parts.next(), parts.next()) else {
        bail!("`{text}` is no fault: KIND:EFFECT:PERMILLE[:TIMES]");
    };
    let permille = permille.parse().ok().filter(|often| *often <= 1000);
    let permille = permille.with_context(|| format!("`{text}`: how often counts in thousandths"))?;
    let left = parts.next().map(str::parse).transpose().with_context(|| format!("`{text}`: how many times?"))?;
    ensure!(parts.next().is_none(), "`{text}` has too many parts");
    Ok(Rule { target: target(kind)?, effect: effect(how)?, permille, left })
}

fn target(text: &str) -> Result<Target> {
    let named = |all: &[(&str, Kind)]| all.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
    Ok(match text {
        "host" => Target::AnyHost,
        "guest" => Target::AnyGuest,
        "interrupt" => Target::Interrupt,
        "signal" => Target::Signal,
        "ring" => Target::Ring,
        _ => match (named(&OF_HOST), named(&OF_GUEST)) {
            (Some(kind), _) => Target::Host(kind),
            (_, Some(kind)) => Target::Guest(kind),
            _ => bail!("`{text}` is no message, and none of: host, guest, interrupt, signal, ring"),
        },
    })
}

fn effect(text: &str) -> Result<Effect> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    Ok(match (name, value) {
        ("drop", None) => Effect::Drop,
        ("delay", Some(time)) => Effect::Delay(duration(time)?),
        ("duplicate", None) => Effect::Duplicate,
        ("reorder", by) => {
            Effect::Reorder(by.unwrap_or("1").parse().with_context(|| format!("`{text}`: by how many?"))?)
        }
        ("truncate", None) => Effect::Truncate,
        ("corrupt", None) => Effect::Corrupt,
        ("mutate", None) => Effect::Mutate,
        ("inline", None) => Effect::Inline,
        _ => bail!("`{text}` is no effect"),
    })
}

/// A time such as `5ms`, `100us` or `2s`.
fn duration(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: Option<u64> = digits.parse().ok();
    let time = match (number, text.strip_prefix(digits)) {
        (Some(number), Some("us")) => Duration::from_micros(number),
        (Some(number), Some("ms")) => Duration::from_millis(number),
        (Some(number), Some("s")) => Duration::from_secs(number),
        _ => bail!("`{text}` is no time such as 5ms"),
    };
    ensure!(time <= DELAY_AT_MOST, "{text} is longer than a minute");
    Ok(time)
}

/// What of a ring is to be spoiled, such as `write-index`; `None` is any of them.
pub(super) fn ring_fault(text: &str) -> Result<Option<RingFault>> {
    if text == "any" {
        return Ok(None);
    }
    let bare: String = text.chars().filter(|letter| *letter != '-').collect();
    let found = RingFault::ALL.into_iter().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(&bare));
    found.map(Some).with_context(|| format!("`{text}` is nothing of a ring: any, or one of {:?}", RingFault::ALL))
}
