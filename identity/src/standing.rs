//! How well an identity is rooted ([`Tier`]) and what its evidence says now ([`AttestationState`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How well an identity is rooted, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// An EK certificate of a known TPM vendor.
    Hardware,
    /// An EK that an operator put on an allow-list.
    Listed,
    /// A virtual TPM: a hostile hypervisor can clone it.
    Virtual,
    /// No TPM at all.
    Software,
}

/// What the evidence of an identity says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttestationState {
    /// Its last evidence passed and is recent.
    Trusted,
    /// Too old, or silent.
    Stale,
    /// Its last evidence was refused.
    Failed,
    /// A device, vouched for by its node.
    Vouched,
    /// Tier `software`, and operators without a node.
    None,
}

/// The word is not one of those accepted: the word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown word: {0:?}")]
pub struct UnknownWord(pub String);

impl Tier {
    pub const ALL: [Self; 4] = [Self::Hardware, Self::Listed, Self::Virtual, Self::Software];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Listed => "listed",
            Self::Virtual => "virtual",
            Self::Software => "software",
        }
    }
}

impl AttestationState {
    pub const ALL: [Self; 5] = [
        Self::Trusted,
        Self::Stale,
        Self::Failed,
        Self::Vouched,
        Self::None,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Stale => "stale",
            Self::Failed => "failed",
            Self::Vouched => "vouched",
            Self::None => "none",
        }
    }
}

impl FromStr for Tier {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|tier| tier.as_str() == text)
            .ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

impl FromStr for AttestationState {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for AttestationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_another_case_or_language_is_refused() {
        for text in ["", "Hardware", "hardware ", "tpm"] {
            assert_eq!(text.parse::<Tier>(), Err(UnknownWord(text.to_owned())));
        }
        assert!("TRUSTED".parse::<AttestationState>().is_err());
    }

    #[test]
    fn every_word_round_trips_and_serialises_as_itself() {
        for tier in Tier::ALL {
            assert_eq!(tier.as_str().parse(), Ok(tier));
            assert_eq!(serde_json::to_string(&tier).unwrap(), format!("\"{tier}\""));
        }
        for state in AttestationState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(
                serde_json::to_string(&state).unwrap(),
                format!("\"{state}\"")
            );
        }
    }
}
