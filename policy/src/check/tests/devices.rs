use std::collections::BTreeSet;

use edgeward_identity::{SpiffeId, Tier, Timestamp};

use super::*;
use crate::fleet::{Fleet, FleetNode};
use crate::slice::Sources;

/// A line with a device, its group, an interface on the network that it hangs on, and a rule.
const DEVICES: &str = r#"
[group.plcs]
match = { kind = ["plc"], site = ["suzhou"] }
via = "gateways"

[device.plc-17]
node = "gw-3"
interface = "lan0"
labels = { kind = "plc", site = "suzhou" }
match = { mac = "02:00:00:00:00:11", ip = "192.168.1.17" }

[service.store]
on = "gateways"
[service.store.interface.drop]
net = "lan0"
l4 = "tcp/8883"

[[rule]]
id = "plcs-store"
effect = "allow"
from = ["group:plcs"]
to = ["store/drop"]
do = ["connect"]
"#;

fn with(old: &str, new: &str) -> String {
    assert!(DEVICES.contains(old), "the devices hold no {old}");
    format!("{BASE}{}", DEVICES.replacen(old, new, 1))
}

#[test]
fn a_device_that_cannot_be_told_is_refused() {
    for (old, new, code) in [
        ("[device.plc-17]", "[device.§\"a/b\"]", Code::BadValue),
        ("[device.plc-17]", "[device.§\"..\"]", Code::BadValue),
        ("node = \"gw-3\"", "node = §\"gw 3\"", Code::BadValue),
        (
            "node = \"gw-3\"\ninterface = \"lan0\"",
            "node = \"gw-3\"\ninterface = §\"mesh\"",
            Code::BadValue,
        ),
        (
            "interface = \"lan0\"\nlabels",
            "interface = §\"a name far too long\"\nlabels",
            Code::BadValue,
        ),
        (
            "labels = { kind = \"plc\", site = \"suzhou\" }",
            "labels = §{}",
            Code::BadValue,
        ),
        (
            "labels = { kind = \"plc\", site",
            "labels = { kind = §[\"plc\"], site",
            Code::WrongType,
        ),
        (
            "site = \"suzhou\" }\nmatch",
            "site = §\"no good\" }\nmatch",
            Code::BadValue,
        ),
        (
            "match = { mac = \"02:00:00:00:00:11\", ip = \"192.168.1.17\" }",
            "match = §{}",
            Code::ChecksNothing,
        ),
        (
            "mac = \"02:00:00:00:00:11\"",
            "mac = §\"01:00:5e:00:00:01\"",
            Code::BadValue,
        ),
        (
            "mac = \"02:00:00:00:00:11\"",
            "§macs = \"02:00:00:00:00:11\"",
            Code::UnknownKey,
        ),
        (
            "ip = \"192.168.1.17\"",
            "ip = §\"192.168.1.0/24\"",
            Code::BadValue,
        ),
        (
            "ip = \"192.168.1.17\"",
            "ip = §\"224.0.0.1\"",
            Code::BadValue,
        ),
        (
            "ip = \"192.168.1.17\"",
            "ip = §\"::ffff:192.168.1.17\"",
            Code::BadValue,
        ),
        (
            "ip = \"192.168.1.17\"",
            "certificate = §\"sha256:abc\"",
            Code::BadValue,
        ),
        (
            "labels = { kind = \"plc\", site = \"suzhou\" }",
            "labels = §{ kind = \"plc\", site = \"berlin\" }",
            // Outside the file's scope, and in no group.
            Code::OutsideScope,
        ),
    ] {
        let marked = with(old, new);
        match code {
            Code::OutsideScope => {
                let report = check(&one(&marked.replacen('§', "", 1)));
                let codes: Vec<_> = report.diagnostics.iter().map(|d| d.code).collect();
                assert_eq!(codes, [Code::OutsideScope, Code::MatchesNobody]);
            }
            code => {
                assert_refused(&marked, code);
            }
        }
    }
}

#[test]
fn a_device_in_no_group_of_devices_is_refused() {
    assert_refused(
        &with("labels = { kind = \"plc\"", "labels = §{ kind = \"camera\""),
        Code::MatchesNobody,
    );
}

