//! What the audit log learns of the gateway itself. Pure.

use edgeward_audit::{Event, EventKind};
use edgeward_identity::{SpiffeId, Timestamp};

use super::listen::Stand;
use crate::enforce::decide::Spot;

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
}
