//! Devices that come to other nodes through the one that vouches for them.

use edgeward_identity::Kind;

use super::*;
use crate::slice::{DeviceIndex, Proto};

const NETS: &str = r#"
[group.plcs]
match = { kind = ["plc"] }
via = "gateways"
[device.plc-17]
node = "gw-1"
interface = "lan0"
labels = { kind = "plc" }
match = { mac = "02:00:00:00:00:11", ip = "192.168.1.17" }
[group.cameras]
match = { kind = ["camera"] }
via = "gateways"
[device.cam-1]
node = "gw-1"
interface = "lan0"
labels = { kind = "camera" }
match = { ip = "192.168.1.18" }
[route.lan]
on = "gateways"
net = "lan0"
prefix = "192.168.1.0/24"
as = "per-node"
[service.store]
on = "stations"
[service.store.interface.drop]
net = "mesh"
l4 = "tcp/8883"
[service.store.interface.local]
net = "lan0"
l4 = "tcp/8884"
"#;

const STORE: (Proto, u16) = (Proto::Tcp, 8883);

fn plcs(effect: &str) -> String {
    rule("p", effect, "group:plcs", "store/drop", "")
}

fn slice_in(nets: &str, rules: &[String], fleet: &Fleet, name: &str) -> Slice {
    let rules: Vec<String> = std::iter::once(nets.to_owned())
        .chain(rules.iter().cloned())
        .collect();
    let slice = policy(&rules).slice(&node(name), fleet, END).unwrap();
    Slice::parse(&slice.to_json()).unwrap()
}

fn engine_in(nets: &str, rules: &[String], name: &str) -> Engine {
    Engine::new(Arc::new(slice_in(nets, rules, &fleet(), name))).unwrap()
}

fn device(name: &str) -> SpiffeId {
    id(Kind::Device, name)
}

fn at_store(engine: &Engine, who: &SpiffeId, standing: Standing) -> Decision {
    let interface = engine.interface("store", "drop").unwrap();
    engine.admit(Subject::Id(who), standing, interface, Link::Online, NOW)
}

/// Whether the station lets the device in, whether its gateway lets it out, and whether the two meet at all.
fn all(nets: &str, rules: &[String]) -> (bool, bool, bool) {
    let (station, gateway) = (
        engine_in(nets, rules, "st-1"),
        engine_in(nets, rules, "gw-1"),
    );
    let inward = at_store(&station, &device("plc-17"), trusted().vouched_for());
    let place = gateway.slice().devices.iter();
    let place = place
        .map(|device| device.id.name())
        .position(|name| name == "plc-17");
    let number = place.map(|place| DeviceIndex(u32::try_from(place).unwrap()));
    let there = gateway.peer(&node("st-1"));
    let outward = there.zip(number).is_some_and(|(there, number)| {
        gateway
            .decide_egress_of(number, there, STORE, trusted(), Link::Online, NOW)
            .is_allow()
    });
    let meets = |engine: &Engine, other: &str| {
        engine
            .peer(&node(other))
            .is_some_and(|peer| engine.meet(peer, trusted(), Link::Online, NOW).is_allow())
    };
    assert_eq!(meets(&station, "gw-1"), meets(&gateway, "st-1"));
    (inward.is_allow(), outward, meets(&station, "gw-1"))
}

#[test]
fn a_device_behind_another_node_comes_by_the_name_of_its_group_alone() {
    assert_eq!(all(NETS, &[]), (false, false, false));
    assert_eq!(all(NETS, &[plcs("allow")]), (true, true, true));
    let cameras = rule("c", "allow", "group:cameras", "store/drop", "");
    assert_eq!(
        all(NETS, std::slice::from_ref(&cameras)),
        (false, false, true)
    );
    // Its own node it reaches by the network that it hangs on, never through a tunnel.
    let nets = NETS.replace("on = \"stations\"", "on = \"gateways\"");
    let own = engine_in(&nets, &[plcs("allow")], "gw-1");
    let vouched = trusted().vouched_for();
    assert!(!at_store(&own, &device("plc-17"), vouched).is_allow());
    let other = engine_in(&nets, &[plcs("allow")], "gw-2");
    assert!(at_store(&other, &device("plc-17"), vouched).is_allow());
    // Whoever is meant by `any` proves himself; a deny of anybody is about the device, too.
    let any = |effect, rest| rule("any", effect, "any", "store/drop", rest);
    let (inward, outward, _) = all(NETS, &[any("allow", ""), cameras.clone()]);
    assert_eq!((inward, outward), (false, false));
    let denied = [
        plcs("allow"),
        any("deny", "when = { until = 2026-12-01T00:00:00Z }"),
    ];
    let station = engine_in(NETS, &denied, "st-1");
    let decision = at_store(&station, &device("plc-17"), vouched);
    assert_eq!(
        (decision.is_allow(), decision.rule.as_deref()),
        (false, Some("any"))
    );
    assert_eq!(all(NETS, &[cameras, plcs("deny")]), (false, false, true));
}

