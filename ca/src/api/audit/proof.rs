//! The proof that an event is in the log, as one text.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use edgeward_audit::log_proof::{FILE_EXTENSION, LogProof};

use super::super::extract::Named;
use super::super::problem::Problem;
use super::super::views::ProblemView;
use super::events::{Found, stored_at};
use super::{Cloud, note_read};
use crate::access::Principal;

/// Prove that an event is in the log: a .tlog-proof (C2SP tlog-proof) under the newest checkpoint, or one that witnesses
/// cosigned. Its extra data is the record, whose hash is the entry: the text alone can be verified offline. Of an event
/// that was erased there is no record; the proof is of its hash, for whoever kept the record.
#[utoipa::path(get, path = "/api/v1/audit/events/{index}/proof", tag = "audit", operation_id = "audit_proof",
    params(("index" = u64, Path, description = "Its place in the log")),
    responses((status = 200, body = String, content_type = "text/plain; charset=utf-8"),
        (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(crate) async fn proof(
    State(api): Cloud,
    caller: Principal,
    Named(index): Named<String>,
) -> Result<Response, Problem> {
    let (index, record) = match stored_at(&api, &index).await? {
        Found::Event(event) => (event.index, Some(event.record.into_bytes())),
        // What is left of it is its hash, which is what is proven.
        Found::Erased(index) => (index, None),
    };
    let least = index.saturating_add(1);
    let checkpoint = super::super::audit_log::cosigned(&api, least).await?;
    if index >= checkpoint.size {
        return Err(Problem::conflict(
            "not_covered",
            "no checkpoint covers the event yet: the next does, within two seconds",
        ));
    }
    let hashes = api
        .store
        .inclusion(index, checkpoint.size)
        .await
        .map_err(|fault| Problem::internal(&fault))?;
    let proof = LogProof {
        index,
        hashes,
        checkpoint: checkpoint.note,
        extra: record,
    };
    note_read(&api, &caller, &format!("audit:{index}"), &[]).await?;
    let file = format!("attachment; filename=\"{index}.{FILE_EXTENSION}\"");
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (CONTENT_DISPOSITION, file),
    ];
    Ok((StatusCode::OK, headers, proof.to_string()).into_response())
}