#[test]
fn two_devices_that_one_thing_could_be_both_of_are_refused() {
    let second = |rest: &str| {
        format!(
            "{BASE}{DEVICES}\n[device.plc-18]\nlabels = {{ kind = \"plc\", site = \"suzhou\" }}\n{rest}\n"
        )
    };
    let there = "node = \"gw-3\"\ninterface = \"lan0\"";
    for recognised in [
        "match = §{ mac = \"02:00:00:00:00:11\", ip = \"192.168.1.17\" }",
        "match = §{ mac = \"02:00:00:00:00:11\" }",
        "match = §{ ip = \"192.168.1.17\" }",
    ] {
        let text = second(&format!("{there}\n{recognised}"));
        let found = assert_refused(&text, Code::DuplicateName);
        assert!(found.message.contains("site/a.toml:"), "{found}");
    }
    for other in [
        "match = { mac = \"02:00:00:00:00:12\" }",
        "match = { mac = \"02:00:00:00:00:11\", ip = \"192.168.1.18\" }",
    ] {
        assert_accepted(&second(&format!("{there}\n{other}")));
    }
    assert_accepted(&second(
        "node = \"gw-4\"\ninterface = \"lan0\"\nmatch = { mac = \"02:00:00:00:00:11\" }",
    ));
    let certificate = format!("certificate = \"sha256:{}\"", "ab".repeat(32));
    let first = with("mac = \"02:00:00:00:00:11\"", &certificate);
    let text = format!(
        "{first}\n[device.plc-18]\nnode = \"gw-9\"\ninterface = \"lan1\"\nlabels = {{ kind = \"plc\", site = \"suzhou\" }}\nmatch = §{{ {certificate} }}\n"
    );
    assert_refused(&text, Code::DuplicateName);
}

#[test]
fn a_group_of_devices_is_vouched_for_by_nodes_and_offers_nothing() {
    for (old, new, code) in [
        ("via = \"gateways\"", "via = §\"nobody\"", Code::UnknownName),
        ("via = \"gateways\"", "via = §\"plcs\"", Code::BadValue),
        (
            "via = \"gateways\"",
            "via = \"gateways\"\nprofile = §\"gateway\"",
            Code::MisplacedCondition,
        ),
        (
            "[service.store]\non = \"gateways\"",
            "[service.store]\non = §\"plcs\"",
            Code::BadValue,
        ),
    ] {
        let text = with(old, new);
        let report = check(&one(&text.replacen('§', "", 1)));
        let first = &report.diagnostics[0];
        assert_eq!(first.code, code, "{report}");
    }
    assert_refused(
        &format!("{BASE}{DEVICES}\n[workload.w]\non = §\"plcs\"\nmatch = {{ uid = 1 }}\n"),
        Code::BadValue,
    );
}

#[test]
fn those_who_vouch_lie_in_the_scope_of_the_file() {
    let text = BASE.replacen("scope = { site = [\"suzhou\"] }", "scope = \"any\"", 1);
    let wide = format!("{text}\n[group.everywhere]\nmatch = {{ role = [\"gateway\"] }}\n");
    let narrow = "schema = \"edgeward-policy/1\"\nowner = \"plant\"\nscope = { site = [\"suzhou\"] }\n\
                  [group.cameras]\nmatch = { kind = [\"camera\"], site = [\"suzhou\"] }\nvia = \"everywhere\"\n";
    let report = check(&[
        SourceFile::new("a.toml", wide),
        SourceFile::new("b.toml", narrow),
    ]);
    assert_eq!(report.diagnostics.len(), 1, "{report}");
    assert_eq!(report.diagnostics[0].code, Code::OutsideScope);
}

