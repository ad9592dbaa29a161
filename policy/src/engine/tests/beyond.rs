//! What lies beyond nodes: routes, the internet, and those who carry for others.

use std::net::IpAddr;

use super::*;
use crate::compile::MAX_RELAYS;
use crate::engine::CARRIES;
use crate::slice::{Beyond, Proto, SlicePeer};

const NETS: &str = r#"
[group.plcs]
match = { kind = ["plc"] }
via = "gateways"
[device.plc-17]
node = "gw-1"
interface = "lan0"
labels = { kind = "plc" }
match = { mac = "02:00:00:00:00:11", ip = "192.168.1.17" }
[route.lan]
on = "gateways"
net = "lan0"
prefix = "192.168.1.0/24"
as = "per-node"
[service.lan]
on = "gateways"
[service.lan.interface.web]
net = "mesh"
l4 = "tcp/80"
route = "lan"
[service.lan.interface.modbus]
net = "mesh"
l4 = "tcp/502"
device = "plc-17"
"#;

const EXIT: &str = "[role]\nexit = [\"gateways\"]\n";
const RELAY: &str = "[role]\nrelay = [\"gateways\"]\n";

fn slice_of(more: &str, rules: &[String], name: &str) -> Slice {
    let rules: Vec<String> = std::iter::once(more.to_owned())
        .chain(rules.iter().cloned())
        .collect();
    let slice = policy(&rules).slice(&node(name), &fleet(), END).unwrap();
    Slice::parse(&slice.to_json()).unwrap()
}

fn engine_of(more: &str, rules: &[String], name: &str) -> Engine {
    Engine::new(Arc::new(slice_of(more, rules, name))).unwrap()
}

fn peer<'s>(slice: &'s Slice, name: &str) -> &'s SlicePeer {
    slice
        .peers
        .iter()
        .find(|peer| peer.id == node(name))
        .unwrap()
}

fn at(address: &str, port: u16) -> Place {
    Place {
        proto: Proto::Tcp,
        address: address.parse().unwrap(),
        port,
    }
}

/// Out of one engine and into the other: what both say of one place behind the second.
fn both(from: &Engine, to: &Engine, source: &str, target: &str, place: Place) -> (bool, bool) {
    let out = from.peer(&node(target)).is_some_and(|peer| {
        from.decide_egress_beyond(peer, place, trusted(), Link::Online, NOW)
            .is_allow()
    });
    let subject = node(source);
    let inward = to.admit_beyond(Subject::Id(&subject), trusted(), place, Link::Online, NOW);
    (out, inward.is_allow())
}

#[test]
fn nothing_behind_a_node_is_reached_without_a_rule_nor_beside_one() {
    let rules = [rule("w", "allow", "group:stations", "lan/web", "")];
    let (station, gateway) = (
        engine_of(NETS, &rules, "st-1"),
        engine_of(NETS, &rules, "gw-1"),
    );
    let seen = |address: &str| {
        let route = &gateway.slice().routes[0];
        route.seen(address.parse().unwrap()).unwrap().to_string()
    };
    let ask = |address: &str, port| both(&station, &gateway, "st-1", "gw-1", at(address, port));
    assert_eq!(ask(&seen("192.168.1.17"), 80), (true, true));
    // Another port, the device that no rule opens, the addresses as they really are, another node's, and the node's own.
    assert_eq!(ask(&seen("192.168.1.17"), 81), (false, false));
    assert_eq!(ask(&seen("192.168.1.17"), 502), (false, false));
    assert_eq!(ask("192.168.1.17", 80), (false, false));
    let other = &engine_of(NETS, &rules, "gw-2").slice().routes[0].clone();
    let elsewhere = other.seen("192.168.1.17".parse().unwrap()).unwrap();
    assert_eq!(ask(&elsewhere.to_string(), 80), (false, false));
    let own = edgeward_identity::overlay::ipv6_of(&node("gw-1"));
    assert_eq!(ask(&own.to_string(), 80), (false, false));
    let udp = Place {
        proto: Proto::Udp,
        ..at(&seen("192.168.1.17"), 80)
    };
    assert_eq!(
        both(&station, &gateway, "st-1", "gw-1", udp),
        (false, false)
    );
    // And the other way about: what leads beyond the node opens nothing on the node itself.
    let peer = station.peer(&node("gw-1")).unwrap();
    let here = station.decide_egress(peer, (Proto::Tcp, 80), trusted(), Link::Online, NOW);
    assert!(!here.is_allow());
    assert_eq!(gateway.interface_at("mesh", Proto::Tcp, 80), None);
    let lab = node("lab-1");
    let stranger = gateway.admit_beyond(
        Subject::Id(&lab),
        trusted(),
        at(&seen("192.168.1.17"), 80),
        Link::Online,
        NOW,
    );
    assert!(!stranger.is_allow());
}

