//! Targets for what people carry to a node: the sealed file, its code, approvals, and the request that brings them.

use std::time::Duration;

use edgeward_agent::status::parse_act;
use edgeward_identity::signed::{EVERYBODY, Header, PurposeKey};
use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{
    KeySet, Purpose, Secret, SignedObject, Signer, SoftwareKey, SpiffeId, TrustDomain,
};
use edgeward_wire::break_glass::{
    Approver, Code, Contents, GRANT_SCHEMA, Grant, GrantBody, approve, approved_by, seal, unseal,
};

thread_local! {
    static DESK: Desk = Desk::new();
}

struct Desk {
    keys: KeySet,
    node: SpiffeId,
    object: Vec<u8>,
    grant: Grant,
    approval: Vec<u8>,
}

impl Desk {
    fn new() -> Self {
        let domain = TrustDomain::new("plant.example").unwrap();
        let node: SpiffeId = "spiffe://plant.example/node/gw-3".parse().unwrap();
        let li: SpiffeId = "spiffe://plant.example/operator/li".parse().unwrap();
        let [root, cloud, own] = [(); 3].map(|()| SoftwareKey::generate().unwrap());
        let end = TEST_NOW.plus(Duration::from_secs(86_400));
        let header = |purpose, audience: &str| Header {
            purpose,
            trust_domain: domain.clone(),
            audience: audience.to_owned(),
            number: 7,
            issued: TEST_NOW,
            expires: end,
        };
        let list = [PurposeKey {
            purpose: Purpose::BreakGlass,
            key: *cloud.public_key(),
            not_after: end,
        }];
        let set = SignedObject::sign_json(&root, header(Purpose::Keys, EVERYBODY), &list).unwrap();
        let keys = KeySet::open(&set, &[*root.public_key()], &domain, 0, TEST_NOW).unwrap();
        let body = GrantBody {
            schema: GRANT_SCHEMA.to_owned(),
            name: "line3".to_owned(),
            node_key: own.public_key().spki_hash(),
            rules: vec!["vendor".to_owned()],
            approvers: vec![Approver {
                id: li.clone(),
                key: *own.public_key(),
            }],
            quorum: 1,
            ttl_seconds: 60,
        };
        let object = body
            .sign(&cloud, header(Purpose::BreakGlass, &node.to_string()))
            .unwrap();
        let grant = Grant::open(&object, &keys, &node, TEST_NOW).unwrap();
        let approval = approve(&grant, &li, &own, TEST_NOW).unwrap();
        Self {
            keys,
            node,
            object,
            grant,
            approval,
        }
    }
}

fn code() -> Code {
    Code::new(Secret::new([7; 16]))
}

/// Nothing but the file that was sealed opens.
pub fn sealed(bytes: &[u8]) {
    if unseal(bytes, &code()).is_ok() {
        DESK.with(|desk| assert!(files(desk).iter().any(|file| file == bytes)));
    }
}

fn files(desk: &Desk) -> Vec<Vec<u8>> {
    let contents = Contents {
        grant: desk.object.clone(),
        key_set: Vec::new(),
    };
    vec![seal(&contents, &code(), [1; 16], [2; 12]).unwrap()]
}

pub fn sealed_files() -> Vec<Vec<u8>> {
    DESK.with(files)
}

/// A code that is read prints as what reads as the same.
pub fn codes(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(code) = Code::parse(text)
    {
        let again = Code::parse(code.encode().expose()).unwrap();
        assert_eq!(again.encode().expose(), code.encode().expose());
    }
}

pub fn typed_codes() -> Vec<Vec<u8>> {
    vec![code().encode().expose().clone().into_bytes()]
}

pub fn grant(bytes: &[u8]) {
    DESK.with(|desk| {
        if Grant::open(bytes, &desk.keys, &desk.node, TEST_NOW).is_ok() {
            assert_eq!(bytes, desk.object);
        }
    });
}

pub fn grants() -> Vec<Vec<u8>> {
    DESK.with(|desk| vec![desk.object.clone()])
}

pub fn approval(bytes: &[u8]) {
    DESK.with(|desk| {
        if approved_by(bytes, &desk.grant, TEST_NOW).is_ok() {
            assert_eq!(bytes, desk.approval);
        }
    });
}

pub fn approvals() -> Vec<Vec<u8>> {
    DESK.with(|desk| vec![desk.approval.clone()])
}

pub fn act(bytes: &[u8]) {
    drop(parse_act(bytes));
}

pub fn acts() -> Vec<Vec<u8>> {
    [
        r#"{"act":"open-glass","sealed":"RVdCRwE=","code":"0000-0000","approvals":["RVdTTw=="]}"#,
        r#"{"act":"close-glass","number":7}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
