//! Header fields between client and service: what belongs to one connection stays on it, and what names the caller
//! comes from this gateway alone.

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HeaderName, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue};

use crate::gateway::caller::Caller;

/// Who calls, as a SPIFFE ID.
pub const SPIFFE_ID: HeaderName = HeaderName::from_static("x-edgeward-spiffe-id");
/// The same as Envoy says it: `By=<this node>;URI=<caller>`.
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// The address that the caller comes from.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Fields of one connection (RFC 9110 7.6.1), beside those that `Connection` names.
const OF_ONE_CONNECTION: [&str; 5] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "proxy",
];
/// Fields by which a service may take another method or path than was decided upon.
const OVERRIDES: [&str; 6] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
];

/// Whether a request or response is gRPC's.
pub(super) fn is_grpc(fields: &HeaderMap) -> bool {
    let kind = fields.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Leaves what the service may see.
pub(super) fn clean_request(fields: &mut HeaderMap, grpc: bool) {
    let trailers = fields.get_all(TE).iter().any(|value| {
        let text = value.to_str().unwrap_or_default();
        text.split(',').any(|part| part.trim() == "trailers")
    });
    remove_of_one_connection(fields);
    // Framing is made anew, and `100-continue` has been answered here.
    fields.remove(CONTENT_LENGTH);
    fields.remove(EXPECT);
    remove_forged(fields);
    if trailers && grpc {
        fields.insert(TE, HeaderValue::from_static("trailers"));
    }
    if !grpc {
        join_cookies(fields);
    }
}

/// Leaves what the client may see.
pub(super) fn clean_response(fields: &mut HeaderMap) {
    remove_of_one_connection(fields);
}

/// Leaves what may follow a body.
pub(super) fn clean_trailers(fields: &mut HeaderMap) {
    remove_of_one_connection(fields);
    remove_forged(fields);
    fields.remove(CONTENT_LENGTH);
    fields.remove(http::header::HOST);
    fields.remove(http::header::AUTHORIZATION);
}

/// Says who calls. After [`clean_request`].
pub(super) fn add_identity(fields: &mut HeaderMap, caller: &Caller) {
    let id = caller.id();
    let certificate = format!("By={};URI={id}", caller.node());
    for (name, value) in [
        (SPIFFE_ID, id),
        (CLIENT_CERT, certificate),
        (FORWARDED_FOR, caller.source().to_string()),
    ] {
        // A SPIFFE ID and an address have only characters that a field may have.
        if let Ok(value) = HeaderValue::from_str(&value) {
            fields.insert(name, value);
        }
    }
}

fn remove_of_one_connection(fields: &mut HeaderMap) {
    let named: Vec<HeaderName> = fields
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        fields.remove(name);
    }
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, TE] {
        fields.remove(name);
    }
    for name in OF_ONE_CONNECTION {
        fields.remove(name);
    }
}

/// Removes what only a gateway may say, however it is spelt.
fn remove_forged(fields: &mut HeaderMap) {
    let forged: Vec<HeaderName> = fields
        .keys()
        .filter(|name| is_forged(name.as_str()))
        .cloned()
        .collect();
    for name in forged {
        fields.remove(name);
    }
}

/// Whether only a gateway may say it. Services behind CGI and WSGI see `_`, `-` and `.` as one.
fn is_forged(name: &str) -> bool {
    let plain: String = name
        .chars()
        .map(|c| match c {
            '_' | '.' => '-',
            other => other.to_ascii_lowercase(),
        })
        .collect();
    plain.starts_with("x-edgeward-")
        || plain.starts_with("x-forwarded-")
        || plain == "forwarded"
        || plain == "x-real-ip"
        || OVERRIDES.contains(&plain.as_str())
}

/// HTTP/1.1 has one `Cookie` field, HTTP/2 may have many (RFC 9113 8.2.3).
fn join_cookies(fields: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = fields
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        fields.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn what_only_a_gateway_may_say_is_removed_however_it_is_spelt() {
        let mut all = fields(&[
            ("x-edgeward-spiffe-id", "spiffe://plant.example/node/admin"),
            ("X_Edgeward_Spiffe_Id", "spiffe://plant.example/node/admin"),
            ("x-edgeward_spiffe-id", "spiffe://plant.example/node/admin"),
            ("x.edgeward.spiffe.id", "spiffe://plant.example/node/admin"),
            (
                "X-Forwarded-Client-Cert",
                "URI=spiffe://plant.example/node/admin",
            ),
            (
                "x_forwarded_client_cert",
                "URI=spiffe://plant.example/node/admin",
            ),
            ("x-forwarded-for", "127.0.0.1"),
            ("forwarded", "for=127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-http-method-override", "DELETE"),
            ("x_original_url", "/admin"),
            ("accept", "*/*"),
        ]);
        clean_request(&mut all, false);
        let left: Vec<&str> = all.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["accept"]);
    }

    #[test]
    fn what_belongs_to_one_connection_stays_on_it() {
        let mut all = fields(&[
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("proxy", "http://evil"),
            ("host", "h"),
        ]);
        clean_request(&mut all, false);
        assert_eq!(
            all.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["host"]
        );
        let mut grpc = fields(&[("te", "trailers"), ("content-type", "application/grpc")]);
        assert!(is_grpc(&grpc));
        clean_request(&mut grpc, true);
        assert_eq!(grpc.get(TE).unwrap(), "trailers");
    }

    #[test]
    fn trailers_cannot_say_who_calls_either() {
        let mut all = fields(&[
            ("x-edgeward-spiffe-id", "x"),
            ("grpc-status", "0"),
            ("content-length", "3"),
        ]);
        clean_trailers(&mut all);
        assert_eq!(
            all.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["grpc-status"]
        );
    }

    #[test]
    fn many_cookie_fields_become_one() {
        let mut all = HeaderMap::new();
        all.append(COOKIE, HeaderValue::from_static("a=1"));
        all.append(COOKIE, HeaderValue::from_static("b=2"));
        clean_request(&mut all, false);
        assert_eq!(all.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
