use std::net::Ipv4Addr;

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder};
use edgeward_identity::testing::{TEST_NOW, TurnedClock};

use super::*;
use crate::names::book::wire_name;
use crate::names::pace::BURST;
use crate::names::testing::{Scene, reach};

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn desk(forwards: bool) -> Desk {
    let scene = Scene::new(&["b"]).with(reach(0));
    let clock = TurnedClock::at(TEST_NOW);
    Desk::new(
        scene.book(),
        forwards,
        vec![scene.overlay().v6.into()],
        clock,
        Arc::default(),
    )
}

fn question(name: &str) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec().question();
    builder.push((&wire_name(name).unwrap(), Rtype::A)).unwrap();
    builder.finish()
}

async fn asked(address: SocketAddr, question: &[u8]) -> Option<Message<Vec<u8>>> {
    let socket = UdpSocket::bind(ANY).await.unwrap();
    socket.send_to(question, address).await.unwrap();
    let mut room = [0; 1500];
    let received = tokio::time::timeout(Duration::from_secs(3), socket.recv(&mut room)).await;
    let length = received.ok()?.unwrap();
    Some(Message::from_octets(room[..length].to_vec()).unwrap())
}

/// A desk that takes datagrams, and where.
async fn serving(desk: Desk) -> (Arc<Desk>, SocketAddr) {
    let desk = Arc::new(desk);
    let socket = Arc::new(UdpSocket::bind(ANY).await.unwrap());
    let address = socket.local_addr().unwrap();
    let kept = Arc::clone(&desk);
    tokio::spawn(async move { serve_datagrams(&kept, socket).await });
    (desk, address)
}

#[test]
fn whoever_asks_from_the_mesh_or_the_network_is_a_stranger() {
    let desk = desk(false);
    let scene = Scene::new(&["b"]);
    for stranger in [
        IpAddr::V6(scene.peer(0).v6),
        IpAddr::V4(scene.peer(0).v4.unwrap()),
        "192.0.2.1".parse().unwrap(),
        "::".parse().unwrap(),
    ] {
        assert!(!desk.is_from_here(stranger), "{stranger}");
    }
    for own in [IpAddr::V6(scene.overlay().v6), "127.0.0.1".parse().unwrap()] {
        assert!(desk.is_from_here(own), "{own}");
    }
}

#[tokio::test]
async fn a_flood_is_answered_up_to_its_burst() {
    let desk = desk(false);
    let answered = (0..BURST + 10).filter(|_| desk.may_answer()).count();
    assert_eq!(answered, usize::try_from(BURST).unwrap());
}

#[tokio::test]
async fn other_zones_are_refused_where_nobody_is_asked_for_them() {
    let (desk, address) = serving(desk(false)).await;
    // Even with somebody there to ask: he is for the cloud's own names.
    let upstream = UdpSocket::bind(ANY).await.unwrap();
    desk.upstream
        .store(Arc::new(vec![upstream.local_addr().unwrap()]));
    let message = asked(address, &question("www.elsewhere.example")).await;
    assert_eq!(message.unwrap().header().rcode(), Rcode::REFUSED);
    let mut room = [0; 512];
    assert!(upstream.try_recv(&mut room).is_err());
}

#[tokio::test]
async fn what_is_sent_on_is_answered_by_the_other_and_nothing_of_ours_goes_out() {
    let (desk, address) = serving(desk(true)).await;
    let upstream = UdpSocket::bind(ANY).await.unwrap();
    desk.upstream
        .store(Arc::new(vec![upstream.local_addr().unwrap()]));
    let other = tokio::spawn(async move {
        let mut room = [0; 512];
        let (length, from) = upstream.recv_from(&mut room).await.unwrap();
        room[2] |= 0x80;
        upstream.send_to(&room[..length], from).await.unwrap();
        room[..length].to_vec()
    });
    let hidden = asked(address, &question("c.plant.example")).await.unwrap();
    assert_eq!(hidden.header().rcode(), Rcode::NXDOMAIN);
    let sent_on = question("www.elsewhere.example");
    let answer = asked(address, &sent_on).await.unwrap();
    assert!(answer.header().qr());
    assert_eq!(answer.header().id(), 0);
    // The first that came out was not of our zone.
    let seen = other.await.unwrap();
    assert_eq!(seen[12..], sent_on[12..]);
}

#[tokio::test]
async fn a_stream_answers_one_question_after_another_and_ends_at_rubbish() {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let address = listener.local_addr().unwrap();
    let desk = Arc::new(desk(false));
    tokio::spawn(async move { serve_streams(&desk, listener).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    for name in ["b.plant.example", "c.plant.example"] {
        let question = question(name);
        let length = u16::try_from(question.len()).unwrap();
        stream.write_u16(length).await.unwrap();
        stream.write_all(&question).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.unwrap();
        let found = Message::from_octets(answer).unwrap().header().rcode() == Rcode::NOERROR;
        assert_eq!(found, name.starts_with('b'));
    }
    stream.write_u16(u16::MAX).await.unwrap();
    assert!(stream.read_u16().await.is_err());
}
