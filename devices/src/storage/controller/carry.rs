//! What a controller does for its owner and its disks.

use super::*;

impl Controller {
    pub(super) fn channels(&self) -> usize {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner).len();
        (0..links).filter(|link| self.requests.is_open(*link)).count()
    }

    pub(in crate::storage) fn max_command_bytes(&self) -> usize {
        let host = self.agreed.get().map_or(u32::MAX, |agreed| agreed.max_transfer_bytes);
        let bytes = usize::try_from(host.min(self.settings.max_transfer_bytes)).unwrap_or(usize::MAX);
        // Each page is named by eight bytes of ring, of which a request is to take no more than a quarter.
        let ring = usize::try_from(self.settings.outgoing_bytes / 4).unwrap_or(0) / 8 * 4096;
        let most = bytes.min(ring).min(self.pool.bytes());
        // Blocks are whole, whatever a host says.
        (most - most % 4096).max(4096)
    }

    /// Opens a channel, the next one by number.
    pub(super) fn add_link(&self, offer: &Offer) -> Result<(), Error> {
        // Their order among the links is that of their numbers.
        let _turn = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.requests.add_link();
        let open = |processor| Link::open(&self.vmbus, offer, (&self.requests, number), &self.settings, processor);
        let opened = match open(u32::try_from(number).unwrap_or(0)) {
            // There are not so many processors.
            Err(Error::Channel(vmbus_channels::Error::Argument(_))) if number != PRIMARY => open(0),
            opened => opened,
        };
        let (link, outcome) = match opened {
            Ok(link) => (link, Ok(())),
            Err(error) => (Link::closed(), Err(error)),
        };
        self.links.write().unwrap_or_else(PoisonError::into_inner).push(link);
        // Not earlier: requests that go through it find it.
        if outcome.is_ok() {
            self.requests.open_link(number, Link::room(&self.settings));
        }
        outcome
    }

    /// Says what is to be said until host and guest agree.
    pub(super) fn negotiate(&self) -> Result<Agreed, Error> {
        let (mut machine, mut input) = (Machine::new(Version::ALL, self.settings.subchannels), Input::Opened);
        loop {
            let (next, action) = machine.step(input);
            machine = next;
            let packet = match action {
                Action::Say(packet) => packet,
                Action::Run(agreed) => return Ok(agreed),
                Action::Fail(why) => return Err(self.requests.failed(Failure::Negotiation(why))),
            };
            input = match self.control(&packet, machine.version(), "a packet of the beginning") {
                Ok(answer) => Input::Completed(answer),
                Err(Error::Storage { failure: Failure::Timeout { .. }, .. }) => Input::Silent,
                Err(error) => return Err(error),
            };
        }
    }

    /// Opens subchannels as they are offered, for as long as a host may take over that.
    pub(super) fn open_subchannels(&self, primary: &Offer, count: u16, mut announcements: Subscription) {
        let time = Time::from_now(self.settings.host_timeout);
        let mut missing = count;
        while missing > 0 {
            let left = time.deadline.saturating_duration_since(Instant::now());
            match announcements.next(Some(left)) {
                Ok(Some(Announcement::Arrived(offer))) if offer.primary == Some(primary.id) => {
                    missing -= 1;
                    if let Err(error) = self.add_link(&offer) {
                        log::warn!(target: "vmbus::storage", "a subchannel is not used: {error}");
                    }
                }
                Ok(Some(Announcement::Departed(offer))) if offer.id == primary.id => return,
                Ok(Some(_)) | Err(vmbus_channels::Error::Lagged) => {}
                Ok(None) | Err(_) => {
                    log::warn!(target: "vmbus::storage", "{missing} of {count} subchannels did not come");
                    return;
                }
            }
        }
    }

    /// A request that is no command, and the host's answer.
    fn control(&self, packet: &GuestPacket, version: Version, what: &'static str) -> Result<Completion, Error> {
        let bytes = packet.to_bytes(version);
        let parcel = Parcel { bytes: bytes.get(..version.packet_bytes()).unwrap_or(&bytes), pages: None };
        let time = Time::from_now(self.settings.host_timeout);
        let begun = self.requests.begin((Kind::Control, what), parcel.ring_bytes(), None, time)?;
        self.send(&begun, what, &parcel, time.deadline)?;
        match self.requests.wait(&begun, what, time)? {
            Answer::Completed(completion, _) => Ok(completion),
            Answer::LinkLost => Err(self.requests.failed(Failure::LinkLost(what))),
            Answer::Ended(error) => Err(error),
        }
    }

    pub(super) fn reset(&self, packet: &GuestPacket, what: &'static str) -> Result<(), Error> {
        let status = self.control(packet, self.version(), what)?.status;
        if status.is_success() {
            return Ok(());
        }
        Err(self.requests.failed(Failure::Refused { what, status: status.0 }))
    }

    /// Sends a command: waits for room as long as `room` says, and gives the host `timeout`.
    pub(in crate::storage) fn submit(
        &self,
        to: Address,
        command: Command,
        data: &Data<'_>,
        (room, timeout): (Time, Duration),
    ) -> Result<Pending, Error> {
        loop {
            match self.submit_once(to, command, data, (room, timeout)) {
                // Each time there is a channel less, and the last one ends otherwise.
                Err(Error::Storage { failure: Failure::LinkLost(_), .. }) => {}
                outcome => return outcome,
            }
        }
    }

    fn submit_once(
        &self,
        to: Address,
        command: Command,
        data: &Data<'_>,
        (room, timeout): (Time, Duration),
    ) -> Result<Pending, Error> {
        let (what, most) = (command.name(), self.max_command_bytes());
        let bytes = data.bytes();
        if bytes > most {
            return Err(self.requests.failed(Failure::TooLarge { bytes, most }));
        }
        if (bytes != 0) != (command.direction() != Direction::None) {
            return Err(Error::Argument("data go with commands that move some, and only with those"));
        }
        let segment = match bytes {
            0 => None,
            _ => Some(
                self.pool
                    .take(bytes, room.deadline)
                    .ok_or_else(|| self.requests.failed(Failure::Busy { what, waited: room.start.elapsed() }))?,
            ),
        };
        if let (Some(segment), Data::Out(bytes)) = (&segment, data) {
            segment.fill(bytes);
        }
        let frames = segment.as_ref().map(|segment| segment.frames());
        let transfer_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let timeout_seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1);
        let version = self.version();
        let packet = GuestPacket::Execute { to, command, transfer_bytes, timeout_seconds }.to_bytes(version);
        let parcel = Parcel {
            bytes: packet.get(..version.packet_bytes()).unwrap_or(&packet),
            pages: frames.as_deref().map(|frames| (frames, transfer_bytes)),
        };
        let begun = self.requests.begin((Kind::Command, what), parcel.ring_bytes(), segment, room)?;
        // Waiting for room and waiting for the host are two things.
        let time = Time::from_now(timeout);
        self.send(&begun, what, &parcel, time.deadline)?;
        Ok(Pending::new(Arc::clone(&self.requests), begun, (to, command), bytes, time))
    }

    pub(in crate::storage) fn execute(
        &self,
        to: Address,
        command: Command,
        destination: &mut [u8],
    ) -> Result<Outcome, Error> {
        let data = match destination.len() {
            0 => Data::None,
            bytes => Data::In(bytes),
        };
        let timeout = self.settings.command_timeout;
        self.submit(to, command, &data, (Time::from_now(timeout), timeout))?.wait(destination)
    }

    /// What packets are built by.
    fn version(&self) -> Version {
        self.agreed.get().map_or(Version::V4_2, |agreed| agreed.version)
    }

    fn send(
        &self,
        begun: &super::super::requests::Begun,
        what: &'static str,
        parcel: &Parcel<'_>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let link = self.links.read().unwrap_or_else(PoisonError::into_inner).get(begun.link).cloned();
        match link {
            Some(link) => link.send(&self.requests, (begun, what), parcel, deadline),
            None => {
                self.requests.unsent(begun.id, false);
                Err(self.requests.failed(Failure::Closed))
            }
        }
    }

    pub(super) fn close(&self) -> Result<(), Error> {
        self.requests.close();
        let drained = |timeout| self.requests.drain(Time::from_now(timeout).deadline);
        if !drained(self.settings.drain_timeout) && self.reset_for_close() {
            // What a reset ends comes before its own completion, or right behind it.
            drained(self.settings.drain_timeout);
        }
        let closed = self.close_links();
        if closed.is_err() && self.requests.keeps_pages() {
            std::mem::forget(Arc::clone(&self.pool));
        }
        closed
    }

    pub(super) fn close_links(&self) -> Result<(), Error> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner).clone();
        // The primary channel last: with it the host takes the others back.
        links.iter().rev().map(|link| link.close()).fold(Ok(()), Result::and)
    }

    /// Ends what is under way, as nobody else can any more. Whether the host has done it.
    fn reset_for_close(&self) -> bool {
        let (version, what) = (self.version(), "the reset of a bus");
        let bytes = GuestPacket::ResetBus(0).to_bytes(version);
        let parcel = Parcel { bytes: bytes.get(..version.packet_bytes()).unwrap_or(&bytes), pages: None };
        let time = Time::from_now(self.settings.host_timeout);
        let Some(begun) = self.requests.begin_reset(parcel.ring_bytes()) else { return false };
        let answer = self.send(&begun, what, &parcel, time.deadline);
        let answer = answer.and_then(|()| self.requests.wait(&begun, what, time));
        matches!(answer, Ok(Answer::Completed(completion, _)) if completion.status.is_success())
    }
}
