//! What the routes do, refusals first.

use axum::http::HeaderValue;
use edgeward_wire::token::BootstrapToken;

use super::*;
use crate::api::views::{OperatorRequest, PolicyApply};

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
[group.b]
match = { role = ["b"] }
profile = "p"
[service.web]
on = "b"
[service.web.interface.http]
net = "mesh"
l4 = "tcp/80"
[[rule]]
id = "a-to-b"
effect = "allow"
from = ["group:a"]
to = ["web/http"]
do = ["connect"]
"#;

fn new_operator(name: &str, role: &str) -> (SoftwareKey, Value) {
    let key = SoftwareKey::generate().unwrap();
    let proof = key
        .sign(&OperatorRequest::message(&domain(), name))
        .unwrap();
    let request = json!({
        "name": name, "role": role, "public_key": hex::encode(key.public_key().point()),
        "proof": hex::encode(proof),
    });
    (key, request)
}

fn apply_request(who: &Someone, number: u64, text: &str) -> Value {
    let files = [edgeward_policy::SourceFile::new("a.toml", text)];
    let hash = hex::encode(edgeward_policy::source::hash_sources(&files));
    json!({
        "files": [{"path": "a.toml", "text": text}],
        "number": number,
        "signature": who.sign(&PolicyApply::message(&domain(), number, &hash)),
    })
}

#[tokio::test]
async fn malformed_bodies_are_refused_with_a_stable_code() {
    let bench = Bench::new().await;
    let admin = bench.operator(Role::Admin).await;
    let send = async |content: Option<&'static str>, body: Vec<u8>| {
        let mut request = Request::post("/api/v1/tokens")
            .body(Body::from(body))
            .unwrap();
        if let Some(content) = content {
            request
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
        }
        let response = bench.send(&admin, request).await;
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let (status, answer) = read(response).await;
        (status.as_u16(), answer["code"].as_str().unwrap().to_owned())
    };
    let json = Some("application/json");
    assert_eq!(
        send(None, b"{}".to_vec()).await,
        (415, "body_not_json".to_owned())
    );
    assert_eq!(
        send(json, b"{".to_vec()).await,
        (400, "body_malformed".to_owned())
    );
    assert_eq!(
        send(json, b"{\"ttl\": 1}".to_vec()).await,
        (422, "body_malformed".to_owned())
    );
    assert_eq!(
        send(json, b"{\"tll\": \"1h\"}".to_vec()).await,
        (422, "body_malformed".to_owned())
    );
    let large = [
        b"{\"name\": \"".to_vec(),
        vec![b'a'; super::super::MAX_BODY_BYTES],
        b"\"}".to_vec(),
    ];
    assert_eq!(
        send(json, large.concat()).await,
        (413, "body_too_large".to_owned())
    );
}

#[tokio::test]
async fn tokens_with_senseless_terms_are_refused() {
    let bench = Bench::new().await;
    let admin = bench.operator(Role::Operator).await;
    for (request, code) in [
        (json!({"ttl": "0s"}), "ttl"),
        (json!({"ttl": "2years"}), "ttl"),
        (json!({"ttl": "soon"}), "ttl"),
        (json!({"uses": 0}), "token_uses"),
        (json!({"uses": 100_001}), "token_uses"),
        (json!({"name": "a/b"}), "token_name"),
        (json!({"ek": "abc"}), "token_ek"),
        (json!({"labels": {"role": ""}}), "labels"),
        (json!({"labels": {"a b": "c"}}), "labels"),
    ] {
        let (status, answer) = bench.post(&admin, "/api/v1/tokens", request.clone()).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (StatusCode::BAD_REQUEST, Some(code)),
            "{request}"
        );
    }
    assert!(bench.store.tokens().await.unwrap().is_empty());
    assert!(bench.recorded(EventKind::TokenCreated).await.is_empty());
}

