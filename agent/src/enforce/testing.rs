//! A node with one interface, a peer that may reach it, and one that it may reach; turned by hand.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::overlay::ipv6_of;
use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{AttestationState, BootTime, SpiffeId, SpkiHash, Tier, Timestamp};
use edgeward_policy::slice::{
    Effect, Egress, EgressRow, GroupId, Lifetimes, MESH, PeerIndex, Profiles, Roles, Row,
    SLICE_SCHEMA, Slice, SliceInterface, SlicePeer, Sources, States, Term, Tiers,
};
use edgeward_policy::{ActionId, Proto, Seconds, Standing as Evidence, StatedProfiles};
use edgeward_tunnel::filter::FlowKey;
use edgeward_tunnel::node::PeerId;

use super::decide::{Anchor, BoundPeer, PictureParts, Rules};
use super::hearing::{Hearing, SETTLE};
use super::own::OwnResult;
use crate::view::{CloudLink, CutFloors, Heard, HeldSlice, Overlay, Standing};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// What the peer may reach at this node.
pub(crate) const OPEN_PORT: u16 = 502;
/// What this node may reach at the peer.
pub(crate) const REACHED_PORT: u16 = 8883;
/// The peer's number.
pub(crate) const PEER: PeerId = PeerId(7);

pub(crate) fn id(name: &str) -> SpiffeId {
    format!("spiffe://plant.example/node/{name}")
        .parse()
        .unwrap()
}

pub(crate) fn boot(seconds: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(seconds))
}

/// `a` is this node, `b` its peer in group 0; rules bound both ways by `fresh` 10 min and `offline` 12 h.
pub(crate) fn slice() -> Slice {
    let term = |seconds| Term {
        own: None,
        default: Seconds::new(seconds),
        most: None,
    };
    let (fresh, offline) = (term(600), term(12 * 3600));
    Slice {
        schema: SLICE_SCHEMA.to_owned(),
        version: 1,
        policy_hash: "00".repeat(32),
        roles: Roles::default(),
        routes: Vec::new(),
        node: id("a"),
        expires: TEST_NOW.plus(MINUTE * 60 * 24),
        groups: vec!["clients".to_owned()],
        windows: Vec::new(),
        interfaces: vec![SliceInterface {
            service: "line3".to_owned(),
            name: "modbus".to_owned(),
            net: MESH.to_owned(),
            proto: Proto::Tcp,
            port: OPEN_PORT,
            to: None,
            beyond: None,
            l7: None,
            rows: vec![Row {
                rule: "b-reads".into(),
                effect: Effect::Allow,
                from: Sources::Groups(vec![GroupId(0)]),
                actions: vec![ActionId::CONNECT],
                window: None,
                until: None,
                tiers: Tiers::Rooted,
                states: States::Proven,
                profiles: Profiles::Every,
                runs: Vec::new(),
                approval: false,
                fresh,
                offline,
            }],
        }],
        peers: vec![SlicePeer {
            id: id("b"),
            groups: vec![GroupId(0)],
            v6: ipv6_of(&id("b")),
            v4: Some("100.64.0.2".parse().unwrap()),
            fresh: None,
            offline: None,
            software: false,
            relay: false,
            exit: false,
            routes: Vec::new(),
            devices: Vec::new(),
        }],
        operators: Vec::new(),
        egress: vec![Egress {
            peer: PeerIndex(0),
            service: "broker".to_owned(),
            interface: "mqtt".to_owned(),
            proto: Proto::Tcp,
            port: REACHED_PORT,
            beyond: None,
            devices: Vec::new(),
            rows: vec![EgressRow {
                rule: "a-publishes".into(),
                window: None,
                until: None,
                approval: false,
                fresh,
                offline,
            }],
        }],
        profiles: Vec::new(),
        lifetimes: Lifetimes {
            largest_offline: Seconds::from_hours(12),
            max_offline: Seconds::from_hours(72),
        },
        workloads: Vec::new(),
        devices: Vec::new(),
        approvals: Vec::new(),
        break_glass: Vec::new(),
        apps: Default::default(),
    }
}

pub(crate) fn rules(slice: Slice) -> Arc<Rules> {
    let bytes: Arc<[u8]> = slice.to_json().into();
    let held = HeldSlice {
        number: slice.version,
        digest: [1; 32],
        slice,
        bytes,
    };
    Arc::new(Rules::new(&held).unwrap())
}

/// A link that was heard at `seconds`, whose wall time then was [`TEST_NOW`].
pub(crate) fn heard(seconds: u64) -> CloudLink {
    CloudLink {
        heard: Some(Heard {
            at: boot(seconds),
            time: TEST_NOW,
            lost_after: edgeward_wire::limits::HEARTBEAT_LOST_AFTER,
        }),
        before_boot: TEST_NOW.minus(MINUTE * 60),
        connected: true,
        changed: None,
    }
}

/// Long enough online that nothing settles any more.
pub(crate) fn online() -> Hearing {
    let begun = Hearing::begin(&heard(1000), boot(1000));
    let later = 1000 + SETTLE.as_secs();
    begun.after(&heard(later), boot(later))
}

pub(crate) fn cut_off_at(last_heartbeat: Timestamp) -> Hearing {
    Hearing::begin(&CloudLink::never_since(last_heartbeat), boot(1))
}

pub(crate) fn evidence(passed: Timestamp) -> Evidence {
    Evidence {
        state: AttestationState::Trusted,
        tier: Some(Tier::Hardware),
        last_pass: Some(passed),
        profiles: Some(StatedProfiles::NONE),
        runs: None,
    }
}

pub(crate) fn spki(byte: u8) -> SpkiHash {
    SpkiHash::from_bytes([byte; 32])
}

/// Everything as it should be: `b` is bound, passed a minute ago, and the cloud is heard.
pub(crate) fn parts() -> PictureParts {
    PictureParts {
        standing: Standing::Granting,
        node: id("a"),
        overlay: Overlay {
            v6: ipv6_of(&id("a")),
            v4: Some("100.64.0.1".parse().unwrap()),
        },
        own: Some(OwnResult {
            state: AttestationState::Trusted,
            tier: Tier::Hardware,
            passed: TEST_NOW.minus(MINUTE),
        }),
        floors: Arc::new(CutFloors::default()),
        hearing: online(),
        rules: Some(rules(slice())),
        anchor: Anchor {
            wall: TEST_NOW,
            boot: boot(5000),
        },
        bound: HashMap::from([(
            PEER,
            BoundPeer {
                id: id("b"),
                spki: spki(2),
                evidence: evidence(TEST_NOW.minus(MINUTE)),
                runs: None,
                by_boot_statement: false,
            },
        )]),
        listening: Arc::default(),
        exit: None,
        served: Arc::default(),
    }
}

/// From `b` to the open interface of `a`.
pub(crate) fn inward() -> FlowKey {
    FlowKey {
        protocol: 6,
        source: ipv6_of(&id("b")).into(),
        destination: ipv6_of(&id("a")).into(),
        source_port: 40_000,
        destination_port: OPEN_PORT,
    }
}

/// From `a` to what it may reach at `b`.
pub(crate) fn outward() -> FlowKey {
    FlowKey {
        protocol: 6,
        source: ipv6_of(&id("a")).into(),
        destination: ipv6_of(&id("b")).into(),
        source_port: 40_000,
        destination_port: REACHED_PORT,
    }
}