#[test]
fn a_rule_from_devices_into_the_tunnel_takes_a_route_to_one_of_them_and_leads_no_further_than_to_a_node()
 {
    let to = |target: &str| {
        let old = "id = \"plcs-store\"\neffect = \"allow\"\nfrom = [\"group:plcs\"]\nto = [\"store/drop\"]";
        with(
            old,
            &format!(
                "id = §\"plcs-store\"\neffect = \"allow\"\nfrom = [\"group:plcs\"]\nto = [\"{target}\"]"
            ),
        )
    };
    let found = assert_refused(&to("line3/admin"), Code::MatchesNobody);
    assert!(found.help.unwrap().contains("[route.x]"));
    let route = "[route.lan]\non = \"gateways\"\nnet = \"lan0\"\nprefix = \"192.168.1.0/24\"\n";
    for (old, new) in [
        ("192.168.1.0", "192.168.2.0"),
        ("lan0", "lan1"),
        ("gateways", "scada"),
    ] {
        let other = route.replace(old, new);
        let scada = "[group.others]\nmatch = { role = [\"scada\"], site = [\"suzhou\"] }\n";
        let text = format!("{}\n{scada}{other}", to("line3/admin"));
        assert_refused(&text, Code::MatchesNobody);
    }
    let led = |target: &str| format!("{}\n{route}", to(target));
    assert_accepted(&led("line3/admin").replacen('§', "", 1));
    let beyond = "[service.lan]\non = \"gateways\"\n[service.lan.interface.web]\nnet = \"mesh\"\nl4 = \"tcp/80\"\nroute = \"lan\"\n";
    let text = led("lan/web").replacen('§', "", 1);
    let text = text.replacen("from = [\"group:plcs\"]", "from = [§\"group:plcs\"]", 1);
    let found = assert_refused(&format!("{text}\n{beyond}"), Code::NotEnforced);
    assert!(found.message.contains("beyond its node"), "{found}");
}

#[test]
fn a_rule_about_states_that_no_device_is_in_matches_nobody() {
    for state in ["trusted", "failed", "none"] {
        let text = with(
            "id = \"plcs-store\"",
            &format!("id = §\"plcs-store\"\nstate = \"{state}\""),
        );
        assert_refused(&text, Code::MatchesNobody);
    }
    assert_accepted(&with(
        "id = \"plcs-store\"",
        "id = \"plcs-store\"\nstate = \"vouched\"",
    ));
    assert_refused(
        &with(
            "from = [\"group:plcs\"]",
            "from = [\"group:scada\"]\nstate = \"vouched\"",
        )
        .replacen("id = \"plcs-store\"", "id = §\"plcs-store\"", 1),
        Code::MatchesNobody,
    );
}

#[test]
fn tests_ask_as_a_device_on_a_network_or_behind_another_node() {
    let more = "[route.lan]\non = \"gateways\"\nnet = \"lan0\"\nprefix = \"192.168.1.0/24\"\n[service.store.interface.tunnel]\nnet = \"mesh\"\nl4 = \"tcp/8883\"\n[[rule]]\nid = \"plcs-come\"\neffect = \"allow\"\nfrom = [\"group:plcs\"]\nto = [\"store/tunnel\"]\ndo = [\"connect\"]\n";
    let test = |lines: &str| format!("{BASE}{DEVICES}{more}\n[[test]]\nname = \"t\"\n{lines}\n");
    for lines in [
        "from = { groups = [\"plcs\"] }\nto = \"store/drop\"\ndo = \"connect\"\nexpect = \"allow\"\nby = \"plcs-store\"",
        "from = { groups = [\"plcs\"], state = \"stale\" }\nto = \"store/drop\"\ndo = \"connect\"\nexpect = \"deny\"\nbecause = \"state\"",
        "from = { groups = [\"plcs\"], state = \"trusted\" }\nto = \"store/drop\"\ndo = \"connect\"\nexpect = \"deny\"\nbecause = \"state\"",
        "from = { groups = [\"plcs\"], age = \"1h\" }\nto = \"store/drop\"\ndo = \"connect\"\nexpect = \"deny\"\nbecause = \"age\"",
        "from = { groups = [\"plcs\"] }\nto = \"line3/modbus\"\ndo = \"connect\"\nexpect = \"deny\"\nbecause = \"no-rule\"",
        "from = { groups = [\"plcs\"] }\nto = \"store/tunnel\"\ndo = \"connect\"\nexpect = \"allow\"\nby = \"plcs-come\"",
        "from = { groups = [\"plcs\"], state = \"stale\" }\nto = \"store/tunnel\"\ndo = \"connect\"\nexpect = \"deny\"\nbecause = \"state\"",
        "from = { groups = [\"gateways\"] }\nto = \"store/drop\"\ndo = \"connect\"\nexpect = \"deny\"\nbecause = \"no-rule\"",
    ] {
        assert_accepted(&test(lines));
    }
    assert_refused(
        &test(
            "from = { groups = [\"plcs\", §\"gateways\"] }\nto = \"store/drop\"\ndo = \"connect\"\nexpect = \"deny\"",
        ),
        Code::TestInvalid,
    );
}

