//! What the balloon driver tells, as JSON lines and as sentences. The shapes are stable; fields may be added.

use serde::Serialize;

use vmbus::bind::UIO_DRIVER;
use vmbus_devices::balloon::wire::Info;
use vmbus_devices::balloon::{self, Limit};

use crate::commands::describe::bytes;

/// One thing that happened. With `--json`: one object a line, its `event` the name in snake case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// The device is not in user space yet.
    Waiting { selector: String },
    /// The device is open.
    Opened { device: String, node: String },
    /// Host and guest agreed on a version.
    Negotiated { version: String, status_reports: bool },
    /// A report goes to the host.
    Status(Status),
    /// The host took pages.
    Ballooned { pages: u64, total_pages: u64, requested_pages: u64, limited_by: Option<&'static str> },
    /// The host gave pages back.
    Deflated { pages: u64, total_pages: u64 },
    /// The host offered memory that a process cannot add.
    HotAddRefused { pages: u64 },
    /// The host said something worth knowing.
    Info { text: String },
    /// The host said something that makes no sense here; it was ignored.
    Ignored { what: String },
    /// The host took the device back, or it was unbound.
    Rescinded,
    /// The channel is closed, and the pages that the host still had are in use again.
    GaveBack { pages: u64 },
    /// The driver ended as it was asked to.
    Closed,
}

impl From<&balloon::Event> for Event {
    fn from(event: &balloon::Event) -> Self {
        use balloon::Event as Driver;
        match *event {
            Driver::Negotiated { version, status_reports } => {
                Self::Negotiated { version: version.to_string(), status_reports }
            }
            Driver::Status { available_pages, committed_pages, ballooned_pages } => {
                Self::Status(Status { available_pages, committed_pages, ballooned_pages })
            }
            Driver::Ballooned { requested, pages, limit, ballooned_pages } => Self::Ballooned {
                pages,
                total_pages: ballooned_pages,
                requested_pages: requested,
                limited_by: limit.map(|limit| match limit {
                    Limit::Floor => "floor",
                    Limit::Memory => "memory",
                }),
            },
            Driver::Deflated { pages, ballooned_pages } => Self::Deflated { pages, total_pages: ballooned_pages },
            Driver::HotAddRefused { pages } => Self::HotAddRefused { pages: pages.into() },
            Driver::Info(Info::MaxPageCount(pages)) => {
                Self::Info { text: format!("the host will never give more than {}", size(pages)) }
            }
            Driver::Info(other) => Self::Info { text: format!("{other:?}") },
            Driver::Ignored(ignored) => Self::Ignored { what: ignored.to_string() },
            Driver::GaveBack { pages } => Self::GaveBack { pages },
            // The driver may tell more some day.
            other => Self::Info { text: format!("{other:?}") },
        }
    }
}

/// The figures of a status report, in pages of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Status {
    pub(super) available_pages: u64,
    pub(super) committed_pages: u64,
    pub(super) ballooned_pages: u64,
}

impl Event {
    /// The sentence for people and for the service manager.
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Waiting { selector } => format!("waiting for {selector} to be bound to {UIO_DRIVER}"),
            Self::Opened { device, node } => format!("{device} is open through {node}"),
            Self::Negotiated { version, status_reports: true } => {
                format!("Dynamic Memory {version} is agreed with the host")
            }
            Self::Negotiated { version, status_reports: false } => {
                format!("Dynamic Memory {version} is agreed with the host, which wants no status reports")
            }
            Self::Status(status) => format!(
                "{} available, {} committed, {} with the host",
                mib(status.available_pages),
                mib(status.committed_pages),
                mib(status.ballooned_pages)
            ),
            Self::Ballooned { pages, total_pages, limited_by, requested_pages } => {
                let short = match limited_by {
                    Some(limit) => format!(" of {} (limited by the {limit})", size(*requested_pages)),
                    None => String::new(),
                };
                format!("the host took {}{short}, {} in all", size(*pages), size(*total_pages))
            }
            Self::Deflated { pages, total_pages } => {
                format!("the host gave back {}, {} are still with it", size(*pages), size(*total_pages))
            }
            Self::HotAddRefused { pages } => {
                format!("the host offered {} more; a process cannot add memory", size(*pages))
            }
            Self::Info { text } => text.clone(),
            Self::Ignored { what } => format!("ignored from the host: {what}"),
            Self::Rescinded => "the host took the device back".to_owned(),
            Self::GaveBack { pages: 0 } => "the channel is closed; the balloon was empty".to_owned(),
            Self::GaveBack { pages } => format!("the channel is closed; {} are in use again", size(*pages)),
            Self::Closed => "ended".to_owned(),
        }
    }

    /// Whether it comes every second: a status line shows it, plain output is better off without it.
    pub(super) fn is_routine(&self) -> bool {
        matches!(self, Self::Status(_))
    }
}

/// Pages of 4 KiB as an exact size.
fn size(pages: u64) -> String {
    bytes(pages.saturating_mul(4096))
}

/// Pages of 4 KiB in MiB, rounded down: for figures that change all the time.
fn mib(pages: u64) -> String {
    format!("{} MiB", pages / 256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(event: &Event) -> String {
        serde_json::to_string(event).unwrap()
    }

    #[test]
    fn json_shapes_are_stable() {
        let negotiated = Event::Negotiated { version: "2.0".to_owned(), status_reports: true };
        assert_eq!(json(&negotiated), r#"{"event":"negotiated","version":"2.0","status_reports":true}"#);
        let status = Event::Status(Status { available_pages: 10, committed_pages: 20, ballooned_pages: 3 });
        assert_eq!(
            json(&status),
            r#"{"event":"status","available_pages":10,"committed_pages":20,"ballooned_pages":3}"#
        );
        let ballooned = Event::Ballooned { pages: 1, total_pages: 2, requested_pages: 4, limited_by: Some("floor") };
        assert_eq!(
            json(&ballooned),
            r#"{"event":"ballooned","pages":1,"total_pages":2,"requested_pages":4,"limited_by":"floor"}"#
        );
        assert_eq!(
            json(&Event::Deflated { pages: 1, total_pages: 0 }),
            r#"{"event":"deflated","pages":1,"total_pages":0}"#
        );
        assert_eq!(json(&Event::Rescinded), r#"{"event":"rescinded"}"#);
        assert_eq!(json(&Event::Closed), r#"{"event":"closed"}"#);
    }

    #[test]
    fn sentences_are_exact() {
        let event =
            Event::Ballooned { pages: 4096, total_pages: 8192, requested_pages: 8192, limited_by: Some("floor") };
        assert_eq!(event.sentence(), "the host took 16 MiB of 32 MiB (limited by the floor), 32 MiB in all");
        assert_eq!(
            Event::Deflated { pages: 1, total_pages: 0 }.sentence(),
            "the host gave back 4 KiB, 0 B are still with it"
        );
    }
}
