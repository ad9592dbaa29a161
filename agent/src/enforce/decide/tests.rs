use std::collections::HashSet;

use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{AttestationState, Tier};
use edgeward_policy::slice::Profiles;
use edgeward_policy::{Proto, Standing as Evidence, StatedProfiles};
use edgeward_tunnel::bind::lease::{self, CloudLink as BindLink, Now, lease_end};
use edgeward_wire::control::{Cut, CutReason};

use super::*;
use crate::enforce::hearing::Hearing;
use crate::enforce::testing::*;
use crate::view::{CutFloors, Held, Standing};

mod beyond;
mod guests;

fn flow(parts: PictureParts, key: &FlowKey, direction: Direction) -> FlowVerdict {
    Picture::new(parts).flow(key, PEER, direction, boot(5000))
}

/// Both directions, by the label of the verdict.
fn labels(parts: PictureParts) -> [String; 2] {
    let picture = Picture::new(parts);
    [(inward(), Direction::In), (outward(), Direction::Out)].map(|(key, direction)| {
        let verdict = picture.flow(&key, PEER, direction, boot(5000));
        if verdict.allow {
            format!("+{}", verdict.rule)
        } else {
            verdict.rule.to_string()
        }
    })
}

fn grant(parts: PictureParts, standing: Evidence) -> Result<Grant, NotGranted> {
    let peer = id("b");
    let candidate = Candidate {
        id: &peer,
        standing,
        by_boot_statement: false,
    };
    Picture::new(parts).grant(&candidate, TEST_NOW)
}

fn cut(node: &str, time: Timestamp) -> Arc<CutFloors> {
    let mut floors = CutFloors::default();
    floors.add(
        1,
        &Cut {
            node: id(node),
            reason: CutReason::Quarantined,
            time,
        },
    );
    Arc::new(floors)
}

#[test]
fn a_node_that_is_held_grants_nothing() {
    for held in [Held::ClockBehindFloor, Held::StateRolledBack, Held::NoFloor] {
        let mut parts = parts();
        parts.standing = Standing::Held(held);
        assert_eq!(labels(parts.clone()), [held.code(), held.code()]);
        assert!(grant(parts, evidence(TEST_NOW)).is_err());
    }
}

#[test]
fn without_a_policy_nothing_is_granted() {
    let mut parts = parts();
    parts.rules = None;
    assert_eq!(labels(parts.clone()), ["no-policy", "no-policy"]);
    assert!(grant(parts, evidence(TEST_NOW)).is_err());
}

#[test]
fn a_peer_whose_bind_is_not_open_is_denied() {
    let mut parts = parts();
    parts.bound.clear();
    assert_eq!(labels(parts), ["not-bound", "not-bound"]);
}

#[test]
fn stale_and_failed_peers_and_those_of_unknown_tier_are_denied() {
    for state in [
        AttestationState::Stale,
        AttestationState::Failed,
        AttestationState::None,
        AttestationState::Vouched,
    ] {
        let mut parts = parts();
        let mut claimed = evidence(TEST_NOW);
        claimed.state = state;
        parts.bound.get_mut(&PEER).unwrap().evidence = claimed;
        assert_eq!(
            labels(parts.clone()),
            ["state:b-reads", "state:a-publishes"],
            "{state}"
        );
        assert!(grant(parts, claimed).is_err());
    }
    for tier in [None, Some(Tier::Software)] {
        let mut parts = parts();
        parts.bound.get_mut(&PEER).unwrap().evidence.tier = tier;
        let [inward, outward] = labels(parts);
        assert!(
            !inward.starts_with('+') && !outward.starts_with('+'),
            "{inward} {outward}"
        );
    }
}

#[test]
fn a_pass_that_is_too_old_counts_no_more() {
    let mut parts = parts();
    parts.bound.get_mut(&PEER).unwrap().evidence = evidence(TEST_NOW.minus(MINUTE * 10));
    assert_eq!(labels(parts.clone()), ["age:b-reads", "age:a-publishes"]);
    assert!(grant(parts, evidence(TEST_NOW.minus(MINUTE * 10))).is_err());
}

