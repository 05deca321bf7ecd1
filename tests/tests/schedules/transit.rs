//! Between guest and host: messages wait on their way until the scheduler lets them arrive.

use std::collections::VecDeque;

use vmbus::message::{ContactTarget, Features, GuestMessage, HostMessage, Message, MessageError, Protocol, Version};

/// What is on its way to the host.
#[expect(clippy::large_enum_variant, reason = "messages are most of what there is")]
#[derive(Debug)]
pub(crate) enum Upward {
    Post(Message),
    /// Not a message: from here on the guest knew of all that the host had said up to this number.
    Heard(u64),
}

/// The guest's end of the way, which knows what was agreed on.
#[derive(Debug, Default)]
pub(crate) struct Transit {
    pub(crate) upward: VecDeque<Upward>,
    protocol: Protocol,
    asked: Option<(Version, Features)>,
    leaving: bool,
}

impl Transit {
    pub(crate) fn post(&mut self, message: &GuestMessage) -> Result<(), MessageError> {
        match message {
            GuestMessage::InitiateContact(contact) => {
                let features = match contact.target {
                    ContactTarget::Source { features, .. } => features,
                    ContactTarget::InterruptPage(_) => Features::empty(),
                };
                (self.asked, self.leaving) = (Some((contact.version, features)), false);
            }
            GuestMessage::Unload => self.leaving = true,
            _ => {}
        }
        self.upward.push_back(Upward::Post(message.encode(self.protocol)?));
        Ok(())
    }

    pub(crate) fn hear(&mut self, message: &Message) -> Result<HostMessage, MessageError> {
        let message = HostMessage::parse(message.as_ref(), self.protocol)?;
        match &message {
            HostMessage::VersionResponse(response) if response.supported => {
                if let Some((version, features)) = self.asked.take() {
                    self.protocol = Protocol::new(version, response.features.unwrap_or_default() & features);
                }
            }
            HostMessage::UnloadResponse if std::mem::take(&mut self.leaving) => self.protocol = Protocol::NONE,
            _ => {}
        }
        Ok(message)
    }
}
