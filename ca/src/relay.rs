//! The last way between two nodes whose networks pass nothing but TLS: the server of the contract's `Relay`.
//!
//! What is carried is encrypted between the nodes; the cloud sees who sends how much to whom. It is carried only between
//! nodes that are active and whose slices let them meet, within a budget of each sender, and dropped, never queued for
//! long, where a receiver is slow: senders see loss, as on any network.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use edgeward_audit::Event;
use edgeward_audit::event::EventKind;
use edgeward_identity::BootTime;
use edgeward_wire::budget::Budget;
use edgeward_wire::limits::{MAX_CARRIED_AT_ONCE, MAX_CARRIED_BYTES, MAX_RELAY_FRAME_BYTES};
use edgeward_wire::v1;
use edgeward_wire::v1::relay_server::{Relay, RelayServer};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::hub::Hub;
use crate::serve::Caller;

/// Most frames that wait for one node.
const MAX_QUEUED: usize = 32;
/// Malformed frames after which a stream ends.
const MAX_MALFORMED: u32 = 16;

/// The service.
#[derive(Clone)]
pub struct RelayService {
    hub: Arc<Hub>,
    shared: Arc<Mutex<Shared>>,
    stop: CancellationToken,
}

/// Only enrolled nodes are in it, so the fleet is its bound.
#[derive(Default)]
struct Shared {
    next: u64,
    carriers: BTreeMap<String, Carrier>,
    /// They outlive streams: a new stream is no new budget.
    budgets: BTreeMap<String, Budget>,
}

/// The stream of a node.
struct Carrier {
    number: u64,
    out: mpsc::Sender<v1::RelayFrame>,
    displaced: CancellationToken,
}

/// What became of datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Carried,
    /// The sender's budget is used up.
    Budget,
    /// The receiver is slow.
    NoRoom,
    /// The two may not meet, or the receiver is no node.
    MayNotMeet,
    /// The receiver has no stream.
    Absent,
    Malformed,
}

/// What one stream carried.
#[derive(Default)]
struct Carried {
    bytes: u64,
    datagrams: u64,
    dropped: u64,
    malformed: u32,
    /// When the sender was last told that something does not go.
    told: Option<BootTime>,
}

impl Outcome {
    /// Stable code: label of the metric, and what a sender is told.
    fn code(self) -> &'static str {
        match self {
            Self::Carried => "carried",
            Self::Budget => "relay_budget",
            Self::NoRoom => "relay_no_room",
            Self::MayNotMeet => "relay_may_not_meet",
            Self::Absent => "relay_absent",
            Self::Malformed => "relay_malformed",
        }
    }
}

impl RelayService {
    pub fn new(hub: Arc<Hub>, stop: CancellationToken) -> Self {
        Self {
            hub,
            shared: Arc::default(),
            stop,
        }
    }

    pub fn into_server(self) -> RelayServer<Self> {
        RelayServer::new(self)
            .max_decoding_message_size(MAX_RELAY_FRAME_BYTES)
            .max_encoding_message_size(MAX_RELAY_FRAME_BYTES)
    }

    fn enter(&self, name: &str) -> (u64, mpsc::Receiver<v1::RelayFrame>, CancellationToken) {
        let (out, frames) = mpsc::channel(MAX_QUEUED);
        let displaced = CancellationToken::new();
        let mut shared = self.shared.lock();
        shared.next += 1;
        let number = shared.next;
        let carrier = Carrier {
            number,
            out,
            displaced: displaced.clone(),
        };
        if let Some(before) = shared.carriers.insert(name.to_owned(), carrier) {
            before.displaced.cancel();
        }
        count_streams(shared.carriers.len());
        (number, frames, displaced)
    }

    fn leave(&self, name: &str, number: u64) {
        let mut shared = self.shared.lock();
        let own = shared
            .carriers
            .get(name)
            .is_some_and(|carrier| carrier.number == number);
        if own {
            shared.carriers.remove(name);
        }
        count_streams(shared.carriers.len());
    }

