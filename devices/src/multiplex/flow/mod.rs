//! One stream without threads and links: what it sends next, and what becomes of what it hears.
//!
//! A stream is on one link at a time, and every frame says how often it has moved. What belongs to a link that the stream
//! has left is not looked at; what was not acknowledged there is sent again. So each byte arrives once, and in its place.

mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;

use zerocopy::byteorder::little_endian::{U16, U32, U64};

use self::incoming::Incoming;
use self::outgoing::{Outgoing, Piece};
use super::wire::{Header, Kind, Mode, Reason};

/// What the other side said that it must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Nonsense {
    /// A place behind the one that was to come.
    #[error("bytes are missing in a stream")]
    Gap,
    /// More than it was allowed.
    #[error("more bytes in a stream than there is room for")]
    BeyondLimit,
    /// Something behind the end.
    #[error("bytes behind the end of a stream")]
    BehindEnd,
    /// It acknowledges what was not sent.
    #[error("bytes are acknowledged that were not sent")]
    Acknowledgement,
    /// A frame that only this side sends, or one of a link that the stream was never on.
    #[error("a frame that makes no sense in a stream")]
    Frame,
}

/// Where a stream is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The other side has not answered yet.
    Opening,
    /// Bytes go both ways.
    Open,
    /// Over on this side, for this reason, which the other side is told until it says that it knows.
    Closing(Reason),
    /// Over for both, or given up.
    Over(Reason),
}

/// What is to be done about a frame that was heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Somebody may wait for what has changed.
    pub(super) wake: bool,
    /// There is something to send.
    pub(super) send: bool,
    /// The stream is over for both sides: forget it.
    pub(super) over: bool,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Flow {
    id: u64,
    mode: Mode,
    stage: Stage,
    /// How often it has moved: which link its frames are for.
    moves: u32,
    incoming: Incoming,
    outgoing: Outgoing,
    /// To be sent on this link before anything else: OPEN, MOVE or RESET.
    owes_first: bool,
    /// The other side should hear what was received.
    owes_acknowledgement: bool,
}

/// A frame that is about to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) header: Header,
    piece: Option<Piece>,
}

