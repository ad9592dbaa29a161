//! A candidate that installs something else: it reaches its part alone, and is taken back with the candidate.

use edgeward_apps::Orders;
use edgeward_apps::testing::{Content, Published, policy_keys};

use super::*;

const APP: &str = "acme/x";

fn installs(offline: &Published, version: &str) -> String {
    let keys = policy_keys(&offline.repository.publisher_keys(), 2);
    let keys: Vec<String> = keys.keys.iter().map(|key| format!("\"{key}\"")).collect();
    format!(
        "{}[publisher.acme]\nkeys = [{}]\nthreshold = 2\n[apps.gateways]\nallow = [{{ publisher = \"acme\" }}]\n\
         install = [{{ publisher = \"acme\", name = \"x\", version = \"{version}\", state = \"running\" }}]\n",
        rule("ssh", "ssh"),
        keys.join(", ")
    )
}

/// Version that a word assigns, and whether it leads back.
fn assigned(cloud: &Cloud, name: &str, word: &[u8]) -> (String, bool) {
    let orders: Orders = open(cloud, word, Purpose::Director, &node(name).to_string());
    let assigned = &orders.apps[&APP.parse().unwrap()];
    (assigned.version.to_string(), assigned.back)
}

/// What a node is told next.
async fn told(cloud: &Cloud, agent: &mut Agent, name: &str) -> (String, bool) {
    let word = agent
        .until(|body| match body {
            Body::Apps(word) => Some(word),
            _ => None,
        })
        .await
        .expect("a word of the director");
    assigned(cloud, name, &word)
}

/// What a node should have now.
async fn should(cloud: &Cloud, name: &str) -> (String, bool) {
    let word = cloud.hub.director_word(name).await.unwrap().unwrap();
    assigned(cloud, name, &word)
}

fn has(version: &str) -> (String, bool) {
    (version.to_owned(), false)
}

#[tokio::test]
async fn what_a_candidate_installs_comes_to_its_part_alone_and_goes_with_it() {
    let (cloud, a, b) = two("").await;
    let mut offline = cloud.publisher();
    for version in ["1.0", "2.0"] {
        let program = format!("program {version}");
        let tree = [("bin/x", Content::Program(program.as_bytes()))];
        offline.release(APP, version, &tree);
    }
    cloud.publish(&offline).await;
    in_force(&cloud, &a, &installs(&offline, "1.0")).await;
    let (mut one, mut two) = (cloud.agent(&a).await, cloud.agent(&b).await);
    assert_eq!(told(&cloud, &mut one, "a").await, has("1.0"));
    assert_eq!(told(&cloud, &mut two, "b").await, has("1.0"));

    let part = stage(&cloud, &a, &installs(&offline, "2.0")).await.unwrap();
    let [(first, _), (other, _)] = order(&part, &a, &b);
    let agent = match first {
        "a" => &mut one,
        _ => &mut two,
    };
    assert_eq!(told(&cloud, agent, first).await, has("2.0"));
    assert_eq!(should(&cloud, other).await, has("1.0"));

    // Stopped, it stays where it is: on both sides.
    cloud.hub.pause_rollout(&operator()).await.unwrap();
    assert_eq!(should(&cloud, first).await, has("2.0"));
    assert_eq!(should(&cloud, other).await, has("1.0"));

    // All of it goes back or nothing.
    rename(&cloud, "ALTER TABLE apps_back RENAME TO away").await;
    let row = base(&cloud).await;
    let refused = cloud.hub.abort_rollout(row, &operator()).await;
    assert!(refused.is_err());
    let still = cloud.hub.rollout().await.unwrap();
    assert!(still.is_some(), "the policy went back without its releases");
    assert_eq!(cloud.hub.store.policy_in_force().await.unwrap(), 1);
    assert!(cloud.hub.store.policy(3).await.unwrap().is_none());
    rename(&cloud, "ALTER TABLE away RENAME TO apps_back").await;
    let row = base(&cloud).await;
    cloud.hub.abort_rollout(row, &operator()).await.unwrap();
    assert_eq!(told(&cloud, agent, first).await, ("1.0".to_owned(), true));
    assert_eq!(should(&cloud, first).await, ("1.0".to_owned(), true));
    assert_eq!(
        should(&cloud, other).await,
        has("1.0"),
        "it never went away"
    );
    let events = cloud.events().await;
    let returned: Vec<_> = events
        .iter()
        .filter(|(kind, _)| kind == "app.returned")
        .collect();
    assert_eq!(returned.len(), 1, "{returned:?}");
    assert!(returned[0].1.contains("policy 2 was taken back"));
    // And it stays so.
    let cloud = cloud.restart().await;
    let (lower, _) = policy(3, &a, &installs(&offline, "1.0"));
    cloud.hub.set_policy(Arc::new(lower));
    assert_eq!(should(&cloud, first).await, ("1.0".to_owned(), true));
}

/// Policy 1 once more, as 3.
async fn base(cloud: &Cloud) -> PolicyRow {
    let (base, _) = cloud.hub.store.policy(1).await.unwrap().unwrap();
    PolicyRow {
        number: 3,
        origin: Some(1),
        ..base
    }
}

async fn rename(cloud: &Cloud, sql: &'static str) {
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    sqlx::query(sql).execute(tx.connection()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_policy_that_names_a_lower_version_leaves_a_node_what_it_has() {
    let (cloud, a, _b) = two("").await;
    let mut offline = cloud.publisher();
    for version in ["1.0", "2.0"] {
        let program = format!("program {version}");
        let tree = [("bin/x", Content::Program(program.as_bytes()))];
        offline.release(APP, version, &tree);
    }
    cloud.publish(&offline).await;
    in_force(&cloud, &a, &installs(&offline, "2.0")).await;
    assert_eq!(should(&cloud, "a").await, has("2.0"));
    let (lower, _) = policy(2, &a, &installs(&offline, "1.0"));
    cloud.hub.set_policy(Arc::new(lower));
    assert_eq!(should(&cloud, "a").await, has("2.0"));
    // What has it for the first time gets what is named.
    assert_eq!(should(&cloud, "b").await, has("1.0"));
}
