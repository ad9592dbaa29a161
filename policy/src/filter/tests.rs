use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::{AttestationState, SpiffeId, Tier};

use super::*;
use crate::fleet::{Fleet, FleetNode};
use crate::slice::Sources;
use crate::{CompiledPolicy, Recognition, Slice, SliceDevice, SourceFile};

const POLICY: &str = r#"schema = "edgeward-policy/1"
owner = "o"
scope = "any"
[group.a]
match = { role = ["a"] }
[group.b]
match = { role = ["b"] }
[service.s]
on = "b"
[service.s.interface.web]
net = "mesh"
l4 = "tcp/443"
[service.s.interface.plc]
net = "mesh"
l4 = "udp/502"
[[rule]]
id = "a-to-web"
effect = "allow"
from = ["group:a"]
to = ["s/web"]
do = ["connect"]
"#;
const NOW: Timestamp = Timestamp::from_secs(1_795_197_600);

#[test]
fn a_peer_whose_standing_is_not_given_is_let_in_nowhere() {
    let engine = engine();
    let rows = rows(&engine, &[], Link::Online, NOW);
    assert_eq!(rows.interfaces.len(), 2);
    assert!(
        rows.interfaces
            .iter()
            .all(|interface| interface.allowed.is_empty())
    );
}

#[test]
fn a_peer_that_is_not_in_the_slice_or_has_not_proved_itself_is_let_in_nowhere() {
    let engine = engine();
    let peer = engine.peer(&node("a1")).unwrap();
    let stale = Standing {
        state: AttestationState::Stale,
        ..trusted()
    };
    for (peer, standing, now) in [
        (PeerIndex(7), trusted(), NOW),
        (peer, stale, NOW),
        (peer, trusted(), NOW.plus(Duration::from_secs(600))),
        (
            peer,
            Standing {
                last_pass: Some(end()),
                ..trusted()
            },
            end(),
        ),
    ] {
        let rows = rows(
            &engine,
            &[(FilterSubject::Peer(peer), standing)],
            Link::Online,
            now,
        );
        assert!(
            rows.interfaces
                .iter()
                .all(|interface| interface.allowed.is_empty())
        );
    }
}

#[test]
fn a_proven_peer_is_let_in_where_a_rule_says_so_and_until_when_it_says_so() {
    let engine = engine();
    let peer = FilterSubject::Peer(engine.peer(&node("a1")).unwrap());
    let rows = rows(
        &engine,
        &[(peer, trusted()), (peer, trusted())],
        Link::Online,
        NOW,
    );
    let web = engine.interface_at("mesh", Proto::Tcp, 443).unwrap();
    for interface in &rows.interfaces {
        if interface.interface != web {
            assert_eq!(interface.allowed, []);
            continue;
        }
        let entry = FilterEntry {
            subject: peer,
            rule: "a-to-web".into(),
            valid_until: NOW.plus(Duration::from_secs(600)),
        };
        assert_eq!(interface.allowed, [entry]);
        assert_eq!(
            (interface.net.as_str(), interface.proto, interface.port),
            ("mesh", Proto::Tcp, 443)
        );
    }
    assert_eq!(rows.valid_until, NOW.plus(Duration::from_secs(600)));
}

#[test]
fn a_device_is_let_in_where_a_rule_says_so_from_its_own_network_only() {
    let mut slice = Slice::clone(engine().slice());
    let on = |net: &str, of: &SliceInterface| SliceInterface {
        net: net.to_owned(),
        service: format!("{}-{net}", of.service),
        ..of.clone()
    };
    let web = slice.interfaces.iter().find(|web| web.port == 443).unwrap();
    slice.interfaces = vec![web.clone(), on("lan0", web), on("lan1", web)];
    let group = slice.interfaces[0].rows[0].from.clone();
    let Sources::Groups(groups) = group else {
        panic!("{group:?}")
    };
    slice.devices = vec![SliceDevice {
        id: "spiffe://plant.example/device/plc".parse().unwrap(),
        groups,
        net: "lan0".to_owned(),
        recognised: Recognition {
            mac: None,
            ip: Some("192.0.2.7".parse().unwrap()),
            certificate: None,
        },
        seen_as: None,
    }];
    let engine = Engine::new(Arc::new(slice)).unwrap();
    let device = FilterSubject::Device(DeviceIndex(0));
    let vouched = Standing {
        state: AttestationState::Vouched,
        ..trusted()
    };
    let nets = |subjects: &[(FilterSubject, Standing)]| -> Vec<(String, FilterSubject)> {
        let rows = rows(&engine, subjects, Link::Online, NOW);
        let allowed = rows.interfaces.iter().flat_map(|interface| {
            let subjects = interface.allowed.iter().map(|entry| entry.subject);
            subjects.map(|subject| (interface.net.clone(), subject))
        });
        allowed.collect()
    };
    let peer = FilterSubject::Peer(engine.peer(&node("a1")).unwrap());
    assert_eq!(
        nets(&[(device, vouched), (peer, trusted())]),
        [("mesh".to_owned(), peer), ("lan0".to_owned(), device)]
    );
    // It is vouched for, or it is nobody; and an index that the slice does not hold is nobody.
    assert_eq!(nets(&[(device, trusted())]), []);
    assert_eq!(
        nets(&[(FilterSubject::Device(DeviceIndex(1)), vouched)]),
        []
    );
}

fn engine() -> Engine {
    let policy = CompiledPolicy::compile(&[SourceFile::new("p.toml", POLICY)], 1).unwrap();
    let nodes = [("a1", "a"), ("b1", "b")].map(|(name, role)| FleetNode {
        id: node(name),
        labels: [("role".to_owned(), role.to_owned())].into(),
        tier: Tier::Virtual,
        v4: None,
    });
    let slice = policy
        .slice(
            &node("b1"),
            &Fleet {
                nodes: nodes.into(),
            },
            end(),
        )
        .unwrap();
    Engine::new(Arc::new(slice)).unwrap()
}

fn end() -> Timestamp {
    NOW.plus(Duration::from_secs(86_400))
}

fn trusted() -> Standing {
    Standing {
        state: AttestationState::Trusted,
        tier: Some(Tier::Virtual),
        last_pass: Some(NOW),
        profiles: Some(crate::profile::StatedProfiles::NONE),
        runs: None,
    }
}

fn node(name: &str) -> SpiffeId {
    format!("spiffe://plant.example/node/{name}")
        .parse()
        .unwrap()
}