#[tokio::test]
async fn a_token_is_shown_once_recorded_and_revoked_once() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Operator).await;
    let request = json!({"labels": {"role": "gateway"}, "name": "gw-*", "ttl": "1h", "uses": 3});
    let (status, created) = bench.post(&who, "/api/v1/tokens", request).await;
    assert_eq!(status, StatusCode::CREATED);
    let token = BootstrapToken::parse(created["token"].as_str().unwrap()).unwrap();
    assert_eq!(token.pin(), &bench.api.keys.root_pin());
    assert_eq!(token.addresses(), ["cloud.plant.example:7443"]);
    let stored = bench.store.token(token.id()).await.unwrap().unwrap();
    let hash = ring::digest::digest(&ring::digest::SHA256, token.secret().expose());
    assert_eq!(stored.secret_hash, hex::encode(hash));
    let (_, list) = bench.get(&who, "/api/v1/tokens").await;
    assert_eq!(list["items"][0]["status"], "usable");
    assert!(!list.to_string().contains(&stored.secret_hash));
    let path = format!("/api/v1/tokens/{}", token.id());
    assert_eq!(bench.delete(&who, &path).await.0, StatusCode::NO_CONTENT);
    assert_eq!(bench.delete(&who, &path).await.0, StatusCode::CONFLICT);
    assert_eq!(
        bench.delete(&who, "/api/v1/tokens/none").await.0,
        StatusCode::NOT_FOUND
    );
    let created = bench.recorded(EventKind::TokenCreated).await;
    assert_eq!(created.len(), 1);
    assert_eq!(
        created[0].actor.to_string(),
        "spiffe://plant.example/operator/operator"
    );
    let subject = created[0].subject.as_ref().unwrap().to_string();
    assert_eq!(subject, format!("token:{}", token.id()));
    assert_eq!(bench.recorded(EventKind::TokenRevoked).await.len(), 1);
}

#[tokio::test]
async fn an_operator_without_possession_of_the_key_is_not_added() {
    let bench = Bench::new().await;
    let admin = bench.operator(Role::Admin).await;
    let (_, good) = new_operator("li", "operator");
    let (_, other) = new_operator("wang", "operator");
    let with = |key: &str, value: Value| {
        let mut request = good.clone();
        request[key] = value;
        request
    };
    for (request, code) in [
        (with("proof", other["proof"].clone()), "operator_proof"),
        (
            with("public_key", other["public_key"].clone()),
            "operator_proof",
        ),
        (with("name", json!("lo")), "operator_proof"),
        (with("public_key", json!("04ff")), "operator_key"),
        (with("name", json!("a/b")), "operator_name"),
        (with("ttl", json!("2y")), "ttl"),
    ] {
        let (status, answer) = bench.post(&admin, "/api/v1/operators", request).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (StatusCode::BAD_REQUEST, Some(code)),
            "{answer}"
        );
    }
    assert_eq!(bench.store.operators().await.unwrap().len(), 1);
}

#[tokio::test]
async fn only_the_newest_key_of_an_operator_counts_and_none_after_revocation() {
    let bench = Bench::new().await;
    let admin = bench.operator(Role::Admin).await;
    let li = bench.operator_named("li", Role::Operator).await;
    assert_eq!(bench.get(&li, "/api/v1/nodes").await.0, StatusCode::OK);
    let (_, mut renewal) = new_operator("li", "operator");
    let (status, answer) = bench
        .post(&admin, "/api/v1/operators", renewal.clone())
        .await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::CONFLICT, Some("exists"))
    );
    renewal["renew"] = json!(true);
    let (status, issued) = bench.post(&admin, "/api/v1/operators", renewal).await;
    assert_eq!(status, StatusCode::CREATED, "{issued}");
    assert!(
        issued["certificates"]
            .as_str()
            .unwrap()
            .contains("BEGIN CERTIFICATE")
    );
    let (status, answer) = bench.get(&li, "/api/v1/nodes").await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::FORBIDDEN, Some("operator_refused"))
    );
    let old = li.key.as_ref().unwrap().public_key().spki_hash();
    assert_eq!(bench.control.asked(), [format!("deny {old} superseded")]);
    assert_eq!(
        bench.delete(&admin, "/api/v1/operators/li").await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        bench.delete(&admin, "/api/v1/operators/nobody").await.0,
        StatusCode::NOT_FOUND
    );
    // Once more: the key is denied again, should the first attempt have failed half-way.
    assert_eq!(
        bench.delete(&admin, "/api/v1/operators/li").await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(bench.control.asked().len(), 3);
    assert_eq!(bench.recorded(EventKind::OperatorAdded).await.len(), 1);
    assert_eq!(bench.recorded(EventKind::OperatorRevoked).await.len(), 1);
}

