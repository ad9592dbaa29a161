//! What the gateway itself answers: a status, and a stable code. Never why: that is for the records.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

use super::body::Body;

/// An answer of the gateway's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Policy does not allow it.
    Denied,
    /// The request can be read in more than one way; what is wrong with it.
    BadRequest(&'static str),
    /// Tunnels and other protocols; which.
    NotImplemented(&'static str),
    ServiceFailed,
    ServiceLate,
}

impl Answer {
    fn status(self) -> StatusCode {
        match self {
            Self::Denied => StatusCode::FORBIDDEN,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::ServiceFailed => StatusCode::BAD_GATEWAY,
            Self::ServiceLate => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::BadRequest(code) | Self::NotImplemented(code) => code,
            Self::ServiceFailed => "service-failed",
            Self::ServiceLate => "service-late",
        }
    }

    /// The status of gRPC (statuscodes.md of its specification).
    fn grpc_status(self) -> &'static str {
        match self {
            Self::BadRequest(_) => "3",
            Self::ServiceLate => "4",
            Self::Denied => "7",
            Self::NotImplemented(_) => "12",
            Self::ServiceFailed => "14",
        }
    }

    /// A problem document (RFC 9457); for gRPC an answer of trailers only.
    pub(super) fn respond(self, grpc: bool) -> Response<Body> {
        let body = match grpc {
            true => Bytes::new(),
            false => self.document().into(),
        };
        let mut response = Response::new(Body::whole(body));
        let fields = response.headers_mut();
        if grpc {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            fields.insert("grpc-status", HeaderValue::from_static(self.grpc_status()));
            fields.insert("grpc-message", HeaderValue::from_static(self.code()));
        } else {
            let problem = HeaderValue::from_static("application/problem+json");
            fields.insert(CONTENT_TYPE, problem);
            *response.status_mut() = self.status();
        }
        response
    }

    fn document(self) -> String {
        let status = self.status();
        let title = status.canonical_reason().unwrap_or("refused");
        let document = serde_json::json!({
            "type": "about:blank",
            "title": title,
            "status": status.as_u16(),
            "code": self.code(),
        });
        format!("{document}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_names_a_code_and_no_reason() {
        let response = Answer::Denied.respond(false);
        assert_eq!(response.status(), 403);
        let document: serde_json::Value = serde_json::from_str(&Answer::Denied.document()).unwrap();
        let told = serde_json::json!({ "code": "denied", "status": 403, "title": "Forbidden", "type": "about:blank" });
        assert_eq!(document, told);
        let grpc = Answer::Denied.respond(true);
        assert_eq!(grpc.status(), 200);
        assert_eq!(grpc.headers().get("grpc-status").unwrap(), "7");
    }
}
