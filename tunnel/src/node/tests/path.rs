use super::*;

fn elsewhere() -> SocketAddr {
    "198.51.100.7:999".parse().unwrap()
}

fn relayed() -> SocketAddr {
    "[100::1]:6".parse().unwrap()
}

/// A's packet reaches B from `from`; where B sends to afterwards.
fn b_hears_a_from(pair: &mut Pair, from: SocketAddr) -> SocketAddr {
    let mut out = Vec::new();
    send(&pair.a, &a_to_b(9), pair.now, &mut out);
    for outgoing in out {
        let (packets, _) = receive(&pair.b, from, &outgoing.bytes, pair.now);
        assert!(!packets.is_empty(), "the packet itself is taken");
    }
    pair.b.status()[0].endpoint.unwrap()
}

#[test]
fn a_path_that_answered_is_not_given_up_for_what_just_appears() {
    let mut pair = Pair::open();
    let until = pair.now.plus(Duration::from_secs(3));
    pair.b.use_path(A, endpoint(addr_a()), until).unwrap();
    assert_eq!(b_hears_a_from(&mut pair, elsewhere()), addr_a());
    assert_eq!(b_hears_a_from(&mut pair, relayed()), addr_a());
    pair.now = until;
    assert_eq!(b_hears_a_from(&mut pair, elsewhere()), elsewhere());
}

#[test]
fn a_chosen_path_is_used_at_once_and_by_armed_peers_only() {
    let pair = Pair::open();
    let now = pair.now;
    assert_eq!(
        pair.b.use_path(B, endpoint(elsewhere()), now),
        Err(NotArmed)
    );
    pair.b.use_path(A, endpoint(elsewhere()), now).unwrap();
    let mut out = Vec::new();
    send(&pair.b, &b_to_a(1), now, &mut out);
    assert_eq!(out[0].to.remote, elsewhere());
    pair.b.cut(A);
    assert_eq!(
        pair.b.use_path(A, endpoint(addr_a()), now),
        Err(NotArmed),
        "cut"
    );
}
