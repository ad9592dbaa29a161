//! A fleet in memory for the tests of the bind: real certificates, real attestation results by software TPMs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use edgeward_evidence::appraise::{Logs, Mode, ProfileFields, appraise};
use edgeward_evidence::boot_statement::BootStatement;
use edgeward_evidence::result::{AttestationResult, ResultContext};
use edgeward_evidence::testing::{SoftwareTpm, sha256_selection};
use edgeward_evidence::tpm::PcrBank;
use edgeward_evidence::transcript::{Moment, Transcript};
use edgeward_evidence::verify::{
    AttestEvidence, AttestExpected, SvidProof, TpmTier, verify_attestation,
};
use edgeward_evidence::{Exporter, Nonce, Profile};
use edgeward_identity::signed::{EVERYBODY, Header, PurposeKey};
use edgeward_identity::testing::{TEST_NOW, TestAuthority};
use edgeward_identity::{
    KeySet, Kind, Purpose, Secret, SignedObject, Signer, SoftwareKey, SpiffeId, SpkiHash, Svid,
    Tier, Timestamp, TrustView, VerifiedPeer,
};
use ipnet::IpNet;
use rustls_pki_types::CertificateDer;

use super::claims::{Floor, PeerClaims};
use super::lease::Limits;
use super::machine::{Local, Memory};
use super::policy::{Grant, MayBind, NotGranted};
use crate::wireguard::StaticKeys;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
const PCRS: [u8; 2] = [0, 7];

/// A cloud: certificates, results, trust.
pub(crate) struct Fleet {
    pub(crate) authority: TestAuthority,
    pub(crate) results: SoftwareKey,
    pub(crate) keys: KeySet,
    pub(crate) trust: TrustView,
    profile: Profile,
}

/// A node with its TPM and everything it brings into a bind.
pub(crate) struct TestNode {
    pub(crate) id: SpiffeId,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) svid: Svid,
    pub(crate) tpm: SoftwareTpm,
    pub(crate) boot_key: Arc<SoftwareKey>,
    pub(crate) wireguard: Arc<StaticKeys>,
    pub(crate) result: Vec<u8>,
    pub(crate) statement: Option<Vec<u8>>,
    number: u64,
}

/// A policy that tests turn by hand.
pub(crate) struct TestPolicy {
    pub(crate) prefixes: Vec<IpNet>,
    pub(crate) limits: Limits,
    pub(crate) refuse: bool,
}

/// What a node remembers.
#[derive(Default)]
pub(crate) struct TestMemory {
    pub(crate) holders: BTreeMap<[u8; 32], SpiffeId>,
    pub(crate) floor: Floor,
}

impl Fleet {
    pub(crate) fn new(trust_domain: &str) -> Self {
        let authority = TestAuthority::new(trust_domain);
        let results = SoftwareKey::generate().unwrap();
        let set = SignedObject::sign_json(
            authority.root_key().as_ref(),
            Header {
                purpose: Purpose::Keys,
                trust_domain: authority.trust_domain().clone(),
                audience: EVERYBODY.into(),
                number: 1,
                issued: TEST_NOW,
                expires: TEST_NOW.plus(MINUTE * 100_000),
            },
            &[PurposeKey {
                purpose: Purpose::Results,
                key: *results.public_key(),
                not_after: TEST_NOW.plus(MINUTE * 100_000),
            }],
        )
        .unwrap();
        let keys = KeySet::open(
            &set,
            &[*authority.root_key().public_key()],
            authority.trust_domain(),
            0,
            TEST_NOW,
        )
        .unwrap();
        let trust = authority.trust_view();
        let values = |pcr: u8| BTreeSet::from([hex::encode([pcr; 32])]);
        let profile = Profile::new(ProfileFields {
            name: "gateway".into(),
            tiers: BTreeSet::from([Tier::Listed]),
            bank: PcrBank::Sha256,
            pcr: PCRS.into_iter().map(|pcr| (pcr, values(pcr))).collect(),
            firmware_deny: BTreeSet::new(),
            secure_boot: None,
            ima: None,
            app_control: None,
            apps_pcr: None,
            mode: Mode::Enforce,
        })
        .unwrap();
        Self {
            authority,
            results,
            keys,
            trust,
            profile,
        }
    }

    /// A node that has just passed.
    pub(crate) fn node(&self, name: &str) -> TestNode {
        self.member(&format!("node/{name}"))
    }