#[test]
fn a_device_that_no_route_leads_to_or_that_proves_a_key_does_not_come() {
    for (old, new) in [
        ("prefix = \"192.168.1.0/24\"", "prefix = \"192.168.2.0/24\""),
        ("net = \"lan0\"\nprefix", "net = \"lan1\"\nprefix"),
        (
            "match = { mac = \"02:00:00:00:00:11\", ip = \"192.168.1.17\" }",
            "match = { mac = \"02:00:00:00:00:11\" }",
        ),
        (
            "match = { mac",
            "match = { certificate = \"sha256:1111111111111111111111111111111111111111111111111111111111111111\", mac",
        ),
    ] {
        assert!(NETS.contains(old), "{old}");
        let nets = NETS.replacen(old, new, 1);
        let rules = [nets, rule("p", "allow", "group:plcs", "store/drop", "")];
        let text = format!("{HEAD}\n{}", rules.join("\n"));
        let Err(report) = CompiledPolicy::compile(&[SourceFile::new("p.toml", text)], 7) else {
            panic!("accepted: {new}");
        };
        let found = &report.diagnostics[0];
        assert_eq!(
            found.code,
            crate::diagnostic::Code::MatchesNobody,
            "{report}"
        );
        // With others beside it the rule stands, and still does not let the device in.
        let both = rules[1].replace("\"group:plcs\"", "\"group:plcs\", \"group:lab\"");
        let (inward, outward, _) = all(&rules[0], &[both]);
        assert_eq!((inward, outward), (false, false), "{new}");
    }
}

#[test]
fn both_slices_hold_the_device_and_nothing_else_of_its_network() {
    let (station, gateway) = (
        slice_in(NETS, &[plcs("allow")], &fleet(), "st-1"),
        slice_in(NETS, &[plcs("allow")], &fleet(), "gw-1"),
    );
    let peers: Vec<&str> = station.peers.iter().map(|peer| peer.id.name()).collect();
    assert_eq!(peers, ["gw-1"], "nobody whose devices do not come");
    let peer = &station.peers[0];
    assert_eq!(peer.routes, []);
    let seen = gateway.routes[0]
        .seen("192.168.1.17".parse().unwrap())
        .unwrap();
    let known: Vec<_> = peer
        .devices
        .iter()
        .map(|one| (&one.id, one.address))
        .collect();
    assert_eq!(known, [(&device("plc-17"), seen)]);
    let guest = |address| station.guest(PeerIndex(0), address);
    assert_eq!(guest(seen).unwrap().id, device("plc-17"));
    let neighbour = gateway.routes[0]
        .seen("192.168.1.18".parse().unwrap())
        .unwrap();
    assert_eq!(guest(neighbour), None);
    assert_eq!(gateway.egress.len(), 1);
    let of: Vec<&str> = gateway.egress[0]
        .devices
        .iter()
        .map(|index| gateway.devices[index.0 as usize].id.name())
        .collect();
    assert_eq!(of, ["plc-17"]);
    // The node itself may go nowhere by it, and nobody comes to it.
    let engine = Engine::new(Arc::new(gateway)).unwrap();
    let there = engine.peer(&node("st-1")).unwrap();
    let own = engine.decide_egress(there, STORE, trusted(), Link::Online, NOW);
    assert!(!own.is_allow());
}

#[test]
fn a_device_counts_for_what_its_node_does_and_never_for_more() {
    let station = engine_in(NETS, &[plcs("allow")], "st-1");
    let plc = device("plc-17");
    let ask = |standing: Standing| at_store(&station, &plc, standing.vouched_for());
    assert!(ask(trusted()).is_allow());
    for state in [
        AttestationState::Stale,
        AttestationState::Failed,
        AttestationState::None,
    ] {
        let standing = Standing { state, ..trusted() };
        let decision = ask(standing);
        assert_eq!(
            (decision.is_allow(), decision.reason),
            (false, Reason::State)
        );
        let peer = station.peer(&node("gw-1")).unwrap();
        assert!(!station.meet(peer, standing, Link::Online, NOW).is_allow());
    }
    let old = Standing {
        last_pass: Some(NOW.minus(std::time::Duration::from_secs(3600))),
        ..trusted()
    };
    assert_eq!(ask(old).reason, Reason::Age);
    assert_eq!(
        ask(Standing {
            tier: Some(Tier::Software),
            ..trusted()
        })
        .reason,
        Reason::Tier
    );
    // The node that vouches is not the device.
    assert!(!at_store(&station, &node("gw-1"), trusted()).is_allow());
}

