//! Addresses that the host wants an adapter to have: checked, and handed to a hook.

use std::net::IpAddr;

use super::wire::{IpMessage, text_of};
use crate::ic::hook::Hook;
use crate::ic::wire::Status;

/// An adapter's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IpSettings {
    /// A GUID, lower case and without braces; or a hardware address.
    pub adapter: String,
    /// IPv4 comes by DHCP.
    pub dhcp: bool,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// A mask or the length of a prefix for each.
    pub subnets: Vec<String>,
    /// Gateways.
    pub gateways: Vec<IpAddr>,
    /// Name servers.
    pub name_servers: Vec<IpAddr>,
}

impl TryFrom<&IpMessage> for IpSettings {
    type Error = Status;

    /// Nothing that is not an address, a mask or a GUID gets through.
    fn try_from(message: &IpMessage) -> Result<Self, Status> {
        let adapter = text_of(&message.adapter)?;
        let bare = adapter.trim_start_matches('{').trim_end_matches('}');
        let adapter = uuid::Uuid::try_parse(bare).map_err(|_| Status::GUID_NOT_FOUND)?.to_string();
        let subnets = list(&text_of(&message.subnets)?, |text| {
            let length = text.trim_start_matches('/').parse::<u8>().is_ok_and(|length| length <= 128);
            (length || text.parse::<IpAddr>().is_ok()).then(|| text.to_owned())
        })?;
        let addresses = |units: &_| list(&text_of(units)?, |text| text.parse().ok());
        Ok(Self {
            adapter,
            dhcp: message.dhcp != 0,
            addresses: addresses(&message.addresses[..])?,
            subnets,
            gateways: addresses(&message.gateways[..])?,
            name_servers: addresses(&message.name_servers[..])?,
        })
    }
}

fn list<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Status> {
    let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| parse(part).ok_or(Status::INVALID_ARGUMENT)).collect()
}

/// What knows and configures adapters.
pub trait Network: Send {
    /// The addresses of the adapter with this hardware address.
    ///
    /// # Errors
    /// There is none, or it can't be told.
    fn settings(&mut self, adapter: &str) -> Result<IpSettings, Status> {
        let _ = adapter;
        Err(Status::FAIL)
    }

    /// Has an adapter use these.
    ///
    /// # Errors
    /// Why it doesn't.
    fn configure(&mut self, settings: &IpSettings) -> Result<(), String>;
}

/// Refuses.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNetwork;

impl Network for NoNetwork {
    fn configure(&mut self, _: &IpSettings) -> Result<(), String> {
        Err("the host wants to configure an adapter, and no hook is set for that".to_owned())
    }
}

/// Runs a command with the adapter, `dhcp` or `static`, and four lists with commas as its last arguments: addresses,
/// subnets, gateways, name servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookNetwork(pub Hook);

impl Network for HookNetwork {
    fn configure(&mut self, settings: &IpSettings) -> Result<(), String> {
        let join = |list: &[IpAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let lists = [
            join(&settings.addresses),
            settings.subnets.join(","),
            join(&settings.gateways),
            join(&settings.name_servers),
        ];
        let mut arguments = vec![settings.adapter.as_str(), if settings.dhcp { "dhcp" } else { "static" }];
        arguments.extend(lists.iter().map(String::as_str));
        self.0.run(&arguments).map_err(|error| error.to_string())
    }
}
