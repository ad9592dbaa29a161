//! Requests that fit several actions, one, or none.

use super::*;
use crate::l7::{http, modbus};

const WEB: &str = r#"
[service.web]
on = "gateways"
[service.web.interface.api]
net = "mesh"
l4 = "tcp/80"
l7 = { proto = "http", actions = { read = ["GET /**"], admin = ["* /admin/**"] } }
"#;

fn rule_on(id: &str, effect: &str, action: &str) -> String {
    format!(
        "[[rule]]\nid = \"{id}\"\neffect = \"{effect}\"\nfrom = [\"group:stations\"]\nto = [\"web/api\"]\ndo = [\"{action}\"]\n"
    )
}

fn asked(engine: &Engine, method: &str, path: &str) -> (Verdict, Reason, Option<String>) {
    let subject = node("st-1");
    let interface = engine.interface("web", "api").unwrap();
    let request = L7Request::Http(http::Request { method, path });
    let subject = Subject::Id(&subject);
    let answer = engine.decide_l7(subject, trusted(), interface, &request, Link::Online, NOW);
    let rule = answer.rule.as_deref().map(str::to_owned);
    (answer.verdict, answer.reason, rule)
}

#[test]
fn a_deny_of_one_action_wins_over_an_allow_of_another_that_the_request_fits_too() {
    let rules = [
        WEB.to_owned(),
        rule_on("reads", "allow", "read"),
        rule_on("no-admin", "deny", "admin"),
    ];
    let gateway = engine(&rules, "gw-1");
    let reads = (Verdict::Allow, Reason::Allowed, Some("reads".to_owned()));
    let denied = (Verdict::Deny, Reason::Rule, Some("no-admin".to_owned()));
    assert_eq!(asked(&gateway, "GET", "/state"), reads);
    assert_eq!(asked(&gateway, "GET", "/admin/users"), denied);
    assert_eq!(asked(&gateway, "POST", "/admin/users"), denied);
}

#[test]
fn a_request_that_fits_no_action_is_denied_though_every_action_is_allowed() {
    let rules = [WEB.to_owned(), rule_on("all", "allow", "read\", \"admin")];
    let gateway = engine(&rules, "gw-1");
    let none = (Verdict::Deny, Reason::NoAction, None);
    assert_eq!(asked(&gateway, "POST", "/state"), none);
    let interface = gateway.interface("web", "api").unwrap();
    let other = L7Request::Modbus(modbus::Request {
        function: 3,
        unit: 1,
        addresses: None,
    });
    let subject = node("st-1");
    let subject = Subject::Id(&subject);
    let answer = gateway.decide_l7(subject, trusted(), interface, &other, Link::Online, NOW);
    assert_eq!(answer.reason, Reason::NoAction);
}

#[test]
fn a_connection_may_be_opened_where_one_action_is_allowed() {
    let rules = [WEB.to_owned(), rule_on("reads", "allow", "read")];
    let gateway = engine(&rules, "gw-1");
    let interface = gateway.interface("web", "api").unwrap();
    let admit = |name: &str| {
        let subject = node(name);
        let subject = Subject::Id(&subject);
        gateway.admit(subject, trusted(), interface, Link::Online, NOW)
    };
    assert!(admit("st-1").is_allow());
    let denied = [
        WEB.to_owned(),
        rule_on("no-reads", "deny", "read"),
        rule_on("no-admin", "deny", "admin"),
    ];
    let closed = engine(&denied, "gw-1");
    let subject = node("st-1");
    let subject = Subject::Id(&subject);
    let answer = closed.admit(subject, trusted(), interface, Link::Online, NOW);
    assert!(!answer.is_allow());
}

#[test]
fn a_deny_of_one_action_does_not_close_the_way_out_to_the_others() {
    let rules = [
        WEB.to_owned(),
        rule_on("all", "allow", "read\", \"admin"),
        rule_on("no-admin", "deny", "admin"),
    ];
    let station = engine(&rules, "st-1");
    let gateway = station.peer(&node("gw-1")).unwrap();
    let web = (Proto::Tcp, 80);
    let out = |station: &Engine, peer| {
        station
            .decide_egress(peer, web, trusted(), Link::Online, NOW)
            .is_allow()
    };
    assert!(out(&station, gateway));
    let all_denied = [
        WEB.to_owned(),
        rule_on("all", "allow", "read\", \"admin"),
        rule_on("no-admin", "deny", "admin"),
        rule_on("no-reads", "deny", "read"),
    ];
    let station = engine(&all_denied, "st-1");
    assert!(
        station
            .peer(&node("gw-1"))
            .is_none_or(|peer| !out(&station, peer))
    );
}

#[test]
fn connect_opens_the_way_for_operators_of_a_node_and_allows_the_node_no_request() {
    let rules = [
        WEB.to_owned(),
        rule_on("from-stations", "allow", "connect"),
        rule_on("vendor", "allow", "read").replace("group:stations", "operator-group:vendor"),
    ];
    let gateway = engine(&rules, "gw-1");
    let interface = gateway.interface("web", "api").unwrap();
    let station = node("st-1");
    let admitted = gateway.admit(
        Subject::Id(&station),
        trusted(),
        interface,
        Link::Online,
        NOW,
    );
    assert_eq!(admitted.rule.as_deref(), Some("from-stations"));
    assert_eq!(asked(&gateway, "GET", "/state").1, Reason::NoRule);
    let operator = id(edgeward_identity::Kind::Operator, "li");
    let request = L7Request::Http(http::Request {
        method: "GET",
        path: "/state",
    });
    let reads = |standing| {
        let subject = Subject::Id(&operator);
        let link = Link::Online;
        gateway
            .decide_l7(subject, standing, interface, &request, link, NOW)
            .is_allow()
    };
    assert!(reads(trusted()));
    assert!(!reads(Standing {
        state: AttestationState::None,
        ..trusted()
    }));
    let from = engine(&rules, "st-1");
    let peer = from.peer(&node("gw-1")).unwrap();
    let web = (Proto::Tcp, 80);
    let out = from.decide_egress(peer, web, trusted(), Link::Online, NOW);
    assert_eq!(out.rule.as_deref(), Some("from-stations"));
}

#[test]
fn a_deny_of_connect_alone_is_refused_where_requests_are_told_apart() {
    let rules = [
        HEAD.to_owned(),
        WEB.to_owned(),
        rule_on("reads", "allow", "read"),
        rule_on("no", "deny", "connect"),
    ];
    let file = SourceFile::new("p.toml", rules.join("\n"));
    let report = CompiledPolicy::compile(&[file], 7).unwrap_err();
    assert!(report.to_string().contains("denies no request"), "{report}");
}
