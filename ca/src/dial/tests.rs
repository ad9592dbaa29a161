use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::*;

fn authority() -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&key).unwrap().pem()
}

#[test]
fn roots_that_cannot_be_used_are_refused_with_those_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roots");
    let file = Roots::File(path.clone());
    let why = |text: &str| {
        std::fs::write(&path, text).unwrap();
        roots(&file)
            .map(|store| store.len())
            .map_err(|error| error.to_string())
    };
    assert!(roots(&file).is_err(), "there is none yet");
    assert!(why("").unwrap_err().ends_with("no certificate"));
    // No certificate inside: a list with it would seem to trust more than it does.
    let empty = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    assert!(why(&format!("{}{empty}", authority())).is_err());
    let torn = "-----BEGIN CERTIFICATE-----\nMIIB\n";
    assert!(
        why(&format!("{}{torn}", authority()))
            .unwrap_err()
            .contains("not certificates")
    );
    assert!(
        why(&" ".repeat(2 * 1024 * 1024 + 1))
            .unwrap_err()
            .contains("larger")
    );
    assert_eq!(why(&[authority(), authority()].concat()), Ok(2));
}

#[test]
fn a_key_that_is_none_is_said_without_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("roots"), authority()).unwrap();
    std::fs::write(path("key"), "hunter2").unwrap();
    let trust = Trust {
        roots: Roots::File(path("roots")),
        client: Some((path("roots"), path("key"))),
    };
    let error = client(&trust, &[]).map(drop).unwrap_err().to_string();
    assert!(error.ends_with("no private key in pem"), "{error}");
}