#[test]
fn a_rule_for_one_profile_is_for_results_that_name_it_as_it_is_now() {
    let asked = "gateway@0123456789abcdef";
    let mut slice = slice();
    slice.interfaces[0].rows[0].profiles = Profiles::These(vec![asked.parse().unwrap()]);
    let rules = rules(slice);
    for (said, label) in [
        (None, "profile:b-reads"),
        (Some("gateway"), "profile:b-reads"),
        (Some("gateway@fedcba9876543210"), "profile:b-reads"),
        (Some("other@0123456789abcdef"), "profile:b-reads"),
        (Some(asked), "+b-reads"),
        (
            Some("a@fedcba9876543210+gateway@0123456789abcdef"),
            "+b-reads",
        ),
    ] {
        let mut parts = parts();
        parts.rules = Some(Arc::clone(&rules));
        let evidence = &mut parts.bound.get_mut(&PEER).unwrap().evidence;
        evidence.profiles = StatedProfiles::of_result(said);
        assert_eq!(labels(parts), [label, "+a-publishes"], "{said:?}");
    }
}

#[test]
fn a_cut_takes_everything_until_the_peer_passes_again() {
    let mut parts = parts();
    parts.floors = cut("b", TEST_NOW.minus(MINUTE));
    assert_eq!(labels(parts.clone()), ["cut", "cut"]);
    assert!(grant(parts.clone(), evidence(TEST_NOW.minus(MINUTE))).is_err());
    assert!(grant(parts, evidence(TEST_NOW)).is_ok());
}

#[test]
fn a_node_that_was_cut_itself_grants_nothing_to_anybody() {
    let mut parts = parts();
    parts.floors = cut("a", TEST_NOW.minus(MINUTE));
    assert_eq!(labels(parts.clone()), ["self-cut", "self-cut"]);
    parts.own.as_mut().unwrap().passed = TEST_NOW;
    assert_eq!(labels(parts), ["+b-reads", "+a-publishes"]);
}

#[test]
fn a_slice_that_has_ended_or_does_not_know_the_peer_allows_nothing() {
    let mut ended = parts();
    let mut slice_ended = slice();
    slice_ended.expires = TEST_NOW;
    ended.rules = Some(rules(slice_ended));
    assert_eq!(labels(ended.clone()), ["policy-expired", "policy-expired"]);
    assert!(grant(ended, evidence(TEST_NOW)).is_err());

    let mut unknown = parts();
    let mut slice_without = slice();
    slice_without.peers[0].id = id("c");
    unknown.rules = Some(rules(slice_without));
    assert_eq!(
        labels(unknown.clone()),
        ["unknown-subject", "unknown-subject"]
    );
    let refused = grant(unknown, evidence(TEST_NOW)).unwrap_err();
    assert_eq!(refused.0, "unknown-subject");
}

#[test]
fn nothing_is_reached_beyond_what_a_rule_names() {
    let mut other = outward();
    other.destination_port = OPEN_PORT;
    assert_eq!(&*flow(parts(), &other, Direction::Out).rule, "no-rule");
    let mut other = inward();
    other.destination_port = REACHED_PORT;
    let verdict = flow(parts(), &other, Direction::In);
    assert_eq!(&*verdict.rule, "unknown-interface");
    for protocol in [1, 17, 58] {
        let mut other = inward();
        other.protocol = protocol;
        assert!(!flow(parts(), &other, Direction::In).allow, "{protocol}");
    }
}

#[test]
fn only_addresses_of_this_node_are_served_or_used() {
    let mut through = inward();
    through.destination = "fd00::9".parse().unwrap();
    assert_eq!(&*flow(parts(), &through, Direction::In).rule, "not-ours");
    let mut borrowed = outward();
    borrowed.source = "100.64.0.9".parse().unwrap();
    assert_eq!(&*flow(parts(), &borrowed, Direction::Out).rule, "not-ours");
}

#[test]
fn interfaces_that_forward_are_reached_only_while_the_gateway_listens() {
    let mut forwarding = slice();
    forwarding.interfaces[0].to = Some("192.0.2.10:502".parse().unwrap());
    let mut parts = parts();
    parts.rules = Some(rules(forwarding));
    let label = |parts: PictureParts| flow(parts, &inward(), Direction::In).rule.to_string();
    assert_eq!(label(parts.clone()), "no-gateway");
    parts.listening = Arc::new(HashSet::from([(Proto::Udp, OPEN_PORT), (Proto::Tcp, 1)]));
    assert_eq!(label(parts.clone()), "no-gateway");
    parts.listening = Arc::new(HashSet::from([(Proto::Tcp, OPEN_PORT)]));
    assert_eq!(label(parts.clone()), "b-reads");
    parts.bound.get_mut(&PEER).unwrap().evidence.tier = None;
    assert_eq!(label(parts), "tier:b-reads");
}

