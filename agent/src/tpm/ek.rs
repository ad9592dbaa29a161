//! The endorsement key: found or made, with its certificate and chain from NV.
//!
//! NV indices of the TCG EK Credential Profile 2.5; the chain (on-die CAs) lies from 0x01c00100 to 0x01c001ff.

use edgeward_evidence::ek::der;
use tss_esapi::abstraction::nv as nv_read;
use tss_esapi::handles::{KeyHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::{Hierarchy, NvAuth};

use super::code::{Fault, failed};
use super::device::{Device, EMPTY_AUTH, flush, handles_from};
use super::{TpmError, keys, template};

/// First index of the certificate chain, and the one after its last.
const CHAIN_INDICES: std::ops::Range<u32> = 0x01c0_0100..0x01c0_0200;
/// Most bytes of chain that are read.
const MAX_CHAIN_BYTES: usize = 16 * 1024;
/// Most certificates of the chain beside the EK's own.
const MAX_CHAIN: usize = 4;

/// Certificate indices of EKs that this version does not use, with their names (TCG EK Credential Profile 2.5, 2.2.1).
const UNSUPPORTED: [(u32, &str); 6] = [
    (0x01c0_0012, "rsa-2048 of the high range"),
    (0x01c0_0014, "p-256 of the high range"),
    (0x01c0_0018, "p-521"),
    (0x01c0_001a, "sm2"),
    (0x01c0_001c, "rsa-3072"),
    (0x01c0_001e, "rsa-4096"),
];

/// Which kind of EK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EkKind {
    /// L-1: RSA-2048, SHA-256, AES-128.
    Rsa2048,
    /// L-2: P-256, SHA-256, AES-128.
    P256,
    /// H-3: P-384, SHA-384, AES-256.
    P384,
}

/// Which EK to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub enum EkChoice {
    /// The first with a certificate: P-256, P-384, RSA-2048; without any certificate P-256.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    #[serde(rename = "p-256")]
    P256,
    #[serde(rename = "p-384")]
    P384,
}

/// What the TPM says about its EK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    pub kind: EkKind,
    /// DER, the EK's own first, then any chain found in NV. Empty where the TPM holds none.
    pub certificates: Vec<Vec<u8>>,
    /// `TPMT_PUBLIC`.
    pub public: Vec<u8>,
}

impl EkKind {
    /// In the order of preference: ECC is far faster.
    pub const ALL: [Self; 3] = [Self::P256, Self::P384, Self::Rsa2048];

    fn certificate_index(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x01c0_0002,
            Self::P256 => 0x01c0_000a,
            Self::P384 => 0x01c0_0016,
        }
    }

    fn persistent_handle(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x8101_0001,
            Self::P256 => 0x8101_000a,
            Self::P384 => 0x8101_0016,
        }
    }
}

impl std::fmt::Display for EkKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rsa2048 => "rsa-2048",
            Self::P256 => "p-256",
            Self::P384 => "p-384",
        })
    }
}

impl EkChoice {
    fn kinds(self) -> &'static [EkKind] {
        match self {
            Self::Auto => &EkKind::ALL,
            Self::Rsa2048 => &[EkKind::Rsa2048],
            Self::P256 => &[EkKind::P256],
            Self::P384 => &[EkKind::P384],
        }
    }
}

/// The EK to enrol with.
pub fn endorsement(device: &mut Device, choice: EkChoice) -> Result<Endorsement, TpmError> {
    let (kind, own) = choose(device, choice)?;
    let public = with_ek(device, kind, |device, ek| {
        let public = keys::public_of(device, ek)?;
        keys::marshalled(&public)
    })?;
    let mut certificates: Vec<Vec<u8>> = own.into_iter().collect();
    if !certificates.is_empty() {
        certificates.extend(chain(device)?);
    }
    Ok(Endorsement {
        kind,
        certificates,
        public,
    })
}

fn choose(device: &mut Device, choice: EkChoice) -> Result<(EkKind, Option<Vec<u8>>), TpmError> {
    for kind in choice.kinds() {
        if let Some(bytes) = read_index(device, kind.certificate_index())? {
            // Vendors pad the index with zeros or 0xff.
            match der::trim(&bytes) {
                Ok(certificate) => return Ok((*kind, Some(certificate.to_vec()))),
                Err(why) => tracing::warn!(?kind, why, "the ek certificate in nv is not der"),
            }
        }
    }
    if choice == EkChoice::Auto {
        refuse_unsupported(device)?;
    }
    choice
        .kinds()
        .first()
        .map(|kind| (*kind, None))
        .ok_or(TpmError::NoEndorsementKey)
}

