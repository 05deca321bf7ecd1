//! What handles to an open channel have in common, written once: `of_a_channel` for all of them, `sends` for those that
//! do nothing but send.

/// What a handle knows of its channel, and can ask for. Of a type with `fn owner(&self) -> &Owner`.
macro_rules! of_a_channel {
    ($handle:ty) => {
        impl $handle {
            /// The channel's name on the bus.
            #[must_use]
            pub fn id(&self) -> $crate::ChannelId {
                self.owner().id()
            }

            /// What the host offered.
            #[must_use]
            pub fn offer(&self) -> &$crate::Offer {
                self.owner().offer()
            }

            /// The device, as errors call it: its instance id.
            #[must_use]
            pub fn device(&self) -> &str {
                self.owner().device()
            }

            /// The channel's number on the bus.
            #[must_use]
            pub fn relid(&self) -> u32 {
                self.offer().relid
            }

            /// Whether the channel is known to be over: taken back, closed by another, found dead, or its bus ended. Asks
            /// no one: a load or two.
            #[must_use]
            pub fn is_rescinded(&self) -> bool {
                self.owner().has_ended()
            }

            /// Shares memory with the host over this channel: whole pages, up to 64 MiB.
            ///
            /// # Errors
            /// [`Error::Memory`], [`Error::Host`], [`Error::Silent`], [`Error::Argument`]; the channel is gone; the bus
            /// has ended; [`Error::Callback`].
            pub fn create_buffer(&self, bytes: u32) -> Result<$crate::Buffer, Error> {
                $crate::Buffer::create(&self.owner().share(), bytes)
            }
        }
    };
}

/// How a handle sends while somebody else receives. Of a type with a `transmitter`; `$send` is what its `send` is called
/// when it is refused.
macro_rules! sends {
    ($handle:ty, $send:literal) => {
        impl $handle {
            /// Something that ends a [`send`](Self::send) from other threads, and nobody else's wait.
            #[must_use]
            pub fn waker(&self) -> $crate::Waker {
                self.owner().waker($crate::dispatch::Half::Sender).clone()
            }

            /// As [`Channel::send`](crate::Channel::send), but that a wake is heard by one call, and that whoever receives
            /// does so meanwhile.
            ///
            /// # Errors
            /// As there; [`Error::Callback`].
            pub fn send(
                &mut self,
                packet: $crate::OutgoingPacket<'_>,
                payload: &[&[u8]],
                timeout: Option<::core::time::Duration>,
            ) -> Result<(), Error> {
                match self.transmitter.try_send(packet, payload) {
                    Err(Error::Full { .. }) => $crate::here::may_wait($send)?,
                    outcome => return outcome,
                }
                let outcome = self.transmitter.send(packet, payload, timeout);
                if matches!(outcome, Err(Error::Woken { .. })) {
                    // No `wait` comes that would take note of it.
                    self.owner().waker($crate::dispatch::Half::Sender).clear();
                }
                outcome
            }

            /// As [`Channel::try_send`](crate::Channel::try_send).
            ///
            /// # Errors
            /// As there.
            pub fn try_send(&mut self, packet: $crate::OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<(), Error> {
                self.transmitter.try_send(packet, payload)
            }

            /// As [`Channel::send_batch`](crate::Channel::send_batch).
            ///
            /// # Errors
            /// As there.
            pub fn send_batch<T>(
                &mut self,
                fill: impl FnOnce(&mut $crate::OutgoingBatch<'_>) -> Result<T, ::vmbus_ringbuf::WriteError>,
            ) -> Result<T, Error> {
                self.transmitter.send_batch(fill)
            }

            fn owner(&self) -> &$crate::channel::owner::Owner {
                self.transmitter.owner()
            }
        }
    };
}

pub(super) use {of_a_channel, sends};
