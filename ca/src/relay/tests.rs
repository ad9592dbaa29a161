use std::time::Duration;

use edgeward_identity::Svid;
use edgeward_wire::v1::relay_client::RelayClient;
use tonic::Code;

use super::*;
use crate::testing::{Agent, Cloud, Machine, eventually};

/// A stream as an agent sees it.
struct Pipe {
    up: mpsc::Sender<v1::RelayFrame>,
    down: Streaming<v1::RelayFrame>,
}

impl Pipe {
    async fn open(cloud: &Cloud, svid: Option<&Svid>) -> Result<Self, Status> {
        let (channel, _) = cloud.connect(svid).await;
        let (up, frames) = mpsc::channel(64);
        let down = RelayClient::new(channel)
            .carry(ReceiverStream::new(frames))
            .await?
            .into_inner();
        Ok(Self { up, down })
    }

    async fn send(&self, to: &str, datagrams: Vec<Vec<u8>>) {
        let frame = v1::RelayFrame {
            spiffe_id: id(to),
            datagrams,
            refused: String::new(),
        };
        let _ = self.up.send(frame).await;
    }

    /// `None`: the stream ended.
    async fn next(&mut self) -> Option<v1::RelayFrame> {
        tokio::time::timeout(Duration::from_secs(20), self.down.message())
            .await
            .expect("something comes, or it ends")
            .ok()
            .flatten()
    }
}

fn id(name: &str) -> String {
    format!("spiffe://plant.example/node/{name}")
}

/// `a` and `b` may meet; `c` is enrolled, and policy lets it meet nobody. All have a session.
async fn three(more: &str) -> (Cloud, [Machine; 3], [Agent; 3]) {
    let mut machines = [Machine::new(), Machine::new(), Machine::new()];
    let [a, b, c] = &machines;
    let cloud = Cloud::start_with(&[a, b, c], more).await;
    cloud.profile_of(a);
    for (machine, (name, role)) in
        machines
            .iter_mut()
            .zip([("a", "gateway"), ("b", "gateway"), ("c", "other")])
    {
        let token = format!("t-{name}");
        cloud
            .token(|row| {
                row.id.clone_from(&token);
                row.labels = [("role".to_owned(), role.to_owned())].into();
            })
            .await;
        cloud.enrol(machine, &token, name).await.unwrap();
    }
    let [a, b, c] = &machines;
    let agents = [
        cloud.agent(a).await,
        cloud.agent(b).await,
        cloud.agent(c).await,
    ];
    eventually(|| async { cloud.hub.may_meet("a", "b") && cloud.hub.is_attached("c") }).await;
    (cloud, machines, agents)
}

#[tokio::test]
async fn whoever_is_no_node_of_the_fleet_gets_no_stream() {
    let (cloud, [a, ..], _agents) = three("").await;
    let refused = Pipe::open(&cloud, None).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    cloud.hub.update_member("a", |member| member.keys.clear());
    let refused = Pipe::open(&cloud, Some(&a.svid())).await.err().unwrap();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::PermissionDenied, "node_status")
    );
}

#[tokio::test]
async fn a_cloud_that_does_not_relay_says_so() {
    let (cloud, [a, ..], _agents) = three("[relay]\nenabled = false\n").await;
    let refused = Pipe::open(&cloud, Some(&a.svid())).await.err().unwrap();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::FailedPrecondition, "relay_off")
    );
}

#[tokio::test]
async fn nothing_goes_to_whom_the_sender_may_not_meet_or_who_is_not_there() {
    let (cloud, [a, _, c], _agents) = three("").await;
    let mut from_a = Pipe::open(&cloud, Some(&a.svid())).await.unwrap();
    let mut from_c = Pipe::open(&cloud, Some(&c.svid())).await.unwrap();
    from_a.send("b", vec![vec![1]]).await;
    let told = from_a.next().await.unwrap();
    assert_eq!(
        (told.spiffe_id, told.refused),
        (id("b"), "relay_absent".to_owned())
    );
    from_c.send("a", vec![vec![2]]).await;
    let told = from_c.next().await.unwrap();
    assert_eq!(told.refused, "relay_may_not_meet");
    // The first thing that reaches `a` is not from `c`.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    from_a.send("c", vec![vec![3]]).await;
    let told = from_a.next().await.unwrap();
    assert_eq!(told.refused, "relay_may_not_meet");
    assert!(told.datagrams.is_empty());
}

#[tokio::test]
async fn a_peer_that_is_cut_off_gets_and_sends_nothing_more() {
    let (cloud, [a, b, _], _agents) = three("").await;
    let mut from_a = Pipe::open(&cloud, Some(&a.svid())).await.unwrap();
    let mut from_b = Pipe::open(&cloud, Some(&b.svid())).await.unwrap();
    from_a.send("b", vec![vec![1]]).await;
    assert_eq!(from_b.next().await.unwrap().datagrams, [vec![1]]);
    cloud.quarantine("b").await;
    assert!(from_b.next().await.is_none(), "its connection ends");
    from_a.send("b", vec![vec![2]]).await;
    assert!(!from_a.next().await.unwrap().refused.is_empty());
}

