//! Sealing: a small secret that only this TPM gives back.
//!
//! The object lies under a storage root made from the owner seed each time, so nothing but the blob is kept. No PCR
//! policy: a firmware update must not brick the node. What it protects against is a copied or edited disk.

use edgeward_identity::Secret;
use serde::{Deserialize, Serialize};
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::structures::{Private, Public, SensitiveData};
use tss_esapi::traits::{Marshall, UnMarshall};
use tss_esapi::{Context, Error};

use super::code::failed;
use super::device::{Device, EMPTY_AUTH, with_transient};
use super::{TpmError, template};

/// Largest secret, in bytes.
pub const MAX_SEALED_BYTES: usize = 128;

/// What is stored beside the data: useless without the TPM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedBlob {
    /// `TPMT_PUBLIC`.
    #[serde(with = "hex::serde")]
    public: Vec<u8>,
    /// Content of `TPM2B_PRIVATE`.
    #[serde(with = "hex::serde")]
    private: Vec<u8>,
}

/// Seals a secret to this TPM.
pub fn seal(device: &mut Device, secret: &[u8]) -> Result<SealedBlob, TpmError> {
    if secret.len() > MAX_SEALED_BYTES {
        return Err(TpmError::Answer("a secret too long to seal"));
    }
    let template = template::sealed().map_err(failed("describe a sealed object"))?;
    let data = SensitiveData::try_from(secret).map_err(failed("write a secret"))?;
    let made = device.run("seal", |context| {
        with_storage_root(context, |context, root| {
            context.execute_with_session(EMPTY_AUTH, |context| {
                context.create(root, template.clone(), None, Some(data.clone()), None, None)
            })
        })
    })?;
    Ok(SealedBlob {
        public: made
            .out_public
            .marshall()
            .map_err(failed("write a sealed object"))?,
        private: made.out_private.to_vec(),
    })
}

/// Gives back what [`seal`] sealed to this TPM; an altered blob, or one of another TPM, is refused.
pub fn unseal(device: &mut Device, blob: &SealedBlob) -> Result<Secret<Vec<u8>>, TpmError> {
    let public = Public::unmarshall(&blob.public).map_err(failed("read a sealed object"))?;
    let private =
        Private::try_from(blob.private.as_slice()).map_err(failed("read a sealed object"))?;
    let data = device.run("unseal", |context| {
        with_storage_root(context, |context, root| {
            let object = context.execute_with_session(EMPTY_AUTH, |context| {
                context.load(root, private.clone(), public.clone())
            })?;
            with_transient(context, object, |context, object| {
                context.execute_with_session(EMPTY_AUTH, |context| context.unseal(object.into()))
            })
        })
    })?;
    Ok(Secret::new(data.to_vec()))
}

pub(super) fn with_storage_root<T>(
    context: &mut Context,
    use_it: impl FnOnce(&mut Context, tss_esapi::handles::KeyHandle) -> Result<T, Error>,
) -> Result<T, Error> {
    let root = context
        .execute_with_session(EMPTY_AUTH, |context| {
            context.create_primary(
                Hierarchy::Owner,
                template::storage_root()?,
                None,
                None,
                None,
                None,
            )
        })?
        .key_handle;
    with_transient(context, root, use_it)
}