#[test]
fn a_device_is_gone_with_its_node_its_group_or_its_route() {
    let whole = fleet();
    let guests = |fleet: &Fleet, nets: &str| {
        let slice = slice_in(nets, &[plcs("allow")], fleet, "st-1");
        slice.peers.iter().flat_map(|peer| &peer.devices).count()
    };
    assert_eq!(guests(&whole, NETS), 1);
    let without = Fleet {
        nodes: whole
            .nodes
            .iter()
            .filter(|one| one.id != node("gw-1"))
            .cloned()
            .collect(),
    };
    assert_eq!(guests(&without, NETS), 0);
    let mut moved = fleet();
    for one in moved.nodes.iter_mut().filter(|one| one.id == node("gw-1")) {
        one.labels.insert("role".to_owned(), "none".to_owned());
    }
    assert_eq!(guests(&moved, NETS), 0);
    let nets = NETS.replace(
        "on = \"gateways\"\nnet = \"lan0\"",
        "on = \"lab\"\nnet = \"lan0\"",
    );
    let rules = [format!(
        "{nets}\n[[rule]]\nid = \"p\"\neffect = \"allow\"\nfrom = [\"group:plcs\", \"group:lab\"]\nto = [\"store/drop\"]\ndo = [\"connect\"]\n"
    )];
    let slice = policy(&rules).slice(&node("st-1"), &whole, END).unwrap();
    assert_eq!(slice.peers.iter().flat_map(|peer| &peer.devices).count(), 0);
    // The index that is kept as nodes come and go says the same as one made anew.
    let policy = policy(&[NETS.to_owned(), plcs("allow")]);
    let mut index = policy.index(&whole);
    for fleet in [&moved, &whole] {
        for one in &fleet.nodes {
            index.put(&policy, one);
        }
        let kept = policy.slice_of(&index, &node("st-1"), END).unwrap();
        assert_eq!(kept, policy.slice(&node("st-1"), fleet, END).unwrap());
    }
}

#[test]
fn an_approval_of_one_device_lets_in_that_one() {
    let nets = NETS.replace("kind = \"camera\"", "kind = \"plc\"");
    let nets = nets.replace(
        "[group.cameras]\nmatch = { kind = [\"camera\"] }\nvia = \"gateways\"\n",
        "",
    );
    let asked = rule(
        "p",
        "allow",
        "group:plcs",
        "store/drop",
        "approval = { by = [\"operator-group:vendor\"], quorum = 1, ttl = \"2h\" }",
    );
    let mut sides =
        ["st-1", "gw-1"].map(|name| slice_in(&nets, std::slice::from_ref(&asked), &fleet(), name));
    let meets = |slice: &Slice| {
        let engine = Engine::new(Arc::new(slice.clone())).unwrap();
        let peer = PeerIndex(0);
        (
            engine.meet(peer, trusted(), Link::Online, NOW).is_allow(),
            engine,
        )
    };
    assert!(sides.iter().all(|slice| !meets(slice).0));
    for slice in &mut sides {
        slice.approvals.push(crate::slice::SliceApproval {
            rule: "p".into(),
            subject: device("plc-17"),
            until: END,
        });
    }
    let [(here, station), (there, gateway)] = [meets(&sides[0]), meets(&sides[1])];
    assert!(here && there);
    let vouched = trusted().vouched_for();
    assert!(at_store(&station, &device("plc-17"), vouched).is_allow());
    assert!(!at_store(&station, &device("cam-1"), vouched).is_allow());
    let out = |index| {
        gateway.decide_egress_of(
            DeviceIndex(index),
            PeerIndex(0),
            STORE,
            trusted(),
            Link::Online,
            NOW,
        )
    };
    assert_eq!((out(0).is_allow(), out(1).is_allow()), (false, true));
}

#[test]
fn a_slice_with_doubtful_guests_is_refused() {
    let (station, gateway) = (
        slice_in(NETS, &[plcs("allow")], &fleet(), "st-1"),
        slice_in(NETS, &[plcs("allow")], &fleet(), "gw-1"),
    );
    let refuse = |slice: &Slice, what: &str, change: &dyn Fn(&mut Slice)| {
        let mut slice = slice.clone();
        change(&mut slice);
        assert!(slice.validate().is_err(), "{what}");
    };
    refuse(&station, "neither led to nor a guest", &|slice| {
        slice.peers[0].devices[0].source = false;
    });
    refuse(&station, "two at one address", &|slice| {
        let mut twin = slice.peers[0].devices[0].clone();
        twin.id = device("twin");
        slice.peers[0].devices.push(twin);
    });
    refuse(&gateway, "no such device", &|slice| {
        slice.egress[0].devices.push(DeviceIndex(9));
    });
    refuse(&gateway, "twice", &|slice| {
        let twice = slice.egress[0].devices[0];
        slice.egress[0].devices.push(twice);
    });
    refuse(&gateway, "seen nowhere", &|slice| {
        slice
            .devices
            .iter_mut()
            .for_each(|device| device.seen_as = None);
    });
    refuse(&gateway, "to the internet", &|slice| {
        slice.egress[0].beyond = Some(crate::slice::Beyond::Internet);
        slice.egress[0].port = 0;
    });
}
