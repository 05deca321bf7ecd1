//! Bridges on the command line: `PORT=TARGET` for a service of the host, `LISTEN=PORT` for one of a guest.

use std::str::FromStr;

use anyhow::Context;
use uuid::Uuid;
use vmbus_simhost::plain::PlainAddr;
use vmbus_simhost::server::Target;

use crate::sockets::address::VmAddress;

/// For the help.
pub(crate) const SERVICE_HELP: &str = "What guests find on a port (or service id) of the host: tcp:HOST:PORT or unix:PATH, \
to which the host connects for each of them; echo; or sink, which takes everything. Several add up";
pub(crate) const PUBLISH_HELP: &str = "Listen there (tcp:HOST:PORT or unix:PATH), and for each connection connect into the \
guest that came first, to whoever listens on this port (or service id). Several add up";

/// A service of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service(pub(crate) Uuid, pub(crate) Target);

/// A service of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published(pub(crate) PlainAddr, pub(crate) Uuid);

fn service(text: &str) -> anyhow::Result<Uuid> {
    let addr: VmAddress = text.parse().map_err(anyhow::Error::msg)?;
    addr.service().context("any port is none in particular")
}

impl FromStr for Service {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (port, target) = text.split_once('=').context("there is no `=` between port and target")?;
        let target = match target {
            "echo" => Target::Echo,
            "sink" => Target::Sink,
            other => Target::Plain(other.parse().map_err(|error| anyhow::anyhow!("{error}, echo, or sink"))?),
        };
        Ok(Self(service(port)?, target))
    }
}

impl FromStr for Published {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Paths may have one, too.
        let (addr, port) = text.rsplit_once('=').context("there is no `=` between address and port")?;
        Ok(Self(addr.parse()?, service(port)?))
    }
}

#[cfg(test)]
mod tests {
    use vmbus_devices::socket::addr::service_of;

    use super::*;

    #[test]
    fn bridges_are_understood_or_refused() {
        let service: Service = "80=tcp:localhost:8080".parse().unwrap();
        assert_eq!(service, Service(service_of(80), Target::Plain("tcp:localhost:8080".parse().unwrap())));
        assert_eq!("80=echo".parse::<Service>().unwrap().1, Target::Echo);
        let published: Published = "unix:/a=b=5000".parse().unwrap();
        assert_eq!(published, Published(PlainAddr::Unix("/a=b".into()), service_of(5000)));
        for bad in ["", "80", "80=", "=echo", "any:any=echo", "80=loudspeaker", "x=echo"] {
            assert!(bad.parse::<Service>().is_err(), "{bad}");
        }
        for bad in ["", "80=unix:/a", "unix:/a", "unix:/a=", "tcp:a=80"] {
            assert!(bad.parse::<Published>().is_err(), "{bad}");
        }
    }
}
