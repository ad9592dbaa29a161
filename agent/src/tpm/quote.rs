//! Quote and Certify by the AK.

use edgeward_evidence::tpm::{ClockInfo, PcrBank, PcrSelection, PcrValue};
use ring::digest::{SHA256, digest};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{
    Attest, AttestInfo, Data, PcrSelectionList, PcrSlot, Signature, SignatureScheme,
};
use tss_esapi::traits::Marshall;

use super::code::failed;
use super::device::{Device, EMPTY_AUTH};
use super::{SvidSlot, TpmError, keys};

/// Read, quote, compare: a TPM has no command that does all, so a changed PCR means once more.
const MAX_QUOTES: u32 = 3;
/// Most PCRs that one `TPM2_PCR_Read` returns (`TPML_DIGEST` holds 8).
const MAX_READS: usize = 24;

/// Which PCRs to quote, and the qualifying data that goes into the signature.
#[derive(Clone, Debug)]
pub struct PcrRequest {
    pub selection: PcrSelection,
    pub qualifying_data: [u8; 32],
}

/// A signed quote, with the PCR values it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// `TPMS_ATTEST`.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
    /// By rising index.
    pub pcrs: Vec<PcrValue>,
    pub reset_count: u32,
    pub restart_count: u32,
}

/// A signed statement about the SVID key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// `TPMS_ATTEST`.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
}

/// Quotes until the values read are the values signed.
pub fn quote(device: &mut Device, request: &PcrRequest) -> Result<Quoted, TpmError> {
    let ak = keys::ak(device)?;
    let selection = selection_list(&request.selection)?;
    let data = Data::try_from(request.qualifying_data.as_slice())
        .map_err(failed("write qualifying data"))?;
    for _ in 0..MAX_QUOTES {
        let pcrs = read_pcrs(device, &request.selection)?;
        let (attest, signature) = device.run("quote", |context| {
            context.execute_with_session(EMPTY_AUTH, |context| {
                context.quote(ak, data.clone(), SignatureScheme::Null, selection.clone())
            })
        })?;
        let AttestInfo::Quote { info } = attest.attested() else {
            return Err(TpmError::Answer("a quote that is none"));
        };
        let values: Vec<u8> = pcrs
            .iter()
            .flat_map(|pcr| pcr.value.iter().copied())
            .collect();
        if digest(&SHA256, &values).as_ref() == info.pcr_digest().value() {
            return quoted(&attest, &signature, pcrs);
        }
        tracing::debug!("pcrs changed between reading and quoting");
    }
    Err(TpmError::PcrsUnstable(MAX_QUOTES))
}

/// The AK's word for the SVID key in a slot.
pub fn certify(
    device: &mut Device,
    slot: SvidSlot,
    qualifying_data: &[u8; 32],
) -> Result<Certified, TpmError> {
    let ak = keys::ak(device)?;
    let svid = keys::svid(device, slot)?;
    let data =
        Data::try_from(qualifying_data.as_slice()).map_err(failed("write qualifying data"))?;
    let (attest, signature) = device.run("certify", |context| {
        context.execute_with_sessions((EMPTY_AUTH, EMPTY_AUTH, None), |context| {
            context.certify(svid.into(), ak, data.clone(), SignatureScheme::Null)
        })
    })?;
    Ok(Certified {
        attest: attest.marshall().map_err(failed("write an attestation"))?,
        signature: signature.marshall().map_err(failed("write a signature"))?,
    })
}

/// The TPM's clock and counts, true because the AK is of the endorsement hierarchy.
pub fn clock(device: &mut Device) -> Result<ClockInfo, TpmError> {
    let ak = keys::ak(device)?;
    let (attest, _) = device.run("read the clock", |context| {
        context.execute_with_sessions((EMPTY_AUTH, EMPTY_AUTH, None), |context| {
            context.get_time(ak, Data::default(), SignatureScheme::Null)
        })
    })?;
    let clock = attest.clock_info();
    Ok(ClockInfo {
        clock_ms: clock.clock(),
        reset_count: clock.reset_count(),
        restart_count: clock.restart_count(),
        safe: clock.safe(),
    })
}

fn quoted(attest: &Attest, signature: &Signature, pcrs: Vec<PcrValue>) -> Result<Quoted, TpmError> {
    Ok(Quoted {
        attest: attest.marshall().map_err(failed("write an attestation"))?,
        signature: signature.marshall().map_err(failed("write a signature"))?,
        pcrs,
        reset_count: attest.clock_info().reset_count(),
        restart_count: attest.clock_info().restart_count(),
    })
}

/// Values by rising index, also where the TPM returns them in several goes.
pub(super) fn read_pcrs(
    device: &mut Device,
    selection: &PcrSelection,
) -> Result<Vec<PcrValue>, TpmError> {
    let bank = hashing(selection.bank());
    let mut left: Vec<u8> = selection.indexes().collect();
    let mut values = Vec::with_capacity(left.len());
    for _ in 0..MAX_READS {
        if left.is_empty() {
            break;
        }
        let asked = list_of(bank, &left)?;
        let (read, digests) = device.run("read pcrs", |context| {
            context
                .execute_without_session(|context| context.pcr_read(asked.clone()))
                .map(|(_, read, digests)| (read, digests))
        })?;
        let read: Vec<u8> = left
            .iter()
            .copied()
            .filter(|index| {
                slot(*index).is_ok_and(|slot| {
                    read.get_selections().iter().any(|bank_read| {
                        bank_read.hashing_algorithm() == bank && bank_read.is_selected(slot)
                    })
                })
            })
            .collect();
        if read.is_empty() || read.len() != digests.len() {
            return Err(TpmError::PcrSelection(
                "the tpm keeps no such bank or register".to_owned(),
            ));
        }
        for (index, digest) in read.iter().zip(digests.value()) {
            values.push(PcrValue {
                index: *index,
                value: digest.to_vec(),
            });
        }
        left.retain(|index| !read.contains(index));
    }
    values.sort_by_key(|value| value.index);
    Ok(values)
}

fn selection_list(selection: &PcrSelection) -> Result<PcrSelectionList, TpmError> {
    let indexes: Vec<u8> = selection.indexes().collect();
    list_of(hashing(selection.bank()), &indexes)
}

fn list_of(bank: HashingAlgorithm, indexes: &[u8]) -> Result<PcrSelectionList, TpmError> {
    let slots = indexes
        .iter()
        .map(|index| slot(*index))
        .collect::<Result<Vec<_>, _>>()?;
    PcrSelectionList::builder()
        .with_selection(bank, &slots)
        .build()
        .map_err(failed("write a pcr selection"))
}

fn slot(index: u8) -> Result<PcrSlot, TpmError> {
    1u32.checked_shl(u32::from(index))
        .and_then(|bit| PcrSlot::try_from(bit).ok())
        .ok_or_else(|| TpmError::PcrSelection(format!("no pcr {index}")))
}

fn hashing(bank: PcrBank) -> HashingAlgorithm {
    match bank {
        PcrBank::Sha256 => HashingAlgorithm::Sha256,
        PcrBank::Sha384 => HashingAlgorithm::Sha384,
        PcrBank::Sha512 => HashingAlgorithm::Sha512,
    }
}
