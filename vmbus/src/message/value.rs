//! Values inside messages: open newtypes, as the host may send any.

use std::fmt;

/// Bytes of data that the device's class defines, in offers and open requests.
pub const USER_DEFINED_BYTES: usize = 120;

/// Data that the device's class defines.
pub type UserDefined = [u8; USER_DEFINED_BYTES];

/// A version of the protocol: major in the upper 16 bits, minor in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl Version {
    /// Windows 8, Server 2012.
    pub const V2_4: Self = Self::new(2, 4);
    /// Windows 8.1, Server 2012 R2.
    pub const V3_0: Self = Self::new(3, 0);
    /// Windows 10, Server 2016.
    pub const V4_0: Self = Self::new(4, 0);
    /// Windows 10 1709: channels can be moved.
    pub const V4_1: Self = Self::new(4, 1);
    /// Windows 10 1803: messages go to a connection id that the host chooses.
    pub const V5_0: Self = Self::new(5, 0);
    /// Windows 10 1803.
    pub const V5_1: Self = Self::new(5, 1);
    /// Windows 10 1809, Server 2019.
    pub const V5_2: Self = Self::new(5, 2);
    /// Windows Server 2022: moves are answered.
    pub const V5_3: Self = Self::new(5, 3);
    /// Feature flags.
    pub const V6_0: Self = Self::new(6, 0);

    /// What a guest offers, best first.
    pub const ALL: [Self; 9] =
        [Self::V6_0, Self::V5_3, Self::V5_2, Self::V5_1, Self::V5_0, Self::V4_1, Self::V4_0, Self::V3_0, Self::V2_4];

    /// From its parts.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self((major as u32) << 16 | minor as u32)
    }

    /// Before the dot.
    #[must_use]
    pub const fn major(self) -> u32 {
        self.0 >> 16
    }

    /// Behind the dot.
    #[must_use]
    pub const fn minor(self) -> u32 {
        self.0 & 0xffff
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major(), self.minor())
    }
}

bitflags::bitflags! {
    /// What 6.0 lets both sides agree on.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Features: u32 {
        /// The guest may choose event flag and connection id when it opens a channel.
        const GUEST_SPECIFIED_SIGNAL_PARAMETERS = 1;
        /// [`OpenFlags::REDIRECT_INTERRUPT`] is known.
        const CHANNEL_INTERRUPT_REDIRECTION = 1 << 1;
        /// Monitor pages can be changed while connected.
        const MODIFY_CONNECTION = 1 << 2;
        /// The guest says who it is.
        const CLIENT_ID = 1 << 3;
        /// The confidential offer flags are known.
        const CONFIDENTIAL_CHANNELS = 1 << 4;
        /// Control messages can be paused.
        const PAUSE_RESUME = 1 << 5;
        const _ = !0;
    }

    /// What a channel is like.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct OfferFlags: u16 {
        /// The device interface is to be enumerated.
        const ENUMERATE_DEVICE_INTERFACE = 1;
        /// On a confidential VM the rings must be in encrypted memory.
        const CONFIDENTIAL_RING_BUFFER = 1 << 1;
        /// On a confidential VM other buffers must be in encrypted memory.
        const CONFIDENTIAL_EXTERNAL_MEMORY = 1 << 2;
        /// A pipe: the user-defined bytes begin with its type.
        const NAMED_PIPE_MODE = 1 << 4;
        /// A hvsock channel.
        const TLNPI_PROVIDER = 1 << 13;
        const _ = !0;
    }

    /// How a channel is opened (long form).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct OpenFlags: u16 {
        /// Interrupts go to the redirected source.
        const REDIRECT_INTERRUPT = 1;
        const _ = !0;
    }
}

impl Features {
    /// The features that have a name. (`all()` has every bit, as a host may send any.)
    pub const KNOWN: Self = Self::GUEST_SPECIFIED_SIGNAL_PARAMETERS
        .union(Self::CHANNEL_INTERRUPT_REDIRECTION)
        .union(Self::MODIFY_CONNECTION)
        .union(Self::CLIENT_ID)
        .union(Self::CONFIDENTIAL_CHANNELS)
        .union(Self::PAUSE_RESUME);
}

/// A GPADL: guest pages that the host may reach under this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpadlId(pub u32);

/// An NTSTATUS or a Win32 code; zero is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u32);

impl Status {
    /// It worked.
    pub const SUCCESS: Self = Self(0);
    /// It did not.
    pub const UNSUCCESSFUL: Self = Self(0x8000_ffff);
    /// Nobody listens there.
    pub const CONNECTION_REFUSED: Self = Self(0xc000_0236);

    /// Whether it worked.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }
}

/// How a connection was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionState(pub u8);

impl ConnectionState {
    /// Connected.
    pub const SUCCESSFUL: Self = Self(0);
    /// The host lacks resources.
    pub const FAILED_LOW_RESOURCES: Self = Self(1);
    /// The host does not say why.
    pub const FAILED_UNKNOWN: Self = Self(2);
}