#[test]
fn a_slice_has_of_its_peers_networks_no_more_than_rules_open() {
    let none = slice_of(
        NETS,
        &[rule("p", "allow", "group:stations", "line/plc", "")],
        "st-1",
    );
    assert_eq!(peer(&none, "gw-1").routes, []);
    assert_eq!(peer(&none, "gw-1").devices, []);
    let device = slice_of(
        NETS,
        &[rule("m", "allow", "group:stations", "lan/modbus", "")],
        "st-1",
    );
    let gateway = slice_of(NETS, &[], "gw-1");
    let plc: IpAddr = "192.168.1.17".parse().unwrap();
    let seen = gateway.routes[0].seen(plc).unwrap();
    assert_eq!(peer(&device, "gw-1").routes, [seen.into()]);
    assert_eq!(peer(&device, "gw-1").devices[0].address, seen);
    assert!(
        device.peers.iter().all(|peer| peer.id != node("gw-2")),
        "the device is behind gw-1 only"
    );
    // The network holds the device: one prefix is enough.
    let rules = [
        rule("m", "allow", "group:stations", "lan/modbus", ""),
        rule("w", "allow", "group:stations", "lan/web", ""),
    ];
    let all = slice_of(NETS, &rules, "st-1");
    assert_eq!(peer(&all, "gw-1").routes, [gateway.routes[0].seen_as]);
    assert_ne!(peer(&all, "gw-2").routes, peer(&all, "gw-1").routes);
    assert_eq!(gateway.devices[0].seen_as, Some(seen));
}

#[test]
fn a_deny_of_the_network_holds_for_the_device_in_it_and_the_other_way_about() {
    for (allowed, denied) in [("lan/modbus", "lan/web2"), ("lan/web2", "lan/modbus")] {
        let nets = format!(
            "{NETS}[service.lan.interface.web2]\nnet = \"mesh\"\nl4 = \"tcp/502\"\nroute = \"lan\"\n"
        );
        let rules = [
            rule("yes", "allow", "group:stations", allowed, ""),
            rule("no", "deny", "group:stations", denied, ""),
        ];
        let gateway = engine_of(&nets, &rules, "gw-1");
        let seen = gateway.slice().routes[0]
            .seen("192.168.1.17".parse().unwrap())
            .unwrap();
        let station = node("st-1");
        let place = at(&seen.to_string(), 502);
        let decision =
            gateway.admit_beyond(Subject::Id(&station), trusted(), place, Link::Online, NOW);
        assert!(!decision.is_allow(), "{allowed}");
        assert_eq!(decision.rule.as_deref(), Some("no"));
    }
}

#[test]
fn the_exit_leads_to_the_internet_and_to_no_private_address() {
    let rules = [rule("out", "allow", "group:stations", "exit", "")];
    let (station, gateway) = (
        engine_of(EXIT, &rules, "st-1"),
        engine_of(EXIT, &rules, "gw-1"),
    );
    let ask = |address: &str| both(&station, &gateway, "st-1", "gw-1", at(address, 443));
    assert_eq!(ask("1.1.1.1"), (true, true));
    assert_eq!(ask("2606:4700::1111"), (true, true));
    for address in [
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.3",
        "127.0.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "fd00::1",
        "fe80::1",
        "::1",
        "64:ff9b::a00:1",
        "::ffff:1.1.1.1",
    ] {
        assert_eq!(ask(address), (false, false), "{address}");
    }
    assert!(gateway.slice().roles.exit && !station.slice().roles.exit);
    assert!(peer(station.slice(), "gw-1").exit);
    // Without a rule the role alone opens nothing.
    let closed = (engine_of(EXIT, &[], "st-1"), engine_of(EXIT, &[], "gw-1"));
    assert_eq!(
        both(&closed.0, &closed.1, "st-1", "gw-1", at("1.1.1.1", 443)),
        (false, false)
    );
    assert_eq!(closed.0.slice().peers, []);
}

