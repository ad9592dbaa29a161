//! What stands between a word and the database or the key that signs it.

use edgeward_wire::v1::cloud_message::Body;

use super::*;
use crate::api::Control;
use crate::store::director::DeniedRow;
use crate::testing::{Agent, Cloud, Machine, eventually, node, now};

fn revoked(of: &[u8]) -> DeniedRow {
    DeniedRow {
        digest: Digest::of(of),
        app: "acme/collector".to_owned(),
        version: "1.0".to_owned(),
        reason: "a stolen key".to_owned(),
        since: now(),
        denied_by: "li".to_owned(),
    }
}

async fn stored(cloud: &Cloud, of: &[u8]) -> bool {
    let row = cloud.hub.store.denied_app(&Digest::of(of)).await.unwrap();
    row.is_some()
}

/// How many events say that something was revoked.
async fn events(cloud: &Cloud) -> usize {
    let events = cloud.events().await;
    events
        .iter()
        .filter(|(kind, _)| kind == "app.revoked")
        .count()
}

async fn sql(cloud: &Cloud, text: &'static str) {
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    sqlx::query(text).execute(tx.connection()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_revocation_that_the_database_refused_is_in_force_and_stored_once_when_it_can_be() {
    let cloud = Cloud::start(&[]).await;
    sql(&cloud, "ALTER TABLE apps_denied RENAME TO away").await;
    let by = Actor::Cloud;
    let refused = cloud.control().revoke_app(revoked(b"bad"), &by).await;
    assert!(refused.is_err(), "{refused:?}");
    let digest = Digest::of(b"bad");
    assert!(cloud.hub.director.denied.lock().contains(&digest));
    cloud.hub.store_unstored().await;
    sql(&cloud, "ALTER TABLE away RENAME TO apps_denied").await;
    assert!(!stored(&cloud, b"bad").await);
    assert_eq!(events(&cloud).await, 0);
    for _ in 0..2 {
        cloud.hub.store_unstored().await;
        assert!(stored(&cloud, b"bad").await);
        assert_eq!(events(&cloud).await, 1);
    }
    let cloud = cloud.restart().await;
    assert!(cloud.hub.director.denied.lock().contains(&digest));
}

#[tokio::test]
async fn a_revocation_is_stored_though_who_asked_for_it_has_gone() {
    let cloud = Cloud::start(&[]).await;
    let busy = cloud.hub.store.begin("test").await.unwrap();
    let control = cloud.control();
    let asking =
        tokio::spawn(async move { control.revoke_app(revoked(b"bad"), &Actor::Cloud).await });
    let digest = Digest::of(b"bad");
    let in_force = || async { cloud.hub.director.denied.lock().contains(&digest) };
    eventually(in_force).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    drop(busy);
    eventually(|| stored(&cloud, b"bad")).await;
    assert_eq!(events(&cloud).await, 1);
}

#[tokio::test]
async fn the_end_of_the_cloud_stores_what_is_not_stored_yet() {
    let cloud = Cloud::start(&[]).await;
    let act = cloud.hub.deny_here(&revoked(b"bad"), &Actor::Cloud);
    act.unwrap();
    let cloud = cloud.restart().await;
    assert!(stored(&cloud, b"bad").await);
}

#[tokio::test]
async fn what_another_cloud_changed_takes_no_fresh_revocation_back() {
    let cloud = Cloud::start(&[]).await;
    let row = revoked(b"bad");
    // Stored by now, after this reading had begun.
    {
        let mut remembered = cloud.hub.director.remembered.lock();
        remembered.denied.insert(row.digest, row.clone());
    }
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    tx.director_changed().await.unwrap();
    tx.commit().await.unwrap();
    cloud.hub.look_at_director().await.unwrap();
    assert_eq!(cloud.hub.director.remembered.lock().changes, 1);
    assert!(cloud.hub.director.denied.lock().contains(&row.digest));
}

async fn one_with_an_app(machine: &mut Machine) -> (Cloud, Agent) {
    let cloud = Cloud::start(&[machine]).await;
    cloud.profile_of(machine);
    cloud.token(|_| {}).await;
    cloud.enrol(machine, "t1", "a").await.unwrap();
    let given = Given {
        highest: "1.0".parse().unwrap(),
        previous: None,
    };
    let mut tx = cloud.hub.store.begin("test").await.unwrap();
    let app = "acme/collector".parse().unwrap();
    tx.give_app("a", &app, &given).await.unwrap();
    tx.commit().await.unwrap();
    let cloud = cloud.restart().await;
    cloud.profile_of(machine);
    let mut agent = cloud.agent(machine).await;
    word(&mut agent).await;
    (cloud, agent)
}

async fn word(agent: &mut Agent) -> Vec<u8> {
    let word = agent.until(|body| match body {
        Body::Apps(bytes) => Some(bytes),
        _ => None,
    });
    word.await.expect("a word of the director")
}

#[tokio::test]
async fn a_word_that_could_not_be_signed_is_signed_when_it_can_be() {
    let mut machine = Machine::new();
    let (cloud, mut agent) = one_with_an_app(&mut machine).await;
    let keys = cloud.config.data.join("keys");
    let again = || cloud.hub.keys.apps_signer_of(|_| false).unwrap();
    // A key that no key set names: nobody would take its word.
    let id = "00";
    let other = keys.join(format!("director-{id}.key"));
    std::fs::copy(keys.join("control.key"), other).unwrap();
    let names = format!("{{\"director\":\"director-{id}\"}}");
    std::fs::write(keys.join("online.json"), names).unwrap();
    again();
    let signed = cloud.hub.director_word("a").await;
    assert!(signed.is_err(), "{signed:?}");
    cloud.hub.direct_anew();
    eventually(|| async { !cloud.hub.director.everybody.load(Ordering::Acquire) }).await;
    cloud.hub.direct_due().await.unwrap();
    std::fs::remove_file(keys.join("online.json")).unwrap();
    again();
    // As with the next look.
    cloud.hub.direct_due().await.unwrap();
    let told = cloud.hub.sessions.lock()["a"].directed.is_some();
    assert!(told, "nobody asks for it once more");
    word(&mut agent).await;
    assert!(cloud.hub.director_word("a").await.unwrap().is_some());
    assert_eq!(cloud.hub.member("a").unwrap().id, node("a"));
}

#[tokio::test]
async fn a_turn_of_the_directors_key_goes_on_though_who_asked_for_it_has_gone() {
    let mut machine = Machine::new();
    let (cloud, mut agent) = one_with_an_app(&mut machine).await;
    let number = cloud.hub.keys.key_set_number();
    let busy = cloud.hub.store.begin("test").await.unwrap();
    let control = cloud.control();
    let asking = tokio::spawn(async move { control.rotate_director(&Actor::Cloud).await });
    let keys = cloud.config.data.join("keys");
    let made = || async {
        let mut files = std::fs::read_dir(&keys).unwrap();
        files.any(|file| {
            let name = file.unwrap().file_name().into_string().unwrap();
            name.starts_with("director-")
        })
    };
    eventually(made).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    drop(busy);
    follows(&cloud, &mut agent, number + 1).await;
}

#[tokio::test]
async fn everybody_is_told_of_a_key_set_that_an_act_left_untold() {
    let mut machine = Machine::new();
    let (cloud, mut agent) = one_with_an_app(&mut machine).await;
    let number = cloud.hub.keys.key_set_number();
    let new = cloud.hub.keys.new_director().unwrap();
    cloud.hub.keys.turn_director(&new, now()).unwrap();
    // Wakes whoever looks after such things.
    let issuer = edgeward_identity::SpkiHash::from_bytes([7; 32]);
    cloud.hub.saw_trust("a", 0, Some(&issuer)).await.unwrap();
    follows(&cloud, &mut agent, number + 1).await;
}

/// The agent is told of this key set, and has a word after it that the set's key signed.
async fn follows(cloud: &Cloud, agent: &mut Agent, number: u64) {
    let trust = agent.until(|body| match body {
        Body::Trust(trust) => Some(trust),
        _ => None,
    });
    let set = trust.await.unwrap().key_set;
    let set = edgeward_identity::SignedObject::parse(&set).unwrap();
    assert_eq!(set.header().number, number);
    let word = word(agent).await;
    let expect = edgeward_identity::signed::Expect {
        purpose: Purpose::Director,
        trust_domain: &crate::testing::domain(),
        audience: &node("a").to_string(),
        least_number: 0,
        now: now(),
    };
    let keys = cloud.hub.keys.key_set(now()).unwrap();
    let word = edgeward_identity::SignedObject::parse(&word).unwrap();
    let orders: Orders = word.open_json(&keys, &expect).unwrap();
    assert!(orders.denied.is_empty());
}