impl Flow {
    pub(super) fn new(id: u64, mode: Mode, buffer_bytes: usize) -> Self {
        Self {
            id,
            mode,
            stage: Stage::Opening,
            moves: 0,
            incoming: Incoming::new(mode, buffer_bytes),
            outgoing: Outgoing::new(mode, buffer_bytes),
            owes_first: true,
            owes_acknowledgement: false,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// From here on it is on the link that it came to by so many moves. `false`: that one has been left already.
    pub(super) fn on_link(&mut self, moves: u32) -> bool {
        if moves > self.moves {
            self.moves = moves;
            self.owes_first = true;
            self.outgoing.rewind();
        }
        moves == self.moves
    }

    /// The next frame, if there is anything to say.
    pub(super) fn next(&self) -> Option<Frame> {
        let (kind, sequence, piece) = match self.stage {
            Stage::Over(_) => return None,
            Stage::Opening => (Kind::OPEN, self.owes_first.then(|| self.mode.code())?, None),
            Stage::Closing(reason) => (Kind::RESET, self.owes_first.then_some(reason.0)?, None),
            Stage::Open if self.owes_first => (Kind::MOVE, 0, None),
            Stage::Open => match self.outgoing.next() {
                Some(piece @ Piece::Data(place, _)) => (Kind::DATA, place, Some(piece)),
                Some(piece @ Piece::End(place)) => (Kind::END, place, Some(piece)),
                None if self.owes_acknowledgement => (Kind::ACKNOWLEDGE, 0, None),
                None => return None,
            },
        };
        let bytes = match piece {
            Some(Piece::Data(_, bytes)) => u16::try_from(bytes).unwrap_or(0),
            _ => 0,
        };
        let numbers = self.mode == Mode::Numbered || piece.is_none();
        let header = Header {
            kind,
            bytes: U16::new(bytes),
            moves: U32::new(self.moves),
            stream: U64::new(self.id),
            sequence: U64::new(if numbers { sequence } else { 0 }),
            acknowledged: U64::new(self.incoming.acknowledged()),
            limit: U64::new(self.incoming.limit()),
        };
        Some(Frame { header, piece })
    }

    /// The bytes behind a frame's header, in two parts.
    pub(super) fn bytes(&self, frame: &Frame) -> (&[u8], &[u8]) {
        frame.piece.map_or((&[], &[]), |piece| self.outgoing.bytes(piece))
    }

    /// The frame that was [`next`](Self::next) is on its way. What that has changed.
    pub(super) fn sent(&mut self, frame: &Frame) -> Heard {
        self.owes_first = false;
        self.owes_acknowledgement = false;
        self.incoming.announce();
        let Some(piece) = frame.piece else { return Heard::default() };
        self.outgoing.sent(piece);
        // A plain stream has room again.
        let wake = self.mode == Mode::Plain;
        Heard { wake, send: self.close_if_done(), over: false }
    }

    /// Something has come from the other side.
    pub(super) fn heard(&mut self, header: &Header, data: &[u8]) -> Result<Heard, Nonsense> {
        if header.kind == Kind::RESET {
            return Ok(self.reset(Reason(header.sequence.get())));
        }
        if header.moves.get() > self.moves {
            return Err(Nonsense::Frame);
        }
        if header.moves.get() < self.moves || matches!(self.stage, Stage::Closing(_) | Stage::Over(_)) {
            return Ok(Heard::default());
        }
        if header.kind == Kind::OPEN {
            let opened = self.stage == Stage::Opening;
            self.stage = Stage::Open;
            let news = self.outgoing.heard(header.acknowledged.get(), header.limit.get())?;
            return Ok(Heard { wake: opened || news, send: self.next().is_some(), over: false });
        }
        if self.stage == Stage::Opening {
            return Err(Nonsense::Frame);
        }
        let mut wake = self.outgoing.heard(header.acknowledged.get(), header.limit.get())?;
        let place = header.sequence.get();
        match header.kind {
            Kind::DATA => {
                wake |= self.incoming.data(place, data)?;
                // Also what is known already: it is sent because the other side does not know that.
                self.owes_acknowledgement = true;
            }
            Kind::END => {
                wake |= self.incoming.end(place)?;
                self.owes_acknowledgement = true;
            }
            Kind::ACKNOWLEDGE => {}
            _ => return Err(Nonsense::Frame),
        }
        wake |= self.close_if_done();
        Ok(Heard { wake, send: self.next().is_some(), over: false })
    }

    /// Both ends were said and heard: the other side may forget it. Whether that is so as of now.
    fn close_if_done(&mut self) -> bool {
        let done = self.stage == Stage::Open && self.incoming.has_ended() && self.outgoing.is_done();
        if done {
            (self.stage, self.owes_first) = (Stage::Closing(Reason::DONE), true);
        }
        done
    }

    /// The other side has no such stream, or no longer.
    fn reset(&mut self, reason: Reason) -> Heard {
        let known = match self.stage {
            Stage::Closing(ours) => ours,
            Stage::Over(_) => return Heard::default(),
            Stage::Opening | Stage::Open => reason,
        };
        self.give_up(known);
        Heard { wake: true, send: false, over: true }
    }

    /// Its link is gone, or the group is: nothing more is said. What was received stays to be read.
    pub(super) fn give_up(&mut self, reason: Reason) {
        if !matches!(self.stage, Stage::Over(_)) {
            self.stage = Stage::Over(if let Stage::Closing(ours) = self.stage { ours } else { reason });
            self.outgoing.discard();
        }
    }

    /// Gives it up from this side, unless that has happened or both ends were said. Whether there is something to send.
    pub(super) fn abort(&mut self, reason: Reason) -> bool {
        if matches!(self.stage, Stage::Closing(_) | Stage::Over(_)) {
            return false;
        }
        (self.stage, self.owes_first) = (Stage::Closing(reason), true);
        self.outgoing.discard();
        true
    }

    /// Nobody reads it any more.
    pub(super) fn discard(&mut self) {
        self.incoming.discard();
    }

    /// Takes bytes out; `None`: none are there, and neither is the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if !self.incoming.is_readable() {
            return None;
        }
        let bytes = self.incoming.read(buffer);
        self.owes_acknowledgement |= self.stage == Stage::Open && self.incoming.is_limit_stale();
        Some(bytes)
    }

    /// Takes bytes in; `None`: the end was said.
    pub(super) fn write(&mut self, data: &[u8]) -> Option<usize> {
        self.outgoing.write(data)
    }

    /// Whether there is something to say.
    pub(super) fn owes(&self) -> bool {
        self.next().is_some()
    }

    /// Nobody reads any more: what is here and what comes counts as read.
    pub(super) fn shut_read(&mut self) {
        self.incoming.shut();
        self.owes_acknowledgement = true;
    }

    /// Says the end. Whether there is something to send.
    pub(super) fn end(&mut self) -> bool {
        self.outgoing.end() && self.stage == Stage::Open
    }

    /// Bytes that are kept for the application.
    #[cfg(test)]
    fn incoming_bytes(&self) -> usize {
        self.incoming.bytes()
    }

    /// Whether all that was written was heard.
    pub(super) fn is_settled(&self) -> bool {
        self.outgoing.is_settled()
    }
}
