//! Routes, roles, what leads beyond nodes, and the internet as a target.

use super::apps::{after, assert_refused_among};
use super::*;

const ROUTE: &str = "[route.line3-lan]\non = \"gateways\"\nnet = \"lan0\"\nprefix = \"192.168.1.0/24\"\nas = \"fd7a:1::/96\"\n";
const ROLE: &str = "[role]\nrelay = [\"gateways\"]\nexit = []\n";
const PLC: &str = "[group.plcs]\nmatch = { kind = [\"plc\"], site = [\"suzhou\"] }\nvia = \"gateways\"\n[device.plc-17]\nnode = \"gw-3\"\ninterface = \"lan0\"\nlabels = { kind = \"plc\", site = \"suzhou\" }\nmatch = { mac = \"02:00:00:00:00:11\", ip = \"192.168.1.17\" }\n";
const LAN: &str = "[service.lan]\non = \"gateways\"\n[service.lan.interface.web]\nnet = \"mesh\"\nl4 = \"tcp/502\"\nroute = \"line3-lan\"\n";

fn exit_rule(more: &str) -> String {
    format!(
        "[[rule]]\nid = \"out\"\neffect = \"allow\"\nfrom = [\"group:scada\"]\nto = [§\"exit\"]\ndo = [\"connect\"]\n{more}"
    )
}

#[test]
fn a_mistake_in_a_route_or_a_role_is_an_error() {
    for (old, new, code) in [
        ("\"gateways\"", "§\"gateway\"", Code::UnknownName),
        ("\"lan0\"", "§\"mesh\"", Code::BadValue),
        ("\"192.168.1.0/24\"", "§\"192.168.1.1/24\"", Code::BadValue),
        ("\"192.168.1.0/24\"", "§\"0.0.0.0/0\"", Code::BadValue),
        ("\"192.168.1.0/24\"", "§\"100.64.0.0/16\"", Code::BadValue),
        ("\"fd7a:1::/96\"", "§\"fd7a:1::/128\"", Code::BadValue),
        ("\"fd7a:1::/96\"", "§\"fd7a:1::/64\"", Code::BadValue),
        ("\"fd7a:1::/96\"", "§\"10.0.0.0/16\"", Code::BadValue),
        ("\"fd7a:1::/96\"", "§\"fd7a:1::\"", Code::BadValue),
        ("\"fd7a:1::/96\"", "§\"auto\"", Code::BadValue),
        ("as =", "§at =", Code::UnknownKey),
        ("prefix = \"192.168.1.0/24\"\n", "", Code::MissingKey),
    ] {
        let text = ROUTE.replacen(old, new, 1);
        let text = match code {
            Code::MissingKey => text.replacen("[route", "§[route", 1),
            _ => text,
        };
        assert_refused_among(&after(&text), code);
    }
    let v6 = ROUTE
        .replace("192.168.1.0/24", "fd01::/64")
        .replace("\"fd7a:1::/96\"", "§\"per-node\"");
    assert_refused_among(&after(&v6), Code::BadValue);
    for (old, new, code) in [
        ("[\"gateways\"]", "[§\"nobody\"]", Code::UnknownName),
        ("[\"gateways\"]", "§\"gateways\"", Code::WrongType),
        ("relay", "§relais", Code::UnknownKey),
    ] {
        assert_refused_among(&after(&ROLE.replacen(old, new, 1)), code);
    }
    assert_refused_among(&after("§[role]"), Code::BadValue);
    let devices = format!("{PLC}{}", ROLE.replace("exit = []", "exit = [§\"plcs\"]"));
    assert_refused_among(&after(&devices), Code::BadValue);
}

#[test]
fn two_networks_that_the_overlay_would_know_alike_are_refused() {
    let elsewhere = "[group.others]\nmatch = { role = [\"other\"], site = [\"suzhou\"] }\nprofile = \"gateway\"\n";
    let other = ROUTE
        .replace("line3-lan", "other")
        .replace("\"gateways\"", "\"others\"");
    for (first, second) in [
        (ROUTE.to_owned(), other.replace("\"fd7a", "§\"fd7a")),
        (
            ROUTE.replace("as = \"fd7a:1::/96\"\n", ""),
            other
                .replace("as = \"fd7a:1::/96\"\n", "")
                .replace("\"192.168.1.0/24\"", "§\"192.168.0.0/16\""),
        ),
        (
            ROUTE.replace("fd7a:1::/96", "10.7.1.0/24"),
            other
                .replace("as = \"fd7a:1::/96\"\n", "")
                .replace("\"192.168.1.0/24\"", "§\"10.7.1.128/25\""),
        ),
    ] {
        assert_refused(
            &after(&format!("{elsewhere}{first}{second}")),
            Code::RouteClash,
        );
    }
    let apart = other.replace("fd7a:1::", "fd7a:2::");
    assert_accepted(&after(&format!("{elsewhere}{ROUTE}{apart}")));
    let own = |text: &str| text.replace("fd7a:1::/96", "per-node");
    assert_accepted(&after(&format!("{elsewhere}{}{}", own(ROUTE), own(&other))));
}

#[test]
fn two_networks_of_the_same_addresses_at_one_node_are_refused() {
    let own = ROUTE.replace("fd7a:1::/96", "per-node");
    let other = own
        .replace("line3-lan", "other")
        .replace("\"lan0\"", "\"lan1\"");
    for prefix in ["192.168.1.0/24", "192.168.0.0/16", "192.168.1.128/25"] {
        let other = other.replace("\"192.168.1.0/24\"", &format!("§\"{prefix}\""));
        assert_refused(&after(&format!("{own}{other}")), Code::RouteClash);
    }
    let apart = other.replace("192.168.1.0/24", "192.168.2.0/24");
    assert_accepted(&after(&format!("{own}{apart}")));
}