/// A maker's certificate that cannot be used must not be passed over in silence: the EK taken instead has none.
fn refuse_unsupported(device: &mut Device) -> Result<(), TpmError> {
    for (index, name) in UNSUPPORTED {
        if read_index(device, index)?.is_some() {
            return Err(TpmError::EndorsementKeyUnsupported(name));
        }
    }
    Ok(())
}

/// Runs `use_it` with the EK: the persistent one, or one made for the moment and flushed afterwards.
pub(super) fn with_ek<T>(
    device: &mut Device,
    kind: EkKind,
    use_it: impl FnOnce(&mut Device, KeyHandle) -> Result<T, TpmError>,
) -> Result<T, TpmError> {
    let template = template::ek(kind).map_err(failed("describe the ek"))?;
    if let Some(found) = device.persistent(kind.persistent_handle())?
        && template::same_shape(&keys::public_of(device, found)?, &template)
    {
        return use_it(device, found);
    }
    let made = device.run("make the ek", |context| {
        context
            .execute_with_session(EMPTY_AUTH, |context| {
                context.create_primary(
                    Hierarchy::Endorsement,
                    template.clone(),
                    None,
                    None,
                    None,
                    None,
                )
            })
            .map(|made| made.key_handle)
    })?;
    let result = use_it(device, made);
    device.with_context(|context| flush(context, made.into()));
    result
}

/// The certificates of the chain: the indices' contents joined, cut into DER elements.
fn chain(device: &mut Device) -> Result<Vec<Vec<u8>>, TpmError> {
    let indices = device.run("list nv indices", |context| {
        handles_from(context, CHAIN_INDICES.start)
    })?;
    let mut joined = Vec::new();
    for index in indices {
        let TpmHandle::NvIndex(index) = index else {
            continue;
        };
        let index = u32::from(index);
        if !CHAIN_INDICES.contains(&index) {
            continue;
        }
        let Some(part) = read_index(device, index)? else {
            continue;
        };
        if joined.len() + part.len() > MAX_CHAIN_BYTES {
            tracing::warn!(
                limit_bytes = MAX_CHAIN_BYTES,
                "the ek certificate chain in nv is longer than the limit: its end is left out"
            );
            break;
        }
        joined.extend(part);
    }
    Ok(split_chain(&joined))
}

/// Cuts what the chain's NV indices hold into certificates; stops at what is none. A certificate may go over from one
/// index into the next, and an index may be padded.
pub fn split_chain(joined: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = joined;
    let mut certificates = Vec::new();
    while certificates.len() < MAX_CHAIN
        && let Ok(first) = first_element(rest)
    {
        certificates.push(first.to_vec());
        rest = without_padding(rest.get(first.len()..).unwrap_or_default());
    }
    certificates
}

/// Vendors fill up with zeros or ones; neither begins a certificate.
fn without_padding(mut bytes: &[u8]) -> &[u8] {
    while let [0x00 | 0xff, rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// The DER SEQUENCE that `bytes` begins with.
fn first_element(bytes: &[u8]) -> Result<&[u8], ()> {
    let (header, length) = match bytes {
        [0x30, 0x81, length, ..] => (3, usize::from(*length)),
        [0x30, 0x82, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        [0x30, length @ 0..=0x7f, ..] => (2, usize::from(*length)),
        _ => return Err(()),
    };
    bytes.get(..header + length).ok_or(())
}

fn read_index(device: &mut Device, index: u32) -> Result<Option<Vec<u8>>, TpmError> {
    let handle = NvIndexTpmHandle::new(index).map_err(failed("name an nv index"))?;
    // Certificates may be readable by owner or by anybody; owner first, as most are.
    device.run("read an nv index", |context| {
        match context.execute_with_session(EMPTY_AUTH, |context| {
            nv_read::read_full(context, NvAuth::Owner, handle)
        }) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => {
                let fault = Fault::from(error);
                if fault.is_absent() || fault.is_uninitialized() {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_cut_at_der_elements_and_stops_at_padding() {
        let one = [0x30, 0x03, 1, 2, 3];
        let mut two = vec![0x30, 0x81, 200];
        two.extend([7; 200]);
        let joined = [one.as_slice(), &[0; 3], &two, &[0xff; 9]].concat();
        assert_eq!(split_chain(&joined), [one.to_vec(), two]);
        assert_eq!(split_chain(&one.repeat(9)).len(), MAX_CHAIN);
        assert_eq!(split_chain(&[one.as_slice(), &[1], &one].concat()).len(), 1);
        assert!(split_chain(&[0; 9]).is_empty());
        assert!(split_chain(&[0x30, 0x82, 0xff, 0xff, 0]).is_empty());
        assert!(split_chain(&[]).is_empty());
    }
}