#[test]
fn interfaces_that_face_a_lan_are_not_reached_through_the_tunnel() {
    let mut lan = slice();
    lan.interfaces[0].net = "lan0".to_owned();
    let mut parts = parts();
    parts.rules = Some(rules(lan));
    parts.listening = Arc::new(HashSet::from([(Proto::Tcp, OPEN_PORT)]));
    assert_eq!(
        &*flow(parts, &inward(), Direction::In).rule,
        "unknown-interface"
    );
}

#[test]
fn a_boot_statement_counts_only_while_cut_off() {
    let mut parts = parts();
    parts.bound.get_mut(&PEER).unwrap().by_boot_statement = true;
    assert_eq!(
        labels(parts.clone()),
        ["boot-statement-online", "boot-statement-online"]
    );
    parts.hearing = cut_off_at(TEST_NOW.minus(MINUTE));
    assert_eq!(labels(parts), ["+b-reads", "+a-publishes"]);
}

#[test]
fn a_verdict_lasts_as_long_as_the_pass_and_no_longer() {
    let verdict = flow(parts(), &inward(), Direction::In);
    assert!(verdict.allow);
    assert_eq!(verdict.valid_until, boot(5000 + 9 * 60));
    let mut offline = parts();
    offline.hearing = cut_off_at(TEST_NOW.minus(MINUTE * 5));
    let verdict = flow(offline, &inward(), Direction::In);
    assert_eq!(verdict.valid_until, boot(5000 + 12 * 3600 - 5 * 60));
}

#[test]
fn the_wall_clock_of_a_picture_runs_on_boot_time() {
    let picture = Picture::new(parts());
    let late = boot(5000 + 9 * 60);
    assert_eq!(
        &*picture.flow(&inward(), PEER, Direction::In, late).rule,
        "age:b-reads"
    );
}

#[test]
fn prefixes_come_from_the_slice() {
    let grant = grant(parts(), evidence(TEST_NOW)).unwrap();
    let v6 = edgeward_identity::overlay::ipv6_of(&id("b"));
    let expected: Vec<ipnet::IpNet> = vec![
        format!("{v6}/128").parse().unwrap(),
        "100.64.0.2/32".parse().unwrap(),
    ];
    assert_eq!(grant.allowed_ips, expected);
    assert_eq!(grant.limits.fresh, MINUTE * 10);
    assert_eq!(grant.limits.offline, MINUTE * 720);
}

#[test]
fn after_an_outage_a_peer_that_has_passed_since_gets_fresh_and_no_more() {
    let outage = TEST_NOW.minus(MINUTE * 60);
    let mut parts = parts();
    parts.hearing = Hearing::begin(&heard(5000), boot(5000));
    assert_eq!(parts.hearing.outage(), Some(outage));
    let passed = TEST_NOW.minus(MINUTE);
    let limits = grant(parts, evidence(passed)).unwrap().limits;
    let standing = lease::Standing {
        passed,
        by_boot_statement: false,
        certificates_until: TEST_NOW.plus(MINUTE * 10_000),
    };
    let now = Now {
        wall: TEST_NOW,
        boot: boot(5000),
    };
    let link = BindLink::CutOff {
        last_heartbeat: outage,
    };
    let end = lease_end(&standing, &limits, link, now).unwrap();
    assert_eq!(end, boot(5000 + 9 * 60));
}

#[test]
fn allowed_flows_are_counted_and_denied_ones_are_not() {
    let decider = Decider::new(Picture::new(parts()));
    let mut other = inward();
    other.destination_port = 1;
    for key in [inward(), inward(), other] {
        decider.decide(&key, PEER, Direction::In, boot(5000));
    }
    let (allowed, lost) = decider.take_allowed();
    assert_eq!((allowed.len(), lost), (1, 0));
    assert_eq!((allowed[0].port, allowed[0].count), (OPEN_PORT, 2));
    assert_eq!(&*allowed[0].rule, "b-reads");
}
