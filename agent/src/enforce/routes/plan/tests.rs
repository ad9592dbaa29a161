use edgeward_policy::slice::SliceRoute;

use super::*;
use crate::enforce::decide::PictureParts;
use crate::enforce::testing::*;
use crate::view::{Held, Standing};

fn route(name: &str, net: &str, prefix: &str, seen_as: &str) -> SliceRoute {
    SliceRoute {
        name: name.to_owned(),
        net: net.to_owned(),
        prefix: prefix.parse().unwrap(),
        seen_as: seen_as.parse().unwrap(),
    }
}

fn with(routes: Vec<SliceRoute>, of_peer: &[&str]) -> PictureParts {
    let mut slice = slice();
    slice.routes = routes;
    slice.peers[0].routes = of_peer.iter().map(|net| net.parse().unwrap()).collect();
    PictureParts {
        rules: Some(rules(slice)),
        ..parts()
    }
}

fn lan() -> SliceRoute {
    route("lan", "lan0", "192.168.1.0/24", "fd7a:1::c0a8:100/120")
}

fn plan(parts: PictureParts, armed: &[Armed]) -> Plan {
    let device = |net: &str| net.starts_with("lan").then(|| net.parse().unwrap());
    let uplink = || "wan0".parse().ok();
    Plan::new(
        &Picture::new(parts),
        armed,
        &BTreeSet::new(),
        &device,
        &uplink,
    )
}

#[test]
fn only_an_exit_leads_to_the_internet_and_only_by_an_uplink() {
    let exit = |is_exit| {
        let mut slice = slice();
        slice.roles.exit = is_exit;
        PictureParts {
            rules: Some(rules(slice)),
            ..parts()
        }
    };
    assert_eq!(plan(exit(false), &[]).exit, None);
    assert_eq!(plan(exit(true), &[]).exit, "wan0".parse().ok());
    let none = Plan::new(
        &Picture::new(exit(true)),
        &[],
        &BTreeSet::new(),
        &|_| None,
        &|| None,
    );
    assert_eq!((none.exit, none.unled), (None, vec!["exit".to_owned()]));
}

#[test]
fn who_is_held_or_has_no_policy_leads_nowhere() {
    let mut held = with(vec![lan()], &["10.7.3.0/24"]);
    held.standing = Standing::Held(Held::NoFloor);
    assert_eq!(plan(held, &[]), Plan::default());
    let mut without = with(vec![lan()], &[]);
    without.rules = None;
    assert_eq!(plan(without, &[]), Plan::default());
}

#[test]
fn a_network_without_a_device_or_with_the_addresses_of_another_is_not_led() {
    let twin = route("twin", "lan1", "192.168.0.0/16", "fd7a:2::c0a8:0/112");
    let lost = route("lost", "wan", "10.0.0.0/24", "fd7a:3::a00:0/120");
    let plan = plan(with(vec![lan(), twin, lost], &[]), &[]);
    assert_eq!(plan.led.len(), 1);
    assert_eq!(plan.unled, ["twin", "lost"]);
}

#[test]
fn networks_of_peers_go_into_the_tunnel_unless_they_are_of_the_overlay_or_at_home() {
    let overlay = prefix_of(id("a").trust_domain());
    let own = format!("{}/120", Ipv6Net::new(overlay, 48).unwrap().network());
    let plan = plan(
        with(vec![lan()], &["10.7.3.0/24", "192.168.0.0/16", &own]),
        &[],
    );
    let into: Vec<String> = plan.into_tunnel.iter().map(ToString::to_string).collect();
    assert_eq!(into, ["10.7.3.0/24"]);
    assert!(plan.translations.is_some());
}

#[test]
fn only_who_is_bound_has_a_lease_and_none_lies_in_another() {
    let armed = |nets: &[&str], seconds| Armed {
        allowed_ips: nets.iter().map(|net| net.parse().unwrap()).collect(),
        until: boot(seconds),
    };
    let all = [
        armed(&["fd00::5/128", "100.64.0.5/32", "10.7.3.0/24"], 100),
        armed(&["10.7.0.0/16", "fd7a:1::/120"], 200),
    ];
    let plan = plan(with(Vec::new(), &["10.9.0.0/16"]), &all);
    let leased: Vec<(String, BootTime)> = plan
        .leased
        .iter()
        .map(|(net, until)| (net.to_string(), *until))
        .collect();
    assert_eq!(
        leased,
        [
            ("10.7.0.0/16".to_owned(), boot(200)),
            ("fd7a:1::/120".to_owned(), boot(200))
        ]
    );
}

#[test]
fn networks_that_sleep_are_told_without_those_inside_another() {
    let nets = |texts: &[&str]| -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    let planned = |parts: PictureParts, asleep: &[&str]| {
        Plan::new(&Picture::new(parts), &[], &nets(asleep), &|_| None, &|| {
            None
        })
        .asleep
    };
    let asleep = [
        "10.7.3.0/24",
        "10.7.0.0/16",
        "10.7.9.0/24",
        "10.7.9.128/25",
        "10.8.0.0/24",
        "fd7a:1::/120",
        "fd7a:1::40/122",
        "fd7a:1::100/120",
    ];
    assert_eq!(
        planned(with(vec![], &[]), &asleep),
        nets(&[
            "10.7.0.0/16",
            "10.8.0.0/24",
            "fd7a:1::/120",
            "fd7a:1::100/120"
        ])
    );
    let without_policy = PictureParts {
        rules: None,
        ..parts()
    };
    assert_eq!(planned(without_policy, &asleep), nets(&[]));
    let many: BTreeSet<IpNet> = (0..u32::try_from(MAX_LEASED).unwrap() + 9)
        .map(|number| IpNet::new(std::net::Ipv4Addr::from_bits(number << 8).into(), 24).unwrap())
        .collect();
    assert_eq!(apart(&many).len(), MAX_LEASED);
}
