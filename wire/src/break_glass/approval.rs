//! One operator's word that a grant may be opened, given offline.
//!
//! A [`SignedObject`] of purpose [`Purpose::Opening`], signed with the key of the operator's certificate: audience and
//! number are the grant's, the payload names the grant's SHA-256. It opens nothing by itself, and nothing but that grant.

use std::time::Duration;

use edgeward_identity::signed::{Expect, Header, Malformed, Unacceptable};
use edgeward_identity::{Purpose, SignError, SignedObject, Signer, SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::grant::{Approver, Grant};

/// Largest approval, in bytes.
pub const MAX_APPROVAL_BYTES: usize = 4096;
/// Longest time that an approval counts: whoever opens must have asked lately.
pub const MAX_APPROVAL_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How far an operator's clock may run ahead of the node's.
const MAX_AHEAD: Duration = Duration::from_secs(3600);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    /// SHA-256 of the grant, hex.
    grant: String,
    operator: SpiffeId,
}

/// The bytes are no approval of this grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnApproval {
    #[error("larger than the limit in bytes: {MAX_APPROVAL_BYTES}")]
    TooLarge,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("by somebody who may not open this grant")]
    NotAnApprover,
    #[error("of another grant")]
    OtherGrant,
    #[error("too old: approvals count for {} h", MAX_APPROVAL_LIFETIME.as_secs() / 3600)]
    Expired,
    #[error(transparent)]
    Signed(Unacceptable),
}

/// Signs an approval with an operator's key.
pub fn approve(
    grant: &Grant,
    operator: &SpiffeId,
    signer: &dyn Signer,
    now: Timestamp,
) -> Result<Vec<u8>, SignError> {
    let header = Header {
        purpose: Purpose::Opening,
        trust_domain: grant.trust_domain().clone(),
        audience: grant.node().to_owned(),
        number: grant.number(),
        issued: now,
        expires: now.plus(MAX_APPROVAL_LIFETIME).min(grant.expires()),
    };
    let payload = Payload {
        grant: hex::encode(grant.digest()),
        operator: operator.clone(),
    };
    Ok(SignedObject::sign_json(signer, header, &payload)?.to_bytes())
}

/// Whose approval of this grant it is.
pub fn approved_by<'g>(
    bytes: &[u8],
    grant: &'g Grant,
    now: Timestamp,
) -> Result<&'g Approver, NotAnApproval> {
    if bytes.len() > MAX_APPROVAL_BYTES {
        return Err(NotAnApproval::TooLarge);
    }
    let object = SignedObject::parse(bytes)?;
    let header = object.header();
    if header.purpose != Purpose::Opening {
        return Err(NotAnApproval::Signed(Unacceptable::Purpose(header.purpose)));
    }
    if header.number != grant.number() || header.audience != grant.node() {
        return Err(NotAnApproval::OtherGrant);
    }
    let mut approvers = grant.body().approvers.iter();
    let approver = approvers
        .find(|approver| approver.key.spki_hash() == *object.key_id())
        .ok_or(NotAnApproval::NotAnApprover)?;
    let expect = Expect {
        purpose: Purpose::Opening,
        trust_domain: grant.trust_domain(),
        audience: grant.node(),
        least_number: grant.number(),
        now,
    };
    let payload =
        object
            .open_with_key(&approver.key, &expect)
            .map_err(|refused| match refused {
                Unacceptable::Expired => NotAnApproval::Expired,
                other => NotAnApproval::Signed(other),
            })?;
    // A clock that was wrong when it signed must not make an approval last.
    if header.expires > now.plus(MAX_APPROVAL_LIFETIME).plus(MAX_AHEAD) {
        return Err(NotAnApproval::Expired);
    }
    let payload: Payload = serde_json::from_slice(payload)
        .map_err(|_| NotAnApproval::Signed(Unacceptable::Payload))?;
    if payload.grant != hex::encode(grant.digest()) {
        return Err(NotAnApproval::OtherGrant);
    }
    match payload.operator == approver.id {
        true => Ok(approver),
        false => Err(NotAnApproval::NotAnApprover),
    }
}
