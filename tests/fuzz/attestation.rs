//! Targets for results and IMA lists.

use std::sync::OnceLock;
use std::time::Duration;

use edgeward_evidence::app_log::{App, AppLog, AppState, Event, Happened};
use edgeward_evidence::appraise::{Logs, appraise};
use edgeward_evidence::ima::{
    ImaPolicy, ImaVerdict, ListedFile, Violations, binary_of_ascii, parse_binary, window,
};
use edgeward_evidence::result::{
    AttestationResult, MAX_RESULT_BYTES, ResultContext, ResultExpect, check_result,
    issued_unverified,
};
use edgeward_evidence::testing::ima::ImaList;
use edgeward_evidence::testing::{SoftwareTpm, sha256_selection};
use edgeward_evidence::tpm::{HashAlg, PcrBank};
use edgeward_identity::jws::{self, Compact};
use edgeward_identity::signed::{EVERYBODY, Header, PurposeKey};
use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{
    KeySet, Kind, PublicKey, Purpose, SignedObject, Signer, SoftwareKey, SpiffeId, Tier,
    TrustDomain,
};

/// Bytes as they come, and the same as the payload of a token that a results key signed.
pub fn result(bytes: &[u8]) {
    let cloud = Cloud::get();
    cloud.check(bytes);
    let _ = issued_unverified(bytes);
    let header = [("kid", cloud.key.public_key().spki_hash().to_string())];
    let header: std::collections::BTreeMap<_, _> = header.into();
    if let Ok(token) = jws::sign(&cloud.key, &header, bytes) {
        cloud.check(token.as_bytes());
    }
}

/// A token and its payload.
pub fn results() -> Vec<Vec<u8>> {
    let cloud = Cloud::get();
    let mut tpm = SoftwareTpm::new();
    let selection = sha256_selection(&[0, 4, 7]);
    let evidence = tpm.evidence(
        &cloud.node,
        cloud.key.public_key(),
        Tier::Virtual,
        &selection,
    );
    let profile = tpm.profile("gateway", &selection);
    let context = ResultContext {
        spiffe_id: &cloud.node,
        issued: TEST_NOW,
        deny_number: 1,
    };
    let appraisal = appraise(&evidence, &profile, &Logs::default());
    let expires = TEST_NOW.plus(Duration::from_secs(600));
    let token = AttestationResult::new(&evidence, &appraisal, &context)
        .ok()
        .and_then(|result| result.sign(&cloud.key, 1, expires).ok())
        .unwrap_or_default();
    let payload = std::str::from_utf8(&token)
        .ok()
        .and_then(|text| Compact::parse(text, MAX_RESULT_BYTES).ok())
        .and_then(|token| {
            token
                .verify(cloud.key.public_key())
                .ok()
                .map(<[u8]>::to_vec)
        })
        .unwrap_or_default();
    vec![token, payload]
}

/// Parsed, cut into parts, replayed and judged.
pub fn ima_binary(bytes: &[u8]) {
    let _ = window(bytes, 1, 200);
    let file = ListedFile {
        hash: HashAlg::Sha256,
        digest: &[1; 32],
        path: None,
    };
    let (Ok(entries), Ok(policy)) = (
        parse_binary(bytes),
        ImaPolicy::new([file], [], Violations::Fail),
    ) else {
        return;
    };
    let verdict = ImaVerdict::new(PcrBank::Sha384, &policy);
    let _ = verdict.follow(0, &entries, &[0xee; 48], &policy);
}

/// Read as the agent does after it was killed, as the cloud does, and as a log that begins later.
pub fn app_log(bytes: &[u8]) {
    const PCR: u32 = 14;
    let left = AppLog::salvage(bytes, PCR);
    assert_eq!(AppLog::parse(left.bytes(), PCR), Ok(left.clone()));
    assert!(bytes.starts_with(left.bytes()));
    let begun = AppState::new(PCR, [0; 32]);
    let value = left.replay([0; 32]);
    if let Ok(followed) = begun.follow(0, bytes, &value) {
        assert!(followed.reached(&value));
        assert_eq!(followed.records(), left.events().len());
    }
    let _ = begun.follow(0, bytes, &[1; 32]);
    let _ = begun.follow(u64::MAX, bytes, &[1; 32]);
}

pub fn app_logs() -> Vec<Vec<u8>> {
    let app = App {
        publisher: "acme".to_owned(),
        name: "collector".to_owned(),
        version: "2.3.1".to_owned(),
        digest: "ab".repeat(32),
    };
    let denied = Happened::Denied {
        digest: "cd".repeat(32),
    };
    let mut log = AppLog::default();
    for happened in [
        Happened::Installed(app.clone()),
        Happened::Started(app.clone()),
        denied,
        Happened::Revoked(app),
        Happened::Overflow,
    ] {
        let level = "fanotify".to_owned();
        log.append(14, &Event { happened, level })
            .expect("a record");
    }
    vec![log.bytes().to_vec()]
}

pub fn ima_ascii(bytes: &[u8]) {
    if let Ok(binary) = binary_of_ascii(bytes) {
        ima_binary(&binary);
    }
}

pub fn ima_lists() -> Vec<Vec<u8>> {
    let mut list = ImaList::new();
    list.add("/bin/sh", HashAlg::Sha256, &[1; 32]);
    list.add_signed("/bin/cat", &[1; 32], &[7; 20]);
    list.add_violation("/var/log/x");
    vec![list.bytes]
}

pub fn ima_ascii_lists() -> Vec<Vec<u8>> {
    let zeros = "0".repeat(40);
    let digest = "01".repeat(32);
    vec![
        format!("10 {zeros} ima-ng sha256:{digest} /bin/sh\n10 {zeros} ima-sig sha256:{digest} /bin/a b 030204\n")
            .into_bytes(),
    ]
}

struct Cloud {
    trust_domain: TrustDomain,
    node: SpiffeId,
    key: SoftwareKey,
    svid: PublicKey,
    keys: KeySet,
}

impl Cloud {
    fn get() -> &'static Self {
        static CLOUD: OnceLock<Cloud> = OnceLock::new();
        CLOUD.get_or_init(Self::new)
    }

    fn new() -> Self {
        let key = || SoftwareKey::generate().expect("randomness");
        let (root, results) = (key(), key());
        let trust_domain = TrustDomain::new("plant.example").expect("a valid name");
        let later = TEST_NOW.plus(Duration::from_secs(3600));
        let header = Header {
            purpose: Purpose::Keys,
            trust_domain: trust_domain.clone(),
            audience: EVERYBODY.to_owned(),
            number: 1,
            issued: TEST_NOW,
            expires: later,
        };
        let list = [PurposeKey {
            purpose: Purpose::Results,
            key: *results.public_key(),
            not_after: later,
        }];
        let object = SignedObject::sign_json(&root, header, &list).expect("a software key signs");
        let keys = KeySet::open(&object, &[*root.public_key()], &trust_domain, 0, TEST_NOW)
            .expect("a root signed it");
        Self {
            node: SpiffeId::new(&trust_domain, Kind::Node, "gw-1").expect("a valid name"),
            svid: *key().public_key(),
            trust_domain,
            key: results,
            keys,
        }
    }

    fn check(&self, bytes: &[u8]) {
        let expect = ResultExpect {
            trust_domain: &self.trust_domain,
            spiffe_id: &self.node,
            svid_spki: &self.svid.spki_hash(),
            least_number: 0,
            now: TEST_NOW,
        };
        let _ = check_result(bytes, &self.keys, &expect);
    }
}
