//! ActivateCredential: the EK opens what only it can open, for the AK it was made for.
//!
//! The EK is authorized by PolicySecret(endorsement) in a policy session, for P-384 followed by PolicyOR, never by
//! its empty password, which counts as a failed try whenever the machine loses power.

use edgeward_identity::Secret;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{AuthHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Digest, DigestList, EncryptedSecret, IdObject, Nonce, SymmetricDefinition,
};
use tss_esapi::{Context, Error, WrapperErrorKind};

use super::code::failed;
use super::device::{Device, EMPTY_AUTH, flush};
use super::ek::with_ek;
use super::{EkKind, TpmError, keys};

/// PolicyA of the EK Credential Profile with SHA-384: PolicySecret(TPM_RH_ENDORSEMENT).
const POLICY_A_SHA384: [u8; 48] = [
    0x8b, 0xbf, 0x22, 0x66, 0x53, 0x7c, 0x17, 0x1c, 0xb5, 0x6e, 0x40, 0x3c, 0x4d, 0xc1, 0xd4, 0xb6,
    0x4f, 0x43, 0x26, 0x11, 0xdc, 0x38, 0x6e, 0x6f, 0x53, 0x20, 0x50, 0xc3, 0x27, 0x8c, 0x93, 0x0e,
    0x14, 0x3e, 0x8b, 0xb1, 0x13, 0x38, 0x24, 0xcc, 0xb4, 0x31, 0x05, 0x38, 0x71, 0xc6, 0xdb, 0x53,
];
/// PolicyC of the EK Credential Profile with SHA-384: PolicyAuthorizeNV.
const POLICY_C_SHA384: [u8; 48] = [
    0xd6, 0x03, 0x2c, 0xe6, 0x1f, 0x2f, 0xb3, 0xc2, 0x40, 0xeb, 0x3c, 0xf6, 0xa3, 0x32, 0x37, 0xef,
    0x2b, 0x6a, 0x16, 0xf4, 0x29, 0x3c, 0x22, 0xb4, 0x55, 0xe2, 0x61, 0xcf, 0xfd, 0x21, 0x7a, 0xd5,
    0xb4, 0x94, 0x7c, 0x2d, 0x73, 0xe6, 0x30, 0x05, 0xee, 0xd2, 0xdc, 0x2b, 0x35, 0x93, 0xd1, 0x65,
];

/// Opens a credential made for this EK and our AK; `blob` and `secret` are the contents of `TPM2B_ID_OBJECT` and
/// `TPM2B_ENCRYPTED_SECRET`.
pub fn activate(
    device: &mut Device,
    kind: EkKind,
    blob: &[u8],
    secret: &[u8],
) -> Result<Secret<Vec<u8>>, TpmError> {
    let blob = IdObject::try_from(blob).map_err(failed("read a credential"))?;
    let secret = EncryptedSecret::try_from(secret).map_err(failed("read a credential"))?;
    let ak = keys::ak(device)?;
    with_ek(device, kind, |device, ek| {
        let opened = device.run("activate a credential", |context| {
            with_ek_policy(context, kind, |context, session| {
                context.execute_with_sessions((EMPTY_AUTH, Some(session), None), |context| {
                    context.activate_credential(ak, ek, blob.clone(), secret.clone())
                })
            })
        })?;
        Ok(Secret::new(opened.to_vec()))
    })
}

/// Runs `use_it` in a session that satisfies the EK's policy; the session is flushed whatever happens.
fn with_ek_policy<T>(
    context: &mut Context,
    kind: EkKind,
    use_it: impl FnOnce(&mut Context, AuthSession) -> Result<T, Error>,
) -> Result<T, Error> {
    let (cipher, hash) = match kind {
        EkKind::Rsa2048 | EkKind::P256 => {
            (SymmetricDefinition::AES_128_CFB, HashingAlgorithm::Sha256)
        }
        EkKind::P384 => (SymmetricDefinition::AES_256_CFB, HashingAlgorithm::Sha384),
    };
    let session = context
        .execute_without_session(|context| {
            context.start_auth_session(None, None, None, SessionType::Policy, cipher, hash)
        })?
        .ok_or(Error::WrapperError(WrapperErrorKind::WrongValueFromTpm))?;
    let result = satisfy(context, kind, session).and_then(|()| use_it(context, session));
    flush(context, SessionHandle::from(session).into());
    result
}

fn satisfy(context: &mut Context, kind: EkKind, session: AuthSession) -> Result<(), Error> {
    let policy = PolicySession::try_from(session)?;
    context.execute_with_session(EMPTY_AUTH, |context| {
        context.policy_secret(
            policy,
            AuthHandle::Endorsement,
            Nonce::default(),
            Digest::default(),
            Nonce::default(),
            None,
        )
    })?;
    if kind == EkKind::P384 {
        let mut branches = DigestList::new();
        branches.add(Digest::try_from(POLICY_A_SHA384.as_slice())?)?;
        branches.add(Digest::try_from(POLICY_C_SHA384.as_slice())?)?;
        context.execute_without_session(|context| context.policy_or(policy, branches))?;
    }
    Ok(())
}