    /// One frame from `sender`; what became of its datagrams, which are counted.
    fn carry_one(&self, sender: &str, frame: v1::RelayFrame, carried: &mut Carried) -> Outcome {
        let well_formed = frame.datagrams.len() <= MAX_CARRIED_AT_ONCE
            && frame
                .datagrams
                .iter()
                .all(|datagram| !datagram.is_empty() && datagram.len() <= MAX_CARRIED_BYTES);
        if !well_formed || frame.datagrams.is_empty() {
            carried.malformed += 1;
            carried.count(frame.datagrams.len(), Outcome::Malformed);
            return Outcome::Malformed;
        }
        let number = frame.datagrams.len();
        let peer = self.hub.node_named(&frame.spiffe_id);
        let Some(peer) = peer.filter(|peer| self.hub.may_meet(sender, peer.name())) else {
            carried.count(number, Outcome::MayNotMeet);
            return Outcome::MayNotMeet;
        };
        let Some(id) = self.hub.member(sender).map(|member| member.id.to_string()) else {
            carried.count(number, Outcome::MayNotMeet);
            return Outcome::MayNotMeet;
        };
        let mut shared = self.shared.lock();
        let Some(out) = shared
            .carriers
            .get(peer.name())
            .map(|carrier| carrier.out.clone())
        else {
            carried.count(number, Outcome::Absent);
            return Outcome::Absent;
        };
        let (now, per_second) = (
            self.hub.clock.boottime(),
            self.hub.config.relay.bytes_per_second,
        );
        let budget = shared
            .budgets
            .entry(sender.to_owned())
            .or_insert_with(|| Budget::new(per_second, now));
        let datagrams: Vec<Vec<u8>> = frame
            .datagrams
            .into_iter()
            .filter(|datagram| budget.take(datagram.len(), now))
            .collect();
        drop(shared);
        let within = datagrams.len();
        carried.count(number - within, Outcome::Budget);
        if within == 0 {
            return Outcome::Budget;
        }
        let bytes: usize = datagrams.iter().map(Vec::len).sum();
        let down = v1::RelayFrame {
            spiffe_id: id,
            datagrams,
            refused: String::new(),
        };
        let outcome = match out.try_send(down) {
            Ok(()) => Outcome::Carried,
            Err(_) => Outcome::NoRoom,
        };
        carried.count(within, outcome);
        if outcome == Outcome::Carried {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            carried.bytes = carried.bytes.saturating_add(bytes);
            metrics::counter!("edgeward_relay_bytes_total").increment(bytes);
        }
        outcome
    }

    /// Tells a sender that nothing goes to a peer, at most once a second.
    fn tell(&self, sender: &str, number: u64, to: String, why: Outcome, carried: &mut Carried) {
        let now = self.hub.clock.boottime();
        let told = carried
            .told
            .is_some_and(|told| now.since(told).as_secs() < 1);
        if told {
            return;
        }
        carried.told = Some(now);
        let shared = self.shared.lock();
        let own = shared
            .carriers
            .get(sender)
            .filter(|carrier| carrier.number == number);
        if let Some(own) = own {
            // Whoever does not read need not know.
            let _ = own.out.try_send(v1::RelayFrame {
                spiffe_id: to,
                datagrams: Vec::new(),
                refused: why.code().to_owned(),
            });
        }
    }

    async fn serve(
        self,
        name: String,
        number: u64,
        mut frames: Streaming<v1::RelayFrame>,
        displaced: CancellationToken,
        ended: CancellationToken,
    ) {
        let mut carried = Carried::default();
        loop {
            let frame = tokio::select! {
                () = self.stop.cancelled() => break,
                () = displaced.cancelled() => break,
                () = ended.cancelled() => break,
                frame = frames.message() => frame,
            };
            let Ok(Some(frame)) = frame else { break };
            let to: String = frame.spiffe_id.chars().take(256).collect();
            let outcome = self.carry_one(&name, frame, &mut carried);
            if carried.malformed > MAX_MALFORMED {
                break;
            }
            if matches!(outcome, Outcome::MayNotMeet | Outcome::Absent) {
                self.tell(&name, number, to, outcome, &mut carried);
            }
        }
        self.leave(&name, number);
        let Some(member) = self.hub.member(&name) else {
            return;
        };
        let event = Event::new(
            self.hub.clock.now(),
            member.id.clone(),
            EventKind::RelayClosed,
        )
        .subject(member.id)
        .detail("bytes", carried.bytes)
        .detail("datagrams", carried.datagrams)
        .detail("dropped", carried.dropped);
        self.hub.audit.later(event);
    }
}

impl Carried {
    fn count(&mut self, datagrams: usize, outcome: Outcome) {
        let number = u64::try_from(datagrams).unwrap_or(u64::MAX);
        match outcome {
            Outcome::Carried => self.datagrams = self.datagrams.saturating_add(number),
            _ => self.dropped = self.dropped.saturating_add(number),
        }
        metrics::counter!("edgeward_relay_datagrams_total", "outcome" => outcome.code())
            .increment(number);
    }
}

#[tonic::async_trait]
impl Relay for RelayService {
    type CarryStream = Pin<Box<dyn Stream<Item = Result<v1::RelayFrame, Status>> + Send>>;

    async fn carry(
        &self,
        request: Request<Streaming<v1::RelayFrame>>,
    ) -> Result<Response<Self::CarryStream>, Status> {
        // The table of callers says the same; nobody else's datagrams are carried.
        let (caller, peer) = Caller::of_node(&request)?;
        if !self.hub.config.relay.enabled {
            return Err(Status::failed_precondition("relay_off"));
        }
        let member = self.hub.member(peer.id().name());
        member
            .filter(|member| member.stands(&peer, self.hub.clock.now()))
            .ok_or_else(|| Status::permission_denied("node_status"))?;
        let name = peer.id().name().to_owned();
        let (number, frames, displaced) = self.enter(&name);
        let service = self.clone();
        tokio::spawn(service.serve(
            name,
            number,
            request.into_inner(),
            displaced.clone(),
            caller.ended,
        ));
        // A stream that another one took the place of ends for whoever reads it, too.
        let frames = ReceiverStream::new(frames)
            .map(Ok)
            .take_until(displaced.cancelled_owned());
        Ok(Response::new(Box::pin(frames)))
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a count of streams is far below 2^52"
)]
fn count_streams(number: usize) {
    metrics::gauge!("edgeward_relay_streams").set(number as f64);
}

#[cfg(test)]
mod tests;