#[test]
fn a_relay_meets_everybody_who_is_trusted_and_opens_nothing_to_anybody() {
    let (relay, other) = (
        engine_of(RELAY, &[], "gw-1"),
        engine_of(RELAY, &[], "other"),
    );
    assert!(relay.slice().roles.relay && !other.slice().roles.relay);
    assert_eq!(relay.slice().peers.len(), 4);
    let relays: Vec<&str> = other
        .slice()
        .peers
        .iter()
        .map(|peer| peer.id.name())
        .collect();
    assert_eq!(relays, ["gw-1", "gw-2"]);
    assert!(other.slice().peers.iter().all(|peer| peer.relay));
    let (there, here) = (
        other.peer(&node("gw-1")).unwrap(),
        relay.peer(&node("other")).unwrap(),
    );
    let meet = |engine: &Engine, peer, standing| engine.meet(peer, standing, Link::Online, NOW);
    for (engine, peer) in [(&other, there), (&relay, here)] {
        let decision = meet(engine, peer, trusted());
        assert_eq!(
            (decision.is_allow(), decision.rule.as_deref()),
            (true, Some(CARRIES))
        );
        for state in [
            AttestationState::Stale,
            AttestationState::Failed,
            AttestationState::None,
        ] {
            assert!(!meet(engine, peer, Standing { state, ..trusted() }).is_allow());
        }
        let old = Standing {
            last_pass: Some(NOW.minus(std::time::Duration::from_secs(601))),
            ..trusted()
        };
        assert!(!meet(engine, peer, old).is_allow());
        for port in [22, 80, 443, 502] {
            let out = engine.decide_egress(peer, (Proto::Tcp, port), trusted(), Link::Online, NOW);
            assert!(!out.is_allow());
        }
    }
    assert!(!ask(&relay, &node("other"), trusted(), Link::Online, NOW).is_allow());
    // Two who carry for nobody do not meet.
    assert_eq!(other.peer(&node("st-1")), None);
}

#[test]
fn of_a_large_fleet_a_few_carry_and_they_are_the_same_for_all_and_stay() {
    let policy = policy(&[RELAY.to_owned()]);
    let mut fleet = Fleet {
        nodes: (0..60)
            .map(|number| FleetNode {
                id: node(&format!("n-{number:02}")),
                labels: [("role".to_owned(), "gateway".to_owned())].into(),
                tier: Tier::Hardware,
                v4: None,
            })
            .collect(),
    };
    let relays = |fleet: &Fleet, of: &str| -> Vec<SpiffeId> {
        let slice = policy.slice(&node(of), fleet, END).unwrap();
        let mut relays: Vec<SpiffeId> = slice
            .peers
            .iter()
            .filter(|peer| peer.relay)
            .map(|peer| peer.id.clone())
            .collect();
        relays.extend(slice.roles.relay.then(|| node(of)));
        relays.sort();
        relays
    };
    let chosen = relays(&fleet, "n-00");
    assert_eq!(chosen.len(), MAX_RELAYS);
    for number in 1..60 {
        assert_eq!(relays(&fleet, &format!("n-{number:02}")), chosen);
    }
    let plain = (0..60)
        .map(|number| node(&format!("n-{number:02}")))
        .find(|id| !chosen.contains(id))
        .unwrap();
    assert_eq!(
        policy.slice(&plain, &fleet, END).unwrap().peers.len(),
        MAX_RELAYS
    );
    assert_eq!(
        policy.slice(&chosen[0], &fleet, END).unwrap().peers.len(),
        59
    );
    // One that does not carry goes, and the index follows: nobody else changes.
    let mut index = policy.index(&fleet);
    index.remove(&plain);
    fleet.nodes.retain(|node| node.id != plain);
    let name = chosen[0].name().to_owned();
    assert_eq!(relays(&fleet, &name), chosen);
    assert_eq!(
        policy.slice_of(&index, &chosen[0], END).unwrap(),
        policy.slice(&chosen[0], &fleet, END).unwrap()
    );
    // One that carries goes: another takes its place.
    index.remove(&chosen[1]);
    let slice = policy.slice_of(&index, &chosen[0], END).unwrap();
    assert_eq!(
        slice.peers.iter().filter(|peer| peer.relay).count(),
        MAX_RELAYS - 1
    );
}

