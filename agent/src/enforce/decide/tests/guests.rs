//! Devices that come through the node that vouches for them, and devices of this node that go to peers.

use std::net::SocketAddr;
use std::sync::Arc;

use edgeward_identity::SpiffeId;
use edgeward_policy::slice::{DeviceIndex, SliceRoute};
use edgeward_policy::{GroupId, Recognition, SeenDevice, SliceDevice};

use super::*;

const PLC: &str = "fd7a:1::c0a8:111";
const NEIGHBOUR: &str = "fd7a:1::c0a8:112";

fn plc() -> SpiffeId {
    "spiffe://plant.example/device/plc".parse().unwrap()
}

fn key(source: &str, destination: &str, port: u16) -> FlowKey {
    let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0).ip();
    FlowKey {
        protocol: 6,
        source: address(source),
        destination: address(destination),
        source_port: 40_000,
        destination_port: port,
    }
}

fn node(name: &str) -> String {
    edgeward_identity::overlay::ipv6_of(&id(name)).to_string()
}

fn said(parts: PictureParts, key: &FlowKey, direction: Direction) -> String {
    let verdict = flow(parts, key, direction);
    match verdict.allow {
        true => format!("+{}", verdict.rule),
        false => verdict.rule.to_string(),
    }
}

/// A device behind `b` may come in.
fn visited() -> PictureParts {
    let mut slice = slice();
    slice.peers[0].groups.clear();
    slice.peers[0].devices.push(SeenDevice {
        id: plc(),
        address: PLC.parse().unwrap(),
        groups: vec![GroupId(0)],
        source: true,
    });
    PictureParts {
        rules: Some(rules(slice)),
        ..parts()
    }
}

/// A device of this node may go to `b`; this node itself may not.
fn travelling() -> PictureParts {
    let mut slice = slice();
    slice.routes = vec![SliceRoute {
        name: "lan".to_owned(),
        net: "lan0".to_owned(),
        prefix: "192.168.1.0/24".parse().unwrap(),
        seen_as: "fd7a:1::c0a8:100/120".parse().unwrap(),
    }];
    slice.devices = vec![SliceDevice {
        id: plc(),
        groups: Vec::new(),
        net: "lan0".to_owned(),
        recognised: Recognition {
            mac: None,
            ip: "192.168.1.17".parse().ok(),
            certificate: None,
        },
        seen_as: PLC.parse().ok(),
    }];
    slice.egress[0].devices = vec![DeviceIndex(0)];
    PictureParts {
        rules: Some(rules(slice)),
        ..parts()
    }
}

#[test]
fn of_a_network_behind_a_peer_the_device_comes_in_and_nobody_else() {
    let ask = |source: &str, destination: &str, port| {
        said(visited(), &key(source, destination, port), Direction::In)
    };
    assert_eq!(ask(NEIGHBOUR, &node("a"), OPEN_PORT), "not-theirs");
    assert_eq!(ask("192.168.1.17", &node("a"), OPEN_PORT), "not-theirs");
    assert_eq!(ask("fd7a:1::", &node("a"), OPEN_PORT), "not-theirs");
    assert!(
        !ask(&node("b"), &node("a"), OPEN_PORT).starts_with('+'),
        "the node is not the device"
    );
    assert_eq!(ask(PLC, &node("a"), OPEN_PORT), "+b-reads");
    assert_eq!(ask(PLC, &node("a"), OPEN_PORT + 1), "unknown-interface");
    assert_eq!(ask(PLC, "fd7a:2::1", OPEN_PORT), "not-ours");
    let rules = visited().rules.unwrap();
    let prefixes = rules.prefixes(rules.peer(&id("b")).unwrap());
    let networks: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(
        networks,
        [
            format!("{}/128", node("b")),
            "100.64.0.2/32".to_owned(),
            format!("{PLC}/128")
        ]
    );
}

