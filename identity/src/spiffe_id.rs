//! SPIFFE IDs (SPIFFE-ID standard, sections 2.1 to 2.4) with Edgeward's kinds in the first path segment.
//!
//! `spiffe://<trust domain>/<kind>/<name>`. The kind is part of authentication everywhere: an ID of
//! another kind never passes where one kind is asked for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest SPIFFE ID accepted, in bytes (SPIFFE-ID 2.3).
pub const MAX_ID_BYTES: usize = 2048;
/// Longest trust domain name accepted, in bytes (SPIFFE-ID 2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Longest name of a node, device, operator or cloud, in bytes: fits a DNS label and a file name.
pub const MAX_NAME_BYTES: usize = 63;

/// One installation: one CA, one name such as `plant.example`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

/// What an identity is. Never interchangeable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A control-plane process.
    Cloud,
    /// A thing without an agent, behind a node.
    Device,
    /// A machine with an agent.
    Node,
    /// A person or script that administers.
    Operator,
    /// A process on a node.
    Workload,
}

/// A parsed SPIFFE ID of this system.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    kind: Kind,
    name: String,
}

/// Why a text is not a SPIFFE ID of this system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    #[error("not a spiffe:// URI")]
    Scheme,
    #[error("longer than the limit in bytes: {0}")]
    TooLong(usize),
    #[error("trust domain is empty")]
    EmptyTrustDomain,
    #[error("trust domain holds a character other than a-z 0-9 . - _: {0:?}")]
    TrustDomainCharacter(char),
    #[error("path is missing")]
    NoPath,
    #[error("path has an empty segment")]
    EmptySegment,
    #[error("path has a relative segment")]
    RelativeSegment,
    #[error("path holds a character other than A-Z a-z 0-9 . - _: {0:?}")]
    PathCharacter(char),
    #[error("unknown kind of identity: {0:?}")]
    UnknownKind(String),
    #[error("a {0} has exactly one path segment for its name")]
    NameShape(Kind),
}

impl TrustDomain {
    pub fn new(name: &str) -> Result<Self, SpiffeIdError> {
        if name.is_empty() {
            return Err(SpiffeIdError::EmptyTrustDomain);
        }
        if name.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(SpiffeIdError::TooLong(MAX_TRUST_DOMAIN_BYTES));
        }
        match name
            .chars()
            .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_'))
        {
            Some(c) => Err(SpiffeIdError::TrustDomainCharacter(c)),
            None => Ok(Self(name.to_owned())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Cloud,
        Self::Device,
        Self::Node,
        Self::Operator,
        Self::Workload,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Device => "device",
            Self::Node => "node",
            Self::Operator => "operator",
            Self::Workload => "workload",
        }
    }
}

impl SpiffeId {
    /// Makes an ID from its parts. `name` may hold several segments for a workload only.
    pub fn new(trust_domain: &TrustDomain, kind: Kind, name: &str) -> Result<Self, SpiffeIdError> {
        for segment in name.split('/') {
            check_segment(segment)?;
        }
        if kind != Kind::Workload && (name.contains('/') || name.len() > MAX_NAME_BYTES) {
            return Err(SpiffeIdError::NameShape(kind));
        }
        let id = Self {
            trust_domain: trust_domain.clone(),
            kind,
            name: name.to_owned(),
        };
        if id.to_string().len() > MAX_ID_BYTES {
            return Err(SpiffeIdError::TooLong(MAX_ID_BYTES));
        }
        Ok(id)
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What follows the kind: `gw-3` in `spiffe://plant.example/node/gw-3`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_ID_BYTES {
            return Err(SpiffeIdError::TooLong(MAX_ID_BYTES));
        }
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = match rest.split_once('/') {
            Some((domain, path)) => (domain, Some(path)),
            None => (rest, None),
        };
        let trust_domain = TrustDomain::new(domain)?;
        let path = path.ok_or(SpiffeIdError::NoPath)?;
        for segment in path.split('/') {
            check_segment(segment)?;
        }
        let (kind, name) = match path.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (path, None),
        };
        let kind = kind.parse::<Kind>()?;
        let name = name.ok_or(SpiffeIdError::NameShape(kind))?;
        Self::new(&trust_domain, kind, name)
    }
}

impl FromStr for Kind {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| SpiffeIdError::UnknownKind(text.to_owned()))
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/{}/{}",
            self.trust_domain, self.kind, self.name
        )
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = SpiffeIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

fn check_segment(segment: &str) -> Result<(), SpiffeIdError> {
    if segment.is_empty() {
        return Err(SpiffeIdError::EmptySegment);
    }
    if segment == "." || segment == ".." {
        return Err(SpiffeIdError::RelativeSegment);
    }
    match segment
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_'))
    {
        Some(c) => Err(SpiffeIdError::PathCharacter(c)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_round_trips() {
        let id: SpiffeId = "spiffe://plant.example/node/gw-3".parse().unwrap();
        assert_eq!(id.kind(), Kind::Node);
        assert_eq!(id.name(), "gw-3");
        assert_eq!(id.to_string(), "spiffe://plant.example/node/gw-3");
    }

    #[test]
    fn every_malformed_id_is_refused_with_its_own_reason() {
        use SpiffeIdError as E;
        let long = format!("spiffe://plant.example/workload/{}", "a".repeat(2048));
        let cases: [(&str, E); 14] = [
            ("https://plant.example/node/a", E::Scheme),
            ("SPIFFE://plant.example/node/a", E::Scheme),
            ("spiffe:///node/a", E::EmptyTrustDomain),
            (
                "spiffe://Plant.example/node/a",
                E::TrustDomainCharacter('P'),
            ),
            ("spiffe://user@plant/node/a", E::TrustDomainCharacter('@')),
            ("spiffe://plant:7443/node/a", E::TrustDomainCharacter(':')),
            ("spiffe://plant.example", E::NoPath),
            ("spiffe://plant.example/", E::EmptySegment),
            ("spiffe://plant.example/node/a/", E::EmptySegment),
            ("spiffe://plant.example/node/..", E::RelativeSegment),
            ("spiffe://plant.example/node/a%20b", E::PathCharacter('%')),
            (
                "spiffe://plant.example/host/a",
                E::UnknownKind("host".into()),
            ),
            ("spiffe://plant.example/node/a/b", E::NameShape(Kind::Node)),
            (&long, E::TooLong(MAX_ID_BYTES)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<SpiffeId>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_workload_may_have_several_segments() {
        let id: SpiffeId = "spiffe://plant.example/workload/acme/collector"
            .parse()
            .unwrap();
        assert_eq!(id.name(), "acme/collector");
    }
}
