//! Approvals and break-glass over the API, refusals first.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_identity::{KeySet, SignedObject};
use edgeward_policy::{Seconds, SourceFile};
use edgeward_wire::break_glass::Grant;

use super::*;
use crate::approvals::message;

const POLICY: &str = r#"
schema = "edgeward-policy/1"
owner = "ot"
scope = "any"
[profile.p]
tier = ["virtual"]
pcr_bank = "sha256"
pcr = { 0 = ["sha256:0000000000000000000000000000000000000000000000000000000000000000"] }
[group.a]
match = { role = ["a"] }
profile = "p"
[operator-group.oncall]
members = ["operator/li", "operator/wu", "operator/acme"]
[service.web]
on = "a"
[service.web.interface.http]
net = "mesh"
l4 = "tcp/80"
[[rule]]
id = "vendor"
effect = "allow"
from = ["operator-group:oncall"]
to = ["web/http"]
do = ["connect"]
approval = { by = ["operator-group:oncall"], quorum = 2, ttl = "2h" }
"#;

const APPROVALS: &str = "/api/v1/approvals";
const GLASS: &str = "/api/v1/break-glass";

struct Scene {
    bench: Bench,
    li: Someone,
    wu: Someone,
}

impl Scene {
    async fn new() -> Self {
        let bench = Bench::new().await;
        let policy = CompiledPolicy::compile(&[SourceFile::new("a.toml", POLICY)], 1).unwrap();
        *bench.control.policy.lock() = Some(Arc::new(policy));
        let li = bench.operator_named("li", Role::Operator).await;
        let wu = bench.operator_named("wu", Role::Admin).await;
        Self { bench, li, wu }
    }

    async fn request(&self, who: &Someone, subject: &str, hours: u64) -> Value {
        let path = format!("{APPROVALS}/rules/vendor");
        let (status, terms) = self.bench.get(who, &path).await;
        assert_eq!(status, StatusCode::OK, "{terms}");
        assert_eq!(
            (&terms["quorum"], &terms["ttl_seconds"]),
            (&json!(2), &json!(7200))
        );
        let digest = terms["digest"].as_str().unwrap();
        let subject: SpiffeId = format!("spiffe://{}/{subject}", domain()).parse().unwrap();
        let until = SystemClock
            .now()
            .plus(std::time::Duration::from_secs(hours * 3600 - 60));
        let signed = message(&domain(), "vendor", digest, &subject, until);
        json!({
            "rule": "vendor", "digest": digest, "subject": subject.to_string(), "until": until.millis(),
            "signature": who.sign(&signed),
        })
    }

    async fn refused(&self, who: &Someone, request: Value) -> (u16, String) {
        let (status, answer) = self.bench.post(who, APPROVALS, request).await;
        (
            status.as_u16(),
            answer["code"].as_str().unwrap_or_default().to_owned(),
        )
    }
}

#[tokio::test]
async fn an_approval_that_may_not_be_given_is_refused_with_a_code_of_its_own() {
    let scene = Scene::new().await;
    let stranger = scene.bench.operator_named("zhou", Role::Admin).await;
    let good = scene.request(&scene.li, "operator/acme", 1).await;
    let with = |key: &str, value: Value| {
        let mut request = good.clone();
        request[key] = value;
        request
    };
    let of = async |who: &Someone, subject: &str, hours: u64| {
        scene
            .refused(who, scene.request(who, subject, hours).await)
            .await
    };
    assert_eq!(
        of(&stranger, "operator/acme", 1).await,
        (403, "not_an_approver".into())
    );
    assert_eq!(
        of(&scene.li, "operator/li", 1).await,
        (403, "approval_of_oneself".into())
    );
    assert_eq!(
        of(&scene.li, "operator/acme", 3).await,
        (400, "approval_until".into())
    );
    assert_eq!(
        of(&scene.li, "workload/x", 1).await,
        (400, "approval_subject".into())
    );
    for (request, refusal) in [
        (with("rule", json!("other")), (404, "no_such_approval")),
        (
            with("digest", json!("00".repeat(32))),
            (409, "approval_rule_changed"),
        ),
        (with("until", json!(7)), (400, "approval_until")),
        (with("subject", json!("acme")), (400, "approval_subject")),
        (
            with("subject", json!("spiffe://other.example/operator/acme")),
            (400, "approval_subject"),
        ),
        (
            with(
                "subject",
                json!(format!("spiffe://{}/operator/wu", domain())),
            ),
            (400, "approval_signature"),
        ),
        (with("signature", json!("00")), (400, "approval_signature")),
    ] {
        let got = scene.refused(&scene.li, request.clone()).await;
        assert_eq!(got, (refusal.0, refusal.1.to_owned()), "{request}");
    }
    // Another one's signature is none of the caller's.
    assert_eq!(
        scene.refused(&scene.wu, good).await,
        (400, "approval_signature".to_owned())
    );
    assert!(
        scene
            .bench
            .recorded(EventKind::ApprovalGiven)
            .await
            .is_empty()
    );
    // What one caller is refused for the same reason is one event, where it is refused within one report.
    let events = scene.bench.recorded(EventKind::ApprovalRefused).await;
    assert!((8..=12).contains(&events.len()), "{events:?}");
    let told: std::collections::BTreeSet<String> = events
        .iter()
        .map(|event| format!("{} {:?}", event.actor, event.code))
        .collect();
    assert_eq!(told.len(), 8);
    assert!(!scene.bench.control.asked().contains(&"openings".to_owned()));
}

