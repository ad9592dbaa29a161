//! Who sleeps, beside whoever is armed.

use super::*;
use crate::node::knock::Knock;

const C: PeerId = PeerId(3);

/// B is armed and owns 10.0.0.0/8 and the IPv6 internet; C may be woken by a network and an address inside of them.
fn beside_b() -> Node {
    let node = node(1);
    let config = PeerConfig {
        allowed_ips: vec![net("10.0.0.0/8"), net("::/0")],
        ..config_of_b(Role::Responder, 7)
    };
    node.arm(config, at(1), &mut Vec::new()).unwrap();
    sleep(&node);
    node
}

fn sleep(node: &Node) {
    let sleepers = [
        (net("10.7.3.0/24"), C),
        (net("fd00::3/128"), C),
        (net("10.0.0.0/8"), B),
        (net("10.9.0.0/16"), B),
    ];
    assert_eq!(node.set_sleepers(sleepers), 0);
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn goes_to(node: &Node, destination: &str) -> Option<PeerId> {
    node.route_awake(ip(destination)).map(|peer| peer.id())
}

#[test]
fn a_longer_prefix_of_somebody_asleep_is_not_of_whoever_is_awake() {
    let node = beside_b();
    for destination in ["10.7.3.9", "fd00::3"] {
        assert_eq!(goes_to(&node, destination), None, "{destination}");
        assert_eq!(
            node.knock(ip(destination), &[0x45; 20], at(1)),
            Knock::Held,
            "{destination}"
        );
    }
    assert_eq!(node.poll_event(), Some(Event::Knocked { peer: C }));
    assert_eq!(node.poll_event(), None);
    for destination in ["10.7.4.9", "fd00::4", "2001:db8::1"] {
        assert_eq!(goes_to(&node, destination), Some(B), "{destination}");
    }
    // Armed, it has its own.
    let config = PeerConfig {
        id: C,
        public_key: keys(3).public(),
        allowed_ips: vec![net("10.7.3.0/24"), net("fd00::3/128")],
        ..config_of_b(Role::Responder, 7)
    };
    node.arm(config, at(1), &mut Vec::new()).unwrap();
    assert_eq!(goes_to(&node, "10.7.3.9"), Some(C));
    assert_eq!(goes_to(&node, "fd00::3"), Some(C));
    // Not to be woken any more, and not armed: whoever has the shorter one.
    node.cut(C);
    assert_eq!(goes_to(&node, "10.7.3.9"), None);
    node.set_sleepers([]);
    assert_eq!(goes_to(&node, "10.7.3.9"), Some(B));
}

#[test]
fn nobody_knocks_at_whoever_is_open_and_was_not_given_the_network() {
    let node = beside_b();
    assert_eq!(goes_to(&node, "10.9.0.1"), None);
    assert_eq!(
        node.knock(ip("10.9.0.1"), &[0x45; 20], at(1)),
        Knock::Nobody
    );
    assert_eq!(node.poll_event(), None);
    assert!(!node.awaits(B), "what follows to it would be kept back");
    assert_eq!(node.held(), (0, 0));
    // While it is being armed, packets wait until it is open.
    node.cut(B);
    node.await_open(B);
    node.arm(config_of_b(Role::Responder, 7), at(1), &mut Vec::new())
        .unwrap();
    assert_eq!(node.knock(ip("10.9.0.1"), &[0x45; 20], at(1)), Knock::Held);
    assert_eq!(node.take_held(B, at(1)).outward.len(), 1);
    assert_eq!(
        node.knock(ip("10.9.0.1"), &[0x45; 20], at(1)),
        Knock::Nobody
    );
}
