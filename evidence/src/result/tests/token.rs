//! What the wire may look like.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

/// A result's payload, to be altered.
fn payload() -> Value {
    let (key, _) = keys();
    let evidence = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let bytes = signed(&result_of(&evidence), &key);
    let part = bytes.split(|byte| *byte == b'.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn token(key: &SoftwareKey, header: &Value, payload: &Value) -> Vec<u8> {
    jws::sign(key, header, payload.to_string().as_bytes())
        .unwrap()
        .into_bytes()
}

fn code(bytes: &[u8], set: &KeySet) -> Result<(), &'static str> {
    let said: Value = payload_of(bytes).unwrap_or(Value::Null);
    let svid = said["edgeward.node"]["svid"].as_str().unwrap_or_default();
    let svid: [u8; 32] = URL_SAFE_NO_PAD
        .decode(svid)
        .ok()
        .and_then(|hash| hash.try_into().ok())
        .unwrap_or_default();
    let expect = ResultExpect {
        trust_domain: &domain(),
        spiffe_id: &node("gw-1"),
        svid_spki: &SpkiHash::from_bytes(svid),
        least_number: 0,
        now: NOW,
    };
    check_result(bytes, set, &expect)
        .map(|_| ())
        .map_err(|refused| refused.code())
}

pub(super) fn payload_of(bytes: &[u8]) -> Option<Value> {
    let part = bytes.split(|byte| *byte == b'.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// Test 74, for results.
#[test]
fn a_token_of_another_algorithm_or_with_a_key_in_its_header_is_refused() {
    let (key, set) = keys();
    let payload = payload();
    let kid = key.public_key().spki_hash().to_string();
    let good = token(&key, &json!({ "kid": kid }), &payload);
    assert_eq!(code(&good, &set), Ok(()));
    let text = String::from_utf8(good).unwrap();
    let (_, rest) = text.split_once('.').unwrap();
    let with_header = |header: Value| {
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        code(format!("{header}.{rest}").as_bytes(), &set)
    };
    for algorithm in ["none", "HS256", "ES384", "RS256", "es256", ""] {
        let refused = with_header(json!({ "alg": algorithm, "kid": kid }));
        assert_eq!(refused, Err("result_algorithm"), "{algorithm}");
    }
    let unsigned = text.rsplit_once('.').unwrap().0;
    assert_eq!(
        code(format!("{unsigned}.").as_bytes(), &set),
        Err("result_malformed")
    );
    assert_eq!(code(unsigned.as_bytes(), &set), Err("result_malformed"));
    assert_eq!(
        code(format!("{text}.").as_bytes(), &set),
        Err("result_malformed")
    );
    assert_eq!(
        code(format!("{text}=").as_bytes(), &set),
        Err("result_malformed")
    );
    // Properly signed, and still not believed.
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("jwk", json!({ "kty": "EC" })),
        ("jku", json!("https://example.com/keys")),
        ("x5c", json!([])),
        ("x5u", json!("https://example.com/chain")),
        ("x5t#S256", json!("")),
        ("zip", json!("DEF")),
        ("b64", json!(false)),
    ] {
        let header = json!({ "kid": kid, name: value });
        let refused = code(&token(&key, &header, &payload), &set);
        assert_eq!(refused, Err("result_header"), "{name}");
    }
    for kid in [json!(null), json!(7), json!(""), json!("abc")] {
        let refused = code(&token(&key, &json!({ "kid": kid }), &payload), &set);
        assert_eq!(refused, Err("result_header"), "{kid}");
    }
    let (stranger, _) = keys();
    let forged = token(&stranger, &json!({ "kid": kid }), &payload);
    assert_eq!(code(&forged, &set), Err("signed_signature"));
    let own = stranger.public_key().spki_hash().to_string();
    assert_eq!(
        code(&token(&stranger, &json!({ "kid": own }), &payload), &set),
        Err("signed_key")
    );
}

/// A key of the cloud signs for its own purpose only.
#[test]
fn a_result_signed_by_the_clouds_key_for_something_else_is_refused() {
    let root = SoftwareKey::generate().unwrap();
    let control = SoftwareKey::generate().unwrap();
    let header = Header {
        purpose: Purpose::Keys,
        trust_domain: domain(),
        audience: EVERYBODY.into(),
        number: 1,
        issued: NOW,
        expires: NOW.plus(Duration::from_secs(3600)),
    };
    let list = [Purpose::Control, Purpose::Policy, Purpose::Jwt].map(|purpose| PurposeKey {
        purpose,
        key: *control.public_key(),
        not_after: NOW.plus(Duration::from_secs(3600)),
    });
    let object = SignedObject::sign_json(&root, header, &list).unwrap();
    let set = KeySet::open(&object, &[*root.public_key()], &domain(), 0, NOW).unwrap();
    let kid = control.public_key().spki_hash();
    let bytes = token(&control, &json!({ "kid": kid }), &payload());
    assert_eq!(code(&bytes, &set), Err("signed_key"));
}

#[test]
fn claims_that_are_missing_unknown_or_at_odds_are_refused_whoever_signed_them() {
    let (key, set) = keys();
    let header = json!({ "kid": key.public_key().spki_hash() });
    let good = payload();
    let with = |alter: &dyn Fn(&mut Value)| {
        let mut altered = good.clone();
        alter(&mut altered);
        code(&token(&key, &header, &altered), &set)
    };
    assert_eq!(with(&|_| {}), Ok(()));
    for name in good.as_object().unwrap().keys() {
        let refused = with(&|claims| drop(claims.as_object_mut().unwrap().remove(name)));
        assert!(refused.is_err(), "{name}");
    }
    for (path, value, refused) in [
        (
            "/eat_profile",
            json!("tag:github.com,2023:other"),
            "result_inconsistent",
        ),
        ("/iat", json!(1_800_000_001), "result_inconsistent"),
        ("/iat", json!(-1), "signed_payload"),
        ("/iat", json!("1800000000"), "signed_payload"),
        ("/exp", json!(1_800_000_000), "signed_expired"),
        ("/exp", json!(1.5), "signed_payload"),
        (
            "/sub",
            json!("spiffe://plant.example/device/gw-1"),
            "result_other_identity",
        ),
        (
            "/sub",
            json!("spiffe://other.example/node/gw-1"),
            "signed_trust_domain",
        ),
        ("/sub", json!("gw-1"), "signed_payload"),
        (
            "/submods/node/ear_status",
            json!("none"),
            "result_inconsistent",
        ),
        (
            "/submods/node/ear_status",
            json!("contraindicated"),
            "signed_payload",
        ),
        (
            "/submods/node/ear_appraisal_policy_ids/0",
            json!("gateway"),
            "result_inconsistent",
        ),
        (
            "/edgeward.node/state",
            json!("vouched"),
            "result_inconsistent",
        ),
        (
            "/edgeward.node/tier",
            json!("software"),
            "result_inconsistent",
        ),
        ("/edgeward.node/boot", json!("AAAA"), "result_inconsistent"),
        ("/edgeward.node/svid", json!("AAAA"), "result_inconsistent"),
        ("/edgeward.tpm/pcrs", json!([]), "result_inconsistent"),
        ("/edgeward.tpm/pcrs", json!([24]), "result_inconsistent"),
        ("/edgeward.tpm/bank", json!("sha1"), "signed_payload"),
        ("/edgeward.tpm/ak", json!(""), "result_inconsistent"),
        ("/edgeward.tpm/digest", json!("AA"), "result_inconsistent"),
        (
            "/edgeward.tpm/reset",
            json!(4_294_967_296_u64),
            "signed_payload",
        ),
    ] {
        let found = with(&|claims| *claims.pointer_mut(path).expect(path) = value.clone());
        assert_eq!(found, Err(refused), "{path}: {value}");
    }
    for runs in [
        json!({ "acme/collector": "2.x" }),
        json!({ "acme": "2.3.1" }),
        json!({ "acme/Collector": "2.3.1" }),
        json!({ "acme/a/b": "2.3.1" }),
        json!({ "acme/\u{202e}": "2.3.1" }),
    ] {
        let found = with(&|claims| claims["edgeward.runs"] = runs.clone());
        assert_eq!(found, Err("result_inconsistent"), "{runs}");
    }
    let listed = with(&|claims| claims["edgeward.runs"] = json!(["acme/collector"]));
    assert_eq!(listed, Err("signed_payload"));
    assert_eq!(
        with(&|claims| claims["edgeward.runs"] = json!({ "acme/collector": "2.3.1" })),
        Ok(())
    );
    for path in [
        "",
        "/submods",
        "/submods/node",
        "/edgeward.node",
        "/edgeward.tpm",
    ] {
        let found = with(&|claims| claims.pointer_mut(path).unwrap()["more"] = json!(1));
        assert_eq!(found, Err("signed_payload"), "{path}");
    }
    let twice = good
        .to_string()
        .replacen("\"iat\":", "\"iat\":1,\"iat\":", 1);
    let bytes = jws::sign(&key, &header, twice.as_bytes()).unwrap();
    assert_eq!(code(bytes.as_bytes(), &set), Err("signed_payload"));
}

#[test]
fn a_result_from_the_future_is_refused() {
    let (key, set) = keys();
    let header = json!({ "kid": key.public_key().spki_hash() });
    let issued = |ahead: Duration| {
        let time = NOW.plus(ahead);
        let mut claims = payload();
        claims["iat"] = json!(time.secs());
        claims["exp"] = json!(time.secs() + 600);
        claims["edgeward.node"]["time"] = json!(time.millis());
        code(&token(&key, &header, &claims), &set)
    };
    assert_eq!(issued(MAX_AHEAD), Ok(()));
    let beyond = MAX_AHEAD + Duration::from_millis(1);
    assert_eq!(issued(beyond), Err("result_issued_ahead"));
}

#[test]
fn the_time_of_issue_is_kept_to_the_millisecond() {
    let (key, set) = keys();
    let evidence = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let mut result = result_of(&evidence);
    result.issued = Timestamp::from_millis(NOW.millis() + 789);
    let bytes = signed(&result, &key);
    assert_eq!(code(&bytes, &set), Ok(()));
    assert_eq!(issued_unverified(&bytes), Some(result.issued));
    assert_eq!(issued_unverified(b"a.b.c"), None);
}

/// What somebody else's reader of EARs finds.
#[test]
fn an_ear_says_what_was_appraised_and_claims_nothing_else() {
    let claims = payload();
    assert_eq!(claims["eat_profile"], "tag:ietf.org,2026:rats/ear#04");
    let node = &claims["submods"]["node"];
    assert_eq!(node["ear_status"], "affirming");
    // PCRs 0 and 7 by value, no IMA, a virtual TPM.
    assert_eq!(
        node["ear_trustworthiness_vector"],
        json!({ "instance-identity": 2, "configuration": 2, "executables": 3 })
    );
    let policy = node["ear_appraisal_policy_ids"][0].as_str().unwrap();
    assert!(
        policy.starts_with("enforce:") && policy.ends_with(":gateway"),
        "{policy}"
    );
    let software = software_evidence();
    let appraisal = appraise_without_profile(&software, &Logs::default());
    let result = AttestationResult::new(&software, &appraisal, &context(&node_id())).unwrap();
    let (key, _) = keys();
    let claims = payload_of(&signed(&result, &key)).unwrap();
    assert_eq!(claims["submods"]["node"]["ear_status"], "none");
    assert_eq!(
        claims["submods"]["node"].get("ear_trustworthiness_vector"),
        None
    );
    assert_eq!(claims.get("edgeward.tpm"), None);
}

fn node_id() -> SpiffeId {
    node("gw-1")
}
