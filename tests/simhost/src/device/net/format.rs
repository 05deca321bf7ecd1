//! Bytes of NVSP and RNDIS messages, seen from the host.
//!
//! Format: drivers/net/hyperv/hyperv_net.h of Linux 6.12. All words are 32 bits, little-endian.

/// The receive buffer's name in packets.
pub(super) const RECEIVE_BUFFER: u16 = 0xcafe;
/// Bytes of an RNDIS message before its body.
const HEAD: usize = 8;
/// Bytes of the fixed part of a frame's body.
const PACKET: usize = 36;

/// Word `index` of a message.
pub(super) fn word(bytes: &[u8], index: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(index.checked_mul(4)?..)?.first_chunk()?))
}

/// Words, one behind the other.
pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn size(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// What a guest says by NVSP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the protocol")]
pub enum Nvsp {
    Init { version: u32 },
    NdisVersion,
    NdisConfig { mtu: u32 },
    ReceiveBuffer { gpadl: u32 },
    RevokeReceiveBuffer,
    SendBuffer { gpadl: u32 },
    RevokeSendBuffer,
    Rndis { control: bool, section: Option<(u32, u32)> },
    SwitchDataPath,
    Subchannels { count: u32 },
}

impl Nvsp {
    /// Understands a message; `None` for what is none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let id = |wanted: u16| (word(bytes, 2)? & 0xffff == u32::from(wanted)).then_some(());
        Some(match word(bytes, 0)? {
            1 => Self::Init { version: word(bytes, 1).filter(|lowest| word(bytes, 2) == Some(*lowest))? },
            100 => Self::NdisVersion,
            101 => {
                id(RECEIVE_BUFFER)?;
                Self::ReceiveBuffer { gpadl: word(bytes, 1)? }
            }
            103 => Self::RevokeReceiveBuffer,
            104 => {
                id(0)?;
                Self::SendBuffer { gpadl: word(bytes, 1)? }
            }
            106 => Self::RevokeSendBuffer,
            107 => {
                let section = word(bytes, 2)?;
                let section = if section == u32::MAX { None } else { Some((section, word(bytes, 3)?)) };
                Self::Rndis { control: word(bytes, 1)? == 1, section }
            }
            125 => Self::NdisConfig { mtu: word(bytes, 1)? },
            129 => Self::SwitchDataPath,
            133 => {
                (word(bytes, 1)? == 1).then_some(())?;
                Self::Subchannels { count: word(bytes, 2)? }
            }
            _ => return None,
        })
    }
}

/// What a guest says by RNDIS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the protocol")]
pub enum Rndis<'a> {
    Packet { frame: &'a [u8], info: &'a [u8] },
    Initialize { request: u32 },
    Halt,
    Query { request: u32, oid: u32, value: &'a [u8] },
    Set { request: u32, oid: u32, value: &'a [u8] },
    KeepAlive { request: u32 },
    KeepAliveComplete { request: u32 },
}

impl<'a> Rndis<'a> {
    /// Understands the message at the begin of `bytes`, and how long it is; `None` for what is none.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let length = size(word(bytes, 1)?);
        let body = bytes.get(..length)?.get(HEAD..)?;
        let part = |offset: u32, bytes: u32| match bytes {
            0 => Some([].as_slice()),
            bytes => body.get(size(offset)..)?.get(..size(bytes)),
        };
        let object = || Some((word(body, 0)?, word(body, 1)?, part(word(body, 3)?, word(body, 2)?)?));
        let message = match word(bytes, 0)? {
            1 => {
                let (frame, info) = (part(word(body, 0)?, word(body, 1)?)?, part(word(body, 5)?, word(body, 6)?)?);
                Self::Packet { frame, info }
            }
            2 => Self::Initialize { request: word(body, 0).filter(|_| word(body, 1) == Some(1))? },
            3 => Self::Halt,
            4 => {
                let (request, oid, value) = object()?;
                Self::Query { request, oid, value }
            }
            5 => {
                let (request, oid, value) = object()?;
                Self::Set { request, oid, value }
            }
            8 => Self::KeepAlive { request: word(body, 0)? },
            0x8000_0008 => Self::KeepAliveComplete { request: word(body, 0)? },
            _ => return None,
        };
        Some((message, length))
    }
}

/// A piece of what goes with a frame: the word of that type.
pub(super) fn info_word(mut info: &[u8], kind: u32) -> Option<u32> {
    while let (Some(bytes), Some(this), Some(offset)) = (word(info, 0), word(info, 1), word(info, 2)) {
        let (piece, rest) = info.split_at_checked(size(bytes).max(12))?;
        if this == kind {
            return word(piece.get(size(offset)..)?, 0);
        }
        info = rest;
    }
    None
}

/// A message of RNDIS with this type and these words as its body, and a value behind them.
pub(super) fn rndis(kind: u32, body: &[u32], value: &[u8]) -> Vec<u8> {
    let mut bytes = words(&[kind, 0]);
    bytes.extend(words(body));
    bytes.extend(value);
    if let (Ok(length), Some(place)) = (u32::try_from(bytes.len()), bytes.get_mut(4..8)) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    bytes
}

/// A frame, and what goes with it: types and words.
pub(super) fn packet(frame: &[u8], info: &[(u32, u32)]) -> Vec<u8> {
    let pieces: Vec<u8> = info.iter().flat_map(|(kind, value)| words(&[16, *kind, 12, *value])).collect();
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let offset = if pieces.is_empty() { 0 } else { length(PACKET) };
    let body = [length(PACKET + pieces.len()), length(frame.len()), 0, 0, 0, offset, length(pieces.len()), 0, 0];
    let mut value = pieces;
    value.extend(frame);
    rndis(1, &body, &value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_again_with_what_goes_with_it() {
        let bytes = packet(&[7; 61], &[(6, 0x1230), (8, 99)]);
        let (message, length) = Rndis::parse(&bytes).unwrap();
        let Rndis::Packet { frame, info } = message else { panic!("{message:?}") };
        assert_eq!((frame, length), ([7; 61].as_slice(), 8 + 36 + 32 + 61));
        assert_eq!([6, 8, 0].map(|kind| info_word(info, kind)), [Some(0x1230), Some(99), None]);
        // Every byte less is no message.
        for cut in 0..bytes.len() {
            assert_eq!(Rndis::parse(&bytes[..cut]), None);
        }
    }

    #[test]
    fn what_contradicts_itself_is_no_message() {
        assert_eq!(Nvsp::parse(&words(&[1, 2, 3])), None);
        assert_eq!(Nvsp::parse(&words(&[101, 7, 0xbeef])), None);
        assert_eq!(Nvsp::parse(&words(&[133, 2, 1])), None);
        assert_eq!(Nvsp::parse(&words(&[7])), None);
        // A value that lies outside.
        assert_eq!(Rndis::parse(&rndis(4, &[1, 2, 5, 20, 0], &[0; 4])), None);
        assert!(Rndis::parse(&rndis(4, &[1, 2, 4, 20, 0], &[0; 4])).is_some());
    }
}
