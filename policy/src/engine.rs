//! One engine for one slice: an immutable snapshot that decides. A new slice makes a new engine.
//!
//! A decision is made twice: casbin says whether the rows in force allow (in `bucket`), and the rows are read straight
//! to say which one, why and for how long (in `explain`). Where the two disagree the answer is a denial.

use std::collections::HashMap;
use std::sync::Arc;

use edgeward_identity::{Kind, SpiffeId, Timestamp};

use crate::decision::{Decision, Link, Reason, Request, Standing, Subject, Target, Verdict};
use crate::l7::{ActionSet, L7Request};
use crate::seconds::Seconds;
use crate::slice::{ActionId, InterfaceIndex, PeerIndex, Proto, Slice, SliceError};
use crate::window::Schedule;

pub(crate) mod bucket;
pub(crate) mod cache;
pub(crate) mod condition;
pub(crate) mod explain;

pub use bucket::BucketError;

use bucket::{BitSet, Bucket, EVERYBODY_BIT};
use cache::{DecisionCache, Key};
use condition::{Facts, ProfileTerms, judge_towards_peer};
use explain::InterfaceRows;

/// Decides for one node by one slice.
pub struct Engine {
    slice: Arc<Slice>,
    subjects: Vec<KnownSubject>,
    by_id: HashMap<SpiffeId, usize, foldhash::fast::RandomState>,
    interfaces: Vec<InterfaceRows>,
    buckets: Vec<Bucket>,
    /// Egress of each peer, as indices into the slice's.
    egress_of: HashMap<PeerIndex, Vec<usize>, foldhash::fast::RandomState>,
    schedules: Vec<Schedule>,
    cache: DecisionCache,
}

/// A peer, operator or device of the slice.
pub(crate) struct KnownSubject {
    pub(crate) kind: Kind,
    /// Numbers of its groups, sorted.
    pub(crate) groups: Vec<u32>,
    pub(crate) profile: ProfileTerms,
}

