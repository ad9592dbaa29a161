//! Errors as problem documents (RFC 9457) with a stable `code`.

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::views::ProblemView;
use crate::audit::RecordFault;
use crate::store::StoreError;

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was not done. Goes out as a [`ProblemView`].
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    findings: Vec<String>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            findings: Vec::new(),
        }
    }

    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// Stable.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Ours: the reason goes to the log, the caller learns that there is one.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = %Chain(error), "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the cloud failed; its log says why",
        )
    }

    #[must_use]
    pub fn with_findings(mut self, findings: Vec<String>) -> Self {
        self.findings = findings;
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let document = ProblemView {
            kind: format!("urn:edgeward:problem:{}", self.code),
            title: status.canonical_reason().unwrap_or("Problem").to_owned(),
            status: status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail,
            findings: self.findings,
        };
        let mut response = (status, Json(document)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Exists => {
                Self::conflict("exists", "there is one with this name or key already")
            }
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "store");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "unavailable",
                    "the store is busy, full or away; try again",
                )
            }
            StoreError::Erased(_) => Self::new(StatusCode::GONE, "event_erased", error.to_string()),
            StoreError::Pruned { .. } => {
                Self::new(StatusCode::GONE, "event_pruned", error.to_string())
            }
            StoreError::NoSiteKey { .. } | StoreError::NewerSiteKey(_) => {
                tracing::error!(%error, "store");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "site_key_missing",
                    "a key of a site is missing: restore it (docs/audit-log.md)",
                )
            }
            StoreError::Unreadable { .. } => {
                tracing::error!(%error, "store");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "store_damaged",
                    "the store holds what cannot be read: see the cloud's log",
                )
            }
            other => Self::internal(&other),
        }
    }
}

impl From<RecordFault> for Problem {
    fn from(error: RecordFault) -> Self {
        match error {
            RecordFault::Store(error) => error.into(),
            RecordFault::Seal(_) | RecordFault::Random(_) => Self::internal(&error),
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "body_not_json",
            _ => "body_malformed",
        };
        Self::new(rejection.status(), code, rejection.body_text())
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
            _ => "body_malformed",
        };
        Self::new(rejection.status(), code, rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request("query_malformed", rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request("path_malformed", rejection.body_text())
    }
}

/// An error with its sources, on one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
