//! From proof to node: token, node, certificate, result and record in one transaction, or none of them.

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_evidence::appraise::Appraisal;
use edgeward_evidence::verify::VerifiedEvidence;
use edgeward_identity::{Kind, SpiffeId, SpkiHash, Tier, Timestamp};
use edgeward_wire::v1;

use super::grant::{Admission, Admitted, Occasion, grant};
use super::refusal::{EnrolRefused, PENDING_RETRY_SECONDS};
use super::token;
use crate::hub::{Hub, Member};
use crate::store::Tx;
use crate::store::nodes::{MAX_NODES, NodeRow, NodeStatus, RootId, SvidRow};
use crate::store::recoveries::Replacement;
use crate::store::tokens::TokenRow;

/// What was proven, and by which token.
pub(super) struct Proven<'a> {
    pub(super) token_id: &'a str,
    pub(super) root: &'a RootId,
    pub(super) wanted_name: &'a str,
    pub(super) evidence: &'a VerifiedEvidence,
    pub(super) appraisal: &'a Appraisal,
    pub(super) actor: Actor,
    /// Whether the EK certificate counts after its end.
    pub(super) ek_ended: bool,
}

/// Inside the transaction: what was decided.
struct Decided {
    row: NodeRow,
    id: SpiffeId,
    superseded: Vec<(SpkiHash, Timestamp)>,
    first_use: bool,
    /// The node as it was, where this machine takes its name over.
    replaced: Option<NodeRow>,
}

/// Admits a machine. Called with [`Hub::changes`] held by nobody; holds it itself.
pub(super) async fn admit(hub: &Hub, proven: Proven<'_>) -> Result<Admitted, EnrolRefused> {
    let _changes = hub.changes.lock().await;
    let now = hub.clock.now();
    let mut tx = hub.store.begin("enrol.admit").await?;
    let token = tx
        .token(proven.token_id)
        .await?
        .ok_or_else(|| EnrolRefused::TokenUnknown(proven.token_id.to_owned()))?;
    let decided = decide(hub, &mut tx, &token, &proven, now).await?;
    tx.put_node(&decided.row).await?;
    if decided.first_use {
        let event = Event::new(now, proven.actor.clone(), EventKind::TokenUsed)
            .subject(decided.id.clone())
            .allowed()
            .detail("token", &token.id)
            .detail("root", proven.root.as_str());
        hub.audit.record_in(&mut tx, event).await?;
    }
    if decided.row.status == NodeStatus::Pending {
        tx.commit().await?;
        let known = hub.member(&decided.row.name).map(|member| member.standing);
        hub.put_member(Member::new(decided.id.clone(), decided.row, known));
        return Ok(Admitted::Pending(v1::EnrolPending {
            node: decided.id.to_string(),
            retry_seconds: PENDING_RETRY_SECONDS,
        }));
    }
    let Decided {
        row,
        id,
        superseded,
        replaced,
        ..
    } = decided;
    if let Some(before) = replaced {
        let event = Event::new(now, proven.actor.clone(), EventKind::NodeReplaced)
            .subject(id.clone())
            .allowed()
            .detail("token", &token.id)
            .detail("root_before", before.root.as_str())
            .detail("root", row.root.as_str())
            .detail("tier_before", before.tier)
            .detail("tier", row.tier);
        hub.audit.record_in(&mut tx, event).await?;
    }
    // A token is an operator's word too: nothing waits for another one.
    tx.end_recovery_wait(&row.name).await?;
    let admission = Admission {
        row,
        id,
        evidence: proven.evidence,
        appraisal: proven.appraisal,
        actor: &proven.actor,
        occasion: Occasion::Token(proven.token_id),
        ek_ended: proven.ek_ended,
        superseded,
    };
    grant(hub, tx, admission, now).await
}

