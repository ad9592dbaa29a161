use edgeward_identity::AttestationState;
use edgeward_policy::l7::Patterns;
use edgeward_policy::{L7, Recognition, SliceDevice};

use super::super::testing::*;
use super::*;
use crate::enforce::decide::PictureParts;
use crate::enforce::testing::{boot, parts, rules};
use crate::view::{Held, Standing};

fn plan(parts: PictureParts) -> Plan {
    let net = |net: &str| (net == "lan0").then(|| "eth1".parse().unwrap());
    Plan::new(&Picture::new(parts), &net, boot(5000)).unwrap()
}

fn names(plan: &Plan) -> Vec<String> {
    let terms = plan.leases.values();
    terms.map(|term| term.device.name().to_owned()).collect()
}

#[test]
fn a_device_gets_a_lease_at_its_interface_for_as_long_as_its_rule_says() {
    let plan = plan(lan_parts(vec![plc()]));
    let at = spot(502);
    assert_eq!(plan.guarded[&at].name.as_ref(), "line3/modbus");
    let lease = Lease {
        at,
        shown: Shown::Both(PLC_MAC, PLC_IP.parse().unwrap()),
    };
    let term = &plan.leases[&lease];
    assert_eq!(term.rule.as_ref(), "b-reads");
    // Nine of the ten minutes of `fresh` are left since this node's own pass.
    assert_eq!(term.until, boot(5000 + 540));
    assert_eq!(plan.changes_at, Some(boot(5000 + 540)));
}

#[test]
fn what_is_guarded_stays_so_when_nobody_may_come_in() {
    let mut held = lan_parts(vec![plc()]);
    held.standing = Standing::Held(Held::NoFloor);
    let mut failed = lan_parts(vec![plc()]);
    failed.own.as_mut().unwrap().state = AttestationState::Failed;
    let mut unknown = lan_parts(vec![plc()]);
    unknown.own = None;
    for parts in [held, failed, unknown, lan_parts(vec![])] {
        let plan = plan(parts);
        assert_eq!(plan.guarded.len(), 1);
        assert_eq!(plan.leases.len(), 0);
    }
    let before = plan(lan_parts(vec![plc()]));
    let closed = before.closed();
    assert_eq!(closed.guarded, before.guarded);
    assert!(closed.leases.is_empty());
}

#[test]
fn without_a_policy_there_is_no_plan() {
    let parts = PictureParts {
        rules: None,
        ..lan_parts(vec![plc()])
    };
    let net = |_: &str| None;
    assert_eq!(Plan::new(&Picture::new(parts), &net, boot(5000)), None);
}

#[test]
fn who_is_not_told_apart_by_packets_gets_no_lease() {
    let certificate = SliceDevice {
        recognised: Recognition {
            mac: Some(PLC_MAC),
            ip: None,
            certificate: Some("00".repeat(32)),
        },
        ..device("robot", None, None)
    };
    let twin = |name| device(name, Some(OTHER_MAC), None);
    let elsewhere = SliceDevice {
        net: "lan1".to_owned(),
        ..device("elsewhere", None, Some("192.0.2.9"))
    };
    let stranger = SliceDevice {
        groups: Vec::new(),
        ..device("stranger", None, Some("192.0.2.10"))
    };
    // Two stations cannot have one address.
    let same_ip = device("same-ip", Some(OTHER_MAC), Some(PLC_IP));
    let plan = plan(lan_parts(vec![
        plc(),
        certificate,
        twin("a"),
        twin("b"),
        elsewhere,
        stranger,
        same_ip,
    ]));
    assert_eq!(names(&plan), ["plc"]);
    assert_eq!(plan.left_out, 1);
}

#[test]
fn what_the_agent_itself_serves_is_open_only_while_it_listens_and_what_has_no_device_is_told() {
    let mut slice = lan_slice(vec![plc()]);
    let lan = slice.interfaces[0].clone();
    let on = |name: &str, port: u16, net: &str| SliceInterface {
        name: name.to_owned(),
        port,
        net: net.to_owned(),
        ..lan.clone()
    };
    let patterns = Patterns {
        action: "read".to_owned(),
        any_of: vec!["fc:3".parse().unwrap()],
    };
    slice.interfaces = vec![
        SliceInterface {
            to: Some("192.0.2.1:9".parse().unwrap()),
            ..on("to", 503, "lan0")
        },
        SliceInterface {
            l7: Some(L7::Modbus(vec![patterns])),
            ..on("l7", 504, "lan0")
        },
        on("nowhere", 505, "lan9"),
        on("mesh", 506, MESH),
        lan,
    ];
    let before = PictureParts {
        rules: Some(rules(slice)),
        ..parts()
    };
    let closed = plan(before.clone());
    let guarded: Vec<u16> = closed.guarded.keys().map(|spot| spot.port).collect();
    assert_eq!(guarded, [502, 503, 504]);
    assert_eq!(closed.unserved, ["line3/nowhere"]);
    let open = |plan: &Plan| {
        let anyone = plan.leases.iter();
        let anyone = anyone.filter(|(lease, _)| lease.shown == Shown::Anyone);
        anyone
            .map(|(lease, term)| (lease.at.port, term.until))
            .collect::<Vec<_>>()
    };
    assert_eq!(open(&closed), []);
    let served = decide::Spot {
        net: "lan0".into(),
        proto: Proto::Tcp,
        port: 504,
    };
    let plan = plan(PictureParts {
        served: Arc::new([served].into()),
        ..before
    });
    assert_eq!(open(&plan), [(504, boot(5000).plus(GATEWAY_TERM))]);
    assert!(plan.changes_at.unwrap() <= boot(5000).plus(GATEWAY_TERM / 2));
}
