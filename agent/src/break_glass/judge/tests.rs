use edgeward_identity::signed::{EVERYBODY, Header, PurposeKey};
use edgeward_identity::{Purpose, SignedObject, Signer, SoftwareKey, TrustDomain};
use edgeward_policy::Seconds;
use edgeward_wire::break_glass::{Approver, Contents, GRANT_SCHEMA, GrantBody, approve, seal};

use super::*;
use crate::break_glass::GlassUse;
use crate::enforce::testing;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

/// A node, its cloud, two operators and a stranger.
struct Scene {
    cloud: SoftwareKey,
    keys: KeySet,
    own: SoftwareKey,
    operators: Vec<(SpiffeId, SoftwareKey)>,
    node: SpiffeId,
    slice: Slice,
    deny: DenyList,
    uses: GlassUses,
    standing: Standing,
    now: Timestamp,
}

fn code() -> Code {
    Code::new(edgeward_identity::Secret::new([7; 16]))
}

fn domain() -> TrustDomain {
    testing::id("a").trust_domain().clone()
}

fn operator(name: &str) -> SpiffeId {
    SpiffeId::new(&domain(), edgeward_identity::Kind::Operator, name).unwrap()
}

fn header(purpose: Purpose, audience: String) -> Header {
    Header {
        purpose,
        trust_domain: domain(),
        audience,
        number: 7,
        issued: NOW.minus(HOUR),
        expires: NOW.plus(HOUR * 24 * 90),
    }
}

impl Scene {
    fn new() -> Self {
        let (root, cloud) = (
            SoftwareKey::generate().unwrap(),
            SoftwareKey::generate().unwrap(),
        );
        let list = [PurposeKey {
            purpose: Purpose::BreakGlass,
            key: *cloud.public_key(),
            not_after: NOW.plus(HOUR * 24 * 365),
        }];
        let set =
            SignedObject::sign_json(&root, header(Purpose::Keys, EVERYBODY.to_owned()), &list);
        let keys = KeySet::open(&set.unwrap(), &[*root.public_key()], &domain(), 0, NOW).unwrap();
        let operators = ["li", "wu", "zhou"]
            .map(|name| (operator(name), SoftwareKey::generate().unwrap()))
            .into();
        let mut slice = testing::slice();
        slice.expires = NOW.plus(HOUR * 24 * 9);
        slice.break_glass = vec![SliceBreakGlass {
            name: "line3".to_owned(),
            rules: vec!["vendor".into(), "other".into()],
            by: vec![operator("li"), operator("wu")],
            quorum: 2,
            ttl: Seconds::from_hours(1),
            revoked: Vec::new(),
        }];
        Self {
            cloud,
            keys,
            own: SoftwareKey::generate().unwrap(),
            operators,
            node: slice.node.clone(),
            slice,
            deny: DenyList::default(),
            uses: GlassUses::default(),
            standing: Standing::Granting,
            now: NOW,
        }
    }

    fn body(&self) -> GrantBody {
        let approvers = self.operators.iter().take(2);
        GrantBody {
            schema: GRANT_SCHEMA.to_owned(),
            name: "line3".to_owned(),
            node_key: self.own.public_key().spki_hash(),
            rules: vec!["vendor".to_owned(), "gone".to_owned()],
            approvers: approvers
                .map(|(id, key)| Approver {
                    id: id.clone(),
                    key: *key.public_key(),
                })
                .collect(),
            quorum: 2,
            ttl_seconds: 1800,
        }
    }

    fn object(&self, body: &GrantBody) -> Vec<u8> {
        let header = header(Purpose::BreakGlass, self.node.to_string());
        body.sign(&self.cloud, header).unwrap()
    }

    fn judge(
        &self,
        object: &[u8],
        code: &str,
        approvals: &[Vec<u8>],
    ) -> Result<MayOpen, NotOpened> {
        let contents = Contents {
            grant: object.to_vec(),
            key_set: Vec::new(),
        };
        let sealed = seal(&contents, &self::code(), [1; 16], [2; 12]).unwrap();
        self.judge_sealed(&sealed, code, approvals)
    }

