//! Signing keys whose only place is a file: made in this TPM, wrapped by it, and of use to no other. For keys of people
//! that have no handle of their own, such as a publisher's.
//!
//! As in [`seal`](super::seal), the object lies under a storage root made from the owner seed each time.

use edgeward_identity::PublicKey;
use serde::{Deserialize, Serialize};
use tss_esapi::structures::{Digest, Private, Public, SignatureScheme};
use tss_esapi::traits::{Marshall, UnMarshall};

use super::code::failed;
use super::device::{Device, EMPTY_AUTH, with_transient};
use super::seal::with_storage_root;
use super::signer::{ecdsa_der, outside_digest, point_of};
use super::{TpmError, template};

/// What is stored: useless without the TPM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptKey {
    /// `TPMT_PUBLIC`.
    #[serde(with = "hex::serde")]
    public: Vec<u8>,
    /// Content of `TPM2B_PRIVATE`.
    #[serde(with = "hex::serde")]
    private: Vec<u8>,
}

impl KeptKey {
    /// As the blob states it: whoever must rely on it lets it sign and verifies.
    pub fn public_key(&self) -> Result<PublicKey, TpmError> {
        point_of(&self.public)
    }
}

/// Makes a key. Nothing of it stays in the TPM.
pub fn make(device: &mut Device) -> Result<KeptKey, TpmError> {
    let template = template::kept().map_err(failed("describe a signing key"))?;
    let made = device.run("make a signing key", |context| {
        with_storage_root(context, |context, root| {
            context.execute_with_session(EMPTY_AUTH, |context| {
                context.create(root, template.clone(), None, None, None, None)
            })
        })
    })?;
    Ok(KeptKey {
        public: made
            .out_public
            .marshall()
            .map_err(failed("write a public key"))?,
        private: made.out_private.to_vec(),
    })
}

/// ECDSA over a SHA-256, as ASN.1 DER. An altered blob, or one of another TPM, is refused.
pub fn sign(device: &mut Device, key: &KeptKey, digest: &[u8; 32]) -> Result<Vec<u8>, TpmError> {
    let public = Public::unmarshall(&key.public).map_err(failed("read a signing key"))?;
    let private =
        Private::try_from(key.private.as_slice()).map_err(failed("read a signing key"))?;
    let digest = Digest::try_from(digest.as_slice()).map_err(failed("write a digest"))?;
    let signature = device.run("sign", |context| {
        let ticket = outside_digest()?;
        with_storage_root(context, |context, root| {
            let object = context.execute_with_session(EMPTY_AUTH, |context| {
                context.load(root, private.clone(), public.clone())
            })?;
            with_transient(context, object, |context, object| {
                context.execute_with_session(EMPTY_AUTH, |context| {
                    context.sign(object, digest.clone(), SignatureScheme::Null, ticket)
                })
            })
        })
    })?;
    ecdsa_der(&signature)
}
