//! What the audit log learns from enforcement. Pure.

use edgeward_audit::{Actor, Event, EventKind, Subject};
use edgeward_identity::{SpiffeId, SpkiHash, Timestamp};
use edgeward_policy::Proto;
use edgeward_tunnel::bind::ending::{By, Ending};
use edgeward_tunnel::bind::machine::Opened;
use edgeward_tunnel::filter::{Denial, Direction};

use super::control::Cut;
use super::decide::{Allowed, Label, Rules};

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
            .detail("unserved_interfaces", rules.unserved().len())
    }

    pub(super) fn policy_refused(&self, now: Timestamp, number: u64, reason: &str) -> Event {
        self.event(now, EventKind::PolicyRefused)
            .denied("slice_unsound")
            .detail("slice", number)
            .detail("reason", reason)
    }

    pub(super) fn flow_allowed(
        &self,
        now: Timestamp,
        peer: &SpiffeId,
        rules: Option<&Rules>,
        allowed: &Allowed,
    ) -> Event {
        let target = Target::of(
            rules,
            peer,
            allowed.direction,
            allowed.protocol,
            allowed.port,
        );
        self.flow(now, EventKind::FlowAllowed, peer, &target)
            .allowed()
            .rule(&allowed.rule)
            .detail("verdicts", allowed.count)
    }

    pub(super) fn flow_denied(
        &self,
        now: Timestamp,
        peer: &SpiffeId,
        rules: Option<&Rules>,
        denial: &Denial,
    ) -> Event {
        let label = Label::of_denial(&denial.rule);
        let target = Target::of(
            rules,
            peer,
            denial.direction,
            denial.protocol,
            denial.destination_port,
        );
        let event = self
            .flow(now, EventKind::FlowDenied, peer, &target)
            .denied(label.reason)
            .detail("source", denial.source)
            .detail("destination", denial.destination)
            .detail("packets", denial.count);
        match label.rule {
            Some(rule) => event.rule(rule),
            None => event,
        }
    }

    /// More different flows came than are counted apart.
    pub(super) fn flows_left_out(&self, now: Timestamp, kind: EventKind, count: u64) -> Event {
        self.event(now, kind)
            .code("left-out")
            .detail("left_out", count)
    }

    /// A flow's actor is who opened it, its subject who was to be reached.
    fn flow(&self, now: Timestamp, kind: EventKind, peer: &SpiffeId, target: &Target) -> Event {
        let (actor, subject) = match target.direction {
            Direction::In => (peer, &self.node),
            Direction::Out => (&self.node, peer),
        };
        Event::new(now, actor.clone(), kind)
            .subject(Subject::from(subject.clone()))
            .detail("direction", target.direction.as_str())
            .detail("protocol", &target.protocol)
            .detail("port", target.port)
            .detail("interface", target.name.as_deref().unwrap_or("-"))
    }
}

struct Target {
    direction: Direction,
    protocol: String,
    port: u16,
    /// `service/interface`, where policy names one.
    name: Option<String>,
}

impl Target {
    fn of(
        rules: Option<&Rules>,
        peer: &SpiffeId,
        direction: Direction,
        protocol: u8,
        port: u16,
    ) -> Self {
        let proto = [Proto::Tcp, Proto::Udp]
            .into_iter()
            .find(|proto| proto.number() == protocol);
        let name = rules.zip(proto).and_then(|(rules, proto)| {
            let peer = match direction {
                Direction::In => None,
                Direction::Out => Some(rules.peer(peer)?),
            };
            rules.name_of(peer, proto, port)
        });
        Self {
            direction,
            protocol: proto.map_or_else(|| protocol.to_string(), |proto| proto.as_str().to_owned()),
            port,
            name,
        }
    }
}
