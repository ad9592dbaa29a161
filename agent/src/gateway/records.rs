//! What the audit log learns from the gateway. Pure.

use edgeward_audit::{Actor, Event, EventKind};
use edgeward_identity::{SpiffeId, Timestamp};

use super::flows::{Kind, Taken};
use super::listen::Stand;
use crate::enforce::decide::{Spot, Who};

/// Most events about flows in one report.
const MAX_FLOW_EVENTS: usize = 512;

/// Makes events in the name of this node.
#[derive(Clone, Debug)]
pub(super) struct Records {
    pub(super) node: SpiffeId,
}

impl Records {
    pub(super) fn down(&self, now: Timestamp, spot: &Spot, stand: &Stand, reason: &str) -> Event {
        self.stand(now, EventKind::GatewayDown, spot, stand)
            .code("no-listener")
            .detail("reason", reason)
    }

    pub(super) fn up(&self, now: Timestamp, spot: &Spot, stand: &Stand) -> Event {
        self.stand(now, EventKind::GatewayUp, spot, stand)
            .detail("addresses", stand.addresses.len())
    }

    fn stand(&self, now: Timestamp, kind: EventKind, spot: &Spot, stand: &Stand) -> Event {
        Event::new(now, self.node.clone(), kind)
            .detail("interface", &stand.interface)
            .detail("net", &spot.net)
            .detail("protocol", spot.proto.as_str())
            .detail("port", spot.port)
    }

    /// One event for each sum, and one for what did not fit.
    pub(super) fn flows(&self, now: Timestamp, taken: &Taken) -> Vec<Event> {
        let shown = taken.sums.iter().take(MAX_FLOW_EVENTS);
        let mut events: Vec<Event> = shown
            .map(|(kind, count)| self.flow(now, kind, *count))
            .collect();
        let (mut allowed, mut denied) = (taken.lost_allowed, taken.lost_denied);
        for (kind, count) in taken.sums.iter().skip(MAX_FLOW_EVENTS) {
            let lost = if kind.allow {
                &mut allowed
            } else {
                &mut denied
            };
            *lost = lost.saturating_add(*count);
        }
        for (kind, lost) in [
            (EventKind::FlowAllowed, allowed),
            (EventKind::FlowDenied, denied),
        ] {
            if lost > 0 {
                let event = Event::new(now, self.node.clone(), kind)
                    .code("left-out")
                    .detail("left_out", lost);
                events.push(event);
            }
        }
        events
    }

    fn flow(&self, now: Timestamp, kind: &Kind, count: u64) -> Event {
        let party = &kind.party;
        let actor = match &party.who {
            Some(who) => Actor::from(who.id().clone()),
            None => Actor::from(party.source),
        };
        let event = match kind.allow {
            true => Event::new(now, actor, EventKind::FlowAllowed).allowed(),
            false => Event::new(now, actor, EventKind::FlowDenied).denied(kind.reason),
        };
        let mut event = event
            .subject(self.node.clone())
            .detail("direction", "in")
            .detail("protocol", party.spot.proto.as_str())
            .detail("port", party.spot.port)
            .detail("interface", &party.interface)
            .detail("net", &party.spot.net)
            .detail("source", party.source)
            .detail("action", kind.action.as_deref().unwrap_or("-"))
            .detail("requests", count);
        if let Some(rule) = &kind.rule {
            event = event.rule(rule);
        }
        if let Some(wrong) = kind.wrong {
            event = event.detail("wrong", wrong);
        }
        if let Some(Who::Operator {
            through: Some(node),
            ..
        }) = &party.who
        {
            event = event.detail("through", node);
        }
        event
    }
}
