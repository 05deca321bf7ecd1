//! Device classes: the GUID by which a host says what an offered channel speaks.
//!
//! GUIDs as in `include/linux/hyperv.h`; titles as the kernel's `lsvmbus` tool prints them, byte for byte.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use uuid::{Uuid, uuid};

/// A device class: an open newtype, since a host may offer classes that this table does not know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(pub Uuid);

/// What is known about one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The class itself.
    pub class: Class,
    /// The short name used on command lines: lower case, no blanks.
    pub short: &'static str,
    /// The title that `lsvmbus` prints, or `None` where that tool says `Unknown`.
    pub title: Option<&'static str>,
}

/// What `lsvmbus` prints for a class that it does not know.
pub const UNKNOWN_TITLE: &str = "Unknown";

impl Class {
    /// Synthetic network adapter.
    pub const NIC: Self = Self(uuid!("f8615163-df3e-46c5-913f-f2d2f965ed0e"));
    /// Synthetic IDE controller.
    pub const IDE: Self = Self(uuid!("32412632-86cb-44a2-9b5c-50d1417354f5"));
    /// Synthetic SCSI controller.
    pub const SCSI: Self = Self(uuid!("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f"));
    /// Synthetic fibre channel adapter.
    pub const FIBRE_CHANNEL: Self = Self(uuid!("2f9bcc4a-0069-4af3-b76b-6fd0be528cda"));
    /// Integration component: shutdown of the guest.
    pub const SHUTDOWN: Self = Self(uuid!("0e0b6031-5213-4934-818b-38d90ced39db"));
    /// Integration component: time synchronisation.
    pub const TIME_SYNC: Self = Self(uuid!("9527e630-d0ae-497b-adce-e80ab0175caf"));
    /// Integration component: heartbeat.
    pub const HEARTBEAT: Self = Self(uuid!("57164f39-9115-4e78-ab55-382f3bd5422d"));
    /// Integration component: key-value pairs ("data exchange").
    pub const KVP: Self = Self(uuid!("a9a0f4e7-5a45-4d96-b827-8a841e8c03e6"));
    /// Integration component: volume snapshots ("backup").
    pub const VSS: Self = Self(uuid!("35fa2e29-ea23-4236-96ae-3a6ebacba440"));
    /// Integration component: file copy ("guest services").
    pub const FCOPY: Self = Self(uuid!("34d14be3-dee4-41c8-9ae7-6b174977c192"));
    /// Dynamic Memory.
    pub const DYNAMIC_MEMORY: Self = Self(uuid!("525074dc-8985-46e2-8057-a307dc18a502"));
    /// Synthetic keyboard.
    pub const KEYBOARD: Self = Self(uuid!("f912ad6d-2b17-48ea-bd65-f927a61c7684"));
    /// Synthetic mouse.
    pub const MOUSE: Self = Self(uuid!("cfa8b69e-5b4a-4cc0-b98b-8ba1a1f3f95a"));
    /// Synthetic framebuffer.
    pub const VIDEO: Self = Self(uuid!("da0a7802-e377-4aac-8e77-0558eb1073f8"));
    /// PCI Express pass-through; virtual functions of network adapters arrive behind it.
    pub const PCIE: Self = Self(uuid!("44c4f61d-4444-4400-9d52-802e27ede19f"));
    /// Synthetic RDMA adapter (Network Direct).
    pub const RDMA: Self = Self(uuid!("8c2eaf3d-32a7-4b09-ab99-bd1f1c86b501"));
    /// Automatic activation of virtual machines, first channel; Linux ignores it.
    pub const ACTIVATION_1: Self = Self(uuid!("f8e65716-3cb3-4a06-9a60-1889c5cccab5"));
    /// Automatic activation of virtual machines, second channel; Linux ignores it.
    pub const ACTIVATION_2: Self = Self(uuid!("3375baf4-9e15-4b30-b765-67acb10d607b"));
    /// Remote desktop virtualisation; Linux ignores it.
    pub const REMOTE_DESKTOP: Self = Self(uuid!("276aacf4-ac15-426c-98dd-7521ad3f01fe"));
    /// Initial machine configuration; Linux ignores it and `lsvmbus` does not know it.
    pub const MACHINE_CONFIGURATION: Self = Self(uuid!("c376c1c3-d276-48d2-90a9-c04748072c60"));

