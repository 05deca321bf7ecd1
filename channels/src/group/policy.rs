//! Which link a connection gets: one of those that are there, chosen by a rule.

/// How connections are spread over the links of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The link whose interrupts go to the processor that asks; where there is none, one that this processor always gets.
    Affinity,
    /// The link with the fewest connections.
    LeastLoaded,
}

/// A link as a policy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: u64,
    pub(super) processor: u32,
    pub(super) load: usize,
}

impl Policy {
    /// One of the candidates, which come in the order of their ids; none if there are none. `last` is who was chosen
    /// last, `processor` who asks.
    pub(super) fn pick(
        self,
        candidates: impl Iterator<Item = Candidate> + Clone,
        last: u64,
        processor: u32,
    ) -> Option<u64> {
        let mut all = candidates.clone();
        let chosen = match self {
            Self::RoundRobin => all.find(|link| link.id > last).or_else(|| candidates.clone().next()),
            Self::Affinity => all.find(|link| link.processor == processor).or_else(|| {
                let count = candidates.clone().count();
                let place = usize::try_from(processor).unwrap_or(0).checked_rem(count)?;
                candidates.clone().nth(place)
            }),
            Self::LeastLoaded => all.min_by_key(|link| (link.load, link.id)),
        };
        chosen.map(|link| link.id)
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Policy};

    fn links(loads: &[usize]) -> impl Iterator<Item = Candidate> + Clone {
        (0..).zip(loads).map(|(place, load)| Candidate { id: 10 + u64::from(place), processor: place * 2, load: *load })
    }

    #[test]
    fn round_robin_goes_round() {
        let mut last = 0;
        let chosen = [(); 5].map(|()| {
            last = Policy::RoundRobin.pick(links(&[0, 0, 0]), last, 0).unwrap();
            last
        });
        assert_eq!(chosen, [10, 11, 12, 10, 11]);
        // The last one is gone: the next takes its place.
        assert_eq!(Policy::RoundRobin.pick(links(&[0, 0, 0]), 10, 0), Some(11));
        assert_eq!(Policy::RoundRobin.pick(links(&[]), 10, 0), None);
    }

    #[test]
    fn affinity_is_the_same_for_the_same_processor() {
        let pick = |processor| Policy::Affinity.pick(links(&[5, 5, 5]), 0, processor).unwrap();
        assert_eq!([pick(0), pick(2), pick(4)], [10, 11, 12], "its own");
        assert_eq!([pick(1), pick(3), pick(7)], [11, 10, 11], "none: one that stays the same");
        assert_eq!(Policy::Affinity.pick(links(&[]), 0, 1), None);
    }

    #[test]
    fn least_loaded_is_the_least_loaded() {
        assert_eq!(Policy::LeastLoaded.pick(links(&[3, 1, 2]), 0, 0), Some(11));
        assert_eq!(Policy::LeastLoaded.pick(links(&[1, 1]), 11, 0), Some(10), "the first of two");
        assert_eq!(Policy::LeastLoaded.pick(links(&[]), 0, 0), None);
    }
}
