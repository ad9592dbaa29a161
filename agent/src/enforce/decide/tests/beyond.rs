//! Networks behind nodes, the internet, and nodes that carry for others.

use std::net::{IpAddr, SocketAddr};

use edgeward_policy::slice::{SliceInterface, SliceRoute};
use edgeward_policy::{Beyond, Roles, Slice};

use super::*;

const LAN: &str = "192.168.1.0/24";
const SEEN: &str = "fd7a:1::c0a8:100/120";
const PLC: &str = "fd7a:1::c0a8:111";
const OTHER: &str = "fd7a:1::c0a8:112";

fn key(source: &str, destination: &str, port: u16) -> FlowKey {
    let from: SocketAddr = SocketAddr::new(source.parse().unwrap(), 40_000);
    FlowKey {
        protocol: 6,
        source: from.ip(),
        destination: destination.parse().unwrap(),
        source_port: from.port(),
        destination_port: port,
    }
}

fn own() -> String {
    edgeward_identity::overlay::ipv6_of(&id("a")).to_string()
}

fn peer() -> String {
    edgeward_identity::overlay::ipv6_of(&id("b")).to_string()
}

/// The node leads to a network, in which one address may be reached at port 80, and to the internet.
fn leading() -> PictureParts {
    let mut slice: Slice = slice();
    slice.roles = Roles {
        relay: false,
        exit: true,
    };
    slice.routes = vec![SliceRoute {
        name: "lan".to_owned(),
        net: "lan0".to_owned(),
        prefix: LAN.parse().unwrap(),
        seen_as: SEEN.parse().unwrap(),
    }];
    let first = slice.interfaces[0].clone();
    let more = |name: &str, port, beyond| SliceInterface {
        name: name.to_owned(),
        port,
        beyond: Some(beyond),
        ..first.clone()
    };
    let plc: IpAddr = PLC.parse().unwrap();
    slice
        .interfaces
        .push(more("plc", 80, Beyond::Net(plc.into())));
    slice.interfaces.push(more("out", 0, Beyond::Internet));
    PictureParts {
        rules: Some(rules(slice)),
        ..parts()
    }
}

/// The peer leads to that network and to the internet.
fn led() -> PictureParts {
    let mut slice = slice();
    slice.peers[0].routes = vec![SEEN.parse().unwrap()];
    slice.peers[0].exit = true;
    let mut plc = slice.egress[0].clone();
    plc.port = 80;
    plc.beyond = Some(Beyond::Net(PLC.parse::<IpAddr>().unwrap().into()));
    let mut out = slice.egress[0].clone();
    (out.port, out.beyond) = (0, Some(Beyond::Internet));
    slice.egress.extend([plc, out]);
    PictureParts {
        rules: Some(rules(slice)),
        ..parts()
    }
}

fn said(parts: PictureParts, key: &FlowKey, direction: Direction) -> String {
    let verdict = flow(parts, key, direction);
    match verdict.allow {
        true => format!("+{}", verdict.rule),
        false => verdict.rule.to_string(),
    }
}

#[test]
fn a_peer_reaches_nothing_behind_this_node_but_what_a_rule_opens() {
    let ask =
        |destination: &str, port| said(leading(), &key(&peer(), destination, port), Direction::In);
    assert_eq!(ask(PLC, 80), "+b-reads");
    assert_eq!(ask(PLC, 81), "unknown-interface");
    assert_eq!(ask(OTHER, 80), "unknown-interface");
    // As the network knows itself, in the overlay, private, and of this machine.
    for address in [
        "192.168.1.17",
        "100.64.0.9",
        "10.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "fe80::1",
        "fd99::1",
    ] {
        assert_eq!(ask(address, 80), "not-ours", "{address}");
    }
    assert_eq!(ask("1.1.1.1", 443), "+b-reads");
    // What leads beyond the node is not the node.
    assert_eq!(ask(&own(), 80), "unknown-interface");
    assert_eq!(ask(&own(), OPEN_PORT), "+b-reads");
    assert_eq!(ask(PLC, OPEN_PORT), "unknown-interface");
}

#[test]
fn nobody_behind_either_node_opens_a_flow() {
    let from_here = said(leading(), &key(PLC, &peer(), OPEN_PORT), Direction::Out);
    assert_eq!(from_here, "not-ours");
    let from_there = said(led(), &key(PLC, &own(), OPEN_PORT), Direction::In);
    assert_eq!(from_there, "not-theirs");
    // Nor from one network to another through this node.
    let through = said(
        leading(),
        &key(SEEN.split('/').next().unwrap(), PLC, 80),
        Direction::In,
    );
    assert_eq!(through, "not-ours");
}

#[test]
fn this_node_reaches_behind_a_peer_what_its_slice_says_and_its_prefixes_hold_no_more() {
    let ask =
        |destination: &str, port| said(led(), &key(&own(), destination, port), Direction::Out);
    assert!(ask(PLC, 80).starts_with('+'));
    assert_eq!(ask(PLC, 81), "no-rule");
    assert_eq!(ask(OTHER, 80), "no-rule");
    assert!(ask("1.1.1.1", 443).starts_with('+'));
    for address in ["10.0.0.1", "192.168.1.1", "100.64.7.7", "169.254.169.254"] {
        assert_eq!(ask(address, 443), "no-rule", "{address}");
    }
    let rules = led().rules.unwrap();
    let index = rules.peer(&id("b")).unwrap();
    let prefixes: Vec<String> = rules
        .prefixes(index)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        prefixes,
        [
            format!("{}/128", peer()),
            "100.64.0.2/32".to_owned(),
            SEEN.to_owned()
        ]
    );
}