    fn judge_sealed(
        &self,
        sealed: &[u8],
        code: &str,
        approvals: &[Vec<u8>],
    ) -> Result<MayOpen, NotOpened> {
        let asked = Asked {
            sealed,
            code,
            approvals,
        };
        let knows = Knows {
            node: &self.node,
            keys: &self.keys,
            deny: &self.deny,
            own_key: self.own.public_key().spki_hash(),
            slice: Some(&self.slice),
            uses: &self.uses,
            standing: self.standing,
            now: self.now,
        };
        judge(&asked, &knows)
    }
}

fn typed() -> String {
    code().encode().expose().clone()
}

/// A grant of this body with the approvals of these operators, over its very bytes.
fn brought(scene: &Scene, body: &GrantBody, by: &[usize]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let object = scene.object(body);
    let grant = Grant::open(&object, &scene.keys, &scene.node, NOW).unwrap();
    let approvals = by.iter().map(|index| {
        let (id, key) = &scene.operators[*index];
        approve(&grant, id, key, NOW).unwrap()
    });
    let approvals = approvals.collect();
    (object, approvals)
}

#[track_caller]
fn refused(scene: &Scene, body: &GrantBody, by: &[usize]) -> &'static str {
    let (object, approvals) = brought(scene, body, by);
    scene
        .judge(&object, &typed(), &approvals)
        .unwrap_err()
        .code()
}

#[test]
fn what_is_brought_wrongly_opens_nothing_and_each_refusal_has_its_own_code() {
    let scene = Scene::new();
    let body = scene.body();
    let (object, approvals) = brought(&scene, &body, &[0, 1]);
    let code_of = |result: Result<MayOpen, NotOpened>| result.unwrap_err().code();
    assert_eq!(
        code_of(scene.judge(&object, "0000", &approvals)),
        "glass_code"
    );
    let other = Code::new(edgeward_identity::Secret::new([8; 16])).encode();
    assert_eq!(
        code_of(scene.judge(&object, other.expose(), &approvals)),
        "glass_seal"
    );
    assert_eq!(
        code_of(scene.judge_sealed(b"EWBG", &typed(), &approvals)),
        "glass_file"
    );
    assert_eq!(refused(&scene, &body, &[]), "glass_quorum");
    assert_eq!(refused(&scene, &body, &[0]), "glass_quorum");
    assert_eq!(refused(&scene, &body, &[0, 0]), "glass_same_operator");
    assert_eq!(refused(&scene, &body, &[0, 2]), "glass_not_an_approver");
    let garbage = vec![approvals[0].clone(), b"EWSO".to_vec()];
    assert_eq!(
        code_of(scene.judge(&object, &typed(), &garbage)),
        "glass_approval"
    );
    // Of a grant that differs in its rules only.
    let mut body_of_other = body.clone();
    body_of_other.rules.pop();
    let (_, of_other) = brought(&scene, &body_of_other, &[0, 1]);
    assert_eq!(
        code_of(scene.judge(&object, &typed(), &of_other)),
        "glass_approval_other_grant"
    );
    let many = vec![approvals[0].clone(); MAX_APPROVALS + 1];
    assert_eq!(
        code_of(scene.judge(&object, &typed(), &many)),
        "glass_too_many_approvals"
    );
}