#[test]
fn a_slice_holds_the_devices_that_its_node_vouches_for_and_no_others() {
    let policy = assert_accepted(&format!("{BASE}{DEVICES}"));
    let fleet = Fleet {
        nodes: vec![
            node("gw-3", "gateway", "suzhou"),
            node("gw-4", "gateway", "suzhou"),
        ],
    };
    let end = Timestamp::from_secs(2_000_000_000);
    let slice = policy.slice(&id("gw-3"), &fleet, end).unwrap();
    let device = &slice.devices[0];
    assert_eq!(
        device.id.to_string(),
        "spiffe://plant.example/device/plc-17"
    );
    assert_eq!((device.net.as_str(), slice.devices.len()), ("lan0", 1));
    let groups: Vec<&str> = device
        .groups
        .iter()
        .map(|group| slice.groups[group.0 as usize].as_str())
        .collect();
    assert_eq!(groups, ["group:plcs"]);
    let peers: BTreeSet<_> = slice.peers.iter().map(|peer| &peer.id).collect();
    assert!(!peers.contains(&device.id));
    let other = policy.slice(&id("gw-4"), &fleet, end).unwrap();
    assert_eq!(other.devices, []);
}

#[test]
fn a_node_with_the_labels_of_devices_is_none_of_them() {
    let policy = assert_accepted(&format!("{BASE}{DEVICES}"));
    let mut posing = node("posing", "gateway", "suzhou");
    posing.labels.insert("kind".to_owned(), "plc".to_owned());
    assert_eq!(policy.groups_of(&posing.labels), ["gateways"]);
    let fleet = Fleet {
        nodes: vec![node("gw-3", "gateway", "suzhou"), posing],
    };
    let end = Timestamp::from_secs(2_000_000_000);
    let slice = policy.slice(&id("gw-3"), &fleet, end).unwrap();
    let plcs = slice.groups.iter().position(|name| name == "group:plcs");
    let plcs = plcs.unwrap();
    assert!(
        slice
            .peers
            .iter()
            .all(|peer| { !peer.groups.iter().any(|group| group.0 as usize == plcs) })
    );
}

#[test]
fn a_node_outside_the_scope_or_the_group_that_vouches_brings_no_device() {
    let end = Timestamp::from_secs(2_000_000_000);
    // Named by a file for one site, hanging on a node of another: the wider group would vouch.
    let wide = "schema = \"edgeward-policy/1\"\nowner = \"plant\"\nscope = \"any\"\n\
        [group.gateways]\nmatch = { role = [\"gateway\"] }\n\
        [group.plcs]\nmatch = { kind = [\"plc\"] }\nvia = \"gateways\"\n\
        [service.store]\non = \"gateways\"\n[service.store.interface.drop]\nnet = \"lan0\"\nl4 = \"tcp/8883\"\n\
        [[rule]]\nid = \"r\"\neffect = \"allow\"\nfrom = [\"group:plcs\"]\nto = [\"store/drop\"]\ndo = [\"connect\"]\n";
    let device = "schema = \"edgeward-policy/1\"\nowner = \"line\"\nscope = { site = [\"suzhou\"] }\n\
        [device.d]\nnode = \"gw-3\"\ninterface = \"lan0\"\nlabels = { kind = \"plc\", site = \"suzhou\" }\nmatch = { ip = \"192.168.1.17\" }\n";
    let files = [
        SourceFile::new("wide.toml", wide),
        SourceFile::new("device.toml", device),
    ];
    let policy = CompiledPolicy::compile(&files, 1).unwrap_or_else(|report| panic!("{report}"));
    let devices = |node: FleetNode| {
        let fleet = Fleet { nodes: vec![node] };
        policy
            .slice(&id("gw-3"), &fleet, end)
            .unwrap()
            .devices
            .len()
    };
    assert_eq!(devices(node("gw-3", "gateway", "suzhou")), 1);
    assert_eq!(devices(node("gw-3", "gateway", "berlin")), 0);
    assert_eq!(devices(node("gw-3", "scada", "suzhou")), 0);
}

