//! Addresses of VM sockets: a context and a port, or a service id, and how the two are one.
//!
//! Format: `struct sockaddr_vm` of <linux/vm_sockets.h>, and the service ids that Hyper-V knows ports by (the template in
//! net/vmw_vsock/hyperv_transport.c).

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use uuid::Uuid;

/// Any context: the one there is.
pub const CID_ANY: u32 = u32::MAX;
/// This machine itself.
pub const CID_LOCAL: u32 = 1;
/// The host.
pub const CID_HOST: u32 = 2;
/// Any port: one that is free.
pub const PORT_ANY: u32 = u32::MAX;
/// The largest port that a service may listen on, on either side; beyond are the host's own ends.
pub const PORT_MOST: u32 = 0x7fff_ffff;

/// What the service id of port 0 has behind its first number.
const TEMPLATE: (u16, u16, [u8; 8]) = (0xfacb, 0x11e6, [0xbd, 0x58, 0x64, 0x00, 0x6a, 0x79, 0x86, 0xd3]);

/// The address of one end of a VM socket.
///
/// As text: `2:5000`, `host:5000`, `local:5000`, `any:5000`, `any:any`, or a service id such as
/// `00001388-facb-11e6-bd58-64006a7986d3` (which is port 5000; braces do no harm).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VmSocketAddr {
    /// A context (a machine) and a port in it.
    Port {
        /// Which machine: [`CID_HOST`], [`CID_LOCAL`], [`CID_ANY`], or a guest's number.
        cid: u32,
        /// Which port there, or [`PORT_ANY`].
        port: u32,
    },
    /// A service by its id. Of byte pipes that are offered as devices, the instance or the class.
    Service(Uuid),
}

impl VmSocketAddr {
    /// A port of a context.
    #[must_use]
    pub const fn new(cid: u32, port: u32) -> Self {
        Self::Port { cid, port }
    }

    /// A port of the host.
    #[must_use]
    pub const fn host(port: u32) -> Self {
        Self::new(CID_HOST, port)
    }

    /// A port of whatever context there is; what a listener binds to.
    #[must_use]
    pub const fn any(port: u32) -> Self {
        Self::new(CID_ANY, port)
    }

    /// A service.
    #[must_use]
    pub const fn service(id: Uuid) -> Self {
        Self::Service(id)
    }

    /// The context, if it says one.
    #[must_use]
    pub const fn cid(&self) -> Option<u32> {
        match self {
            Self::Port { cid, .. } => Some(*cid),
            Self::Service(_) => None,
        }
    }

    /// The port; of a service id that is made of one, too.
    #[must_use]
    pub fn port(&self) -> Option<u32> {
        match self {
            Self::Port { port, .. } => Some(*port),
            Self::Service(id) => port_of(*id),
        }
    }

    /// The id that the bus knows it by; `None` for [`PORT_ANY`].
    #[must_use]
    pub const fn service_id(&self) -> Option<Uuid> {
        match self {
            Self::Port { port: PORT_ANY, .. } => None,
            Self::Port { port, .. } => Some(service_of(*port)),
            Self::Service(id) => Some(*id),
        }
    }

    /// The address of a service id: a port where it is made of one.
    #[must_use]
    pub fn of_service(cid: u32, id: Uuid) -> Self {
        port_of(id).map_or(Self::Service(id), |port| Self::new(cid, port))
    }
}

/// The service id of a port.
#[must_use]
pub const fn service_of(port: u32) -> Uuid {
    Uuid::from_fields(port, TEMPLATE.0, TEMPLATE.1, &TEMPLATE.2)
}

/// The port that a service id is made of, if it is.
#[must_use]
pub fn port_of(id: Uuid) -> Option<u32> {
    let (port, second, third, rest) = id.as_fields();
    ((second, third, *rest) == TEMPLATE).then_some(port)
}

impl From<Uuid> for VmSocketAddr {
    fn from(id: Uuid) -> Self {
        Self::Service(id)
    }
}

