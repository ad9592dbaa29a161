//! An operator's word about a node: approve, quarantine, release, remove.
//!
//! What takes away happens first, in memory and at every connected peer, and is written after; what grants is written
//! first.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_identity::{SignError, SpiffeId, SpkiHash, Timestamp};
use edgeward_policy::{CompiledPolicy, SliceBreakGlass};
use edgeward_wire::control::CutReason;

use crate::alerts::act::Outcome;
use crate::alerts::desk::{Cutter, end_act};
use crate::api::views::CaView;
use crate::api::{Control, ControlFault};
use crate::apps::AppsSaid;
use crate::authorities::Rotate;
use crate::enrol::allow_on_approval;
use crate::hub::director::{AppOrderFault, GoesBack, Revoked, Spread, Whom};
use crate::hub::{Begin, Hub, HubFault, Member, Progress, RolloutFault, nothing_known};
use crate::session::join::JoinRefused;
use crate::store::alerts::ActRow;
use crate::store::director::DeniedRow;
use crate::store::nodes::{NodeRow, NodeStatus};
use crate::store::policies::PolicyRow;
use crate::store::recoveries::RecoveryWait;
use edgeward_apps::{AppName, Version};

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
    /// For the audit log.
    code: &'static str,
    /// Whoever is stored like that already is not taken once more.
    once: bool,
}

/// Who takes, and why.
#[derive(Clone, Copy)]
struct Word<'a> {
    by: &'a Actor,
    reason: &'a str,
    /// What is done with it.
    act: Option<&'a ActRow>,
}

const QUARANTINE: Taking = Taking {
    from: &[NodeStatus::Active, NodeStatus::Quarantined],
    to: NodeStatus::Quarantined,
    cut: CutReason::Quarantined,
    kind: EventKind::NodeQuarantined,
    code: "quarantined",
    once: false,
};
/// The cloud's own quarantine: two holders of one identity showed, and nobody but a person can tell which is which. From
/// quarantine, too: an earlier attempt may stand in memory only.
const CLONE: Taking = Taking {
    code: "clone",
    once: true,
    ..QUARANTINE
};
/// The same, tried again: whom somebody released meanwhile it leaves alone.
const CLONE_AGAIN: Taking = Taking {
    from: &[NodeStatus::Quarantined],
    ..CLONE
};
/// By a rule over the log: the node itself signed what speaks against it.
const AUTOMATIC: Taking = Taking {
    code: "automatic",
    once: true,
    ..QUARANTINE
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
    code: "removed",
    once: false,
};
/// First and longest pause before a lock that could not be stored is tried again, and how often it is.
const LOCK_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const LOCK_ATTEMPTS: u32 = 20;

impl Taking {
    fn apply(self, member: &mut Member, now: Timestamp) {
        member.row.status = self.to;
        member.row.updated = now;
        member.standing = nothing_known(&member.row.name, now);
    }

    /// Whether there is something left to write over what is stored.
    fn is_due(self, stored: Option<&NodeRow>) -> Result<(), ControlFault> {
        match stored {
            Some(row) if self.once && row.status == self.to => Err(ControlFault::Status {
                status: row.status.as_str(),
                wanted: self.to.as_str(),
            }),
            _ => Ok(()),
        }
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
        hub.enforce_deny_list(deny).map_err(unsigned)?;
        // What an operator approved with such a key counts no more.
        hub.openings_changed().await.map_err(failed)
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
        allow_on_approval(hub, &mut tx, &member.row, by, now).await?;
        if let Some(wait) = tx.recovery_wait(node).await? {
            let approved = RecoveryWait {
                approved: true,
                ..wait
            };
            tx.put_recovery_wait(node, approved).await?;
        }
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
        self.take(node, Word::of(by, reason), QUARANTINE).await
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
        // Whichever holder comes first says where the join counter stands; another one is found again.
        let keys = member.keys.iter().map(|(key, _)| *key);
        hub.forget_joins(node, keys).await?;
        hub.update_member(node, |known| known.row = member.row.clone());
        hub.fleet_changed();
        hub.enforce_deny_list(deny).map_err(unsigned)
    }