#[tokio::test]
async fn a_rule_is_approved_by_its_quorum_and_no_more_once_one_of_it_is_revoked() {
    let scene = Scene::new().await;
    let (li, wu) = (&scene.li, &scene.wu);
    let request = scene.request(li, "operator/acme", 1).await;
    let (status, first) = scene.bench.post(li, APPROVALS, request.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{first}");
    assert_eq!(
        (&first["in_force"], &first["have"]),
        (&json!(false), &json!(1))
    );
    // The same operator again is still one.
    let (_, again) = scene.bench.post(li, APPROVALS, request).await;
    assert_eq!(
        (&again["in_force"], &again["have"]),
        (&json!(false), &json!(1))
    );
    let request = scene.request(wu, "operator/acme", 1).await;
    let (_, second) = scene.bench.post(wu, APPROVALS, request).await;
    assert_eq!(
        (&second["in_force"], &second["have"]),
        (&json!(true), &json!(2))
    );
    let events = scene.bench.recorded(EventKind::ApprovalGiven).await;
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| {
        event
            .rule
            .as_ref()
            .is_some_and(|rule| rule.as_str() == "vendor")
    }));
    let path = format!("{APPROVALS}/{}", second["number"]);
    assert_eq!(
        scene.bench.delete(li, &path).await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(scene.bench.delete(li, &path).await.0, StatusCode::NOT_FOUND);
    let (_, list) = scene.bench.get(li, APPROVALS).await;
    let states: Vec<(&str, bool)> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (
                item["status"].as_str().unwrap(),
                item["in_force"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        states,
        [("revoked", false), ("counts", false), ("counts", false)]
    );
    assert_eq!(
        scene.bench.recorded(EventKind::ApprovalRevoked).await.len(),
        1
    );
    let asked = scene.bench.control.asked();
    assert_eq!(asked.iter().filter(|asked| *asked == "openings").count(), 4);
}

fn glass() -> SliceBreakGlass {
    let by =
        ["li", "wu", "gone"].map(|name| SpiffeId::new(&domain(), Kind::Operator, name).unwrap());
    SliceBreakGlass {
        name: "line3".to_owned(),
        rules: vec!["vendor".into()],
        by: by.to_vec(),
        quorum: 2,
        ttl: Seconds::from_hours(1),
        revoked: Vec::new(),
    }
}

#[tokio::test]
async fn a_grant_is_signed_for_what_the_policy_opens_on_the_node_and_for_those_who_have_a_certificate()
 {
    let scene = Scene::new().await;
    let (bench, wu) = (&scene.bench, &scene.wu);
    let issue = async |request: Value| {
        let (status, answer) = bench.post(wu, GLASS, request).await;
        (
            status.as_u16(),
            answer["code"].as_str().unwrap_or_default().to_owned(),
            answer,
        )
    };
    let good = json!({"name": "line3", "node": "gw-3"});
    let (status, code, _) = issue(good.clone()).await;
    assert_eq!((status, code.as_str()), (404, "no_such_break_glass"));
    let key = SoftwareKey::generate().unwrap().public_key().spki_hash();
    *bench.control.glass.lock() = Some((
        SliceBreakGlass {
            quorum: 3,
            ..glass()
        },
        key,
    ));
    let (status, code, _) = issue(good.clone()).await;
    assert_eq!((status, code.as_str()), (409, "break_glass_quorum"));
    *bench.control.glass.lock() = Some((glass(), key));
    for bad in ["0s", "2years", "soon"] {
        let (status, code, _) = issue(json!({"name": "line3", "node": "gw-3", "valid": bad})).await;
        assert_eq!((status, code.as_str()), (400, "ttl"));
    }
    let (status, _, issued) = issue(good).await;
    assert_eq!(status, 201, "{issued}");
    let bytes = STANDARD.decode(issued["object"].as_str().unwrap()).unwrap();
    let set = STANDARD
        .decode(issued["key_set"].as_str().unwrap())
        .unwrap();
    let roots = bench.api.keys.bundle().root_keys();
    let now = SystemClock.now();
    let set = SignedObject::parse(&set).unwrap();
    let keys = KeySet::open(&set, &roots, &domain(), 0, now).unwrap();
    let node = SpiffeId::new(&domain(), Kind::Node, "gw-3").unwrap();
    let grant = Grant::open(&bytes, &keys, &node, now).unwrap();
    assert_eq!(grant.body().node_key, key);
    assert_eq!((grant.body().quorum, grant.body().ttl_seconds), (2, 3600));
    let names: Vec<&str> = grant
        .body()
        .approvers
        .iter()
        .map(|one| one.id.name())
        .collect();
    assert_eq!(names, ["li", "wu"]);
    assert_eq!(bench.recorded(EventKind::GlassIssued).await.len(), 1);
    let (_, list) = bench.get(&scene.li, GLASS).await;
    assert_eq!(list["items"][0]["status"], "sealed");
    // Neither the object nor anything that opens it is kept.
    assert!(
        !list
            .to_string()
            .contains(issued["object"].as_str().unwrap())
    );
}

#[tokio::test]
async fn a_grant_is_revoked_once_and_acknowledged_only_after_it_was_opened() {
    let scene = Scene::new().await;
    let (bench, wu) = (&scene.bench, &scene.wu);
    let key = SoftwareKey::generate().unwrap().public_key().spki_hash();
    *bench.control.glass.lock() = Some((glass(), key));
    for _ in 0..2 {
        let request = json!({"name": "line3", "node": "gw-3"});
        assert_eq!(bench.post(wu, GLASS, request).await.0, StatusCode::CREATED);
    }
    assert_eq!(
        bench.delete(&scene.li, "/api/v1/break-glass/1").await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        bench.delete(&scene.li, "/api/v1/break-glass/1").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        bench.delete(&scene.li, "/api/v1/break-glass/9").await.0,
        StatusCode::NOT_FOUND
    );
    let path = "/api/v1/break-glass/2/acknowledge";
    assert_eq!(
        bench.post(wu, path, json!(null)).await.0,
        StatusCode::NOT_FOUND
    );
    let (_, status) = bench.get(wu, "/api/v1/status").await;
    assert_eq!(status["break_glass"], json!([]));
    let mut tx = bench.store.begin("test").await.unwrap();
    let now = SystemClock.now();
    assert!(
        tx.note_glass_opened(("gw-3", 2), "li wu", now)
            .await
            .unwrap()
    );
    tx.commit().await.unwrap();
    let (_, status) = bench.get(wu, "/api/v1/status").await;
    assert_eq!(status["break_glass"][0]["opened_by"], "li wu");
    assert_eq!(
        bench.post(wu, path, json!(null)).await.0,
        StatusCode::NO_CONTENT
    );
    let (_, status) = bench.get(wu, "/api/v1/status").await;
    assert_eq!(status["break_glass"], json!([]));
    for kind in [EventKind::GlassRevoked, EventKind::GlassAcknowledged] {
        assert_eq!(bench.recorded(kind).await.len(), 1);
    }
}
