use super::*;

fn at(millis: u64) -> BootTime {
    BootTime::from_duration(Duration::from_millis(millis))
}

fn node(name: &str) -> SpiffeId {
    format!("spiffe://plant.example/node/{name}")
        .parse()
        .unwrap()
}

/// Everything that is done within so many seconds: when, and what.
fn follow(ways: &mut Ways, from: u64, seconds: u64) -> Vec<(u64, &'static str)> {
    let mut done = Vec::new();
    while let Some(next) = ways
        .deadline()
        .filter(|next| *next < at((from + seconds) * 1000))
    {
        for step in ways.due(next, || 0) {
            let what = match step {
                Step::Call(_) => "call",
                Step::AskRelays(_) => "relays",
                Step::AskCloud(_) => "cloud",
            };
            done.push((next.since(at(from * 1000)).as_secs(), what));
        }
    }
    done
}

fn wanted(metered: bool) -> Ways {
    let mut ways = Ways::new(metered);
    ways.wanted([node("a")], at(0), || 0);
    ways
}

#[test]
fn nobody_else_is_called_and_nobody_twice_for_being_wanted_twice() {
    let mut ways = wanted(false);
    ways.wanted([node("a")], at(600), || 0);
    assert_eq!(ways.due(at(699), || 0), []);
    assert_eq!(ways.due(at(700), || 0), [Step::Call(node("a"))]);
    ways.wanted([], at(800), || 0);
    assert_eq!(ways.deadline(), None);
    ways.reached(&node("b"), By::Nothing, at(900), 0);
    assert_eq!(ways.deadline(), None, "only whoever is wanted");
    assert_eq!(ways.by(&node("b")), None);
}

#[test]
fn wishes_without_end_take_no_memory_without_end() {
    let mut ways = Ways::new(false);
    let many = (0..MAX_PEERS + 10).map(|number| node(&format!("n{number}")));
    ways.wanted(many, at(0), || 0);
    assert_eq!(ways.peers.len(), MAX_PEERS);
}

#[test]
fn a_peer_that_answers_directly_costs_nothing_any_more() {
    let mut ways = wanted(false);
    ways.reached(&node("a"), By::Direct, at(100), 0);
    assert_eq!(ways.deadline(), None);
    ways.again(at(200), || 0);
    assert_eq!(ways.deadline(), None);
    assert_eq!(ways.missing().count(), 0);
}

#[test]
fn a_silent_peer_is_called_then_relays_are_asked_then_the_cloud() {
    let mut ways = wanted(false);
    assert_eq!(
        follow(&mut ways, 0, 15),
        [
            (0, "call"),
            (4, "call"),
            (4, "relays"),
            (7, "cloud"),
            (12, "call")
        ]
    );
    let later = follow(&mut ways, 0, 600);
    let calls = later.iter().filter(|(_, what)| *what == "call").count();
    assert!((8..=11).contains(&calls), "about once a minute: {calls}");
}

#[test]
fn a_peer_that_is_lost_is_treated_as_one_that_never_answered() {
    let mut ways = wanted(false);
    ways.reached(&node("a"), By::Direct, at(100), 0);
    ways.reached(&node("a"), By::Nothing, at(100_000), 0);
    assert_eq!(ways.missing().collect::<Vec<_>>(), [&node("a")]);
    assert_eq!(
        follow(&mut ways, 100, 8),
        [(0, "call"), (4, "call"), (4, "relays"), (7, "cloud")]
    );
}

#[test]
fn at_the_end_of_a_detour_calls_become_rare_and_on_a_metered_line_there_are_none() {
    let mut ways = wanted(false);
    ways.reached(&node("a"), By::Detour, at(0), 0);
    let calls: Vec<u64> = follow(&mut ways, 0, 7200)
        .iter()
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(calls, [15, 45, 105, 225, 465, 945, 1905, 3705, 5505]);
    let mut ways = wanted(true);
    ways.reached(&node("a"), By::Detour, at(0), 0);
    assert_eq!(ways.deadline(), None);
}

#[test]
fn a_network_that_changed_is_tried_at_once() {
    let mut ways = wanted(false);
    follow(&mut ways, 0, 100);
    ways.again(at(100_000), || 0);
    assert_eq!(ways.deadline(), Some(at(100_700)));
    ways.reached(&node("a"), By::Detour, at(101_000), 0);
    follow(&mut ways, 101, 3000);
    ways.again(at(4_000_000), || 0);
    assert_eq!(ways.deadline(), Some(at(4_000_700)));
}

#[test]
fn nodes_that_lost_the_same_line_do_not_come_back_in_step() {
    let (mut one, mut other) = (Ways::new(false), Ways::new(false));
    one.wanted([node("a")], at(0), || 0);
    other.wanted([node("a")], at(0), || u16::MAX);
    assert_ne!(one.deadline(), other.deadline());
    assert!(other.deadline() <= Some(at(875)));
}
