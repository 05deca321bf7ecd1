//! Key-value pairs: the host reads facts of this guest, sets keys for it, and may configure its network.
//!
//! `wire` is formats and text, `pool` the files, in the format of the kernel's own tools, `facts` what is told of this
//! system, `network` the hook for addresses.

pub mod facts;
pub mod network;
pub mod pool;
pub mod wire;

use std::time::Duration;

use vmbus::class::Class;
use zerocopy::FromBytes;

use super::component::{Component, Profile, Tell};
use super::event::Event;
use super::negotiate::Known;
use super::wire::{MessageType, Status, Version};
use super::{FRAMEWORKS, VERSION_1_0, VERSION_3_0};
use facts::Facts;
use network::{IpSettings, Network};
use pool::{PoolError, Pools};
use wire::{Delete, Enumerate, Header, IpMessage, Operation, Value, text_of};

/// The pool of facts, which a guest makes up and nobody writes.
pub const AUTO_POOL: u8 = 2;

/// What the host did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// It set a key.
    Set {
        /// In this pool.
        pool: u8,
        /// Which.
        key: String,
        /// To what.
        value: String,
    },
    /// It deleted a key.
    Deleted {
        /// In this pool.
        pool: u8,
        /// Which.
        key: String,
    },
    /// It went through the facts from the beginning.
    FactsTold,
    /// It configured an adapter.
    Network(IpSettings),
    /// A request was not done.
    Failed(String),
}

/// The key-value component of this guest.
#[derive(Debug)]
pub struct Kvp<F, N> {
    pools: Pools,
    facts: F,
    network: N,
    /// As of the last time that the first was asked for.
    told: Vec<(String, String)>,
}

/// Why a request is not done: the status, and a reason to tell where the status is not enough.
#[derive(Debug)]
struct Refusal(Status, Option<String>);

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self(status, None)
    }
}

impl From<PoolError> for Refusal {
    fn from(error: PoolError) -> Self {
        Self(Status::FAIL, Some(error.to_string()))
    }
}

impl<F: Facts, N: Network> Kvp<F, N> {
    /// One over files and sources.
    #[must_use]
    pub const fn new(pools: Pools, facts: F, network: N) -> Self {
        Self { pools, facts, network, told: Vec::new() }
    }

    fn serve(&mut self, body: &mut [u8], tell: Tell<'_>) -> Result<(), Refusal> {
        let (header, _) = Header::read_from_prefix(body).map_err(|_| Status::INVALID_ARGUMENT)?;
        match Operation(header.operation) {
            Operation::GET => self.answer_value(header.pool, part(body)?),
            Operation::SET => self.set(header.pool, part(body)?, tell),
            Operation::DELETE => self.delete(header.pool, part(body)?, tell),
            Operation::ENUMERATE => self.enumerate(header.pool, part(body)?, tell),
            Operation::GET_IP => {
                let message = IpMessage::mut_from_prefix(body).map_err(|_| Status::INVALID_ARGUMENT)?.0;
                let settings = self.network.settings(&text_of(&message.adapter)?)?;
                message.fill(&settings);
                Ok(())
            }
            Operation::SET_IP => {
                let message = IpMessage::mut_from_prefix(body).map_err(|_| Status::INVALID_ARGUMENT)?.0;
                let settings = IpSettings::try_from(&*message)?;
                self.network.configure(&settings).map_err(|why| Refusal(Status::FAIL, Some(why)))?;
                tell(Event::Kvp(Notice::Network(settings)));
                Ok(())
            }
            _ => Err(Status::NOT_SUPPORTED.into()),
        }
    }

    fn answer_value(&mut self, pool: u8, value: &mut Value) -> Result<(), Refusal> {
        let key = value.key()?;
        let found = if pool == AUTO_POOL {
            self.facts.all().into_iter().find(|(name, _)| *name == key).map(|(_, fact)| fact)
        } else {
            self.pools.value(writable(pool)?, &key)?
        };
        value.set_value(&found.ok_or(Status::NO_MORE_ITEMS)?);
        Ok(())
    }

    fn set(&self, pool: u8, value: &mut Value, tell: Tell<'_>) -> Result<(), Refusal> {
        let (key, text) = (value.key()?, value.value()?);
        self.pools.set(writable(pool)?, &key, &text)?;
        tell(Event::Kvp(Notice::Set { pool, key, value: text }));
        Ok(())
    }

    fn delete(&self, pool: u8, delete: &mut Delete, tell: Tell<'_>) -> Result<(), Refusal> {
        let key = delete.key()?;
        if !self.pools.delete(writable(pool)?, &key)? {
            return Err(Status::NO_MORE_ITEMS.into());
        }
        tell(Event::Kvp(Notice::Deleted { pool, key }));
        Ok(())
    }

    fn enumerate(&mut self, pool: u8, enumerate: &mut Enumerate, tell: Tell<'_>) -> Result<(), Refusal> {
        let index = usize::try_from(enumerate.index.get()).map_err(|_| Status::NO_MORE_ITEMS)?;
        let found = if pool == AUTO_POOL {
            if index == 0 {
                // All of one round are of one moment.
                self.told = self.facts.all();
                tell(Event::Kvp(Notice::FactsTold));
            }
            self.told.get(index).cloned()
        } else {
            self.pools.at(writable(pool)?, index)?
        };
        let (key, value) = found.ok_or(Status::NO_MORE_ITEMS)?;
        enumerate.value.set_key(&key);
        enumerate.value.set_value(&value);
        Ok(())
    }
}

impl Kvp<facts::SystemFacts, network::NoNetwork> {
    /// What it is.
    pub const PROFILE: Profile = Profile {
        name: "kvp",
        class: Class::KVP,
        kind: MessageType::KVP,
        known: Known { frameworks: FRAMEWORKS, messages: &[Version::new(4, 0), VERSION_3_0, VERSION_1_0] },
    };
}

/// What follows the header.
fn part<T: FromBytes + zerocopy::IntoBytes + zerocopy::KnownLayout + zerocopy::Unaligned>(
    body: &mut [u8],
) -> Result<&mut T, Status> {
    let rest = body.get_mut(size_of::<Header>()..).ok_or(Status::INVALID_ARGUMENT)?;
    Ok(T::mut_from_prefix(rest).map_err(|_| Status::INVALID_ARGUMENT)?.0)
}

/// A pool that is a file.
const fn writable(pool: u8) -> Result<u8, Status> {
    if pool < pool::POOLS && pool != AUTO_POOL { Ok(pool) } else { Err(Status::INVALID_ARGUMENT) }
}

impl<F: Facts, N: Network> Component for Kvp<F, N> {
    fn profile(&self) -> Profile {
        Kvp::PROFILE
    }

    fn request(&mut self, _: Duration, _: Version, body: &mut [u8], tell: Tell<'_>) -> Status {
        match self.serve(body, tell) {
            Ok(()) => Status::OK,
            Err(Refusal(status, why)) => {
                if let Some(why) = why {
                    tell(Event::Kvp(Notice::Failed(why)));
                }
                status
            }
        }
    }
}

#[cfg(test)]
mod tests;
