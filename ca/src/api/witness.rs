//! The witness: submissions of others' logs (C2SP tlog-witness), and what operators see of both sides.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, body::Bytes};
use edgeward_audit::Digest;
use edgeward_audit::witness::{NotCosigned, SIZE_MEDIA_TYPE};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{Named, Raw};
use super::problem::Problem;
use super::views::ProblemView;
use super::{Api, Cloud};
use crate::serve::Caller;
use crate::store::witness::Witnessed;
use crate::when::When;
use crate::witness::{AskState, NotAdded, Server};

/// Under which witnesses serve here: the submission prefix and the monitoring prefix in one.
pub const PREFIX: &str = "/witness/v0";

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const SIZE: HeaderValue = HeaderValue::from_static(SIZE_MEDIA_TYPE);
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// Both sides of witnessing.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WitnessView {
    /// The key that signs the own log, for those who are to witness it.
    pub log_key: String,
    /// The key with which this cloud cosigns logs of others; absent where it witnesses none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Path of submissions on this cloud's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submissions: Option<String>,
    /// Why it cosigns nothing now: `witness_not_ready` (for a moment after a start), `witness_own_log` (its own log is
    /// halted) or `witness_key_unknown` (its database does not know what the key has cosigned).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// Logs of others that it cosigns.
    pub logs: Vec<WitnessedView>,
    /// Witnesses of the own log.
    pub asked: Vec<AskedView>,
}

/// A log of others.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WitnessedView {
    pub origin: String,
    /// Size of the tree that was cosigned last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosigned: Option<When>,
    /// The note that was cosigned last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The first signed note of another tree of a size that was cosigned, and when it came: the log was signed twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked: Option<When>,
}

/// A witness of the own log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AskedView {
    pub key: String,
    pub url: String,
    /// `cosigning`, `failing`, `disputing` (it says that the log does not continue what it cosigned) or `waiting`.
    pub state: String,
    /// Size of the tree that it cosigned last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosigned: Option<When>,
    /// Covered events that it has not cosigned.
    pub behind: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<When>,
}

