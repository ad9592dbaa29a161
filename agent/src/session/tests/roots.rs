//! Which roots a session may bring.

use edgeward_identity::TrustBundle;
use rustls_pki_types::CertificateDer;

use super::*;

fn roots(world: &World, sequence: u64, of: &[&TestAuthority]) -> TrustBundle {
    let roots: Vec<CertificateDer<'static>> = of
        .iter()
        .flat_map(|authority| authority.bundle().roots().to_vec())
        .collect();
    TrustBundle::new(world.authority.trust_domain().clone(), sequence, 300, roots).unwrap()
}

fn signed(bundle: &TrustBundle, by: &TestAuthority) -> Vec<u8> {
    bundle
        .sign(by.root_key().as_ref(), TEST_NOW, TEST_NOW.plus(HOUR))
        .unwrap()
        .to_bytes()
}

fn steps(steps: &[Vec<u8>]) -> v1::TrustUpdate {
    v1::TrustUpdate {
        authorities: steps.to_vec(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_without_the_signature_of_a_held_root_change_nothing() {
    let mut world = World::new().await;
    let other = TestAuthority::new("plant.example");
    let grown = roots(&world, 9, &[&world.authority, &other]);
    let swapped = roots(&world, 9, &[&other]);
    let updates = [
        v1::TrustUpdate {
            trust_bundle: grown.to_spiffe_json(),
            ..Default::default()
        },
        v1::TrustUpdate {
            trust_bundle: swapped.to_spiffe_json(),
            ..Default::default()
        },
        v1::TrustUpdate {
            trust_bundle: b"{}".to_vec(),
            ..Default::default()
        },
        steps(&[signed(&grown, &other)]),
        steps(&[signed(&swapped, &other)]),
        steps(&[b"EWSO".to_vec()]),
        // Signed well, but the unsigned bundle beside it names one more.
        v1::TrustUpdate {
            trust_bundle: grown.to_spiffe_json(),
            authorities: vec![signed(
                &roots(&world, 9, &[&world.authority]),
                &world.authority,
            )],
            ..Default::default()
        },
    ];
    for mut update in updates {
        update.key_set = key_set(&other, &world.stranger, 7);
        world.holder.trust(update).await;
        assert_eq!(world.view.trust.load().bundle, world.authority.bundle());
        assert_eq!(world.view.keys.borrow().number(), 1);
        assert_eq!(world.holder.settle_in(), None);
        assert!(!world.events().contains(&EventKind::RootsChanged));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_the_key_set_stands_on_does_not_go_before_it() {
    let mut world = World::new().await;
    let other = TestAuthority::new("plant.example");
    let both = signed(
        &roots(&world, 2, &[&world.authority, &other]),
        &world.authority,
    );
    let alone = signed(&roots(&world, 3, &[&other]), &other);
    world
        .holder
        .trust(steps(&[both.clone(), alone.clone()]))
        .await;
    assert_eq!(world.holder.bundle_sequence(), 1);
    // Together with a key set of the new root it does.
    let update = v1::TrustUpdate {
        key_set: key_set(&other, &world.control, 2),
        ..steps(&[both, alone])
    };
    world.holder.trust(update).await;
    assert_eq!(world.holder.bundle_sequence(), 3);
    assert_eq!(world.view.keys.borrow().number(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_cannot_be_recorded_is_not_trusted() {
    let mut world = World::new().await;
    let other = TestAuthority::new("plant.example");
    let both = signed(
        &roots(&world, 2, &[&world.authority, &other]),
        &world.authority,
    );
    let full = &world.notes.full;
    full.store(true, std::sync::atomic::Ordering::SeqCst);
    world.holder.trust(steps(std::slice::from_ref(&both))).await;
    assert_eq!(world.holder.bundle_sequence(), 1);
    let full = &world.notes.full;
    full.store(false, std::sync::atomic::Ordering::SeqCst);
    world.holder.trust(steps(&[both])).await;
    assert_eq!(world.holder.bundle_sequence(), 2);
    assert!(world.events().contains(&EventKind::RootsChanged));
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_roots_are_held_across_a_restart_and_never_go_back() {
    let mut world = World::new().await;
    let other = TestAuthority::new("plant.example");
    let both = signed(
        &roots(&world, 2, &[&world.authority, &other]),
        &world.authority,
    );
    world.holder.trust(steps(std::slice::from_ref(&both))).await;
    assert!(world.holder.has_untold_roots());
    let stored = world.stored().await.held.unwrap();
    let bundle = TrustBundle::from_spiffe_json(
        world.authority.trust_domain().clone(),
        &stored.trust_bundle.0,
    )
    .unwrap();
    assert_eq!(bundle, roots(&world, 2, &[&world.authority, &other]));
    let back = signed(&roots(&world, 1, &[&world.authority]), &world.authority);
    world.holder.trust(steps(&[back])).await;
    assert_eq!(world.holder.bundle_sequence(), 2);
    // Nor does anybody drop one without a signature.
    let fewer = v1::TrustUpdate {
        trust_bundle: roots(&world, 3, &[&world.authority]).to_spiffe_json(),
        ..Default::default()
    };
    world.holder.trust(fewer).await;
    assert_eq!(world.view.trust.load().bundle.roots().len(), 2);
    assert_eq!(world.holder.say_bundle_sequence(), 2);
    assert!(!world.holder.has_untold_roots());
}
