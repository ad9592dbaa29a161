use super::*;

use edgeward_evidence::appraise::{Logs, appraise};
use edgeward_evidence::result::{AttestationResult, ResultContext};
use edgeward_evidence::testing::{SoftwareTpm, sha256_selection};
use edgeward_identity::signed::{EVERYBODY, Header, PurposeKey};
use edgeward_identity::testing::{TEST_NOW, TestAuthority, TurnedClock};
use edgeward_identity::{
    DenyList, Purpose, Secret, SignedObject, SoftwareKey, SpkiHash, Tier, TrustDomain,
};

use crate::root::SoftwareRoot;

const HOUR: Duration = Duration::from_secs(3600);
const PCRS: [u8; 1] = [7];

/// A cloud, what it issues to this machine, and the machine.
struct Scene {
    authority: TestAuthority,
    folder: tempfile::TempDir,
    boot: Boot,
    issued: v1::EnrolIssued,
}

impl Scene {
    fn new() -> Self {
        let authority = TestAuthority::new("plant.example");
        let folder = tempfile::tempdir().unwrap();
        let boot = Boot::new("kernel", None).unwrap();
        let cloud = SoftwareKey::generate().unwrap();
        let (chain, key) = authority.chain_with("node/a", |_| {});
        std::fs::write(folder.path().join("svid-key-a.der"), key.pkcs8().expose()).unwrap();
        let deny = SignedObject::sign_json(
            &cloud,
            header(&authority, Purpose::DenyList),
            &DenyList::new(1, Default::default()).unwrap(),
        )
        .unwrap();
        let issued = v1::EnrolIssued {
            spiffe_id: authority.id("node/a").to_string(),
            svid_chain: chain.iter().map(|der| der.to_vec()).collect(),
            trust_bundle: authority.bundle().to_spiffe_json(),
            key_set: key_set(&authority, &cloud),
            deny_list: deny.to_bytes(),
            result: result(&authority, &cloud, key, &boot),
            slice: Vec::new(),
            overlay: Some(v1::OverlayAddresses {
                ipv6: String::new(),
                ipv4: "100.64.0.1".to_owned(),
            }),
            authorities: Vec::new(),
        };
        Self {
            authority,
            folder,
            boot,
            issued,
        }
    }

    /// What the machine makes of it, with a token that pins `pin`.
    async fn checked_with(
        &self,
        issued: v1::EnrolIssued,
        pin: SpkiHash,
    ) -> Result<Stored, NotEnrolled> {
        let token = BootstrapToken::new(
            vec!["127.0.0.1:7443".to_owned()],
            TrustDomain::new("plant.example").unwrap(),
            pin,
            "t1".to_owned(),
            Secret::new([0; 32]),
        )
        .unwrap();
        let root = SoftwareRoot::new(self.folder.path());
        let enrolment = Enrolment {
            claim: Claim::Token {
                token: &token,
                wanted_name: "",
            },
            root: &root,
            boot: &self.boot,
            clock: TurnedClock::at(TEST_NOW),
            slot: SvidSlot::A,
        };
        Ok(enrolment.check(issued).await?.0)
    }

    async fn checked(
        &self,
        change: impl FnOnce(&mut v1::EnrolIssued),
    ) -> Result<Stored, NotEnrolled> {
        let mut issued = self.issued.clone();
        change(&mut issued);
        self.checked_with(issued, self.authority.root_pin()).await
    }
}

fn header(authority: &TestAuthority, purpose: Purpose) -> Header {
    Header {
        purpose,
        trust_domain: authority.trust_domain().clone(),
        audience: EVERYBODY.into(),
        number: 1,
        issued: TEST_NOW.minus(HOUR),
        expires: TEST_NOW.plus(HOUR),
    }
}

fn key_set(authority: &TestAuthority, cloud: &SoftwareKey) -> Vec<u8> {
    let keys = [Purpose::Results, Purpose::DenyList].map(|purpose| PurposeKey {
        purpose,
        key: *edgeward_identity::Signer::public_key(cloud),
        not_after: TEST_NOW.plus(HOUR),
    });
    SignedObject::sign_json(
        authority.root_key().as_ref(),
        header(authority, Purpose::Keys),
        &keys,
    )
    .unwrap()
    .to_bytes()
}

