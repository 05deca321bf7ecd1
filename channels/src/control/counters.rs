//! How often each thing happened.

use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often each thing happened since the start. Only ever grows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter with its name, in a fixed order.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Messages that the host sent, malformed ones not included.
    messages,
    /// What the host sent and was no message.
    malformed,
    /// Offers that became a channel.
    offers,
    /// Channels whose number was given back with RELID_RELEASED.
    released,
    /// Channels whose number ended with the connection (unload, suspend, loss), so that nothing was to be given back.
    severed,
    /// Offers turned down and given back at once, for whatever reason (see the next ones).
    refused_offers,
    /// ... with a number out of range.
    bad_relids,
    /// ... when the table was full.
    table_full,
    /// ... of a subchannel without its primary channel.
    orphan_subchannels,
    /// ... of a class that is not allowed.
    unwanted_offers,
    /// ... of a device that is there already under another number.
    duplicate_devices,
    /// ... because a step of their handling failed.
    failed_offers,
    /// Offers of a number that is not released yet: ignored.
    duplicate_offers,
    /// Channels that could not be made visible and were given back.
    failed_announcements,
    /// Channels that the host took back.
    rescinds,
    /// Messages about a number that names no channel.
    unknown_relid,
    /// Answers to nothing that was asked, or to what is over.
    stale_answers,
    /// Messages that make no sense in the state of the connection or channel.
    unexpected,
    /// Waits for the host that ended at their deadline.
    timeouts,
    /// Open requests of applications.
    opens,
    /// ... that the host granted.
    opened,
    /// ... that failed: refused, silent, rescinded.
    open_failures,
    /// Channels that were closed at the host in order.
    closed,
    /// GPADLs that were shared.
    gpadls,
    /// ... and could not be.
    gpadl_failures,
    /// GPADLs whose memory was freed.
    gpadls_freed,
    /// Moves to another processor.
    moves,
    /// hvsock connections that were requested.
    connects,
    /// Commands about a channel that was released.
    stale_commands,
    /// References and retirements given back that nobody was waiting for.
    stale_references,
    /// First messages sent, one for each version tried.
    contacts,
    /// Connections made.
    connections,
    /// Goodbyes sent.
    unloads,
    /// Log lines left out because there were too many.
    suppressed_lines,
}