#[tokio::test]
async fn frames_that_no_agent_makes_end_the_stream() {
    let (cloud, [a, b, _], _agents) = three("").await;
    let mut from_b = Pipe::open(&cloud, Some(&b.svid())).await.unwrap();
    for wrong in [
        Vec::new(),
        vec![Vec::new()],
        vec![vec![0; MAX_CARRIED_BYTES + 1]],
        vec![vec![0]; MAX_CARRIED_AT_ONCE + 1],
    ] {
        let mut from_a = Pipe::open(&cloud, Some(&a.svid())).await.unwrap();
        for _ in 0..=MAX_MALFORMED {
            from_a.send("b", wrong.clone()).await;
        }
        assert!(from_a.next().await.is_none());
    }
    // None of them reached the peer.
    let from_a = Pipe::open(&cloud, Some(&a.svid())).await.unwrap();
    from_a.send("b", vec![vec![9]]).await;
    assert_eq!(from_b.next().await.unwrap().datagrams, [vec![9]]);
}

#[tokio::test]
async fn whoever_sends_more_than_its_budget_is_carried_no_further_not_even_on_a_new_stream() {
    let (cloud, [a, b, _], _agents) = three("[relay]\nbytes_per_second = 10000\n").await;
    let mut to_b = Pipe::open(&cloud, Some(&b.svid())).await.unwrap();
    let mut sent = 0;
    for _ in 0..2 {
        let from_a = Pipe::open(&cloud, Some(&a.svid())).await.unwrap();
        // Twice the burst; the receiver reads along.
        for _ in 0..20 {
            from_a.send("b", vec![vec![0; 1000]; 10]).await;
            sent += 10_000;
        }
        from_a.send("c", vec![vec![1]]).await;
        let mut from_a = from_a;
        assert_eq!(from_a.next().await.unwrap().refused, "relay_may_not_meet");
    }
    let mut received = 0;
    while let Ok(Ok(Some(frame))) =
        tokio::time::timeout(Duration::from_millis(500), to_b.down.message()).await
    {
        received += frame.datagrams.iter().map(Vec::len).sum::<usize>();
    }
    assert_eq!(sent, 400_000);
    // The burst, and what some seconds of a slow machine earned.
    assert!((90_000..200_000).contains(&received), "{received}");
}

#[tokio::test]
async fn a_receiver_that_reads_nothing_costs_its_sender_loss_and_the_cloud_a_bounded_queue() {
    let (cloud, [a, b, _], _agents) = three("[relay]\nbytes_per_second = 100000000\n").await;
    let to_b = Pipe::open(&cloud, Some(&b.svid())).await.unwrap();
    let mut from_a = Pipe::open(&cloud, Some(&a.svid())).await.unwrap();
    for _ in 0..400 {
        from_a.send("b", vec![vec![0; 2000]; 32]).await;
    }
    // The stream still takes what comes after it.
    from_a.send("c", vec![vec![1]]).await;
    assert_eq!(from_a.next().await.unwrap().refused, "relay_may_not_meet");
    drop((to_b, from_a));
    eventually(|| async {
        cloud.events().await.iter().any(|(kind, record)| {
            kind == "relay.closed"
                && record.contains("/node/a")
                && !record.contains("\"dropped\":\"0\"")
        })
    })
    .await;
}

#[tokio::test]
async fn datagrams_go_both_ways_in_the_senders_name_and_a_newer_stream_takes_over() {
    let (cloud, [a, b, _], _agents) = three("").await;
    let mut at_a = Pipe::open(&cloud, Some(&a.svid())).await.unwrap();
    let mut at_b = Pipe::open(&cloud, Some(&b.svid())).await.unwrap();
    at_a.send("b", vec![vec![1; 1400], vec![2]]).await;
    let frame = at_b.next().await.unwrap();
    assert_eq!(frame.spiffe_id, id("a"));
    assert_eq!(frame.datagrams, [vec![1; 1400], vec![2]]);
    at_b.send("a", vec![vec![3]]).await;
    let frame = at_a.next().await.unwrap();
    assert_eq!((frame.spiffe_id, frame.datagrams), (id("b"), vec![vec![3]]));
    let mut newer = Pipe::open(&cloud, Some(&b.svid())).await.unwrap();
    assert!(at_b.next().await.is_none());
    at_a.send("b", vec![vec![4]]).await;
    assert_eq!(newer.next().await.unwrap().datagrams, [vec![4]]);
}
