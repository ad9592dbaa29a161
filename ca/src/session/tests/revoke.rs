//! Revocations over the session: told before anything waits, and followed to what nodes say of it.

use std::collections::BTreeSet;

use edgeward_apps::{AppName, Digest, Orders, Version};
use edgeward_audit::event::Actor;

use super::*;
use crate::api::Control;
use crate::apps::director::Given;
use crate::hub::director::{AppOrderFault, Revoked, Spread};
use crate::store::director::DeniedRow;

/// Far below what a writer waits for its turn, and below the look for what is due.
const AT_ONCE: Duration = Duration::from_secs(2);

fn app() -> AppName {
    "acme/collector".parse().unwrap()
}

fn version() -> Version {
    "1.0".parse().unwrap()
}

fn row(of: &[u8]) -> DeniedRow {
    DeniedRow {
        digest: Digest::of(of),
        app: app().to_string(),
        version: version().to_string(),
        reason: "a stolen key".to_owned(),
        since: now(),
        denied_by: "li".to_owned(),
    }
}

fn revoked(of: &[u8]) -> Revoked {
    Revoked {
        digest: Digest::of(of),
        manifests: [Digest::of(of)].into(),
        releases: vec![(app(), version())],
    }
}

/// A cloud whose two nodes were given the collector, each with a session and its first word.
async fn two_with_it() -> (Cloud, Agent, Agent) {
    let (cloud, a, b) = two("").await;
    let given = Given {
        highest: version(),
        previous: None,
    };
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    for node in ["a", "b"] {
        tx.give_app(node, &app(), &given).await.unwrap();
    }
    tx.commit().await.unwrap();
    let cloud = cloud.restart().await;
    cloud.profile_of(&a);
    let (mut first, mut second) = (cloud.agent(&a).await, cloud.agent(&b).await);
    assert!(word(&cloud, &mut first, "a").await.1.denied.is_empty());
    assert!(word(&cloud, &mut second, "b").await.1.denied.is_empty());
    (cloud, first, second)
}

/// The next word of the director: its number, and what it says.
async fn word(cloud: &Cloud, agent: &mut Agent, name: &str) -> (u64, Orders) {
    let bytes = agent.until(|body| match body {
        Body::Apps(bytes) => Some(bytes),
        _ => None,
    });
    let bytes = bytes.await.unwrap();
    let orders = open(cloud, &bytes, Purpose::Director, &node(name).to_string());
    (SignedObject::parse(&bytes).unwrap().header().number, orders)
}

fn says(acted_on: u64, running: Option<&[u8]>) -> node_message::Body {
    let state = |digest: &[u8]| v1::AppState {
        app: app().to_string(),
        version: version().to_string(),
        sha256: Digest::of(digest).as_bytes().to_vec(),
        state: "running".to_owned(),
        ..v1::AppState::default()
    };
    node_message::Body::Status(v1::NodeStatus {
        apps: Some(v1::AppsState {
            director_number: u64::MAX,
            acted_on,
            apps: running.into_iter().map(state).collect(),
            ..v1::AppsState::default()
        }),
        ..v1::NodeStatus::default()
    })
}

/// Waits until the cloud has heard that `a` acts by this word.
async fn acts_on(cloud: &Cloud, number: u64) {
    eventually(|| async {
        let said = cloud.hub.member("a").unwrap().apps;
        said.is_some_and(|said| said.acted_on == number)
    })
    .await;
}

fn spread(ended: &[&str], told: &[&str], away: &[&str]) -> Spread {
    let set = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    };
    Spread {
        ended: set(ended),
        told: set(told),
        away: set(away),
    }
}

