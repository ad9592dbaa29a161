//! Our persistent keys: the AK in the endorsement hierarchy, the SVID key in the owner hierarchy.
//!
//! A primary key of the endorsement hierarchy signs the true resetCount, and its qualified name proves where it
//! lives. The SVID key has two places, so that the one in use stays until its successor's certificate is stored.

use ring::digest::{Context as Sha256, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tss_esapi::handles::{KeyHandle, PersistentTpmHandle};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::structures::Public;
use tss_esapi::traits::Marshall;

use super::code::failed;
use super::device::{Device, EMPTY_AUTH, flush};
use super::{TpmError, template};

/// One of the two places of the SVID key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SvidSlot {
    #[default]
    A,
    B,
}

impl SvidSlot {
    /// The other place.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(super) fn handle(self, first: u32) -> u32 {
        match self {
            Self::A => first + 1,
            Self::B => first + 2,
        }
    }
}

/// The AK, made if it is not there; returns its handle.
pub(super) fn ak(device: &mut Device) -> Result<KeyHandle, TpmError> {
    let template = template::ak().map_err(failed("describe the ak"))?;
    let handle = device.place().first_handle;
    ensure(device, handle, Hierarchy::Endorsement, &template)
}

/// `TPMT_PUBLIC` of the AK, made if it is not there.
pub fn ak_public(device: &mut Device) -> Result<Vec<u8>, TpmError> {
    let ak = ak(device)?;
    marshalled(&public_of(device, ak)?)
}

/// `TPMT_PUBLIC` of the SVID key in a slot.
pub fn svid_public(device: &mut Device, slot: SvidSlot) -> Result<Vec<u8>, TpmError> {
    let key = svid(device, slot)?;
    marshalled(&public_of(device, key)?)
}

pub(super) fn svid(device: &mut Device, slot: SvidSlot) -> Result<KeyHandle, TpmError> {
    device.required(slot.handle(device.place().first_handle))
}

/// Makes a new SVID key in a slot and returns its `TPMT_PUBLIC`. What was there is gone: never the slot in use.
pub fn renew_svid(device: &mut Device, slot: SvidSlot) -> Result<Vec<u8>, TpmError> {
    let template = template::svid(&fresh_label()?).map_err(failed("describe the svid key"))?;
    let handle = slot.handle(device.place().first_handle);
    if let Some(old) = device.persistent(handle)? {
        if !template::same_shape(&public_of(device, old)?, &template) {
            return Err(TpmError::HandleTaken { handle });
        }
        evict(device, old, handle)?;
    }
    let key = make(device, handle, Hierarchy::Owner, &template)?;
    marshalled(&public_of(device, key)?)
}

fn ensure(
    device: &mut Device,
    handle: u32,
    hierarchy: Hierarchy,
    template: &Public,
) -> Result<KeyHandle, TpmError> {
    let Some(found) = device.persistent(handle)? else {
        return make(device, handle, hierarchy, template);
    };
    if template::same_shape(&public_of(device, found)?, template) {
        Ok(found)
    } else {
        Err(TpmError::HandleTaken { handle })
    }
}

fn make(
    device: &mut Device,
    handle: u32,
    hierarchy: Hierarchy,
    template: &Public,
) -> Result<KeyHandle, TpmError> {
    let place = persistent(handle)?;
    device.run("make a key", |context| {
        let made = context.execute_with_session(EMPTY_AUTH, |context| {
            context.create_primary(hierarchy, template.clone(), None, None, None, None)
        })?;
        let kept = context.execute_with_session(EMPTY_AUTH, |context| {
            context.evict_control(Provision::Owner, made.key_handle.into(), place)
        });
        flush(context, made.key_handle.into());
        kept.map(|_| ())
    })?;
    device.forget(handle);
    device.required(handle)
}

fn evict(device: &mut Device, key: KeyHandle, handle: u32) -> Result<(), TpmError> {
    let place = persistent(handle)?;
    device.run("remove a key", |context| {
        context
            .execute_with_session(EMPTY_AUTH, |context| {
                context.evict_control(Provision::Owner, key.into(), place)
            })
            .map(|_| ())
    })?;
    // ESYS closed the handle together with the object.
    device.lose(handle);
    Ok(())
}

pub(super) fn public_of(device: &mut Device, key: KeyHandle) -> Result<Public, TpmError> {
    device.run("read a public key", |context| {
        context
            .execute_without_session(|context| context.read_public(key))
            .map(|(public, _, _)| public)
    })
}

pub(super) fn marshalled(public: &Public) -> Result<Vec<u8>, TpmError> {
    public.marshall().map_err(failed("write a public key"))
}

fn persistent(handle: u32) -> Result<Persistent, TpmError> {
    PersistentTpmHandle::new(handle)
        .map(Persistent::Persistent)
        .map_err(failed("name a persistent handle"))
}

fn fresh_label() -> Result<[u8; 32], TpmError> {
    let mut random = [0; 32];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| TpmError::Answer("the random source failed"))?;
    let mut hash = Sha256::new(&SHA256);
    hash.update(b"edgeward svid key v1");
    hash.update(&random);
    let mut label = [0; 32];
    label.copy_from_slice(hash.finish().as_ref());
    Ok(label)
}
