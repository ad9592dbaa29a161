use std::time::Duration;

use edgeward_identity::BootTime;
use edgeward_wire::v1::{self, cloud_message, node_message};

use super::*;
use crate::testing::{Agent, Cloud, Machine, eventually};

fn at(millis: u64) -> BootTime {
    BootTime::from_duration(Duration::from_millis(millis))
}

fn call(to: &str) -> v1::Call {
    v1::Call {
        spiffe_id: format!("spiffe://plant.example/node/{to}"),
        endpoints: vec!["192.0.2.7:51820".to_owned()],
        relays: vec!["spiffe://plant.example/cloud/edgeward".to_owned()],
        answer: false,
    }
}

/// `a` and `b` may meet; `c` is enrolled, and policy lets it meet nobody.
async fn three() -> (Cloud, [Machine; 3]) {
    let mut machines = [Machine::new(), Machine::new(), Machine::new()];
    let [a, b, c] = &machines;
    let cloud = Cloud::start(&[a, b, c]).await;
    cloud.profile_of(a);
    for (machine, (name, role)) in
        machines
            .iter_mut()
            .zip([("a", "gateway"), ("b", "gateway"), ("c", "other")])
    {
        cloud
            .token(|token| {
                token.id = format!("t-{name}");
                token.labels = [("role".to_owned(), role.to_owned())].into();
            })
            .await;
        cloud
            .enrol(machine, &format!("t-{name}"), name)
            .await
            .unwrap();
    }
    (cloud, machines)
}

async fn called(agent: &mut Agent) -> v1::Called {
    agent
        .until(|body| match body {
            cloud_message::Body::Called(called) => Some(called),
            _ => None,
        })
        .await
        .unwrap()
}

#[test]
fn a_caller_that_calls_too_often_waits_and_no_other_waits_for_it() {
    let mut calls = Calls::default();
    for _ in 0..CALLER_BURST {
        assert!(calls.callers.take("a", at(0)));
    }
    assert!(!calls.callers.take("a", at(0)));
    assert!(calls.callers.take("b", at(0)));
    assert!(calls.callers.take("a", at(1000 / CALLER_PER_SECOND)));
    for _ in 0..CALLED_BURST {
        assert!(calls.called.take("a", at(0)));
    }
    assert!(!calls.called.take("a", at(0)));
    assert!(calls.called.take("b", at(0)));
}

#[tokio::test]
async fn nobody_is_called_by_whom_it_may_not_meet_or_in_a_wrong_way() {
    let (cloud, [a, _, c]) = three().await;
    let _agent = cloud.agent(&a).await;
    let _other = cloud.agent(&c).await;
    eventually(|| async { cloud.hub.is_attached("a") && cloud.hub.is_attached("c") }).await;
    let hub = &cloud.hub;
    let try_call = |caller: &str, call: &v1::Call| hub.try_call(caller, call, Vec::new());
    assert_eq!(try_call("c", &call("a")), Err(NotPassedOn::MayNotMeet));
    assert_eq!(try_call("a", &call("c")), Err(NotPassedOn::MayNotMeet));
    assert_eq!(try_call("a", &call("a")), Err(NotPassedOn::MayNotMeet));
    // Nobody is there.
    assert_eq!(try_call("a", &call("b")), Err(NotPassedOn::MayNotMeet));
    for id in [
        "",
        "spiffe://else.example/node/b",
        "spiffe://plant.example/operator/b",
    ] {
        let mut wrong = call("b");
        wrong.spiffe_id = id.to_owned();
        assert_eq!(try_call("a", &wrong), Err(NotPassedOn::Identity), "{id}");
    }
    let mut crowded = call("b");
    crowded.relays = vec![crowded.relays[0].clone(); MAX_CALL_RELAYS + 1];
    assert_eq!(try_call("a", &crowded), Err(NotPassedOn::Relays));
    crowded.relays = vec!["spiffe://else.example/node/r".to_owned()];
    assert_eq!(try_call("a", &crowded), Err(NotPassedOn::Relays));
    let mut stopped = false;
    for _ in 0..2 * CALLER_BURST {
        stopped |= try_call("a", &call("b")) == Err(NotPassedOn::CallsTooOften);
    }
    assert!(stopped);
}

#[tokio::test]
async fn calls_never_fill_the_queue_of_a_session_that_reads_nothing() {
    let (cloud, [a, b, _]) = three().await;
    let mut caller = cloud.agent(&a).await;
    let silent = cloud.agent(&b).await;
    eventually(|| async { cloud.hub.may_meet("a", "b") }).await;
    caller.challenge().await;
    let mut slow = false;
    // However much the connection takes before nobody reads it, it ends.
    for _ in 0..1_000_000 {
        *cloud.hub.calls.lock() = Calls::default();
        let endpoints = vec!["x".repeat(200); 16];
        if cloud.hub.try_call("a", &call("b"), endpoints) == Err(NotPassedOn::Slow) {
            slow = true;
            break;
        }
    }
    assert!(slow);
    assert!(
        cloud.hub.is_attached("b"),
        "its session does not end for it"
    );
    drop(silent);
}

#[tokio::test]
async fn a_call_reaches_the_peer_in_the_name_of_the_callers_certificate() {
    let (cloud, [a, b, _]) = three().await;
    let caller = cloud.agent(&a).await;
    let mut peer = cloud.agent(&b).await;
    eventually(|| async { cloud.hub.may_meet("a", "b") }).await;
    caller.send(node_message::Body::Call(call("b"))).await;
    let heard = called(&mut peer).await;
    assert_eq!(heard.spiffe_id, "spiffe://plant.example/node/a");
    assert_eq!(heard.endpoints, ["192.0.2.7:51820"]);
    assert_eq!(heard.relays, ["spiffe://plant.example/cloud/edgeward"]);
    assert!(!heard.answer);
    let mut answer = call("a");
    answer.answer = true;
    answer.endpoints = vec!["[2001:db8::1]:9".to_owned()];
    peer.send(node_message::Body::Call(answer)).await;
    let mut caller = caller;
    let heard = called(&mut caller).await;
    assert!(heard.answer);
    assert_eq!(heard.spiffe_id, "spiffe://plant.example/node/b");
}

#[tokio::test]
async fn endpoints_that_are_none_end_the_session() {
    let (cloud, [a, _, _]) = three().await;
    let mut caller = cloud.agent(&a).await;
    let mut wrong = call("b");
    wrong.endpoints = vec!["nowhere".to_owned()];
    caller.send(node_message::Body::Call(wrong)).await;
    assert_eq!(caller.goodbye().await.as_deref(), Some("session_hello"));
}

#[tokio::test]
async fn a_welcome_says_where_the_node_is_seen_and_where_stun_is_answered() {
    let (cloud, [a, _, _]) = three().await;
    let mut agent = cloud.agent(&a).await;
    let welcome = agent
        .until(|body| match body {
            cloud_message::Body::Welcome(welcome) => Some(welcome),
            _ => None,
        })
        .await
        .unwrap();
    assert!(welcome.seen_from.starts_with("127.0.0.1:"));
    assert_eq!(welcome.stun_port, u32::from(cloud.hub.stun_port));
    assert_ne!(welcome.stun_port, 0);
    assert!(welcome.relays);
}
