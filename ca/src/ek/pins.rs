//! The built-in list of TPM makers' certificates: fingerprints and tiers, no certificates.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use edgeward_evidence::Digest;
use edgeward_identity::Tier;
use serde::Deserialize;

/// The list as it is published.
pub const TEXT: &str = include_str!("../../../deploy/ek-roots/pinned.toml");

static PINS: LazyLock<Pins> =
    LazyLock::new(|| Pins::parse(TEXT).expect("the built-in list is checked by a test"));

/// Known certificates by the SHA-256 of their DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    version: u64,
    certificates: BTreeMap<Digest, Pin>,
}

/// What is known of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    pub sha256: Digest,
    pub maker: String,
    pub subject: String,
    /// For readers of the list; the certificate says so itself.
    pub not_after: String,
    /// What an EK under it proves.
    pub tier: Tier,
    /// Its names break DER, and those of what it issued.
    #[serde(default)]
    pub sets_in_any_order: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    certificate: Vec<Pin>,
}

/// The text is no list of pins.
#[derive(Debug, thiserror::Error)]
pub enum BadPins {
    #[error("not a list of pins: {0}")]
    Toml(#[from] toml::de::Error),
    #[error("a certificate is listed twice: {0}")]
    Twice(Digest),
    #[error("a tier without tpm is proven by nothing: {0}")]
    Tier(Digest),
}

impl Pins {
    /// The list that this program was built with.
    pub fn built_in() -> &'static Self {
        &PINS
    }

    fn parse(text: &str) -> Result<Self, BadPins> {
        let file: File = toml::from_str(text)?;
        let mut certificates = BTreeMap::new();
        for pin in file.certificate {
            let sha256 = pin.sha256;
            if pin.tier == Tier::Software {
                return Err(BadPins::Tier(sha256));
            }
            if certificates.insert(sha256, pin).is_some() {
                return Err(BadPins::Twice(sha256));
            }
        }
        Ok(Self {
            version: file.version,
            certificates,
        })
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn of(&self, sha256: &Digest) -> Option<&Pin> {
        self.certificates.get(sha256)
    }

    pub fn len(&self) -> usize {
        self.certificates.len()
    }

    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn vectors() -> Option<PathBuf> {
        let folder = std::env::var_os("EDGEWARD_VECTORS").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors")),
            PathBuf::from,
        );
        let found = folder.is_dir().then_some(folder);
        if found.is_none() {
            println!("vectors not found: skipped");
        }
        found
    }

    #[test]
    fn a_list_with_a_certificate_twice_or_a_tier_of_nothing_is_refused() {
        let entry = |tier: &str| {
            format!(
                "[[certificate]]\nsha256 = \"{}\"\nmaker = \"m\"\nsubject = \"s\"\nnot_after = \"2030-01-01\"\ntier = \"{tier}\"\n",
                "ab".repeat(32)
            )
        };
        let list = |entries: &[String]| Pins::parse(&format!("version = 1\n{}", entries.concat()));
        assert!(matches!(
            list(&[entry("hardware"), entry("virtual")]),
            Err(BadPins::Twice(_))
        ));
        assert!(matches!(list(&[entry("software")]), Err(BadPins::Tier(_))));
        assert!(matches!(list(&[entry("best")]), Err(BadPins::Toml(_))));
        assert!(list(&[entry("hardware")]).is_ok());
    }

    #[test]
    fn the_built_in_list_names_every_fingerprint_of_the_public_store_and_calls_no_virtual_tpm_hardware()
     {
        let pins = Pins::built_in();
        assert!(pins.version() > 0);
        assert!(!pins.is_empty());
        for pin in pins.certificates.values() {
            let is_cloud = pin.maker.ends_with("Cloud");
            assert_eq!(pin.tier == Tier::Virtual, is_cloud, "{}", pin.subject);
        }
        let Some(folder) = vectors() else { return };
        let facts =
            std::fs::read_to_string(folder.join("ek-ca-certificates/fingerprints.tsv")).unwrap();
        for line in facts.lines().skip(1) {
            let fingerprint = line.split('\t').next().unwrap();
            let pin = pins.of(&fingerprint.parse().unwrap()).unwrap();
            assert_eq!(Some(pin.subject.as_str()), line.split('\t').nth(2));
        }
    }
}
