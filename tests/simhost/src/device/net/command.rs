//! What a test or a person tells the host's side of an adapter to do.

use vmbus_ringbuf::TransferPageRange;

use super::Network;
use super::format::words;
use crate::Error;

const NONSENSE: Error = Error::Nonsense(
    "an adapter takes: link up|down, speed HUNDREDS, network, keep-alive, vf SERIAL|none, table QUEUE ..., \
     send FRAMES BYTES, hold, release, silent, talk, transfer ID SET OFFSET BYTES, complete ID",
);

/// What no queue of the adapter has.
#[derive(Debug, Clone)]
pub(super) enum Forged {
    Transfer { id: u64, set: u16, range: TransferPageRange },
    Completion(u64),
    InBand(Vec<u8>),
}

impl Network {
    pub(super) fn commanded(&mut self, command: &str) -> Result<(), Error> {
        let all: Vec<_> = command.split_ascii_whitespace().collect();
        let (verb, rest) = all.split_first().ok_or(NONSENSE)?;
        let numbers: Result<Vec<u64>, _> = rest.iter().map(|word| word.parse::<u64>()).collect();
        let half = |number: u64| u32::try_from(number).map_err(|_| NONSENSE);
        match (*verb, rest, numbers.as_deref()) {
            ("link", [state @ ("up" | "down")], _) => {
                let mut adapter = self.adapter();
                adapter.link_down = *state == "down";
                let status = 0x4001_000b + u32::from(adapter.link_down);
                adapter.say(7, &[status, 0, 0], &[]);
            }
            ("speed", _, Ok([speed])) => {
                let (speed, mut adapter) = (half(*speed)?, self.adapter());
                adapter.speed = speed;
                adapter.say(7, &[0x4001_0013, 4, 12], &speed.to_le_bytes());
            }
            ("network", [], _) => self.adapter().say(7, &[0x4001_0018, 0, 0], &[]),
            ("keep-alive", [], _) => self.adapter().say(8, &[0x7e57], &[]),
            ("vf", ["none"], _) => self.forge(Forged::InBand(words(&[128, 0, 0]))),
            ("vf", _, Ok([serial])) => self.forge(Forged::InBand(words(&[128, 1, half(*serial)?]))),
            ("table", _, Ok(table)) if table.len() == 16 => {
                // Behind a message that is as long as any.
                let mut message = words(&[134, 16, 40, 0, 0, 0, 0, 0, 0, 0]);
                for queue in table {
                    message.extend(half(*queue)?.to_le_bytes());
                }
                self.forge(Forged::InBand(message));
            }
            ("send", _, Ok([frames, bytes])) if *frames <= 65_536 && (14..=65_536).contains(bytes) => {
                let (index, mut adapter) = (self.index, self.adapter());
                let mut frame = vec![0; usize::try_from(*bytes).map_err(|_| NONSENSE)?];
                for number in 0..*frames {
                    let head = [adapter.settings.address.as_slice(), &[2, 0, 0, 0, 0, 1, 0x88, 0xb5]].concat();
                    let numbers = head.iter().copied().chain(number.to_le_bytes().into_iter().cycle());
                    frame.iter_mut().zip(numbers).for_each(|(to, from)| *to = from);
                    adapter.deliver(index, &frame, Vec::new(), None);
                }
            }
            ("hold", [], _) => self.adapter().holds = true,
            ("release", [], _) => self.adapter().holds = false,
            ("silent", [], _) => self.adapter().talk(false),
            ("talk", [], _) => self.adapter().talk(true),
            ("transfer", _, Ok([id, set, offset, bytes])) => {
                let set = u16::try_from(*set).map_err(|_| NONSENSE)?;
                let range = TransferPageRange { byte_count: half(*bytes)?, byte_offset: half(*offset)? };
                self.forged_ids.insert(*id);
                self.forge(Forged::Transfer { id: *id, set, range });
            }
            ("complete", _, Ok([id])) => self.forge(Forged::Completion(*id)),
            _ => return Err(NONSENSE),
        }
        Ok(())
    }

    fn forge(&mut self, forged: Forged) {
        self.forged.push_back(forged);
    }
}
