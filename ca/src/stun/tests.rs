use edgeward_identity::SystemClock;
use edgeward_wire::stun::{TransactionId, request};

use super::*;

const ID: TransactionId = [7; 12];

fn at(millis: u64) -> BootTime {
    BootTime::from_duration(Duration::from_millis(millis))
}

fn from(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 4000))
}

#[test]
fn what_is_no_padded_request_gets_no_answer() {
    let mut limits = Limits::default();
    let good = request(&ID);
    let mut short = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    short.extend_from_slice(&ID);
    let answered = success(&ID, from(1));
    for bytes in [&good[..51], &short, &answered, &[0x40; 60], &[]] {
        let answer = answer(&mut limits, bytes, from(1), at(0));
        assert_eq!(answer, Err(Unanswered::NotForUs));
    }
    assert!(limits.sources.is_empty(), "nothing is kept of them");
}

#[test]
fn a_source_that_asks_too_often_waits_and_no_other_waits_for_it() {
    let mut limits = Limits::default();
    let asked = request(&ID);
    for _ in 0..BURST {
        assert!(answer(&mut limits, &asked, from(1), at(0)).is_ok());
    }
    let refused = answer(&mut limits, &asked, from(1), at(0));
    assert_eq!(refused, Err(Unanswered::TooOften));
    assert!(answer(&mut limits, &asked, from(2), at(0)).is_ok());
    assert!(answer(&mut limits, &asked, from(1), at(32)).is_ok());
    assert!(answer(&mut limits, &asked, from(1), at(32)).is_err());
}

#[test]
fn sources_without_end_take_no_memory_without_end() {
    let mut limits = Limits::default();
    for source in 0..100_000_u32 {
        let source = IpAddr::from(source.to_be_bytes());
        limits.take(source, at(u64::from(source_index(source)) / 10_000));
    }
    assert!(limits.sources.len() <= MAX_SOURCES);
    // Whoever comes once it is quiet again finds room.
    assert!(limits.take(IpAddr::from([192, 0, 2, 9]), at(10_000)));
    assert!(limits.sources.len() < MAX_SOURCES);
}

fn source_index(source: IpAddr) -> u32 {
    match source {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(_) => 0,
    }
}

#[tokio::test]
async fn a_request_is_answered_with_the_address_it_came_from() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(socket, Arc::new(SystemClock), stop.clone()));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let asked = request(&ID);
    // What comes before does no harm.
    client.send_to(b"noise", server).await.unwrap();
    client.send_to(&asked, server).await.unwrap();
    let mut buffer = [0; 256];
    let receive = client.recv_from(&mut buffer);
    let (length, _) = tokio::time::timeout(Duration::from_secs(10), receive)
        .await
        .unwrap()
        .unwrap();
    assert!(length <= asked.len());
    assert_eq!(
        Message::parse(&buffer[..length]),
        Ok(Message::Success(ID, client.local_addr().unwrap()))
    );
    stop.cancel();
    running.await.unwrap().unwrap();
}
