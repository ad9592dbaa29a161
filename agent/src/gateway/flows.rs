//! What was allowed and denied at the gateway, aggregated for the audit log: no request waits for a record.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::enforce::decide::{Forwarded, Ruling, Spot, Who};

/// Most different sums between two readings.
pub const MAX_SUMS: usize = 2048;

/// One caller at one interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Party {
    /// `None` for a stranger.
    pub who: Option<Who>,
    pub source: IpAddr,
    /// `service/interface`.
    pub interface: Arc<str>,
    pub spot: Spot,
}

impl Party {
    pub(super) fn of(interface: &Forwarded, who: Option<Who>, source: IpAddr) -> Arc<Self> {
        Arc::new(Self {
            who,
            source,
            interface: Arc::clone(&interface.name),
            spot: interface.spot.clone(),
        })
    }
}

/// Answers of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    pub party: Arc<Party>,
    /// The action that was asked for; none where a request fits none, or a connection as such was meant.
    pub action: Option<Arc<str>>,
    pub allow: bool,
    /// The rule that decided, or the nearest one.
    pub rule: Option<Arc<str>>,
    /// A stable word; `malformed` for what is not the interface's protocol.
    pub reason: &'static str,
    /// What is wrong with bytes that are not the interface's protocol, or with a handshake.
    pub wrong: Option<&'static str>,
}

/// A bounded sum of answers.
#[derive(Debug, Default)]
pub struct Flows(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    seen: HashMap<Kind, u64>,
    lost_allowed: u64,
    lost_denied: u64,
}

/// What was summed up since the last reading.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub sums: Vec<(Kind, u64)>,
    /// Answers that did not fit.
    pub lost_allowed: u64,
    pub lost_denied: u64,
}

impl Flows {
    pub fn count(&self, party: &Arc<Party>, action: Option<Arc<str>>, ruling: &Ruling) {
        self.add(Kind {
            party: Arc::clone(party),
            action,
            allow: ruling.allow,
            rule: ruling.rule.clone(),
            reason: ruling.reason,
            wrong: None,
        });
    }

    /// Bytes that are not the interface's protocol.
    pub fn malformed(&self, party: &Arc<Party>, what: &'static str) {
        self.refused(party, "malformed", Some(what));
    }

    /// Somebody was turned away before policy was asked.
    pub fn refused(&self, party: &Arc<Party>, reason: &'static str, wrong: Option<&'static str>) {
        self.add(Kind {
            party: Arc::clone(party),
            action: None,
            allow: false,
            rule: None,
            reason,
            wrong,
        });
    }

    fn add(&self, kind: Kind) {
        let mut sums = self.0.lock();
        if let Some(count) = sums.seen.get_mut(&kind) {
            *count = count.saturating_add(1);
        } else if sums.seen.len() < MAX_SUMS {
            sums.seen.insert(kind, 1);
        } else if kind.allow {
            sums.lost_allowed = sums.lost_allowed.saturating_add(1);
        } else {
            sums.lost_denied = sums.lost_denied.saturating_add(1);
        }
    }

    /// Everything since the last call.
    pub fn take(&self) -> Taken {
        let sums = std::mem::take(&mut *self.0.lock());
        let mut all: Vec<(Kind, u64)> = sums.seen.into_iter().collect();
        all.sort_by(|(one, _), (other, _)| {
            let key = |kind: &Kind| {
                let party = &kind.party;
                let who = party.who.as_ref().map(ToString::to_string);
                (party.interface.clone(), who, party.source, kind.reason)
            };
            key(one).cmp(&key(other))
        });
        Taken {
            sums: all,
            lost_allowed: sums.lost_allowed,
            lost_denied: sums.lost_denied,
        }
    }
}
