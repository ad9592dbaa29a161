//! Every node as this cloud knows it now, in memory: what cuts and pushes start from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgeward_identity::{AttestationState, SpiffeId, SpkiHash, Timestamp, VerifiedPeer};
use edgeward_policy::{Fleet, FleetNode};
use edgeward_wire::v1;

use crate::apps::AppsSaid;
use crate::store::nodes::{NodeRow, NodeStatus};
use crate::store::results::{AttestationRow, Counters};

/// Most peers of a node that is told what each of them passed by: as many as agents keep bound all the time.
const MAX_RESULTS_TOLD: usize = 64;

/// One node.
#[derive(Clone, Debug)]
pub struct Member {
    pub id: SpiffeId,
    pub row: NodeRow,
    /// Keys of its certificates that have not ended, with their ends.
    pub keys: Vec<(SpkiHash, Timestamp)>,
    /// The key that a first flight must be addressed to: that of its newest session or certificate.
    pub key: Option<SpkiHash>,
    pub standing: AttestationRow,
    /// As the node says; a false one can only deny service.
    pub endpoints: Vec<String>,
    /// What it said of its applications to this cloud.
    pub apps: Option<Arc<AppsSaid>>,
}

/// All of them, by name.
#[derive(Debug, Default)]
pub(super) struct Directory {
    members: BTreeMap<String, Member>,
    /// Nodes whose place in the fleet may be another since the fleet was sorted last.
    changed: BTreeSet<String>,
}

impl Member {
    pub(crate) fn new(id: SpiffeId, row: NodeRow, standing: Option<AttestationRow>) -> Self {
        let standing = standing.unwrap_or_else(|| nothing_known(&row.name, row.updated));
        Self {
            id,
            row,
            keys: Vec::new(),
            key: None,
            standing,
            endpoints: Vec::new(),
            apps: None,
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.row.status == NodeStatus::Active
    }

    /// Active, and with a certificate that the cloud knows.
    pub(crate) fn stands(&self, peer: &VerifiedPeer, now: Timestamp) -> bool {
        let key = peer.spki_hash();
        self.is_active()
            && self.id == *peer.id()
            && self
                .keys
                .iter()
                .any(|(known, end)| *known == key && *end > now)
    }

    /// As policies are sliced against it.
    pub(super) fn to_fleet(&self) -> FleetNode {
        FleetNode {
            id: self.id.clone(),
            labels: self.row.labels.clone(),
            tier: self.row.tier,
            v4: Some(self.row.v4),
        }
    }

    /// What a node is told of it that may meet so many peers.
    pub(crate) fn to_wire(&self, peers: usize) -> v1::Peer {
        let good = matches!(
            self.standing.state,
            AttestationState::Trusted | AttestationState::None
        );
        let passed = self.standing.passed.filter(|_| good);
        v1::Peer {
            spiffe_id: self.id.to_string(),
            endpoints: self.endpoints.clone(),
            spki_hash: self
                .key
                .map(|key| key.as_bytes().to_vec())
                .unwrap_or_default(),
            result: match &self.standing.result {
                Some(result) if good && tells_results(peers) => result.clone(),
                Some(_) | None => Vec::new(),
            },
            passed: passed.map(Timestamp::millis).unwrap_or_default(),
        }
    }
}

/// Whether a node that may meet so many peers is told what each one passed by: a peer brings its own to a bind, and ten
/// thousand would neither fit a message nor be worth their memory.
pub(super) fn tells_results(peers: usize) -> bool {
    peers <= MAX_RESULTS_TOLD
}

/// The standing of a node that gave no evidence yet.
pub(crate) fn nothing_known(node: &str, now: Timestamp) -> AttestationRow {
    AttestationRow {
        node: node.to_owned(),
        state: AttestationState::None,
        code: None,
        changed: now,
        passed: None,
        result: None,
        boot_key: None,
        counters: Counters::default(),
        findings: Vec::new(),
    }
}

impl Directory {
    pub(super) fn get(&self, name: &str) -> Option<&Member> {
        self.members.get(name)
    }

    /// Changes a node; notes whether that may change its place in the fleet.
    pub(super) fn update(&mut self, name: &str, change: impl FnOnce(&mut Member)) {
        let Some(member) = self.members.get_mut(name) else {
            return;
        };
        let before = member.row.clone();
        change(member);
        if member.row != before {
            self.changed.insert(name.to_owned());
        }
    }

    pub(super) fn put(&mut self, member: Member) {
        self.changed.insert(member.row.name.clone());
        self.members.insert(member.row.name.clone(), member);
    }

    /// The nodes that changed since the fleet was sorted last, each as policies are sliced against it; `None`: it is not
    /// active.
    pub(super) fn changed(&self) -> Vec<(SpiffeId, Option<FleetNode>)> {
        self.changed
            .iter()
            .filter_map(|name| self.members.get(name))
            .map(|member| {
                let node = member.is_active().then(|| member.to_fleet());
                (member.id.clone(), node)
            })
            .collect()
    }

    /// As [`Directory::changed`]; from now on they count as sorted.
    pub(super) fn take_changed(&mut self) -> Vec<(SpiffeId, Option<FleetNode>)> {
        let changed = self.changed();
        self.changed.clear();
        changed
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Active nodes, as policies are sliced against.
    pub(super) fn fleet(&self) -> Arc<Fleet> {
        let nodes = self
            .members
            .values()
            .filter(|member| member.is_active())
            .map(Member::to_fleet)
            .collect();
        Arc::new(Fleet { nodes })
    }
}
