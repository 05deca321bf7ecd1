//! The kernel's text form of an announcement: a pure function of bytes that anyone could have sent.
//!
//! Format: `lib/kobject_uevent.c`: `ACTION@DEVPATH`, then `KEY=value` pairs, each ended by a zero byte.

use std::collections::BTreeMap;

use super::{Action, Uevent};

/// Why bytes are no announcement of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotUevent {
    /// It does not begin with an action, an `@` and a path.
    #[error("no ACTION@DEVPATH at the start")]
    Header,
    /// A part is not UTF-8.
    #[error("a part that is not UTF-8")]
    Encoding,
    /// A part has no `=`, or nothing before it.
    #[error("a part that is no KEY=value")]
    Pair,
    /// A pair says something else than the header.
    #[error("the pair {0} contradicts the header")]
    Contradiction(&'static str),
}

/// Reads one announcement.
///
/// # Errors
/// [`NotUevent`] for whatever the kernel would not send, such as what udev sends on its own group.
pub fn parse(message: &[u8]) -> Result<Uevent, NotUevent> {
    let text = str::from_utf8(message).map_err(|_| NotUevent::Encoding)?;
    let mut parts = text.split_terminator('\0');
    let (action, devpath) = parts.next().and_then(|header| header.split_once('@')).ok_or(NotUevent::Header)?;
    if action.is_empty() || !devpath.starts_with('/') {
        return Err(NotUevent::Header);
    }
    let mut properties = BTreeMap::new();
    for part in parts {
        let (key, value) = part.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or(NotUevent::Pair)?;
        properties.insert(key.to_owned(), value.to_owned());
    }
    for (key, header) in [("ACTION", action), ("DEVPATH", devpath)] {
        if properties.get(key).is_some_and(|value| value != header) {
            return Err(NotUevent::Contradiction(key));
        }
    }
    let subsystem = properties.get("SUBSYSTEM").cloned();
    Ok(Uevent { action: Action::from(action), devpath: devpath.to_owned(), subsystem, properties })
}

impl From<&str> for Action {
    fn from(text: &str) -> Self {
        match text {
            "add" => Self::Add,
            "remove" => Self::Remove,
            "change" => Self::Change,
            "move" => Self::Move,
            "online" => Self::Online,
            "offline" => Self::Offline,
            "bind" => Self::Bind,
            "unbind" => Self::Unbind,
            other => Self::Other(other.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADD: &[u8] = b"add@/devices/x/uio/uio0\0ACTION=add\0DEVPATH=/devices/x/uio/uio0\0SUBSYSTEM=uio\0\
        MAJOR=246\0MINOR=0\0DEVNAME=uio0\0SEQNUM=1234\0";

    #[test]
    fn the_kernel_s_form_is_read() {
        let event = parse(ADD).unwrap();
        assert_eq!((&event.action, event.devpath.as_str()), (&Action::Add, "/devices/x/uio/uio0"));
        assert_eq!((event.subsystem.as_deref(), event.properties["DEVNAME"].as_str()), (Some("uio"), "uio0"));
        assert_eq!(event.properties.len(), 7);
    }

    #[test]
    fn anything_else_is_refused() {
        let cases: [(&[u8], NotUevent); 9] = [
            (b"", NotUevent::Header),
            (b"libudev\0\xfe\xed\xca\xfe", NotUevent::Encoding),
            (b"libudev\0\0\0", NotUevent::Header),
            (b"@/devices/x\0", NotUevent::Header),
            (b"add@devices/x\0", NotUevent::Header),
            (b"add@/x\0ACTION=add\0SUBSYSTEM\0", NotUevent::Pair),
            (b"add@/x\0=add\0", NotUevent::Pair),
            (b"add@/x\0ACTION=remove\0", NotUevent::Contradiction("ACTION")),
            (b"add@/x\0DEVPATH=/y\0", NotUevent::Contradiction("DEVPATH")),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse(bytes), Err(expected), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn damaged_announcements_are_whole_or_refused(position in 0..ADD.len(), byte: u8, keep in 0..=ADD.len()) {
            let mut bytes = ADD.to_vec();
            bytes[position] = byte;
            bytes.truncate(keep);
            if let Ok(event) = parse(&bytes) {
                prop_assert!(event.devpath.starts_with('/'));
                prop_assert!(event.properties.keys().all(|key| !key.is_empty() && !key.contains('=')));
                prop_assert!(event.properties.get("DEVPATH").is_none_or(|path| *path == event.devpath));
            }
        }

        #[test]
        fn what_was_said_is_read_back(
            action in "[a-z]{1,10}", devpath in "/[ -~]{0,60}",
            pairs in proptest::collection::btree_map("[B-CE-RT-Z_]{1,12}", "[ -~]{0,40}", 0..20),
        ) {
            let mut message = format!("{action}@{devpath}\0");
            for (key, value) in &pairs {
                message += &format!("{key}={value}\0");
            }
            let event = parse(message.as_bytes()).unwrap();
            prop_assert_eq!(event.action, Action::from(action.as_str()));
            prop_assert_eq!(event.devpath, devpath);
            prop_assert_eq!(event.properties, pairs);
        }
    }
}
