//! What the guest asks and sets by RNDIS, and what the host answers.

use super::adapter::Adapter;
use super::format::{Rndis, words};

const SUCCESS: u32 = 0;
const INVALID: u32 = 0xc001_0015;
const NOT_SUPPORTED: u32 = 0xc000_00bb;

/// Offload capabilities: a checksum of everything both ways, segmentation up to 64 KiB.
fn offloads(on: bool) -> Vec<u8> {
    const SIZE: u16 = 112;
    let mut bytes = vec![0xa7, 1];
    bytes.extend(SIZE.to_le_bytes());
    let (v4, v6) = if on { (0x155, 0x55) } else { (0, 0) };
    bytes.extend(words(&[2, v4, 2, v4, 2, v6, 2, v6]));
    bytes.extend(words(&[0; 11]));
    let longest = if on { 0xffff } else { 0 };
    bytes.extend(words(&[2, longest, 2, 2, longest, 2, 5, 0]));
    bytes
}

/// Capabilities of queues.
fn scale(queues: u16) -> Vec<u8> {
    let mut bytes = vec![0x88, 2];
    bytes.extend(18_u16.to_le_bytes());
    bytes.extend(words(&[0x700, 1, queues.into()]));
    bytes.extend(128_u16.to_le_bytes());
    bytes
}

impl Adapter {
    /// Answers a control message. `None`, or why it is not one.
    pub(super) fn control(&mut self, message: Rndis<'_>) -> Option<String> {
        match message {
            Rndis::Initialize { request } => {
                self.initialized = true;
                let body = [request, SUCCESS, 1, 0, 1, 0, 8, 0x4000, 3, 0, 0];
                self.say(0x8000_0002, &body, &[]);
            }
            Rndis::Halt => {
                self.initialized = false;
                self.filter = 0;
            }
            _ if !self.initialized => return Some(format!("{message:?} before the begin of RNDIS")),
            Rndis::Query { request, oid, value } => {
                let answer = self.query(oid, value);
                let status = if answer.is_some() { SUCCESS } else { NOT_SUPPORTED };
                let answer = answer.unwrap_or_default();
                let (length, offset) =
                    (u32::try_from(answer.len()).unwrap_or(0), if answer.is_empty() { 0 } else { 16 });
                self.say(0x8000_0004, &[request, status, length, offset], &answer);
            }
            Rndis::Set { request, oid, value } => {
                let status = self.set(oid, value);
                self.say(0x8000_0005, &[request, status], &[]);
            }
            Rndis::KeepAlive { request } => self.say(0x8000_0008, &[request, SUCCESS], &[]),
            Rndis::KeepAliveComplete { .. } => {}
            Rndis::Packet { .. } => return Some("a frame among control messages".to_owned()),
        }
        None
    }

    fn query(&self, oid: u32, value: &[u8]) -> Option<Vec<u8>> {
        let number = |number: u32| number.to_le_bytes().to_vec();
        let known = match oid {
            0x0101_0101 => return Some(self.settings.address.to_vec()),
            0x0001_0106 => number(self.settings.mtu),
            0x0001_0107 => number(self.speed),
            0x0001_0114 => number(self.link_down.into()),
            0x0001_0203 if value.first() == Some(&0x88) => scale(self.settings.queues),
            0xfc01_020d if value.first() == Some(&0xa7) => offloads(self.settings.offloads),
            _ => return None,
        };
        (!self.settings.knows_little).then_some(known)
    }

    fn set(&mut self, oid: u32, value: &[u8]) -> u32 {
        match oid {
            0x0001_010e => match value.first_chunk() {
                Some(filter) => {
                    self.filter = u32::from_le_bytes(*filter);
                    SUCCESS
                }
                None => INVALID,
            },
            0x0001_0204 if !self.settings.knows_little => {
                if self.scale(value) {
                    SUCCESS
                } else {
                    INVALID
                }
            }
            0xfc01_020c if !self.settings.knows_little => {
                if value.first() == Some(&0x80) && value.len() >= 22 {
                    self.offloads_set = value.to_vec();
                    SUCCESS
                } else {
                    INVALID
                }
            }
            _ => NOT_SUPPORTED,
        }
    }
}
