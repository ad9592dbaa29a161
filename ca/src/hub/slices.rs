//! Slices and directories: what each session is told of the policy and of its peers, and when that has changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use edgeward_evidence::Digest;
use edgeward_identity::{Purpose, SpiffeId, Timestamp};
use edgeward_policy::{
    CompiledPolicy, Fleet, FleetIndex, FleetNode, Lifetimes, Seconds, Slice, SliceApproval,
    SliceError,
};
use edgeward_wire::v1::{self, cloud_message::Body};

use super::deltas::LastSent;
use super::openings::Openings;
use super::policies::Policies;
use super::{Hub, HubFault};
use crate::keys::Label;
use crate::rollout::Part;
use crate::store::nodes::NodeRow;

/// How long before its end a slice is replaced at the latest.
const RENEW_BEFORE: Duration = Duration::from_secs(24 * 3600);
/// The fact that numbers slices.
const NUMBER: &str = "slice.number";

/// Policy and fleet, sorted for cutting, at one moment.
#[derive(Debug)]
pub(super) struct Fleeted {
    everywhere: Sorted,
    /// What is tried on some nodes.
    staged: Option<(Sorted, Part)>,
    openings: Arc<Openings>,
    pub(super) number: u64,
}

/// The fleet as one policy sees it.
#[derive(Debug)]
struct Sorted {
    policy: Arc<CompiledPolicy>,
    index: FleetIndex,
    approved: Vec<SliceApproval>,
}

/// What a session was last sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    content: Option<Digest>,
    renew_at: Timestamp,
    /// The strictest `fresh` in it.
    pub(super) fresh: Option<Duration>,
    /// Names of the nodes it may meet.
    pub(super) peers: BTreeSet<String>,
}

/// A slice ready to be sent.
#[derive(Clone, Debug)]
pub struct SignedSlice {
    pub bytes: Vec<u8>,
    pub peers: BTreeSet<String>,
    pub lifetimes: Lifetimes,
    pub(crate) fresh: Option<Duration>,
    pub(super) content: Digest,
    /// Number of the state that it was cut from.
    pub(super) fleet: u64,
    expires: Timestamp,
    renew_at: Timestamp,
}

impl Hub {
    /// Says that policy, nodes or their labels have changed.
    pub(crate) fn fleet_changed(&self) {
        self.stale_fleet
            .store(true, std::sync::atomic::Ordering::Release);
        self.fleet_notify.notify_one();
        self.direct_everybody();
    }

