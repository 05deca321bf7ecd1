//! Bytes of integration components' messages, seen from the host: `include/linux/hyperv.h` of Linux 6.12.

/// A version: before and behind the dot.
pub type Version = (u16, u16);

/// Bytes before a message's body.
pub const FRAME_BYTES: usize = 28;
/// The type of a negotiation.
pub const NEGOTIATE: u16 = 0;
/// Flags of what a host asks: a transaction, a request.
pub const ASKS: u8 = 3;
/// Flags of what a guest answers: a transaction, a response.
const ANSWERS: u8 = 5;

/// What the host asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Framework and messages, as agreed on; zeroes before.
    pub versions: [Version; 2],
    /// What it is about.
    pub kind: u16,
    /// Told by the answer.
    pub transaction: u8,
    /// What it is in its conversation.
    pub flags: u8,
    /// What is asked.
    pub body: Vec<u8>,
}

impl Request {
    /// The packet.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let [framework, message] =
            self.versions.map(|(major, minor)| [major.to_le_bytes(), minor.to_le_bytes()].concat());
        let length = |extra: usize| u32::try_from(self.body.len() + extra).unwrap_or(u32::MAX).to_le_bytes();
        let [low, high, ..] = length(0);
        let mut bytes = [1_u32.to_le_bytes(), length(20)].concat();
        bytes.extend(framework);
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(message);
        bytes.extend([low, high, 0, 0, 0, 0, self.transaction, self.flags, 0, 0]);
        bytes.extend(&self.body);
        bytes
    }
}

/// What a guest answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Of the request.
    pub kind: u16,
    /// How it went: 0 is well.
    pub status: u32,
    /// Of the request.
    pub transaction: u8,
    /// What is answered, with the padding of its packet.
    pub body: Vec<u8>,
}

impl Answer {
    /// Understands an answer; otherwise what is wrong with it.
    ///
    /// # Errors
    /// It is short, or not an answer.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let short = || format!("an answer of {} bytes", bytes.len());
        let kind = half(bytes, 12).ok_or_else(short)?;
        let status = word(bytes, 20).ok_or_else(short)?;
        let body = bytes.get(FRAME_BYTES..).ok_or_else(short)?.to_vec();
        let [transaction, flags] = *bytes.get(24..).and_then(|rest| rest.first_chunk()).ok_or_else(short)?;
        if flags != ANSWERS {
            return Err(format!("an answer with flags {flags:#x}"));
        }
        let said = word(bytes, 4).and_then(|said| usize::try_from(said).ok()).unwrap_or(usize::MAX);
        if said > bytes.len() - 8 {
            return Err(format!("an answer of {} bytes that says it has {said}", bytes.len()));
        }
        Ok(Self { kind, status, transaction, body })
    }
}

/// An offer of versions.
#[must_use]
pub fn offer(frameworks: &[Version], messages: &[Version]) -> Vec<u8> {
    let count = |versions: &[Version]| u16::try_from(versions.len()).unwrap_or(u16::MAX).to_le_bytes();
    let mut body = [count(frameworks), count(messages), [0; 2], [0; 2]].concat();
    let versions = frameworks.iter().chain(messages);
    body.extend(versions.flat_map(|(major, minor)| [major.to_le_bytes(), minor.to_le_bytes()].concat()));
    body
}

/// What the guest took of an offer; `None` when nothing.
///
/// # Errors
/// It took what was not offered, or says neither.
pub fn chosen(body: &[u8], frameworks: &[Version], messages: &[Version]) -> Result<Option<[Version; 2]>, String> {
    let halves: Vec<u16> = (0..8).map_while(|at| half(body, at * 2)).collect();
    match *halves.as_slice() {
        [0, 0, ..] => Ok(None),
        [1, 1, _, _, major, minor, message_major, message_minor] => {
            let (framework, message) = ((major, minor), (message_major, message_minor));
            if frameworks.contains(&framework) && messages.contains(&message) {
                Ok(Some([framework, message]))
            } else {
                Err(format!("{framework:?} and {message:?} were not offered"))
            }
        }
        _ => Err(format!("an answer to an offer that is none: {halves:x?}")),
    }
}

/// Two bytes.
#[must_use]
pub fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Four bytes.
#[must_use]
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Eight bytes.
#[must_use]
pub fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
