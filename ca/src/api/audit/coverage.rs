//! Whether the record is complete.

use axum::Json;
use axum::extract::State;
use edgeward_identity::{Kind, SpiffeId};

use super::super::extract::Pairs;
use super::super::problem::Problem;
use super::super::views::{CoverageReport, CoverageView, FaultView, ProblemView};
use super::{Api, Cloud, note_read};
use crate::access::Principal;
use crate::store::audit::{JournalFault, StoredJournal};

/// Most journals in one coverage report.
const MAX_JOURNALS: u32 = 10_000;

/// Ask how complete the record is: for each boot of each node the range without gaps, and what is wrong.
#[utoipa::path(get, path = "/api/v1/audit/coverage", tag = "audit", operation_id = "audit_coverage",
    params(("node" = Option<String>, Query, description = "Name or SPIFFE ID")),
    responses((status = 200, body = CoverageReport), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(crate) async fn coverage(
    State(api): Cloud,
    caller: Principal,
    Pairs(pairs): Pairs,
) -> Result<Json<CoverageReport>, Problem> {
    let mut node = None;
    for (key, value) in &pairs {
        if key != "node" || node.is_some() {
            return Err(Problem::bad_request(
                "query_malformed",
                "only node may be given, once",
            ));
        }
        node = Some(keeper_of(&api, value)?);
    }
    let journals = api.store.journals(node.as_ref(), MAX_JOURNALS).await?;
    let faults = api
        .store
        .journal_faults(node.as_ref(), MAX_JOURNALS)
        .await?;
    note_read(&api, &caller, "audit", &pairs).await?;
    let complete = faults.iter().all(|fault| fault.resolved.is_some());
    let (known, unknown): (Vec<_>, Vec<_>) = faults.into_iter().partition(|fault| {
        journals
            .iter()
            .any(|journal| journal.node == fault.node && journal.boot == fault.boot)
    });
    Ok(Json(CoverageReport {
        complete,
        items: journals
            .into_iter()
            .map(|journal| journal_view(journal, &known))
            .collect(),
        unknown_boots: unknown.iter().map(fault_view).collect(),
    }))
}

fn keeper_of(api: &Api, text: &str) -> Result<SpiffeId, Problem> {
    let id = match text.starts_with("spiffe:") {
        true => text.parse(),
        false => SpiffeId::new(api.keys.trust_domain(), Kind::Node, text),
    };
    id.map_err(|error| Problem::bad_request("query_node", error.to_string()))
}

fn journal_view(journal: StoredJournal, faults: &[JournalFault]) -> CoverageView {
    CoverageView {
        faults: faults
            .iter()
            .filter(|fault| fault.node == journal.node && fault.boot == journal.boot)
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

fn fault_view(fault: &JournalFault) -> FaultView {
    FaultView {
        boot: fault.boot.to_string(),
        kind: fault.kind.as_str().to_owned(),
        first_seq: fault.first_seq,
        last_seq: fault.last_seq,
        noticed: fault.noticed.into(),
        lost: fault.lost.map(Into::into),
        resolved: fault.resolved.map(Into::into),
    }
}