    /// The slice of a node as of now; `None` without a policy, or for a node that is not active.
    pub async fn slice(&self, id: &SpiffeId) -> Result<Option<SignedSlice>, HubFault> {
        let Some(fleeted) = self.fleeted().await? else {
            return Ok(None);
        };
        match cut_slice(&fleeted, id) {
            Ok((slice, content)) => self.sign_slice(&fleeted, slice, content, id).map(Some),
            Err(HubFault::Slice(SliceError::UnknownNode(_))) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// What the lifetime of a node's certificate follows from.
    pub async fn lifetimes(&self, id: &SpiffeId) -> Option<Lifetimes> {
        match self.slice(id).await {
            Ok(slice) => slice.map(|slice| slice.lifetimes),
            Err(fault) => {
                tracing::error!(node = %id, %fault, "slice cannot be made");
                None
            }
        }
    }

    /// As [`Hub::lifetimes`], for a node that joins the fleet now. Called within its transaction, so it waits for
    /// nobody who may wait for that: where the sorted fleet is not at hand, it is sorted once more.
    pub(crate) fn lifetimes_with(&self, id: &SpiffeId, row: &NodeRow) -> Option<Lifetimes> {
        let policy = self.policy_of(id.name())?;
        let node = FleetNode {
            id: id.clone(),
            labels: row.labels.clone(),
            tier: row.tier,
            v4: Some(row.v4),
        };
        let newest = self.fleeted.try_lock().ok();
        let newest = newest.and_then(|fleets| fleets.newest().cloned());
        let sorted = newest
            .as_ref()
            .and_then(|newest| newest.sorted_for(&policy));
        let index = match sorted {
            Some(sorted) => {
                let mut changed = self.directory.lock().changed();
                changed.push((id.clone(), Some(node)));
                sorted.moved(&changed)
            }
            None => {
                let mut fleet = Fleet::clone(&self.directory.lock().fleet());
                fleet.nodes.retain(|node| node.id != *id);
                fleet.nodes.push(node);
                policy.index(&fleet)
            }
        };
        match policy.slice_of(&index, id, Timestamp::default()) {
            Ok(slice) => Some(slice.lifetimes),
            Err(fault) => {
                tracing::error!(node = %id, %fault, "slice cannot be made");
                None
            }
        }
    }

    /// The whole directory of a node, for a session that begins or a slice that changed.
    pub(crate) fn directory_of(&self, peers: &BTreeSet<String>) -> v1::PeerUpdate {
        let directory = self.directory.lock();
        v1::PeerUpdate {
            full: true,
            peers: peers
                .iter()
                .filter_map(|name| directory.get(name))
                .filter(|member| member.is_active())
                .map(|member| member.to_wire(peers.len()))
                .collect(),
            gone: Vec::new(),
        }
    }

    /// Sends new slices: to everybody whose slice has changed, or only to those whose slice ends soon. The task behind
    /// [`Hub::fleet_changed`].
    pub(super) async fn distribute(&self, everybody: bool) -> Result<(), HubFault> {
        let now = self.clock.now();
        let due: Vec<(String, u64)> = self
            .sessions
            .lock()
            .iter()
            .filter(|(_, session)| everybody || now >= session.sent.renew_at)
            .map(|(name, session)| (name.clone(), session.number))
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let Some(fleeted) = self.fleeted().await? else {
            return Ok(());
        };
        for (name, number) in due {
            if let Err(fault) = self.distribute_to(&fleeted, &name, number, now).await {
                tracing::warn!(node = name, %fault, "no slice for this node");
            }
        }
        Ok(())
    }

    async fn distribute_to(
        &self,
        fleeted: &Fleeted,
        name: &str,
        number: u64,
        now: Timestamp,
    ) -> Result<(), HubFault> {
        let Some(member) = self.member(name) else {
            return Ok(());
        };
        let (slice, content) = cut_slice(fleeted, &member.id)?;
        let Some((same, deltas)) = self.with_session(name, number, |session| {
            let same = session.sent.content == Some(content) && now < session.sent.renew_at;
            (same, session.deltas)
        }) else {
            return Ok(());
        };
        if same {
            self.still_sent(name, content, fleeted.number);
            return Ok(());
        }
        let slice = self.sign_slice(fleeted, slice, content, &member.id)?;
        let body = self.body_for(&member.id, deltas, &slice).await;
        self.with_session(name, number, |session| {
            session.sent = slice.sent();
            self.note_sent(name, slice.last_sent());
            // Read while nothing can be pushed to this session: what is pushed later is newer.
            let peers = self.directory_of(&slice.peers);
            session.push(body);
            session.push(Body::Peers(peers));
        });
        Ok(())
    }

    /// The whole slice again, for an agent that a delta was of no use to.
    pub(crate) async fn send_whole(&self, id: &SpiffeId, number: u64) -> Result<(), HubFault> {
        let Some(slice) = self.slice(id).await? else {
            return Ok(());
        };
        self.with_session(id.name(), number, |session| {
            session.sent = slice.sent();
            self.note_sent(id.name(), slice.last_sent());
            let peers = self.directory_of(&slice.peers);
            session.push(Body::Slice(slice.bytes.clone()));
            session.push(Body::Peers(peers));
        });
        Ok(())
    }

    /// Sorts the fleet anew if something has changed since.
    pub(super) async fn fleeted(&self) -> Result<Option<Arc<Fleeted>>, HubFault> {
        use std::sync::atomic::Ordering;
        let mut fleets = self.fleeted.lock().await;
        let changed = self.stale_fleet.swap(false, Ordering::AcqRel);
        if let (Some(current), false) = (fleets.newest(), changed) {
            return Ok(Some(current.clone()));
        }
        let policies = self.policies.load_full();
        let Some(everywhere) = policies.everywhere.clone() else {
            return Ok(None);
        };
        let number = match self.next_number(NUMBER).await {
            Ok(number) => number,
            Err(fault) => {
                self.stale_fleet.store(true, Ordering::Release);
                return Err(fault);
            }
        };
        let (fleet, changed) = {
            let mut directory = self.directory.lock();
            let changed = directory.take_changed();
            // Only what a policy that was not sorted for yet needs.
            let before = fleets.newest();
            let known = before.is_some_and(|before| before.is_sorted_for(&policies));
            ((!known).then(|| directory.fleet()), changed)
        };
        let (openings, now) = (self.openings.load_full(), self.clock.now());
        let before = fleets.newest().cloned();
        let sorted = |policy: Arc<CompiledPolicy>| {
            let before = before
                .as_ref()
                .and_then(|before| before.sorted_for(&policy));
            let index = match (before, &fleet) {
                (Some(before), _) => before.moved(&changed),
                (None, Some(fleet)) => policy.index(fleet),
                (None, None) => policy.index(&Fleet::default()),
            };
            Sorted::new(policy, index, &openings, now)
        };
        let fleeted = Arc::new(Fleeted {
            everywhere: sorted(everywhere),
            staged: policies
                .staged
                .as_ref()
                .map(|staged| (sorted(staged.policy.clone()), staged.part)),
            openings: openings.clone(),
            number,
        });
        fleets.put(fleeted.clone());
        Ok(Some(fleeted))
    }

    fn sign_slice(
        &self,
        fleeted: &Fleeted,
        mut slice: Slice,
        content: Digest,
        id: &SpiffeId,
    ) -> Result<SignedSlice, HubFault> {
        let now = self.clock.now();
        // A node that is cut off must be able to use up the longest `offline` that it has.
        let lifetime = slice.lifetimes.max_offline.as_duration() + 2 * RENEW_BEFORE;
        slice.expires = now.plus(lifetime);
        let label = Label {
            purpose: Purpose::Policy,
            audience: id.to_string(),
            number: fleeted.number,
            issued: now,
            lifetime,
        };
        Ok(SignedSlice {
            bytes: self.keys.sign(label, &slice)?,
            peers: peers_of(&slice),
            lifetimes: slice.lifetimes,
            fresh: strictest_fresh(&slice),
            content,
            fleet: fleeted.number,
            expires: slice.expires,
            renew_at: now.plus(RENEW_BEFORE),
        })
    }
}

/// How old a pass may be at most by the strictest rule that touches the node, as subject or object.
fn strictest_fresh(slice: &Slice) -> Option<Duration> {
    let offered = slice
        .interfaces
        .iter()
        .flat_map(|interface| &interface.rows);
    let used = slice.egress.iter().flat_map(|egress| &egress.rows);
    let terms = offered
        .map(|row| row.fresh)
        .chain(used.map(|row| row.fresh));
    let of_rules = terms.map(|term| term.own.unwrap_or(term.default));
    let of_profiles = slice.peers.iter().filter_map(|peer| peer.fresh);
    of_rules.chain(of_profiles).min().map(Seconds::as_duration)
}

impl SignedSlice {
    pub(super) fn sent(&self) -> Sent {
        Sent {
            content: Some(self.content),
            renew_at: self.renew_at,
            fresh: self.fresh,
            peers: self.peers.clone(),
        }
    }

    pub(super) fn last_sent(&self) -> LastSent {
        LastSent {
            object: *Digest::of(&self.bytes).as_bytes(),
            content: self.content,
            expires: self.expires,
            fleet: self.fleet,
        }
    }
}

impl Sorted {
    fn new(
        policy: Arc<CompiledPolicy>,
        index: FleetIndex,
        openings: &Openings,
        now: Timestamp,
    ) -> Self {
        Self {
            index,
            approved: openings.approved(&policy, now),
            policy,
        }
    }
}

impl Sorted {
    /// The same fleet but for these nodes.
    fn moved(&self, changed: &[(SpiffeId, Option<FleetNode>)]) -> FleetIndex {
        let mut index = self.index.clone();
        for (id, node) in changed {
            match node {
                Some(node) => index.put(&self.policy, node),
                None => index.remove(id),
            }
        }
        index
    }
}

impl Fleeted {
    fn sorted_for(&self, policy: &Arc<CompiledPolicy>) -> Option<&Sorted> {
        let staged = self.staged.as_ref().map(|(staged, _)| staged);
        let mut all = std::iter::once(&self.everywhere).chain(staged);
        all.find(|sorted| Arc::ptr_eq(&sorted.policy, policy))
    }

    fn is_sorted_for(&self, policies: &Policies) -> bool {
        let staged = policies.staged.as_ref().map(|staged| &staged.policy);
        let mut all = policies.everywhere.iter().chain(staged);
        all.all(|policy| self.sorted_for(policy).is_some())
    }

    fn of(&self, node: &str) -> &Sorted {
        match &self.staged {
            Some((staged, part)) if part.holds(node) => staged,
            _ => &self.everywhere,
        }
    }
}

/// A slice, and what tells whether it has changed: everything in it but its end.
pub(super) fn cut_slice(fleeted: &Fleeted, id: &SpiffeId) -> Result<(Slice, Digest), HubFault> {
    let sorted = fleeted.of(id.name());
    let mut slice = sorted
        .policy
        .slice_of(&sorted.index, id, Timestamp::default())?;
    fleeted.openings.put_into(&mut slice, &sorted.approved);
    let content = Digest::of(&serde_json::to_vec(&slice).map_err(HubFault::json)?);
    Ok((slice, content))
}

fn peers_of(slice: &Slice) -> BTreeSet<String> {
    slice
        .peers
        .iter()
        .map(|peer| peer.id.name().to_owned())
        .collect()
}
