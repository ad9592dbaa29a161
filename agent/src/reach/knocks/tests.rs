use super::*;

fn at(millis: u64) -> BootTime {
    BootTime::from_duration(Duration::from_millis(millis))
}

fn node(name: &str) -> SpiffeId {
    format!("spiffe://plant.example/node/{name}")
        .parse()
        .unwrap()
}

fn addresses(number: u8) -> Vec<SocketAddr> {
    (1..=number)
        .map(|last| SocketAddr::from(([192, 0, 2, last], 51820)))
        .collect()
}

#[test]
fn a_peer_that_calls_without_end_causes_few_datagrams() {
    let mut knocks = Knocks::default();
    let mut sent = 0;
    for millis in 0..10_000 {
        knocks.begin(&node("a"), &addresses(200), at(millis));
        sent += knocks.due(at(millis)).len();
    }
    // Runs begin every two seconds, and each is cut short by the next.
    assert!(sent <= 5 * 4 * MAX_ADDRESSES, "{sent}");
}

#[test]
fn crowds_of_callers_take_no_memory_without_end() {
    let mut knocks = Knocks::default();
    for number in 0..10 * MAX_PEERS {
        knocks.begin(&node(&format!("n{number}")), &addresses(1), at(0));
    }
    assert_eq!(knocks.runs.len(), MAX_PEERS);
    assert!(!knocks.begin(&node("late"), &addresses(1), at(5_000)));
    assert_eq!(knocks.due(at(6_000)).len(), MAX_PEERS * AFTER.len());
    assert!(knocks.begin(&node("late"), &addresses(1), at(6_001)));
}

#[test]
fn knocks_go_out_at_growing_intervals_and_end() {
    let mut knocks = Knocks::default();
    assert_eq!(knocks.deadline(), None);
    assert!(!knocks.begin(&node("a"), &[], at(0)));
    assert!(knocks.begin(&node("a"), &addresses(2), at(0)));
    let mut moments = Vec::new();
    while let Some(next) = knocks.deadline() {
        assert_eq!(knocks.due(next), addresses(2));
        moments.push(next);
    }
    assert_eq!(moments, AFTER.map(|after| at(0).plus(after)));
}
