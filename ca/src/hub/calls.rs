//! Calls: a node asks a peer to open its NAT towards it. Passed on only between nodes whose slices let them meet, and
//! never so many that a session could not take what matters.

use edgeward_wire::limits::MAX_CALL_RELAYS;
use edgeward_wire::v1::{self, cloud_message::Body};

use super::{Hub, MAX_QUEUED};
use crate::allowance::Allowances;

/// Calls of one node at once: it starts, and calls every peer.
pub(super) const CALLER_BURST: u64 = 128;
/// Calls of one node a second after that.
pub(super) const CALLER_PER_SECOND: u64 = 8;
/// Calls to one node at once: a hub comes back, and everybody calls it.
pub(super) const CALLED_BURST: u64 = 1024;
/// Calls to one node a second after that.
pub(super) const CALLED_PER_SECOND: u64 = 128;
/// Calls take no more of a session's queue than this; the rest is for cuts, lists and slices.
const MAX_WAITING: usize = MAX_QUEUED / 4;

/// Why a call is not passed on. Counted; the caller is not told, since it could do nothing with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotPassedOn {
    #[error("not a node of this trust domain")]
    Identity,
    #[error("more than {MAX_CALL_RELAYS} relays, or one that is malformed")]
    Relays,
    #[error("the two may not meet")]
    MayNotMeet,
    #[error("caller calls too often")]
    CallsTooOften,
    #[error("peer is called too often")]
    CalledTooOften,
    #[error("peer's session is slow")]
    Slow,
}

impl NotPassedOn {
    /// As the metric calls it.
    fn label(self) -> &'static str {
        match self {
            Self::Identity => "call_identity",
            Self::Relays => "call_relays",
            Self::MayNotMeet => "call_may_not_meet",
            Self::CallsTooOften => "call_rate",
            Self::CalledTooOften => "call_callee_rate",
            Self::Slow => "call_slow",
        }
    }
}

/// What callers and called have left.
#[derive(Debug)]
pub(super) struct Calls {
    callers: Allowances,
    called: Allowances,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            callers: Allowances::new(CALLER_BURST, CALLER_PER_SECOND),
            called: Allowances::new(CALLED_BURST, CALLED_PER_SECOND),
        }
    }
}

impl Hub {
    /// Whether both nodes are active, have a session, and were sent slices that let them meet.
    pub(crate) fn may_meet(&self, one: &str, other: &str) -> bool {
        let active = {
            let directory = self.directory.lock();
            let active = |name| directory.get(name).is_some_and(super::Member::is_active);
            active(one) && active(other)
        };
        let sessions = self.sessions.lock();
        let knows = |name: &str, peer: &str| {
            sessions
                .get(name)
                .is_some_and(|session| session.sent.peers.contains(peer))
        };
        active && one != other && knows(one, other) && knows(other, one)
    }

    /// Passes a call on to whom it is for. `endpoints` are checked already.
    pub(crate) fn call(&self, caller: &str, call: &v1::Call, endpoints: Vec<String>) {
        let passed = self.try_call(caller, call, endpoints);
        let outcome = match passed {
            Ok(()) => "passed_on",
            Err(why) => {
                tracing::debug!(caller, peer = call.spiffe_id, %why, "call not passed on");
                why.label()
            }
        };
        metrics::counter!("edgeward_calls_total", "outcome" => outcome).increment(1);
    }

    fn try_call(
        &self,
        caller: &str,
        call: &v1::Call,
        endpoints: Vec<String>,
    ) -> Result<(), NotPassedOn> {
        let now = self.clock.boottime();
        if !self.calls.lock().callers.take(caller, now) {
            return Err(NotPassedOn::CallsTooOften);
        }
        let peer = self
            .node_named(&call.spiffe_id)
            .ok_or(NotPassedOn::Identity)?;
        let relays_fit = call.relays.len() <= MAX_CALL_RELAYS
            && call.relays.iter().all(|relay| {
                relay
                    .parse::<edgeward_identity::SpiffeId>()
                    .is_ok_and(|id| id.trust_domain() == &self.config.trust_domain)
            });
        if !relays_fit {
            return Err(NotPassedOn::Relays);
        }
        if !self.may_meet(caller, peer.name()) {
            return Err(NotPassedOn::MayNotMeet);
        }
        if !self.calls.lock().called.take(peer.name(), now) {
            return Err(NotPassedOn::CalledTooOften);
        }
        let caller = self.member(caller).ok_or(NotPassedOn::Identity)?.id;
        let called = v1::Called {
            spiffe_id: caller.to_string(),
            endpoints,
            relays: call.relays.clone(),
            answer: call.answer,
        };
        let sessions = self.sessions.lock();
        let session = sessions.get(peer.name()).ok_or(NotPassedOn::MayNotMeet)?;
        let waiting = session.out.max_capacity() - session.out.capacity();
        if waiting >= MAX_WAITING {
            return Err(NotPassedOn::Slow);
        }
        session.push(Body::Called(called));
        Ok(())
    }

    /// A SPIFFE ID as the id of a node of this trust domain.
    pub(crate) fn node_named(&self, id: &str) -> Option<edgeward_identity::SpiffeId> {
        let id: edgeward_identity::SpiffeId = id.parse().ok()?;
        let ours = id.kind() == edgeward_identity::Kind::Node
            && id.trust_domain() == &self.config.trust_domain;
        ours.then_some(id)
    }
}

#[cfg(test)]
mod tests;
