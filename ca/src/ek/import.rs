//! Taking a certificate into the trust store: known ones by the built-in list, others by an operator's explicit word.

use edgeward_evidence::ek::roots::RefusedFile;
use edgeward_evidence::ek::{EkFile, Terms};
use edgeward_evidence::{Digest, EkRoots};
use edgeward_identity::{Tier, Timestamp};

use super::pins::Pins;
use super::{Source, describe};
use crate::store::eks::EkCertificate;

/// What the operator said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The tier of an EK under a certificate that the built-in list does not know. It never raises the tier of one
    /// that it does.
    pub trust: Option<Tier>,
    /// [`Terms::after_its_end`].
    pub after_its_end: bool,
    /// [`Terms::sets_in_any_order`], for certificates that the built-in list does not know.
    pub sets_in_any_order: bool,
}

/// Why a certificate is not taken. The operator's to decide.
#[derive(Debug, thiserror::Error)]
pub enum NotImported {
    #[error("the built-in list does not know it; say what an EK under it proves (trust)")]
    NotPinned,
    #[error("tier software has no tpm and no roots")]
    Software,
    #[error(transparent)]
    Refused(#[from] RefusedFile),
}

impl NotImported {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotPinned => "ek_roots_not_pinned",
            Self::Software => "ek_roots_tier_software",
            Self::Refused(refused) => refused.code(),
        }
    }
}

/// Judges one certificate (DER); what comes out is to be stored.
pub fn import(
    der: &[u8],
    wanted: Wanted,
    by: &str,
    now: Timestamp,
) -> Result<EkCertificate, NotImported> {
    let pins = Pins::built_in();
    let sha256 = Digest::of(der);
    if wanted.trust == Some(Tier::Software) {
        return Err(NotImported::Software);
    }
    let (tier, pinned) = match (pins.of(&sha256), wanted.trust) {
        // Tiers are ordered best first.
        (Some(pin), Some(trust)) => (pin.tier.max(trust), pins.version()),
        (Some(pin), None) => (pin.tier, pins.version()),
        (None, Some(trust)) => (trust, 0),
        (None, None) => return Err(NotImported::NotPinned),
    };
    let terms = Terms {
        anchor: true,
        sets_in_any_order: wanted.sets_in_any_order,
        after_its_end: wanted.after_its_end,
    };
    let about = describe(der, tier, Source::Operator(by.to_owned()), terms);
    let name = sha256.to_string();
    let file = EkFile {
        tier,
        name: &name,
        bytes: der,
        terms: about.terms,
    };
    let (_, refused) = EkRoots::load(&[file], Default::default());
    if let Some(refused) = refused.into_iter().next() {
        return Err(refused.into());
    }
    Ok(EkCertificate {
        sha256,
        der: der.to_vec(),
        tier,
        pinned,
        sets_in_any_order: about.terms.sets_in_any_order,
        after_its_end: wanted.after_its_end,
        added: now,
        added_by: by.to_owned(),
    })
}
