//! The step as a table, and the parts of the protocol that no race is about.

use vmbus::message::{ConnectionState, HostMessage, VersionResponse};

/// The host does not speak the version.
pub(super) fn not_supported() -> HostMessage {
    let state = ConnectionState::SUCCESSFUL;
    HostMessage::VersionResponse(VersionResponse { supported: false, state, selected: 0, features: None })
}
