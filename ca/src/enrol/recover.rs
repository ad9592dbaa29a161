//! A node that comes back without a certificate: by the EK that it enrolled with, so many times within a window.
//!
//! Whoever proves to hold that EK *is* that machine, as far as a TPM can say. What is bounded is how often this works
//! without a person noticing: a certificate that gets lost again and again, or a copied virtual TPM that takes the name
//! over again and again, ends at an operator.

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_evidence::appraise::Appraisal;
use edgeward_evidence::verify::VerifiedEvidence;
use edgeward_identity::{SpiffeId, Tier, Timestamp};
use edgeward_wire::v1;

use super::grant::{Admission, Admitted, Occasion, grant};
use super::refusal::{EnrolRefused, WAITING_RETRY_SECONDS};
use crate::hub::{Hub, Member};
use crate::store::Tx;
use crate::store::nodes::{NodeRow, NodeStatus, RootId};
use crate::store::recoveries::RecoveryWait;

/// What was proven, and for whom.
pub(super) struct Returned<'a> {
    pub(super) node: &'a SpiffeId,
    pub(super) root: &'a RootId,
    pub(super) evidence: &'a VerifiedEvidence,
    pub(super) appraisal: &'a Appraisal,
    pub(super) actor: Actor,
    /// Whether the EK certificate counts after its end.
    pub(super) ek_ended: bool,
}

/// By what a recovery goes through, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowance {
    Automatic,
    /// An operator's word, which is spent with it.
    Approved,
    /// It waits for an operator; `first`: from now on.
    Waits {
        first: bool,
    },
}

/// Gives a node its certificate back. Holds [`Hub::changes`] itself.
pub(super) async fn readmit(hub: &Hub, returned: Returned<'_>) -> Result<Admitted, EnrolRefused> {
    let _changes = hub.changes.lock().await;
    let now = hub.clock.now();
    let name = returned.node.name();
    let mut tx = hub.store.begin("enrol.recover").await?;
    let wait = tx.recovery_wait(name).await?;
    let row = check(
        tx.node(name).await?,
        returned.node,
        returned.root,
        returned.evidence.tier(),
        wait.is_some(),
    )?;
    if hub.is_attached(name) {
        return Err(EnrolRefused::Attached);
    }
    let key = returned.evidence.svid_key().spki_hash();
    if tx.is_denied(&key).await? {
        return Err(EnrolRefused::KeyDenied);
    }
    let rule = hub.config.recover;
    let before = tx.recoveries_since(name, now.minus(rule.per)).await?;
    let approved = match allowance(rule.automatic, before, wait) {
        Allowance::Waits { first } => {
            return wait_for_operator(hub, tx, &returned, row, before, first, now).await;
        }
        Allowance::Approved => true,
        Allowance::Automatic => false,
    };
    tx.end_recovery_wait(name).await?;
    let ak = returned
        .evidence
        .tpm()
        .map(|facts| facts.ak().public_bytes().to_vec())
        .unwrap_or_default();
    let new_ak = ak != row.ak;
    let row = NodeRow {
        status: NodeStatus::Active,
        tier: returned.evidence.tier(),
        ak,
        updated: now,
        ..row
    };
    tx.put_node(&row).await?;
    let superseded = tx
        .svids(name, now)
        .await?
        .into_iter()
        .filter(|svid| svid.key_hash != key)
        .map(|svid| (svid.key_hash, svid.not_after))
        .collect();
    metrics::counter!("edgeward_recoveries_total").increment(1);
    let admission = Admission {
        row,
        id: returned.node.clone(),
        evidence: returned.evidence,
        appraisal: returned.appraisal,
        actor: &returned.actor,
        ek_ended: returned.ek_ended,
        occasion: Occasion::Recovery {
            approved,
            before,
            new_ak,
        },
        superseded,
    };
    grant(hub, tx, admission, now).await
}

/// Whether this machine is the node that it says it is, and may come back at all.
fn check(
    row: Option<NodeRow>,
    node: &SpiffeId,
    root: &RootId,
    tier: Tier,
    waits: bool,
) -> Result<NodeRow, EnrolRefused> {
    let row = row
        .filter(|row| row.status != NodeStatus::Removed)
        .ok_or_else(|| EnrolRefused::RecoverUnknown(node.name().to_owned()))?;
    if row.root != *root {
        return Err(EnrolRefused::RecoverOtherEk(row.name));
    }
    // Best first: what is greater is worse.
    if tier > row.tier {
        return Err(EnrolRefused::TierLower {
            had: row.tier,
            has: tier,
        });
    }
    match row.status {
        NodeStatus::Active => Ok(row),
        NodeStatus::Pending if waits => Ok(row),
        status => Err(EnrolRefused::Status(status)),
    }
}

fn allowance(automatic: u32, before: u32, wait: Option<RecoveryWait>) -> Allowance {
    match wait {
        Some(RecoveryWait { approved: true, .. }) => Allowance::Approved,
        Some(_) => Allowance::Waits { first: false },
        None if before < automatic => Allowance::Automatic,
        None => Allowance::Waits { first: true },
    }
}

async fn wait_for_operator(
    hub: &Hub,
    mut tx: Tx,
    returned: &Returned<'_>,
    row: NodeRow,
    before: u32,
    first: bool,
    now: Timestamp,
) -> Result<Admitted, EnrolRefused> {
    let id = returned.node;
    let pending = v1::EnrolPending {
        node: id.to_string(),
        retry_seconds: WAITING_RETRY_SECONDS,
    };
    if !first {
        return Ok(Admitted::Pending(pending));
    }
    tracing::warn!(node = %id, before, "automatic recoveries are used up: an operator must approve the next");
    let row = NodeRow {
        status: NodeStatus::Pending,
        updated: now,
        ..row
    };
    tx.put_node(&row).await?;
    let wait = RecoveryWait {
        since: now,
        approved: false,
    };
    tx.put_recovery_wait(id.name(), wait).await?;
    let event = Event::new(now, returned.actor.clone(), EventKind::NodeWaits)
        .subject(id.clone())
        .denied("recoveries_used_up")
        .detail("recoveries_before", before)
        .detail("automatic", hub.config.recover.automatic);
    hub.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    let known = hub.member(id.name());
    let mut member = Member::new(
        id.clone(),
        row,
        known.as_ref().map(|member| member.standing.clone()),
    );
    if let Some(known) = known {
        (member.keys, member.key) = (known.keys, known.key);
    }
    hub.put_member(member);
    Ok(Admitted::Pending(pending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_allowance_each_recovery_waits_for_a_word_of_its_own() {
        let wait = |approved| {
            Some(RecoveryWait {
                since: Timestamp::default(),
                approved,
            })
        };
        assert_eq!(allowance(0, 0, None), Allowance::Waits { first: true });
        assert_eq!(allowance(3, 2, None), Allowance::Automatic);
        assert_eq!(allowance(3, 3, None), Allowance::Waits { first: true });
        // Time that passes does not take the question back from the operator.
        assert_eq!(
            allowance(3, 0, wait(false)),
            Allowance::Waits { first: false }
        );
        assert_eq!(allowance(3, 9, wait(true)), Allowance::Approved);
    }
}
