use std::time::Duration;

use edgeward_identity::signed::{EVERYBODY, Header, PurposeKey, Unacceptable};
use edgeward_identity::{
    KeySet, Purpose, SignedObject, Signer, SoftwareKey, SpiffeId, Timestamp, TrustDomain,
};

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

struct Desk {
    cloud: SoftwareKey,
    keys: KeySet,
    li: SoftwareKey,
    wu: SoftwareKey,
}

fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

fn id(text: &str) -> SpiffeId {
    format!("spiffe://plant.example/{text}").parse().unwrap()
}

fn header(purpose: Purpose) -> Header {
    Header {
        purpose,
        trust_domain: domain(),
        audience: id("node/gw-3").to_string(),
        number: 7,
        issued: NOW,
        expires: NOW.plus(HOUR * 24 * 90),
    }
}

impl Desk {
    fn new() -> Self {
        let root = SoftwareKey::generate().unwrap();
        let cloud = SoftwareKey::generate().unwrap();
        let list = [Purpose::Policy, Purpose::BreakGlass].map(|purpose| PurposeKey {
            purpose,
            key: *cloud.public_key(),
            not_after: NOW.plus(HOUR * 24 * 365),
        });
        let header = Header {
            audience: EVERYBODY.to_owned(),
            ..header(Purpose::Keys)
        };
        let set = SignedObject::sign_json(&root, header, &list).unwrap();
        let keys = KeySet::open(&set, &[*root.public_key()], &domain(), 0, NOW).unwrap();
        Self {
            cloud,
            keys,
            li: SoftwareKey::generate().unwrap(),
            wu: SoftwareKey::generate().unwrap(),
        }
    }

    fn body(&self) -> GrantBody {
        let approver = |name: &str, key: &SoftwareKey| Approver {
            id: id(&format!("operator/{name}")),
            key: *key.public_key(),
        };
        GrantBody {
            schema: GRANT_SCHEMA.to_owned(),
            name: "line3".to_owned(),
            node_key: self.cloud.public_key().spki_hash(),
            rules: vec!["vendor-maintenance".to_owned()],
            approvers: vec![approver("li", &self.li), approver("wu", &self.wu)],
            quorum: 2,
            ttl_seconds: 3600,
        }
    }

    fn grant(&self) -> Grant {
        let bytes = self
            .body()
            .sign(&self.cloud, header(Purpose::BreakGlass))
            .unwrap();
        Grant::open(&bytes, &self.keys, &id("node/gw-3"), NOW).unwrap()
    }

    fn refused(&self, body: &GrantBody, header: Header) -> NotAGrant {
        let bytes = body.sign(&self.cloud, header).unwrap();
        Grant::open(&bytes, &self.keys, &id("node/gw-3"), NOW).unwrap_err()
    }
}

#[test]
fn a_grant_for_somebody_or_something_else_is_none() {
    let desk = Desk::new();
    let body = desk.body();
    let good = header(Purpose::BreakGlass);
    assert_eq!(
        desk.refused(&body, header(Purpose::Policy)),
        NotAGrant::Signed(Unacceptable::Purpose(Purpose::Policy))
    );
    let other_node = Header {
        audience: id("node/gw-4").to_string(),
        ..good.clone()
    };
    assert!(matches!(
        desk.refused(&body, other_node),
        NotAGrant::Signed(Unacceptable::Audience(_))
    ));
    let ended = Header {
        expires: NOW,
        ..good.clone()
    };
    assert_eq!(
        desk.refused(&body, ended),
        NotAGrant::Signed(Unacceptable::Expired)
    );
    let stranger = SoftwareKey::generate().unwrap();
    let bytes = body.sign(&stranger, good).unwrap();
    assert_eq!(
        Grant::open(&bytes, &desk.keys, &id("node/gw-3"), NOW),
        Err(NotAGrant::Signed(Unacceptable::Key))
    );
}

