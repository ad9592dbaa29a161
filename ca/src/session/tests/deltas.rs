//! Slices as what is new against the one held: only where both sides know the same.

use edgeward_evidence::Digest;
use edgeward_wire::slice_delta;

use super::*;

const MEASURED: &str = "tier = [\"listed\"]\npcr_bank = \"sha256\"\n";

fn profile(value: u8) -> String {
    let value = hex::encode([value; 32]);
    format!("{MEASURED}pcr = {{ 7 = [\"sha256:{value}\"] }}\n")
}

fn digest(bytes: &[u8]) -> Vec<u8> {
    Digest::of(bytes).as_bytes().to_vec()
}

async fn agent(cloud: &Cloud, machine: &Machine, held: &[u8]) -> Agent {
    let agent = cloud.stranger(&machine.svid()).await.unwrap();
    let hello = v1::Hello {
        slice_deltas: true,
        slice_digest: match held.is_empty() {
            true => Vec::new(),
            false => digest(held),
        },
        ..machine.hello()
    };
    agent.send(node_message::Body::Hello(hello)).await;
    agent
}

async fn delta(agent: &mut Agent) -> v1::SliceDelta {
    agent
        .until(|body| match body {
            Body::SliceDelta(delta) => Some(delta),
            Body::Slice(_) => panic!("whole"),
            _ => None,
        })
        .await
        .unwrap()
}

async fn whole(agent: &mut Agent) -> Vec<u8> {
    agent
        .until(|body| match body {
            Body::Slice(slice) => Some(slice),
            Body::SliceDelta(_) => panic!("delta"),
            _ => None,
        })
        .await
        .unwrap()
}

fn version(cloud: &Cloud, bytes: &[u8]) -> u64 {
    let slice: edgeward_policy::Slice = open(cloud, bytes, Purpose::Policy, &node("a").to_string());
    slice.version
}

#[tokio::test]
async fn whoever_holds_nothing_or_something_unknown_gets_the_whole() {
    let (cloud, a, _b) = two("").await;
    cloud.policy(1, &profile(1));
    for held in [b"".as_slice(), b"another slice"] {
        let mut agent = agent(&cloud, &a, held).await;
        let welcome = welcome(&mut agent).await;
        assert!(!welcome.slice.is_empty());
        assert_eq!(welcome.slice_delta, None);
    }
}

#[tokio::test]
async fn a_change_goes_as_a_delta_that_gives_a_slice_signed_for_the_node() {
    let (cloud, a, _b) = two("").await;
    cloud.policy(1, &profile(1));
    let mut agent = agent(&cloud, &a, b"").await;
    let mut held = welcome(&mut agent).await.slice;
    for number in 2..=6 {
        cloud.policy(number, &profile(u8::try_from(number).unwrap()));
        held = slice_delta::apply(&delta(&mut agent).await, &held).unwrap();
        assert_eq!(version(&cloud, &held), number);
    }
}

#[tokio::test]
async fn a_session_that_begins_again_gets_a_delta_against_what_the_one_before_was_sent() {
    let (cloud, a, _b) = two("").await;
    cloud.policy(1, &profile(1));
    let held = {
        let mut agent = agent(&cloud, &a, b"").await;
        welcome(&mut agent).await.slice
    };
    cloud.policy(2, &profile(2));
    let held = {
        let mut agent = agent(&cloud, &a, &held).await;
        let welcome = welcome(&mut agent).await;
        assert!(welcome.slice.is_empty());
        slice_delta::apply(&welcome.slice_delta.unwrap(), &held).unwrap()
    };
    assert_eq!(version(&cloud, &held), 2);
    // A cloud that has just begun knows nothing of what was sent.
    let cloud = cloud.restart().await;
    cloud.policy(3, &profile(3));
    let mut agent = agent(&cloud, &a, &held).await;
    let welcome = welcome(&mut agent).await;
    assert_eq!(welcome.slice_delta, None);
    assert_eq!(version(&cloud, &welcome.slice), 3);
}

#[tokio::test]
async fn an_agent_that_a_delta_was_of_no_use_to_gets_the_whole() {
    let (cloud, a, _b) = two("").await;
    cloud.policy(1, &profile(1));
    let mut agent = agent(&cloud, &a, b"").await;
    welcome(&mut agent).await;
    cloud.policy(2, &profile(2));
    delta(&mut agent).await;
    let wanted = v1::SliceWanted {
        code: "delta_base".to_owned(),
    };
    agent.send(node_message::Body::SliceWanted(wanted)).await;
    assert_eq!(version(&cloud, &whole(&mut agent).await), 2);
}

#[tokio::test]
async fn an_agent_that_says_nothing_of_deltas_gets_whole_slices() {
    let (cloud, a, _b) = two("").await;
    cloud.policy(1, &profile(1));
    let mut agent = cloud.agent(&a).await;
    assert!(!welcome(&mut agent).await.slice.is_empty());
    cloud.policy(2, &profile(2));
    assert_eq!(version(&cloud, &whole(&mut agent).await), 2);
}

#[tokio::test]
async fn a_metered_node_is_told_what_is_new_in_its_results_and_when_the_cloud_was_there_along_with_the_question()
 {
    let (cloud, mut a, _b) = two("").await;
    let mut agent = metered(&cloud, &a).await;
    let first = agent.pass(&mut a, "a").await;
    assert!(first.result_delta.is_none(), "nothing was told before");
    let mut held = first.result;
    for _ in 0..3 {
        cloud.hasten("a");
        let challenge = agent.challenge().await;
        let beat = agent
            .until(|body| match body {
                Body::Heartbeat(bytes) => Some(bytes),
                _ => None,
            })
            .await;
        assert!(beat.is_some());
        let answer = a.answer(&challenge, &agent.exporter, "a");
        agent.send(node_message::Body::Evidence(answer)).await;
        let outcome = agent.outcome().await;
        assert!(outcome.result.is_empty());
        let delta = outcome.result_delta.unwrap();
        let size = prost::Message::encoded_len(&delta);
        assert!(size * 2 < held.len(), "{size} of {} bytes", held.len());
        held = slice_delta::apply(&delta, &held).unwrap();
        let standing = cloud.hub.member("a").unwrap().standing;
        assert_eq!(standing.result.as_deref(), Some(held.as_slice()));
    }
    // Another session was told nothing yet.
    drop(agent);
    let mut agent = metered(&cloud, &a).await;
    assert!(agent.pass(&mut a, "a").await.result_delta.is_none());
}

async fn metered(cloud: &Cloud, machine: &Machine) -> Agent {
    let agent = cloud.stranger(&machine.svid()).await.unwrap();
    let hello = v1::Hello {
        slice_deltas: true,
        metered: true,
        ..machine.hello()
    };
    agent.send(node_message::Body::Hello(hello)).await;
    agent
}
