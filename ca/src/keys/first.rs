//! The keys of a trust domain that is being made.

use std::path::Path;

use edgeward_identity::{Signer, Timestamp, TrustDomain};
use rustls_pki_types::CertificateDer;

use super::ledger::{Authority, Ledger, Role, State};
use super::stores::{Owner, Stores};
use super::{KeysFault, certificates, files, keyring, sign_key_set};

/// Root, issuing authority, the other keys, and the key set that names them.
pub(super) fn make_first(
    folder: &Path,
    trust_domain: &TrustDomain,
    stores: &Stores,
    now: Timestamp,
) -> Result<(), KeysFault> {
    let authority = |role: Role, place, key: &dyn Signer, above| Authority {
        role,
        key: key.public_key().spki_hash(),
        name: role.as_str().to_owned(),
        place,
        state: State::Active,
        since: now,
        above,
    };
    let (root, place) = stores.make(Owner::Root, folder, "root")?;
    let root_certificate = certificates::root(trust_domain, root.as_ref(), now)?;
    write_certificate(folder, "root.crt", root_certificate.clone())?;
    let root_entry = authority(Role::Root, place, root.as_ref(), None);
    let (issuing, place) = stores.make(Owner::Issuing, folder, "issuing")?;
    let certificate = certificates::issuing(
        trust_domain,
        issuing.public_key(),
        &root_certificate,
        root.as_ref(),
        now,
    )?;
    write_certificate(folder, "issuing.crt", certificate)?;
    let issuing_entry = authority(Role::Issuing, place, issuing.as_ref(), Some(root_entry.key));
    let mut publics = Vec::new();
    for owner in [
        Owner::Results,
        Owner::Control,
        Owner::Log,
        Owner::Jwt,
        Owner::Director,
    ] {
        let (key, _) = stores.make(owner, folder, owner.as_str())?;
        publics.push(*key.public_key());
    }
    let set = sign_key_set(trust_domain, root.as_ref(), &publics, 1, now)?;
    files::write_public(&folder.join("keyset"), &set.to_bytes())?;
    keyring::write_ledger(folder, &Ledger::first(root_entry, issuing_entry))
}

fn write_certificate(
    folder: &Path,
    name: &str,
    certificate: CertificateDer<'static>,
) -> Result<(), KeysFault> {
    Ok(files::write_certificates(
        &folder.join(name),
        &[certificate],
    )?)
}
