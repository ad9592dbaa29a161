use super::*;

const ROUTE: RouteId = RouteId(77);

fn name(text: &str) -> SpiffeId {
    format!("spiffe://plant.example/node/{text}")
        .parse()
        .unwrap()
}

fn at(last: u8) -> Endpoint {
    Endpoint {
        remote: SocketAddr::new([192, 0, 2, last].into(), 51820),
        local_ip: None,
    }
}

fn time(millis: u64) -> BootTime {
    BootTime::from_duration(Duration::from_millis(millis))
}

fn with(limits: Limits) -> Relays {
    let mut relays = Relays::new(limits);
    for peer in 1..=4u8 {
        relays.place(PeerId(peer.into()), &name(&format!("n{peer}")), at(peer));
    }
    relays
}

fn opened() -> Relays {
    let mut relays = with(Limits::default());
    relays.open(PeerId(1), PeerId(2), ROUTE, time(0)).unwrap();
    relays
}

#[test]
fn nobody_but_an_end_sends_over_a_route() {
    let mut relays = opened();
    for from in [3, 4, 99] {
        assert_eq!(relays.carry(ROUTE, at(from).remote, 1, 100, time(1)), None);
    }
    let mut port = at(1).remote;
    port.set_port(1);
    assert_eq!(relays.carry(ROUTE, port, 1, 100, time(1)), None);
    assert_eq!(
        relays.carry(RouteId(78), at(1).remote, 5, 500, time(1)),
        None
    );
    assert_eq!(relays.refused().wrong_source, 4);
    assert_eq!(relays.refused().unknown_route, 5);
    assert_eq!(relays.accounts()[0].datagrams, 0);
}

#[test]
fn nobody_but_an_end_closes_a_route() {
    let mut relays = opened();
    assert_eq!(relays.close(ROUTE, PeerId(3)), None);
    assert_eq!(relays.len(), 1);
    assert_eq!(relays.close(ROUTE, PeerId(2)), Some(PeerId(1)));
    assert!(relays.is_empty());
    assert_eq!(relays.carry(ROUTE, at(1).remote, 1, 100, time(1)), None);
}

#[test]
fn what_an_end_sends_reaches_the_other_end_and_nobody_else() {
    let mut relays = opened();
    let carry = relays.carry(ROUTE, at(1).remote, 3, 300, time(1)).unwrap();
    assert_eq!((carry.to, carry.datagrams), (at(2), 3));
    let carry = relays.carry(ROUTE, at(2).remote, 1, 100, time(1)).unwrap();
    assert_eq!(carry.to, at(1));
    relays.place(PeerId(2), &name("n2"), at(22));
    let carry = relays.carry(ROUTE, at(1).remote, 1, 100, time(2)).unwrap();
    assert_eq!(carry.to, at(22), "moved");
    let account = &relays.accounts()[0];
    assert_eq!((account.datagrams, account.bytes), (5, 500));
    assert_eq!(account.ends, [name("n1"), name("n2")]);
}

#[test]
fn an_address_left_behind_is_forgotten() {
    let mut relays = opened();
    for last in 10..10 + SOURCES_PER_PEER as u8 {
        relays.heard(PeerId(1), at(last).remote);
    }
    assert_eq!(relays.carry(ROUTE, at(1).remote, 1, 100, time(1)), None);
    assert!(
        relays
            .carry(ROUTE, at(10).remote, 1, 100, time(1))
            .is_some()
    );
}

#[test]
fn a_flood_spends_its_own_budget_and_no_others() {
    let rate = |datagrams| Rate {
        bytes: 1 << 30,
        datagrams,
    };
    let mut relays = with(Limits {
        route: rate(100),
        peer: rate(150),
        all: rate(1000),
        ..Limits::default()
    });
    relays
        .open(PeerId(1), PeerId(2), RouteId(1), time(0))
        .unwrap();
    relays
        .open(PeerId(1), PeerId(3), RouteId(2), time(0))
        .unwrap();
    relays
        .open(PeerId(3), PeerId(4), RouteId(3), time(0))
        .unwrap();
    let mut carry = |route, from: u8, count, now| {
        relays
            .carry(
                RouteId(route),
                at(from).remote,
                count,
                count * 100,
                time(now),
            )
            .map_or(0, |carry| carry.datagrams)
    };
    assert_eq!(carry(1, 1, 1000, 0), 100, "the route's budget");
    assert_eq!(carry(2, 1, 1000, 0), 50, "the peer's budget");
    assert_eq!(carry(2, 1, 1000, 0), 0);
    assert_eq!(carry(3, 3, 80, 0), 80, "another peer's route");
    assert_eq!(carry(1, 1, 1000, 500), 50, "half a second later");
    assert_eq!(relays.refused().over_budget, 900 + 950 + 1000 + 950);
}

