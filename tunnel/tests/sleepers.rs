//! What a node pays for peers that it may meet and does not talk to. A process of its own, since it measures memory.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use edgeward_identity::BootTime;
use edgeward_tunnel::node::{Knock, MAX_HELD_BYTES_IN_ALL, Node, NodeConfig, PeerId};
use edgeward_tunnel::shell::SystemRandom;
use ipnet::IpNet;

const PEERS: u32 = 10_000;
/// Most that the data path keeps for one sleeping peer with two addresses, in bytes.
const MOST_BYTES_EACH: usize = 400;

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn addresses(number: u32) -> [IpNet; 2] {
    let v6 = Ipv6Addr::from((0xfd00_u128 << 112) | u128::from(number));
    let v4 = Ipv4Addr::from(0x6440_0000 + number);
    [
        IpNet::from(std::net::IpAddr::from(v6)),
        IpNet::from(std::net::IpAddr::from(v4)),
    ]
}

#[test]
fn ten_thousand_permitted_peers_cost_a_line_in_a_table_and_what_waits_for_them_is_bounded() {
    let config = NodeConfig {
        mtu: 1420,
        allow_zero_psk: false,
    };
    let node = Node::new(config, Box::new(SystemRandom::default()));
    let before = resident_bytes();
    let sleepers = (1..=PEERS).flat_map(|number| {
        let peer = PeerId(number.into());
        addresses(number).map(|prefix| (prefix, peer))
    });
    assert_eq!(node.set_sleepers(sleepers), 0);
    let each = resident_bytes().saturating_sub(before) / PEERS as usize;
    println!("{each} bytes for each of {PEERS} sleeping peers");
    assert!(each <= MOST_BYTES_EACH, "{each} bytes each");
    assert!(node.status().is_empty(), "nobody is armed");
    assert_eq!(node.poll_timeout(), None, "and nothing is due");

    let now = BootTime::from_duration(Duration::from_secs(100));
    let packet = vec![0x60; 1400];
    let mut held = 0;
    for number in 1..=PEERS {
        for _ in 0..3 {
            let [v6, _] = addresses(number);
            held += usize::from(node.knock(v6.addr(), &packet, now) == Knock::Held);
        }
    }
    assert!(held * packet.len() <= MAX_HELD_BYTES_IN_ALL);
    let grown = resident_bytes().saturating_sub(before);
    println!("{grown} bytes with a packet for everybody");
    assert!(grown <= MOST_BYTES_EACH * PEERS as usize + 4 * MAX_HELD_BYTES_IN_ALL);
    node.expire_held(now.plus(Duration::from_secs(6)));
    assert_eq!(node.held(), (0, 0));
}
