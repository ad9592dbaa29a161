//! The PCR in which applications are measured: extended and read in the bank of SHA-256.

use edgeward_evidence::tpm::{PcrBank, PcrSelection};
use tss_esapi::handles::PcrHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{Digest, DigestValues};

use super::code::failed;
use super::device::{Device, EMPTY_AUTH};
use super::{TpmError, quote};

/// A value in the bank of SHA-256.
pub type Value = [u8; 32];

/// Extends a PCR. What was done cannot be taken back before the machine reboots.
pub fn extend(device: &mut Device, pcr: u8, digest: Value) -> Result<(), TpmError> {
    let handle = handle_of(pcr)?;
    let digest = Digest::try_from(digest.as_slice()).map_err(failed("write a digest"))?;
    let mut values = DigestValues::new();
    values.set(HashingAlgorithm::Sha256, digest);
    // Not retried by itself: nobody could tell whether the first try was done.
    device.once("extend a pcr", |context| {
        context.execute_with_session(EMPTY_AUTH, |context| {
            context.pcr_extend(handle, values.clone())
        })
    })
}

/// What a PCR holds.
pub fn read(device: &mut Device, pcr: u8) -> Result<Value, TpmError> {
    let selection = PcrSelection::new(PcrBank::Sha256, [pcr])
        .map_err(|_| TpmError::PcrSelection(format!("no pcr {pcr}")))?;
    let values = quote::read_pcrs(device, &selection)?;
    let value = values.into_iter().next();
    value
        .and_then(|read| read.value.try_into().ok())
        .ok_or(TpmError::Answer("a pcr without a value"))
}

fn handle_of(pcr: u8) -> Result<PcrHandle, TpmError> {
    let handle = match pcr {
        8 => PcrHandle::Pcr8,
        9 => PcrHandle::Pcr9,
        11 => PcrHandle::Pcr11,
        12 => PcrHandle::Pcr12,
        13 => PcrHandle::Pcr13,
        14 => PcrHandle::Pcr14,
        15 => PcrHandle::Pcr15,
        // The rest is the firmware's, IMA's, or may be reset.
        _ => return Err(TpmError::PcrSelection(format!("pcr {pcr} is not extended"))),
    };
    Ok(handle)
}
