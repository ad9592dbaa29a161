//! A TPM that leads nowhere, with a token that needs approval anyway: it waits for an operator instead of being refused.
//!
//! Nothing about it is believed and nothing is granted: what is written is a name, and the EK that claims it. Approval puts
//! that EK on the allow-list; the machine's next attempt then proves everything as any other does.

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_evidence::Digest;
use edgeward_evidence::ek::EkRefused;
use edgeward_identity::{Kind, SpiffeId, Tier, Timestamp};
use edgeward_wire::v1;

use super::grant::Admitted;
use super::refusal::{EnrolRefused, PENDING_RETRY_SECONDS};
use super::token;
use crate::audit::RecordFault;
use crate::hub::{Hub, Member};
use crate::store::Tx;
use crate::store::eks::{EkList, ListedEk};
use crate::store::nodes::{MAX_NODES, NodeRow, NodeStatus, RootId};
use crate::store::tokens::TokenRow;

/// What a machine says of itself, kept for the case that nobody vouches for its EK.
pub(super) struct Claimed {
    ek_public: Vec<u8>,
    wanted_name: String,
}

struct Unknown<'a> {
    token: &'a TokenRow,
    ek: Digest,
    wanted_name: &'a str,
    actor: Actor,
}

impl Claimed {
    pub(super) fn of(begin: &v1::EnrolBegin) -> Self {
        Self {
            ek_public: match &begin.root {
                Some(v1::enrol_begin::Root::Tpm(claims)) => claims.ek_public.clone(),
                _ => Vec::new(),
            },
            wanted_name: begin.wanted_name.clone(),
        }
    }

    /// Lets the machine wait if that is all that its refusal leaves: its EK leads nowhere, and nothing else is wrong.
    pub(super) async fn wait(
        &self,
        hub: &Hub,
        token: &TokenRow,
        refused: EnrolRefused,
        actor: Actor,
    ) -> Result<Admitted, EnrolRefused> {
        let ek = match &refused {
            EnrolRefused::Ek(EkRefused::NotListed(ek)) => *ek,
            EnrolRefused::Ek(EkRefused::ChainUntrusted) => Digest::of(&self.ek_public),
            _ => return Err(refused),
        };
        let unknown = Unknown {
            token,
            ek,
            wanted_name: &self.wanted_name,
            actor,
        };
        wait(hub, unknown).await
    }
}

/// Writes the machine down as pending, once for each use of the token.
async fn wait(hub: &Hub, unknown: Unknown<'_>) -> Result<Admitted, EnrolRefused> {
    let _changes = hub.changes.lock().await;
    let now = hub.clock.now();
    let root = RootId::of_ek(&unknown.ek.to_string());
    let mut tx = hub.store.begin("enrol.wait").await?;
    let used = tx.token_use(&unknown.token.id, root.as_str()).await?;
    let mine = tx.node_of_root(&root).await?;
    let waiting = mine.as_ref().is_some_and(|node| {
        // Approved a moment ago, and the allow-list has not been read again.
        let approved = node.status == NodeStatus::Active && node.ak.is_empty();
        node.token == unknown.token.id && (node.status == NodeStatus::Pending || approved)
    });
    token::check_use(unknown.token, &root, used.as_ref(), waiting, now)?;
    let id = match (&used, &mine) {
        (Some(used), Some(_)) if waiting => {
            SpiffeId::new(&hub.config.trust_domain, Kind::Node, &used.node)
                .map_err(|_| EnrolRefused::Name(used.node.clone()))?
        }
        // Known as something else, or used up: approval is not the way.
        (_, Some(mine)) => return Err(EnrolRefused::OtherName(mine.name.clone())),
        (Some(_), None) => return Err(EnrolRefused::TokenUsed),
        (None, None) => begin(hub, &mut tx, &unknown, &root, now).await?,
    };
    tx.commit().await?;
    if let Some(row) = hub.store.node(id.name()).await?
        && !waiting
    {
        hub.put_member(Member::new(id.clone(), row, None));
    }
    Ok(Admitted::Pending(v1::EnrolPending {
        node: id.to_string(),
        retry_seconds: PENDING_RETRY_SECONDS,
    }))
}

async fn begin(
    hub: &Hub,
    tx: &mut Tx,
    unknown: &Unknown<'_>,
    root: &RootId,
    now: Timestamp,
) -> Result<SpiffeId, EnrolRefused> {
    let token = unknown.token;
    let id = token::choose_name(token, unknown.wanted_name, &hub.config.trust_domain)?;
    let known = tx.node(id.name()).await?;
    let v4 = match known {
        Some(known) if known.status != NodeStatus::Removed => {
            return Err(EnrolRefused::NameTaken(known.name));
        }
        Some(known) => known.v4,
        None if tx.count_nodes().await? >= MAX_NODES => return Err(EnrolRefused::FleetFull),
        None => tx.free_v4().await?.ok_or(EnrolRefused::FleetFull)?,
    };
    if !tx
        .consume_token(&token.id, root.as_str(), id.name(), now)
        .await?
    {
        return Err(EnrolRefused::TokenUsed);
    }
    tx.put_node(&NodeRow {
        name: id.name().to_owned(),
        status: NodeStatus::Pending,
        tier: Tier::Listed,
        root: root.clone(),
        ak: Vec::new(),
        labels: token.labels.clone(),
        v4,
        token: token.id.clone(),
        enrolled: now,
        updated: now,
    })
    .await?;
    let event = Event::new(now, unknown.actor.clone(), EventKind::TokenUsed)
        .subject(id.clone())
        .allowed()
        .detail("token", &token.id)
        .detail("root", root.as_str())
        .detail("waits", "unknown ek");
    hub.audit.record_in(tx, event).await?;
    Ok(id)
}

/// What approval of a pending node adds: its EK is allowed, where nobody else vouched for it.
pub(crate) async fn allow_on_approval(
    hub: &Hub,
    tx: &mut Tx,
    row: &NodeRow,
    by: &Actor,
    now: Timestamp,
) -> Result<(), RecordFault> {
    // A pending node that proved itself has an AK.
    let Some(ek) = row.root.ek().filter(|_| row.ak.is_empty()) else {
        return Ok(());
    };
    let Ok(digest) = ek.parse() else {
        return Ok(());
    };
    tx.put_ek(&ListedEk {
        digest,
        list: EkList::Allowed,
        note: format!("approved as {}", row.name),
        added: now,
        added_by: by.to_string(),
    })
    .await?;
    let event = Event::new(now, by.clone(), EventKind::EkListed)
        .detail("ek", digest)
        .detail("list", EkList::Allowed.as_str())
        .detail("note", format!("approved as {}", row.name));
    hub.audit.record_in(tx, event).await?;
    Ok(())
}