#[test]
fn a_grant_opens_nothing_elsewhere_later_again_or_for_another_machine() {
    let mut scene = Scene::new();
    let body = scene.body();
    let (object, approvals) = brought(&scene, &body, &[0, 1]);
    let code = |scene: &Scene| {
        scene
            .judge(&object, &typed(), &approvals)
            .unwrap_err()
            .code()
    };
    assert!(scene.judge(&object, &typed(), &approvals).is_ok());
    scene.now = NOW.plus(HOUR * 25);
    assert_eq!(code(&scene), "glass_approval_expired");
    scene.now = NOW.plus(HOUR * 24 * 90);
    assert_eq!(code(&scene), "glass_expired");
    scene.now = NOW;
    let own = std::mem::replace(&mut scene.own, SoftwareKey::generate().unwrap());
    assert_eq!(code(&scene), "glass_other_key");
    scene.own = own;
    let node = std::mem::replace(&mut scene.node, testing::id("b"));
    assert_eq!(code(&scene), "glass_other_node");
    scene.node = node;
    scene.standing = Standing::Held(Held::StateRolledBack);
    assert_eq!(code(&scene), "held_rollback");
    scene.standing = Standing::Granting;
    scene.uses.add(
        GlassUse {
            number: 7,
            name: "line3".to_owned(),
            ends: NOW.plus(HOUR),
            rules: Vec::new(),
            by: Vec::new(),
            opened: NOW,
            kernel_boot: String::new(),
            until_boot_millis: 0,
            closed: true,
        },
        NOW,
    );
    assert_eq!(code(&scene), "glass_used");
}

#[test]
fn the_policy_in_force_here_has_the_last_word() {
    let mut scene = Scene::new();
    let body = scene.body();
    let (object, approvals) = brought(&scene, &body, &[0, 1]);
    let code = |scene: &Scene| {
        scene
            .judge(&object, &typed(), &approvals)
            .unwrap_err()
            .code()
    };
    let policy = scene.slice.break_glass[0].clone();
    scene.slice.break_glass[0].name = "line4".to_owned();
    assert_eq!(code(&scene), "glass_not_in_policy");
    scene.slice.break_glass[0] = SliceBreakGlass {
        rules: vec!["other".into()],
        ..policy.clone()
    };
    assert_eq!(code(&scene), "glass_not_in_policy");
    scene.slice.break_glass[0] = SliceBreakGlass {
        revoked: vec![7],
        ..policy.clone()
    };
    assert_eq!(code(&scene), "glass_revoked");
    scene.slice.break_glass[0] = SliceBreakGlass {
        by: vec![operator("li"), operator("zhou")],
        ..policy.clone()
    };
    assert_eq!(code(&scene), "glass_operator_not_in_policy");
    scene.slice.break_glass[0] = SliceBreakGlass {
        quorum: 3,
        by: ["li", "wu", "zhou"].map(operator).to_vec(),
        ..policy.clone()
    };
    assert_eq!(code(&scene), "glass_quorum");
    scene.slice.break_glass[0] = policy;
    scene.slice.expires = NOW;
    assert_eq!(code(&scene), "glass_not_in_policy");
}

#[test]
fn what_opens_is_the_stricter_of_grant_and_policy() {
    let mut scene = Scene::new();
    let body = scene.body();
    let (object, approvals) = brought(&scene, &body, &[1, 0]);
    let may = scene.judge(&object, &typed(), &approvals).unwrap();
    assert_eq!(may.rules(), ["vendor".into()]);
    assert_eq!(may.ttl(), Duration::from_secs(1800));
    assert_eq!(may.by(), [operator("li"), operator("wu")]);
    scene.slice.break_glass[0].ttl = Seconds::new(60);
    let may = scene.judge(&object, &typed(), &approvals).unwrap();
    assert_eq!(may.ttl(), Duration::from_secs(60));
}

#[test]
fn a_byte_changed_anywhere_in_the_file_opens_nothing() {
    let scene = Scene::new();
    let body = scene.body();
    let (object, approvals) = brought(&scene, &body, &[0, 1]);
    let contents = Contents {
        grant: object,
        key_set: Vec::new(),
    };
    let sealed = seal(&contents, &code(), [1; 16], [2; 12]).unwrap();
    assert!(scene.judge_sealed(&sealed, &typed(), &approvals).is_ok());
    for index in 0..sealed.len() {
        let mut altered = sealed.clone();
        altered[index] ^= 1;
        let refused = scene
            .judge_sealed(&altered, &typed(), &approvals)
            .unwrap_err();
        let expected = if index < 5 {
            "glass_file"
        } else {
            "glass_seal"
        };
        assert_eq!(refused.code(), expected, "byte {index}");
    }
}
