//! Why evidence was refused: every reason with its stable code. The fault is the node's.

use crate::reader::Malformed;
use crate::tpm::pcr::PcrRefused;
use crate::tpm::signature::SignatureRefused;

use super::keys::KeyRefused;
use super::quote::ClockRefused;

/// The evidence is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceRefused {
    #[error("key: {0}")]
    Key(#[from] KeyRefused),
    #[error("quote is malformed: {0}")]
    QuoteMalformed(Malformed),
    #[error("quote: {0}")]
    QuoteSignature(SignatureRefused),
    #[error("attested structure in place of the quote is not a quote")]
    QuoteType,
    #[error("quote's signer is not the ak as a primary key of the endorsement hierarchy")]
    QuoteSigner,
    #[error("quote is bound to something else: another nonce, session, key, token or node")]
    QuoteNonce,
    #[error("pcr: {0}")]
    Pcr(#[from] PcrRefused),
    #[error("clock: {0}")]
    Clock(#[from] ClockRefused),
    #[error("certification is malformed: {0}")]
    CertifyMalformed(Malformed),
    #[error("certification: {0}")]
    CertifySignature(SignatureRefused),
    #[error("attested structure in place of the certification is not one")]
    CertifyType,
    #[error("certification's signer is not the ak as a primary key of the endorsement hierarchy")]
    CertifySigner,
    #[error("certification is bound to something else: another nonce, session, key, token or node")]
    CertifyNonce,
    #[error("certified object is not the svid key")]
    CertifyName,
    #[error("certification and quote are of different boots")]
    CertifyOtherBoot,
    #[error("svid key's signature over the qualifying data does not verify")]
    SoftwareSignature,
}

impl EvidenceRefused {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Key(refused) => refused.code(),
            Self::QuoteMalformed(malformed) => match malformed {
                Malformed::Magic(_) => "quote_magic",
                Malformed::Unsupported { .. } => "quote_unsupported",
                Malformed::Truncated | Malformed::Trailing(_) | Malformed::TooLarge { .. } => {
                    "quote_malformed"
                }
            },
            Self::QuoteSignature(refused) => match refused {
                SignatureRefused::Malformed(_) => "quote_signature_malformed",
                SignatureRefused::Algorithm => "quote_signature_algorithm",
                SignatureRefused::Mismatch => "quote_signature_mismatch",
            },
            Self::QuoteType => "quote_type",
            Self::QuoteSigner => "quote_signer_mismatch",
            Self::QuoteNonce => "quote_nonce_mismatch",
            Self::Pcr(refused) => refused.code(),
            Self::Clock(refused) => refused.code(),
            Self::CertifyMalformed(malformed) => match malformed {
                Malformed::Magic(_) => "certify_magic",
                Malformed::Unsupported { .. } => "certify_unsupported",
                Malformed::Truncated | Malformed::Trailing(_) | Malformed::TooLarge { .. } => {
                    "certify_malformed"
                }
            },
            Self::CertifySignature(refused) => match refused {
                SignatureRefused::Malformed(_) => "certify_signature_malformed",
                SignatureRefused::Algorithm => "certify_signature_algorithm",
                SignatureRefused::Mismatch => "certify_signature_mismatch",
            },
            Self::CertifyType => "certify_type",
            Self::CertifySigner => "certify_signer_mismatch",
            Self::CertifyNonce => "certify_nonce_mismatch",
            Self::CertifyName => "certify_name_mismatch",
            Self::CertifyOtherBoot => "certify_other_boot",
            Self::SoftwareSignature => "software_signature_mismatch",
        }
    }
}
