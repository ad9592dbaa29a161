//! A software TPM that makes real attested structures and signatures, valid or deliberately wrong. For tests and
//! benches only (feature `testing`): its keys promise what they do not keep.

pub mod boot_log;
pub mod ek;
pub mod ima;

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::{PublicKey, Signer, SoftwareKey, SpiffeId, Tier};

use crate::Digest;
use crate::appraise::{Mode, Profile, ProfileFields};
use crate::ek::{EkLists, EkRoots, VerifiedEk, verify_listed_ek};
use crate::make_credential::Credential;
use crate::tpm::public::{Curve, Key, Scheme};
use crate::tpm::{
    Attest, AttestBody, Attributes, ClockInfo, HashAlg, Name, PcrBank, PcrSelection, PcrValue,
    Public, Signature,
};
use crate::transcript::{Exporter, Moment, Nonce, Transcript};
use crate::verify::quote::ENDORSEMENT_HIERARCHY;
use crate::verify::{
    AttestEvidence, AttestExpected, AttestationKey, QuoteEvidence, SignedAttest,
    SoftwareAttestExpected, SvidKey, SvidProof, TpmTier, VerifiedEvidence, verify_attestation,
    verify_software_attestation,
};

pub use boot_log::BootLogBuilder;
pub use ek::SoftwareEk;

/// A TPM with software keys. Clock and counters turn only by hand, but for one millisecond a signature.
#[derive(Debug)]
pub struct SoftwareTpm {
    pub ek: SoftwareEk,
    pub ak: SoftwareKey,
    pub svid: SoftwareKey,
    pub clock: ClockInfo,
    pub firmware: u64,
    /// SHA-256 bank.
    pub pcrs: Vec<[u8; 32]>,
}

