//! One rule of the fault layer: about what, how often, and what is done.

use std::time::Duration;

/// The type of a control message, as in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u32);

#[expect(missing_docs, reason = "the names are those of the messages")]
impl Kind {
    pub const OFFER: Self = Self(1);
    pub const RESCIND: Self = Self(2);
    pub const REQUEST_OFFERS: Self = Self(3);
    pub const ALL_OFFERS_DELIVERED: Self = Self(4);
    pub const OPEN: Self = Self(5);
    pub const OPEN_RESULT: Self = Self(6);
    pub const CLOSE: Self = Self(7);
    pub const GPADL_HEADER: Self = Self(8);
    pub const GPADL_BODY: Self = Self(9);
    pub const GPADL_CREATED: Self = Self(10);
    pub const GPADL_TEARDOWN: Self = Self(11);
    pub const GPADL_TORNDOWN: Self = Self(12);
    pub const RELID_RELEASED: Self = Self(13);
    pub const INITIATE_CONTACT: Self = Self(14);
    pub const VERSION_RESPONSE: Self = Self(15);
    pub const UNLOAD: Self = Self(16);
    pub const UNLOAD_RESPONSE: Self = Self(17);
    pub const OPEN_RESERVED: Self = Self(18);
    pub const CLOSE_RESERVED: Self = Self(19);
    pub const CLOSE_RESERVED_RESPONSE: Self = Self(20);
    pub const TL_CONNECT: Self = Self(21);
    pub const MODIFY_CHANNEL: Self = Self(22);
    pub const TL_CONNECT_RESULT: Self = Self(23);
    pub const MODIFY_CHANNEL_RESPONSE: Self = Self(24);
    pub const MODIFY_CONNECTION: Self = Self(25);
    pub const MODIFY_CONNECTION_RESPONSE: Self = Self(26);
    pub const PAUSE: Self = Self(27);
    pub const PAUSE_RESPONSE: Self = Self(28);
    pub const RESUME: Self = Self(29);
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Messages of the host of this type.
    Host(Kind),
    /// All messages of the host.
    AnyHost,
    /// Messages of the guest of this type.
    Guest(Kind),
    /// All messages of the guest.
    AnyGuest,
    /// Interrupts of the guest.
    Interrupt,
    /// Signals of the guest.
    Signal,
    /// The rings of a channel, each time the guest is about to be interrupted for it.
    Ring,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It never arrives.
    Drop,
    /// It arrives after a time between none and this.
    Delay(Duration),
    /// It arrives once more.
    Duplicate,
    /// It arrives when this many others have overtaken it.
    Reorder(u8),
    /// It arrives cut short, down to nothing. Messages only.
    Truncate,
    /// Some of its bytes are changed. Messages only; rings at any place.
    Corrupt,
    /// One field holds a value that is not its own. Messages of the host and rings; the guest's are corrupted.
    Mutate,
    /// It arrives at once: rules behind this one leave it alone. (Without rules that is so for everything: a prompt
    /// host completes inline.)
    Inline,
}

/// One rule. Rules are tried in order, and add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// About what.
    pub target: Target,
    /// What is done.
    pub effect: Effect,
    /// How often, of a thousand times.
    pub permille: u16,
    /// How many times more; `None` is without end.
    pub left: Option<u32>,
}

impl Rule {
    /// Each time.
    #[must_use]
    pub const fn always(target: Target, effect: Effect) -> Self {
        Self { target, effect, permille: 1000, left: None }
    }

    /// So often, of a thousand times.
    #[must_use]
    pub const fn sometimes(target: Target, effect: Effect, permille: u16) -> Self {
        Self { target, effect, permille, left: None }
    }

    /// The next time only.
    #[must_use]
    pub const fn once(target: Target, effect: Effect) -> Self {
        Self { target, effect, permille: 1000, left: Some(1) }
    }

    /// A host that never says this.
    #[must_use]
    pub const fn silent(kind: Kind) -> Self {
        Self::always(Target::Host(kind), Effect::Drop)
    }

    /// A host that never hears this.
    #[must_use]
    pub const fn deaf(kind: Kind) -> Self {
        Self::always(Target::Guest(kind), Effect::Drop)
    }

    /// Every fault there is, each so often: delays up to 5 ms.
    #[must_use]
    pub fn chaos(permille: u16) -> Vec<Self> {
        let delay = Effect::Delay(Duration::from_millis(5));
        let messages = [
            delay,
            Effect::Drop,
            Effect::Duplicate,
            Effect::Reorder(2),
            Effect::Truncate,
            Effect::Corrupt,
            Effect::Mutate,
        ];
        let mut rules: Vec<_> =
            messages.into_iter().map(|effect| Self::sometimes(Target::AnyHost, effect, permille)).collect();
        rules.extend(
            [delay, Effect::Drop, Effect::Duplicate].map(|effect| Self::sometimes(Target::Interrupt, effect, permille)),
        );
        rules.extend([delay, Effect::Duplicate].map(|effect| Self::sometimes(Target::Signal, effect, permille)));
        rules.extend([Effect::Mutate, Effect::Corrupt].map(|effect| Self::sometimes(Target::Ring, effect, permille)));
        rules
    }

    /// The order of the host's messages is kept, but nothing else about their timing: what every guest must stand.
    #[must_use]
    pub fn weather(permille: u16) -> Vec<Self> {
        let delay = Effect::Delay(Duration::from_millis(2));
        [(Target::Interrupt, delay), (Target::Interrupt, Effect::Duplicate), (Target::Signal, delay)]
            .map(|(target, effect)| Self::sometimes(target, effect, permille))
            .to_vec()
    }
}