#[tokio::test]
async fn the_last_admin_stays() {
    let bench = Bench::new().await;
    let admin = bench.operator(Role::Admin).await;
    let (status, answer) = bench.delete(&admin, "/api/v1/operators/admin").await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::CONFLICT, Some("last_admin"))
    );
    assert_eq!(bench.get(&admin, "/api/v1/status").await.0, StatusCode::OK);
    assert!(bench.recorded(EventKind::OperatorRevoked).await.is_empty());
}

#[tokio::test]
async fn a_wrong_expired_or_revoked_api_key_opens_nothing() {
    let bench = Bench::new().await;
    let admin = bench.operator(Role::Admin).await;
    let script = bench.someone(Class::ApiKey(Role::Auditor)).await;
    let good = script.bearer.clone().unwrap();
    assert_eq!(bench.get(&script, "/api/v1/status").await.0, StatusCode::OK);
    let mut changed = good.clone();
    changed.replace_range(
        good.len() - 10..good.len() - 9,
        if good.as_bytes()[good.len() - 10] == b'A' {
            "B"
        } else {
            "A"
        },
    );
    for key in [
        "",
        "x",
        "ewk1__",
        "ewk1_a_b",
        &changed,
        &good.replace("ewk1", "ewk2"),
        &"x".repeat(5000),
    ] {
        let who = Someone {
            bearer: Some(key.to_owned()),
            ..script.clone()
        };
        let (status, answer) = bench.get(&who, "/api/v1/status").await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (StatusCode::UNAUTHORIZED, Some("api_key_refused")),
            "{key}"
        );
    }
    let both = Someone {
        bearer: Some(good.clone()),
        ..admin.clone()
    };
    let (status, answer) = bench.get(&both, "/api/v1/status").await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::BAD_REQUEST, Some("credential_ambiguous"))
    );
    assert_eq!(
        bench.delete(&admin, "/api/v1/apikeys/key-auditor").await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        bench.get(&script, "/api/v1/status").await.0,
        StatusCode::UNAUTHORIZED
    );
    let request = json!({"name": "short", "role": "auditor", "ttl": "1ms"});
    let (_, created) = bench.post(&admin, "/api/v1/apikeys", request).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let expired = Someone {
        bearer: Some(created["key"].as_str().unwrap().to_owned()),
        ..script
    };
    assert_eq!(
        bench.get(&expired, "/api/v1/status").await.0,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_policy_with_errors_a_wrong_signature_or_number_is_not_applied() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Operator).await;
    let other = bench.operator(Role::Admin).await;
    let broken = POLICY.replace("to = [\"web/http\"]", "to = [\"web/https\"]");
    let (status, answer) = bench
        .post(&who, "/api/v1/policies", apply_request(&who, 1, &broken))
        .await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("policy_invalid"))
    );
    assert!(
        answer["findings"][0]
            .as_str()
            .unwrap()
            .starts_with("a.toml:"),
        "{answer}"
    );
    let mut renumbered = apply_request(&who, 2, POLICY);
    renumbered["number"] = json!(1);
    for request in [apply_request(&other, 1, POLICY), renumbered] {
        let (status, answer) = bench.post(&who, "/api/v1/policies", request).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (StatusCode::BAD_REQUEST, Some("policy_signature"))
        );
    }
    let (status, answer) = bench
        .post(&who, "/api/v1/policies", apply_request(&who, 2, POLICY))
        .await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::CONFLICT, Some("policy_number"))
    );
    assert_eq!(bench.store.policy_number().await.unwrap(), 0);
    assert!(bench.control.asked().is_empty());
    assert!(bench.recorded(EventKind::PolicyApplied).await.is_empty());
    let refused = bench.recorded(EventKind::PolicyRefused).await;
    let codes: Vec<&str> = refused
        .iter()
        .map(|event| event.code.as_ref().unwrap().as_str())
        .collect();
    assert!(
        codes.contains(&"policy_refused") && codes.contains(&"policy_signature"),
        "{codes:?}"
    );
    assert_eq!(
        bench.get(&who, "/api/v1/policies/current").await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_policy_is_stored_with_its_signature_recorded_and_put_into_force() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Operator).await;
    let check = json!({"files": [{"path": "a.toml", "text": POLICY}]});
    let (_, report) = bench.post(&who, "/api/v1/policies/check", check).await;
    assert_eq!(report["ok"], true, "{report}");
    let (status, applied) = bench
        .post(&who, "/api/v1/policies", apply_request(&who, 1, POLICY))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{applied}");
    assert_eq!(bench.control.asked(), ["activate 1"]);
    let (_, current) = bench.get(&who, "/api/v1/policies/current").await;
    assert_eq!(current["files"][0]["text"], POLICY);
    let hash = current["hash"].as_str().unwrap();
    let signature = hex::decode(current["signature"].as_str().unwrap()).unwrap();
    let key = who.key.as_ref().unwrap().public_key();
    assert!(
        key.verify(&PolicyApply::message(&domain(), 1, hash), &signature)
            .is_ok()
    );
    let events = bench.recorded(EventKind::PolicyApplied).await;
    assert_eq!(events[0].detail.get("hash"), Some(hash));
    let (_, history) = bench.get(&who, "/api/v1/policies").await;
    assert_eq!(history["items"].as_array().unwrap().len(), 1);
    assert!(history["items"][0].get("files").is_none());
}