impl SoftwareTpm {
    #[expect(
        clippy::new_without_default,
        reason = "makes keys: not a default value"
    )]
    pub fn new() -> Self {
        Self {
            ek: SoftwareEk::generate(Curve::P256),
            ak: key(),
            svid: key(),
            clock: ClockInfo {
                clock_ms: 1_000_000,
                reset_count: 7,
                restart_count: 0,
                safe: true,
            },
            firmware: 0x2019_1023_0016_3636,
            pcrs: (0..24).map(|index| [index; 32]).collect(),
        }
    }

    /// The EK's public area: template L-2.
    pub fn ek_public(&self) -> Public {
        self.ek.public().clone()
    }

    /// The secret in a challenge for this EK and the object of this name; `None` for any other challenge.
    pub fn activate(&self, object: &Name, credential: &Credential) -> Option<Vec<u8>> {
        self.ek.activate(object, credential).map(Vec::from)
    }

    /// The EK as if an operator had listed it.
    pub fn listed_ek(&self) -> VerifiedEk {
        let public = self.ek_public();
        let lists = EkLists {
            listed: BTreeSet::from([public.digest()]),
            ..EkLists::default()
        };
        let (roots, _) = EkRoots::load(&[], lists);
        verify_listed_ek(&public.to_bytes(), &roots).expect("the EK is on the list")
    }

    pub fn ak_public(&self) -> Public {
        signing_public(self.ak.public_key(), Attributes::RESTRICTED)
    }

    pub fn svid_public(&self) -> Public {
        signing_public(self.svid.public_key(), Attributes::SIGN)
    }

    pub fn attestation_key(&self) -> AttestationKey {
        AttestationKey::from_public(&self.ak_public().to_bytes()).expect("the AK is a good one")
    }

    pub fn svid_key(&self) -> SvidKey {
        SvidKey::from_public(&self.svid_public().to_bytes()).expect("the SVID key is a good one")
    }

    /// A quote over `selection` (of the SHA-256 bank) with the values.
    pub fn quote(&mut self, qualifying_data: &[u8], selection: &PcrSelection) -> QuoteEvidence {
        let pcr_values = self.pcr_values(selection);
        let attest = self.quote_attest(qualifying_data, selection);
        QuoteEvidence {
            quote: self.sign(&attest),
            pcr_values,
        }
    }

    /// The structure of a quote, to be altered before [`SoftwareTpm::sign`].
    pub fn quote_attest(&mut self, qualifying_data: &[u8], selection: &PcrSelection) -> Attest {
        let (digest, _) = selection
            .digest_of(&self.pcr_values(selection))
            .expect("a SHA-256 selection: every value is there");
        let body = AttestBody::Quote {
            selections: selection.as_signed(),
            pcr_digest: digest.as_bytes().to_vec(),
        };
        self.attest(qualifying_data, body)
    }

    /// A certification of the SVID key.
    pub fn certify(&mut self, qualifying_data: &[u8]) -> SignedAttest {
        let attest = self.certify_attest(qualifying_data);
        self.sign(&attest)
    }

    /// The structure of a certification, to be altered before [`SoftwareTpm::sign`].
    pub fn certify_attest(&mut self, qualifying_data: &[u8]) -> Attest {
        let body = AttestBody::Certify {
            name: self.svid_public().name().as_bytes().to_vec(),
            qualified_name: self
                .svid_public()
                .qualified_name_below(0x4000_0001)
                .as_bytes()
                .to_vec(),
        };
        self.attest(qualifying_data, body)
    }

    /// Signs a structure with the AK, whatever it says.
    pub fn sign(&self, attest: &Attest) -> SignedAttest {
        self.sign_bytes(attest.to_bytes())
    }

    pub fn sign_bytes(&self, attest: Vec<u8>) -> SignedAttest {
        let signature = sign(&self.ak, &attest).to_bytes();
        SignedAttest { attest, signature }
    }

    pub fn pcr_values(&self, selection: &PcrSelection) -> Vec<PcrValue> {
        (0_u8..)
            .zip(&self.pcrs)
            .filter(|(index, _)| selection.contains(*index))
            .map(|(index, value)| PcrValue {
                index,
                value: value.to_vec(),
            })
            .collect()
    }

    /// A boot: counters as after power on. An orderly one keeps the clock, a power cut sets it back.
    pub fn reboot(&mut self, orderly: bool) {
        self.clock.reset_count += 1;
        self.clock.restart_count = 0;
        if !orderly {
            self.clock.clock_ms /= 2;
            self.clock.safe = false;
        }
    }

    /// Verified evidence of `node` over `selection`, as after a challenge.
    pub fn evidence(
        &mut self,
        node: &SpiffeId,
        boot_key: &PublicKey,
        tier: Tier,
        selection: &PcrSelection,
    ) -> VerifiedEvidence {
        let (nonce, exporter) = (Nonce::from_bytes([1; 32]), Exporter::from_bytes([2; 32]));
        let (ak, svid) = (self.attestation_key(), self.svid_key());
        let ek_digest: Digest = self.ek_public().digest();
        let moment = Moment::AttestTpm {
            node,
            nonce: &nonce,
            exporter: &exporter,
            ek_digest: &ek_digest,
            ak_name: ak.name(),
            svid_public: svid.public_bytes(),
        };
        let trust_domain = node.trust_domain();
        let data = Transcript {
            trust_domain,
            boot_key,
            moment,
        }
        .qualifying_data();
        let last = self.clock;
        let evidence = AttestEvidence {
            svid: SvidProof::Current,
            quote: self.quote(data.as_bytes(), selection),
        };
        let expected = AttestExpected {
            trust_domain,
            node,
            nonce: &nonce,
            exporter: &exporter,
            boot_key,
            ek_digest: &ek_digest,
            tier: TpmTier::new(tier).expect("a tier with a TPM"),
            ak: &ak,
            svid: &svid,
            selection,
            known_pcrs: None,
            last,
        };
        verify_attestation(&evidence, &expected).expect("good evidence")
    }

    /// A profile that this TPM passes now, in tiers hardware and virtual.
    pub fn profile(&self, name: &str, selection: &PcrSelection) -> Profile {
        let pcr: BTreeMap<u8, BTreeSet<String>> = self
            .pcr_values(selection)
            .into_iter()
            .map(|pcr| (pcr.index, BTreeSet::from([hex::encode(pcr.value)])))
            .collect();
        Profile::new(ProfileFields {
            name: name.to_owned(),
            tiers: BTreeSet::from([Tier::Hardware, Tier::Virtual]),
            bank: PcrBank::Sha256,
            pcr,
            firmware_deny: BTreeSet::new(),
            secure_boot: None,
            ima: None,
            app_control: None,
            apps_pcr: None,
            mode: Mode::Enforce,
        })
        .expect("it compares something")
    }

    fn attest(&mut self, qualifying_data: &[u8], body: AttestBody) -> Attest {
        self.clock.clock_ms += 1;
        Attest {
            qualified_signer: self
                .ak_public()
                .qualified_name_below(ENDORSEMENT_HIERARCHY)
                .as_bytes()
                .to_vec(),
            extra_data: qualifying_data.to_vec(),
            clock: self.clock,
            firmware: self.firmware,
            body,
        }
    }
}

