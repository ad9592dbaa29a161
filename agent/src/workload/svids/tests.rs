use edgeward_identity::TrustDomain;
use edgeward_identity::testing::{TEST_NOW, TestAuthority, TurnedClock};

use super::*;
use crate::workload::testing::{FakeAuthority, LIFETIME};

fn setup() -> (Arc<FakeAuthority>, Arc<TurnedClock>, Svids) {
    let clock = TurnedClock::at(TEST_NOW);
    let authority = FakeAuthority::new(TestAuthority::new("plant.example"), clock.clone());
    let svids = Svids::new(authority.clone(), clock.clone());
    (authority, clock, svids)
}

fn id(name: &str) -> SpiffeId {
    let domain = TrustDomain::new("plant.example").unwrap();
    SpiffeId::new(&domain, edgeward_identity::Kind::Workload, name).unwrap()
}

#[tokio::test]
async fn what_was_issued_for_somebody_else_is_not_held() {
    let (authority, clock, svids) = setup();
    for path in ["workload/other", "node/collector"] {
        *authority.instead.lock() = Some(path.to_owned());
        let refused = svids.x509(&id("collector")).await.svid;
        assert_eq!(refused.err().unwrap().code(), "svid_wrong");
        clock.turn(LAST_RETRY);
    }
    assert_eq!(authority.asked(), 2);
}

#[tokio::test]
async fn an_svid_is_asked_for_once_and_again_at_half_of_its_life() {
    let (authority, clock, svids) = setup();
    let first = svids.x509(&id("a")).await;
    assert_eq!(first.again_in, LIFETIME / 2);
    let first = first.svid.unwrap();
    clock.turn(LIFETIME / 2 - Duration::from_secs(1));
    let same = svids.x509(&id("a")).await.svid.unwrap();
    assert_eq!(
        (same.serial.clone(), authority.asked()),
        (first.serial.clone(), 1)
    );
    let mut changed = svids.changed();
    changed.mark_unchanged();
    clock.turn(Duration::from_secs(1));
    let second = svids.x509(&id("a")).await.svid.unwrap();
    assert_ne!(second.serial, first.serial);
    assert_ne!(second.key.expose(), first.key.expose());
    assert!(changed.has_changed().unwrap());
}

#[tokio::test]
async fn many_callers_are_one_request() {
    let (authority, _clock, svids) = setup();
    let wanted = id("a");
    let all = futures::future::join_all((0..50).map(|_| svids.x509(&wanted))).await;
    let serials: std::collections::BTreeSet<String> = all
        .into_iter()
        .map(|had| had.svid.unwrap().serial.clone())
        .collect();
    assert_eq!((serials.len(), authority.asked()), (1, 1));
}

#[tokio::test]
async fn what_is_held_serves_until_its_end_when_nothing_new_is_issued() {
    let (authority, clock, svids) = setup();
    let held = svids.x509(&id("a")).await.svid.unwrap();
    authority.refuse(Some("node_not_trusted"));
    clock.turn(LIFETIME / 2);
    let still = svids.x509(&id("a")).await;
    assert_eq!(still.svid.unwrap().serial, held.serial);
    assert_eq!(still.again_in, FIRST_RETRY);
    let report = &svids.report()[0];
    assert_eq!(report.serial, Some(held.serial.clone()));
    assert_eq!(report.failed.as_deref(), Some("node_not_trusted"));
    clock.turn(LIFETIME / 2);
    let over = svids.x509(&id("a")).await.svid;
    assert_eq!(over.err().unwrap().code(), "node_not_trusted");
    assert_eq!(svids.report()[0].serial, None);
    authority.refuse(None);
    clock.turn(LAST_RETRY);
    assert!(svids.x509(&id("a")).await.svid.is_ok());
    assert_eq!(svids.report()[0].failed, None);
}

#[tokio::test]
async fn a_refusal_is_not_asked_about_again_at_once() {
    let (authority, clock, svids) = setup();
    authority.refuse(Some("workload_rate"));
    for _ in 0..10 {
        assert!(svids.x509(&id("a")).await.svid.is_err());
    }
    assert_eq!(authority.asked(), 1);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let had = svids.x509(&id("a")).await;
        waits.push(had.again_in.as_secs());
        clock.turn(had.again_in);
    }
    assert_eq!(waits, [2, 4, 8, 15, 15, 15]);
}

#[tokio::test]
async fn what_the_policy_no_longer_names_is_let_go() {
    let (authority, _clock, svids) = setup();
    let first = svids.x509(&id("a")).await.svid.unwrap();
    svids.retain(|id| id.name() != "a");
    assert_eq!(svids.report(), []);
    let second = svids.x509(&id("a")).await.svid.unwrap();
    assert_ne!(second.serial, first.serial);
    assert_eq!(authority.asked(), 2);
}

#[tokio::test]
async fn a_token_is_kept_for_its_audience_for_half_of_its_life() {
    let (authority, clock, svids) = setup();
    let audience = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>()
    };
    let first = svids.jwt(&id("a"), &audience(&["x", "y"])).await.unwrap();
    assert_eq!(
        svids.jwt(&id("a"), &audience(&["y", "x"])).await.unwrap(),
        first
    );
    assert_eq!(authority.asked(), 1);
    assert_ne!(svids.jwt(&id("a"), &audience(&["x"])).await.unwrap(), first);
    assert_ne!(
        svids.jwt(&id("b"), &audience(&["x", "y"])).await.unwrap(),
        first
    );
    clock.turn(Duration::from_secs(151));
    authority.refuse(Some("node_not_trusted"));
    assert_eq!(
        svids.jwt(&id("a"), &audience(&["x", "y"])).await.unwrap(),
        first
    );
    clock.turn(Duration::from_secs(150));
    let over = svids.jwt(&id("a"), &audience(&["x", "y"])).await;
    assert_eq!(over.unwrap_err().code(), "node_not_trusted");
}

#[tokio::test]
async fn tokens_are_bounded() {
    let (_authority, _clock, svids) = setup();
    for index in 0..=MAX_TOKENS {
        svids.jwt(&id("a"), &[index.to_string()]).await.unwrap();
    }
    assert_eq!(svids.tokens.lock().len(), MAX_TOKENS);
}
