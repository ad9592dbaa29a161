//! Authorities turned over, with members that know the old root, both, or the new one; and with stops in between.

use edgeward_identity::svid::MAX_CHAIN;
use edgeward_identity::{Kind, SpiffeId, Svid};
use rustls_pki_types::{CertificateDer, TrustAnchor};

use super::*;

/// Whether somebody with this bundle takes this chain (leaf first) for a cloud's or a node's.
fn trusts(bundle: &TrustBundle, chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
    assert!(chain.len() <= MAX_CHAIN);
    let anchors: Vec<TrustAnchor<'_>> = bundle
        .roots()
        .iter()
        .map(|root| webpki::anchor_from_trusted_cert(root).unwrap())
        .collect();
    webpki::EndEntityCert::try_from(&chain[0])
        .unwrap()
        .verify_for_usage(
            &[webpki::ring::ECDSA_P256_SHA256],
            &anchors,
            &chain[1..],
            now.into(),
            webpki::KeyUsage::client_auth(),
            None,
            None,
        )
        .is_ok()
}

fn cloud(keys: &CloudKeys) -> Svid {
    let id = SpiffeId::new(&domain(), Kind::Cloud, "c").unwrap();
    let key = Arc::new(SoftwareKey::generate().unwrap());
    keys.issuer().issue_cloud(&id, key, NOW).unwrap()
}

/// What a node would get: the same chain as an operator.
fn leaf(keys: &CloudKeys) -> Vec<CertificateDer<'static>> {
    let id = SpiffeId::new(&domain(), Kind::Operator, "li").unwrap();
    let key = SoftwareKey::generate().unwrap();
    let hour = Duration::from_secs(3600);
    keys.issuer()
        .issue_operator(&id, key.public_key(), hour, NOW)
        .unwrap()
        .chain
}

fn again(folder: &tempfile::TempDir) -> CloudKeys {
    CloudKeys::open(folder.path(), &domain(), NOW).unwrap()
}

fn active(keys: &CloudKeys, role: Role) -> SpkiHash {
    keys.ledger().active(role).unwrap().key
}

/// The bundle of a member that takes every step.
fn followed(held: &TrustBundle, keys: &CloudKeys) -> TrustBundle {
    held.followed_by_all(&keys.steps(), NOW).unwrap()
}

