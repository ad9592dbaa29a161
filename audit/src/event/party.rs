//! Who acts and whom an act concerns. Both are one string in JSON, in filters and in the store.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use edgeward_identity::{SpiffeId, spiffe_id::SpiffeIdError};
use serde::{Deserialize, Serialize};

use super::text::{Text, TextError};

/// Longest name of an API key, in bytes.
pub const MAX_API_KEY_NAME_BYTES: usize = 63;
/// Longest name of a subject that is no identity (a token id, a policy version, an address), in bytes.
pub const MAX_SUBJECT_NAME_BYTES: usize = 256;

/// Who acted: `spiffe://…`, `apikey:<name>`, `cloud`, `anonymous` or `anonymous:<address>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Actor {
    /// An authenticated identity of any kind.
    Identity(SpiffeId),
    /// A script with an API key, by the key's name.
    ApiKey(Text<MAX_API_KEY_NAME_BYTES>),
    /// The cloud on its own account (timers, expiry, start).
    Cloud,
    /// Somebody who proved nothing, by address where there is one.
    Anonymous(Option<IpAddr>),
}

/// Whom or what an event concerns: a SPIFFE ID, or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    Identity(SpiffeId),
    Name(Text<MAX_SUBJECT_NAME_BYTES>),
}

/// Why a text names no actor or subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartyError {
    #[error("not a spiffe id of this system")]
    SpiffeId(#[from] SpiffeIdError),
    #[error("not a name")]
    Name(#[from] TextError),
    #[error("not an ip address in its shortest form")]
    Address,
    #[error("not an actor (spiffe://…, apikey:<name>, cloud, anonymous, anonymous:<address>)")]
    Actor,
}

impl Actor {
    /// The actor behind an API key of this name.
    pub fn api_key(name: &str) -> Self {
        Self::ApiKey(Text::lossy(name))
    }

    pub fn identity(&self) -> Option<&SpiffeId> {
        match self {
            Self::Identity(id) => Some(id),
            Self::ApiKey(_) | Self::Cloud | Self::Anonymous(_) => None,
        }
    }
}

impl Subject {
    /// A subject that is no identity. A text that looks like a SPIFFE ID but is none is kept as `invalid:<text>`,
    /// so that nobody gets an identity's name by a malformed one.
    pub fn name(name: &str) -> Self {
        if name.starts_with("spiffe:") {
            Self::Name(Text::lossy(&format!("invalid:{name}")))
        } else {
            Self::Name(Text::lossy(name))
        }
    }

    pub fn identity(&self) -> Option<&SpiffeId> {
        match self {
            Self::Identity(id) => Some(id),
            Self::Name(_) => None,
        }
    }
}

impl FromStr for Actor {
    type Err = PartyError;

    fn from_str(text: &str) -> Result<Self, PartyError> {
        if text.starts_with("spiffe:") {
            return Ok(Self::Identity(text.parse()?));
        }
        match text.split_once(':') {
            None if text == "cloud" => Ok(Self::Cloud),
            None if text == "anonymous" => Ok(Self::Anonymous(None)),
            Some(("apikey", name)) => Ok(Self::ApiKey(Text::new(name)?)),
            Some(("anonymous", address)) => match address.parse::<IpAddr>() {
                // One address has one text, or a filter would miss it.
                Ok(parsed) if parsed.to_string() == address => Ok(Self::Anonymous(Some(parsed))),
                Ok(_) | Err(_) => Err(PartyError::Address),
            },
            _ => Err(PartyError::Actor),
        }
    }
}

impl FromStr for Subject {
    type Err = PartyError;

    fn from_str(text: &str) -> Result<Self, PartyError> {
        if text.starts_with("spiffe:") {
            Ok(Self::Identity(text.parse()?))
        } else {
            Ok(Self::Name(Text::new(text)?))
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(id) => id.fmt(f),
            Self::ApiKey(name) => write!(f, "apikey:{name}"),
            Self::Cloud => f.write_str("cloud"),
            Self::Anonymous(None) => f.write_str("anonymous"),
            Self::Anonymous(Some(address)) => write!(f, "anonymous:{address}"),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(id) => fmt::Display::fmt(id, f),
            Self::Name(name) => fmt::Display::fmt(name, f),
        }
    }
}

impl From<SpiffeId> for Actor {
    fn from(id: SpiffeId) -> Self {
        Self::Identity(id)
    }
}

impl From<IpAddr> for Actor {
    /// IPv4 addresses in IPv6 clothes are shown as IPv4.
    fn from(address: IpAddr) -> Self {
        Self::Anonymous(Some(address.to_canonical()))
    }
}

impl From<SpiffeId> for Subject {
    fn from(id: SpiffeId) -> Self {
        Self::Identity(id)
    }
}

impl From<&str> for Subject {
    fn from(name: &str) -> Self {
        Self::name(name)
    }
}

impl TryFrom<String> for Actor {
    type Error = PartyError;

    fn try_from(text: String) -> Result<Self, PartyError> {
        text.parse()
    }
}

impl TryFrom<String> for Subject {
    type Error = PartyError;

    fn try_from(text: String) -> Result<Self, PartyError> {
        text.parse()
    }
}

impl From<Actor> for String {
    fn from(actor: Actor) -> Self {
        actor.to_string()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.to_string()
    }
}