#[tokio::test]
async fn senseless_audit_queries_are_refused() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Auditor).await;
    for (query, code) in [
        ("colour=red", "query_unknown_parameter"),
        ("limit=0", "query_limit"),
        ("limit=1001", "query_limit"),
        ("from=yesterday", "query_time"),
        ("type=node.melted", "query_type"),
        ("cursor=AAAA", "query_cursor"),
        ("node=a&node=b", "query_repeated_parameter"),
        ("verdict=", "query_empty_parameter"),
    ] {
        let (status, answer) = bench
            .get(&who, &format!("/api/v1/audit/events?{query}"))
            .await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (StatusCode::BAD_REQUEST, Some(code)),
            "{query}"
        );
    }
    assert!(bench.recorded(EventKind::AuditRead).await.is_empty());
}

#[tokio::test]
async fn reading_the_log_pages_through_it_and_is_itself_recorded() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Auditor).await;
    for _ in 0..5 {
        let event = Event::new(SystemClock.now(), Actor::Cloud, EventKind::DenyListRaised);
        bench.api.audit.record(event).await.unwrap();
    }
    let (mut path, mut seen) = ("/api/v1/audit/events?type=denylist.*&limit=2".to_owned(), 0);
    loop {
        let (status, page) = bench.get(&who, &path).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        seen += page["items"].as_array().unwrap().len();
        let cursor = page["cursor"].as_str().unwrap();
        path = format!("/api/v1/audit/events?type=denylist.*&limit=2&cursor={cursor}");
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(seen, 5);
    let other = path.replace("denylist", "node");
    assert_eq!(bench.get(&who, &other).await.1["code"], "query_cursor");
    let reads = bench.recorded(EventKind::AuditRead).await;
    assert_eq!(reads.len(), 3);
    assert_eq!(
        reads[0].actor.to_string(),
        "spiffe://plant.example/operator/auditor"
    );
    let (_, coverage) = bench.get(&who, "/api/v1/audit/coverage").await;
    assert_eq!(coverage["complete"], true);
    assert_eq!(
        coverage["items"][0]["node"],
        "spiffe://plant.example/cloud/c"
    );
}