async fn decide(
    hub: &Hub,
    tx: &mut Tx,
    token: &TokenRow,
    proven: &Proven<'_>,
    now: Timestamp,
) -> Result<Decided, EnrolRefused> {
    let used = tx.token_use(&token.id, proven.root.as_str()).await?;
    let mine = tx.node_of_root(proven.root).await?;
    let svids = match &mine {
        Some(node) => tx.svids(&node.name, now).await?,
        None => Vec::new(),
    };
    let open = mine.as_ref().is_some_and(|node| {
        node.token == token.id
            && svids.is_empty()
            && matches!(node.status, NodeStatus::Pending | NodeStatus::Active)
    });
    token::check_use(token, proven.root, used.as_ref(), open, now)?;
    // A machine that is known to hold the certificate of this token has enrolled, and one that was removed needs a new
    // token: there is nothing to retry.
    if let Some(used) = &used {
        let holds = |svid: &SvidRow| svid.acknowledged && svid.issued >= used.used;
        if mine.is_none() || svids.iter().any(holds) {
            return Err(EnrolRefused::TokenUsed);
        }
    }
    let id = match &used {
        Some(used) => SpiffeId::new(&hub.config.trust_domain, Kind::Node, &used.node)
            .map_err(|_| EnrolRefused::Name(used.node.clone()))?,
        None => token::choose_name(token, proven.wanted_name, &hub.config.trust_domain)?,
    };
    let known = tx.node(id.name()).await?;
    let replacement = tx.replacement(&token.id).await?;
    let replaced = replaced_by(&id, proven, known.as_ref(), replacement.as_ref())?;
    check_names(&id, proven, mine.as_ref(), known.as_ref(), replaced)?;
    let replaced = replaced.cloned();
    let svids = match &replaced {
        Some(before) => tx.svids(&before.name, now).await?,
        None => svids,
    };
    let key = proven.evidence.svid_key().spki_hash();
    if tx.is_denied(&key).await? {
        return Err(EnrolRefused::KeyDenied);
    }
    let first_use = used.is_none();
    if first_use
        && !tx
            .consume_token(&token.id, proven.root.as_str(), id.name(), now)
            .await?
    {
        return Err(EnrolRefused::TokenUsed);
    }
    let had = match tx.recovery_wait(id.name()).await? {
        // It was a node before it had to wait, and this token is the word that it waited for.
        Some(_) => Some(NodeStatus::Active),
        None => mine.as_ref().or(replaced.as_ref()).map(|node| node.status),
    };
    let mut row = row_of(hub, tx, token, proven, &id, (had, known), now).await?;
    if let Some(before) = mine.as_ref().or(replaced.as_ref()) {
        row.enrolled = before.enrolled;
    }
    Ok(Decided {
        row,
        id,
        superseded: svids
            .into_iter()
            .filter(|svid| svid.key_hash != key)
            .map(|svid| (svid.key_hash, svid.not_after))
            .collect(),
        first_use,
        replaced,
    })
}

/// The node whose name this machine takes over with another TPM, where the token allows just that.
fn replaced_by<'a>(
    id: &SpiffeId,
    proven: &Proven<'_>,
    known: Option<&'a NodeRow>,
    replacement: Option<&Replacement>,
) -> Result<Option<&'a NodeRow>, EnrolRefused> {
    let (Some(known), Some(replacement)) = (known, replacement) else {
        return Ok(None);
    };
    if known.name != replacement.node || known.name != id.name() || known.root == *proven.root {
        return Ok(None);
    }
    match known.status {
        NodeStatus::Active | NodeStatus::Pending => {}
        NodeStatus::Removed => return Ok(None),
        status @ NodeStatus::Quarantined => return Err(EnrolRefused::Status(status)),
    }
    check_tier(replacement.least_tier, proven.evidence.tier())?;
    Ok(Some(known))
}

/// A name's tier never falls without a word that says so.
fn check_tier(least: Tier, tier: Tier) -> Result<(), EnrolRefused> {
    // Best first: what is greater is worse.
    match tier > least {
        true => Err(EnrolRefused::TierLower {
            had: least,
            has: tier,
        }),
        false => Ok(()),
    }
}

/// One name, one machine, both ways.
fn check_names(
    id: &SpiffeId,
    proven: &Proven<'_>,
    mine: Option<&NodeRow>,
    known: Option<&NodeRow>,
    replaced: Option<&NodeRow>,
) -> Result<(), EnrolRefused> {
    if let Some(known) = known
        && replaced.is_none()
        && known.status != NodeStatus::Removed
        && known.root != *proven.root
    {
        return Err(EnrolRefused::NameTaken(known.name.clone()));
    }
    match mine {
        Some(mine) if mine.name != id.name() => Err(EnrolRefused::OtherName(mine.name.clone())),
        Some(mine) if mine.status == NodeStatus::Quarantined => {
            Err(EnrolRefused::Status(NodeStatus::Quarantined))
        }
        Some(mine) => check_tier(mine.tier, proven.evidence.tier()),
        None => Ok(()),
    }
}

async fn row_of(
    hub: &Hub,
    tx: &mut Tx,
    token: &TokenRow,
    proven: &Proven<'_>,
    id: &SpiffeId,
    (had, known): (Option<NodeStatus>, Option<NodeRow>),
    now: Timestamp,
) -> Result<NodeRow, EnrolRefused> {
    let waits = token.approval || hub.config.approval;
    let status = match had {
        Some(status) => status,
        None if waits => NodeStatus::Pending,
        None => NodeStatus::Active,
    };
    let v4 = match known {
        Some(known) => known.v4,
        None => {
            if tx.count_nodes().await? >= MAX_NODES {
                return Err(EnrolRefused::FleetFull);
            }
            tx.free_v4().await?.ok_or(EnrolRefused::FleetFull)?
        }
    };
    let ak = proven
        .evidence
        .tpm()
        .map(|facts| facts.ak().public_bytes().to_vec())
        .unwrap_or_default();
    Ok(NodeRow {
        name: id.name().to_owned(),
        status,
        tier: proven.evidence.tier(),
        root: proven.root.clone(),
        ak,
        labels: token.labels.clone(),
        v4,
        token: token.id.clone(),
        enrolled: now,
        updated: now,
    })
}