    /// Any kind of identity, with a key in a TPM.
    pub(crate) fn member(&self, path: &str) -> TestNode {
        let (chain, key) = self.authority.chain_with(path, |_| {});
        let copy = SoftwareKey::from_pkcs8(Secret::new(key.pkcs8().expose().clone())).unwrap();
        let mut tpm = SoftwareTpm::new();
        tpm.svid = key;
        let mut private = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut private).unwrap();
        let mut node = TestNode {
            id: self.authority.id(path),
            svid: Svid::new(chain.clone(), Arc::new(copy)).unwrap(),
            chain,
            tpm,
            boot_key: Arc::new(SoftwareKey::generate().unwrap()),
            wireguard: Arc::new(StaticKeys::new(Secret::new(private))),
            result: Vec::new(),
            statement: None,
            number: 0,
        };
        self.attest(&mut node, TEST_NOW);
        node
    }

    /// The node passes at `passed`: it holds a new result.
    pub(crate) fn attest(&self, node: &mut TestNode, passed: Timestamp) {
        node.number += 1;
        node.result = self.result_of(node, passed, &self.results);
        node.statement = None;
    }

    /// A result about `node`, signed by any key.
    pub(crate) fn result_of(
        &self,
        node: &mut TestNode,
        passed: Timestamp,
        signer: &SoftwareKey,
    ) -> Vec<u8> {
        let (nonce, exporter) = (Nonce::from_bytes([1; 32]), Exporter::from_bytes([2; 32]));
        let (ak, svid) = (node.tpm.attestation_key(), node.tpm.svid_key());
        let ek_digest = node.tpm.ek_public().digest();
        let selection = sha256_selection(&PCRS);
        let boot_key = *node.boot_key.public_key();
        let qualifying = Transcript {
            trust_domain: self.authority.trust_domain(),
            boot_key: &boot_key,
            moment: Moment::AttestTpm {
                node: &node.id,
                nonce: &nonce,
                exporter: &exporter,
                ek_digest: &ek_digest,
                ak_name: ak.name(),
                svid_public: svid.public_bytes(),
            },
        }
        .qualifying_data();
        let last = node.tpm.clock;
        let quote = node.tpm.quote(qualifying.as_bytes(), &selection);
        let evidence = verify_attestation(
            &AttestEvidence {
                svid: SvidProof::Current,
                quote,
            },
            &AttestExpected {
                trust_domain: self.authority.trust_domain(),
                node: &node.id,
                nonce: &nonce,
                exporter: &exporter,
                boot_key: &boot_key,
                ek_digest: &ek_digest,
                tier: TpmTier::new(Tier::Listed).unwrap(),
                ak: &ak,
                svid: &svid,
                selection: &selection,
                known_pcrs: None,
                last,
            },
        )
        .unwrap();
        let context = ResultContext {
            spiffe_id: &node.id,
            issued: passed,
            deny_number: 0,
        };
        AttestationResult::new(
            &evidence,
            &appraise(&evidence, &self.profile, &Logs::default()),
            &context,
        )
        .unwrap()
        .sign(signer, node.number, passed.plus(MINUTE * 2000))
        .unwrap()
    }

    /// The peer of a finished handshake.
    pub(crate) fn verified(&self, node: &TestNode) -> VerifiedPeer {
        VerifiedPeer::of_quic(
            Box::new(node.chain.clone()),
            &self.trust,
            &[Kind::Node],
            TEST_NOW,
        )
        .unwrap()
    }
}

impl TestNode {
    pub(crate) fn spki(&self) -> SpkiHash {
        self.svid.leaf().key.spki_hash()
    }

    /// Boots without the cloud: a new boot key, and a statement that names it.
    pub(crate) fn reboot_offline(&mut self) {
        self.tpm.reboot(true);
        self.boot_key = Arc::new(SoftwareKey::generate().unwrap());
        let boot_key = *self.boot_key.public_key();
        let ak = self.tpm.attestation_key();
        let qualifying = Transcript {
            trust_domain: self.id.trust_domain(),
            boot_key: &boot_key,
            moment: Moment::Boot {
                node: &self.id,
                ak_name: ak.name(),
                svid_key: self.svid.signer().public_key(),
            },
        }
        .qualifying_data();
        let quote = self
            .tpm
            .quote(qualifying.as_bytes(), &sha256_selection(&PCRS));
        self.statement = Some(
            BootStatement {
                boot_key,
                quote: quote.quote,
            }
            .to_bytes(),
        );
    }

    pub(crate) fn local(&self) -> Local {
        let mut leaf_hash = [0; 32];
        let leaf = ring::digest::digest(&ring::digest::SHA256, &self.chain[0]);
        leaf_hash.copy_from_slice(leaf.as_ref());
        Local {
            spki: self.spki(),
            leaf_hash,
            not_after: self.svid.leaf().not_after,
            wireguard: Arc::clone(&self.wireguard),
            boot_key: Arc::clone(&self.boot_key) as Arc<dyn Signer>,
            boot_id: [self.number as u8; 16],
            slice_number: 3,
            result: self.result.clone(),
            boot_statement: self.statement.clone(),
        }
    }
}

impl TestPolicy {
    pub(crate) fn granting() -> Self {
        Self {
            prefixes: vec!["fd00::/64".parse().unwrap()],
            limits: Limits {
                policy_until: TEST_NOW.plus(MINUTE * 100_000),
                fresh: MINUTE * 10,
                offline: MINUTE * 720,
            },
            refuse: false,
        }
    }
}

impl MayBind for TestPolicy {
    fn may_bind(
        &self,
        _peer: &VerifiedPeer,
        _claims: &PeerClaims,
        _now: Timestamp,
    ) -> Result<Grant, NotGranted> {
        if self.refuse {
            return Err(NotGranted("no rule".into()));
        }
        Ok(Grant {
            allowed_ips: self.prefixes.clone(),
            limits: self.limits,
        })
    }
}

impl Memory for TestMemory {
    fn holder(&self, wireguard_key: &[u8; 32]) -> Option<&SpiffeId> {
        self.holders.get(wireguard_key)
    }

    fn floor(&self, _peer: &SpkiHash) -> Floor {
        self.floor
    }
}
