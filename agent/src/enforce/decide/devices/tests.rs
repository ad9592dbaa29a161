use std::sync::Arc;

use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{Tier, Timestamp};
use edgeward_policy::slice::GroupId;
use edgeward_policy::{Recognition, Slice};
use edgeward_wire::control::{Cut, CutReason};

use super::super::PictureParts;
use super::*;
use crate::enforce::testing::{MINUTE, cut_off_at, parts, rules, slice};
use crate::view::{CutFloors, Held, Standing};

const PLC_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x11]);
const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x99]);

fn id(name: &str) -> SpiffeId {
    format!("spiffe://plant.example/device/{name}")
        .parse()
        .unwrap()
}

fn device(
    name: &str,
    mac: Option<Mac>,
    ip: Option<&str>,
    certificate: Option<[u8; 32]>,
) -> SliceDevice {
    SliceDevice {
        id: id(name),
        groups: vec![GroupId(0)],
        net: "lan0".to_owned(),
        recognised: Recognition {
            mac,
            ip: ip.map(|ip| ip.parse().unwrap()),
            certificate: certificate.map(hex::encode),
        },
        seen_as: None,
    }
}

fn with(devices: Vec<SliceDevice>) -> PictureParts {
    let slice = Slice { devices, ..slice() };
    PictureParts {
        rules: Some(rules(slice)),
        ..parts()
    }
}

fn seen(ip: &str, mac: Option<Mac>) -> Sighting<'static> {
    Sighting {
        net: "lan0",
        ip: ip.parse().unwrap(),
        mac,
        certificate: None,
    }
}

fn found(picture: &Picture, sighting: Sighting<'_>) -> Option<String> {
    let device = picture.device(&sighting)?;
    Some(device.id.name().to_owned())
}

#[test]
fn who_shows_only_half_of_what_a_device_is_known_by_is_not_that_device() {
    let picture = Picture::new(with(vec![device(
        "plc",
        Some(PLC_MAC),
        Some("192.0.2.7"),
        None,
    )]));
    let plc = Some(id("plc").name().to_owned());
    assert_eq!(found(&picture, seen("192.0.2.7", Some(PLC_MAC))), plc);
    // As a socket of both families shows it.
    assert_eq!(
        found(&picture, seen("::ffff:192.0.2.7", Some(PLC_MAC))),
        plc
    );
    for stranger in [
        seen("192.0.2.7", Some(OTHER_MAC)),
        seen("192.0.2.7", None),
        seen("192.0.2.8", Some(PLC_MAC)),
        Sighting {
            net: "lan1",
            ..seen("192.0.2.7", Some(PLC_MAC))
        },
    ] {
        assert_eq!(found(&picture, stranger), None, "{stranger:?}");
    }
}

#[test]
fn a_device_with_a_certificate_is_known_by_that_certificate_alone() {
    let own = [7; 32];
    let picture = Picture::new(with(vec![
        device("robot", None, None, Some(own)),
        device("fixed", None, Some("192.0.2.8"), Some([8; 32])),
    ]));
    let robot = Some(id("robot").name().to_owned());
    let with_key = |ip, certificate| Sighting {
        certificate: Some(certificate),
        ..seen(ip, None)
    };
    assert_eq!(found(&picture, with_key("192.0.2.9", &own)), robot);
    assert_eq!(found(&picture, seen("192.0.2.9", Some(PLC_MAC))), None);
    assert_eq!(found(&picture, with_key("192.0.2.9", &[9; 32])), None);
    // Its address is part of what this one is known by.
    assert_eq!(found(&picture, with_key("192.0.2.9", &[8; 32])), None);
    assert!(found(&picture, with_key("192.0.2.8", &[8; 32])).is_some());
}

#[test]
fn who_fits_several_devices_is_the_one_that_names_most_and_nobody_if_two_are_alike() {
    let picture = Picture::new(with(vec![
        device("by-mac", Some(PLC_MAC), None, None),
        device("by-ip", None, Some("192.0.2.7"), None),
        device("by-both", Some(PLC_MAC), Some("192.0.2.7"), None),
        device("twin-a", Some(OTHER_MAC), None, None),
        device("twin-b", Some(OTHER_MAC), None, None),
    ]));
    for (ip, mac, name) in [
        ("192.0.2.7", PLC_MAC, Some("by-both")),
        ("192.0.2.8", PLC_MAC, Some("by-mac")),
        ("192.0.2.7", Mac([2; 6]), Some("by-ip")),
        ("192.0.2.7", OTHER_MAC, None),
    ] {
        let expected = name.map(|name| id(name).name().to_owned());
        assert_eq!(found(&picture, seen(ip, Some(mac))), expected, "{ip} {mac}");
    }
}

fn floor(of: &SpiffeId, time: Timestamp) -> Arc<CutFloors> {
    let mut floors = CutFloors::default();
    let cut = Cut {
        node: of.clone(),
        reason: CutReason::Quarantined,
        time,
    };
    floors.add(1, &cut);
    Arc::new(floors)
}

#[test]
fn a_device_is_vouched_for_while_this_node_is_trusted_and_as_old_as_its_pass() {
    let parts = with(Vec::new());
    let (evidence, link) = Picture::new(parts.clone())
        .device_standing(&id("plc"))
        .unwrap();
    assert_eq!(evidence.state, AttestationState::Vouched);
    assert_eq!(evidence.tier, Some(Tier::Hardware));
    assert_eq!(evidence.last_pass, Some(TEST_NOW.minus(MINUTE)));
    assert_eq!(link, Link::Online);

    let mut failed = parts.clone();
    failed.own.as_mut().unwrap().state = AttestationState::Failed;
    let mut unknown = parts.clone();
    unknown.own = None;
    for parts in [failed, unknown] {
        let (evidence, _) = Picture::new(parts).device_standing(&id("plc")).unwrap();
        assert_eq!(evidence.state, AttestationState::Stale);
    }
    let mut cut_off = parts;
    cut_off.hearing = cut_off_at(TEST_NOW.minus(MINUTE * 2));
    let (_, link) = Picture::new(cut_off).device_standing(&id("plc")).unwrap();
    assert!(matches!(link, Link::Offline { .. }));
}

#[test]
fn nothing_is_vouched_for_by_a_node_that_is_held_or_cut_nor_a_device_that_is() {
    let reason = |parts: PictureParts| {
        let standing = Picture::new(parts).device_standing(&id("plc"));
        standing.map(|_| ()).map_err(Nothing::as_str)
    };
    let mut held = with(Vec::new());
    held.standing = Standing::Held(Held::NoFloor);
    assert_eq!(reason(held), Err("held_no_floor"));
    let mut own_cut = with(Vec::new());
    own_cut.floors = floor(&own_cut.node.clone(), TEST_NOW);
    assert_eq!(reason(own_cut), Err("self-cut"));
    let mut cut = with(Vec::new());
    cut.floors = floor(&id("plc"), TEST_NOW);
    assert_eq!(reason(cut.clone()), Err("cut"));
    cut.own.as_mut().unwrap().passed = TEST_NOW.plus(MINUTE);
    assert_eq!(reason(cut), Ok(()));
}
