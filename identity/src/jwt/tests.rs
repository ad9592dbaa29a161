use std::time::Duration;

use serde_json::json;

use super::*;
use crate::bundle::BundleError;
use crate::keys::SoftwareKey;
use crate::spiffe_id::TrustDomain;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

fn setup() -> (SoftwareKey, JwtBundle) {
    let key = SoftwareKey::generate().unwrap();
    let bundle = JwtBundle::new(domain(), [*key.public_key()]);
    (key, bundle)
}

fn claims() -> JwtClaims {
    JwtClaims {
        subject: "spiffe://plant.example/workload/collector".parse().unwrap(),
        audience: vec!["historian".to_owned(), "alerts".to_owned()],
        issued: NOW,
        expires: NOW.plus(Duration::from_secs(300)),
        serial: "s1".to_owned(),
    }
}

/// A token with these claims, signed by the right key.
fn token_of(key: &SoftwareKey, claims: &Value) -> String {
    let header = json!({ "typ": "JWT", "kid": key.public_key().spki_hash().to_string() });
    jws::sign(key, &header, claims.to_string().as_bytes()).unwrap()
}

fn payload() -> Value {
    json!({
        "sub": "spiffe://plant.example/workload/collector",
        "aud": ["historian"],
        "exp": NOW.secs() + 60,
    })
}

#[test]
fn a_token_without_expiry_is_refused() {
    let (key, bundle) = setup();
    let mut without = payload();
    without.as_object_mut().unwrap().remove("exp");
    let refused = validate(&token_of(&key, &without), "historian", &bundle, NOW);
    assert_eq!(refused, Err(JwtRefused::NoExpiry));
    let mut null = payload();
    null["exp"] = Value::Null;
    let refused = validate(&token_of(&key, &null), "historian", &bundle, NOW);
    assert_eq!(refused, Err(JwtRefused::NoExpiry));
}

#[test]
fn a_token_without_signature_is_refused() {
    let (_, bundle) = setup();
    let header = URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}");
    let body = URL_SAFE_NO_PAD.encode(payload().to_string());
    for token in [format!("{header}.{body}."), format!("{header}.{body}.AAAA")] {
        let refused = validate(&token, "historian", &bundle, NOW).unwrap_err();
        assert_eq!(refused, JwtRefused::Jws(BadJws::Algorithm));
        assert_eq!(refused.code(), "jwt_algorithm");
    }
}

#[test]
fn a_token_for_another_audience_is_refused() {
    let (key, bundle) = setup();
    for aud in [
        json!("historia"),
        json!(["a", "historian2"]),
        json!([]),
        json!(""),
        Value::Null,
    ] {
        let mut other = payload();
        other["aud"] = aud;
        let refused = validate(&token_of(&key, &other), "historian", &bundle, NOW);
        assert_eq!(refused, Err(JwtRefused::Audience));
    }
    let mut none = payload();
    none.as_object_mut().unwrap().remove("aud");
    let refused = validate(&token_of(&key, &none), "historian", &bundle, NOW);
    assert_eq!(refused, Err(JwtRefused::Audience));
    let mut empty = payload();
    empty["aud"] = json!([""]);
    let refused = validate(&token_of(&key, &empty), "", &bundle, NOW);
    assert_eq!(refused, Err(JwtRefused::Audience));
}

#[test]
fn a_token_of_a_key_that_the_bundle_does_not_name_is_refused() {
    let (key, bundle) = setup();
    let stranger = SoftwareKey::generate().unwrap();
    let refused = validate(&token_of(&stranger, &payload()), "historian", &bundle, NOW);
    assert_eq!(refused, Err(JwtRefused::KeyUnknown));
    let named_wrongly = json!({ "kid": key.public_key().spki_hash().to_string() });
    let forged = jws::sign(&stranger, &named_wrongly, payload().to_string().as_bytes()).unwrap();
    let refused = validate(&forged, "historian", &bundle, NOW);
    assert_eq!(refused, Err(JwtRefused::Signature));
    let unnamed = jws::sign(&key, &json!({}), payload().to_string().as_bytes()).unwrap();
    let refused = validate(&unnamed, "historian", &bundle, NOW);
    assert_eq!(refused, Err(JwtRefused::NoKeyId));
    let nobody = JwtBundle::new(domain(), []);
    let refused = validate(&token_of(&key, &payload()), "historian", &nobody, NOW);
    assert_eq!(refused, Err(JwtRefused::KeyUnknown));
}

