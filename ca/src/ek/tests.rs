use std::fs;

use edgeward_identity::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};

use super::*;
use crate::store::testing::TestStore;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn root() -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

fn vector(file: &str) -> Option<Vec<u8>> {
    let folder = std::env::var("EDGEWARD_VECTORS").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors").to_owned()
    });
    match fs::read(format!("{folder}/ek-ca-certificates/keylime/{file}")) {
        Ok(bytes) => Some(certificates_of(&bytes).unwrap().remove(0)),
        Err(_) => {
            println!("vectors not found: skipped");
            None
        }
    }
}

#[test]
fn a_certificate_that_no_list_knows_needs_an_explicit_tier() {
    let der = root();
    let wanted = |trust| Wanted {
        trust,
        ..Wanted::default()
    };
    let code = |trust| import(&der, wanted(trust), "li", NOW).unwrap_err().code();
    assert_eq!(code(None), "ek_roots_not_pinned");
    assert_eq!(code(Some(Tier::Software)), "ek_roots_tier_software");
    let taken = import(&der, wanted(Some(Tier::Virtual)), "li", NOW).unwrap();
    assert_eq!((taken.tier, taken.pinned), (Tier::Virtual, 0));
    let cut = import(&der[..50], wanted(Some(Tier::Virtual)), "li", NOW);
    assert_eq!(cut.unwrap_err().code(), "ek_bad_der");
}

#[test]
fn a_pinned_certificate_has_its_tier_and_an_operator_can_only_lower_it() {
    let (Some(st), Some(nuvoton)) = (vector("STM_RSA_RT.pem"), vector("NTC1.pem")) else {
        return;
    };
    let taken = import(&st, Wanted::default(), "li", NOW).unwrap();
    assert_eq!(taken.tier, Tier::Hardware);
    assert!(taken.pinned > 0 && !taken.sets_in_any_order);
    let lowered = Wanted {
        trust: Some(Tier::Virtual),
        ..Wanted::default()
    };
    assert_eq!(import(&st, lowered, "li", NOW).unwrap().tier, Tier::Virtual);
    // Its names break DER; the list says that this very certificate may.
    let taken = import(&nuvoton, Wanted::default(), "li", NOW).unwrap();
    assert!(taken.sets_in_any_order);
}

#[tokio::test]
async fn a_change_in_either_source_is_read_again_and_a_bad_one_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::sqlite().await;
    let trust = EkTrust::load(folder.path(), (*store).clone())
        .await
        .unwrap();
    let first = trust.current().load_full();
    let list = folder.path().join("listed.txt");
    let digest = Digest::of(b"ek");
    fs::write(&list, digest.to_string()).unwrap();
    trust.look().await.unwrap();
    let second = trust.current().load_full();
    assert!(second.is_listed(&digest) && !first.is_listed(&digest));
    trust.look().await.unwrap();
    assert!(Arc::ptr_eq(&second, &trust.current().load_full()));
    fs::write(&list, "nonsense").unwrap();
    assert!(trust.look().await.is_err());
    assert!(Arc::ptr_eq(&second, &trust.current().load_full()));
    fs::remove_file(&list).unwrap();
    let wanted = Wanted {
        trust: Some(Tier::Virtual),
        ..Wanted::default()
    };
    let row = import(&root(), wanted, "operator:li", NOW).unwrap();
    let mut tx = store.begin("test").await.unwrap();
    tx.put_ek_certificate(&row).await.unwrap();
    tx.commit().await.unwrap();
    trust.look().await.unwrap();
    let known = trust.known();
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].source, Source::Operator("operator:li".to_owned()));
    assert_eq!((known[0].tier, known[0].refused), (Tier::Virtual, None));
    assert!(!trust.current().load().is_listed(&digest));
}

#[tokio::test]
async fn a_file_that_holds_no_certificate_is_left_out_and_a_bad_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("virtual")).unwrap();
    fs::write(folder.path().join("virtual/local.pem"), "nothing").unwrap();
    fs::write(folder.path().join("virtual/readme.txt"), "nothing").unwrap();
    let der = root();
    let block = |der: &[u8]| pem::encode(&pem::Pem::new("CERTIFICATE", der));
    let both = [block(&der), block(&der[..90])].concat();
    fs::write(folder.path().join("virtual/two.pem"), both).unwrap();
    let store = TestStore::sqlite().await;
    let trust = EkTrust::load(folder.path(), (*store).clone())
        .await
        .unwrap();
    let found: Vec<(Source, Option<&str>)> = trust
        .known()
        .iter()
        .map(|known| (known.source.clone(), known.refused))
        .collect();
    let source = |name: &str| Source::File(format!("virtual/{name}"));
    assert_eq!(
        found,
        [
            (source("two.pem"), None),
            (source("two.pem#2"), Some("ek_bad_der")),
        ]
    );
}