#[test]
fn a_rule_from_devices_and_nodes_to_anything_names_both_wherever_they_can_come() {
    let text = BASE.replacen("scope = { site = [\"suzhou\"] }", "scope = \"any\"", 1);
    let text = format!(
        "{text}{}",
        DEVICES.replacen(
            "from = [\"group:plcs\"]\nto = [\"store/drop\"]",
            "from = [\"group:plcs\", \"group:scada\"]\nto = [\"any\"]",
            1
        )
    );
    let text = format!(
        "{text}\n[route.lan]\non = \"gateways\"\nnet = \"lan0\"\nprefix = \"192.168.1.0/24\"\n\
         [service.lan]\non = \"gateways\"\n[service.lan.interface.web]\nnet = \"mesh\"\nl4 = \"tcp/80\"\nroute = \"lan\"\n"
    );
    let text = text.replacen(
        "id = \"scada-connects\"\neffect = \"allow\"",
        "id = \"scada-connects\"\neffect = \"deny\"",
        1,
    );
    let policy = assert_accepted(&text);
    let fleet = Fleet {
        nodes: vec![node("gw-3", "gateway", "suzhou")],
    };
    let end = Timestamp::from_secs(2_000_000_000);
    let slice = policy.slice(&id("gw-3"), &fleet, end).unwrap();
    for interface in &slice.interfaces {
        for row in interface
            .rows
            .iter()
            .filter(|row| &*row.rule == "plcs-store")
        {
            let Sources::Groups(groups) = &row.from else {
                panic!("groups are named")
            };
            let expected = if interface.beyond.is_some() { 1 } else { 2 };
            assert_eq!(groups.len(), expected, "{}", interface.name);
        }
    }
}

fn node(name: &str, role: &str, site: &str) -> FleetNode {
    FleetNode {
        id: id(name),
        labels: [("site", site), ("role", role)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        tier: Tier::Hardware,
        v4: None,
    }
}

fn id(name: &str) -> SpiffeId {
    format!("spiffe://plant.example/node/{name}")
        .parse()
        .unwrap()
}

#[test]
fn a_rule_from_devices_that_are_not_there_matches_nobody() {
    let text = with(
        "match = { kind = [\"plc\"], site",
        "match = { kind = [\"plc\"], role = [\"spare\"], site",
    );
    let report = check(&one(&text));
    let found: Vec<_> = report.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(report.diagnostics.len(), 1, "{report}");
    assert!(
        found[0].contains("device `plc-17` is in no group"),
        "{report}"
    );
    let other = "[group.spare]\nmatch = { role = [\"spare\"], site = [\"suzhou\"] }\nvia = \"gateways\"\n\n[device";
    let text = with("[device", other)
        .replacen("group:plcs", "group:spare", 1)
        .replacen("id = \"plcs-store\"", "id = §\"plcs-store\"", 1);
    let found = assert_refused(&text, Code::MatchesNobody);
    assert_eq!(found.help.unwrap(), "its groups have no device");
    let elsewhere = with("net = \"lan0\"", "net = \"lan1\"").replacen(
        "id = \"plcs-store\"",
        "id = §\"plcs-store\"",
        1,
    );
    let found = assert_refused(&elsewhere, Code::MatchesNobody);
    assert!(found.help.unwrap().contains("network of a target"));
}

#[test]
fn a_rule_for_people_on_a_network_of_the_node_matches_nobody() {
    let text = with(
        "from = [\"group:plcs\"]",
        "from = [\"operator-group:vendor\"]",
    )
    .replacen("id = \"plcs-store\"", "id = §\"plcs-store\"", 1);
    let found = assert_refused(&text, Code::MatchesNobody);
    assert!(found.help.unwrap().contains("through the tunnel"));
}

#[test]
fn devices_known_by_one_address_and_people_let_in_for_ever_are_openings() {
    let openings = |text: &str| {
        let policy = assert_accepted(text);
        let openings = policy.report().openings.iter();
        openings.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(openings(&format!("{BASE}{DEVICES}")), [""; 0]);
    let by_ip = with("mac = \"02:00:00:00:00:11\", ", "");
    assert_eq!(
        openings(&by_ip),
        [
            "site/a.toml:51:9: opening: plc-17: a device known by one address alone, whoever takes it"
        ]
    );
    let people = "from = [\"operator-group:vendor\"]\n";
    let always = openings(&rule(people));
    assert_eq!(always.len(), 1);
    assert!(always[0].ends_with("opening: more: lets people in at any time, for ever, unasked"));
    for bound in [
        "when = { window = \"night\" }",
        "when = { until = 2027-01-31T00:00:00Z }",
        "approval = { by = [\"operator-group:vendor\"], quorum = 1, ttl = \"2h\" }",
    ] {
        assert_eq!(
            openings(&rule(&format!("{people}{bound}"))),
            [""; 0],
            "{bound}"
        );
    }
}
