//! `TPMT_SIGNATURE` (part 2, 11.3.4) and its verification. The hash is always SHA-256.

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::alg::{ALG_ECDSA, ALG_RSAPSS, ALG_RSASSA, HashAlg};
use super::public::{Curve, Key, Public, RSA_EXPONENT, Scheme, left_pad};
use crate::reader::{Malformed, Reader, put_sized, put_u16};

/// Largest signature accepted, in bytes (RSA-4096 needs 518).
pub const MAX_SIGNATURE_BYTES: usize = 600;
const MAX_RSA_BYTES: usize = 512;
/// Longest ECDSA integer, in bytes.
const MAX_ECC_BYTES: usize = 48;

/// A parsed signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    Ecdsa {
        hash: HashAlg,
        r: Vec<u8>,
        s: Vec<u8>,
    },
    RsaSsa {
        hash: HashAlg,
        signature: Vec<u8>,
    },
    RsaPss {
        hash: HashAlg,
        signature: Vec<u8>,
    },
}

/// Why a signature is no good. The fault is the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureRefused {
    #[error("signature: {0}")]
    Malformed(#[from] Malformed),
    #[error("signature's algorithm or hash is not the key's")]
    Algorithm,
    #[error("signature does not verify")]
    Mismatch,
}

impl SignatureRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.code(),
            Self::Algorithm => "signature_algorithm",
            Self::Mismatch => "signature_mismatch",
        }
    }
}

impl Signature {
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "signature", MAX_SIGNATURE_BYTES)?;
        let scheme = reader.u16()?;
        if ![ALG_ECDSA, ALG_RSASSA, ALG_RSAPSS].contains(&scheme) {
            return Err(Malformed::Unsupported {
                what: "signature algorithm",
                value: scheme.into(),
            });
        }
        let hash = HashAlg::from_id(reader.u16()?)?;
        let parsed = if scheme == ALG_ECDSA {
            Self::Ecdsa {
                hash,
                r: reader.sized("ecdsa r", MAX_ECC_BYTES)?.to_vec(),
                s: reader.sized("ecdsa s", MAX_ECC_BYTES)?.to_vec(),
            }
        } else {
            let signature = reader.sized("rsa signature", MAX_RSA_BYTES)?.to_vec();
            if scheme == ALG_RSASSA {
                Self::RsaSsa { hash, signature }
            } else {
                Self::RsaPss { hash, signature }
            }
        };
        reader.end()?;
        Ok(parsed)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Ecdsa { hash, r, s } => {
                put_u16(&mut out, ALG_ECDSA);
                put_u16(&mut out, hash.id());
                put_sized(&mut out, r);
                put_sized(&mut out, s);
            }
            Self::RsaSsa { hash, signature } => {
                put_u16(&mut out, ALG_RSASSA);
                put_u16(&mut out, hash.id());
                put_sized(&mut out, signature);
            }
            Self::RsaPss { hash, signature } => {
                put_u16(&mut out, ALG_RSAPSS);
                put_u16(&mut out, hash.id());
                put_sized(&mut out, signature);
            }
        }
        out
    }

    /// Verifies over `message` under `key`, whose fixed scheme must be this signature's, with SHA-256.
    pub fn verify(&self, key: &Public, message: &[u8]) -> Result<(), SignatureRefused> {
        use HashAlg::Sha256;
        match (self, &key.key, key.scheme) {
            (
                Self::Ecdsa { hash: Sha256, r, s },
                Key::Ecc {
                    curve: Curve::P256, ..
                },
                Scheme::Ecdsa(Sha256),
            ) => verify_p256(key, message, r, s),
            (
                Self::RsaSsa {
                    hash: Sha256,
                    signature,
                },
                Key::Rsa { modulus, .. },
                Scheme::RsaSsa(Sha256),
            ) => verify_rsa(&RSA_PKCS1_2048_8192_SHA256, modulus, message, signature),
            (
                Self::RsaPss {
                    hash: Sha256,
                    signature,
                },
                Key::Rsa { modulus, .. },
                Scheme::RsaPss(Sha256),
            ) => verify_rsa(&RSA_PSS_2048_8192_SHA256, modulus, message, signature),
            _ => Err(SignatureRefused::Algorithm),
        }
    }
}

fn verify_p256(key: &Public, message: &[u8], r: &[u8], s: &[u8]) -> Result<(), SignatureRefused> {
    let length = Curve::P256.coordinate_len();
    if r.len() > length || s.len() > length {
        return Err(SignatureRefused::Mismatch);
    }
    let signature = [left_pad(r, length), left_pad(s, length)].concat();
    let point = key.ecc_point().ok_or(SignatureRefused::Algorithm)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(message, &signature)
        .map_err(|_| SignatureRefused::Mismatch)
}

fn verify_rsa(
    parameters: &RsaParameters,
    modulus: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureRefused> {
    let exponent = RSA_EXPONENT.to_be_bytes();
    RsaPublicKeyComponents {
        n: modulus,
        // ring refuses leading zeros.
        e: exponent.strip_prefix(&[0]).unwrap_or(&exponent),
    }
    .verify(parameters, message, signature)
    .map_err(|_| SignatureRefused::Mismatch)
}
