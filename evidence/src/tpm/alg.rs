//! Algorithm identifiers (part 2, 6.3, `TPM_ALG_ID`) and the hash functions behind them.

use crate::reader::Malformed;

pub(crate) const ALG_RSA: u16 = 0x0001;
pub(crate) const ALG_AES: u16 = 0x0006;
pub(crate) const ALG_NULL: u16 = 0x0010;
pub(crate) const ALG_RSASSA: u16 = 0x0014;
pub(crate) const ALG_RSAPSS: u16 = 0x0016;
pub(crate) const ALG_ECDSA: u16 = 0x0018;
pub(crate) const ALG_ECC: u16 = 0x0023;
pub(crate) const ALG_CFB: u16 = 0x0043;

/// A hash algorithm. SHA-1 can be named, since old structures carry it; every judge refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HashAlg {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl HashAlg {
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// `TPM_ALG_ID`.
    pub const fn id(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
            Self::Sha512 => 0x000d,
        }
    }

    pub fn from_id(id: u16) -> Result<Self, Malformed> {
        Self::ALL
            .into_iter()
            .find(|alg| alg.id() == id)
            .ok_or(Malformed::Unsupported {
                what: "hash algorithm",
                value: id.into(),
            })
    }

    /// Digest length in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of all parts, one after another.
    pub fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut context = ring::digest::Context::new(self.ring());
        for part in parts {
            context.update(part);
        }
        context.finish().as_ref().to_vec()
    }

    /// The same algorithm, by the library's name.
    pub(crate) fn ring(self) -> &'static ring::digest::Algorithm {
        match self {
            Self::Sha1 => &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &ring::digest::SHA256,
            Self::Sha384 => &ring::digest::SHA384,
            Self::Sha512 => &ring::digest::SHA512,
        }
    }

    /// As policies write it: `sha256`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    pub(crate) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> ring::hmac::Tag {
        let algorithm = match self {
            Self::Sha1 => ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => ring::hmac::HMAC_SHA256,
            Self::Sha384 => ring::hmac::HMAC_SHA384,
            Self::Sha512 => ring::hmac::HMAC_SHA512,
        };
        let mut context = ring::hmac::Context::with_key(&ring::hmac::Key::new(algorithm, key));
        for part in parts {
            context.update(part);
        }
        context.sign()
    }
}
