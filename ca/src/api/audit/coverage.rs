//! Whether the record is complete, and who has taken note of what is lost.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use edgeward_audit::event::{Event, EventKind};
use edgeward_audit::query::CoverageCursor;
use edgeward_audit::record::BootId;
use edgeward_identity::{Kind, SpiffeId};

use super::super::extract::{Body, Pairs};
use super::super::problem::Problem;
use super::super::views::{
    CoverageReport, CoverageView, FaultView, LossRequest, LossView, ProblemView,
};
use super::{Api, Cloud, note_read};
use crate::access::Principal;
use crate::store::audit::{Fault, LossNote, StoredJournal};

/// Most journals in one answer.
const MAX_JOURNALS: u32 = 10_000;
/// Longest reason, in bytes.
const MAX_REASON_BYTES: usize = 400;

/// What was asked.
struct Asked {
    node: Option<SpiffeId>,
    after: Option<CoverageCursor>,
    limit: u32,
}

/// Ask how complete the record is: for each boot of each node the range without gaps, and what is wrong. By pages: go on with
/// `cursor` while there is `more`.
#[utoipa::path(get, path = "/api/v1/audit/coverage", tag = "audit", operation_id = "audit_coverage",
    params(
        ("node" = Option<String>, Query, description = "Name or SPIFFE ID"),
        ("limit" = Option<u32>, Query, description = "Most boots in a page: 1 to 10000, which is also the default"),
        ("cursor" = Option<String>, Query, description = "Of the page before")),
    responses((status = 200, body = CoverageReport), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(crate) async fn coverage(
    State(api): Cloud,
    caller: Principal,
    Pairs(pairs): Pairs,
) -> Result<Json<CoverageReport>, Problem> {
    let asked = asked(&api, &pairs)?;
    let node = asked.node.as_ref();
    let after = asked.after.as_ref();
    let after = after.map(|after| (after.node.to_string(), after.boot.to_string()));
    let after = after
        .as_ref()
        .map(|(node, boot)| (node.as_str(), boot.as_str()));
    let mut journals = api
        .store
        .journals_behind(node, after, asked.limit.saturating_add(1))
        .await?;
    let limit = usize::try_from(asked.limit).unwrap_or(usize::MAX);
    let more = journals.len() > limit;
    journals.truncate(limit);
    let faulty = api.store.boots_with_faults(node).await?;
    let mut faults: BTreeMap<BootId, Vec<Fault>> = BTreeMap::new();
    for journal in &journals {
        if faulty.contains(&(journal.node.to_string(), journal.boot.to_string())) {
            let found = api
                .store
                .faults_of_boot(&journal.node, journal.boot)
                .await?;
            faults.insert(journal.boot, found);
        }
    }
    // With the first page, once.
    let unknown = match asked.after {
        None => {
            api.store
                .faults_of_unknown_boots(node, MAX_JOURNALS)
                .await?
        }
        Some(_) => Vec::new(),
    };
    let counts = api.store.fault_counts(node).await?;
    note_read(&api, &caller, "audit", &pairs).await?;
    let cursor = journals.last().filter(|_| more).map(|last| CoverageCursor {
        node: last.node.clone(),
        boot: last.boot,
    });
    Ok(Json(CoverageReport {
        complete: counts == Default::default(),
        open: counts.open,
        lost: counts.lost,
        acknowledged: counts.acknowledged,
        items: journals
            .into_iter()
            .map(|journal| journal_view(journal, &faults))
            .collect(),
        unknown_boots: unknown.iter().map(fault_view).collect(),
        cursor: cursor.map(|cursor| cursor.to_string()),
        more,
        minimum_index: api.store.minimum_index().await?,
    }))
}

/// Take note that records are lost for good: the node has signed that it does not have them any more. They stay missing; who
/// took note, and why, stands beside.
#[utoipa::path(post, path = "/api/v1/audit/coverage/acknowledge", tag = "audit", operation_id = "audit_loss_acknowledge", request_body = LossRequest,
    responses((status = 200, body = FaultView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(crate) async fn acknowledge(
    State(api): Cloud,
    caller: Principal,
    Body(request): Body<LossRequest>,
) -> Result<Json<FaultView>, Problem> {
    let node = keeper_of(&api, &request.node)?;
    let boot: BootId = request
        .boot
        .parse()
        .map_err(|_| Problem::bad_request("loss_malformed", "boot is 32 hex digits"))?;
    let reason = request.reason.trim();
    if reason.is_empty() || reason.len() > MAX_REASON_BYTES {
        return Err(Problem::bad_request(
            "loss_malformed",
            format!("a reason has 1 to {MAX_REASON_BYTES} bytes"),
        ));
    }
    let now = api.now();
    let mut tx = api.store.begin("audit.acknowledge").await?;
    let found = tx.missing_from(&node, boot, request.first_seq).await?;
    let mut found = found.ok_or_else(|| {
        Problem::not_found("no records are missing of this boot from this number on")
    })?;
    if found.fault.lost.is_none() {
        return Err(Problem::conflict(
            "not_lost",
            "the node has not said that it does not have these records any more: they may still come",
        ));
    }
    let note = LossNote {
        at: now,
        operator: caller.actor().to_string(),
        reason: reason.to_owned(),
    };
    tx.note_loss(&found.fault, &note).await?;
    let event = Event::new(now, caller.actor().clone(), EventKind::JournalAcknowledged)
        .subject(node)
        .detail("boot", boot)
        .detail("first_seq", found.fault.first_seq)
        .detail("last_seq", found.fault.last_seq)
        .detail("reason", reason);
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    found.note = Some(note);
    Ok(Json(fault_view(&found)))
}

fn asked(api: &Api, pairs: &[(String, String)]) -> Result<Asked, Problem> {
    let malformed = |why: &str| Problem::bad_request("query_malformed", why);
    let (mut node, mut after, mut limit) = (None, None, None);
    for (key, value) in pairs {
        let is_new = match key.as_str() {
            "node" => node.replace(keeper_of(api, value)?).is_none(),
            "cursor" => {
                let place = value
                    .parse()
                    .map_err(|_| malformed("not a cursor of coverage"))?;
                after.replace(place).is_none()
            }
            "limit" => {
                let number = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=MAX_JOURNALS).contains(limit))
                    .ok_or_else(|| malformed("limit is 1 to 10000"))?;
                limit.replace(number).is_none()
            }
            _ => false,
        };
        if !is_new {
            return Err(malformed(
                "only node, limit and cursor may be given, each once",
            ));
        }
    }
    Ok(Asked {
        node,
        after,
        limit: limit.unwrap_or(MAX_JOURNALS),
    })
}

fn keeper_of(api: &Api, text: &str) -> Result<SpiffeId, Problem> {
    let id = match text.starts_with("spiffe:") {
        true => text.parse(),
        false => SpiffeId::new(api.keys.trust_domain(), Kind::Node, text),
    };
    id.map_err(|error| Problem::bad_request("query_node", error.to_string()))
}

fn journal_view(journal: StoredJournal, faults: &BTreeMap<BootId, Vec<Fault>>) -> CoverageView {
    let found = faults.get(&journal.boot).map(Vec::as_slice);
    CoverageView {
        faults: found
            .unwrap_or_default()
            .iter()
            .filter(|fault| fault.fault.node == journal.node)
            .map(fault_view)
            .collect(),
        node: journal.node.to_string(),
        boot: journal.boot.to_string(),
        last_seq: journal.last_seq,
        head: journal.head.to_string(),
        opened: journal.opened.into(),
        updated: journal.updated.into(),
    }
}

fn fault_view(found: &Fault) -> FaultView {
    let fault = &found.fault;
    FaultView {
        boot: fault.boot.to_string(),
        kind: fault.kind.as_str().to_owned(),
        first_seq: fault.first_seq,
        last_seq: fault.last_seq,
        noticed: fault.noticed.into(),
        lost: fault.lost.map(Into::into),
        resolved: fault.resolved.map(Into::into),
        acknowledged: found.note.as_ref().map(|note| LossView {
            at: note.at.into(),
            by: note.operator.clone(),
            reason: note.reason.clone(),
        }),
    }
}