    /// Every class in the table, in the order of `lsvmbus`, with the one that it lacks last.
    #[must_use]
    pub fn known() -> &'static [Known] {
        TABLE
    }

    /// The table's entry for this class, or `None` for a class that it does not hold.
    #[must_use]
    pub fn lookup(self) -> Option<&'static Known> {
        TABLE.iter().find(|known| known.class == self)
    }

    /// The short name, such as `balloon`, where the class has one.
    #[must_use]
    pub fn short_name(self) -> Option<&'static str> {
        self.lookup().map(|known| known.short)
    }

    /// The title as `lsvmbus` prints it; [`UNKNOWN_TITLE`] for a class that it does not know.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.lookup().and_then(|known| known.title).unwrap_or(UNKNOWN_TITLE)
    }

    /// Reads a short name (`balloon`) or a GUID, with or without braces, in either case.
    ///
    /// Returns `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let named = TABLE.iter().find(|known| known.short.eq_ignore_ascii_case(text)).map(|known| known.class);
        named.or_else(|| parse_guid(text).map(Self))
    }
}

/// Reads a GUID in its 36-character form, with or without braces.
///
/// Stricter than the `uuid` crate's own parser, which takes forms that no VMBus file holds.
pub(crate) fn parse_guid(text: &str) -> Option<Uuid> {
    let bare = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    if bare.len() == uuid::fmt::Hyphenated::LENGTH { Uuid::try_parse(bare).ok() } else { None }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Class({} {})", self.0, self.title())
    }
}

impl Serialize for Class {
    /// As the hyphenated lower-case GUID.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is neither a class name nor a GUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a class name ({names}) nor a GUID", names = short_names())]
pub struct UnknownClass(pub String);

impl FromStr for Class {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| UnknownClass(text.to_owned()))
    }
}

fn short_names() -> String {
    TABLE.iter().map(|known| known.short).collect::<Vec<_>>().join(", ")
}

const fn known(class: Class, short: &'static str, title: &'static str) -> Known {
    Known { class, short, title: Some(title) }
}

const TABLE: &[Known] = &[
    known(Class::SHUTDOWN, "shutdown", "[Operating system shutdown]"),
    known(Class::TIME_SYNC, "timesync", "[Time Synchronization]"),
    known(Class::HEARTBEAT, "heartbeat", "[Heartbeat]"),
    known(Class::KVP, "kvp", "[Data Exchange]"),
    known(Class::VSS, "vss", "[Backup (volume checkpoint)]"),
    known(Class::FCOPY, "fcopy", "[Guest services]"),
    known(Class::DYNAMIC_MEMORY, "balloon", "[Dynamic Memory]"),
    known(Class::MOUSE, "mouse", "Synthetic mouse"),
    known(Class::KEYBOARD, "keyboard", "Synthetic keyboard"),
    known(Class::VIDEO, "video", "Synthetic framebuffer adapter"),
    known(Class::NIC, "nic", "Synthetic network adapter"),
    known(Class::IDE, "ide", "Synthetic IDE Controller"),
    known(Class::SCSI, "scsi", "Synthetic SCSI Controller"),
    known(Class::FIBRE_CHANNEL, "fc", "Synthetic fiber channel adapter"),
    known(Class::RDMA, "rdma", "Synthetic RDMA adapter"),
    known(Class::PCIE, "pcie", "PCI Express pass-through"),
    known(Class::REMOTE_DESKTOP, "rdv", "[Reserved system device]"),
    known(Class::ACTIVATION_1, "avma1", "[Reserved system device]"),
    known(Class::ACTIVATION_2, "avma2", "[Reserved system device]"),
    Known { class: Class::MACHINE_CONFIGURATION, short: "imc", title: None },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_and_guids_parse() {
        assert_eq!(Class::parse("balloon"), Some(Class::DYNAMIC_MEMORY));
        assert_eq!(Class::parse("NIC"), Some(Class::NIC));
        assert_eq!(Class::parse("{525074DC-8985-46e2-8057-a307dc18a502}"), Some(Class::DYNAMIC_MEMORY));
        assert_eq!(Class::parse("525074dc-8985-46e2-8057-a307dc18a502"), Some(Class::DYNAMIC_MEMORY));
        assert_eq!(Class::parse("525074dc898546e28057a307dc18a502"), None);
        assert_eq!(Class::parse("{525074dc-8985-46e2-8057-a307dc18a502"), None);
        assert_eq!(Class::parse(""), None);
    }

    #[test]
    fn the_table_has_no_duplicates() {
        for (index, one) in TABLE.iter().enumerate() {
            for other in &TABLE[index + 1..] {
                assert_ne!(one.class, other.class);
                assert_ne!(one.short, other.short);
            }
        }
    }

    #[test]
    fn unknown_classes_are_fine() {
        let class = Class(uuid!("00000000-facb-11e6-bd58-64006a7986d3"));
        assert_eq!(class.title(), "Unknown");
        assert_eq!(class.short_name(), None);
        assert_eq!(Class::MACHINE_CONFIGURATION.title(), "Unknown");
        assert_eq!(serde_json::to_string(&class).unwrap(), "\"00000000-facb-11e6-bd58-64006a7986d3\"");
    }
}