#[test]
fn of_two_nodes_at_one_network_one_leads_there() {
    let nets = NETS.replace("as = \"per-node\"\n", "");
    let rules = [rule("w", "allow", "group:stations", "lan/web", "")];
    let (first, second) = (
        slice_of(&nets, &rules, "gw-1"),
        slice_of(&nets, &rules, "gw-2"),
    );
    assert_eq!(first.routes[0].seen_as, "192.168.1.0/24".parse().unwrap());
    assert_eq!(second.routes, []);
    assert!(
        second
            .interfaces
            .iter()
            .all(|interface| interface.beyond.is_none())
    );
    let station = slice_of(&nets, &rules, "st-1");
    let led: Vec<_> = station.egress.iter().map(|egress| egress.beyond).collect();
    assert_eq!(led, [Some(Beyond::Net("192.168.1.0/24".parse().unwrap()))]);
}

#[test]
fn a_slice_whose_parts_lead_beyond_what_it_says_is_refused() {
    let rules = [
        rule("w", "allow", "group:stations", "lan/web", ""),
        rule("out", "allow", "group:stations", "exit", ""),
    ];
    let more = format!("{NETS}{EXIT}");
    let (gateway, station) = (
        slice_of(&more, &rules, "gw-1"),
        slice_of(&more, &rules, "st-1"),
    );
    assert!(gateway.validate().is_ok() && station.validate().is_ok());
    let refuse = |slice: &Slice, what: &str, change: &dyn Fn(&mut Slice)| {
        let mut slice = slice.clone();
        change(&mut slice);
        assert!(slice.validate().is_err(), "{what}");
    };
    refuse(&gateway, "no route", &|slice| slice.routes.clear());
    refuse(&gateway, "no exit", &|slice| slice.roles.exit = false);
    refuse(&gateway, "host bits", &|slice| {
        slice.routes[0].prefix = "192.168.1.1/24".parse().unwrap();
    });
    refuse(&gateway, "another size", &|slice| {
        slice.routes[0].seen_as = "fd00::/96".parse().unwrap();
    });
    refuse(&gateway, "into the tunnel", &|slice| {
        slice.routes[0].net = "mesh".to_owned()
    });
    refuse(&gateway, "overlapping", &|slice| {
        let mut twin = slice.routes[0].clone();
        twin.name = "twin".to_owned();
        slice.routes.push(twin);
    });
    refuse(&gateway, "port of all", &|slice| {
        let web = slice.interfaces.iter_mut().find(|web| web.port == 80);
        web.unwrap().port = 0;
    });
    refuse(&gateway, "on a LAN", &|slice| {
        let web = slice.interfaces.iter_mut().find(|web| web.port == 80);
        web.unwrap().net = "lan0".to_owned();
    });
    refuse(&gateway, "to the gateway", &|slice| {
        let web = slice.interfaces.iter_mut().find(|web| web.port == 80);
        web.unwrap().to = Some("192.0.2.1:80".parse().unwrap());
    });
    refuse(&station, "nested", &|slice| {
        let routes = &mut slice.peers[0].routes;
        let inner = ipnet::IpNet::new(routes[0].network(), 128).unwrap();
        routes.push(inner);
    });
    refuse(&station, "a port of the internet", &|slice| {
        let out = slice.egress.iter_mut().find(|out| out.port == 0);
        out.unwrap().port = 443;
    });
}
