use super::*;
use crate::slice::{Lifetimes, MIN_SVID_LIFETIME, SliceError};

#[test]
fn a_node_or_policy_the_fleet_was_not_sorted_for_gets_no_slice() {
    let policy = policy(&[]);
    let unknown = policy.slice(&node("nobody"), &fleet(), END);
    assert!(matches!(unknown, Err(SliceError::UnknownNode(_))));
    let other = super::policy(&[rule("r", "allow", "any", "line/plc", "")]);
    let wrong = policy.slice_of(&other.index(&fleet()), &node("gw-1"), END);
    assert!(matches!(wrong, Err(SliceError::OtherPolicy)));
}

#[test]
fn a_slice_with_an_unknown_field_is_refused() {
    let rules = [rule("r", "allow", "group:stations", "line/plc", "")];
    let json = policy(&rules)
        .slice(&node("gw-1"), &fleet(), END)
        .unwrap()
        .to_json();
    let text = String::from_utf8(json).unwrap();
    assert!(Slice::parse(text.as_bytes()).is_ok());
    for (part, changed) in [
        ("\"rule\":\"r\"", "\"rule\":\"r\",\"geofence\":\"x\""),
        ("{\"schema\"", "{\"extra\":1,\"schema\""),
        ("\"effect\":\"allow\"", "\"effect\":\"audit\""),
    ] {
        let changed = text.replacen(part, changed, 1);
        assert_ne!(changed, text);
        assert!(
            matches!(Slice::parse(changed.as_bytes()), Err(SliceError::Form(_))),
            "{part}"
        );
    }
    assert!(Slice::parse(b"{}").is_err());
    assert!(Slice::parse(&[0xff; 16]).is_err());
}

#[test]
fn a_slice_tells_of_nobody_that_the_node_need_not_meet() {
    let rules = [
        rule("r", "allow", "group:stations", "line/plc", ""),
        rule("no", "deny", "group:lab", "line/plc", ""),
    ];
    let policy = policy(&rules);
    let gateway = policy.slice(&node("gw-1"), &fleet(), END).unwrap();
    assert_eq!(ids(&gateway), ["st-1"]);
    assert_eq!(gateway.egress, []);
    assert_eq!(
        gateway.peers[0].v6,
        edgeward_identity::overlay::ipv6_of(&node("st-1"))
    );
    assert_eq!(gateway.peers[0].v4, Some([100, 64, 0, 2].into()));
    assert_eq!((gateway.version, gateway.expires), (7, END));
    assert_eq!(gateway.policy_hash, hex::encode(policy.hash()));
    assert_eq!(gateway.profiles.len(), 1);
    let station = policy.slice(&node("st-1"), &fleet(), END).unwrap();
    assert_eq!(ids(&station), ["gw-1", "gw-2"]);
    assert_eq!(station.interfaces, []);
    assert_eq!(station.egress.len(), 2);
    assert_eq!(station.windows, []);
    let other = policy.slice(&node("other"), &fleet(), END).unwrap();
    assert_eq!(ids(&other), [""; 0]);
    assert_eq!(other.profiles, []);
}

#[test]
fn a_deny_that_always_holds_closes_the_way_out_and_a_conditional_one_does_not() {
    for (condition, open) in [
        ("", false),
        ("when = { window = \"night\" }", true),
        ("unless_state = \"trusted\"", true),
        ("tier = [\"virtual\"]", true),
        ("tier = [\"hardware\"]", false),
    ] {
        let rules = [
            rule("yes", "allow", "any", "line/plc", ""),
            rule("no", "deny", "group:stations", "line/plc", condition),
        ];
        let station = policy(&rules).slice(&node("st-1"), &fleet(), END).unwrap();
        assert_eq!(!station.egress.is_empty(), open, "{condition}");
    }
}

#[test]
fn svids_live_twice_the_largest_offline_within_bounds() {
    let lifetime = |largest, max| {
        let lifetimes = Lifetimes {
            largest_offline: Seconds::from_hours(largest),
            max_offline: Seconds::from_hours(max),
        };
        lifetimes.svid_lifetime()
    };
    assert_eq!(lifetime(72, 168), Seconds::from_hours(144));
    assert_eq!(lifetime(0, 168), MIN_SVID_LIFETIME);
    assert_eq!(lifetime(100, 80), Seconds::from_hours(160));
    assert_eq!(lifetime(1, 6), Seconds::from_hours(12));
    let rules = [rule(
        "r",
        "allow",
        "group:stations",
        "line/plc",
        "offline = \"20h\"",
    )];
    for name in ["gw-1", "st-1"] {
        let slice = policy(&rules).slice(&node(name), &fleet(), END).unwrap();
        assert_eq!(
            slice.lifetimes.largest_offline,
            Seconds::from_hours(20),
            "{name}"
        );
        assert_eq!(
            slice.lifetimes.svid_lifetime(),
            Seconds::from_hours(40),
            "{name}"
        );
    }
}

#[test]
fn the_same_policy_and_fleet_give_the_same_bytes() {
    let rules = [
        rule("b", "allow", "group:stations", "line/plc", ""),
        rule("a", "allow", "operator-group:vendor", "line/plc", ""),
    ];
    let mut reversed_fleet = fleet();
    reversed_fleet.nodes.reverse();
    let one = policy(&rules).slice(&node("gw-1"), &fleet(), END).unwrap();
    let other = policy(&rules)
        .slice(&node("gw-1"), &reversed_fleet, END)
        .unwrap();
    assert_eq!(one.to_json(), other.to_json());
}

fn ids(slice: &Slice) -> Vec<&str> {
    slice.peers.iter().map(|peer| peer.id.name()).collect()
}