    /// Cuts a node off for good. Its name and its TPM may enrol again, as a new node.
    async fn remove(&self, node: &str, by: &Actor, reason: &str) -> Result<(), ControlFault> {
        self.take(node, Word::of(by, reason), REMOVE).await
    }

    async fn activate(&self, policy: Arc<CompiledPolicy>) -> Result<(), ControlFault> {
        self.hub.set_policy(policy);
        Ok(())
    }

    async fn begin_rollout(&self, begin: Begin, by: &Actor) -> Result<(), RolloutFault> {
        self.hub.begin_rollout(begin, by).await
    }

    async fn rollout(&self) -> Result<Option<Progress>, RolloutFault> {
        self.hub.rollout().await
    }

    async fn pause_rollout(&self, by: &Actor) -> Result<(), RolloutFault> {
        self.hub.pause_rollout(by).await
    }

    async fn resume_rollout(&self, by: &Actor) -> Result<(), RolloutFault> {
        self.hub.resume_rollout(by).await
    }

    async fn abort_rollout(&self, row: PolicyRow, by: &Actor) -> Result<(), RolloutFault> {
        self.hub.abort_rollout(row, by).await
    }

    async fn openings_changed(&self) -> Result<(), ControlFault> {
        self.hub.openings_changed().await.map_err(failed)
    }

    async fn break_glass(
        &self,
        node: &SpiffeId,
        name: &str,
    ) -> Result<Option<(SliceBreakGlass, SpkiHash)>, ControlFault> {
        let member = self
            .hub
            .member(node.name())
            .filter(Member::is_active)
            .ok_or_else(|| ControlFault::NoSuchNode(node.name().to_owned()))?;
        let glass = self.hub.glass_of(node, name).await.map_err(failed)?;
        Ok(glass.zip(member.key))
    }

    async fn authorities(&self) -> Result<CaView, ControlFault> {
        self.hub.ca_view().await
    }

    async fn rotate(&self, rotate: Rotate, by: &Actor) -> Result<(), ControlFault> {
        self.hub.rotate(rotate, by).await
    }

    async fn rotate_director(&self, by: &Actor) -> Result<(), ControlFault> {
        self.hub.rotate_director(by).await
    }

    async fn taint(&self, key: &str, by: &Actor) -> Result<(), ControlFault> {
        self.hub.taint(key, by).await
    }

    async fn retire(&self, key: &str, force: bool, by: &Actor) -> Result<(), ControlFault> {
        self.hub.retire(key, force, by).await
    }

    async fn revoke_app(&self, row: DeniedRow, by: &Actor) -> Result<(), AppOrderFault> {
        self.hub.revoke_app(row, by).await
    }

    fn spread_of(&self, revoked: &Revoked) -> Spread {
        self.hub.spread_of(revoked)
    }

    async fn order_back(
        &self,
        app: &AppName,
        whom: Whom<'_>,
        by: &Actor,
        reason: &str,
    ) -> Result<Vec<GoesBack>, AppOrderFault> {
        self.hub.order_back(app, whom, (by, reason)).await
    }

    async fn director_word(&self, node: &str) -> Result<Option<Vec<u8>>, ControlFault> {
        self.hub.director_word(node).await.map_err(failed)
    }

    fn policy(&self) -> Option<Arc<CompiledPolicy>> {
        self.hub.policy()
    }

    fn connected(&self) -> Vec<String> {
        self.hub.attached_names()
    }

    fn apps_of(&self, node: &str) -> Option<Arc<AppsSaid>> {
        self.hub.member(node).and_then(|member| member.apps)
    }

    fn apps_given(&self, node: &str) -> Vec<(AppName, Version)> {
        self.hub.apps_given(node)
    }
}

#[async_trait]
impl Cutter for NodeControl {
    fn active(&self) -> usize {
        self.hub.count_active()
    }

    async fn quarantine(&self, act: &ActRow, why: &str) -> Outcome {
        let word = Word {
            by: &Actor::Cloud,
            reason: why,
            act: Some(act),
        };
        match self.take(&act.node, word, AUTOMATIC).await {
            Ok(()) => Outcome::Quarantined,
            Err(ControlFault::Status { .. } | ControlFault::NoSuchNode(_)) => Outcome::NotActive,
            Err(fault) => {
                tracing::error!(node = act.node, %fault, "automatic quarantine could not be stored");
                Outcome::Failed
            }
        }
    }
}

