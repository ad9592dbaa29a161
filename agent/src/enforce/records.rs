//! What the audit log learns from enforcement. Pure.

use edgeward_audit::{Actor, Event, EventKind, Subject};
use edgeward_identity::{SpiffeId, SpkiHash, Timestamp};
use edgeward_policy::Proto;
use edgeward_tunnel::bind::ending::{By, Ending};
use edgeward_tunnel::bind::machine::Opened;
use edgeward_tunnel::filter::Direction;

use super::control::Cut;
use super::decide::Rules;
use super::posture::{Guard, Row, Source, Sum};

/// Makes events in the name of this node.
#[derive(Clone, Debug)]
pub(super) struct Records {
    pub(super) node: SpiffeId,
}

impl Records {
    fn event(&self, now: Timestamp, kind: EventKind) -> Event {
        Event::new(now, self.node.clone(), kind)
    }

    pub(super) fn bind_opened(&self, now: Timestamp, opened: &Opened) -> Event {
        let claims = &opened.claims;
        self.event(now, EventKind::BindOpened)
            .subject(opened.peer.clone())
            .allowed()
            .detail("state", claims.state())
            .detail("tier", claims.tier())
            .detail("passed", claims.passed())
            .detail("result", hex::encode(claims.digest()))
            .detail("boot_statement", claims.by_boot_statement())
            .detail("peer_key", opened.peer_spki)
            .detail("peer_slice", opened.peer_slice_number)
            .detail("transcript", hex::encode(opened.transcript.as_bytes()))
            .detail("epoch", opened.epoch)
            .detail(
                "dialled",
                match opened.role {
                    edgeward_tunnel::bind::Role::Initiator => "by this node",
                    edgeward_tunnel::bind::Role::Responder => "by the peer",
                },
            )
    }

    pub(super) fn bind_ended(
        &self,
        now: Timestamp,
        peer: &SpiffeId,
        ending: &Ending,
        was_open: bool,
    ) -> Event {
        let by = match ending.by {
            By::Us => "this node",
            By::Peer => "the peer",
            By::PeersFault => "this node, for the peer's fault",
        };
        let event = if was_open {
            self.event(now, EventKind::BindClosed)
                .code(ending.code.as_str())
        } else {
            self.event(now, EventKind::BindRefused)
                .denied(ending.code.as_str())
        };
        event
            .subject(peer.clone())
            .detail("reason", &ending.reason)
            .detail("by", by)
            .detail("tunnel_cut", ending.cut)
    }

    pub(super) fn stranger(
        &self,
        now: Timestamp,
        from: std::net::SocketAddr,
        claimed: &SpkiHash,
        reason: &str,
    ) -> Event {
        Event::new(now, Actor::from(from.ip()), EventKind::BindRefused)
            .subject(self.node.clone())
            .denied("bind_identity")
            .detail("reason", reason)
            .detail("claimed_key", claimed)
    }

    pub(super) fn cut_effected(
        &self,
        now: Timestamp,
        peer: &SpiffeId,
        code: &str,
        number: Option<u64>,
        cut: &Cut,
    ) -> Event {
        let event = self
            .event(now, EventKind::CutEffected)
            .subject(peer.clone())
            .code(code)
            .detail("was_open", cut.was_open)
            .detail("sessions", cut.sessions)
            .detail("flows", cut.flows)
            .detail("micros", cut.took.as_micros());
        match number {
            Some(number) => event.detail("cut", number),
            None => event,
        }
    }

    pub(super) fn policy_activated(&self, now: Timestamp, rules: &Rules) -> Event {
        let slice = rules.engine().slice();
        self.event(now, EventKind::PolicyActivated)
            .allowed()
            .detail("slice", rules.number())
            .detail("policy_version", slice.version)
            .detail("policy_hash", &slice.policy_hash)
            .detail("slice_hash", hex::encode(rules.digest()))
    }

    pub(super) fn policy_refused(&self, now: Timestamp, number: u64, reason: &str) -> Event {
        self.event(now, EventKind::PolicyRefused)
            .denied("slice_unsound")
            .detail("slice", number)
            .detail("reason", reason)
    }

    /// A sum of decisions of one kind. Its actor is who asked, its subject whose interface it is.
    pub(super) fn decided(&self, row: &Row, sum: &Sum) -> Event {
        let actor = match &row.from {
            Source::Known(id) | Source::Through { id, .. } => Actor::from(id.clone()),
            Source::Stranger(address) => Actor::Anonymous(*address),
        };
        let (kind, direction) = match (row.allow, row.to == self.node) {
            (true, inward) => (EventKind::FlowAllowed, inward),
            (false, inward) => (EventKind::FlowDenied, inward),
        };
        let direction = if direction {
            Direction::In
        } else {
            Direction::Out
        };
        let event = Event::new(sum.last, actor, kind)
            .subject(Subject::from(row.to.clone()))
            .detail("guard", row.guard.as_str())
            .detail("protocol", protocol_name(row.protocol))
            .detail("port", row.port)
            .detail("interface", row.interface.as_deref().unwrap_or("-"))
            .detail(row.guard.unit(row.allow), sum.count)
            .detail("since", sum.first);
        // Requests come in only, and an event has room for so many details.
        let event = match row.guard {
            Guard::Tunnel | Guard::Lan => event.detail("direction", direction.as_str()),
            Guard::Gateway | Guard::ExtAuthz => event,
        };
        let event = match row.allow {
            true => event.allowed(),
            false => event.denied(&row.reason),
        };
        let event = match &row.rule {
            Some(rule) => event.rule(rule),
            None => event,
        };
        let more = [
            ("action", row.action.as_ref().map(ToString::to_string)),
            ("request", row.request.as_ref().map(ToString::to_string)),
            ("state", row.state.map(|state| state.to_string())),
            ("tier", row.tier.map(|tier| tier.to_string())),
            ("source", row.address.map(|address| address.to_string())),
            ("mac", row.mac.map(|mac| mac.to_string())),
            (
                "destination",
                row.destination.map(|address| address.to_string()),
            ),
        ];
        let event = match &row.from {
            Source::Through { node, .. } => event.detail("through", node),
            Source::Known(_) | Source::Stranger(_) => event,
        };
        let known = more
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        known.fold(event, |event, (key, value)| event.detail(key, value))
    }

    /// More different decisions came than are told apart: how many these were.
    pub(super) fn others(&self, guard: Guard, allow: bool, sum: &Sum) -> Event {
        let kind = match allow {
            true => EventKind::FlowAllowed,
            false => EventKind::FlowDenied,
        };
        self.event(sum.last, kind)
            .code("left-out")
            .detail("guard", guard.as_str())
            .detail("left_out", sum.count)
            .detail("since", sum.first)
    }
}

fn protocol_name(protocol: u8) -> String {
    [Proto::Tcp, Proto::Udp]
        .into_iter()
        .find(|proto| proto.number() == protocol)
        .map_or_else(|| protocol.to_string(), |proto| proto.as_str().to_owned())
}