impl From<(u32, u32)> for VmSocketAddr {
    fn from((cid, port): (u32, u32)) -> Self {
        Self::new(cid, port)
    }
}

impl fmt::Display for VmSocketAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(id) => id.fmt(formatter),
            Self::Port { cid, port } => {
                match *cid {
                    CID_ANY => formatter.write_str("any")?,
                    cid => cid.fmt(formatter)?,
                }
                match *port {
                    PORT_ANY => formatter.write_str(":any"),
                    port => write!(formatter, ":{port}"),
                }
            }
        }
    }
}

impl fmt::Debug for VmSocketAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no VM socket address; write a context and a port (2:5000, host:5000, any:5000) or a service id (a GUID)"
)]
pub struct ParseAddrError {
    text: String,
}

impl FromStr for VmSocketAddr {
    type Err = ParseAddrError;

    fn from_str(text: &str) -> Result<Self, ParseAddrError> {
        let error = || ParseAddrError { text: text.chars().take(80).collect() };
        let Some((cid, port)) = text.split_once(':') else {
            // The uuid crate takes other forms as well, such as 32 digits in a row, and that one is no address.
            let id = Uuid::try_parse(text).map_err(|_| error())?;
            return if text.contains('-') { Ok(Self::Service(id)) } else { Err(error()) };
        };
        let cid = match cid {
            "any" => CID_ANY,
            "local" => CID_LOCAL,
            "host" => CID_HOST,
            number => digits(number).map_err(|_| error())?,
        };
        let port = if port == "any" { PORT_ANY } else { digits(port).map_err(|_| error())? };
        Ok(Self::new(cid, port))
    }
}

/// A number of digits alone: `parse` takes a sign, too.
fn digits(text: &str) -> Result<u32, ParseIntError> {
    if text.starts_with('+') { "".parse() } else { text.parse() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_and_service_ids_are_the_same_thing() {
        let id = Uuid::try_parse("00001388-facb-11e6-bd58-64006a7986d3").unwrap_or_default();
        assert_eq!(service_of(5000), id);
        assert_eq!(port_of(id), Some(5000));
        assert_eq!(VmSocketAddr::host(5000).service_id(), Some(id));
        assert_eq!(VmSocketAddr::of_service(CID_HOST, id), VmSocketAddr::host(5000));
        let other = Uuid::from_u128(7);
        assert_eq!(port_of(other), None);
        assert_eq!(VmSocketAddr::of_service(CID_HOST, other), VmSocketAddr::Service(other));
        assert_eq!(VmSocketAddr::any(PORT_ANY).service_id(), None);
    }

    #[test]
    fn the_port_is_the_first_four_bytes_as_the_bus_has_them() {
        assert_eq!(service_of(0x0102_0304).to_bytes_le().first_chunk(), Some(&[4, 3, 2, 1]));
    }

    #[test]
    fn names_of_contexts_are_read() {
        for (text, addr) in [
            ("2:5000", VmSocketAddr::new(2, 5000)),
            ("host:1", VmSocketAddr::host(1)),
            ("local:1", VmSocketAddr::new(CID_LOCAL, 1)),
            ("any:any", VmSocketAddr::any(PORT_ANY)),
            ("{00001388-facb-11e6-bd58-64006a7986d3}", VmSocketAddr::Service(service_of(5000))),
        ] {
            assert_eq!(text.parse(), Ok(addr), "{text}");
        }
        for text in [
            "",
            ":",
            "2:",
            ":2",
            "2:-1",
            "+2:1",
            "2:+1",
            "2:4294967296",
            "2:1:3",
            "x",
            "00001388facb11e6bd5864006a7986d3",
        ] {
            assert!(text.parse::<VmSocketAddr>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(cid: u32, port: u32, id: u128) {
            for addr in [VmSocketAddr::new(cid, port), VmSocketAddr::Service(Uuid::from_u128(id))] {
                prop_assert_eq!(addr.to_string().parse(), Ok(addr));
            }
        }
    }
}
