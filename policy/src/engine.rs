//! One engine for one slice: an immutable snapshot that decides. A new slice makes a new engine.
//!
//! A decision is made twice: casbin says whether the rows in force allow (in `bucket`), and the rows are read straight
//! to say which one, why and for how long (in `explain`). Where the two disagree the answer is a denial.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use edgeward_identity::{Kind, SpiffeId, Timestamp};

use crate::decision::{Decision, Link, Reason, Request, Standing, Subject, Target, Verdict};
use crate::l7::{ActionSet, L7Request};
use crate::runs::AllWants;
use crate::seconds::Seconds;
use crate::slice::{ActionId, GroupId, InterfaceIndex, MESH, PeerIndex, Proto, Slice, SliceError};
use crate::window::Schedule;

mod bits;
pub(crate) mod bucket;
pub(crate) mod cache;
pub(crate) mod condition;
pub(crate) mod explain;
mod guests;
mod meeting;
mod openings;
mod places;
mod select;

pub use meeting::{CARRIES, Place};
pub use openings::Opened;

use cache::{Asked, DecisionCache, Key};
use condition::{Facts, ProfileTerms};
use explain::InterfaceRows;
use guests::{Comes, Guests};
use openings::Openings;
use places::Places;
use select::{Buckets, Budget, Class};

/// Decides for one node by one slice.
pub struct Engine {
    slice: Arc<Slice>,
    subjects: Vec<KnownSubject>,
    by_id: HashMap<SpiffeId, usize, foldhash::fast::RandomState>,
    interfaces: Vec<InterfaceRows>,
    buckets: Vec<Buckets>,
    budget: Budget,
    places: Places,
    guests: Guests,
    schedules: Vec<Schedule>,
    openings: Openings,
    wants: AllWants,
    cache: DecisionCache,
}

/// A peer, operator or device of the slice.
pub(crate) struct KnownSubject {
    pub(crate) kind: Kind,
    pub(crate) comes: Comes,
    /// Numbers of its groups, sorted.
    pub(crate) groups: Arc<[u32]>,
    class: Class,
    pub(crate) profile: ProfileTerms,
}

/// Why no engine came of a slice.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the slice is not sound")]
    Slice(#[from] SliceError),
}

impl Engine {
    /// Checks the slice and builds the snapshot. The enforcers come when they are first asked for: 0.1 ms for each
    /// interface and set of rows about one subject.
    pub fn new(slice: Arc<Slice>) -> Result<Self, EngineError> {
        Self::with_opened(slice, &[])
    }

    /// As [`Self::new`], with rules that break-glass opened on this node.
    pub fn with_opened(slice: Arc<Slice>, opened: &[Opened]) -> Result<Self, EngineError> {
        slice.validate()?;
        let seen = slice.peers.iter().flat_map(|peer| &peer.devices);
        let count = slice.peers.len() + slice.operators.len() + slice.devices.len();
        let mut known = Known::with_capacity(count + seen.clone().count());
        for peer in &slice.peers {
            let profile = ProfileTerms {
                fresh: peer.fresh,
                offline: peer.offline,
            };
            known.add(&peer.id, &peer.groups, profile, Comes::Anywhere);
        }
        let operators = slice.operators.iter();
        let operators = operators.map(|one| (&one.id, &one.groups, Comes::Anywhere));
        let devices = slice.devices.iter();
        let devices = devices.map(|one| (&one.id, &one.groups, Comes::ByNetwork));
        let seen = seen.map(|one| (&one.id, &one.groups, Comes::AsGuest));
        for (id, groups, comes) in operators.chain(devices).chain(seen) {
            known.add(id, groups, ProfileTerms::default(), comes);
        }
        let interfaces = slice.interfaces.iter();
        let interfaces: Vec<_> = interfaces
            .map(|interface| InterfaceRows::new(&interface.rows))
            .collect();
        Ok(Self {
            openings: Openings::new(&slice, &known.by_id, opened),
            guests: Guests::new(&slice, |id| known.class_of(id)),
            subjects: known.subjects,
            by_id: known.by_id,
            buckets: interfaces.iter().map(|_| Buckets::default()).collect(),
            interfaces,
            budget: Budget::default(),
            places: Places::new(&slice),
            schedules: slice.windows.iter().map(Schedule::new).collect(),
            cache: DecisionCache::new(),
            wants: slice.wants(),
            slice,
        })
    }

    /// Everything that rows here want their subjects to run: what evidence says of it is part of a [`Standing`].
    pub fn wants(&self) -> &AllWants {
        &self.wants
    }

    pub fn slice(&self) -> &Arc<Slice> {
        &self.slice
    }