#[test]
fn a_token_out_of_its_time_is_refused() {
    let (key, bundle) = setup();
    for exp in [json!(NOW.secs()), json!(0), json!(-1), json!(1e-300)] {
        let mut over = payload();
        over["exp"] = exp;
        let refused = validate(&token_of(&key, &over), "historian", &bundle, NOW);
        assert_eq!(refused, Err(JwtRefused::Expired));
    }
    let mut early = payload();
    early["nbf"] = json!(NOW.secs() + 31);
    let refused = validate(&token_of(&key, &early), "historian", &bundle, NOW);
    assert_eq!(refused, Err(JwtRefused::NotYet));
    early["nbf"] = json!(NOW.secs() + 30);
    validate(&token_of(&key, &early), "historian", &bundle, NOW).unwrap();
}

#[test]
fn a_token_whose_claims_are_not_those_of_a_jwt_svid_is_refused() {
    let (key, bundle) = setup();
    let refused = |token: &str| validate(token, "historian", &bundle, NOW).unwrap_err();
    let raw = |payload: &str| {
        let header = json!({ "kid": key.public_key().spki_hash().to_string() });
        jws::sign(&key, &header, payload.as_bytes()).unwrap()
    };
    for text in [
        "",
        "[]",
        "{\"exp\":\"soon\"}",
        "{\"sub\":1}",
        "{\"exp\":1,\"exp\":9999999999}",
    ] {
        assert_eq!(refused(&raw(text)), JwtRefused::Claims, "{text}");
    }
    let mut changed = payload();
    changed["sub"] = json!("collector");
    assert_eq!(refused(&token_of(&key, &changed)).code(), "jwt_subject");
    changed["sub"] = json!("spiffe://other.example/workload/collector");
    assert_eq!(refused(&token_of(&key, &changed)), JwtRefused::TrustDomain);
    let header = json!({ "typ": "at+jwt", "kid": key.public_key().spki_hash().to_string() });
    let typed = jws::sign(&key, &header, payload().to_string().as_bytes()).unwrap();
    assert_eq!(refused(&typed), JwtRefused::Type);
}

#[test]
fn what_was_signed_is_what_is_read() {
    let (key, bundle) = setup();
    let token = claims().sign(&key).unwrap();
    for audience in ["historian", "alerts"] {
        let valid = validate(&token, audience, &bundle, NOW).unwrap();
        assert_eq!(valid.id(), &claims().subject);
        assert_eq!(valid.claims()["exp"], json!(NOW.secs() + 300));
        assert_eq!(valid.claims()["iat"], json!(NOW.secs()));
        assert_eq!(end_of(&token), Some(claims().expires));
        assert_eq!(valid.claims()["jti"], json!("s1"));
    }
}

#[test]
fn audiences_are_bounded() {
    let check = |audiences: &[&str]| check_audiences(audiences.iter().copied());
    assert_eq!(check(&[]), Err(BadAudience));
    assert_eq!(check(&[""]), Err(BadAudience));
    assert_eq!(check(&["a"; MAX_AUDIENCES + 1]), Err(BadAudience));
    assert_eq!(check(&[&"a".repeat(513)]), Err(BadAudience));
    assert_eq!(check(&["a"; MAX_AUDIENCES]), Ok(()));
}

#[test]
fn a_bundle_is_read_back_as_written_and_a_key_without_id_is_refused() {
    let (key, bundle) = setup();
    let read = JwtBundle::from_jwks(domain(), &bundle.to_jwks()).unwrap();
    assert_eq!(read, bundle);
    let kid = key.public_key().spki_hash().to_string();
    assert_eq!(read.get(&kid), Some(key.public_key()));
    let document: Value = serde_json::from_slice(&bundle.to_jwks()).unwrap();
    let mut without = document.clone();
    without["keys"][0].as_object_mut().unwrap().remove("kid");
    let refused = JwtBundle::from_jwks(domain(), without.to_string().as_bytes());
    assert!(matches!(refused, Err(BundleError::NoKeyId)));
    let entry = document["keys"][0].clone();
    let twice = json!({ "keys": [entry.clone(), entry] });
    let refused = JwtBundle::from_jwks(domain(), twice.to_string().as_bytes());
    assert!(matches!(refused, Err(BundleError::KeyIdTwice)));
    for text in ["", "[]", "{}", "{\"keys\":{}}"] {
        assert!(JwtBundle::from_jwks(domain(), text.as_bytes()).is_err());
    }
}