#[tokio::test]
async fn a_follower_gets_what_was_then_what_comes_until_it_is_revoked() {
    let bench = Bench::new().await;
    let admin = bench.operator(Role::Admin).await;
    let who = bench.operator(Role::Auditor).await;
    let raise = async || {
        let event = Event::new(SystemClock.now(), Actor::Cloud, EventKind::DenyListRaised);
        bench.api.audit.record(event).await.unwrap();
    };
    raise().await;
    let path = "/api/v1/audit/events?type=denylist.raised&from=2000-01-01T00:00:00Z&follow=true";
    let response = bench
        .send(&who, Request::get(path).body(Body::empty()).unwrap())
        .await;
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/event-stream"
    );
    let mut body = response.into_body();
    let mut next = async || -> Option<String> {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(10), body.frame())
            .await
            .expect("the follower says something");
        frame
            .map(|frame| String::from_utf8_lossy(&frame.unwrap().into_data().unwrap()).into_owned())
    };
    let first = next().await.unwrap();
    assert!(
        first.contains("event: event") && first.contains("denylist.raised"),
        "{first}"
    );
    assert!(next().await.unwrap().contains("event: caught-up"));
    raise().await;
    assert!(next().await.unwrap().contains("event: event"));
    assert_eq!(
        bench.delete(&admin, "/api/v1/operators/auditor").await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(next().await, None);
    let id = first
        .lines()
        .find_map(|line| line.strip_prefix("id: "))
        .unwrap();
    let request = Request::get(path)
        .header("last-event-id", id)
        .body(Body::empty())
        .unwrap();
    let resumed = bench.send(&admin, request).await;
    let mut body = resumed.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(String::from_utf8_lossy(&frame).contains("event: event"));
}

#[tokio::test]
async fn a_follower_that_names_no_beginning_gets_only_what_comes() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Auditor).await;
    let request = Request::get("/api/v1/audit/events?follow=true")
        .body(Body::empty())
        .unwrap();
    let mut body = bench.send(&who, request).await.into_body();
    let mut next = async || {
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        String::from_utf8_lossy(&data).into_owned()
    };
    let caught_up = next().await;
    assert!(caught_up.contains("event: caught-up"), "{caught_up}");
    let event = Event::new(SystemClock.now(), Actor::Cloud, EventKind::DenyListRaised);
    bench.api.audit.record(event).await.unwrap();
    assert!(next().await.contains("denylist.raised"));
    // Whoever lost the connection before anything came goes on from there.
    let id = caught_up
        .lines()
        .find_map(|line| line.strip_prefix("id: "))
        .unwrap();
    let request = Request::get("/api/v1/audit/events?follow=true")
        .header("last-event-id", id)
        .body(Body::empty())
        .unwrap();
    let mut body = bench.send(&who, request).await.into_body();
    loop {
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let said = String::from_utf8_lossy(&data).into_owned();
        assert!(!said.contains("caught-up"), "{said}");
        if said.contains("denylist.raised") {
            break;
        }
    }
}

