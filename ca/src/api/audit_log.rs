//! The log in its public form (C2SP tlog-tiles): checkpoint, tiles, bundles of entries, and the key under which to read them.
//!
//! Everything here is hashes; who read them is noted once an hour, not with each of the many requests of one reading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use edgeward_audit::event::{Event, EventKind};
use edgeward_audit::tiles::{Row, TILE_WIDTH, Tile, put_entry};
use edgeward_identity::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{Named, Pairs};
use super::problem::Problem;
use super::views::{ProblemView, SelfCheckAsked, SelfCheckView};
use super::{Api, Cloud};
use crate::access::Principal;
use crate::audit::Published;
use crate::keys::notes::log_origin;
use crate::store::witness::{Cosigned, with_lines};

/// A checkpoint is good for as long as a round takes.
const MUTABLE: HeaderValue = HeaderValue::from_static("no-cache");
/// A tile never changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// How long one note of a reader stands for all of its requests.
const NOTE_EVERY: Duration = Duration::from_secs(3600);
/// Most readers that are remembered; beyond, each request is noted.
const MAX_READERS: usize = 1024;

/// Who reads the log, and when that was noted last.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<BTreeMap<String, Timestamp>>);

/// Who signs the log's checkpoints.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct LogKeyView {
    /// The log's name: the first line of its checkpoints.
    pub origin: String,
    /// The key as C2SP signed-note writes it.
    pub verifier: String,
    /// The same two, signed for members by the log key that the trust domain's key set names (hex).
    pub statement: String,
}

/// How far behind the newest checkpoint one may be that more witnesses have cosigned.
const MAX_BEHIND: Duration = Duration::from_secs(600);