#[test]
fn a_device_loses_its_rights_with_its_node_and_by_a_cut_of_its_own() {
    let ask = |parts| said(parts, &key(PLC, &node("a"), OPEN_PORT), Direction::In);
    for state in [AttestationState::Stale, AttestationState::Failed] {
        let mut parts = visited();
        parts.bound.get_mut(&PEER).unwrap().evidence.state = state;
        assert!(!ask(parts).starts_with('+'), "{state:?}");
    }
    let mut unbound = visited();
    unbound.bound.clear();
    assert_eq!(ask(unbound), "not-bound");
    for cut in [id("b"), plc()] {
        let mut parts = visited();
        parts.floors = floors(&cut);
        assert_eq!(ask(parts), "cut", "{cut}");
    }
    // An address that is a node's own is never a device's.
    let mut posing = visited();
    let mut slice = posing.rules.unwrap().engine().slice().as_ref().clone();
    slice.peers[0].devices[0].address = node("b").parse().unwrap();
    posing.rules = Some(rules(slice));
    assert!(!said(posing, &inward(), Direction::In).starts_with('+'));
}

#[test]
fn records_and_the_gateway_know_the_device_and_not_its_node() {
    let picture = Picture::new(visited());
    let address = PLC.parse().unwrap();
    assert_eq!(picture.guest_at(address), Some(&plc()));
    assert_eq!(picture.guest_at(NEIGHBOUR.parse().unwrap()), None);
    assert_eq!(picture.device_of_flow(address, Direction::In), Some(&plc()));
    assert_eq!(picture.device_of_flow(address, Direction::Out), None);
    let (evidence, _) = picture.device_standing(&plc()).unwrap();
    assert_eq!(evidence.state, AttestationState::Vouched);
    let mut gone = visited();
    gone.bound.clear();
    assert_eq!(Picture::new(gone).guest_at(address), None);
}

#[test]
fn a_device_of_this_node_goes_where_a_rule_lets_it_and_its_neighbour_nowhere() {
    let ask = |source: &str, destination: &str, port| {
        said(
            travelling(),
            &key(source, destination, port),
            Direction::Out,
        )
    };
    assert_eq!(ask(NEIGHBOUR, &node("b"), REACHED_PORT), "not-ours");
    assert_eq!(ask("192.168.1.17", &node("b"), REACHED_PORT), "not-ours");
    assert_eq!(ask(&node("a"), &node("b"), REACHED_PORT), "no-rule");
    assert_eq!(ask(PLC, &node("b"), REACHED_PORT + 1), "no-rule");
    assert_eq!(ask(PLC, "fd7a:2::1", REACHED_PORT), "not-ours");
    assert_eq!(ask(PLC, &node("b"), REACHED_PORT), "+a-publishes");
    // The other way about it opens nothing.
    assert_eq!(
        said(
            travelling(),
            &key(PLC, &node("a"), OPEN_PORT),
            Direction::In
        ),
        "not-theirs"
    );
    let mut cut = travelling();
    cut.floors = floors(&plc());
    assert_eq!(
        said(cut, &key(PLC, &node("b"), REACHED_PORT), Direction::Out),
        "cut"
    );
    // Whoever is known by its certificate proves nothing by its packets.
    let mut slice = slice();
    slice.routes = travelling().rules.unwrap().engine().slice().routes.clone();
    slice.devices = travelling().rules.unwrap().engine().slice().devices.clone();
    slice.devices[0].recognised.certificate = Some("11".repeat(32));
    let held = PictureParts {
        rules: Some(rules(slice)),
        ..parts()
    };
    assert_eq!(
        said(held, &key(PLC, &node("b"), REACHED_PORT), Direction::Out),
        "not-ours"
    );
}

fn floors(of: &SpiffeId) -> Arc<CutFloors> {
    let mut floors = CutFloors::default();
    let cut = Cut {
        node: of.clone(),
        reason: CutReason::Quarantined,
        time: TEST_NOW,
    };
    floors.add(1, &cut);
    Arc::new(floors)
}