impl<'a> Word<'a> {
    fn of(by: &'a Actor, reason: &'a str) -> Self {
        Self {
            by,
            reason,
            act: None,
        }
    }
}

impl NodeControl {
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// Locks a node whose identity has two holders: both lose their sessions, peers drop it, its keys are denied until
    /// an operator releases it.
    pub(crate) async fn lock_holders(&self, name: &str, remote: &str, why: &JoinRefused) {
        tracing::error!(node = name, remote, %why, "two holders of one identity: both are locked");
        metrics::counter!("edgeward_clones_total").increment(1);
        if !self.lock(name, &why.to_string(), CLONE).await {
            // Neither holder comes as far as here again: nobody else would try.
            tokio::spawn(self.clone().lock_later(name.to_owned(), why.to_string()));
        }
        self.hub.mark_cloned(name, remote, why).await;
    }

    /// Whether nothing is left to do.
    async fn lock(&self, name: &str, why: &str, taking: Taking) -> bool {
        match self.take(name, Word::of(&Actor::Cloud, why), taking).await {
            // Locked by an earlier Hello: there is nothing more to take.
            Ok(()) | Err(ControlFault::Status { .. } | ControlFault::NoSuchNode(_)) => true,
            Err(fault) => {
                tracing::error!(node = name, %fault, "the lock could not be stored");
                false
            }
        }
    }

    /// A lock that stands in memory only would end with this process.
    async fn lock_later(self, name: String, why: String) {
        let (mut pause, longest) = LOCK_PAUSES;
        for _ in 0..LOCK_ATTEMPTS {
            tokio::time::sleep(pause).await;
            if self.lock(&name, &why, CLONE_AGAIN).await {
                return;
            }
            pause = (pause * 2).min(longest);
        }
        tracing::error!(
            node = name,
            "CRITICAL: a lock is not stored, and ends with this process"
        );
    }

    async fn take(&self, name: &str, word: Word<'_>, taking: Taking) -> Result<(), ControlFault> {
        let hub = &self.hub;
        // The cut waits for nobody: not for an enrolment, not for the database. In memory first, so that a session
        // that begins now does not miss it.
        let member = self.member_in(name, taking.from, taking.to.as_str())?;
        if taking.once && member.row.status == taking.to {
            // Cut off already: all that may be missing is the write.
            taking.is_due(hub.store.node(name).await?.as_ref())?;
        }
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
        self.write_taking(&member, word, taking, now).await
    }

    async fn write_taking(
        &self,
        member: &Member,
        word: Word<'_>,
        taking: Taking,
        now: Timestamp,
    ) -> Result<(), ControlFault> {
        let hub = &self.hub;
        let name = &member.row.name;
        let code = taking.cut.as_str();
        let mut tx = hub.store.begin("node.take").await?;
        taking.is_due(tx.node(name).await?.as_ref())?;
        tx.put_node(&member.row).await?;
        if taking.to == NodeStatus::Removed {
            tx.remove_attestation(name).await?;
            tx.forget_recoveries(name).await?;
            tx.remove_evidence(name).await?;
        }
        tx.deny_keys(name, code, &member.keys).await?;
        let deny = tx.raise_deny_list(now).await?;
        for kind in [
            taking.kind,
            EventKind::CutOrdered,
            EventKind::DenyListRaised,
        ] {
            let event = Event::new(now, word.by.clone(), kind)
                .subject(member.id.clone())
                .code(taking.code)
                .detail("reason", word.reason)
                .detail("deny_number", deny.number());
            hub.audit.record_in(&mut tx, event).await?;
        }
        if let Some(act) = word.act {
            // With it, or a crash in between would leave one done that counts for no cap.
            end_act(&mut tx, act, Outcome::Quarantined).await?;
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

fn failed(fault: HubFault) -> ControlFault {
    match fault {
        HubFault::Store(fault) => ControlFault::Store(fault),
        other => ControlFault::Failed(other.to_string()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn unsigned(error: SignError) -> ControlFault {
    ControlFault::Failed(format!("signing failed: {error}"))
}

#[cfg(test)]
mod tests;