#[test]
fn bytes_are_bounded_like_datagrams() {
    let mut relays = with(Limits {
        route: Rate {
            bytes: 10_000,
            datagrams: 1000,
        },
        ..Limits::default()
    });
    relays.open(PeerId(1), PeerId(2), ROUTE, time(0)).unwrap();
    let carry = relays
        .carry(ROUTE, at(1).remote, 40, 40_000, time(0))
        .unwrap();
    assert_eq!(carry.datagrams, 10);
    assert_eq!(relays.carry(ROUTE, at(2).remote, 1, 1000, time(0)), None);
}

#[test]
fn routes_have_limits_and_pairs_have_one_route() {
    let mut relays = with(Limits {
        routes: 2,
        routes_per_peer: 1,
        ..Limits::default()
    });
    let mut open = |a, b, id| relays.open(PeerId(a), PeerId(b), RouteId(id), time(0));
    assert_eq!(open(1, 1, 1), Err(Refusal::NotBound), "with oneself");
    assert_eq!(open(1, 9, 1), Err(Refusal::NotBound));
    assert_eq!(open(1, 2, 1), Ok(RouteId(1)));
    assert_eq!(open(2, 1, 2), Ok(RouteId(1)), "the pair's route");
    assert_eq!(open(1, 3, 3), Err(Refusal::Busy), "one's share");
    assert_eq!(open(3, 4, 1), Err(Refusal::Busy), "number in use");
    assert_eq!(open(3, 4, 4), Ok(RouteId(4)));
    relays.place(PeerId(5), &name("n5"), at(5));
    relays.place(PeerId(6), &name("n6"), at(6));
    let full = relays.open(PeerId(5), PeerId(6), RouteId(5), time(0));
    assert_eq!(full, Err(Refusal::Busy), "the relay's");
}

#[test]
fn routes_end_when_idle_cut_or_forbidden() {
    let mut relays = opened();
    let idle = Limits::default().idle;
    assert!(
        relays
            .expire(time(0).plus(idle - Duration::from_millis(1)))
            .is_empty()
    );
    assert_eq!(
        relays.expire(time(0).plus(idle)),
        [(ROUTE, [PeerId(1), PeerId(2)])]
    );
    let mut relays = opened();
    relays.carry(ROUTE, at(1).remote, 2, 200, time(1)).unwrap();
    assert_eq!(relays.remove(PeerId(1)), [(ROUTE, PeerId(2))]);
    let ended = relays.take_ended();
    assert_eq!(
        (ended.len(), ended[0].bytes, ended[0].datagrams),
        (1, 200, 2)
    );
    assert_eq!(ended[0].ends, [name("n1"), name("n2")]);
    assert!(relays.take_ended().is_empty(), "told once");
    assert_eq!(relays.carried().bytes, 200, "the sum stays");
    assert_eq!(
        relays.open(PeerId(2), PeerId(1), ROUTE, time(0)),
        Err(Refusal::NotBound)
    );
    let mut relays = opened();
    assert!(relays.recheck(|_, _| true).is_empty());
    assert_eq!(relays.recheck(|_, _| false).len(), 1);
    assert!(relays.is_empty());
}

#[test]
fn accounts_that_nobody_reads_are_bounded() {
    let mut relays = with(Limits::default());
    for number in 0..MAX_ENDED as u64 + 10 {
        let route = RouteId(number);
        relays.open(PeerId(1), PeerId(2), route, time(0)).unwrap();
        relays.close(route, PeerId(1)).unwrap();
    }
    let ended = relays.take_ended();
    assert_eq!(ended.len(), MAX_ENDED);
    assert_eq!(ended[0].route, RouteId(10), "the oldest went first");
}

#[test]
fn limits_that_the_operator_sets_hold_for_routes_that_are_there_too() {
    let mut relays = opened();
    let one = Rate {
        bytes: 1000,
        datagrams: 10,
    };
    for (route, peer, all) in [
        (one, Limits::default().peer, Limits::default().all),
        (Limits::default().route, one, Limits::default().all),
        (Limits::default().route, Limits::default().peer, one),
    ] {
        relays.set_limits(Limits {
            route,
            peer,
            all,
            ..Limits::default()
        });
        let carried = relays
            .carry(ROUTE, at(1).remote, 20, 100 * 20, time(1))
            .unwrap();
        assert_eq!(carried.datagrams, 10);
    }
}
