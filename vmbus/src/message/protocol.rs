//! What guest and host have agreed on, which decides what messages there are and how long they are.

use std::fmt;

use super::value::{Features, Version};

/// What guest and host have agreed on. Both parsing and encoding depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Protocol {
    /// The version that the host accepted; `None` before contact and after an unload.
    pub version: Option<Version>,
    /// The features that both know. They count from 6.0 on only, see [`Protocol::has`].
    pub features: Features,
}

impl Protocol {
    /// Before contact: only the hello and its answer (and the close of a reserved channel) are understood.
    pub const NONE: Self = Self { version: None, features: Features::empty() };

    /// After a version was accepted, with the features that both know.
    #[must_use]
    pub const fn new(version: Version, features: Features) -> Self {
        Self { version: Some(version), features }
    }

    /// Whether a version was agreed on that is at least this one.
    #[must_use]
    pub fn at_least(self, version: Version) -> bool {
        self.version.is_some_and(|agreed| agreed >= version)
    }

    /// Whether one or more of these features were agreed on. Before 6.0 there are none, whatever `features` says.
    #[must_use]
    pub fn has(self, any_of: Features) -> bool {
        self.at_least(Version::V6_0) && self.features.intersects(any_of)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(version) = self.version else { return write!(formatter, "no version yet") };
        write!(formatter, "version {version}")?;
        if version >= Version::V6_0 { write!(formatter, " with features {:#x}", self.features.bits()) } else { Ok(()) }
    }
}
