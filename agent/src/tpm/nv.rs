//! The epoch: one NV counter that can only rise, which tells an old state file from the newest.

use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::NvIndexType;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::structures::NvPublicBuilder;

use super::TpmError;
use super::code::{Fault, failed};
use super::device::{Device, EMPTY_AUTH};

/// Bytes of an NV counter.
const COUNTER_BYTES: u16 = 8;

/// The epoch; none where the counter was never made.
pub fn epoch(device: &mut Device) -> Result<Option<u64>, TpmError> {
    match find(device)? {
        Some(index) => read(device, index),
        None => Ok(None),
    }
}

/// Raises the epoch by one and returns it. Makes the counter where there is none; a new counter starts above every
/// counter that this TPM ever had.
pub fn raise_epoch(device: &mut Device) -> Result<u64, TpmError> {
    let index = match find(device)? {
        Some(index) => index,
        None => define(device)?,
    };
    device.run("raise the epoch", |context| {
        context.execute_with_session(EMPTY_AUTH, |context| {
            context.nv_increment(NvAuth::Owner, index)
        })
    })?;
    read(device, index)?.ok_or(TpmError::Answer(
        "a counter that was raised and never written",
    ))
}

fn find(device: &mut Device) -> Result<Option<NvIndexHandle>, TpmError> {
    let handle = TpmHandle::NvIndex(index_of(device)?);
    device.run("find the epoch", |context| {
        match context.execute_without_session(|context| context.tr_from_tpm_public(handle)) {
            Ok(found) => Ok(Some(NvIndexHandle::from(found))),
            Err(error) if Fault::from(error).is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    })
}

fn define(device: &mut Device) -> Result<NvIndexHandle, TpmError> {
    let index = index_of(device)?;
    let attributes = NvIndexAttributesBuilder::new()
        .with_owner_write(true)
        .with_owner_read(true)
        .with_no_da(true)
        .with_nv_index_type(NvIndexType::Counter)
        .build()
        .map_err(failed("describe the epoch"))?;
    let public = NvPublicBuilder::new()
        .with_nv_index(index)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_data_area_size(usize::from(COUNTER_BYTES))
        .build()
        .map_err(failed("describe the epoch"))?;
    device.run("make the epoch", |context| {
        context.execute_with_session(EMPTY_AUTH, |context| {
            context.nv_define_space(Provision::Owner, None, public.clone())
        })
    })
}

fn read(device: &mut Device, index: NvIndexHandle) -> Result<Option<u64>, TpmError> {
    let bytes = device.run("read the epoch", |context| {
        match context.execute_with_session(EMPTY_AUTH, |context| {
            context.nv_read(NvAuth::Owner, index, COUNTER_BYTES, 0)
        }) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(error) if Fault::from(error).is_uninitialized() => Ok(None),
            Err(error) => Err(error),
        }
    })?;
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    bytes
        .try_into()
        .map(|bytes| Some(u64::from_be_bytes(bytes)))
        .map_err(|_| TpmError::Answer("a counter that is not eight bytes"))
}

fn index_of(device: &Device) -> Result<NvIndexTpmHandle, TpmError> {
    NvIndexTpmHandle::new(device.place().epoch_index).map_err(failed("name the epoch's index"))
}
