//! JWT-SVIDs (SPIFFE JWT-SVID standard): made by the cloud, checked by whoever is shown one.
//!
//! Only ES256, only with a key id that the bundle knows, never without an audience and an end.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::jws::{self, BadJws, Compact};
use crate::keys::{SignError, Signer};
use crate::spiffe_id::{SpiffeId, SpiffeIdError};

pub(crate) mod bundle;

pub use bundle::JwtBundle;

/// Largest token accepted, in bytes.
pub const MAX_JWT_BYTES: usize = 16 * 1024;
/// Most audiences of one token.
pub const MAX_AUDIENCES: usize = 16;
/// Longest audience, in bytes.
pub const MAX_AUDIENCE_BYTES: usize = 512;
/// How far ahead of ours the clock of whoever set `nbf` may be, in milliseconds.
const SKEW_MILLIS: u64 = 30_000;

/// What a JWT-SVID says, to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtClaims {
    pub subject: SpiffeId,
    pub audience: Vec<String>,
    pub issued: Timestamp,
    pub expires: Timestamp,
    /// Names the token in records (`jti`).
    pub serial: String,
}

/// A JWT-SVID that was checked. Only [`validate`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidJwt {
    id: SpiffeId,
    claims: Map<String, Value>,
}

/// Why a token is no JWT-SVID for us now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtRefused {
    #[error("token: {0}")]
    Jws(#[from] BadJws),
    #[error("token is not of type JWT")]
    Type,
    #[error("token names no key")]
    NoKeyId,
    #[error("token is signed by a key that nobody here knows")]
    KeyUnknown,
    #[error("signature does not verify")]
    Signature,
    #[error("claims are not those of a jwt-svid")]
    Claims,
    #[error("token has no expiry")]
    NoExpiry,
    #[error("token has expired")]
    Expired,
    #[error("token is not valid yet")]
    NotYet,
    #[error("token is for another audience")]
    Audience,
    #[error("subject: {0}")]
    Subject(#[from] SpiffeIdError),
    #[error("subject is of another trust domain")]
    TrustDomain,
}

/// No token is made with such an audience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 1 to {MAX_AUDIENCES} audiences of 1 to {MAX_AUDIENCE_BYTES} bytes")]
pub struct BadAudience;

#[derive(Serialize)]
struct Signed<'c> {
    sub: String,
    aud: &'c [String],
    iat: u64,
    exp: u64,
    jti: &'c str,
}

#[derive(Deserialize)]
struct Known {
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    aud: Option<OneOrMany>,
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl JwtClaims {
    /// Signs; the key id is the SHA-256 of the key's SPKI, as in [`JwtBundle`].
    pub fn sign(&self, signer: &dyn Signer) -> Result<String, SignError> {
        let header = serde_json::json!({
            "typ": "JWT",
            "kid": signer.public_key().spki_hash().to_string(),
        });
        let claims = Signed {
            sub: self.subject.to_string(),
            aud: &self.audience,
            iat: self.issued.secs(),
            exp: self.expires.secs(),
            jti: &self.serial,
        };
        let payload =
            serde_json::to_vec(&claims).map_err(|e| SignError::KeyStore(e.to_string()))?;
        jws::sign(signer, &header, &payload)
    }
}

/// Whether a token may be made for, or asked about, these.
pub fn check_audiences<'a>(
    audiences: impl ExactSizeIterator<Item = &'a str>,
) -> Result<(), BadAudience> {
    if !(1..=MAX_AUDIENCES).contains(&audiences.len()) {
        return Err(BadAudience);
    }
    for audience in audiences {
        if !(1..=MAX_AUDIENCE_BYTES).contains(&audience.len()) {
            return Err(BadAudience);
        }
    }
    Ok(())
}

/// Checks a token that was shown to `audience`.
pub fn validate(
    token: &str,
    audience: &str,
    bundle: &JwtBundle,
    now: Timestamp,
) -> Result<ValidJwt, JwtRefused> {
    let token = Compact::parse(token, MAX_JWT_BYTES)?;
    let typed = token.header().get("typ").is_none_or(|typ| {
        let typ = typ.as_str().unwrap_or_default();
        matches!(typ, "JWT" | "JOSE")
    });
    if !typed {
        return Err(JwtRefused::Type);
    }
    let kid = token.header_text("kid").ok_or(JwtRefused::NoKeyId)?;
    let key = bundle.get(kid).ok_or(JwtRefused::KeyUnknown)?;
    let payload = token.verify(key).map_err(|_| JwtRefused::Signature)?;
    let known: Known = serde_json::from_slice(payload).map_err(|_| JwtRefused::Claims)?;
    let claims = serde_json::from_slice(payload).map_err(|_| JwtRefused::Claims)?;
    let expires = known.exp.ok_or(JwtRefused::NoExpiry)?;
    if millis(expires) <= now.millis() {
        return Err(JwtRefused::Expired);
    }
    if known
        .nbf
        .is_some_and(|nbf| millis(nbf) > now.millis().saturating_add(SKEW_MILLIS))
    {
        return Err(JwtRefused::NotYet);
    }
    let meant = match known.aud.ok_or(JwtRefused::Audience)? {
        OneOrMany::One(one) => one == audience,
        OneOrMany::Many(many) => many.iter().any(|one| one == audience),
    };
    if !meant || audience.is_empty() {
        return Err(JwtRefused::Audience);
    }
    let id: SpiffeId = known.sub.ok_or(JwtRefused::Claims)?.parse()?;
    if id.trust_domain() != bundle.trust_domain() {
        return Err(JwtRefused::TrustDomain);
    }
    Ok(ValidJwt { id, claims })
}

/// The end that a token names, unchecked: for whoever got it from its maker and only keeps it.
pub fn end_of(token: &str) -> Option<Timestamp> {
    let mut parts = token.get(..MAX_JWT_BYTES.min(token.len()))?.split('.');
    let payload = URL_SAFE_NO_PAD.decode(parts.nth(1)?).ok()?;
    let known: Known = serde_json::from_slice(&payload).ok()?;
    Some(Timestamp::from_millis(millis(known.exp?)))
}

impl ValidJwt {
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Everything that was signed.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

impl JwtRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Jws(BadJws::Algorithm) => "jwt_algorithm",
            Self::Jws(_) => "jwt_malformed",
            Self::Type => "jwt_type",
            Self::NoKeyId => "jwt_no_key_id",
            Self::KeyUnknown => "jwt_key_unknown",
            Self::Signature => "jwt_signature",
            Self::Claims => "jwt_claims",
            Self::NoExpiry => "jwt_no_expiry",
            Self::Expired => "jwt_expired",
            Self::NotYet => "jwt_not_yet",
            Self::Audience => "jwt_audience",
            Self::Subject(_) => "jwt_subject",
            Self::TrustDomain => "jwt_trust_domain",
        }
    }
}

/// A `NumericDate` (RFC 7519 2): seconds, perhaps with a fraction. What is no time at all is long over.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float that is out of range saturates, one that is no number becomes zero"
)]
fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

#[cfg(test)]
mod tests;
