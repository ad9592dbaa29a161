use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use edgeward_audit::EventKind;
use edgeward_policy::Proto;
use edgeward_policy::slice::{GroupId, Sources, States, Tiers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::testing::*;

/// A service that echoes, in capitals; each connection in a task of its own.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    buffer[..length].make_ascii_uppercase();
                    if stream.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
                let _gone = stream.write_all(b"bye").await;
            });
        }
    });
    address
}

/// Sends a word and reads the answer. `None`: the connection ended.
async fn ask<S>(stream: &mut S, word: &str) -> Option<String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(word.as_bytes()).await.ok()?;
    let mut buffer = vec![0; word.len()];
    let read = tokio::time::timeout(SOON, stream.read_exact(&mut buffer));
    read.await.expect("an answer or an end").ok()?;
    String::from_utf8(buffer).ok()
}

/// How long until the connection ends.
async fn ends(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    let mut buffer = [0; 16];
    let ended = tokio::time::timeout(SOON, stream.read(&mut buffer)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    begun.elapsed()
}

#[tokio::test]
async fn a_peer_that_policy_names_gets_through_and_others_do_not() {
    let port = port();
    let rig = Rig::start(vec![interface(port, echo().await, None)]).await;
    rig.up().await;
    assert!(rig.listening.lock().contains(&(Proto::Tcp, port)));

    let mut allowed = dial(B_AT, port).await.unwrap();
    assert_eq!(ask(&mut allowed, "hello").await.as_deref(), Some("HELLO"));
    for stranger in [C_AT, NOBODY_AT] {
        let mut denied = dial(stranger, port).await.unwrap();
        assert_eq!(ask(&mut denied, "hello").await, None, "{stranger}");
    }
    eventually("flows are recorded", async || {
        rig.journal.of(EventKind::FlowDenied).len() == 2
            && rig.journal.of(EventKind::FlowAllowed).len() == 1
    })
    .await;
    let allowed = &rig.journal.of(EventKind::FlowAllowed)[0];
    assert_eq!(allowed["actor"], "spiffe://plant.example/node/b");
    assert_eq!(allowed["rule"], "b-reads");
    assert_eq!(allowed["detail"]["interface"], "line3/modbus");
    assert_eq!(allowed["detail"]["action"], "connect");
    let detail = &allowed["detail"];
    assert_eq!(detail["guard"], "gateway");
    assert_eq!(detail["state"], "trusted");
    assert_eq!(detail["tier"], "hardware");
    assert_eq!(detail["source"], B_AT.to_string());
    assert_eq!(detail["requests"], "1");
    assert!(detail["since"].is_string() && detail["left_out"].is_null());
    let denied = rig.journal.of(EventKind::FlowDenied);
    let codes: Vec<_> = denied.iter().map(|event| &event["code"]).collect();
    assert!(codes.contains(&&"no-rule".into()), "{codes:?}");
    assert!(codes.contains(&&"unknown-subject".into()), "{codes:?}");
}

#[tokio::test]
async fn each_half_of_a_connection_is_closed_on_its_own() {
    let port = port();
    let rig = Rig::start(vec![interface(port, echo().await, None)]).await;
    rig.up().await;
    let mut stream = dial(B_AT, port).await.unwrap();
    assert_eq!(ask(&mut stream, "one").await.as_deref(), Some("ONE"));
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye");
}

#[tokio::test]
async fn a_live_connection_ends_when_its_peer_is_cut() {
    let port = port();
    let rig = Rig::start(vec![interface(port, echo().await, None)]).await;
    rig.up().await;
    let mut stream = dial(B_AT, port).await.unwrap();
    assert_eq!(ask(&mut stream, "one").await.as_deref(), Some("ONE"));
    rig.cut_b();
    let took = ends(&mut stream).await;
    println!("ended after {took:?}");
    assert_eq!(ask(&mut stream, "two").await, None);
}

#[tokio::test]
async fn a_live_connection_ends_when_policy_changes_and_others_stay() {
    let (one, other) = (port(), port());
    let echo = echo().await;
    let both = || vec![interface(one, echo, None), interface(other, echo, None)];
    let named = |mut all: Vec<edgeward_policy::SliceInterface>| {
        all[1].name = "other".to_owned();
        all
    };
    let rig = Rig::start(named(both())).await;
    rig.up().await;
    let mut first = dial(B_AT, one).await.unwrap();
    let mut second = dial(B_AT, other).await.unwrap();
    assert_eq!(ask(&mut first, "one").await.as_deref(), Some("ONE"));
    assert_eq!(ask(&mut second, "two").await.as_deref(), Some("TWO"));

    // The rule no longer names the peer.
    let mut changed = named(both());
    changed[0].rows[0].from = Sources::Groups(vec![GroupId(1)]);
    rig.put(changed);
    ends(&mut first).await;
    assert_eq!(ask(&mut second, "two").await.as_deref(), Some("TWO"));

    // The interface goes away: so do its listener and what came in by it.
    rig.put(named(both()).drain(..1).collect());
    ends(&mut second).await;
    eventually("nothing listens any more", async || {
        dial(B_AT, other).await.is_err()
    })
    .await;
    let mut again = dial(B_AT, one).await.unwrap();
    assert_eq!(ask(&mut again, "one").await.as_deref(), Some("ONE"));
}

#[tokio::test]
async fn a_connection_does_not_outlive_the_end_of_its_rule_nor_move_to_another_interface() {
    let port = port();
    let echo = echo().await;
    let rig = Rig::start(vec![interface(port, echo, None)]).await;
    rig.up().await;
    let mut stream = dial(B_AT, port).await.unwrap();
    assert_eq!(ask(&mut stream, "one").await.as_deref(), Some("ONE"));
    // Fresh for ten minutes, and nine of them are left.
    rig.clock.turn(Duration::from_secs(9 * 60 + 1));
    ends(&mut stream).await;

    rig.change(|parts| {
        let b = parts.bound.get_mut(&B).unwrap();
        b.evidence.last_pass = Some(edgeward_identity::Clock::now(&*rig.clock));
    });
    let mut stream = dial(B_AT, port).await.unwrap();
    assert_eq!(ask(&mut stream, "one").await.as_deref(), Some("ONE"));
    let mut moved = interface(port, echo, None);
    moved.name = "another".to_owned();
    rig.put(vec![moved]);
    ends(&mut stream).await;
}

#[tokio::test]
async fn where_another_listens_nobody_is_let_in_until_it_goes() {
    let port = port();
    let squatter = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .await
        .unwrap();
    let rig = Rig::start(vec![interface(port, echo().await, None)]).await;
    eventually("the failure is shown", async || {
        let stands = rig.shown.status();
        stands.len() == 1 && stands[0].failed.is_some()
    })
    .await;
    assert!(rig.listening.lock().is_empty());
    let down = rig.journal.of(EventKind::GatewayDown);
    assert_eq!(down.len(), 1);
    assert_eq!(down[0]["detail"]["interface"], "line3/modbus");
    drop(squatter);
    eventually("it listens once it can", async || {
        rig.listening.lock().contains(&(Proto::Tcp, port))
    })
    .await;
    assert_eq!(rig.journal.of(EventKind::GatewayUp).len(), 1);
}

#[tokio::test]
async fn datagrams_go_both_ways_for_who_may_and_end_with_a_cut() {
    let port = port();
    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut interface = interface(port, service.local_addr().unwrap(), None);
    interface.proto = Proto::Udp;
    let rig = Rig::start(vec![interface]).await;
    rig.up().await;
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        loop {
            let (length, from) = service.recv_from(&mut buffer).await.unwrap();
            buffer[..length].make_ascii_uppercase();
            service.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    let gateway = (Ipv4Addr::LOCALHOST, port);
    let answer = async |socket: &UdpSocket| {
        socket.send_to(b"ping", gateway).await.unwrap();
        let mut buffer = [0; 16];
        let received = socket.recv_from(&mut buffer);
        let waited = tokio::time::timeout(Duration::from_millis(500), received).await;
        waited
            .ok()
            .map(|received| buffer[..received.unwrap().0].to_vec())
    };
    let b = UdpSocket::bind((B_AT, 0)).await.unwrap();
    assert_eq!(answer(&b).await.as_deref(), Some(&b"PING"[..]));
    assert_eq!(answer(&b).await.as_deref(), Some(&b"PING"[..]));
    let c = UdpSocket::bind((C_AT, 0)).await.unwrap();
    assert_eq!(answer(&c).await, None);
    rig.cut_b();
    assert_eq!(answer(&b).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_known_by_certificate_and_stands_as_the_node_it_comes_from() {
    let port = port();
    let mut interface = interface(port, echo().await, None);
    // Operators only: node `b` itself may not.
    interface.rows[0].from = Sources::Groups(vec![GroupId(1)]);
    let rig = Rig::start(vec![interface]).await;
    rig.up().await;
    let ada = rig.authority.svid("operator/ada");

    let mut stream = rig.tls(B_AT, port, &ada, &[]).await.unwrap();
    assert_eq!(ask(&mut stream, "hello").await.as_deref(), Some("HELLO"));
    let mut plain = dial(B_AT, port).await.unwrap();
    assert_eq!(ask(&mut plain, "hello").await, None);

    // From where no bound node is, through another operator's certificate, and by a workload's: nothing.
    for (from, path) in [
        (NOBODY_AT, "operator/ada"),
        (B_AT, "operator/eve"),
        (B_AT, "workload/ada"),
        (B_AT, "node/c"),
    ] {
        let svid = rig.authority.svid(path);
        let got = match rig.tls(from, port, &svid, &[]).await {
            Ok(mut stream) => ask(&mut stream, "hello").await,
            Err(_) => None,
        };
        assert_eq!(got, None, "{path} from {from}");
    }
    // The node's standing falls: so does the operator.
    rig.cut_b();
    assert_eq!(ask(&mut stream, "hello").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_denied_ends_its_live_connection_and_opens_no_other() {
    let port = port();
    let mut interface = interface(port, echo().await, None);
    interface.rows[0].from = Sources::Groups(vec![GroupId(1)]);
    let rig = Rig::start(vec![interface]).await;
    rig.up().await;
    let ada = rig.authority.svid("operator/ada");
    let mut stream = rig.tls(B_AT, port, &ada, &[]).await.unwrap();
    assert_eq!(ask(&mut stream, "hello").await.as_deref(), Some("HELLO"));
    rig.deny(ada.leaf().key.spki_hash());
    assert_eq!(ask(&mut stream, "hello").await, None);
    let again = match rig.tls(B_AT, port, &ada, &[]).await {
        Ok(mut stream) => ask(&mut stream, "hello").await,
        Err(_) => None,
    };
    assert_eq!(again, None);
    eventually("the refusal is recorded", async || {
        let denied = rig.journal.of(EventKind::FlowDenied);
        denied
            .iter()
            .any(|event| event["code"] == "tls" && event["detail"]["request"] == "certificate")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_certificate_counts_only_with_the_key_of_its_bind_and_through_its_own_tunnel() {
    let port = port();
    let rig = Rig::start(vec![interface(port, echo().await, None)]).await;
    rig.up().await;
    let b = rig.authority.svid("node/b");
    let got = async |from: Ipv4Addr| match rig.tls(from, port, &b, &[]).await {
        Ok(mut stream) => ask(&mut stream, "hello").await,
        Err(_) => None,
    };
    assert_eq!(got(B_AT).await, None, "another key than the bind's");
    rig.bind_with(B, b.leaf().key.spki_hash());
    assert_eq!(got(B_AT).await.as_deref(), Some("HELLO"));
    assert_eq!(got(C_AT).await, None, "through the tunnel of another");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_make_this_node_sign_without_end() {
    let port = port();
    let rig = Rig::start(vec![interface(port, echo().await, None)]).await;
    rig.up().await;
    let eve = rig.authority.svid("operator/eve");
    let mut signed = 0;
    for _ in 0..super::budget::SOURCE_BURST + 4 {
        signed += u32::from(rig.tls(C_AT, port, &eve, &[]).await.is_ok());
    }
    assert_eq!(signed, super::budget::SOURCE_BURST);
    // Others are not starved.
    assert!(rig.tls(B_AT, port, &eve, &[]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_known_on_its_network_by_address_or_by_its_own_certificate() {
    let port = port();
    let mut interface = interface(port, echo().await, None);
    interface.net = "lan0".to_owned();
    interface.rows[0].states = States::Proven;
    interface.rows[0].tiers = Tiers::Rooted;
    let rig = Rig::start(vec![interface.clone()]).await;
    rig.up().await;
    // It is no port of the tunnel.
    assert!(rig.listening.lock().is_empty());
    let plc = Ipv4Addr::new(127, 0, 0, 4);
    let mut stream = dial(plc, port).await.unwrap();
    assert_eq!(ask(&mut stream, "hello").await.as_deref(), Some("HELLO"));
    let mut other = dial(B_AT, port).await.unwrap();
    assert_eq!(
        ask(&mut other, "hello").await,
        None,
        "a peer is nobody on a lan"
    );

    // The same address is no longer enough once policy asks for a certificate.
    let own = TestAuthorityOfTheDevice::new();
    let mut slice = slice(vec![interface]);
    slice.devices[0].recognised.certificate = Some(own.hash.clone());
    rig.put_slice(slice);
    ends(&mut stream).await;
    let mut stream = rig.tls(plc, port, &own.svid, &[]).await.unwrap();
    assert_eq!(ask(&mut stream, "hello").await.as_deref(), Some("HELLO"));

    // This node is trusted no more: it vouches for nobody.
    rig.change(|parts| parts.own = None);
    assert_eq!(ask(&mut stream, "hello").await, None);
}

/// A certificate of somebody else's authority.
struct TestAuthorityOfTheDevice {
    svid: edgeward_identity::Svid,
    hash: String,
}

impl TestAuthorityOfTheDevice {
    fn new() -> Self {
        let authority = edgeward_identity::testing::TestAuthority::new("maker.example");
        let svid = authority.svid("device/serial-17");
        let hash = ring::digest::digest(&ring::digest::SHA256, &svid.chain()[0]);
        Self {
            hash: hex::encode(hash.as_ref()),
            svid,
        }
    }
}
