//! vstor packets as a host reads and writes them: little-endian, at fixed places.
//!
//! Format: drivers/scsi/storvsc_drv.c of Linux 6.12. Header {operation, flags, status: u32}, body behind it.

/// What guests ask for.
pub(super) mod operation {
    pub(crate) const COMPLETE_IO: u32 = 1;
    pub(crate) const REMOVE_DEVICE: u32 = 2;
    pub(crate) const EXECUTE_SRB: u32 = 3;
    pub(crate) const RESET_LUN: u32 = 4;
    pub(crate) const RESET_ADAPTER: u32 = 5;
    pub(crate) const RESET_BUS: u32 = 6;
    pub(crate) const BEGIN: u32 = 7;
    pub(crate) const END: u32 = 8;
    pub(crate) const QUERY_VERSION: u32 = 9;
    pub(crate) const QUERY_PROPERTIES: u32 = 10;
    pub(crate) const ENUMERATE_BUS: u32 = 11;
    pub(crate) const CREATE_SUBCHANNELS: u32 = 13;
}

/// What a host answers.
pub(super) mod status {
    pub(crate) const SUCCESS: u32 = 0;
    pub(crate) const UNSUCCESSFUL: u32 = 0xc000_0001;
    pub(crate) const INVALID_PARAMETER: u32 = 0xc000_000d;
    pub(crate) const INVALID_REQUEST: u32 = 0xc000_0010;
    pub(crate) const REVISION_MISMATCH: u32 = 0xc000_0059;
}

/// What an adapter says of a command.
pub(super) mod srb {
    pub(crate) const SUCCESS: u8 = 0x01;
    pub(crate) const ERROR: u8 = 0x04;
    pub(crate) const BUS_RESET: u8 = 0x0e;
    pub(crate) const INVALID_LUN: u8 = 0x20;
    pub(crate) const SENSE_VALID: u8 = 0x80;
}

/// Bytes of a packet before 5.1, and since.
pub(super) const OLD_BYTES: usize = 48;
pub(super) const NEW_BYTES: usize = 64;

/// A guest's packet.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) operation: u32,
    pub(super) flags: u32,
    bytes: Vec<u8>,
}

impl Packet {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= OLD_BYTES).then_some(())?;
        Some(Self { operation: word(bytes, 0)?, flags: word(bytes, 4)?, bytes: bytes.to_vec() })
    }

    /// The body's first half word: a version, a number of subchannels, or a request's length.
    pub(super) fn first(&self) -> u16 {
        self.bytes.get(12..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_le_bytes(*bytes))
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// Path, target and unit.
    pub(super) fn address(&self) -> (u8, u8, u8) {
        (self.byte(17), self.byte(18), self.byte(19))
    }

    pub(super) fn sense_room(&self) -> usize {
        self.byte(21).into()
    }

    /// 0 out, 1 in, 2 neither.
    pub(super) fn direction(&self) -> u8 {
        self.byte(22)
    }

    pub(super) fn transfer_bytes(&self) -> u32 {
        word(&self.bytes, 24).unwrap_or(0)
    }

    /// The command, filled up to 16 bytes, if its length is possible.
    pub(super) fn command(&self) -> Option<[u8; 16]> {
        let length = usize::from(self.byte(20));
        let mut command = *self.bytes.get(28..)?.first_chunk::<16>()?;
        command.get_mut(length..)?.fill(0);
        (length >= 6).then_some(command)
    }

    /// The completion: the packet with another operation and status.
    pub(super) fn completion(&self, status: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        put(&mut bytes, 0, &operation::COMPLETE_IO.to_le_bytes());
        put(&mut bytes, 8, &status.to_le_bytes());
        bytes
    }

    /// The completion of a command.
    pub(super) fn outcome(&self, srb_status: u8, scsi_status: u8, moved: u32, sense: &[u8]) -> Vec<u8> {
        let mut bytes = self.completion(if srb_status & 0x3f == srb::SUCCESS { 0 } else { status::UNSUCCESSFUL });
        let sense = sense.get(..sense.len().min(self.sense_room()).min(20)).unwrap_or_default();
        let valid = if sense.is_empty() { 0 } else { srb::SENSE_VALID };
        put(&mut bytes, 14, &[srb_status | valid, scsi_status]);
        put(&mut bytes, 21, &[u8::try_from(sense.len()).unwrap_or(0)]);
        put(&mut bytes, 24, &moved.to_le_bytes());
        if !sense.is_empty() {
            put(&mut bytes, 28, &[0; 20]);
            put(&mut bytes, 28, sense);
        }
        bytes
    }

    /// The completion of a question for properties.
    pub(super) fn properties(&self, subchannels: u16, max_transfer_bytes: u32) -> Vec<u8> {
        let mut bytes = self.completion(status::SUCCESS);
        put(&mut bytes, 12, &[0; 24]);
        put(&mut bytes, 16, &subchannels.to_le_bytes());
        put(&mut bytes, 20, &u32::from(subchannels != 0).to_le_bytes());
        put(&mut bytes, 24, &max_transfer_bytes.to_le_bytes());
        bytes
    }
}

/// What a host says by itself.
pub(super) fn announcement(operation: u32) -> Vec<u8> {
    let mut bytes = vec![0; NEW_BYTES];
    put(&mut bytes, 0, &operation.to_le_bytes());
    bytes
}

pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes.iter_mut().skip(at).zip(value).for_each(|(to, from)| *to = *from);
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
