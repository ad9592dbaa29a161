//! The key set: which key may sign what.

use edgeward_identity::signed::{EVERYBODY, Header, PurposeKey};
use edgeward_identity::{
    PublicKey, Purpose, SignError, SignedObject, Signer, Timestamp, TrustDomain,
};

use super::KEY_SET_LIFETIME;

/// Signs the key set of these keys: results, control, log, and where there are any those of JWT-SVIDs and the director.
pub(super) fn sign_key_set(
    trust_domain: &TrustDomain,
    root: &dyn Signer,
    publics: &[PublicKey],
    number: u64,
    now: Timestamp,
) -> Result<SignedObject, SignError> {
    let expires = now.plus(KEY_SET_LIFETIME);
    let purposes: [&[Purpose]; 5] = [
        &[Purpose::Results],
        &[
            Purpose::Policy,
            Purpose::DenyList,
            Purpose::Control,
            Purpose::BreakGlass,
        ],
        &[Purpose::Log],
        &[Purpose::Jwt],
        &[Purpose::Director],
    ];
    let keys: Vec<PurposeKey> = publics
        .iter()
        .zip(purposes)
        .flat_map(|(key, purposes)| {
            purposes.iter().map(|purpose| PurposeKey {
                purpose: *purpose,
                key: *key,
                not_after: expires,
            })
        })
        .collect();
    let header = Header {
        purpose: Purpose::Keys,
        trust_domain: trust_domain.clone(),
        audience: EVERYBODY.to_owned(),
        number,
        issued: now,
        expires,
    };
    SignedObject::sign_json(root, header, &keys)
}
