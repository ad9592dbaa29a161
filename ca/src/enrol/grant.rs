//! What an admitted machine gets: certificate, result and record, in the transaction that admitted it or not at all.

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_evidence::appraise::{Appraisal, LOG_PENDING};
use edgeward_evidence::verify::VerifiedEvidence;
use edgeward_identity::{AttestationState, SpiffeId, SpkiHash, Timestamp};
use edgeward_wire::v1;

use super::refusal::EnrolRefused;
use crate::hub::{Hub, HubFault, Member};
use crate::issue::{NodeGrant, NodeIssued, lifetime};
use crate::store::Tx;
use crate::store::nodes::{NodeRow, SvidRow};
use crate::store::results::{AttestationRow, Counters};

/// What comes of an attempt.
pub(super) enum Admitted {
    Issued {
        answer: Box<v1::EnrolIssued>,
        node: SpiffeId,
        key: SpkiHash,
    },
    Pending(v1::EnrolPending),
}

/// An admission that was decided and is to be carried out.
pub(super) struct Admission<'a> {
    pub(super) row: NodeRow,
    pub(super) id: SpiffeId,
    pub(super) evidence: &'a VerifiedEvidence,
    pub(super) appraisal: &'a Appraisal,
    pub(super) actor: &'a Actor,
    pub(super) occasion: Occasion<'a>,
    /// Whether the EK certificate counts after its end.
    pub(super) ek_ended: bool,
    /// Keys of earlier certificates: refused from now on.
    pub(super) superseded: Vec<(SpkiHash, Timestamp)>,
}

/// By what right a certificate is given.
pub(super) enum Occasion<'a> {
    Token(&'a str),
    /// The EK alone.
    Recovery {
        /// An operator let it through: it counts against nothing.
        approved: bool,
        /// How many there were within the window before this one.
        before: u32,
        new_ak: bool,
    },
}

impl Occasion<'_> {
    fn grant(&self, id: &SpiffeId, lifetime: std::time::Duration) -> NodeGrant {
        match self {
            Self::Token(token) => NodeGrant::enrolment(id.clone(), token, lifetime),
            Self::Recovery { .. } => NodeGrant::recovery(id.clone(), lifetime),
        }
    }
}

/// Issues, records and commits; then the hub knows. [`Hub::changes`] is held by the caller.
pub(super) async fn grant(
    hub: &Hub,
    mut tx: Tx,
    admission: Admission<'_>,
    now: Timestamp,
) -> Result<Admitted, EnrolRefused> {
    let (issued, standing) = issue(hub, &mut tx, &admission, now).await?;
    let Admission {
        row,
        id,
        superseded,
        ..
    } = admission;
    let deny = match superseded.is_empty() {
        true => None,
        false => {
            tx.deny_keys(&row.name, "superseded", &superseded).await?;
            Some(tx.raise_deny_list(now).await?)
        }
    };
    tx.commit().await?;
    let key = issued.issued.leaf.key.spki_hash();
    let mut member = Member::new(id.clone(), row, Some(standing));
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
    let answer = answer(hub, &id, &issued, result, overlay).await?;
    Ok(Admitted::Issued {
        answer: Box::new(answer),
        node: id,
        key,
    })
}

/// The overlay addresses of a node.
pub(crate) fn overlay_of(member: &Member) -> v1::OverlayAddresses {
    v1::OverlayAddresses {
        ipv6: edgeward_identity::overlay::ipv6_of(&member.id).to_string(),
        ipv4: member.row.v4.to_string(),
    }
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
        authorities: hub.keys.steps(),
    })
}

async fn issue(
    hub: &Hub,
    tx: &mut Tx,
    admission: &Admission<'_>,
    now: Timestamp,
) -> Result<(NodeIssued, AttestationRow), EnrolRefused> {
    let Admission { id, evidence, .. } = admission;
    let lifetimes = hub.lifetimes_with(id, &admission.row);
    let lifetime = lifetime(lifetimes, hub.config.svid_max_lifetime);
    let issued = hub.keys.issuer().issue_node(
        evidence,
        admission.appraisal,
        &admission.occasion.grant(id, lifetime),
        hub.deny_number(),
        now,
    )?;
    let leaf = &issued.issued.leaf;
    let public = match evidence.tpm() {
        Some(facts) => facts.svid().public_bytes().to_vec(),
        None => evidence.svid_key().point().to_vec(),
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
        // Logs follow at the beginning of the session, and decide.
        code: (issued.result.state() == AttestationState::Stale).then(|| LOG_PENDING.to_owned()),
        changed: now,
        passed: Some(now),
        result: Some(signed),
        boot_key: Some(*evidence.boot_key()),
        counters: evidence
            .tpm()
            .map(|facts| Counters::from(facts.clock()))
            .unwrap_or_default(),
        findings: Vec::new(),
    };
    tx.put_attestation(&standing).await?;
    tx.note_issued(&issued.issued, now).await?;
    let event = event(admission, &issued, now);
    if let Occasion::Recovery { approved, .. } = admission.occasion {
        tx.insert_recovery(&leaf.serial, id.name(), now, approved)
            .await?;
    }
    hub.audit.record_in(tx, event).await?;
    Ok((issued, standing))
}

fn event(admission: &Admission<'_>, issued: &NodeIssued, now: Timestamp) -> Event {
    let kind = match admission.occasion {
        Occasion::Token(_) => EventKind::EnrolmentIssued,
        Occasion::Recovery { .. } => EventKind::NodeRecovered,
    };
    let event = Event::new(now, admission.actor.clone(), kind)
        .subject(admission.id.clone())
        .allowed();
    let event = issued
        .issued
        .recorded_in(event)
        .detail("tier", admission.evidence.tier())
        .detail("root", admission.row.root.as_str())
        .detail("state", issued.result.state());
    let event = match admission.ek_ended {
        true => event.detail("ek_ended", true),
        false => event,
    };
    match admission.occasion {
        Occasion::Token(token) => event.detail("token", token),
        Occasion::Recovery {
            approved,
            before,
            new_ak,
        } => event
            .detail("recoveries_before", before)
            .detail("approved", approved)
            .detail("new_ak", new_ak),
    }
}
