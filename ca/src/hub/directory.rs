//! Every node as this cloud knows it now, in memory: what cuts and pushes start from.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgeward_identity::{AttestationState, SpiffeId, SpkiHash, Timestamp};
use edgeward_policy::{Fleet, FleetNode};
use edgeward_wire::v1;

use crate::store::nodes::{NodeRow, NodeStatus};
use crate::store::results::{AttestationRow, Counters};

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
}

/// All of them, by name.
#[derive(Debug, Default)]
pub(super) struct Directory {
    members: BTreeMap<String, Member>,
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
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.row.status == NodeStatus::Active
    }

    /// What its peers are told.
    pub(crate) fn to_wire(&self) -> v1::Peer {
        let good = matches!(
            self.standing.state,
            AttestationState::Trusted | AttestationState::None
        );
        v1::Peer {
            spiffe_id: self.id.to_string(),
            endpoints: self.endpoints.clone(),
            spki_hash: self
                .key
                .map(|key| key.as_bytes().to_vec())
                .unwrap_or_default(),
            result: match &self.standing.result {
                Some(result) if good => result.clone(),
                Some(_) | None => Vec::new(),
            },
        }
    }
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

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Member> {
        self.members.get_mut(name)
    }

    pub(super) fn put(&mut self, member: Member) {
        self.members.insert(member.row.name.clone(), member);
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
            .map(|member| FleetNode {
                id: member.id.clone(),
                labels: member.row.labels.clone(),
                tier: member.row.tier,
                v4: Some(member.row.v4),
            })
            .collect();
        Arc::new(Fleet { nodes })
    }
}