#[test]
fn without_the_root_key_no_rotation_begins_and_none_is_half_made() {
    let (folder, keys) = made();
    let path = folder.path().join("keys/root.key");
    let away = folder.path().join("away");
    fs::rename(&path, &away).unwrap();
    for role in [Role::Root, Role::Issuing] {
        match keys.prepare(role, NOW) {
            Err(fault @ KeysFault::RootNeeded { .. }) => {
                assert!(fault.to_string().contains("root.key"), "{fault}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(again(&folder).ledger(), keys.ledger());
    // Put back for the command, it works, without a restart.
    fs::rename(&away, &path).unwrap();
    keys.prepare(Role::Root, NOW).unwrap();
    keys.publish(NOW).unwrap();
    // Both root keys may go before the new root signs.
    let new = keys.ledger().coming(Role::Root).unwrap().clone();
    let new_path = folder.path().join(format!("keys/{}.key", new.name));
    fs::rename(&path, &away).unwrap();
    let new_away = folder.path().join("away-too");
    fs::rename(&new_path, &new_away).unwrap();
    keys.activate(NOW).unwrap();
    assert_eq!(active(&keys, Role::Root), new.key);
    // The old one goes by the word of the new one.
    let old = keys
        .ledger()
        .in_state(Role::Root, State::Old)
        .next()
        .unwrap()
        .key;
    assert!(matches!(
        keys.retire(&old, NOW),
        Err(KeysFault::RootNeeded { .. })
    ));
    fs::rename(&new_away, &new_path).unwrap();
    keys.retire(&old, NOW).unwrap();
}

#[test]
fn a_strangers_root_key_is_not_taken_for_ours() {
    let (folder, keys) = made();
    let stranger = SoftwareKey::generate().unwrap();
    files::write_key(&folder.path().join("keys/root.key"), &stranger).unwrap();
    assert!(matches!(
        keys.prepare(Role::Issuing, NOW),
        Err(KeysFault::Mismatch("root.key"))
    ));
}

#[test]
fn an_issuing_authority_turns_over_and_what_the_old_one_signed_stays_good() {
    let (folder, keys) = made();
    let before = leaf(&keys);
    let bundle = keys.bundle();
    let old = active(&keys, Role::Issuing);
    let new = keys.prepare(Role::Issuing, NOW).unwrap();
    assert!(matches!(
        keys.prepare(Role::Issuing, NOW),
        Err(KeysFault::NotNow(NotNow::UnderWay(_)))
    ));
    keys.publish(NOW).unwrap();
    keys.activate(NOW).unwrap();
    assert_eq!(keys.issuer().key_hash(), new);
    assert_ne!(old, new);
    assert_eq!(keys.bundle(), bundle, "no root changed");
    for chain in [before, leaf(&keys), cloud(&keys).chain().to_vec()] {
        assert!(trusts(&bundle, &chain, NOW));
    }
    assert!(keys.taint(&new, NOW).is_err());
    keys.taint(&old, NOW).unwrap();
    assert!(keys.is_tainted(&old) && !keys.is_tainted(&new));
    keys.retire(&old, NOW).unwrap();
    assert!(!folder.path().join("keys/issuing.key").exists());
    assert_eq!(again(&folder).ledger(), keys.ledger());
    assert_eq!(again(&folder).issuer().key_hash(), new);
}

#[test]
fn a_root_turns_over_and_nobody_is_left_out_on_the_way() {
    let (folder, keys) = made();
    let first = keys.bundle();
    let (old_pin, old_leaf) = (keys.root_pin(), leaf(&keys));
    let old_issuing = active(&keys, Role::Issuing);
    keys.prepare(Role::Root, NOW).unwrap();
    assert_eq!(keys.bundle(), first, "nobody learns of it yet");
    assert!(keys.steps().is_empty());
    keys.publish(NOW).unwrap();
    let both = followed(&first, &keys);
    assert_eq!(both.roots().len(), 2);
    assert_eq!(both.sequence(), 2);
    // Still the old one signs.
    assert_eq!(keys.root_pin(), old_pin);
    assert_eq!(leaf(&keys).len(), 2);

    keys.activate(NOW).unwrap();
    assert_ne!(keys.root_pin(), old_pin);
    let new_alone = TrustBundle::new(domain(), 3, 0, vec![both.roots()[1].clone()]).unwrap();
    // Members that know one root or both take the certificates of both.
    for bundle in [&first, &both] {
        for chain in [&old_leaf, &leaf(&keys), &cloud(&keys).chain().to_vec()] {
            assert!(trusts(bundle, chain, NOW));
        }
    }
    assert!(trusts(&new_alone, &leaf(&keys), NOW));
    assert!(trusts(&new_alone, cloud(&keys).chain(), NOW));
    assert!(!trusts(&new_alone, &old_leaf, NOW));
    // Tokens that pin either root find it in the cloud's chain.
    let chain = cloud(&keys).chain().to_vec();
    for pin in [old_pin, keys.root_pin()] {
        let found = chain
            .iter()
            .skip(1)
            .any(|one| edgeward_identity::bundle::spki_hash_of_certificate(one).unwrap() == pin);
        assert!(found, "{pin}");
    }
    // The key set stands on the new root, and is newer.
    assert_eq!(keys.key_set_number(), 2);
    let set = SignedObject::parse(&keys.key_set_bytes()).unwrap();
    assert!(KeySet::open(&set, &both.root_keys(), &domain(), 2, NOW).is_ok());
    assert!(KeySet::open(&set, &first.root_keys(), &domain(), 2, NOW).is_err());

    // A third root waits until the first is gone.
    assert!(matches!(
        keys.prepare(Role::Root, NOW),
        Err(KeysFault::NotNow(NotNow::Crowded(_)))
    ));
    keys.taint(&old_pin, NOW).unwrap();
    assert!(keys.is_tainted(&old_issuing));
    keys.retire(&old_pin, NOW).unwrap();
    let last = followed(&first, &keys);
    assert_eq!((last.sequence(), last.roots().len()), (3, 1));
    assert_eq!(last, followed(&both, &keys));
    assert!(trusts(&last, &leaf(&keys), NOW));
    assert!(!trusts(&last, &old_leaf, NOW));
    // Whoever missed it all still finds the way to the cloud, and with it the signed steps.
    assert!(trusts(&first, cloud(&keys).chain(), NOW));
    assert_eq!(leaf(&keys).len(), 2, "leaves drop what nobody needs");
    let reopened = again(&folder);
    assert_eq!(reopened.ledger(), keys.ledger());
    assert_eq!(reopened.root_pin(), keys.root_pin());
    keys.prepare(Role::Root, NOW).unwrap();
}

#[test]
fn a_root_rotation_is_given_up_and_nodes_forget_the_new_root() {
    let (folder, keys) = made();
    let first = keys.bundle();
    let new = keys.prepare(Role::Root, NOW).unwrap();
    keys.publish(NOW).unwrap();
    let both = followed(&first, &keys);
    keys.retire(&new, NOW).unwrap();
    let back = followed(&both, &keys);
    assert_eq!(back.roots(), first.roots());
    assert_eq!(back.sequence(), 3);
    assert_eq!(again(&folder).root_pin(), keys.root_pin());
    let name = |file: String| file.ends_with(".key") && file.starts_with("root-");
    let left = files::names(&folder.path().join("keys")).unwrap();
    assert!(!left.into_iter().any(name), "its key is gone");
}

#[test]
fn a_stop_between_any_two_steps_leaves_keys_that_open_and_go_on() {
    let (folder, keys) = made();
    let first = keys.bundle();
    drop(keys);
    // Between making files and writing the ledger: files that nothing names.
    let ledger = folder.path().join("keys/authorities.json");
    let before = fs::read(&ledger).unwrap();
    again(&folder).prepare(Role::Root, NOW).unwrap();
    fs::write(&ledger, &before).unwrap();
    let keys = again(&folder);
    let stray = files::names(&folder.path().join("keys")).unwrap();
    assert!(
        !stray.iter().any(|name| name.starts_with("root-")
            || name.starts_with("issuing-")
            || name.starts_with("keyset-")),
        "{stray:?}"
    );
    drop(keys);
    // After each step: the next process goes on.
    again(&folder).prepare(Role::Root, NOW).unwrap();
    assert!(again(&folder).ledger().coming(Role::Root).is_some());
    again(&folder).publish(NOW).unwrap();
    assert_eq!(again(&folder).bundle().sequence(), 2);
    again(&folder).activate(NOW).unwrap();
    let old = again(&folder)
        .ledger()
        .in_state(Role::Root, State::Old)
        .next()
        .unwrap()
        .key;
    again(&folder).taint(&old, NOW).unwrap();
    // Between writing the ledger and removing the old keys: they go at the next start.
    let retired = again(&folder);
    let root_key = folder.path().join("keys/root.key");
    let kept = fs::read(&root_key).unwrap();
    retired.retire(&old, NOW).unwrap();
    fs::write(&root_key, kept).unwrap();
    let keys = again(&folder);
    assert!(!root_key.exists());
    assert_eq!(followed(&first, &keys).roots().len(), 1);
    // A ledger that is torn or says two things at once is refused, not repaired.
    for torn in [&b"{"[..], b"{}", &before[..before.len() / 2]] {
        fs::write(&ledger, torn).unwrap();
        assert!(matches!(
            CloudKeys::open(folder.path(), &domain(), NOW),
            Err(KeysFault::Ledger)
        ));
    }
}

#[test]
fn a_trust_domain_of_an_earlier_version_gets_its_ledger() {
    let (folder, keys) = made();
    fs::remove_file(folder.path().join("keys/authorities.json")).unwrap();
    let opened = again(&folder);
    assert_eq!(active(&opened, Role::Root), keys.root_pin());
    assert_eq!(opened.ledger().sequence, 1);
    opened.prepare(Role::Issuing, NOW).unwrap();
    opened.publish(NOW).unwrap();
    opened.activate(NOW).unwrap();
    assert_eq!(again(&folder).ledger(), opened.ledger());
}

#[test]
fn renewal_at_half_life_keeps_the_authority() {
    let (folder, keys) = made();
    keys.prepare(Role::Issuing, NOW).unwrap();
    keys.publish(NOW).unwrap();
    keys.activate(NOW).unwrap();
    let late = NOW.plus(certificates::ISSUING_LIFETIME / 2);
    keys.renew(late).unwrap();
    assert!(keys.issuer().not_after() > NOW.plus(certificates::ISSUING_LIFETIME));
    assert_eq!(again(&folder).ledger(), keys.ledger());
    // None outlives its root.
    let end = NOW
        .plus(certificates::ROOT_LIFETIME)
        .minus(Duration::from_secs(3600));
    keys.renew(end).unwrap();
    let root = keys.ledger().active(Role::Root).unwrap().clone();
    assert!(keys.issuer().not_after() <= keys.validity(&root).unwrap().1);
}
