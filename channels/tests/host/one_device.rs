//! A link to one device that is open already, at a node without a name; it answers within the call.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use vmbus::Error;
use vmbus::link::{Interrupts, Link, LinkEvent, Port, Share, Sink};
use vmbus::memory::Mapping;
use vmbus::message::{
    ConnectionState, GpadlId, GuestMessage, HostMessage, OfferChannel, OfferFlags, Status, VersionResponse,
};
use vmbus::sysfs::{Bus, Device};
use vmbus::uio::{Layout, OpenDevice, Options};

use super::fake::Fake;

const OPTIONS: Options = Options { layout: Layout::Auto, ring_wait: Duration::ZERO, watch: false };

pub struct OneDevice {
    bus: Bus,
    device: Device,
    node: Option<OwnedFd>,
    open: Option<OpenDevice>,
    sink: Option<Sink>,
}

impl OneDevice {
    pub fn new(fake: &Fake, node: OwnedFd) -> Self {
        Self { bus: fake.bus(), device: fake.device(), node: Some(node), open: None, sink: None }
    }

    fn say(&self, message: HostMessage) {
        self.sink.as_ref().unwrap()(LinkEvent::Message(message));
    }

    fn offer(&self) -> OfferChannel {
        OfferChannel {
            class: self.device.class,
            instance: self.device.instance,
            flags: OfferFlags::empty(),
            mmio_megabytes: 0,
            mmio_megabytes_optional: 0,
            user_defined: [0; 120],
            subchannel_index: 0,
            relid: self.device.relid,
            monitor_id: None,
            is_dedicated: false,
            connection_id: 0,
        }
    }
}

impl Link for OneDevice {
    fn start(&mut self, sink: Sink) -> Result<(), Error> {
        self.sink = Some(sink);
        Ok(())
    }

    fn post(&mut self, message: &GuestMessage) -> Result<(), Error> {
        match message {
            GuestMessage::InitiateContact(_) => self.say(HostMessage::VersionResponse(VersionResponse {
                supported: true,
                state: ConnectionState::SUCCESSFUL,
                selected: 4,
                features: None,
            })),
            GuestMessage::RequestOffers => {
                self.say(HostMessage::Offer(Box::new(self.offer())));
                self.say(HostMessage::AllOffersDelivered);
            }
            GuestMessage::Open(open) => {
                let node = self.node.take().unwrap();
                self.open = Some(OpenDevice::from_node(node, &self.bus, &self.device, OPTIONS)?);
                let (relid, open_id) = (open.relid, open.open_id);
                self.say(HostMessage::OpenResult { relid, open_id, status: Status::SUCCESS });
            }
            GuestMessage::GpadlTeardown { gpadl, .. } => {
                self.open.take().unwrap().close()?;
                self.say(HostMessage::GpadlTorndown { gpadl: *gpadl });
            }
            GuestMessage::Unload => self.say(HostMessage::UnloadResponse),
            _ => {}
        }
        Ok(())
    }

    fn share(&mut self, relid: u32, gpadl: GpadlId, _what: Share) -> Result<(), Error> {
        self.say(HostMessage::GpadlCreated { relid, gpadl, status: Status::SUCCESS });
        Ok(())
    }

    fn unshare(&mut self, _gpadl: GpadlId) {}

    fn port(&mut self, relid: u32, _ring: GpadlId) -> Result<Port, Error> {
        let open = self.open.as_ref().unwrap();
        let rings = open.rings(relid)?;
        let line = vmbus::link::Line::Uio(open.line(relid)?);
        Ok(Port { outgoing: rings.outgoing, incoming: rings.incoming, line })
    }

    fn buffer(&mut self, _gpadl: GpadlId) -> Result<Arc<Mapping>, Error> {
        unreachable!("no test of this link shares a buffer")
    }

    fn processors(&self) -> usize {
        1
    }

    fn interrupts(&mut self, _processor: usize) -> Option<Interrupts> {
        None
    }

    fn stop(&mut self) {
        self.open = None;
    }
}
