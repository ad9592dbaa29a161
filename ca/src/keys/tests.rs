use std::fs;

use edgeward_identity::SoftwareKey;
use edgeward_identity::signed::{EVERYBODY, Expect};

use super::*;

mod lost_sites;
mod online;
mod rotation;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

fn made() -> (tempfile::TempDir, CloudKeys) {
    let folder = tempfile::tempdir().unwrap();
    let keys = CloudKeys::create(folder.path(), &domain(), NOW, |_| Ok(())).unwrap();
    (folder, keys)
}

fn label(purpose: Purpose) -> Label {
    Label {
        purpose,
        audience: EVERYBODY.to_owned(),
        number: 1,
        issued: NOW,
        lifetime: Duration::from_secs(60),
    }
}

#[test]
fn keys_of_another_trust_domain_are_refused() {
    let (folder, _) = made();
    let other = TrustDomain::new("other.example").unwrap();
    assert!(matches!(
        CloudKeys::open(folder.path(), &other, NOW),
        Err(KeysFault::TrustDomain(_))
    ));
}

#[test]
fn a_trust_domain_is_never_made_over_another() {
    let (folder, keys) = made();
    assert!(CloudKeys::create(folder.path(), &domain(), NOW, |_| Ok(())).is_err());
    let again = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    assert_eq!(again.root_pin(), keys.root_pin());
}

#[test]
fn a_first_start_that_fails_leaves_no_trust_domain() {
    let folder = tempfile::tempdir().unwrap();
    let failed = CloudKeys::create(folder.path(), &domain(), NOW, |_| {
        Err(KeysFault::Mismatch("also"))
    });
    assert!(failed.is_err());
    assert!(!CloudKeys::exist(folder.path()).unwrap());
    CloudKeys::create(folder.path(), &domain(), NOW, |_| Ok(())).unwrap();
}

#[test]
fn a_key_that_is_not_its_certificates_is_refused() {
    let (folder, _) = made();
    let stranger = SoftwareKey::generate().unwrap();
    for name in ["root.key", "issuing.key"] {
        let path = folder.path().join("keys").join(name);
        let own = fs::read(&path).unwrap();
        files::write_key(&path, &stranger).unwrap();
        match CloudKeys::open(folder.path(), &domain(), NOW) {
            Err(KeysFault::Mismatch(found)) => assert_eq!(found, name),
            other => panic!("{other:?}"),
        }
        fs::write(&path, own).unwrap();
    }
}

#[test]
fn a_key_set_that_the_root_did_not_sign_is_refused() {
    let (folder, _) = made();
    let (other, _) = made();
    fs::copy(
        other.path().join("keys/keyset"),
        folder.path().join("keys/keyset"),
    )
    .unwrap();
    assert!(matches!(
        CloudKeys::open(folder.path(), &domain(), NOW),
        Err(KeysFault::KeySet(Unacceptable::Key))
    ));
}

#[test]
fn without_the_root_key_the_cloud_runs_until_the_issuing_certificate_ends() {
    let (folder, _) = made();
    fs::remove_file(folder.path().join("keys/root.key")).unwrap();
    let keys = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    assert!(!keys.root_is_here());
    let late = NOW.plus(certificates::ISSUING_LIFETIME);
    assert!(matches!(
        CloudKeys::open(folder.path(), &domain(), late),
        Err(KeysFault::RootOffline("issuing certificate"))
    ));
}

#[test]
fn with_the_root_key_issuing_certificate_and_key_set_are_renewed_at_half_their_life() {
    let (folder, keys) = made();
    let late = NOW.plus(KEY_SET_LIFETIME / 2);
    let renewed = CloudKeys::open(folder.path(), &domain(), late).unwrap();
    assert!(renewed.issuer().not_after() > keys.issuer().not_after());
    assert_eq!(renewed.key_set_number(), keys.key_set_number() + 1);
    assert_eq!(renewed.root_pin(), keys.root_pin());
}

#[test]
fn each_key_signs_for_its_own_purpose_only() {
    let (_folder, keys) = made();
    let set = keys.key_set(NOW).unwrap();
    for purpose in [Purpose::Keys, Purpose::Journal, Purpose::Jwt] {
        assert!(keys.sign(label(purpose), &1).is_err());
    }
    for purpose in [
        Purpose::Results,
        Purpose::Policy,
        Purpose::DenyList,
        Purpose::Control,
    ] {
        let object = SignedObject::parse(&keys.sign(label(purpose), &1).unwrap()).unwrap();
        let expect = Expect {
            purpose,
            trust_domain: &domain(),
            audience: EVERYBODY,
            least_number: 1,
            now: NOW,
        };
        assert_eq!(object.open_json::<u8>(&set, &expect), Ok(1));
        let other = Expect {
            purpose: Purpose::Log,
            ..expect
        };
        assert!(object.open(&set, &other).is_err());
    }
    let results = SignedObject::parse(&keys.sign(label(Purpose::Results), &1).unwrap()).unwrap();
    assert!(
        results
            .open_with_key(
                keys.control.public_key(),
                &Expect {
                    purpose: Purpose::Results,
                    trust_domain: &domain(),
                    audience: EVERYBODY,
                    least_number: 0,
                    now: NOW,
                }
            )
            .is_err()
    );
}

#[test]
fn an_older_installation_gets_its_key_for_tokens_at_a_start_with_the_root_key() {
    let (folder, keys) = made();
    assert!(keys.jwt_signer(NOW).is_some());
    let path = folder.path().join("keys");
    // As an earlier version left it: no such key, none in the key set, and the root key away.
    let root = files::read_key(&path.join("root.key")).unwrap();
    let publics = [&keys.results, &keys.control, &keys.log].map(|signer| *signer.public_key());
    let old = sign_key_set(&domain(), &root, &publics, 1, NOW).unwrap();
    files::write_public(&path.join("keyset"), &old.to_bytes()).unwrap();
    fs::remove_file(path.join("jwt.key")).unwrap();
    fs::rename(path.join("root.key"), path.join("away")).unwrap();
    let offline = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    assert!(offline.jwt_signer(NOW).is_none());
    assert!(offline.bundle().jwt_keys().is_empty());
    fs::rename(path.join("away"), path.join("root.key")).unwrap();
    let renewed = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    let signer = renewed.jwt_signer(NOW).expect("named by the key set");
    assert_eq!(renewed.key_set_number(), 2);
    let set = renewed.key_set(NOW).unwrap();
    assert_eq!(set.keys_for(Purpose::Jwt, NOW), [*signer.public_key()]);
    let id = signer.public_key().spki_hash().to_string();
    assert_eq!(
        renewed.bundle().jwt_keys().get(&id),
        Some(signer.public_key())
    );
    let again = CloudKeys::open(folder.path(), &domain(), NOW).unwrap();
    assert_eq!(again.key_set_number(), 2, "signed anew only once");
}

#[test]
fn numbers_rise_even_when_the_clock_does_not() {
    let (_folder, keys) = made();
    let first = keys.rising_number(NOW);
    assert!(keys.rising_number(NOW) > first);
    assert!(keys.rising_number(NOW.minus(Duration::from_secs(5))) > first);
}
