//! What one cycle does: decided by a seed, so that a run is the same plan again, if not the same interleaving.

use vmbus_simhost::Random;

/// When the host takes the channel back, as seen from the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Right behind the offer: the application may not even have heard of it.
    BehindOffer,
    /// The application knows it and has not opened it.
    BeforeOpen,
    /// At the same time as the open.
    WhileOpening,
    /// Between two packets.
    InTraffic,
    /// At the same time as the close.
    WhileClosing,
    /// The channel is closed again.
    AfterClose,
}

impl Moment {
    const ALL: [Self; 6] = [
        Self::BehindOffer,
        Self::BeforeOpen,
        Self::WhileOpening,
        Self::InTraffic,
        Self::WhileClosing,
        Self::AfterClose,
    ];
}

/// One cycle: offer, open, traffic, close and rescind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) rescind: Moment,
    /// Packets to be echoed.
    pub(super) packets: u32,
    /// A dispatcher receives, instead of the application.
    pub(super) dispatched: bool,
    /// Bytes of a buffer that is shared meanwhile; zero is none.
    pub(super) buffer_bytes: u32,
    /// Times that the channel is opened, traffic included, before the end.
    pub(super) opens: u32,
}

impl Plan {
    pub(super) fn next(random: &mut Random) -> Self {
        let moment = usize::try_from(random.below(6)).unwrap_or_default();
        Self {
            rescind: Moment::ALL.get(moment).copied().unwrap_or(Moment::AfterClose),
            packets: if random.chance(1, 4) { 8 } else { 1 },
            dispatched: random.chance(1, 2),
            buffer_bytes: if random.chance(1, 16) { 64 * 1024 } else { 0 },
            opens: if random.chance(1, 8) { 2 } else { 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_comes_up_and_a_seed_is_a_plan() {
        let plans = |seed| {
            let mut random = Random::new(seed);
            (0..200).map(|_| Plan::next(&mut random)).collect::<Vec<_>>()
        };
        let of_seven = plans(7);
        assert_eq!(of_seven, plans(7));
        assert_ne!(of_seven, plans(8));
        for moment in Moment::ALL {
            assert!(of_seven.iter().any(|plan| plan.rescind == moment), "{moment:?}");
        }
    }
}
