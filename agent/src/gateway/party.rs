//! Who was decided about at the gateway, or for a proxy that asked; what was decided goes to the node's one table of
//! sums, [`Posture`]: no request waits for a record.

use std::net::IpAddr;
use std::sync::Arc;

use edgeward_identity::Clock;
use edgeward_policy::Reason;

use crate::enforce::decide::{Forwarded, Picture, Ruling, Spot, Who};
use crate::enforce::posture::{Guard, Posture, Row, Source, Sum};

/// One caller at one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// `None` for a stranger.
    pub who: Option<Who>,
    /// What a proxy does not say is `None`.
    pub source: Option<IpAddr>,
    /// `service/interface` and where it is; `None` where a proxy names none that policy knows.
    pub at: Option<(Arc<str>, Spot)>,
}

/// Hands decisions of one guard to the table.
#[derive(Clone)]
pub struct Counter {
    pub posture: Arc<Posture>,
    pub clock: Arc<dyn Clock>,
    pub guard: Guard,
}

impl Party {
    pub(super) fn of(interface: &Forwarded, who: Option<Who>, source: IpAddr) -> Self {
        Self {
            who,
            source: Some(source),
            at: Some((Arc::clone(&interface.name), interface.spot.clone())),
        }
    }

    fn from(&self) -> Source {
        match &self.who {
            Some(Who::Operator {
                id,
                through: Some(node),
            }) => Source::Through {
                id: id.clone(),
                node: node.clone(),
            },
            Some(who) => Source::Known(who.id().clone()),
            None => Source::Stranger(self.source.map(|source| source.to_canonical())),
        }
    }
}

impl Counter {
    /// Counts what policy says in this picture. `action` is what was asked for; none where a request fits none, or a
    /// connection as such was meant.
    pub fn decided(
        &self,
        picture: &Picture,
        party: &Party,
        action: Option<Arc<str>>,
        ruling: &Ruling,
    ) {
        // What fits no action is denied whoever asks: such a denial rests on nobody's evidence.
        let asked = ruling.reason != Reason::NoAction.as_str();
        let who = party.who.as_ref().filter(|_| asked);
        let evidence = who.and_then(|who| picture.evidence_of(who).ok());
        let row = Row {
            allow: ruling.allow,
            action,
            rule: ruling.rule.clone(),
            state: evidence.map(|(evidence, _)| evidence.state),
            tier: evidence.and_then(|(evidence, _)| evidence.tier),
            ..self.row(picture, party, ruling.reason)
        };
        self.add(row, ruling.reason);
    }

    /// Bytes that are not the interface's protocol, or a question that cannot be read. `what` is wrong: a stable word.
    pub fn malformed(&self, picture: &Picture, party: &Party, what: &'static str) {
        self.refused(picture, party, "malformed", Some(what));
    }

    /// Somebody was turned away before policy was asked.
    pub fn refused(
        &self,
        picture: &Picture,
        party: &Party,
        reason: &'static str,
        wrong: Option<&'static str>,
    ) {
        let row = Row {
            request: wrong.map(Into::into),
            ..self.row(picture, party, reason)
        };
        self.add(row, reason);
    }

    fn row(&self, picture: &Picture, party: &Party, reason: &'static str) -> Row {
        let spot = party.at.as_ref().map(|(_, spot)| spot);
        Row {
            allow: false,
            guard: self.guard,
            from: party.from(),
            to: picture.parts().node.clone(),
            protocol: spot.map_or(0, |spot| spot.proto.number()),
            port: spot.map_or(0, |spot| spot.port),
            interface: party.at.as_ref().map(|(name, _)| Arc::clone(name)),
            action: None,
            request: None,
            reason: reason.into(),
            rule: None,
            state: None,
            tier: None,
            address: party.source,
            mac: None,
            destination: None,
        }
    }

    fn add(&self, row: Row, reason: &'static str) {
        if let Some(interface) = &row.interface {
            let verdict = if row.allow { "allow" } else { "deny" };
            metrics::counter!(
                "edgeward_gateway_requests_total",
                "interface" => Arc::clone(interface), "verdict" => verdict, "reason" => reason
            )
            .increment(1);
        }
        self.posture.add(row, Sum::once(self.clock.now()));
    }
}
