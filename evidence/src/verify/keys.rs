//! The keys that evidence stands on: what a TPM must promise about its attestation key (AK) and its SVID key.
//!
//! Without these promises a quote proves nothing: an unrestricted key signs a forged `TPMS_ATTEST` for whoever asks,
//! and an imported one may exist outside the TPM as well.

use edgeward_identity::PublicKey;

use crate::reader::Malformed;
use crate::tpm::public::{Curve, Key, Scheme};
use crate::tpm::{Attributes, HashAlg, Name, Public};

/// An attestation key whose public area promises everything that quotes need. That it lives in the TPM of a given
/// EK is what credential activation proves; that it is a primary key of the endorsement hierarchy, every quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationKey {
    public: Public,
    name: Name,
    bytes: Vec<u8>,
}

/// A P-256 signing key that cannot leave its TPM, as its public area says. Certify proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvidKey {
    name: Name,
    key: PublicKey,
    bytes: Vec<u8>,
}

/// Why a key is no good for its purpose. The fault is the node's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    #[error("ak's public area: {0}")]
    AkMalformed(Malformed),
    #[error("ak's name algorithm is not sha-256")]
    AkNameAlg,
    #[error("ak is not restricted")]
    AkNotRestricted,
    #[error("ak may leave its tpm: fixedTPM is clear")]
    AkNotFixedTpm,
    #[error("ak may move to another parent: fixedParent is clear")]
    AkNotFixedParent,
    #[error("ak was not made in the tpm: sensitiveDataOrigin is clear")]
    AkImported,
    #[error("ak does not sign")]
    AkNotSigning,
    #[error("ak also decrypts")]
    AkDecrypts,
    #[error("ak's scheme is not ecdsa p-256, rsassa or rsapss with sha-256")]
    AkScheme,
    #[error("ak's name is not that of its public area")]
    AkNameMismatch,
    #[error("svid key's public area: {0}")]
    SvidMalformed(Malformed),
    #[error("svid key's name algorithm is not sha-256")]
    SvidNameAlg,
    #[error("svid key is not p-256 with ecdsa and sha-256")]
    SvidScheme,
    #[error("svid key may leave its tpm: fixedTPM or fixedParent is clear")]
    SvidNotFixed,
    #[error("svid key was not made in the tpm: sensitiveDataOrigin is clear")]
    SvidImported,
    #[error("svid key does not sign, is restricted or also decrypts")]
    SvidUse,
}

impl AttestationKey {
    /// Checks a `TPMT_PUBLIC`.
    pub fn from_public(bytes: &[u8]) -> Result<Self, KeyRefused> {
        let public = Public::parse(bytes).map_err(KeyRefused::AkMalformed)?;
        if public.name_alg != HashAlg::Sha256 {
            return Err(KeyRefused::AkNameAlg);
        }
        let needed = [
            (Attributes::RESTRICTED, KeyRefused::AkNotRestricted),
            (Attributes::FIXED_TPM, KeyRefused::AkNotFixedTpm),
            (Attributes::FIXED_PARENT, KeyRefused::AkNotFixedParent),
            (Attributes::SENSITIVE_DATA_ORIGIN, KeyRefused::AkImported),
            (Attributes::SIGN, KeyRefused::AkNotSigning),
        ];
        for (attribute, refused) in needed {
            if !public.attributes.has(attribute) {
                return Err(refused);
            }
        }
        if public.attributes.has(Attributes::DECRYPT) {
            return Err(KeyRefused::AkDecrypts);
        }
        if !ak_scheme_is_good(&public) {
            return Err(KeyRefused::AkScheme);
        }
        Ok(Self {
            name: public.name(),
            public,
            bytes: bytes.to_vec(),
        })
    }

    /// As [`AttestationKey::from_public`], for a sender that also states the name.
    pub fn from_public_and_name(bytes: &[u8], name: &[u8]) -> Result<Self, KeyRefused> {
        let key = Self::from_public(bytes)?;
        if key.name.as_bytes() != name {
            return Err(KeyRefused::AkNameMismatch);
        }
        Ok(key)
    }

    pub fn public(&self) -> &Public {
        &self.public
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The `TPMT_PUBLIC`, for keeping.
    pub fn public_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl SvidKey {
    /// Checks a `TPMT_PUBLIC`.
    pub fn from_public(bytes: &[u8]) -> Result<Self, KeyRefused> {
        let public = Public::parse(bytes).map_err(KeyRefused::SvidMalformed)?;
        if public.name_alg != HashAlg::Sha256 {
            return Err(KeyRefused::SvidNameAlg);
        }
        let attributes = public.attributes;
        if !attributes.has(Attributes::FIXED_TPM.with(Attributes::FIXED_PARENT)) {
            return Err(KeyRefused::SvidNotFixed);
        }
        if !attributes.has(Attributes::SENSITIVE_DATA_ORIGIN) {
            return Err(KeyRefused::SvidImported);
        }
        // A restricted key would let the TPM's owner pass quotes off as handshakes and cannot sign a TLS transcript.
        if !attributes.has(Attributes::SIGN)
            || attributes.has(Attributes::DECRYPT)
            || attributes.has(Attributes::RESTRICTED)
        {
            return Err(KeyRefused::SvidUse);
        }
        let is_p256 = matches!(
            public.key,
            Key::Ecc {
                curve: Curve::P256,
                ..
            }
        );
        if !is_p256 || public.scheme != Scheme::Ecdsa(HashAlg::Sha256) {
            return Err(KeyRefused::SvidScheme);
        }
        let point = public.ecc_point().ok_or(KeyRefused::SvidScheme)?;
        let key = PublicKey::from_point(&point).map_err(|_| KeyRefused::SvidScheme)?;
        Ok(Self {
            name: public.name(),
            key,
            bytes: bytes.to_vec(),
        })
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The `TPMT_PUBLIC`, for keeping and for the transcript.
    pub fn public_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl KeyRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::AkMalformed(_) => "ak_malformed",
            Self::AkNameAlg => "ak_name_algorithm",
            Self::AkNotRestricted => "ak_not_restricted",
            Self::AkNotFixedTpm => "ak_not_fixed_tpm",
            Self::AkNotFixedParent => "ak_not_fixed_parent",
            Self::AkImported => "ak_imported",
            Self::AkNotSigning => "ak_not_signing",
            Self::AkDecrypts => "ak_decrypts",
            Self::AkScheme => "ak_scheme",
            Self::AkNameMismatch => "ak_name_mismatch",
            Self::SvidMalformed(_) => "svid_key_malformed",
            Self::SvidNameAlg => "svid_key_name_algorithm",
            Self::SvidScheme => "svid_key_scheme",
            Self::SvidNotFixed => "svid_key_not_fixed",
            Self::SvidImported => "svid_key_imported",
            Self::SvidUse => "svid_key_use",
        }
    }
}

fn ak_scheme_is_good(public: &Public) -> bool {
    use HashAlg::Sha256;
    let pair_is_good = match (&public.key, public.scheme) {
        (Key::Ecc { curve, .. }, Scheme::Ecdsa(Sha256)) => *curve == Curve::P256,
        (Key::Rsa { .. }, Scheme::RsaSsa(Sha256) | Scheme::RsaPss(Sha256)) => true,
        _ => false,
    };
    pair_is_good && public.symmetric.is_none()
}