#[test]
fn a_grant_that_would_check_nothing_is_none() {
    let desk = Desk::new();
    let good = desk.body();
    let one_twice = vec![good.approvers[0].clone(), good.approvers[0].clone()];
    let same_key = Approver {
        id: id("operator/yi"),
        ..good.approvers[0].clone()
    };
    let not_an_operator = Approver {
        id: id("node/gw-3"),
        ..good.approvers[0].clone()
    };
    let bad = [
        GrantBody {
            quorum: 0,
            ..good.clone()
        },
        GrantBody {
            quorum: 3,
            ..good.clone()
        },
        GrantBody {
            rules: Vec::new(),
            ..good.clone()
        },
        GrantBody {
            rules: vec!["a".into(), "a".into()],
            ..good.clone()
        },
        GrantBody {
            approvers: Vec::new(),
            ..good.clone()
        },
        GrantBody {
            approvers: one_twice,
            ..good.clone()
        },
        GrantBody {
            approvers: vec![good.approvers[0].clone(), same_key],
            ..good.clone()
        },
        GrantBody {
            approvers: vec![not_an_operator],
            quorum: 1,
            ..good.clone()
        },
        GrantBody {
            ttl_seconds: 0,
            ..good.clone()
        },
        GrantBody {
            ttl_seconds: MAX_TTL_SECONDS + 1,
            ..good.clone()
        },
        GrantBody {
            schema: "edgeward-break-glass/2".into(),
            ..good.clone()
        },
    ];
    for body in bad {
        let refused = desk.refused(&body, header(Purpose::BreakGlass));
        assert_eq!(refused, NotAGrant::Content, "{body:?}");
    }
}

#[test]
fn an_approval_counts_for_its_grant_and_its_operator_only() {
    let desk = Desk::new();
    let grant = desk.grant();
    let (li, wu) = (id("operator/li"), id("operator/wu"));
    let later = NOW.plus(MAX_APPROVAL_LIFETIME);
    let good = approve(&grant, &li, &desk.li, NOW).unwrap();
    assert_eq!(approved_by(&good, &grant, NOW).unwrap().id, li);
    // Of a grant that differs in nothing but its rules.
    let mut body = desk.body();
    body.rules = vec!["other".to_owned()];
    let bytes = body.sign(&desk.cloud, header(Purpose::BreakGlass)).unwrap();
    let other = Grant::open(&bytes, &desk.keys, &id("node/gw-3"), NOW).unwrap();
    assert_eq!(
        approved_by(&good, &other, NOW),
        Err(NotAnApproval::OtherGrant)
    );
    // Somebody else's key, or another's name on it.
    let stranger = SoftwareKey::generate().unwrap();
    let forged = approve(&grant, &li, &stranger, NOW).unwrap();
    assert_eq!(
        approved_by(&forged, &grant, NOW),
        Err(NotAnApproval::NotAnApprover)
    );
    let borrowed = approve(&grant, &wu, &desk.li, NOW).unwrap();
    assert_eq!(
        approved_by(&borrowed, &grant, NOW),
        Err(NotAnApproval::NotAnApprover)
    );
    // Too old, or signed by a clock that runs far ahead.
    assert_eq!(
        approved_by(&good, &grant, later),
        Err(NotAnApproval::Expired)
    );
    let ahead = approve(&grant, &li, &desk.li, NOW.plus(HOUR)).unwrap();
    assert!(approved_by(&ahead, &grant, NOW).is_ok());
    let ahead = approve(&grant, &li, &desk.li, NOW.plus(HOUR * 2)).unwrap();
    assert_eq!(
        approved_by(&ahead, &grant, NOW),
        Err(NotAnApproval::Expired)
    );
}

#[test]
fn a_byte_changed_anywhere_in_an_approval_or_a_grant_is_noticed() {
    let desk = Desk::new();
    let grant = desk.grant();
    let approval = approve(&grant, &id("operator/li"), &desk.li, NOW).unwrap();
    for index in 0..approval.len() {
        let mut altered = approval.clone();
        altered[index] ^= 1;
        assert!(approved_by(&altered, &grant, NOW).is_err(), "byte {index}");
    }
    let bytes = desk
        .body()
        .sign(&desk.cloud, header(Purpose::BreakGlass))
        .unwrap();
    for index in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[index] ^= 1;
        let opened = Grant::open(&altered, &desk.keys, &id("node/gw-3"), NOW);
        assert!(opened.is_err(), "byte {index}");
    }
}

#[test]
fn an_operator_s_approval_is_no_grant_and_a_grant_is_no_approval() {
    let desk = Desk::new();
    let grant = desk.grant();
    let approval = approve(&grant, &id("operator/li"), &desk.li, NOW).unwrap();
    assert!(Grant::open(&approval, &desk.keys, &id("node/gw-3"), NOW).is_err());
    let bytes = desk
        .body()
        .sign(&desk.li, header(Purpose::BreakGlass))
        .unwrap();
    assert!(matches!(
        approved_by(&bytes, &grant, NOW),
        Err(NotAnApproval::Signed(_))
    ));
}
