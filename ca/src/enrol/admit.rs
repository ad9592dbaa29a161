//! From proof to node: token, node, certificate, result and record in one transaction, or none of them.

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_evidence::appraise::Appraisal;
use edgeward_evidence::verify::VerifiedEvidence;
use edgeward_identity::{Kind, SpiffeId, SpkiHash, Timestamp};
use edgeward_wire::v1;

use super::refusal::{EnrolRefused, PENDING_RETRY_SECONDS};
use super::token;
use crate::hub::{Hub, HubFault, Member};
use crate::issue::{NodeGrant, NodeIssued, lifetime};
use crate::store::Tx;
use crate::store::nodes::{MAX_NODES, NodeRow, NodeStatus, RootId, SvidRow};
use crate::store::results::{AttestationRow, Counters};
use crate::store::tokens::TokenRow;

/// What was proven, and by which token.
pub(super) struct Proven<'a> {
    pub(super) token_id: &'a str,
    pub(super) root: &'a RootId,
    pub(super) wanted_name: &'a str,
    pub(super) evidence: &'a VerifiedEvidence,
    pub(super) appraisal: &'a Appraisal,
    pub(super) actor: Actor,
}

/// What comes of it.
pub(super) enum Admitted {
    Issued {
        answer: Box<v1::EnrolIssued>,
        node: SpiffeId,
        key: SpkiHash,
    },
    Pending(v1::EnrolPending),
}

/// Inside the transaction: what was decided.
struct Decided {
    row: NodeRow,
    id: SpiffeId,
    superseded: Vec<(SpkiHash, Timestamp)>,
    first_use: bool,
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
    let standing = issue(hub, &mut tx, &proven, &decided, now).await?;
    let deny = match decided.superseded.is_empty() {
        true => None,
        false => {
            let name = &decided.row.name;
            tx.deny_keys(name, "superseded", &decided.superseded)
                .await?;
            Some(tx.raise_deny_list(now).await?)
        }
    };
    tx.commit().await?;
    let (issued, standing) = standing;
    let key = issued.issued.leaf.key.spki_hash();
    let mut member = Member::new(decided.id.clone(), decided.row, Some(standing));
    member.keys = hub
        .store
        .live_keys(&member.row.name, now)
        .await
        .map_err(HubFault::from)?;
    member.key = Some(key);
    let overlay = overlay_of(&member);
    let result = member.standing.result.clone().unwrap_or_default();
    hub.put_member(member);
    if let Some(deny) = deny {
        hub.enforce_deny_list(deny).map_err(HubFault::from)?;
    }
    let answer = answer(hub, &decided.id, &issued, result, overlay).await?;
    Ok(Admitted::Issued {
        answer: Box::new(answer),
        node: decided.id,
        key,
    })
}

async fn answer(
    hub: &Hub,
    id: &SpiffeId,
    issued: &NodeIssued,
    result: Vec<u8>,
    overlay: v1::OverlayAddresses,
) -> Result<v1::EnrolIssued, EnrolRefused> {
    let slice = hub.slice(id).await?;
    let chain = &issued.issued.chain;
    Ok(v1::EnrolIssued {
        spiffe_id: id.to_string(),
        svid_chain: chain.iter().map(|der| der.to_vec()).collect(),
        trust_bundle: hub.keys.bundle().to_spiffe_json(),
        key_set: hub.keys.key_set_bytes(),
        deny_list: hub.deny_bytes(),
        result,
        slice: slice.map(|slice| slice.bytes).unwrap_or_default(),
        overlay: Some(overlay),
    })
}

