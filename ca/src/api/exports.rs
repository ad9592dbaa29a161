//! Exports of the audit log: how far each receiver has come, and what it refused.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use edgeward_audit::event::{Event, EventKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{Body, Named};
use super::problem::Problem;
use super::views::ProblemView;
use super::{Cloud, Items, items};
use crate::access::Principal;
use crate::config::exports::Export;
use crate::store::exports::{ExportRow, Refused};
use crate::when::When;

/// Most refused events in one answer.
const MAX_SHOWN: u32 = 1000;

/// One export.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExportView {
    pub name: String,
    /// `json`, `ocsf`, `cef`, `rfc5424` or `otlp`; absent where this cloud's configuration names the export no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// `sending`, `failing`, `waiting` (has not begun) or `retired` (configured no more).
    pub state: String,
    /// Index in the log of the last event that the receiver surely has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Covered events that it does not have yet.
    pub behind: u64,
    /// Events given to it, those that were given twice included.
    pub sent: u64,
    /// Events that it refuses.
    pub refused: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<When>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<When>,
}

/// Events that a receiver refused.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RefusedView {
    /// Index in the log.
    pub first: u64,
    pub last: u64,
    /// How many from `first` to `last`.
    pub count: u64,
    pub reason: String,
    pub noticed: When,
    /// Since when it waits to be given once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<When>,
}

/// What is to be given once more.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RetryRequest {
    /// Only what was put aside with this event; absent: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
}

/// How much is given once more.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RetryView {
    pub count: u64,
}

/// List the receivers of the audit log: how far each has come, and what is wrong.
#[utoipa::path(get, path = "/api/v1/audit/exports", tag = "audit", operation_id = "audit_exports",
    responses((status = 200, body = Items<ExportView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): Cloud) -> Result<Json<Items<ExportView>>, Problem> {
    let covered = *api.audit.covered().borrow();
    let mut rows: BTreeMap<String, ExportRow> = api
        .store
        .exports()
        .await?
        .into_iter()
        .map(|row| (row.name.clone(), row))
        .collect();
    let mut views: Vec<ExportView> = api
        .settings
        .exports
        .iter()
        .map(|export| view(Some(export), rows.remove(&export.name), covered))
        .collect();
    views.extend(rows.into_values().map(|row| view(None, Some(row), covered)));
    Ok(items(views))
}

/// List what the receiver of an export refused, newest first. The events are in the log under their index.
#[utoipa::path(get, path = "/api/v1/audit/exports/{name}/refused", tag = "audit", operation_id = "audit_export_refused",
    params(("name" = String, Path)),
    responses((status = 200, body = Items<RefusedView>), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn refused(
    State(api): Cloud,
    Named(name): Named<String>,
) -> Result<Json<Items<RefusedView>>, Problem> {
    let is_known = api
        .settings
        .exports
        .iter()
        .any(|export| export.name == name);
    if !is_known
        && !api
            .store
            .exports()
            .await?
            .iter()
            .any(|row| row.name == name)
    {
        return Err(Problem::not_found("no export of this name"));
    }
    let rows = api.store.export_refused(&name, MAX_SHOWN).await?;
    Ok(items(rows.into_iter().map(refused_view).collect()))
}

/// Have what a receiver refused given to it once more, as when its rules were changed. What it takes is put aside no longer.
#[utoipa::path(post, path = "/api/v1/audit/exports/{name}/retry", tag = "audit", operation_id = "audit_export_retry", params(("name" = String, Path)), request_body = RetryRequest,
    responses((status = 200, body = RetryView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn retry(
    State(api): Cloud,
    caller: Principal,
    Named(name): Named<String>,
    Body(request): Body<RetryRequest>,
) -> Result<Json<RetryView>, Problem> {
    if !api
        .settings
        .exports
        .iter()
        .any(|export| export.name == name)
    {
        return Err(Problem::not_found("no export of this name is configured"));
    }
    let now = api.now();
    let mut tx = api.store.begin("export.retry").await?;
    let count = tx.retry_refused(&name, request.index, now).await?;
    if count == 0 {
        return Err(Problem::not_found(
            "nothing of it is put aside for this export",
        ));
    }
    let mut event = Event::new(now, caller.actor().clone(), EventKind::ExportRetried)
        .subject(format!("export/{name}").as_str())
        .detail("count", count);
    if let Some(index) = request.index {
        event = event.detail("index", index);
    }
    api.audit.record_in(&mut tx, event).await?;
    tx.commit().await?;
    Ok(Json(RetryView { count }))
}

fn view(export: Option<&Export>, row: Option<ExportRow>, covered: u64) -> ExportView {
    let state = match (&export, &row) {
        (None, _) => "retired",
        (Some(_), None) => "waiting",
        (Some(_), Some(row)) if row.failing.is_some() => "failing",
        (Some(_), Some(_)) => "sending",
    };
    let position = row.as_ref().and_then(|row| row.position);
    let done = position.map_or(0, |position| position.saturating_add(1));
    let name = match (&export, &row) {
        (Some(export), _) => export.name.clone(),
        (None, Some(row)) => row.name.clone(),
        (None, None) => String::new(),
    };
    ExportView {
        name,
        format: export.map(|export| export.format.as_str().to_owned()),
        to: export.map(|export| export.to.describe()),
        state: state.to_owned(),
        position,
        behind: covered.saturating_sub(done),
        sent: row.as_ref().map_or(0, |row| row.sent),
        refused: row.as_ref().map_or(0, |row| row.refused),
        updated: row.as_ref().map(|row| row.updated.into()),
        failing_since: row
            .as_ref()
            .and_then(|row| row.failing.as_ref())
            .map(|(_, since)| (*since).into()),
        error: row.and_then(|row| row.failing).map(|(error, _)| error),
    }
}

fn refused_view(row: Refused) -> RefusedView {
    RefusedView {
        first: row.first,
        last: row.last,
        count: row.count,
        reason: row.reason,
        noticed: row.noticed.into(),
        retry: row.retry.map(Into::into),
    }
}
