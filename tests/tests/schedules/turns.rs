//! Turns: the scheduler decides which of all that could happen next does.

use std::time::Duration;

use vmbus_channels::control::{Command, Input};
use vmbus_simhost::device::PipeSettings;
use vmbus_simhost::{DeviceSpec, OfferId};

use super::applications::{Applications, SERVICE};
use super::ghost::Ghost;
use super::plan::{Faults, MONITORS};
use super::random::Random;
use super::world::{Verdict, World};

/// Longer than a message takes where there are no faults.
const TRANSIT_AT_MOST: Duration = Duration::from_secs(3);
/// Messages that cross at a time when all of them do.
const BURST: usize = 2000;

impl World {
    /// Lives for so many turns, then comes to its end.
    pub(crate) fn run(&mut self, turns: usize) -> Verdict {
        self.command(Command::Connect)?;
        for _ in 0..turns {
            self.turn()?;
        }
        self.end()
    }

    fn turn(&mut self) -> Verdict {
        if !self.ghost.connected && !self.ghost.lost && self.random.once_in(2) {
            // A world without a connection is dull.
            self.upward()?;
            self.downward()?;
            return if self.ghost.asks.is_empty() { self.connection_changes() } else { Ok(()) };
        }
        match self.random.below(100) {
            0..24 => self.some(Self::upward),
            24..48 => self.some(Self::downward),
            48..54 => self.dispatcher_answers(),
            54..68 => self.application_commands(Applications::open_or_close),
            68..76 => self.application_commands(Applications::use_one),
            76..81 => self.application_drops(),
            81..91 => self.host_acts(),
            91..97 => self.time_passes(),
            97..99 => self.all_arrives(),
            _ => self.connection_changes(),
        }
    }

    /// A few messages arrive, one after the other.
    fn some(&mut self, way: fn(&mut Self) -> Result<bool, String>) -> Verdict {
        for _ in 0..=self.random.below(3) {
            way(self)?;
        }
        Ok(())
    }

    /// Everything that is on its way arrives, and what comes of it.
    pub(super) fn all_arrives(&mut self) -> Verdict {
        for _ in 0..BURST {
            let (up, down) = (self.upward()?, self.downward()?);
            if !up && !down {
                self.under_way = Duration::ZERO;
                return Ok(());
            }
        }
        Err("guest and host don't come to an end with each other".to_owned())
    }

    fn application_commands(&mut self, draw: fn(&Applications, &Ghost, &mut Random) -> Option<Command>) -> Verdict {
        let command = draw(&self.applications, &self.ghost, &mut self.random);
        command.map_or(Ok(()), |command| self.command(command))
    }

    fn application_drops(&mut self) -> Verdict {
        let drop = Applications::drop_one(&self.ghost, &mut self.random);
        drop.map_or(Ok(()), |input| self.feed(input))
    }

    fn dispatcher_answers(&mut self) -> Verdict {
        let Some(id) = self.applications.retire(&mut self.random) else { return Ok(()) };
        self.feed(Input::Retired(id))?;
        let again = Applications::again(id, 20, &self.ghost, &mut self.random);
        again.map_or(Ok(()), |input| self.feed(input))
    }

    fn host_acts(&mut self) -> Verdict {
        let offered = self.host.host().offered();
        let all: Vec<OfferId> = offered.iter().filter(|offered| offered.relid.is_some()).map(|one| one.id).collect();
        let Some(id) = self.random.pick(&all).copied().filter(|_| !self.random.once_in(3)) else {
            return self.host_offers(offered.len());
        };
        let host = self.host.host();
        // What the host can't do now is an error that means nothing here.
        let _ = match self.random.below(12) {
            0..3 => host.offer_subchannel(id).map(drop),
            3..6 => host.rescind(id),
            6..8 => host.rescind_device(id),
            8..11 => host.reoffer(id),
            _ => {
                host.stray_interrupt(0, u32::try_from(id.0 % 2048).unwrap_or(0));
                Ok(())
            }
        };
        Ok(())
    }

    fn host_offers(&mut self, there_are: usize) -> Verdict {
        if there_are >= 12 {
            return Ok(());
        }
        self.devices += 1;
        let number = self.devices;
        let host = self.host.host();
        let _ = match self.random.below(12) {
            0 => host.connect(SERVICE, PipeSettings::default()),
            // Another offer of a device that is there.
            1 => host.offer(DeviceSpec::echo(0)),
            2..4 => host.offer(DeviceSpec::pipe(number, PipeSettings::default())),
            4..6 => host.offer(DeviceSpec::echo(number).with_monitor()),
            _ => host.offer(DeviceSpec::echo(number)),
        };
        Ok(())
    }

    fn time_passes(&mut self) -> Verdict {
        let ahead = self.deadline().map_or(Duration::ZERO, |deadline| deadline.saturating_sub(self.now));
        let time = match self.random.below(10) {
            0..3 => ahead,
            3 => Duration::from_secs(11),
            4..7 => Duration::from_millis(self.random.below(3000) as u64),
            _ => Duration::from_millis(self.random.below(20) as u64),
        };
        if self.faults == Faults::None && self.under_way + time > TRANSIT_AT_MOST {
            self.all_arrives()?;
        }
        self.under_way += time;
        self.pass(time)
    }

    fn connection_changes(&mut self) -> Verdict {
        match self.random.below(16) {
            0 if self.random.once_in(6) => self.lose(),
            0..4 => self.command(Command::Suspend),
            4..9 => self.command(Command::Resume),
            9 => self.command(Command::Unload),
            10..13 => self.command(Command::Connect),
            13 => {
                let [parent_to_child_monitor, child_to_parent_monitor] =
                    if self.random.once_in(2) { MONITORS } else { [0, 0] };
                self.command(Command::ModifyConnection { parent_to_child_monitor, child_to_parent_monitor })
            }
            14 => self.command(Command::PauseMessages),
            _ => self.command(Command::ResumeMessages),
        }
    }
}