#[tokio::test]
async fn a_revocation_reaches_nodes_while_the_database_takes_nothing() {
    let (cloud, mut first, mut second) = two_with_it().await;
    let busy = cloud.hub.store.begin("test").await.unwrap();
    let control = cloud.control();
    let revoking =
        tokio::spawn(async move { control.revoke_app(row(b"bad"), &Actor::Cloud).await });
    for (agent, name) in [(&mut first, "a"), (&mut second, "b")] {
        let told = tokio::time::timeout(AT_ONCE, word(&cloud, agent, name)).await;
        let (_, orders) = told.expect("it waits for the database");
        assert_eq!(orders.denied, [Digest::of(b"bad")].into());
    }
    assert!(!revoking.is_finished(), "it is not stored yet");
    assert_eq!(
        cloud
            .hub
            .store
            .denied_app(&Digest::of(b"bad"))
            .await
            .unwrap(),
        None
    );
    drop(busy);
    revoking.await.unwrap().unwrap();
    let stored = cloud
        .hub
        .store
        .denied_app(&Digest::of(b"bad"))
        .await
        .unwrap();
    assert_eq!(stored.unwrap().reason, "a stolen key");
    let events = cloud.events().await;
    assert!(events.iter().any(|(kind, _)| kind == "app.revoked"));
    // What comes after says it, too: to whoever comes, and after a restart of the cloud.
    let control = cloud.control();
    control
        .revoke_app(row(b"worse"), &Actor::Cloud)
        .await
        .unwrap();
    let (_, orders) = word(&cloud, &mut first, "a").await;
    assert_eq!(orders.denied.len(), 2);
    let (_, orders) = word(&cloud, &mut second, "b").await;
    assert_eq!(orders.denied.len(), 2);
}

#[tokio::test]
async fn it_has_ended_only_where_a_node_says_so_by_the_word_that_revokes_it() {
    let (cloud, mut first, second) = two_with_it().await;
    let hub = &cloud.hub;
    first.send(says(1, Some(b"bad"))).await;
    eventually(|| async { hub.member("a").unwrap().apps.is_some() }).await;
    let nobody = spread(&[], &["a", "b"], &[]);
    assert_eq!(hub.spread_of(&revoked(b"bad")), nobody);
    cloud
        .control()
        .revoke_app(row(b"bad"), &Actor::Cloud)
        .await
        .unwrap();
    let (number, _) = word(&cloud, &mut first, "a").await;
    // It holds the word, and acts by the one before.
    first.send(says(number - 1, None)).await;
    acts_on(&cloud, number - 1).await;
    assert_eq!(hub.spread_of(&revoked(b"bad")), nobody);
    // It acted by it, and something of it is there still.
    first.send(says(number, Some(b"bad"))).await;
    acts_on(&cloud, number).await;
    assert_eq!(hub.spread_of(&revoked(b"bad")), nobody);
    // Another release of the app may run.
    first.send(says(number + 1, Some(b"good"))).await;
    acts_on(&cloud, number + 1).await;
    assert_eq!(hub.spread_of(&revoked(b"bad")), spread(&["a"], &["b"], &[]));
    drop(second);
    eventually(|| async { !hub.is_attached("b") }).await;
    assert_eq!(hub.spread_of(&revoked(b"bad")), spread(&["a"], &[], &["b"]));
    // Nobody was given that one.
    let mut other = revoked(b"other");
    other.releases = vec![(app(), "7.0".parse().unwrap())];
    assert_eq!(hub.spread_of(&other), Spread::default());
}

#[tokio::test]
async fn more_revocations_than_a_word_holds_are_refused_and_change_nothing() {
    let (cloud, mut first, _second) = two_with_it().await;
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    for number in 0..edgeward_apps::director::MAX_DENIED {
        tx.deny_app(&row(&number.to_be_bytes())).await.unwrap();
    }
    tx.director_changed().await.unwrap();
    tx.commit().await.unwrap();
    // Another cloud stored them: they are read.
    let (_, orders) = word(&cloud, &mut first, "a").await;
    assert_eq!(orders.denied.len(), edgeward_apps::director::MAX_DENIED);
    let refused = cloud
        .control()
        .revoke_app(row(b"one more"), &Actor::Cloud)
        .await;
    assert!(matches!(refused, Err(AppOrderFault::Full)), "{refused:?}");
    assert_eq!(
        cloud
            .hub
            .store
            .denied_app(&Digest::of(b"one more"))
            .await
            .unwrap(),
        None
    );
}