/// Verified evidence of a node without a TPM.
pub fn software_evidence(
    node: &SpiffeId,
    boot_key: &PublicKey,
    svid: &SoftwareKey,
) -> VerifiedEvidence {
    let (nonce, exporter) = (Nonce::from_bytes([1; 32]), Exporter::from_bytes([2; 32]));
    let trust_domain = node.trust_domain();
    let moment = Moment::AttestSoftware {
        node,
        nonce: &nonce,
        exporter: &exporter,
        svid_key: svid.public_key(),
    };
    let data = Transcript {
        trust_domain,
        boot_key,
        moment,
    }
    .qualifying_data();
    let expected = SoftwareAttestExpected {
        trust_domain,
        node,
        nonce: &nonce,
        exporter: &exporter,
        boot_key,
        svid_key: svid.public_key(),
    };
    let signature = svid.sign(data.as_bytes()).expect("a software key signs");
    verify_software_attestation(&signature, &expected).expect("good evidence")
}

/// PCRs of the SHA-256 bank.
pub fn sha256_selection(pcrs: &[u8]) -> PcrSelection {
    PcrSelection::new(PcrBank::Sha256, pcrs.iter().copied()).expect("PCRs between 0 and 23")
}

/// A TPM-shaped ECDSA signature by a software key.
pub fn sign(key: &SoftwareKey, message: &[u8]) -> Signature {
    let der = key.sign(message).expect("a software key signs");
    let (r, s) = integers(&der).expect("ring writes DER signatures");
    Signature::Ecdsa {
        hash: HashAlg::Sha256,
        r,
        s,
    }
}

/// The public area of a signing key that could not be better, with `more` attributes.
pub fn signing_public(key: &PublicKey, more: Attributes) -> Public {
    let (x, y) = key.coordinates();
    Public {
        name_alg: HashAlg::Sha256,
        attributes: Attributes::FIXED_TPM
            .with(Attributes::FIXED_PARENT)
            .with(Attributes::SENSITIVE_DATA_ORIGIN)
            .with(Attributes::USER_WITH_AUTH)
            .with(Attributes::NO_DA)
            .with(Attributes::SIGN)
            .with(more),
        auth_policy: Vec::new(),
        symmetric: None,
        scheme: Scheme::Ecdsa(HashAlg::Sha256),
        key: Key::Ecc {
            curve: Curve::P256,
            x: x.to_vec(),
            y: y.to_vec(),
        },
    }
}

fn key() -> SoftwareKey {
    SoftwareKey::generate().expect("the random source works")
}

/// r and s of a DER `SEQUENCE { INTEGER, INTEGER }` of a P-256 signature.
fn integers(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let rest = der.strip_prefix(&[0x30])?.split_first()?.1;
    let (r, rest) = integer(rest)?;
    let (s, rest) = integer(rest)?;
    rest.is_empty().then_some((r, s))
}

fn integer(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (length, rest) = bytes.strip_prefix(&[0x02])?.split_first()?;
    let (digits, rest) = rest.split_at_checked(usize::from(*length))?;
    let digits = digits.strip_prefix(&[0]).unwrap_or(digits);
    Some((digits.to_vec(), rest))
}
