//! What a request asks for, read so that nobody can read it otherwise.

use edgeward_policy::l7::http::{BadPath, CanonicalPath};
use http::header::{CONNECTION, HOST, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use hyper::body::Incoming;

use super::body::Upload;
use super::headers;
use crate::gateway::caller::Caller;

/// Method, path and query of one request, and the host that it names.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: CanonicalPath,
    query: Option<String>,
    /// As the client named it; none in HTTP/1.0.
    host: Option<Authority>,
}

/// Why a request is not forwarded, whoever asks. The client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Path(BadPath),
    /// None where there must be one, several, or another one than in the request's target.
    Host,
    /// A scheme that is not HTTP's.
    Scheme,
    Connect,
    Upgrade,
}

impl Wrong {
    /// A stable word for records and answers.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Path(bad) => bad.as_str(),
            Self::Host => "host",
            Self::Scheme => "scheme",
            Self::Connect => "connect-refused",
            Self::Upgrade => "upgrade-refused",
        }
    }
}

impl Asked {
    pub(super) fn read<B>(request: &Request<B>) -> Result<Self, Wrong> {
        if request.method() == Method::CONNECT {
            return Err(Wrong::Connect);
        }
        if asks_for_upgrade(request.headers()) {
            return Err(Wrong::Upgrade);
        }
        let uri = request.uri();
        let known = [Scheme::HTTP, Scheme::HTTPS];
        if uri.scheme().is_some_and(|scheme| !known.contains(scheme)) {
            return Err(Wrong::Scheme);
        }
        let host = host(request)?;
        let path = CanonicalPath::read(uri.path()).map_err(Wrong::Path)?;
        Ok(Self {
            method: request.method().clone(),
            path,
            query: uri.query().map(str::to_owned),
            host,
        })
    }

    /// The request as the service gets it.
    pub(super) fn forward(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
        grpc: bool,
    ) -> Request<Upload> {
        let (parts, body) = request.into_parts();
        let mut forwarded = Request::new(Upload::new(body));
        *forwarded.method_mut() = self.method.clone();
        let host = self.host.clone();
        let authority = host.or_else(|| caller.upstream().to_string().parse().ok());
        let mut fields = parts.headers;
        headers::clean_request(&mut fields, grpc);
        headers::add_identity(&mut fields, caller);
        let target = self.target();
        if grpc {
            *forwarded.version_mut() = Version::HTTP_2;
            let mut uri = http::uri::Parts::default();
            uri.scheme = Some(Scheme::HTTP);
            uri.authority = authority;
            uri.path_and_query = target;
            *forwarded.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        } else {
            let mut uri = http::uri::Parts::default();
            uri.path_and_query = target;
            *forwarded.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
            let value = authority.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
            fields.insert(HOST, value.unwrap_or_else(|| HeaderValue::from_static("")));
        }
        *forwarded.headers_mut() = fields;
        forwarded
    }

    /// What was decided upon, written in the one way.
    fn target(&self) -> Option<PathAndQuery> {
        let path = self.path.encoded();
        match &self.query {
            None => PathAndQuery::try_from(path).ok(),
            Some(query) => PathAndQuery::try_from(format!("{path}?{query}")).ok(),
        }
    }
}

/// The host that the request names: in its target, else in its one `Host` field (RFC 9112 3.2).
fn host<B>(request: &Request<B>) -> Result<Option<Authority>, Wrong> {
    let mut fields = request.headers().get_all(HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (None, _) => None,
        (Some(field), None) => {
            let parsed = Authority::try_from(field.as_bytes()).map_err(|_| Wrong::Host)?;
            Some(parsed)
        }
        (Some(_), Some(_)) => return Err(Wrong::Host),
    };
    let target = request.uri().authority().cloned();
    let host = match (target, field) {
        (Some(target), Some(field)) if target != field => return Err(Wrong::Host),
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) if request.version() == Version::HTTP_10 => return Ok(None),
        (None, None) => return Err(Wrong::Host),
    };
    // A name and a password are nothing that a host has.
    match host.as_str().contains('@') {
        true => Err(Wrong::Host),
        false => Ok(Some(host)),
    }
}

/// Another protocol on this connection would be read by nobody.
fn asks_for_upgrade(fields: &HeaderMap) -> bool {
    fields.contains_key(UPGRADE)
        || fields.get_all(CONNECTION).iter().any(|value| {
            let text = value.to_str().unwrap_or_default();
            text.split(',')
                .any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn request(method: &str, target: &str, fields: Fields<'_>) -> Request<()> {
        let mut builder = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    fn read(method: &str, target: &str, fields: Fields<'_>) -> Result<Asked, Wrong> {
        Asked::read(&request(method, target, fields))
    }

    #[test]
    fn tunnels_upgrades_and_unclear_hosts_are_refused() {
        let host = ("host", "h");
        let cases: [(&str, &str, Fields<'_>, Wrong); 9] = [
            ("CONNECT", "h:443", &[host], Wrong::Connect),
            (
                "GET",
                "/",
                &[host, ("upgrade", "websocket")],
                Wrong::Upgrade,
            ),
            (
                "GET",
                "/",
                &[host, ("connection", "x, Upgrade")],
                Wrong::Upgrade,
            ),
            ("GET", "/", &[], Wrong::Host),
            ("GET", "/", &[host, host], Wrong::Host),
            ("GET", "http://other/", &[host], Wrong::Host),
            ("GET", "/", &[("host", "u:p@h")], Wrong::Host),
            ("GET", "ftp://h/", &[host], Wrong::Scheme),
            ("GET", "/a//b", &[host], Wrong::Path(BadPath::EmptySegment)),
        ];
        for (method, target, fields, wrong) in cases {
            assert_eq!(read(method, target, fields).unwrap_err(), wrong, "{target}");
        }
    }

    #[test]
    fn absolute_and_origin_form_name_the_same_path() {
        let origin = read("GET", "/a/b?c=d", &[("host", "h")]).unwrap();
        let absolute = read("GET", "http://h/a/b?c=d", &[("host", "h")]).unwrap();
        for asked in [origin, absolute] {
            assert_eq!(asked.path.decoded(), "/a/b");
            assert_eq!(asked.target().unwrap().as_str(), "/a/b?c=d");
            assert_eq!(asked.host.unwrap().as_str(), "h");
        }
    }

    #[test]
    fn the_services_target_is_written_from_what_was_decided_upon() {
        let asked = read("GET", "/%61%20b?x=%2e%2e/", &[("host", "h")]).unwrap();
        assert_eq!(asked.path.decoded(), "/a b");
        assert_eq!(asked.target().unwrap().as_str(), "/a%20b?x=%2e%2e/");
    }
}
