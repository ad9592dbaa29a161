//! The policy under which events are kept, the minimum index, and how far the archive is.

use axum::Json;
use axum::extract::State;
use edgeward_audit::block::BLOCK_LEAVES;
use edgeward_audit::segment::SEGMENT_BLOCKS;

use super::problem::Problem;
use super::views::{ArchiveView, ProblemView, RetentionView};
use super::{Api, Cloud};
use crate::config::retention::Archive;
use crate::retention::{Holder, outlook};

/// Show the retention policy in force, the smallest index that is kept, what keeps the next segment, and the archive.
#[utoipa::path(get, path = "/api/v1/audit/log/retention", tag = "audit", operation_id = "audit_log_retention",
    responses((status = 200, body = RetentionView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(State(api): Cloud) -> Result<Json<RetentionView>, Problem> {
    let retention = &api.settings.retention;
    let exports = api.settings.exports.iter();
    let exports: Vec<&str> = exports.map(|export| export.name.as_str()).collect();
    let leaves = u64::from(SEGMENT_BLOCKS) * BLOCK_LEAVES;
    let outlook = outlook(&api.store, retention, &exports, leaves, api.now()).await?;
    let pruned = api.store.pruned().await?;
    let archive = match &retention.archive {
        Some(archive) => Some(archive_view(&api, archive).await?),
        None => None,
    };
    // What is due and not gone waits for the next look, or for an archive that does not hold it.
    let is_due = outlook.possible > outlook.minimum;
    let is_away = archive
        .as_ref()
        .is_some_and(|archive| archive.error.is_some());
    let held_by = match is_due && is_away {
        true => Holder::Archive,
        false => outlook.held_by,
    };
    Ok(Json(RetentionView {
        policy: retention.describe(),
        keep_seconds: retention.keep.map(|keep| keep.as_secs()),
        minimum_index: outlook.minimum,
        pruned: pruned.as_ref().map(|pruned| pruned.when.into()),
        pruned_under: pruned.map(|pruned| pruned.policy),
        held_by: held_by.to_string(),
        archive,
    }))
}

async fn archive_view(api: &Api, archive: &Archive) -> Result<ArchiveView, Problem> {
    let to = archive.describe();
    let row = api.store.archive(&to).await?;
    let covered = *api.audit.covered().borrow();
    let next = row.as_ref().map_or(0, |row| row.next);
    let failing = row.as_ref().and_then(|row| row.failing.clone());
    Ok(ArchiveView {
        to,
        state: match (&row, &failing) {
            (_, Some(_)) => "failing",
            (Some(row), None) if row.segments > 0 => "writing",
            _ => "waiting",
        }
        .to_owned(),
        next_index: next,
        behind: covered.saturating_sub(next),
        segments: row.as_ref().map_or(0, |row| row.segments),
        bytes: row.as_ref().map_or(0, |row| row.bytes),
        failing_since: failing.as_ref().map(|(_, since)| (*since).into()),
        error: failing.map(|(error, _)| error),
        updated: row.map(|row| row.updated.into()),
    })
}