/// The overlay addresses of a node.
pub(crate) fn overlay_of(member: &Member) -> v1::OverlayAddresses {
    v1::OverlayAddresses {
        ipv6: edgeward_identity::overlay::ipv6_of(&member.id).to_string(),
        ipv4: member.row.v4.to_string(),
    }
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
    // A machine that is known to hold its certificate has enrolled, and one that was removed needs a new token: there
    // is nothing to retry.
    if used.is_some() && (mine.is_none() || svids.iter().any(|svid| svid.acknowledged)) {
        return Err(EnrolRefused::TokenUsed);
    }
    let id = match &used {
        Some(used) => SpiffeId::new(&hub.config.trust_domain, Kind::Node, &used.node)
            .map_err(|_| EnrolRefused::Name(used.node.clone()))?,
        None => token::choose_name(token, proven.wanted_name, &hub.config.trust_domain)?,
    };
    let known = tx.node(id.name()).await?;
    check_names(&id, proven.root, mine.as_ref(), known.as_ref())?;
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
    let row = row_of(hub, tx, token, proven, &id, (mine.as_ref(), known), now).await?;
    Ok(Decided {
        row,
        id,
        superseded: svids
            .into_iter()
            .filter(|svid| svid.key_hash != key)
            .map(|svid| (svid.key_hash, svid.not_after))
            .collect(),
        first_use,
    })
}

/// One name, one machine, both ways.
fn check_names(
    id: &SpiffeId,
    root: &RootId,
    mine: Option<&NodeRow>,
    known: Option<&NodeRow>,
) -> Result<(), EnrolRefused> {
    if let Some(known) = known
        && known.status != NodeStatus::Removed
        && known.root != *root
    {
        return Err(EnrolRefused::NameTaken(known.name.clone()));
    }
    match mine {
        Some(mine) if mine.name != id.name() => Err(EnrolRefused::OtherName(mine.name.clone())),
        Some(mine) if mine.status == NodeStatus::Quarantined => {
            Err(EnrolRefused::Status(NodeStatus::Quarantined))
        }
        Some(_) | None => Ok(()),
    }
}

async fn row_of(
    hub: &Hub,
    tx: &mut Tx,
    token: &TokenRow,
    proven: &Proven<'_>,
    id: &SpiffeId,
    (mine, known): (Option<&NodeRow>, Option<NodeRow>),
    now: Timestamp,
) -> Result<NodeRow, EnrolRefused> {
    let waits = token.approval || hub.config.approval;
    let status = match mine {
        Some(mine) => mine.status,
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
        enrolled: mine.map_or(now, |mine| mine.enrolled),
        updated: now,
    })
}

async fn issue(
    hub: &Hub,
    tx: &mut Tx,
    proven: &Proven<'_>,
    decided: &Decided,
    now: Timestamp,
) -> Result<(NodeIssued, AttestationRow), EnrolRefused> {
    let id = &decided.id;
    let lifetimes = hub.lifetimes_with(id, &decided.row);
    let lifetime = lifetime(lifetimes, hub.config.svid_max_lifetime);
    let grant = NodeGrant::enrolment(id.clone(), proven.token_id, lifetime);
    let issued = hub.keys.issuer().issue_node(
        proven.evidence,
        proven.appraisal,
        &grant,
        hub.deny_number(),
        now,
    )?;
    let leaf = &issued.issued.leaf;
    let public = match proven.evidence.tpm() {
        Some(facts) => facts.svid().public_bytes().to_vec(),
        None => proven.evidence.svid_key().point().to_vec(),
    };
    tx.insert_svid(&SvidRow {
        serial: leaf.serial.clone(),
        node: id.name().to_owned(),
        key_hash: leaf.key.spki_hash(),
        public,
        issued: now,
        not_after: leaf.not_after,
        acknowledged: false,
    })
    .await?;
    let signed = hub.sign_result(&issued.result, lifetime, now)?;
    let standing = AttestationRow {
        node: id.name().to_owned(),
        state: issued.result.state(),
        code: None,
        changed: now,
        passed: Some(now),
        result: Some(signed),
        boot_key: Some(*proven.evidence.boot_key()),
        counters: proven
            .evidence
            .tpm()
            .map(|facts| Counters::from(facts.clock()))
            .unwrap_or_default(),
        findings: Vec::new(),
    };
    tx.put_attestation(&standing).await?;
    let event = Event::new(now, proven.actor.clone(), EventKind::EnrolmentIssued)
        .subject(id.clone())
        .allowed()
        .detail("token", proven.token_id)
        .detail("tier", proven.evidence.tier())
        .detail("root", proven.root.as_str())
        .detail("serial", &leaf.serial)
        .detail("state", issued.result.state());
    hub.audit.record_in(tx, event).await?;
    Ok((issued, standing))
}