/// Why no engine came of a slice.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the slice is not sound")]
    Slice(#[from] SliceError),
    #[error("the decision engine could not be built")]
    Bucket(#[from] BucketError),
}

impl Engine {
    /// Checks the slice and builds the snapshot: about 0.2 ms for each 100 rows.
    pub fn new(slice: Arc<Slice>) -> Result<Self, EngineError> {
        slice.validate()?;
        let groups = slice.groups.len();
        let mut subjects = Vec::new();
        let mut by_id = HashMap::default();
        for peer in &slice.peers {
            by_id.insert(peer.id.clone(), subjects.len());
            let profile = ProfileTerms {
                fresh: peer.fresh,
                offline: peer.offline,
            };
            subjects.push(KnownSubject::new(Kind::Node, &peer.groups, profile));
        }
        for operator in &slice.operators {
            by_id.insert(operator.id.clone(), subjects.len());
            let profile = ProfileTerms::default();
            subjects.push(KnownSubject::new(Kind::Operator, &operator.groups, profile));
        }
        for device in &slice.devices {
            by_id.insert(device.id.clone(), subjects.len());
            let profile = ProfileTerms::default();
            subjects.push(KnownSubject::new(Kind::Device, &device.groups, profile));
        }
        let mut interfaces = Vec::new();
        let mut buckets = Vec::new();
        for interface in &slice.interfaces {
            let sources: Vec<BitSet> = interface
                .rows
                .iter()
                .map(|row| bucket::source_bits(&row.from, groups))
                .collect();
            buckets.push(Bucket::new(&interface.rows, &sources)?);
            interfaces.push(InterfaceRows::new(&interface.rows));
        }
        let mut egress_of: HashMap<PeerIndex, Vec<usize>, _> = HashMap::default();
        for (index, egress) in slice.egress.iter().enumerate() {
            egress_of.entry(egress.peer).or_default().push(index);
        }
        let schedules = slice.windows.iter().map(Schedule::new).collect();
        Ok(Self {
            slice,
            subjects,
            by_id,
            interfaces,
            buckets,
            egress_of,
            schedules,
            cache: DecisionCache::new(),
        })
    }

    pub fn slice(&self) -> &Arc<Slice> {
        &self.slice
    }

    /// The index of a node that this one may meet.
    pub fn peer(&self, id: &SpiffeId) -> Option<PeerIndex> {
        let index = *self.by_id.get(id)?;
        (index < self.slice.peers.len()).then(|| u32::try_from(index).ok().map(PeerIndex))?
    }

    /// One of the node's own interfaces by its names.
    pub fn interface(&self, service: &str, name: &str) -> Option<InterfaceIndex> {
        self.position(|interface| interface.service == service && interface.name == name)
    }

    /// One of the node's own interfaces by where packets for it arrive.
    pub fn interface_at(&self, net: &str, proto: Proto, port: u16) -> Option<InterfaceIndex> {
        self.position(|interface| {
            interface.net == net && interface.proto == proto && interface.port == port
        })
    }

    /// Decides. Any failure is a denial.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        if request.now >= self.slice.expires {
            return self.refusal(Reason::PolicyExpired);
        }
        let interface = match request.target {
            Target::Interface(index) => Some(index),
            Target::Named { service, interface } => self.interface(service, interface),
        };
        let Some(interface) = interface.filter(|index| (index.0 as usize) < self.buckets.len())
        else {
            return self.refusal(Reason::UnknownInterface);
        };
        let Some(subject) = self.subject(request.subject) else {
            return self.refusal(Reason::UnknownSubject);
        };
        let key = Key {
            subject,
            standing: request.standing,
            interface,
            action: request.action,
            link: request.link,
        };
        if let Some(decision) = self.cache.get(&key, request.now) {
            return decision;
        }
        let decision = self
            .decide_afresh(&key, request.now)
            .unwrap_or_else(|| self.refusal(Reason::Internal));
        if decision.reason != Reason::Internal {
            self.cache.put(key, request.now, &decision);
        }
        decision
    }

    /// Whether a connection to an interface may be opened at all: one of its actions is allowed. It does not say which.
    pub fn admit(
        &self,
        subject: Subject<'_>,
        standing: Standing,
        interface: InterfaceIndex,
        link: Link,
        now: Timestamp,
    ) -> Decision {
        let Some(known) = self.slice.interfaces.get(interface.0 as usize) else {
            return self.refusal(Reason::UnknownInterface);
        };
        let actions = (0..known.actions().len()).filter_map(|index| u8::try_from(index).ok());
        let decisions = actions.map(|index| {
            self.decide(&Request {
                subject,
                standing,
                target: Target::Interface(interface),
                action: ActionId(index),
                link,
                now,
            })
        });
        let best = decisions.reduce(Decision::better);
        best.unwrap_or_else(|| self.refusal(Reason::Internal))
    }

    /// Decides about one request of the interface's protocol: denied where a rule denies an action that it fits, else
    /// allowed where one is allowed.
    pub fn decide_l7(
        &self,
        subject: Subject<'_>,
        standing: Standing,
        interface: InterfaceIndex,
        request: &L7Request<'_>,
        link: Link,
        now: Timestamp,
    ) -> Decision {
        let Some(known) = self.slice.interfaces.get(interface.0 as usize) else {
            return self.refusal(Reason::UnknownInterface);
        };
        let l7 = known.l7.as_ref();
        let actions = l7.map_or_else(ActionSet::default, |l7| l7.actions_of(request));
        let mut best: Option<Decision> = None;
        let mut until = self.slice.expires;
        for action in actions.iter() {
            let decision = self.decide(&Request {
                subject,
                standing,
                target: Target::Interface(interface),
                action,
                link,
                now,
            });
            until = until.min(decision.valid_until);
            if !decision.is_allow() && decision.rule.is_some() {
                return decision;
            }
            best = Some(match best {
                None => decision,
                Some(best) => best.better(decision),
            });
        }
        match best {
            Some(decision) => Decision {
                valid_until: decision.valid_until.min(until),
                ..decision
            },
            None => self.refusal(Reason::NoAction),
        }
    }

    /// Whether this node may open a flow to an interface of a peer, by the peer's standing. The peer decides for itself.
    pub fn decide_egress(
        &self,
        peer: PeerIndex,
        (proto, port): (Proto, u16),
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> Decision {
        let entries = self.egress_of.get(&peer).map_or(&[][..], Vec::as_slice);
        let best = entries
            .iter()
            .filter_map(|index| self.slice.egress.get(*index))
            .filter(|egress| egress.proto == proto && egress.port == port)
            .map(|egress| self.egress_decision(egress, standing, link, now))
            .reduce(Decision::better);
        best.unwrap_or_else(|| self.refusal(Reason::NoRule))
    }

    /// Whether a tunnel to a peer may exist at all: it may reach something here, or this node something there.
    /// The `valid_until`, `fresh` and `offline` of the answer bound the bind's lease.
    pub fn meet(
        &self,
        peer: PeerIndex,
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> Decision {
        let inward = (0..self.buckets.len()).filter_map(|index| {
            let interface = InterfaceIndex(u32::try_from(index).ok()?);
            Some(self.admit(Subject::Peer(peer), standing, interface, link, now))
        });
        let entries = self.egress_of.get(&peer).map_or(&[][..], Vec::as_slice);
        let outward = entries
            .iter()
            .filter_map(|index| self.slice.egress.get(*index))
            .map(|egress| self.egress_decision(egress, standing, link, now));
        let best = inward.chain(outward).reduce(Decision::better);
        best.unwrap_or_else(|| self.refusal(Reason::NoRule))
    }

    fn position(
        &self,
        wanted: impl Fn(&crate::slice::SliceInterface) -> bool,
    ) -> Option<InterfaceIndex> {
        let index = self.slice.interfaces.iter().position(wanted)?;
        u32::try_from(index).ok().map(InterfaceIndex)
    }

    fn subject(&self, subject: Subject<'_>) -> Option<usize> {
        match subject {
            Subject::Peer(index) => {
                Some(index.0 as usize).filter(|index| *index < self.slice.peers.len())
            }
            Subject::Id(id) => self.by_id.get(id).copied(),
        }
    }

    pub(crate) fn facts(
        &self,
        subject: usize,
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> Option<Facts> {
        let subject = self.subjects.get(subject)?;
        Some(Facts {
            kind: subject.kind,
            standing,
            profile: subject.profile,
            link,
            now,
        })
    }

    /// By the rows alone, without casbin.
    pub(crate) fn by_rows(
        &self,
        subject: usize,
        interface: InterfaceIndex,
        action: ActionId,
        facts: &Facts,
    ) -> Option<explain::Explained> {
        let rows = &self.slice.interfaces.get(interface.0 as usize)?.rows;
        let index = self.interfaces.get(interface.0 as usize)?;
        let members = &self.subjects.get(subject)?.groups;
        Some(index.explain(
            rows,
            members,
            action,
            facts,
            &self.schedules,
            self.slice.expires,
        ))
    }

    fn decide_afresh(&self, key: &Key, now: Timestamp) -> Option<Decision> {
        let facts = self.facts(key.subject, key.standing, key.link, now)?;
        let explained = self.by_rows(key.subject, key.interface, key.action, &facts)?;
        let rows = self
            .slice
            .interfaces
            .get(key.interface.0 as usize)?
            .rows
            .len();
        let active = BitSet::new(explained.active.iter().copied(), rows);
        let subject = self.subjects.get(key.subject)?;
        let bucket = self.buckets.get(key.interface.0 as usize)?;
        let allowed = bucket
            .allows(&subject.bits(self.slice.groups.len()), key.action, &active)
            .ok()?;
        (allowed == explained.decision.is_allow()).then_some(explained.decision)
    }

    fn egress_decision(
        &self,
        egress: &crate::slice::Egress,
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> Decision {
        if now >= self.slice.expires {
            return self.refusal(Reason::PolicyExpired);
        }
        let index = egress.peer.0 as usize;
        let (Some(facts), Some(peer)) = (
            self.facts(index, standing, link, now),
            self.slice.peers.get(index),
        ) else {
            return self.refusal(Reason::Internal);
        };
        let judged = egress.rows.iter().map(|row| {
            let (terms, time) = ((row.fresh, row.offline), (row.window, row.until));
            let judged = judge_towards_peer(terms, time, peer.software, &facts, &self.schedules);
            explain::of_one_allow(&row.rule, &judged, self.slice.expires)
        });
        judged
            .reduce(Decision::better)
            .unwrap_or_else(|| self.refusal(Reason::NoRule))
    }

    pub(crate) fn refusal(&self, reason: Reason) -> Decision {
        Decision {
            verdict: Verdict::Deny,
            rule: None,
            nearest: None,
            reason,
            valid_until: self.slice.expires,
            fresh: Seconds::default(),
            offline: Seconds::default(),
        }
    }
}

impl Decision {
    /// An allow before a denial; of two allows the longer; of two denials the nearer miss, changing at the earlier.
    fn better(self, other: Self) -> Self {
        match (self.is_allow(), other.is_allow()) {
            (true, false) => self,
            (false, true) => other,
            (true, true) if self.valid_until >= other.valid_until => self,
            (true, true) => other,
            (false, false) => {
                let valid_until = self.valid_until.min(other.valid_until);
                let told = if self.nearest.is_some() || self.rule.is_some() {
                    self
                } else {
                    other
                };
                Self {
                    valid_until,
                    ..told
                }
            }
        }
    }
}

impl KnownSubject {
    fn new(kind: Kind, ids: &[crate::slice::GroupId], profile: ProfileTerms) -> Self {
        let mut groups: Vec<u32> = ids.iter().map(|id| id.0).collect();
        groups.sort_unstable();
        Self {
            kind,
            groups,
            profile,
        }
    }

    /// Its groups as the matcher takes them.
    fn bits(&self, limit: usize) -> BitSet {
        let bits = self.groups.iter().map(|group| *group as usize + 1);
        BitSet::new(std::iter::once(EVERYBODY_BIT).chain(bits), limit + 1)
    }
}

#[cfg(test)]
mod tests;
