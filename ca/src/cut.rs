//! An operator's word about a node: approve, quarantine, release, remove.
//!
//! What takes away happens first, in memory and at every connected peer, and is written after; what grants is written
//! first.

use std::sync::Arc;

use async_trait::async_trait;
use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_identity::{SignError, SpkiHash, Timestamp};
use edgeward_policy::CompiledPolicy;
use edgeward_wire::control::CutReason;

use crate::api::views::EkRootView;
use crate::api::{Control, ControlFault};
use crate::enrol::roots;
use crate::hub::{Hub, Member, nothing_known};
use crate::store::nodes::NodeStatus;

/// Whose keys operators' certificates are denied under, in the store.
const NO_NODE: &str = "";

/// What operators may do to nodes, on the sessions of this cloud.
#[derive(Clone)]
pub struct NodeControl {
    hub: Arc<Hub>,
}

/// One act that takes a node's rights away.
#[derive(Clone, Copy, Debug)]
struct Taking {
    from: &'static [NodeStatus],
    to: NodeStatus,
    cut: CutReason,
    kind: EventKind,
}

const QUARANTINE: Taking = Taking {
    from: &[NodeStatus::Active, NodeStatus::Quarantined],
    to: NodeStatus::Quarantined,
    cut: CutReason::Quarantined,
    kind: EventKind::NodeQuarantined,
};
const REMOVE: Taking = Taking {
    from: &[
        NodeStatus::Active,
        NodeStatus::Pending,
        NodeStatus::Quarantined,
    ],
    to: NodeStatus::Removed,
    cut: CutReason::Removed,
    kind: EventKind::NodeRemoved,
};

impl Taking {
    fn apply(self, member: &mut Member, now: Timestamp) {
        member.row.status = self.to;
        member.row.updated = now;
        member.standing = nothing_known(&member.row.name, now);
    }
}

#[async_trait]
impl Control for NodeControl {
    async fn deny(&self, keys: &[(SpkiHash, Timestamp)], reason: &str) -> Result<(), ControlFault> {
        let hub = &self.hub;
        hub.deny_at_once(keys, reason);
        let _changes = hub.changes.lock().await;
        let mut tx = hub.store.begin("key.deny").await?;
        tx.deny_keys(NO_NODE, reason, keys).await?;
        let deny = tx.raise_deny_list(hub.clock.now()).await?;
        let event = Event::new(hub.clock.now(), Actor::Cloud, EventKind::DenyListRaised)
            .code(reason)
            .detail("deny_number", deny.number());
        hub.audit.record_in(&mut tx, event).await?;
        tx.commit().await?;
        hub.enforce_deny_list(deny).map_err(unsigned)
    }

    /// Lets a pending node in: its next attempt with the same token gets its certificate.
    async fn approve(&self, node: &str, by: &Actor) -> Result<(), ControlFault> {
        let hub = &self.hub;
        let _changes = hub.changes.lock().await;
        let mut member = self.member_in(node, &[NodeStatus::Pending], "approved")?;
        let now = hub.clock.now();
        member.row.status = NodeStatus::Active;
        member.row.updated = now;
        let mut tx = hub.store.begin("node.approve").await?;
        tx.put_node(&member.row).await?;
        let event = Event::new(now, by.clone(), EventKind::NodeApproved)
            .subject(member.id.clone())
            .allowed();
        hub.audit.record_in(&mut tx, event).await?;
        tx.commit().await?;
        hub.update_member(node, |known| known.row = member.row.clone());
        hub.fleet_changed();
        Ok(())
    }

    /// Cuts a node off until it is released: its keys are denied, its connections closed.
    async fn quarantine(&self, node: &str, by: &Actor, reason: &str) -> Result<(), ControlFault> {
        self.take(node, by, reason, QUARANTINE).await
    }

    /// Ends a quarantine. The node is trusted again once it passes.
    async fn release(&self, node: &str, by: &Actor) -> Result<(), ControlFault> {
        let hub = &self.hub;
        let _changes = hub.changes.lock().await;
        let mut member = self.member_in(node, &[NodeStatus::Quarantined], "released")?;
        let now = hub.clock.now();
        member.row.status = NodeStatus::Active;
        member.row.updated = now;
        let mut tx = hub.store.begin("node.release").await?;
        tx.put_node(&member.row).await?;
        tx.allow_keys(node, CutReason::Quarantined.as_str()).await?;
        let deny = tx.raise_deny_list(now).await?;
        let event = Event::new(now, by.clone(), EventKind::NodeReleased)
            .subject(member.id.clone())
            .allowed()
            .detail("deny_number", deny.number());
        hub.audit.record_in(&mut tx, event).await?;
        tx.commit().await?;
        hub.update_member(node, |known| known.row = member.row.clone());
        hub.fleet_changed();
        hub.enforce_deny_list(deny).map_err(unsigned)
    }

