//! How devices are named and written down, the same in every command.

use serde::Serialize;
use vmbus::sysfs::Device;

/// A device as JSON: what the library knows, and the names that people use for its class.
#[derive(Serialize)]
pub(crate) struct Described<'a> {
    /// `balloon`; null for a class without a short name.
    class_name: Option<&'static str>,
    /// What lsvmbus calls the class.
    title: &'static str,
    #[serde(flatten)]
    device: &'a Device,
}

impl<'a> Described<'a> {
    pub(crate) fn new(device: &'a Device) -> Self {
        Self { class_name: device.class.short_name(), title: device.class.title(), device }
    }
}

/// What a device is called in a sentence: `balloon (relid 1)`, or by its instance where its class has no name.
pub(crate) fn name(device: &Device) -> String {
    match device.class.short_name() {
        Some(class) => format!("{class} (relid {})", device.relid),
        None => format!("{} (relid {})", device.name, device.relid),
    }
}

/// A number of bytes in the largest binary unit that divides it: `4 MiB`, `2044 KiB`, `17 B`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    UNITS
        .iter()
        .find(|(size, _)| count >= *size && count.is_multiple_of(*size))
        .map_or_else(|| format!("{count} B"), |(size, unit)| format!("{} {unit}", count / size))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn units_divide() {
        assert_eq!(bytes(4 << 20), "4 MiB");
        assert_eq!(bytes((2 << 20) - 4096), "2044 KiB");
        assert_eq!(bytes(17), "17 B");
        assert_eq!(bytes(0), "0 B");
    }
}
