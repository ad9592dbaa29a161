//! `TPMS_ATTEST` (part 2, 10.12.12): what a TPM signs. Quotes and certifications only.

use serde::{Deserialize, Serialize};

use super::pcr::{BankSelection, put_selections, read_selections};
use super::public::MAX_NAME_BYTES;
use crate::reader::{Malformed, Reader, put_sized, put_u16, put_u32};

/// `TPM_GENERATED_VALUE`: a restricted key signs it only inside a structure that the TPM made itself.
pub const TPM_GENERATED: u32 = 0xff54_4347;
/// Largest attested structure accepted, in bytes.
pub const MAX_ATTEST_BYTES: usize = 1024;
/// Longest qualifying data, in bytes (`TPM2B_DATA`).
pub const MAX_EXTRA_BYTES: usize = 66;

pub(crate) const ST_ATTEST_CERTIFY: u16 = 0x8017;
pub(crate) const ST_ATTEST_QUOTE: u16 = 0x8018;
/// Longest PCR digest, in bytes.
const MAX_DIGEST_BYTES: usize = 64;

/// A parsed attested structure. Says nothing about who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest {
    /// Qualified name of the signing key.
    pub qualified_signer: Vec<u8>,
    /// The caller's qualifying data.
    pub extra_data: Vec<u8>,
    pub clock: ClockInfo,
    /// Vendor-specific version of the TPM's firmware.
    pub firmware: u64,
    pub body: AttestBody,
}

/// What was attested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttestBody {
    Quote {
        selections: Vec<BankSelection>,
        pcr_digest: Vec<u8>,
    },
    Certify {
        name: Vec<u8>,
        qualified_name: Vec<u8>,
    },
}

/// `TPMS_CLOCK_INFO` (part 2, 10.11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockInfo {
    /// Milliseconds that the TPM has been powered; may fall back after an unorderly stop.
    pub clock_ms: u64,
    /// Boots since the TPM was cleared.
    pub reset_count: u32,
    /// Resumes (and hash events) since the last boot.
    pub restart_count: u32,
    /// Whether no higher clock has ever been reported.
    pub safe: bool,
}

impl Attest {
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "attested structure", MAX_ATTEST_BYTES)?;
        let magic = reader.u32()?;
        if magic != TPM_GENERATED {
            return Err(Malformed::Magic(magic));
        }
        let kind = reader.u16()?;
        if kind != ST_ATTEST_QUOTE && kind != ST_ATTEST_CERTIFY {
            return Err(Malformed::Unsupported {
                what: "attestation type",
                value: kind.into(),
            });
        }
        let qualified_signer = reader.sized("qualified signer", MAX_NAME_BYTES)?.to_vec();
        let extra_data = reader.sized("qualifying data", MAX_EXTRA_BYTES)?.to_vec();
        let clock = ClockInfo {
            clock_ms: reader.u64()?,
            reset_count: reader.u32()?,
            restart_count: reader.u32()?,
            safe: read_yes_no(&mut reader)?,
        };
        let firmware = reader.u64()?;
        let body = if kind == ST_ATTEST_QUOTE {
            AttestBody::Quote {
                selections: read_selections(&mut reader)?,
                pcr_digest: reader.sized("pcr digest", MAX_DIGEST_BYTES)?.to_vec(),
            }
        } else {
            AttestBody::Certify {
                name: reader.sized("certified name", MAX_NAME_BYTES)?.to_vec(),
                qualified_name: reader.sized("qualified name", MAX_NAME_BYTES)?.to_vec(),
            }
        };
        reader.end()?;
        Ok(Self {
            qualified_signer,
            extra_data,
            clock,
            firmware,
            body,
        })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        put_u32(&mut out, TPM_GENERATED);
        put_u16(
            &mut out,
            match self.body {
                AttestBody::Quote { .. } => ST_ATTEST_QUOTE,
                AttestBody::Certify { .. } => ST_ATTEST_CERTIFY,
            },
        );
        put_sized(&mut out, &self.qualified_signer);
        put_sized(&mut out, &self.extra_data);
        out.extend_from_slice(&self.clock.clock_ms.to_be_bytes());
        put_u32(&mut out, self.clock.reset_count);
        put_u32(&mut out, self.clock.restart_count);
        out.push(self.clock.safe.into());
        out.extend_from_slice(&self.firmware.to_be_bytes());
        match &self.body {
            AttestBody::Quote {
                selections,
                pcr_digest,
            } => {
                put_selections(&mut out, selections);
                put_sized(&mut out, pcr_digest);
            }
            AttestBody::Certify {
                name,
                qualified_name,
            } => {
                put_sized(&mut out, name);
                put_sized(&mut out, qualified_name);
            }
        }
        out
    }
}

fn read_yes_no(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Malformed::Unsupported {
            what: "yes or no",
            value: other.into(),
        }),
    }
}
