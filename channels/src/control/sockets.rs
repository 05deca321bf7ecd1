//! Requests for hvsock connections: answered by a channel, or by a refusal.

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::{GuestMessage, OfferFlags, Status, Version};

use super::input::Ticket;
use super::logging::complain;
use super::{Action, Answer, Core, Due, Refusal};
use crate::Offer;
use crate::timers::TimerKey;

/// A request that the host has not answered.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) ticket: Ticket,
    pub(super) timer: Option<TimerKey>,
    endpoint: Uuid,
    service: Uuid,
}

impl Core {
    /// An application wants a connection to a service of the host.
    pub(super) fn connect_socket(
        &mut self,
        ticket: Ticket,
        (endpoint, service, silo): (Uuid, Uuid, Option<Uuid>),
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.connection.needs(if silo.is_some() { Version::V5_2 } else { Version::V4_0 })?;
        if self.sockets.len() >= self.limits.connects {
            return Err(Refusal::TooMany("hvsock requests", self.limits.connects));
        }
        if self.find_request(endpoint, service).is_some() {
            return Err(Refusal::Argument("this endpoint is being connected to that service already"));
        }
        let key = self.sockets.insert(Request { ticket, timer: None, endpoint, service });
        let timer = self.wait(Due::Socket(key));
        if let Some(request) = self.sockets.get_mut(key) {
            request.timer = Some(timer);
        }
        self.counters.connects += 1;
        self.post(GuestMessage::TlConnect { endpoint, service, silo }, out);
        Ok(())
    }

    /// A channel has arrived: perhaps the one that was asked for. The host makes the service its class and the endpoint its
    /// instance.
    pub(super) fn connected(&mut self, offer: &Offer, out: &mut Vec<Action>) {
        if !offer.flags.contains(OfferFlags::TLNPI_PROVIDER) || self.sockets.is_empty() {
            return;
        }
        let Class(service) = offer.class;
        if let Some(key) = self.find_request(offer.instance, service) {
            self.end_request(key, Answer::Channel(offer.id), out);
        }
    }

    /// The host says how a request ended. (It says so of failures alone; a success is an offer.)
    pub(super) fn on_socket_result(&mut self, endpoint: Uuid, service: Uuid, status: Status, out: &mut Vec<Action>) {
        let found = self.find_request(endpoint, service).filter(|_| !status.is_success());
        let Some(key) = found else {
            self.counters.stale_answers += 1;
            complain!(self, "hvsock endpoint {endpoint}: answer to a request that is not there");
            return;
        };
        self.end_request(key, Answer::Failed(Refusal::Host(status)), out);
    }

    /// Ends a request with this answer.
    pub(super) fn end_request(&mut self, key: usize, answer: Answer, out: &mut Vec<Action>) {
        if let Some(request) = self.sockets.try_remove(key) {
            self.stop(request.timer);
            out.push(Action::Answer(request.ticket, answer));
        }
    }

    fn find_request(&self, endpoint: Uuid, service: Uuid) -> Option<usize> {
        let mut requests = self.sockets.iter();
        requests.find(|(_, request)| request.endpoint == endpoint && request.service == service).map(|(key, _)| key)
    }
}