#[test]
fn an_interface_leads_beyond_its_node_only_through_the_tunnel_and_past_no_gateway() {
    let base = format!("{ROUTE}{PLC}{LAN}");
    assert_accepted(&after(&base));
    for (old, new, code) in [
        (
            "route = \"line3-lan\"",
            "route = §\"line4-lan\"",
            Code::UnknownName,
        ),
        (
            "route = \"line3-lan\"",
            "device = §\"plc-18\"",
            Code::UnknownName,
        ),
        (
            "net = \"mesh\"\nl4 = \"tcp/502\"\nroute = ",
            "net = \"lan0\"\nl4 = \"tcp/502\"\nroute = §",
            Code::BadValue,
        ),
        (
            "route = \"line3-lan\"",
            "route = \"line3-lan\"\ndevice = §\"plc-17\"",
            Code::BadValue,
        ),
        (
            "route = \"line3-lan\"",
            "route = \"line3-lan\"\nto = §\"192.0.2.1:5\"",
            Code::BadValue,
        ),
        (
            "route = \"line3-lan\"",
            "route = \"line3-lan\"\nl7 = §{ proto = \"modbus\", actions = { read = [\"fc:3\"] } }",
            Code::BadValue,
        ),
        (
            "[service.lan]\non = \"gateways\"",
            "[service.lan]\non = \"scada\"",
            Code::MatchesNobody,
        ),
    ] {
        let mut text = base.replacen(old, new, 1);
        if !text.contains('§') {
            text = text.replace("route = \"line3-lan\"", "route = §\"line3-lan\"");
        }
        assert_refused_among(&after(&text), code);
    }
    let device = base.replace("route = \"line3-lan\"", "device = \"plc-17\"");
    assert_accepted(&after(&device));
    for (old, new) in [
        (", ip = \"192.168.1.17\"", ""),
        ("192.168.1.17", "192.168.2.17"),
        ("interface = \"lan0\"", "interface = \"lan1\""),
    ] {
        let text = device
            .replacen(old, new, 1)
            .replace("device = \"plc-17\"", "device = §\"plc-17\"");
        assert_refused_among(&after(&text), Code::MatchesNobody);
    }
    // At one port two ways into one network are one too many; the node and what lies behind it are two places.
    let twin = format!(
        "{base}[service.lan.interface.§zz]\nnet = \"mesh\"\nl4 = \"tcp/502\"\nroute = \"line3-lan\"\n"
    );
    assert_refused(&after(&twin), Code::InterfaceClash);
}

#[test]
fn the_internet_is_a_target_only_where_somebody_leads_there_and_within_scope() {
    assert_refused(&after(&exit_rule("")), Code::MatchesNobody);
    let role = "[role]\nexit = [\"gateways\"]\n";
    assert_accepted(&after(&exit_rule(role).replace('§', "")));
    assert_refused_among(
        &after("[service.§exit]\non = \"gateways\"\n"),
        Code::BadValue,
    );
    let wide = "schema = \"edgeward-policy/1\"\nowner = \"plant\"\nscope = \"any\"\n[group.elsewhere]\nmatch = { site = [\"wuxi\"] }\n[role]\nexit = [\"elsewhere\"]\n";
    let text = after(&exit_rule(role).replace('§', ""));
    let files = [
        SourceFile::new("a.toml", wide),
        SourceFile::new("b.toml", text),
    ];
    let report = check(&files);
    let codes: Vec<_> = report.diagnostics.iter().map(|found| found.code).collect();
    assert_eq!(codes, [Code::OutsideScope], "{report}");
    // Through one group of them it is within.
    let named = exit_rule(role).replace("§\"exit\"", "\"exit/gateways.tcp\"");
    let files = [
        SourceFile::new("a.toml", wide),
        SourceFile::new("b.toml", after(&named)),
    ];
    assert!(check(&files).diagnostics.is_empty());
}

#[test]
fn policy_tests_and_invariants_ask_about_what_lies_beyond_nodes() {
    let rules = "[[rule]]\nid = \"web\"\neffect = \"allow\"\nfrom = [\"group:scada\"]\nto = [\"lan/web\"]\ndo = [\"connect\"]\n";
    let test = |to: &str, expect: &str| {
        format!(
            "[[test]]\nname = \"{to} {expect}\"\nfrom = {{ groups = [\"scada\"] }}\nto = \"{to}\"\ndo = \"connect\"\nexpect = \"{expect}\"\n"
        )
    };
    let role = "[role]\nexit = [\"gateways\"]\n";
    let base = format!("{ROUTE}{PLC}{LAN}{rules}{role}");
    let base = format!(
        "{base}[service.lan.interface.plc]\nnet = \"mesh\"\nl4 = \"tcp/503\"\ndevice = \"plc-17\"\n"
    );
    let never =
        "[[invariant]]\nname = \"nobody leaves\"\nnever = { from = \"any\", to = \"exit\" }\n";
    let sound = format!(
        "{base}{}{}{}{never}",
        test("lan/web", "allow"),
        test("lan/plc", "deny"),
        test("exit/gateways.udp", "deny")
    );
    assert_accepted(&after(&sound));
    let wrong = test("lan/plc", "allow").replace("name = ", "name = §");
    let wrong = format!("{base}{wrong}");
    assert_refused_among(&after(&wrong), Code::TestFailed);
    let open = exit_rule(&format!("{base}{}", never.replace("\"nobody", "§\"nobody")));
    let open = open.replacen("§\"exit\"", "\"exit\"", 1);
    assert_refused_among(&after(&open), Code::InvariantViolated);
}