#[test]
fn a_network_of_a_peer_is_never_the_address_of_another() {
    let mut slice = slice();
    let mut other = slice.peers[0].clone();
    other.id = id("c");
    other.v6 = edgeward_identity::overlay::ipv6_of(&id("c"));
    other.v4 = None;
    let stolen: IpAddr = slice.peers[0].v6.into();
    other.routes = vec![stolen.into()];
    slice.peers.push(other);
    let rules = rules(slice);
    let prefixes = rules.prefixes(rules.peer(&id("c")).unwrap());
    assert!(
        !prefixes.iter().any(|prefix| prefix.contains(&stolen)),
        "{prefixes:?}"
    );
}

#[test]
fn a_relay_carries_for_bound_peers_only_and_only_where_policy_says_so() {
    let mut slice = slice();
    let mut other = slice.peers[0].clone();
    (other.id, other.v4) = (id("c"), None);
    slice.peers.push(other);
    let made = |relay: bool, bound: &[&str]| {
        let mut slice = slice.clone();
        slice.roles.relay = relay;
        let mut parts = PictureParts {
            rules: Some(rules(slice)),
            ..parts()
        };
        let known = parts.bound.values().next().cloned().unwrap();
        parts.bound = (1..)
            .zip(bound)
            .map(|(number, name)| {
                let id = id(name);
                (
                    PeerId(number),
                    BoundPeer {
                        id,
                        ..known.clone()
                    },
                )
            })
            .collect();
        Picture::new(parts)
    };
    assert!(made(true, &["b", "c"]).may_carry(&id("b"), &id("c")));
    assert!(!made(false, &["b", "c"]).may_carry(&id("b"), &id("c")));
    assert!(!made(true, &["b"]).may_carry(&id("b"), &id("c")));
    assert!(!made(true, &["b", "c"]).may_carry(&id("b"), &id("b")));
    assert!(!made(true, &["b", "c"]).may_carry(&id("b"), &id("stranger")));
    let mut cut_off = made(true, &["b", "c"]).parts().clone();
    cut_off.floors = cut("c", TEST_NOW.plus(MINUTE));
    assert!(!Picture::new(cut_off).may_carry(&id("b"), &id("c")));

    let using = |relay: bool| {
        let mut slice = slice.clone();
        slice.peers[1].relay = relay;
        Picture::new(PictureParts {
            rules: Some(rules(slice)),
            ..parts()
        })
    };
    assert!(using(true).may_use(&id("c"), &id("b")));
    assert!(!using(false).may_use(&id("c"), &id("b")));
    assert!(!using(true).may_use(&id("b"), &id("c")));
    assert!(!using(true).may_use(&id("c"), &id("stranger")));
    assert!(!using(true).may_use(&id("c"), &id("c")));
}

#[test]
fn what_lies_beyond_is_named_apart_from_the_node_and_with_its_address() {
    let picture = Picture::new(leading());
    let plc: IpAddr = PLC.parse().unwrap();
    assert_eq!(picture.beyond(plc, Direction::In), Some(plc));
    assert_eq!(picture.beyond(own().parse().unwrap(), Direction::In), None);
    assert_eq!(
        picture.beyond(peer().parse().unwrap(), Direction::Out),
        None
    );
    let rules = leading().rules.unwrap();
    let here = |port, beyond: Option<&str>| {
        let beyond = beyond.map(|address| address.parse().unwrap());
        rules.name_of(None, Proto::Tcp, port, beyond)
    };
    assert_eq!(here(OPEN_PORT, None).as_deref(), Some("line3/modbus"));
    assert_eq!(here(OPEN_PORT, Some(PLC)), None);
    assert_eq!(here(80, Some(PLC)).as_deref(), Some("line3/plc"));
    assert_eq!(here(80, None), None);
    assert_eq!(here(443, Some("1.1.1.1")).as_deref(), Some("line3/out"));
    let rules = led().rules.unwrap();
    let index = rules.peer(&id("b"));
    let there = rules.name_of(index, Proto::Tcp, 80, Some(plc));
    assert_eq!(there.as_deref(), Some("broker/mqtt"));
    assert_eq!(rules.name_of(index, Proto::Tcp, 80, None), None);
}

#[test]
fn only_the_exit_that_the_operator_chose_and_policy_opens_may_send_from_anywhere() {
    let everything = ["0.0.0.0/0", "::/0"];
    let granted = |mut parts: PictureParts, exit: Option<&str>| {
        parts.exit = exit.map(id);
        let grant = grant(parts, evidence(TEST_NOW)).unwrap();
        let nets: Vec<String> = grant.allowed_ips.iter().map(ToString::to_string).collect();
        everything
            .iter()
            .all(|net| nets.contains(&(*net).to_owned()))
    };
    assert!(granted(led(), Some("b")));
    assert!(!granted(led(), None));
    assert!(!granted(led(), Some("c")));
    assert!(!granted(parts(), Some("b")));
}
