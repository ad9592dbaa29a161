//! Targets for what nodes tell each other about paths, and for datagrams that run through relays.

use std::net::SocketAddr;

use edgeward_tunnel::reach::RouteId;
use edgeward_tunnel::reach::message::{
    self, MAX_BODY_BYTES, MIN_PING_BYTES, Message, RELAYED_HEADER_BYTES, Refusal,
};
use edgeward_tunnel::reach::seal::tag_of;
use edgeward_tunnel::shell::demux::Class;

/// What is read is what would be written.
pub fn body(bytes: &[u8]) {
    if let Ok(message) = Message::parse(bytes) {
        let again = message.body();
        assert!(again.len() <= MAX_BODY_BYTES);
        assert_eq!(again, bytes, "{message:?}");
    }
}

/// Whatever a datagram is, it is one thing only, and what is inside a relayed one is not relayed.
pub fn datagram(bytes: &[u8]) {
    let class = Class::of(bytes);
    assert!(tag_of(bytes).is_none() || class == Class::Reach);
    if let Some((route, inner)) = message::relayed(bytes) {
        assert_eq!(class, Class::Relayed);
        assert_ne!(Class::of(inner), Class::Relayed);
        let header = message::relayed_header(route);
        assert_eq!(bytes[..RELAYED_HEADER_BYTES], header);
        assert_eq!(bytes[RELAYED_HEADER_BYTES..], *inner);
    }
}

pub fn bodies() -> Vec<Vec<u8>> {
    let observed: [SocketAddr; 2] =
        ["192.0.2.1:51820", "[2001:db8::1]:9"].map(|text| text.parse().unwrap());
    let pong = |observed| Message::Pong {
        id: 7,
        size: 30,
        observed,
    };
    let ping = |moved| Message::Ping {
        id: 7,
        body: MIN_PING_BYTES,
        moved,
    };
    let route = RouteId(9);
    let name = || "edge-1".to_owned();
    [
        ping(false),
        ping(true),
        pong(observed[0]),
        pong(observed[1]),
        Message::Ask { ask: 1, to: name() },
        Message::Granted { ask: 1, route },
        Message::Refused {
            ask: 1,
            code: Refusal::NotBound,
        },
        Message::Offer {
            route,
            from: name(),
        },
        Message::End { route },
    ]
    .iter()
    .map(Message::body)
    .collect()
}

pub fn datagrams() -> Vec<Vec<u8>> {
    let relayed = |inner: &[u8]| [&message::relayed_header(RouteId(3)), inner].concat();
    vec![
        [&[5, 0, 0, 0][..], &[1; 60]].concat(),
        relayed(&[4, 0, 0, 0, 1]),
        relayed(&relayed(&[4, 0, 0, 0, 1])),
        [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[0; 12]].concat(),
        vec![0xc0; 40],
    ]
}
