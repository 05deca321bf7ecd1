//! Which device a user means.

use uuid::Uuid;

use super::{Bus, Device, parse};
use crate::Error;
use crate::class::{Class, parse_guid};

/// What a selector may say. A GUID names an instance first, then a class.
enum Selector<'a> {
    Relid(u32),
    Uio(&'a str),
    Guid(Uuid),
    Class(Class),
    Name(&'a str),
}

impl<'a> Selector<'a> {
    fn parse(text: &'a str) -> Self {
        let bare = text.strip_prefix("/dev/").unwrap_or(text);
        if parse::is_uio(bare) {
            return Self::Uio(bare);
        }
        if let Ok(relid) = parse::number(text) {
            return Self::Relid(relid);
        }
        if let Some(guid) = parse_guid(text) {
            return Self::Guid(guid);
        }
        Class::parse(text).map_or(Self::Name(text), Self::Class)
    }

    fn matches(&self, device: &Device) -> bool {
        match self {
            Self::Relid(relid) => device.relid == *relid,
            Self::Uio(uio) => device.uio.as_deref() == Some(uio),
            Self::Guid(guid) => device.instance == *guid,
            Self::Class(class) => device.class == *class,
            Self::Name(name) => device.name == *name,
        }
    }
}

impl Bus {
    /// Every device that `selector` names, by relid: several where it names a class.
    ///
    /// A selector is a class name (`balloon`) or GUID, an instance GUID, a relid, `uioN` or a sysfs name.
    ///
    /// # Errors
    /// As [`scan`](Self::scan); the error of a broken device where the selector names that one.
    pub fn find_all(&self, selector: &str) -> Result<Vec<Device>, Error> {
        let parsed = Selector::parse(selector);
        let scan = self.scan()?;
        let mut found: Vec<Device> = scan.devices.iter().filter(|device| parsed.matches(device)).cloned().collect();
        if let (Selector::Guid(guid), true) = (&parsed, found.is_empty()) {
            found = scan.devices.into_iter().filter(|device| device.class == Class(*guid)).collect();
        }
        let bare = selector.trim_matches(['{', '}']);
        match scan.broken.into_iter().find(|broken| broken.name.eq_ignore_ascii_case(bare)) {
            Some(broken) if found.is_empty() => Err(broken.error),
            _ => Ok(found),
        }
    }

    /// The one device that `selector` names; see [`find_all`](Self::find_all) for what it may be.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Selector`] where several match; the device's own error where it is broken.
    pub fn find(&self, selector: &str) -> Result<Device, Error> {
        let mut found = self.find_all(selector)?;
        match (found.pop(), found.is_empty()) {
            (Some(device), true) => Ok(device),
            (Some(last), false) => {
                found.push(last);
                let names: Vec<_> = found.iter().map(|device| device.name.as_str()).collect();
                let why = format!("names {} devices; give one of the instances {}", names.len(), names.join(", "));
                Err(Error::Selector { selector: selector.to_owned(), why })
            }
            (None, _) => Err(Error::NotFound { selector: selector.to_owned() }),
        }
    }
}
