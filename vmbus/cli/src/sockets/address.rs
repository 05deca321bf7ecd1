//! Addresses on the command line: of VM sockets, and of either end of a forward.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;
use vmbus_devices::socket::VmSocketAddr;
use vmbus_devices::socket::addr::service_of;
use vmbus_simhost::plain::PlainAddr;

/// For the help.
pub(crate) const VM_HELP: &str = "A port (of the host to connect to, of any context to listen on), CID:PORT with a number, \
host, local or any for CID, or a service id (a GUID; of byte pipes, the device's instance or class)";
pub(crate) const BRIDGE_HELP: &str = "tcp:HOST:PORT, unix:PATH, or vm:ADDRESS with a port, CID:PORT or service id";

/// A VM socket's address: it may leave the context to what is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VmAddress {
    /// Of whichever context makes sense.
    Port(u32),
    Full(VmSocketAddr),
}

impl VmAddress {
    /// Where to connect to: a port alone is the host's.
    pub(crate) fn to_connect(self) -> VmSocketAddr {
        match self {
            Self::Port(port) => VmSocketAddr::host(port),
            Self::Full(addr) => addr,
        }
    }

    /// Where to listen: a port alone is for whoever connects.
    pub(crate) fn to_listen(self) -> VmSocketAddr {
        match self {
            Self::Port(port) => VmSocketAddr::any(port),
            Self::Full(addr) => addr,
        }
    }

    /// What the bus calls it, if it is one in particular.
    pub(crate) fn service(self) -> Option<Uuid> {
        match self {
            Self::Port(port) => Some(service_of(port)),
            Self::Full(addr) => addr.service_id(),
        }
    }
}

impl FromStr for VmAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Port).map_err(|_| format!("{text} is beyond the ports, which end at 2^32"));
        }
        let full = text.parse().map(Self::Full);
        full.map_err(|error: vmbus_devices::socket::ParseAddrError| format!("{error}; or a port alone (5000)"))
    }
}

impl fmt::Display for VmAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => port.fmt(formatter),
            Self::Full(addr) => addr.fmt(formatter),
        }
    }
}

/// One end of a forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Vm(VmAddress),
    Plain(PlainAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(addr) = text.strip_prefix("vm:") {
            return addr.parse().map(Self::Vm);
        }
        let plain = text.parse().map(Self::Plain);
        plain.map_err(|_| format!("{text:?} is no address; write tcp:HOST:PORT, unix:PATH or vm:ADDRESS"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm(addr) => write!(formatter, "vm:{addr}"),
            Self::Plain(addr) => addr.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_the_hosts_or_anybodys() {
        let port: VmAddress = "5000".parse().unwrap();
        assert_eq!((port.to_connect(), port.to_listen()), (VmSocketAddr::host(5000), VmSocketAddr::any(5000)));
        let full: VmAddress = "3:5000".parse().unwrap();
        assert_eq!((full.to_connect(), full.to_listen()), (VmSocketAddr::new(3, 5000), VmSocketAddr::new(3, 5000)));
        let service: VmAddress = "00001388-facb-11e6-bd58-64006a7986d3".parse().unwrap();
        assert_eq!(service.service(), port.service());
        for text in ["", "4294967296", "+1", "-1", "5000:", "somewhere"] {
            assert!(text.parse::<VmAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn ends_of_a_forward_are_read_and_shown() {
        for text in ["vm:5000", "vm:any:5000", "tcp:localhost:80", "unix:/run/x"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "5000", "vm:", "udp:localhost:80", "localhost:80"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