    /// Cuts a node off for good. Its name and its TPM may enrol again, as a new node.
    async fn remove(&self, node: &str, by: &Actor, reason: &str) -> Result<(), ControlFault> {
        self.take(node, by, reason, REMOVE).await
    }

    async fn activate(&self, policy: Arc<CompiledPolicy>) -> Result<(), ControlFault> {
        self.hub.set_policy(policy);
        Ok(())
    }

    fn policy(&self) -> Option<Arc<CompiledPolicy>> {
        self.hub.policy()
    }

    fn connected(&self) -> Vec<String> {
        self.hub.attached_names()
    }

    fn ek_roots(&self) -> Vec<EkRootView> {
        match roots::views(&self.hub.config.ek_roots) {
            Ok(views) => views,
            Err(fault) => {
                tracing::error!(%fault, "ek trust store cannot be read");
                Vec::new()
            }
        }
    }
}

impl NodeControl {
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    async fn take(
        &self,
        name: &str,
        by: &Actor,
        reason: &str,
        taking: Taking,
    ) -> Result<(), ControlFault> {
        let hub = &self.hub;
        // The cut waits for nobody: not for an enrolment, not for the database. In memory first, so that a session
        // that begins now does not miss it.
        let member = self.member_in(name, taking.from, taking.to.as_str())?;
        hub.update_member(name, |known| taking.apply(known, hub.clock.now()));
        hub.push_cut(&member.id, taking.cut, hub.clock.now())
            .map_err(unsigned)?;
        hub.deny_at_once(&member.keys, taking.cut.as_str());
        let _changes = hub.changes.lock().await;
        let now = hub.clock.now();
        // An enrolment or a renewal may have come between: what it made falls, too.
        hub.update_member(name, |known| taking.apply(known, now));
        let member = hub
            .member(name)
            .ok_or_else(|| ControlFault::NoSuchNode(name.to_owned()))?;
        hub.deny_at_once(&member.keys, taking.cut.as_str());
        hub.fleet_changed();
        self.write_taking(&member, by, reason, taking, now).await
    }

    async fn write_taking(
        &self,
        member: &Member,
        by: &Actor,
        reason: &str,
        taking: Taking,
        now: Timestamp,
    ) -> Result<(), ControlFault> {
        let hub = &self.hub;
        let name = &member.row.name;
        let code = taking.cut.as_str();
        let mut tx = hub.store.begin("node.take").await?;
        tx.put_node(&member.row).await?;
        if taking.to == NodeStatus::Removed {
            tx.remove_attestation(name).await?;
            tx.remove_evidence(name).await?;
        }
        tx.deny_keys(name, code, &member.keys).await?;
        let deny = tx.raise_deny_list(now).await?;
        for kind in [
            taking.kind,
            EventKind::CutOrdered,
            EventKind::DenyListRaised,
        ] {
            let event = Event::new(now, by.clone(), kind)
                .subject(member.id.clone())
                .code(code)
                .detail("reason", reason)
                .detail("deny_number", deny.number());
            hub.audit.record_in(&mut tx, event).await?;
        }
        tx.commit().await?;
        hub.enforce_deny_list(deny).map_err(unsigned)
    }

    fn member_in(
        &self,
        name: &str,
        statuses: &[NodeStatus],
        wanted: &'static str,
    ) -> Result<Member, ControlFault> {
        let member = self
            .hub
            .member(name)
            .filter(|member| member.row.status != NodeStatus::Removed)
            .ok_or_else(|| ControlFault::NoSuchNode(name.to_owned()))?;
        match statuses.contains(&member.row.status) {
            true => Ok(member),
            false => Err(ControlFault::Status {
                status: member.row.status.as_str(),
                wanted,
            }),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn unsigned(error: SignError) -> ControlFault {
    ControlFault::Failed(format!("signing failed: {error}"))
}
