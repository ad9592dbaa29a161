use proptest::prelude::*;

use super::*;
use Message as M;

fn observed(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ping(body: usize) -> Vec<u8> {
    let moved = false;
    M::Ping { id: 1, body, moved }.body()
}

fn all() -> Vec<M> {
    vec![
        M::Ping {
            id: 7,
            body: MIN_PING_BYTES,
            moved: true,
        },
        M::Ping {
            id: u64::MAX,
            body: MAX_BODY_BYTES,
            moved: false,
        },
        M::Pong {
            id: 1,
            size: 30,
            observed: observed("192.0.2.7:51820"),
        },
        M::Pong {
            id: 1,
            size: 1440,
            observed: observed("[2001:db8::7]:1"),
        },
        M::Ask {
            ask: 9,
            to: "a".into(),
        },
        M::Ask {
            ask: 9,
            to: "n".repeat(MAX_NAME_BYTES),
        },
        M::Granted {
            ask: 9,
            route: RouteId(3),
        },
        M::Refused {
            ask: 9,
            code: Refusal::NotPermitted,
        },
        M::Refused {
            ask: 9,
            code: Refusal::Busy,
        },
        M::Offer {
            route: RouteId(u64::MAX),
            from: "edge-1".into(),
        },
        M::End { route: RouteId(0) },
    ]
}

#[test]
fn a_body_that_is_cut_or_longer_is_refused() {
    for message in all() {
        let body = message.body();
        for length in 0..body.len() {
            // A shorter ping may be another valid ping.
            if let Ok(shorter) = M::parse(&body[..length]) {
                assert!(matches!(shorter, M::Ping { body, .. } if body == length));
            }
        }
        let mut longer = body.clone();
        longer.push(1);
        assert!(M::parse(&longer).is_err(), "{message:?}");
    }
}

#[test]
fn bodies_that_nobody_makes_are_refused() {
    assert_eq!(M::parse(&[]), Err(Malformed::Length(0)));
    assert_eq!(
        M::parse(&[1; MAX_BODY_BYTES + 1]),
        Err(Malformed::Length(MAX_BODY_BYTES + 1))
    );
    assert_eq!(M::parse(&[0; 30]), Err(Malformed::Kind(0)));
    assert_eq!(M::parse(&[9; 30]), Err(Malformed::Kind(9)));
    let mut ping = ping(40);
    assert_eq!(
        M::parse(&ping[..29]),
        Err(Malformed::Shape),
        "too short to be answered"
    );
    ping[39] = 1;
    assert_eq!(M::parse(&ping), Err(Malformed::Padding));
    assert_eq!(M::parse(&[5, 0, 0, 0, 1, 9]), Err(Malformed::Code(9)));
    assert_eq!(
        M::parse(&[6, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Err(Malformed::Name)
    );
    assert_eq!(
        M::parse(&[6, 0, 0, 0, 0, 0, 0, 0, 0, 64, 65]),
        Err(Malformed::Name)
    );
    // An ask shorter than a grant would make the grant an amplification.
    assert_eq!(M::parse(&[3, 0, 0, 0, 1, 1, b'a']), Err(Malformed::Shape));
}

#[test]
fn an_observed_address_is_a_plain_one() {
    let pong = |family: u8, octets: [u8; 16], port: u16| {
        let mut body = vec![2];
        body.extend_from_slice(&1u64.to_be_bytes());
        body.extend_from_slice(&30u16.to_be_bytes());
        body.push(family);
        body.extend_from_slice(&octets);
        body.extend_from_slice(&port.to_be_bytes());
        M::parse(&body)
    };
    let four = [192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(pong(4, four, 1).is_ok());
    assert_eq!(pong(4, four, 0), Err(Malformed::Address));
    assert_eq!(pong(5, four, 1), Err(Malformed::Address));
    let mut trailing = four;
    trailing[15] = 1;
    assert_eq!(pong(4, trailing, 1), Err(Malformed::Address));
    let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets();
    assert_eq!(pong(6, mapped, 1), Err(Malformed::Address));
    assert_eq!(pong(6, [0; 16], 1), Err(Malformed::Address));
    assert_eq!(pong(4, [0; 16], 1), Err(Malformed::Address));
}

#[test]
fn no_answer_is_longer_than_its_question() {
    let pong = M::Pong {
        id: 1,
        size: 30,
        observed: observed("[2001:db8::7]:1"),
    };
    assert_eq!(pong.body().len(), MIN_PING_BYTES);
    assert!(ping(0).len() >= pong.body().len());
    let ask = M::Ask {
        ask: 1,
        to: "a".into(),
    };
    let granted = M::Granted {
        ask: 1,
        route: RouteId(1),
    };
    assert!(ask.body().len() >= granted.body().len());
}

#[test]
fn every_message_comes_back_as_it_went() {
    for message in all() {
        assert_eq!(M::parse(&message.body()), Ok(message));
    }
}

#[test]
fn a_relayed_datagram_holds_one_that_is_not_relayed() {
    let mut outer = relayed_header(RouteId(5)).to_vec();
    assert_eq!(relayed(&outer), None, "empty");
    outer.extend_from_slice(&[4, 0, 0, 0]);
    assert_eq!(relayed(&outer), Some((RouteId(5), [4, 0, 0, 0].as_slice())));
    let mut twice = relayed_header(RouteId(6)).to_vec();
    twice.extend_from_slice(&outer);
    assert_eq!(relayed(&twice), None, "a relay behind a relay");
    assert_eq!(relayed(&outer[..11]), None);
    assert_eq!(relayed(&[5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), None);
}

proptest! {
    #[test]
    fn what_is_read_is_what_would_be_written(
        kind in 0u8..10,
        mut bytes in proptest::collection::vec(prop_oneof![3 => Just(0u8), 2 => any::<u8>()], 0..80),
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Ok(message) = M::parse(&bytes) {
            prop_assert_eq!(message.body(), bytes);
        }
    }

    #[test]
    fn bent_messages_are_refused_or_mean_what_they_say(
        which in 0usize..11,
        position in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut body = all()[which].body();
        let position = position.index(body.len());
        body[position] ^= 1 << bit;
        if let Ok(message) = M::parse(&body) {
            prop_assert_eq!(message.body(), body);
        }
    }
}