fn result(
    authority: &TestAuthority,
    cloud: &SoftwareKey,
    svid: SoftwareKey,
    boot: &Boot,
) -> Vec<u8> {
    let node = authority.id("node/a");
    let selection = sha256_selection(&PCRS);
    let mut tpm = SoftwareTpm::new();
    tpm.svid = svid;
    let profile = tpm.profile("p", &selection);
    let evidence = tpm.evidence(&node, boot.public_key(), Tier::Virtual, &selection);
    let context = ResultContext {
        spiffe_id: &node,
        issued: TEST_NOW,
        deny_number: 1,
    };
    AttestationResult::new(
        &evidence,
        &appraise(&evidence, &profile, &Logs::default()),
        &context,
    )
    .unwrap()
    .sign(cloud, 1, TEST_NOW.plus(HOUR))
    .unwrap()
}

/// One change that makes what was issued unusable.
type Change = fn(&mut v1::EnrolIssued, &Scene);

#[tokio::test]
async fn nothing_that_does_not_fit_under_the_pinned_root_is_taken() {
    let scene = Scene::new();
    let other = Scene::new();
    let changes: [(&str, Change); 10] = [
        ("bundle", |issued, other| {
            issued.trust_bundle = other.issued.trust_bundle.clone()
        }),
        ("bundle text", |issued, _| {
            issued.trust_bundle = b"{}".to_vec()
        }),
        ("key set", |issued, other| {
            issued.key_set = other.issued.key_set.clone()
        }),
        ("deny-list", |issued, other| {
            issued.deny_list = other.issued.deny_list.clone()
        }),
        ("result", |issued, other| {
            issued.result = other.issued.result.clone()
        }),
        ("no result", |issued, _| issued.result.clear()),
        ("certificate of another key", |issued, other| {
            issued.svid_chain = other.issued.svid_chain.clone();
        }),
        ("no certificate", |issued, _| issued.svid_chain.clear()),
        ("another name", |issued, other| {
            issued.spiffe_id = other.authority.id("node/b").to_string();
        }),
        ("slice", |issued, _| issued.slice = b"rules".to_vec()),
    ];
    for (what, change) in changes {
        let outcome = scene.checked(|issued| change(issued, &other)).await;
        assert!(outcome.is_err(), "{what}");
    }
    let outcome = scene
        .checked_with(scene.issued.clone(), other.authority.root_pin())
        .await;
    assert!(matches!(outcome, Err(NotEnrolled::Issued(_))));
}

#[tokio::test]
async fn what_fits_is_stored_as_it_came() {
    let scene = Scene::new();
    let stored = scene.checked(|_| ()).await.unwrap();
    assert_eq!(stored.node, scene.authority.id("node/a"));
    assert_eq!(stored.key_set.0, scene.issued.key_set);
    assert_eq!(stored.v4, Some("100.64.0.1".parse().unwrap()));
}

#[tokio::test]
async fn a_result_about_another_boot_is_not_taken() {
    let mut scene = Scene::new();
    scene.boot = Boot::new("kernel", None).unwrap();
    assert!(matches!(
        scene.checked(|_| ()).await,
        Err(NotEnrolled::Issued(_))
    ));
}

#[test]
fn a_code_from_the_cloud_cannot_steer_a_terminal() {
    let refused = v1::Refused {
        code: format!("token_used\u{1b}[2J {}", "x".repeat(1000)),
        retry_seconds: 0,
    };
    match refusal(refused) {
        Err(NotEnrolled::Refused { code }) => {
            assert!(code.starts_with("token_used2Jx"));
            assert_eq!(code.len(), MAX_CODE_CHARS);
        }
        _ => panic!("a refusal was taken for something else"),
    }
}

#[tokio::test]
async fn a_failure_names_every_address_and_reaches_nobody_without_one() {
    let verifier = PinnedVerifier::new(
        SpkiHash::from_bytes([0; 32]),
        TrustDomain::new("plant.example").unwrap(),
        TurnedClock::at(TEST_NOW),
    );
    let config = Arc::new(anonymous_client(verifier, &[ALPN_H2]));
    let nobody = connect(&[], config.clone()).await;
    assert!(matches!(nobody, Err(NotConnected::NoAddress)));
    let addresses = ["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
    let Err(failed) = connect(&addresses, config).await else {
        panic!("somebody answers on port 1");
    };
    let text = failed.to_string();
    assert!(
        text.contains("127.0.0.1:1: ") && text.contains("127.0.0.1:2: "),
        "{text}"
    );
}
