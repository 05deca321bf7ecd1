//! The choice of versions: the host offers, the guest takes the best that it knows, first of the framework, then of the
//! component's messages.

use zerocopy::{FromBytes, IntoBytes};

use super::wire::{MAX_OFFERED_VERSIONS, Negotiate, Version, WireVersion};

/// What a guest knows, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Versions of the framework.
    pub frameworks: &'static [Version],
    /// Versions of the component's messages.
    pub messages: &'static [Version],
}

/// What host and guest speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The framework.
    pub framework: Version,
    /// The component's messages.
    pub message: Version,
}

/// Why an offer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadOffer {
    /// Shorter than its counts, or than what says how many.
    #[error("an offer of versions that is cut off after {bytes} bytes")]
    Short {
        /// What there is.
        bytes: usize,
    },
    /// More than a host has.
    #[error("an offer of {frameworks} framework and {messages} message versions, more than 100 of a kind")]
    TooMany {
        /// Of the framework.
        frameworks: u16,
        /// Of the messages.
        messages: u16,
    },
}

/// Reads the offer in `body` and writes the answer over it. `None`: there is nothing in common, and the answer says so,
/// as it does for an offer that is none.
///
/// # Errors
/// [`BadOffer`]; where there is room for an answer, it is a refusal.
pub fn negotiate(known: Known, body: &mut [u8]) -> Result<Option<Agreed>, BadOffer> {
    let outcome = choose(known, body);
    answer(body, outcome.ok().flatten());
    outcome
}

fn choose(known: Known, body: &[u8]) -> Result<Option<Agreed>, BadOffer> {
    let short = BadOffer::Short { bytes: body.len() };
    let (offer, versions) = Negotiate::read_from_prefix(body).map_err(|_| short)?;
    let (frameworks, messages) = (offer.framework_count.get(), offer.message_count.get());
    if frameworks > MAX_OFFERED_VERSIONS || messages > MAX_OFFERED_VERSIONS {
        return Err(BadOffer::TooMany { frameworks, messages });
    }
    let (of_framework, rest) =
        <[WireVersion]>::ref_from_prefix_with_elems(versions, frameworks.into()).map_err(|_| short)?;
    let (of_messages, _) = <[WireVersion]>::ref_from_prefix_with_elems(rest, messages.into()).map_err(|_| short)?;
    let best = |known: &[Version], offered: &[WireVersion]| {
        known.iter().copied().find(|version| offered.contains(&WireVersion::from(*version)))
    };
    let both = best(known.frameworks, of_framework).zip(best(known.messages, of_messages));
    Ok(both.map(|(framework, message)| Agreed { framework, message }))
}

fn answer(body: &mut [u8], agreed: Option<Agreed>) {
    let Ok((offer, rest)) = Negotiate::mut_from_prefix(body) else { return };
    let count = u16::from(agreed.is_some());
    offer.framework_count = count.into();
    offer.message_count = count.into();
    if let Some(agreed) = agreed {
        // There is room: at least one version of each kind was there.
        let chosen = [WireVersion::from(agreed.framework), WireVersion::from(agreed.message)];
        let _ = chosen.write_to_prefix(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: Known = Known {
        frameworks: &[Version::new(3, 0), Version::new(1, 0)],
        messages: &[Version::new(3, 2), Version::new(3, 0), Version::new(1, 0)],
    };

    fn offer(frameworks: &[(u16, u16)], messages: &[(u16, u16)]) -> Vec<u8> {
        let counts = [frameworks.len(), messages.len()].map(|count| u16::try_from(count).unwrap());
        raw_offer(counts, &[frameworks, messages].concat())
    }

    fn raw_offer(counts: [u16; 2], versions: &[(u16, u16)]) -> Vec<u8> {
        let mut bytes = [counts[0].to_le_bytes(), counts[1].to_le_bytes(), [0; 2], [0; 2]].concat();
        bytes.extend(versions.iter().flat_map(|(major, minor)| [major.to_le_bytes(), minor.to_le_bytes()].concat()));
        bytes
    }

    /// What is offered, and what comes of it: framework and message, or nothing in common.
    #[test]
    fn the_best_that_both_know_is_taken() {
        type Versions = &'static [(u16, u16)];
        type Row = (Versions, Versions, Option<[(u16, u16); 2]>);
        let table: [Row; 8] = [
            (&[(1, 0), (3, 0)], &[(1, 0), (3, 0), (3, 1), (3, 2)], Some([(3, 0), (3, 2)])),
            (&[(3, 0)], &[(3, 0), (9, 9)], Some([(3, 0), (3, 0)])),
            (&[(1, 0)], &[(1, 0)], Some([(1, 0), (1, 0)])),
            (&[(2, 0)], &[(3, 2)], None),
            (&[(3, 0)], &[(3, 3)], None),
            (&[(3, 0)], &[], None),
            (&[], &[(3, 0)], None),
            // A version of the framework does not count among those of the messages, and the other way round.
            (&[(3, 0), (3, 2)], &[(7, 7)], None),
        ];
        for (frameworks, messages, expected) in table {
            let mut body = offer(frameworks, messages);
            let agreed = negotiate(KNOWN, &mut body).unwrap();
            let versions = expected.map(|both| both.map(|(major, minor)| Version::new(major, minor)));
            assert_eq!(agreed, versions.map(|[framework, message]| Agreed { framework, message }));
            match expected {
                Some(both) => assert_eq!(body[..16], raw_offer([1, 1], &both)),
                None => assert_eq!(body[..8], raw_offer([0, 0], &[])),
            }
        }
    }

    #[test]
    fn offers_at_the_limits() {
        let hundred = [[(9, 9); 99].as_slice(), &[(3, 0)]].concat();
        let mut body = offer(&hundred, &hundred);
        assert_eq!(body.len(), 8 + 800);
        assert!(negotiate(KNOWN, &mut body.clone()).unwrap().is_some());
        // One byte short; a count more than there are; a count more than allowed; no counts.
        assert_eq!(negotiate(KNOWN, &mut body.clone()[..807]), Err(BadOffer::Short { bytes: 807 }));
        body[2] = 101;
        let mut longer = [body, vec![0; 8]].concat();
        assert_eq!(negotiate(KNOWN, &mut longer), Err(BadOffer::TooMany { frameworks: 100, messages: 101 }));
        assert_eq!(longer[..4], [0; 4], "refused");
        for bytes in 0..8 {
            assert_eq!(negotiate(KNOWN, &mut vec![255; bytes]), Err(BadOffer::Short { bytes }));
        }
        let mut greedy = raw_offer([2, 1], &[(3, 0), (1, 0)]);
        assert_eq!(negotiate(KNOWN, &mut greedy), Err(BadOffer::Short { bytes: 16 }));
        assert_eq!(greedy[..4], [0; 4], "refused");
    }

    proptest! {
        #[test]
        fn nothing_that_is_offered_breaks_it(mut body in proptest::collection::vec(any::<u8>(), 0..900)) {
            let before = body.len();
            if let Ok(Some(agreed)) = negotiate(KNOWN, &mut body) {
                prop_assert!(KNOWN.frameworks.contains(&agreed.framework));
                prop_assert!(KNOWN.messages.contains(&agreed.message));
            }
            prop_assert_eq!(body.len(), before);
        }
    }
}
