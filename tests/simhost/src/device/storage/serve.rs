//! What the controller does with each packet of the guest's.

use super::format::{NEW_BYTES, OLD_BYTES, Packet, operation, srb, status};
use super::scsi::{self, Did, Reply};
use super::shared::Stage;
use super::{GuestRange, Held, Port, StorageController};

impl StorageController {
    /// Takes a packet; its answer waits to be sent, now or later.
    pub(super) fn take(&mut self, id: u64, payload: &[u8], port: &mut dyn Port) {
        let Some(packet) = Packet::parse(payload) else {
            port.violation(format!("storage: a packet of {} bytes", payload.len()));
            self.ids.remove(&id);
            return;
        };
        self.check(&packet, payload.len(), port);
        if packet.operation != operation::EXECUTE_SRB {
            let bytes = self.control(&packet, port);
            // A reset aborts first, and is done when that is.
            self.unhold(port);
            return self.answer(id, bytes);
        }
        let range = port.ranges().first().cloned();
        let (holds, epoch) = {
            let shared = self.shared();
            (shared.holds, shared.epoch)
        };
        if holds {
            self.shared().held += 1;
            return self.held.push_back(Held { id, packet, range, epoch });
        }
        let bytes = self.carry_out(&packet, range.as_ref(), port);
        self.answer(id, bytes);
    }

    /// What every packet must be like.
    fn check(&self, packet: &Packet, length: usize, port: &mut dyn Port) {
        let (stage, version) = {
            let shared = self.shared();
            (shared.stage, shared.version)
        };
        let expected = if version >= 0x0501 { NEW_BYTES } else { OLD_BYTES };
        let agreed = matches!(stage, Stage::Running);
        if agreed && length != expected || !matches!(length, OLD_BYTES | NEW_BYTES) {
            port.violation(format!("storage: a packet of {length} bytes at version {version:#06x}"));
        }
        if packet.flags & 1 == 0 {
            port.violation("storage: a packet that wants no completion".to_owned());
        }
        if self.is_subchannel && packet.operation != operation::EXECUTE_SRB {
            port.violation(format!("storage: operation {} on a subchannel", packet.operation));
        }
    }

    /// The answer to what is no command.
    fn control(&mut self, packet: &Packet, port: &mut dyn Port) -> Vec<u8> {
        let mut shared = self.shared();
        let (_, _, lun) = packet.address();
        let (next, status) = match (shared.stage, packet.operation) {
            (Stage::Begin, operation::BEGIN) => (Stage::Version, status::SUCCESS),
            (Stage::Version, operation::QUERY_VERSION) => {
                let asked = packet.first();
                match shared.settings.versions.contains(&asked) {
                    true => {
                        shared.version = asked;
                        (Stage::Properties, status::SUCCESS)
                    }
                    false => (Stage::Version, status::REVISION_MISMATCH),
                }
            }
            (Stage::Properties, operation::QUERY_PROPERTIES) => {
                shared.stage = Stage::End;
                let subchannels = if shared.version >= 0x0501 { shared.settings.subchannels } else { 0 };
                return packet.properties(subchannels, shared.settings.max_transfer_bytes);
            }
            (Stage::End, operation::END) => (Stage::Running, status::SUCCESS),
            (Stage::Running, operation::CREATE_SUBCHANNELS) => {
                let count = packet.first();
                let may = count != 0 && count <= shared.settings.subchannels && shared.version >= 0x0501;
                if may {
                    port.offer_subchannels(count);
                } else {
                    port.violation(format!("storage: {count} subchannels are asked for"));
                }
                (Stage::Running, if may { status::SUCCESS } else { status::INVALID_PARAMETER })
            }
            (Stage::Running, operation::RESET_LUN) => (Stage::Running, shared.reset(Some(lun))),
            (Stage::Running, operation::RESET_BUS | operation::RESET_ADAPTER) => (Stage::Running, shared.reset(None)),
            (stage, other) => {
                port.violation(format!("storage: operation {other} in the stage {stage:?}"));
                (stage, status::INVALID_REQUEST)
            }
        };
        shared.stage = next;
        packet.completion(status)
    }

    /// Carries a command out, and makes its answer.
    pub(super) fn carry_out(&mut self, packet: &Packet, range: Option<&GuestRange>, port: &mut dyn Port) -> Vec<u8> {
        let invalid = || packet.completion(status::INVALID_PARAMETER);
        let mut shared = self.shared();
        if shared.stage != Stage::Running {
            port.violation("storage: a command before the end of the beginning".to_owned());
            return packet.completion(status::INVALID_REQUEST);
        }
        let Some(command) = packet.command() else {
            port.violation("storage: a command without bytes".to_owned());
            return invalid();
        };
        let (moves, size) = (packet.transfer_bytes(), range.map_or(0, |range| range.byte_count));
        if moves != size
            || moves > shared.settings.max_transfer_bytes
            || (moves != 0) != matches!(packet.direction(), 0 | 1)
        {
            port.violation(format!("storage: {moves} bytes are to be moved, of a range of {size}"));
            return invalid();
        }
        shared.counted.commands += 1;
        shared.counted.through_subchannels += u64::from(self.is_subchannel);
        let room = usize::try_from(moves).unwrap_or(0);
        let mut data = Vec::new();
        if let (0, Some(range)) = (packet.direction(), range) {
            data.resize(room, 0);
            if !port.read_range(range, 0, &mut data) {
                port.violation("storage: data are where the guest has no memory".to_owned());
                return invalid();
            }
        }
        let (path, target, lun) = packet.address();
        let [code, ..] = command;
        let luns = shared.units.keys().copied().collect::<Vec<_>>();
        let (reply, did) = match (code, shared.units.get_mut(&lun).filter(|_| (path, target) == (0, 0))) {
            (0xa0, _) if (path, target) == (0, 0) => (Reply::Good(scsi::report_luns(luns.into_iter())), Did::Else),
            (_, Some(unit)) => scsi::carry_out(unit, &command, &data, room),
            (0x12, None) => (Reply::Good(scsi::nothing_there()), Did::Else),
            (_, None) => return packet.outcome(srb::INVALID_LUN, 0, 0, &[]),
        };
        let counted = &mut shared.counted;
        match did {
            Did::Read => counted.reads += 1,
            Did::Wrote => counted.writes += 1,
            Did::Flushed => counted.flushes += 1,
            Did::Unmapped => counted.unmaps += 1,
            Did::Else => {}
        }
        drop(shared);
        match reply {
            Reply::Check(code) => packet.outcome(srb::ERROR, 2, 0, &scsi::sense(code)),
            // Out: all of it was taken.
            Reply::Good(_) if packet.direction() == 0 => packet.outcome(srb::SUCCESS, 0, moves, &[]),
            Reply::Good(mut bytes) => {
                bytes.truncate(room);
                let there = bytes.is_empty() || range.is_some_and(|range| port.write_range(range, 0, &bytes));
                if !there {
                    port.violation("storage: data are to go where the guest has no memory".to_owned());
                    return invalid();
                }
                packet.outcome(srb::SUCCESS, 0, u32::try_from(bytes.len()).unwrap_or(0), &[])
            }
        }
    }
}
