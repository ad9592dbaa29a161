//! What a proxy asks, read so that nothing is left to guess: who, which interface, and for HTTP what is done to it.

use std::net::{IpAddr, Ipv4Addr};

use edgeward_identity::{Kind, SpiffeId, SvidLeaf};
use edgeward_policy::l7::http::{BadPath, CanonicalPath};
use edgeward_wire::ext_authz::attribute_context::{HttpRequest, Peer};
use edgeward_wire::ext_authz::envoy::config::core::v3::address::Address;
use edgeward_wire::ext_authz::{AttributeContext, CheckRequest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::enforce::decide::Who;

/// Keys of `context_extensions`, which the proxy's own configuration sets: the names of the interface in policy.
pub const SERVICE: &str = "service";
pub const INTERFACE: &str = "interface";
/// Longest name, and longest method, in bytes.
const MAX_NAME_BYTES: usize = 256;
const MAX_METHOD_BYTES: usize = 32;
/// Longest certificate as proxies write it (PEM, percent-encoded), in bytes.
const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;

/// A question that can be decided.
#[derive(Clone, Debug)]
pub struct Question {
    pub who: Who,
    pub service: String,
    pub interface: String,
    /// None where the proxy asks about a connection.
    pub http: Option<Http>,
    /// As the proxy says it; for the records only.
    pub source: IpAddr,
}

/// One request of HTTP.
#[derive(Clone, Debug)]
pub struct Http {
    pub method: String,
    pub path: CanonicalPath,
}

/// Why a question is not decided: the answer is no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    #[error("no attributes")]
    Attributes,
    #[error("no principal that is a SPIFFE ID")]
    Principal,
    #[error("principal is neither node, operator nor device")]
    Kind,
    #[error("certificate is no SVID, or not the principal's")]
    Certificate,
    #[error("context_extensions name no service and interface")]
    Interface,
    #[error("method is not one of HTTP")]
    Method,
    #[error("{0}")]
    Path(#[from] BadPath),
}

impl Unclear {
    /// A stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attributes => "attributes",
            Self::Principal => "principal",
            Self::Kind => "principal-kind",
            Self::Certificate => "certificate",
            Self::Interface => "interface",
            Self::Method => "method",
            Self::Path(bad) => bad.as_str(),
        }
    }
}

impl Question {
    pub fn read(request: &CheckRequest) -> Result<Self, Unclear> {
        let attributes = request.attributes.as_ref().ok_or(Unclear::Attributes)?;
        let source = attributes.source.as_ref().ok_or(Unclear::Principal)?;
        let http = attributes
            .request
            .as_ref()
            .map(|request| request.http.as_ref());
        Ok(Self {
            who: who(source)?,
            service: name(attributes, SERVICE)?,
            interface: name(attributes, INTERFACE)?,
            http: http.flatten().map(Http::read).transpose()?,
            source: address(source),
        })
    }
}

impl Http {
    fn read(request: &HttpRequest) -> Result<Self, Unclear> {
        let method = request.method.as_str();
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        // What is done by CONNECT is not to the path.
        if !is_method || method.len() > MAX_METHOD_BYTES || method == "CONNECT" {
            return Err(Unclear::Method);
        }
        let path = match request.path.split_once('?') {
            Some((path, _)) => path,
            None => &request.path,
        };
        Ok(Self {
            method: method.to_owned(),
            path: CanonicalPath::read(path)?,
        })
    }
}

/// Whom the proxy authenticated. A certificate beside it must say the same, and binds a node to its key.
fn who(source: &Peer) -> Result<Who, Unclear> {
    let leaf = match source.certificate.as_str() {
        "" => None,
        pem => Some(leaf(pem).ok_or(Unclear::Certificate)?),
    };
    let id = match (source.principal.as_str(), &leaf) {
        ("", Some(leaf)) => leaf.id.clone(),
        (principal, _) => principal
            .parse::<SpiffeId>()
            .map_err(|_| Unclear::Principal)?,
    };
    if leaf.as_ref().is_some_and(|leaf| leaf.id != id) {
        return Err(Unclear::Certificate);
    }
    match id.kind() {
        Kind::Node => Ok(Who::Node {
            id,
            spki: leaf.map(|leaf| leaf.key.spki_hash()),
        }),
        // Through which node an operator comes a proxy cannot say: nothing is proven of it.
        Kind::Operator => Ok(Who::Operator { id, through: None }),
        Kind::Device => Ok(Who::Device(id)),
        Kind::Workload | Kind::Cloud => Err(Unclear::Kind),
    }
}

fn leaf(encoded: &str) -> Option<SvidLeaf> {
    if encoded.len() > MAX_CERTIFICATE_BYTES {
        return None;
    }
    let pem = percent_decode(encoded)?;
    let der = CertificateDer::from_pem_slice(&pem).ok()?;
    SvidLeaf::parse(&der).ok()
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            byte => byte,
        });
    }
    Some(decoded)
}

fn name(attributes: &AttributeContext, key: &str) -> Result<String, Unclear> {
    let name = attributes.context_extensions.get(key);
    name.filter(|name| !name.is_empty() && name.len() <= MAX_NAME_BYTES)
        .cloned()
        .ok_or(Unclear::Interface)
}

/// Decides nothing: many a proxy takes it from a header.
fn address(source: &Peer) -> IpAddr {
    let address = source
        .address
        .as_ref()
        .and_then(|address| address.address.as_ref());
    let text = address.map(|Address::SocketAddress(socket)| socket.address.as_str());
    text.and_then(|text| text.parse().ok())
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

#[cfg(test)]
mod tests;
