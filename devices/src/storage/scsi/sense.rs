//! Sense data: why a command failed.

use core::fmt;

use super::long;

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SenseKey(pub u8);

#[expect(missing_docs, reason = "the names are those of the standard")]
impl SenseKey {
    pub const NO_SENSE: Self = Self(0);
    pub const RECOVERED: Self = Self(1);
    pub const NOT_READY: Self = Self(2);
    pub const MEDIUM_ERROR: Self = Self(3);
    pub const HARDWARE_ERROR: Self = Self(4);
    pub const ILLEGAL_REQUEST: Self = Self(5);
    pub const UNIT_ATTENTION: Self = Self(6);
    pub const DATA_PROTECT: Self = Self(7);
    pub const ABORTED: Self = Self(11);

    const fn name(self) -> &'static str {
        match self {
            Self::NO_SENSE => "no sense",
            Self::RECOVERED => "recovered",
            Self::NOT_READY => "not ready",
            Self::MEDIUM_ERROR => "medium error",
            Self::HARDWARE_ERROR => "hardware error",
            Self::ILLEGAL_REQUEST => "illegal request",
            Self::UNIT_ATTENTION => "unit attention",
            Self::DATA_PROTECT => "write protected",
            Self::ABORTED => "aborted",
            _ => "failure",
        }
    }
}

/// Why a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    /// What kind of failure.
    pub key: SenseKey,
    /// The additional sense code.
    pub code: u8,
    /// Its qualifier.
    pub qualifier: u8,
    /// Which block, where the device says so.
    pub information: Option<u64>,
}

impl Sense {
    /// Reads sense data of either format. `None`: they are none, or say nothing.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let at = |place: usize| bytes.get(place).copied();
        match at(0)? & 0x7f {
            // Fixed. Old devices end it early.
            0x70 | 0x71 => {
                let valid = at(0)? & 0x80 != 0;
                let information = bytes.get(3..)?.first_chunk().map(|bytes| u64::from(u32::from_be_bytes(*bytes)));
                Some(Self {
                    key: SenseKey(at(2)? & 0xf),
                    code: at(12).unwrap_or(0),
                    qualifier: at(13).unwrap_or(0),
                    information: information.filter(|_| valid),
                })
            }
            // Descriptors; the first one may be the information.
            0x72 | 0x73 => {
                let information = (at(8) == Some(0) && at(9) >= Some(10)).then(|| long(bytes, 12)).flatten();
                Some(Self { key: SenseKey(at(1)? & 0xf), code: at(2)?, qualifier: at(3)?, information })
            }
            _ => None,
        }
    }

    /// Whether the same command may be sent again at once: the unit only had something to tell.
    #[must_use]
    pub fn is_attention(&self) -> bool {
        self.key == SenseKey::UNIT_ATTENTION
    }

    /// Whether units have come or gone, or are not what they were: look at all of them.
    #[must_use]
    pub fn is_change(&self) -> bool {
        // Capacity; operating conditions, units that there are.
        self.is_attention() && matches!((self.code, self.qualifier), (0x2a, 0x09) | (0x3f, _))
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({:02x}/{:02x}/{:02x})", self.key.name(), self.key.0, self.code, self.qualifier)?;
        match self.information {
            Some(block) => write!(formatter, " at block {block}"),
            None => Ok(()),
        }
    }
}