#[tokio::test]
async fn acts_on_nodes_pass_on_who_and_why_and_refusals_come_back_as_problems() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Operator).await;
    let (status, answer) = bench
        .post(
            &who,
            "/api/v1/nodes/gw-3/quarantine",
            json!({"reason": "odd traffic"}),
        )
        .await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::NOT_FOUND, Some("not_found"))
    );
    assert_eq!(
        bench.control.asked(),
        ["quarantine gw-3 spiffe://plant.example/operator/operator odd traffic"]
    );
    let (status, answer) = bench
        .post(
            &who,
            "/api/v1/nodes/gw-3/quarantine",
            json!({"reason": "x".repeat(401)}),
        )
        .await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::BAD_REQUEST, Some("reason"))
    );
    let (status, answer) = bench
        .post(&who, "/api/v1/nodes/gw-3/release", json!({}))
        .await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::CONFLICT, Some("node_status"))
    );
}

#[tokio::test]
async fn a_makers_certificate_is_imported_by_the_list_or_an_explicit_word_and_removed() {
    let bench = Bench::new().await;
    let admin = bench.operator(Role::Admin).await;
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let key = rcgen::KeyPair::generate().unwrap();
    let der = params.self_signed(&key).unwrap().der().to_vec();
    let encoded = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(&der)
    };
    let import = async |more: Value| {
        let mut request = json!({ "certificates": [encoded] });
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        bench.post(&admin, "/api/v1/ek-roots", request).await
    };
    for (more, code) in [
        (json!({ "trust": "best" }), "trust"),
        (json!({ "certificates": [] }), "certificates"),
        (json!({ "certificates": ["!"] }), "certificates"),
    ] {
        let (status, answer) = import(more).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(answer["code"], code);
    }
    let refused = import(json!({})).await.1;
    assert_eq!(refused["items"][0]["refused"], "ek_roots_not_pinned");
    let refused = import(json!({ "trust": "software" })).await.1;
    assert_eq!(refused["items"][0]["refused"], "ek_roots_tier_software");
    assert_eq!(
        bench.get(&admin, "/api/v1/ek-roots").await.1["items"],
        json!([])
    );
    let taken = import(json!({ "trust": "virtual" })).await.1;
    assert_eq!(taken["items"][0]["tier"], "virtual");
    let listed = bench.get(&admin, "/api/v1/ek-roots").await.1;
    let fingerprint = listed["items"][0]["fingerprint"].as_str().unwrap();
    assert_eq!(listed["items"][0]["pinned"], false);
    let path = format!("/api/v1/ek-roots/{fingerprint}");
    assert_eq!(bench.delete(&admin, &path).await.0, StatusCode::NO_CONTENT);
    assert_eq!(bench.delete(&admin, &path).await.0, StatusCode::NOT_FOUND);
    assert_eq!(
        bench.get(&admin, "/api/v1/ek-roots").await.1["items"],
        json!([])
    );
}

#[tokio::test]
async fn an_ek_goes_on_a_list_and_off_it_and_is_in_force_at_once() {
    let bench = Bench::new().await;
    let admin = bench.operator(Role::Admin).await;
    let ek = edgeward_evidence::Digest::of(b"ek");
    let put = async |list: &str, digest: &str| {
        let request = json!({ "digest": digest, "list": list, "note": "box 1" });
        bench.post(&admin, "/api/v1/eks", request).await.0
    };
    assert_eq!(put("allowed", "xyz").await, StatusCode::BAD_REQUEST);
    assert!(put("liked", &ek.to_string()).await.is_client_error());
    assert_eq!(put("allowed", &ek.to_string()).await, StatusCode::OK);
    assert!(bench.api.ek.current().load().is_listed(&ek));
    let listed = bench.get(&admin, "/api/v1/eks").await.1;
    assert_eq!(listed["items"][0]["list"], "allowed");
    assert_eq!(listed["items"][0]["note"], "box 1");
    let off = format!("/api/v1/eks/allowed/{ek}");
    assert_eq!(bench.delete(&admin, &off).await.0, StatusCode::NO_CONTENT);
    assert_eq!(bench.delete(&admin, &off).await.0, StatusCode::NOT_FOUND);
    assert!(!bench.api.ek.current().load().is_listed(&ek));
}