/// Submit a checkpoint of a log that this cloud witnesses (C2SP tlog-witness); the answer is its cosignature. Open to
/// everybody, as the protocol has it: what counts is the log's signature.
#[utoipa::path(post, path = "/witness/v0/add-checkpoint", tag = "witness", operation_id = "witness_add_checkpoint",
    request_body(content = String, content_type = "text/plain"),
    responses((status = 200, body = String, content_type = "text/plain; charset=utf-8"),
        (status = 409, body = String, content_type = "text/x.tlog.size"),
        (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn add_checkpoint(
    State(api): Cloud,
    Extension(caller): Extension<Caller>,
    Raw(body): Raw,
) -> Result<Response, Problem> {
    let server = server(&api)?;
    match server.add(caller.remote.ip(), &body).await {
        Ok(line) => Ok(([(CONTENT_TYPE, TEXT)], line).into_response()),
        Err(NotAdded::NotCosigned(NotCosigned::OtherSize(size))) => {
            let size = format!("{size}\n");
            Ok((StatusCode::CONFLICT, [(CONTENT_TYPE, SIZE)], size).into_response())
        }
        Err(refused @ NotAdded::TooOften) => {
            let mut response = problem(refused).into_response();
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            Ok(response)
        }
        Err(refused) => Err(problem(refused)),
    }
}

/// The newest checkpoint of a witnessed log, with the log's signature and this cloud's cosignature (C2SP tlog-witness).
#[utoipa::path(get, path = "/witness/v0/{origin}/checkpoint", tag = "witness", operation_id = "witness_checkpoint",
    params(("origin" = String, Path, description = "SHA-256 of the log's name, in lower-case hex")),
    responses((status = 200, body = String, content_type = "text/plain; charset=utf-8"),
        (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn checkpoint(
    State(api): Cloud,
    Named(hash): Named<String>,
) -> Result<Response, Problem> {
    let server = server(&api)?;
    let named = server
        .origins()
        .find(|origin| Digest::of(&[origin.as_bytes()]).to_string() == hash);
    let note = match named {
        Some(origin) => server.newest(origin).await?,
        None => None,
    };
    let note = note.ok_or_else(|| {
        let why = "no checkpoint of such a log was cosigned here";
        Problem::new(StatusCode::NOT_FOUND, "witness_unknown_log", why)
    })?;
    let headers = [(CONTENT_TYPE, TEXT), (CACHE_CONTROL, NO_CACHE)];
    Ok((headers, Bytes::from(note)).into_response())
}

/// Show witnessing: whose logs this cloud cosigns, and what the witnesses of its own log have cosigned.
#[utoipa::path(get, path = "/api/v1/audit/witness", tag = "audit", operation_id = "audit_witness",
    responses((status = 200, body = WitnessView),
        (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(State(api): Cloud) -> Result<Json<WitnessView>, Problem> {
    let server = api.witness.server.as_ref();
    let mut logs = Vec::new();
    for origin in server.into_iter().flat_map(Server::origins) {
        let row = api.store.witnessed(origin).await?;
        logs.push(witnessed(origin, row));
    }
    let covered = *api.audit.covered().borrow();
    let states = api.witness.asking.states();
    Ok(Json(WitnessView {
        log_key: api.keys.checkpoint_verifier().to_string(),
        key: server.map(|server| server.key().to_string()),
        submissions: server.map(|_| PREFIX.to_owned()),
        stopped: server
            .and_then(Server::forgetful)
            .map(|forgetful| forgetful.code().to_owned()),
        logs,
        asked: states
            .into_iter()
            .map(|state| asked(state, covered))
            .collect(),
    }))
}

fn server(api: &Arc<Api>) -> Result<&Server, Problem> {
    api.witness.server.as_ref().ok_or_else(|| {
        let why = "this cloud witnesses no log of others";
        Problem::new(StatusCode::NOT_FOUND, "witness_unknown_log", why)
    })
}

fn problem(refused: NotAdded) -> Problem {
    let status = match &refused {
        NotAdded::TooOften => StatusCode::TOO_MANY_REQUESTS,
        NotAdded::Malformed(_) | NotAdded::NotCosigned(NotCosigned::OldAbove { .. }) => {
            StatusCode::BAD_REQUEST
        }
        NotAdded::UnknownLog => StatusCode::NOT_FOUND,
        NotAdded::NotSigned(_) => StatusCode::FORBIDDEN,
        NotAdded::NotCosigned(_) => StatusCode::UNPROCESSABLE_ENTITY,
        NotAdded::Forgetful(_) | NotAdded::File(_) | NotAdded::Store(_) | NotAdded::Record(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    match refused {
        NotAdded::Store(fault) => fault.into(),
        NotAdded::Record(fault) => fault.into(),
        NotAdded::File(fault) => {
            tracing::error!(error = %fault, "what was cosigned cannot be remembered");
            let why = "the witness cannot write: try again later";
            Problem::new(status, "unavailable", why)
        }
        refused => Problem::new(status, refused.code(), refused.to_string()),
    }
}

fn witnessed(origin: &str, row: Option<Witnessed>) -> WitnessedView {
    let (fork, forked) = row.as_ref().and_then(|row| row.fork.clone()).unzip();
    WitnessedView {
        origin: origin.to_owned(),
        size: row.as_ref().map(|row| row.size),
        root: row.as_ref().map(|row| row.root.to_string()),
        cosigned: row.as_ref().map(|row| row.cosigned.into()),
        note: row.map(|row| row.note),
        fork,
        forked: forked.map(Into::into),
    }
}

fn asked(state: AskState, covered: u64) -> AskedView {
    let word = match (&state.failing, &state.cosigned) {
        (Some(_), _) if state.disputed => "disputing",
        (Some(_), _) => "failing",
        (None, Some(_)) => "cosigning",
        (None, None) => "waiting",
    };
    let (size, cosigned) = state.cosigned.unzip();
    let (error, failing_since) = state.failing.unzip();
    AskedView {
        key: state.key.to_string(),
        url: state.url,
        state: word.to_owned(),
        size,
        cosigned: cosigned.map(Into::into),
        behind: covered.saturating_sub(size.unwrap_or(0)),
        error,
        failing_since: failing_since.map(Into::into),
    }
}
