//! Which units a controller has, and what of them is new, gone, or another one at the same place.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::controller::Controller;
use super::scsi::{Command, Inquiry, SenseKey, device_identifier, luns, serial_number, supported_pages};
use super::{Address, Failure, Outcome};
use crate::Error;

/// Room for the answer to REPORT LUNS: all units that there can be.
const LUNS_BYTES: u32 = 8 + 256 * 8;
/// Room for an INQUIRY and for its pages.
const INQUIRY_BYTES: u16 = 96;
const PAGE_BYTES: u16 = 252;
/// How often a unit may have something to tell before it does what it is asked for.
const ATTENTIONS: usize = 8;

/// A unit that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Where.
    pub address: Address,
    /// What kind of device.
    pub inquiry: Inquiry,
    /// What identifies it in all the world, if it says.
    pub identifier: Option<String>,
    /// Its serial number, if it says.
    pub serial: Option<String>,
}

/// What the last look has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// All units.
    pub units: Vec<Unit>,
    /// Those that were not there before; also one that is another now.
    pub added: Vec<Address>,
    /// Those that are not there any more; also one that is another now.
    pub removed: Vec<Address>,
}

impl Changes {
    /// What is different, and what is known from now on.
    fn between(known: &BTreeMap<Address, Unit>, found: Vec<Unit>) -> (Self, BTreeMap<Address, Unit>) {
        let now: BTreeMap<_, _> = found.iter().map(|unit| (unit.address, unit.clone())).collect();
        let missing = |from: &BTreeMap<Address, Unit>, of: &BTreeMap<Address, Unit>| -> Vec<Address> {
            from.iter().filter(|(address, unit)| of.get(address) != Some(unit)).map(|(address, _)| *address).collect()
        };
        let (added, removed) = (missing(&now, known), missing(known, &now));
        (Self { units: found, added, removed }, now)
    }
}

impl Controller {
    /// Asks the host for all units.
    pub(super) fn scan(&self) -> Result<Changes, Error> {
        // One look after the other: what is known is what the last one found.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        for path in 0..self.settings.paths.max(1) {
            for target in 0..self.settings.targets.max(1) {
                for lun in self.luns(path, target)? {
                    match self.unit(Address { path, target, lun }) {
                        Ok(unit) => found.extend(unit),
                        // It has gone since.
                        Err(Error::Storage { failure: Failure::NoUnit(_), .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        let (changes, now) = Changes::between(&known, found);
        *known = now;
        Ok(changes)
    }

    /// The units of one device.
    fn luns(&self, path: u8, target: u8) -> Result<Vec<u8>, Error> {
        let at = Address { path, target, lun: 0 };
        let command = Command::report_luns(LUNS_BYTES);
        match self.answer(at, command, usize::try_from(LUNS_BYTES).unwrap_or(0)) {
            Ok(bytes) => match luns(&bytes) {
                Some((luns, _)) => Ok(luns),
                None => Err(self.requests.failed(Failure::Nonsense { unit: at, command: command.name() })),
            },
            Err(Error::Storage { failure: Failure::NoUnit(_), .. }) => Ok(Vec::new()),
            // It knows no such command, and has one unit then.
            Err(Error::Storage { failure: Failure::Command { outcome, .. }, .. }) if is_illegal(&outcome) => {
                Ok(vec![0])
            }
            Err(error) => Err(error),
        }
    }

    /// One unit; `None`: nothing is there.
    pub(super) fn unit(&self, address: Address) -> Result<Option<Unit>, Error> {
        let command = Command::inquiry(None, INQUIRY_BYTES);
        let bytes = self.answer(address, command, INQUIRY_BYTES.into())?;
        let nonsense = || self.requests.failed(Failure::Nonsense { unit: address, command: command.name() });
        let inquiry = Inquiry::parse(&bytes).ok_or_else(nonsense)?;
        if inquiry.qualifier != 0 {
            return Ok(None);
        }
        let pages = self.page(address, 0)?.as_deref().and_then(supported_pages).unwrap_or_default();
        let page = |number: u8| if pages.contains(&number) { self.page(address, number) } else { Ok(None) };
        let serial = page(0x80)?.as_deref().and_then(serial_number);
        let identifier = page(0x83)?.as_deref().and_then(device_identifier);
        Ok(Some(Unit { address, inquiry, identifier, serial }))
    }

    /// One page of what a unit says of itself; `None`: it has no such page.
    pub(super) fn page(&self, unit: Address, page: u8) -> Result<Option<Vec<u8>>, Error> {
        match self.answer(unit, Command::inquiry(Some(page), PAGE_BYTES), PAGE_BYTES.into()) {
            Ok(bytes) => Ok(Some(bytes)),
            // Some hosts have pages that they can't give.
            Err(Error::Storage { failure: Failure::Command { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The answer to a command that brings data: as many as came.
    pub(super) fn answer(&self, unit: Address, command: Command, room: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; room];
        let outcome = self.good(unit, command, &mut bytes)?;
        bytes.truncate(outcome.transferred);
        Ok(bytes)
    }

    /// Sends a command until it is done, or fails for good: units that have something to tell are heard.
    pub(super) fn good(&self, unit: Address, command: Command, destination: &mut [u8]) -> Result<Outcome, Error> {
        let mut again = 0..ATTENTIONS;
        loop {
            let outcome = match self.execute(unit, command, destination) {
                Err(Error::Storage { failure: Failure::LinkLost(_), .. }) if again.next().is_some() => continue,
                outcome => outcome?,
            };
            if outcome.is_good() {
                return Ok(outcome);
            }
            if !outcome.is_attention() || again.next().is_none() {
                return Err(self.requests.failed(Failure::Command { unit, command: command.name(), outcome }));
            }
        }
    }
}

/// Whether a unit does not know what it was asked for.
pub(super) fn is_illegal(outcome: &Outcome) -> bool {
    outcome.sense.is_some_and(|sense| sense.key == SenseKey::ILLEGAL_REQUEST)
}

#[cfg(test)]
mod tests;