    /// Until when break-glass holds a rule open on this node, if it does now.
    pub fn opened_until(&self, rule: &str, now: Timestamp) -> Option<Timestamp> {
        self.openings.opened(rule, now)
    }

    /// The index of a node that this one may meet.
    pub fn peer(&self, id: &SpiffeId) -> Option<PeerIndex> {
        let index = *self.by_id.get(id)?;
        (index < self.slice.peers.len()).then(|| u32::try_from(index).ok().map(PeerIndex))?
    }

    /// One of the node's own interfaces by its names.
    pub fn interface(&self, service: &str, name: &str) -> Option<InterfaceIndex> {
        self.places.named(&self.slice, service, name)
    }

    /// One of the node's own interfaces by where packets for it arrive.
    pub fn interface_at(&self, net: &str, proto: Proto, port: u16) -> Option<InterfaceIndex> {
        self.places.at(&self.slice, net, proto, port)
    }

    /// Decides. Any failure is a denial.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        let interface = match request.target {
            Target::Interface(index) => Some(index),
            Target::Named { service, interface } => self.interface(service, interface),
        };
        let asked = Asked::Actions([request.action].into_iter().collect());
        self.answer(
            request.subject,
            request.standing,
            (interface, asked),
            request.link,
            request.now,
        )
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
        let what = (Some(interface), Asked::Entry);
        self.answer(subject, standing, what, link, now)
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
        self.decide_actions(subject, standing, (interface, actions), link, now)
    }

    /// Decides about the actions that one request fits.
    pub fn decide_actions(
        &self,
        subject: Subject<'_>,
        standing: Standing,
        (interface, actions): (InterfaceIndex, ActionSet),
        link: Link,
        now: Timestamp,
    ) -> Decision {
        let what = (Some(interface), Asked::Actions(actions));
        self.answer(subject, standing, what, link, now)
    }

    fn answer(
        &self,
        subject: Subject<'_>,
        standing: Standing,
        (interface, asked): (Option<InterfaceIndex>, Asked),
        link: Link,
        now: Timestamp,
    ) -> Decision {
        if now >= self.slice.expires {
            return self.refusal(Reason::PolicyExpired);
        }
        let known = |index: &InterfaceIndex| (index.0 as usize) < self.interfaces.len();
        let Some(interface) = interface.filter(known) else {
            return self.refusal(Reason::UnknownInterface);
        };
        let Some(subject) = self.subject(subject) else {
            return self.refusal(Reason::UnknownSubject);
        };
        if !self.comes_to(subject, interface) {
            return self.refusal(Reason::NoRule);
        }
        let key = Key {
            subject,
            interface,
            asked,
            standing,
            link,
        };
        if let Some(decision) = self.cache.get(&key, now) {
            return decision;
        }
        let decision = self.decide_afresh(&key, now);
        let decision = decision.unwrap_or_else(|| self.refusal(Reason::Internal));
        if decision.reason != Reason::Internal {
            self.cache.put(key, now, &decision);
        }
        decision
    }

    fn subject(&self, subject: Subject<'_>) -> Option<usize> {
        match subject {
            Subject::Peer(index) => {
                Some(index.0 as usize).filter(|index| *index < self.slice.peers.len())
            }
            Subject::Id(id) => self.by_id.get(id).copied(),
        }
    }

    /// Whether somebody can stand before an interface at all: a device comes by the network that it hangs on, or
    /// through the tunnel of another node, and then no further than to this node.
    fn comes_to(&self, subject: usize, interface: InterfaceIndex) -> bool {
        let known = self.slice.interfaces.get(interface.0 as usize);
        let (Some(subject), Some(interface)) = (self.subjects.get(subject), known) else {
            return false;
        };
        match subject.comes {
            Comes::Anywhere => true,
            Comes::ByNetwork => interface.net != MESH,
            Comes::AsGuest => interface.net == MESH && interface.beyond.is_none(),
        }
    }

    pub(crate) fn facts(
        &self,
        subject: usize,
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> Option<Facts<'_>> {
        let known = self.subjects.get(subject)?;
        Some(Facts {
            subject,
            kind: known.kind,
            standing,
            profile: known.profile,
            link,
            now,
            openings: &self.openings,
            wants: &self.wants,
        })
    }

    /// By the rows alone, without casbin.
    pub(crate) fn by_rows(
        &self,
        subject: usize,
        interface: InterfaceIndex,
        action: ActionId,
        facts: &Facts<'_>,
    ) -> Option<explain::Explained> {
        let rows = &self.slice.interfaces.get(interface.0 as usize)?.rows;
        let index = self.interfaces.get(interface.0 as usize)?;
        let subject = self.subjects.get(subject)?;
        Some(index.explain(
            rows,
            (&subject.groups, subject.comes),
            action,
            facts,
            &self.schedules,
            self.slice.expires,
        ))
    }

    fn decide_afresh(&self, key: &Key, now: Timestamp) -> Option<Decision> {
        let interface = self.slice.interfaces.get(key.interface.0 as usize)?;
        let facts = self.facts(key.subject, key.standing, key.link, now)?;
        match key.asked {
            Asked::Entry => {
                let count = u8::try_from(interface.action_count()).ok()?;
                let mut decisions =
                    (0..count).map(|action| self.decide_action(key, ActionId(action), &facts));
                decisions.try_fold(None, Decision::best)?
            }
            Asked::Actions(actions) => {
                let decisions = actions
                    .iter()
                    .map(|action| self.decide_action(key, action, &facts));
                Some(self.combine(decisions.collect::<Option<Vec<_>>>()?))
            }
        }
    }

    /// Of what is decided about each action that a request fits.
    pub(crate) fn combine(&self, decisions: Vec<Decision>) -> Decision {
        let mut best: Option<Decision> = None;
        let mut until = self.slice.expires;
        for decision in decisions {
            if !decision.is_allow() && decision.rule.is_some() {
                return decision;
            }
            until = until.min(decision.valid_until);
            best = Some(match best {
                None => decision,
                Some(best) => best.better(decision),
            });
        }
        match best {
            Some(best) => Decision {
                valid_until: best.valid_until.min(until),
                ..best
            },
            None => self.refusal(Reason::NoAction),
        }
    }

    /// By the rows and by casbin; `None` where they disagree.
    fn decide_action(&self, key: &Key, action: ActionId, facts: &Facts) -> Option<Decision> {
        let explained = self.by_rows(key.subject, key.interface, action, facts)?;
        let index = key.interface.0 as usize;
        let rows = &self.slice.interfaces.get(index)?.rows;
        let subject = self.subjects.get(key.subject)?;
        let class = (subject.class, &*subject.groups, subject.comes);
        let bucket = self
            .buckets
            .get(index)?
            .of(class, rows, &self.budget)
            .ok()?;
        let allowed = bucket
            .allows(&subject.groups, action, &explained.active)
            .ok()?;
        (allowed == explained.decision.is_allow()).then_some(explained.decision)
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
    fn best(best: Option<Self>, other: Option<Self>) -> Option<Option<Self>> {
        let other = other?;
        Some(Some(match best {
            None => other,
            Some(best) => best.better(other),
        }))
    }

    /// An allow before a denial; of two allows the longer; of two denials the nearer miss, changing at the earlier.
    pub(crate) fn better(self, other: Self) -> Self {
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

/// Subjects of a slice in the making.
struct Known {
    subjects: Vec<KnownSubject>,
    by_id: HashMap<SpiffeId, usize, foldhash::fast::RandomState>,
    classes: HashMap<(Comes, Arc<[u32]>), Class, foldhash::fast::RandomState>,
    shared: HashSet<Arc<[u32]>, foldhash::fast::RandomState>,
}

impl Known {
    fn with_capacity(count: usize) -> Self {
        Self {
            subjects: Vec::with_capacity(count),
            by_id: HashMap::with_capacity_and_hasher(count, Default::default()),
            classes: HashMap::default(),
            shared: HashSet::default(),
        }
    }

    fn class_of(&self, id: &SpiffeId) -> Option<Class> {
        let known = self.subjects.get(*self.by_id.get(id)?)?;
        Some(known.class)
    }

    fn add(&mut self, id: &SpiffeId, ids: &[GroupId], profile: ProfileTerms, comes: Comes) {
        let mut groups: Vec<u32> = ids.iter().map(|id| id.0).collect();
        groups.sort_unstable();
        groups.dedup();
        let next = u32::try_from(self.classes.len()).unwrap_or(Class::MAX);
        let groups = match self.shared.get(groups.as_slice()) {
            Some(groups) => Arc::clone(groups),
            None => {
                let groups: Arc<[u32]> = groups.into();
                self.shared.insert(Arc::clone(&groups));
                groups
            }
        };
        let class = (comes, Arc::clone(&groups));
        let class = *self.classes.entry(class).or_insert(next);
        self.by_id.insert(id.clone(), self.subjects.len());
        self.subjects.push(KnownSubject {
            kind: id.kind(),
            comes,
            groups,
            class,
            profile,
        });
    }
}

#[cfg(test)]
mod tests;