/// The newest checkpoint of the audit log: size and root of its tree, as a signed note (C2SP tlog-checkpoint), with the
/// cosignatures of witnesses that came so far.
#[utoipa::path(get, path = "/api/v1/audit/log/checkpoint", tag = "audit", operation_id = "audit_log_checkpoint",
    params(("cosigned" = Option<bool>, Query, description = "true: of the last ten minutes' checkpoints the one that most witnesses cosigned")),
    responses((status = 200, body = String, content_type = "text/plain; charset=utf-8"),
        (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn checkpoint(
    State(api): Cloud,
    caller: Principal,
    Pairs(query): Pairs,
) -> Result<Response, Problem> {
    let wants_cosigned = match query.as_slice() {
        [] => false,
        [(name, value)] if name == "cosigned" && value == "true" => true,
        [(name, value)] if name == "cosigned" && value == "false" => false,
        _ => {
            return Err(Problem::bad_request(
                "query_malformed",
                "only cosigned=true or false",
            ));
        }
    };
    let note = match wants_cosigned {
        true => cosigned(&api, 0).await?.note,
        false => {
            let newest = newest(&api)?;
            let lines = api.store.cosignatures(newest.size).await?;
            with_lines(&newest.note, &lines)
        }
    };
    note_read(&api, &caller);
    let headers = [(CONTENT_TYPE, TEXT), (CACHE_CONTROL, MUTABLE)];
    Ok((headers, note).into_response())
}

/// A tile of the audit log's tree, or a bundle of its entries (C2SP tlog-tiles): `tile/<L>/<N>[.p/<W>]` with hashes,
/// `tile/entries/<N>[.p/<W>]` with the hashes of records.
#[utoipa::path(get, path = "/api/v1/audit/log/tile/{*tile}", tag = "audit", operation_id = "audit_log_tile",
    params(("tile" = String, Path, description = "As in `0/x001/234.p/56` or `entries/000`")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn tile(
    State(api): Cloud,
    caller: Principal,
    Named(path): Named<String>,
) -> Result<Response, Problem> {
    let none = || Problem::new(StatusCode::NOT_FOUND, "no_such_tile", "no such tile");
    let tile: Tile = format!("tile/{path}").parse().map_err(|_| none())?;
    let size = newest(&api)?.size;
    // No wider than a checkpoint that was shown: what is beyond it could still be another tree.
    let reaches = Tile::in_tree(tile.row(), tile.index(), size)
        .is_some_and(|whole| whole.width() >= tile.width());
    if !reaches {
        return Err(none());
    }
    let bytes = match tile.row() {
        Row::Level(level) => hashes(&api, level, &tile).await?,
        Row::Entries => {
            let minimum = api.store.minimum_index().await?;
            if tile.index().saturating_mul(u64::from(TILE_WIDTH)) < minimum {
                return Err(Problem::new(
                    StatusCode::GONE,
                    "entries_pruned",
                    format!("entries are kept from index {minimum} on"),
                ));
            }
            entries(&api, &tile).await?
        }
    }
    .ok_or_else(none)?;
    note_read(&api, &caller);
    let headers = [(CONTENT_TYPE, BYTES), (CACHE_CONTROL, IMMUTABLE)];
    Ok((headers, bytes).into_response())
}

/// The key that signs the audit log's checkpoints, signed for members of the trust domain.
#[utoipa::path(get, path = "/api/v1/audit/log/key", tag = "audit", operation_id = "audit_log_key",
    responses((status = 200, body = LogKeyView),
        (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn key(State(api): Cloud) -> Result<Json<LogKeyView>, Problem> {
    let statement = api
        .keys
        .log_key_statement(api.now())
        .map_err(|fault| Problem::internal(&fault))?;
    Ok(Json(LogKeyView {
        origin: log_origin(api.keys.trust_domain()),
        verifier: api.keys.checkpoint_verifier().to_string(),
        statement: hex::encode(statement),
    }))
}

/// Ask for a check of the whole log against its signed tree: records, tiles, every kept checkpoint. The answer comes at once.
#[utoipa::path(post, path = "/api/v1/audit/log/self-check", tag = "audit", operation_id = "audit_log_check",
    responses((status = 202, body = SelfCheckAsked),
        (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn check(State(api): Cloud) -> (StatusCode, Json<SelfCheckAsked>) {
    let request = api.audit.log_head().request_check();
    (StatusCode::ACCEPTED, Json(SelfCheckAsked { request }))
}

/// What the last self-check of the log came to: at the start (the newest part), once a day, and when asked for.
#[utoipa::path(get, path = "/api/v1/audit/log/self-check", tag = "audit", operation_id = "audit_log_checked",
    responses((status = 200, body = SelfCheckView),
        (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn checked(State(api): Cloud) -> Result<Json<SelfCheckView>, Problem> {
    let last = api.audit.log_head().last_check().ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "not_checked",
            "the log was not checked yet",
        )
    })?;
    Ok(Json(SelfCheckView {
        answers: last.request,
        begun: last.begun.into(),
        took_ms: u64::try_from(last.took.as_millis()).unwrap_or(u64::MAX),
        from: last.from,
        size: last.size,
        checkpoints: last.checkpoints,
        fault: last.fault.clone(),
    }))
}

/// What may be shown of the log now.
pub(super) fn newest(api: &Api) -> Result<Arc<Published>, Problem> {
    let head = api.audit.log_head();
    head.newest().ok_or_else(|| match head.halted() {
        Some(halt) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "audit_log_halted",
            format!("{}: {halt}", halt.code()),
        ),
        None => Problem::new(
            StatusCode::NOT_FOUND,
            "no_checkpoint",
            "no checkpoint was signed yet; try again in a second",
        ),
    })
}

/// A checkpoint of `least` events or more, cosigned by as many witnesses as there is one of in the last ten minutes; the
/// newest where none is cosigned.
pub(super) async fn cosigned(api: &Api, least: u64) -> Result<Cosigned, Problem> {
    let newest = newest(api)?;
    let since = newest.signed.minus(MAX_BEHIND);
    // One that is not published yet is none: what covers it is not on disk beside the database.
    let found = api.store.cosigned(least, since).await?;
    if let Some(cosigned) = found.filter(|cosigned| cosigned.size <= newest.size) {
        return Ok(cosigned);
    }
    Ok(Cosigned {
        size: newest.size,
        note: newest.note.clone(),
        signed: newest.signed,
    })
}

async fn hashes(api: &Api, level: u8, tile: &Tile) -> Result<Option<Vec<u8>>, Problem> {
    let at = (level, tile.index());
    let stored = api.store.log_tiles(&BTreeSet::from([at])).await?;
    let hashes = stored
        .get(at)
        .and_then(|hashes| hashes.get(..usize::from(tile.width())));
    Ok(hashes.map(|hashes| {
        hashes
            .iter()
            .flat_map(|hash| hash.as_bytes().iter().copied())
            .collect()
    }))
}

async fn entries(api: &Api, tile: &Tile) -> Result<Option<Vec<u8>>, Problem> {
    let Some(first) = tile.index().checked_mul(u64::from(TILE_WIDTH)) else {
        return Ok(None);
    };
    let leaves = api
        .store
        .leaf_entries(first, u32::from(tile.width()))
        .await?;
    if leaves.entries.len() != usize::from(tile.width()) {
        return Ok(None);
    }
    let mut bundle = Vec::new();
    for entry in &leaves.entries {
        put_entry(&mut bundle, entry.as_bytes()).map_err(|error| Problem::internal(&error))?;
    }
    Ok(Some(bundle))
}

/// Notes who reads, once an hour.
fn note_read(api: &Api, caller: &Principal) {
    let (now, actor) = (api.now(), caller.actor());
    {
        let mut readers = api.log_readers.0.lock();
        readers.retain(|_, noted| now.since(*noted) < NOTE_EVERY);
        let name = actor.to_string();
        if readers.contains_key(&name) {
            return;
        }
        if readers.len() < MAX_READERS {
            readers.insert(name, now);
        }
    }
    let event = Event::new(now, actor.clone(), EventKind::AuditRead)
        .subject("audit-log")
        .allowed();
    api.audit.later(event);
}
