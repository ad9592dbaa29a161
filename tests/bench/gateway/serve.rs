//! A gateway on loopback, as agents run it, with one policy for everybody: no tunnel, no TPM, no cloud. Who comes from
//! 127.0.0.1 is the peer that owns that address; it may `GET /status/**` and call `/bench.Echo/*`, and nothing else.
//!
//! gateway-bench PORT SERVICE:PORT [http|mqtt|modbus]: of MQTT topics below `bench/`, of Modbus reading is allowed.

#![allow(clippy::print_stdout, reason = "says where it listens")]

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use edgeward_agent::enforce::decide::{Anchor, BoundPeer, Decider, Picture, PictureParts, Rules};
use edgeward_agent::enforce::hearing::Hearing;
use edgeward_agent::enforce::own::OwnResult;
use edgeward_agent::enforce::{Nets, RecordRefused, Recorder};
use edgeward_agent::gateway::{Gateway, Parts};
use edgeward_agent::view::{CloudLink, CutFloors, HeldSlice, Overlay, Standing};
use edgeward_audit::Event;
use edgeward_identity::testing::{TEST_NOW, TestAuthority, TurnedClock};
use edgeward_identity::{AttestationState, Clock, SpkiHash, Tier};
use edgeward_policy::l7::Patterns;
use edgeward_policy::slice::{
    Effect, GroupId, Lifetimes, MESH, Profiles, Roles, Row, SLICE_SCHEMA, Slice, SliceInterface,
    SlicePeer, Sources, States, Term, Tiers,
};
use edgeward_policy::{ActionId, L7, Proto, Seconds, Standing as Evidence, StatedProfiles};
use edgeward_tunnel::node::PeerId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

struct Nowhere;

#[async_trait]
impl Recorder for Nowhere {
    async fn record(&self, _event: Event) -> Result<(), RecordRefused> {
        Ok(())
    }

    fn record_after(&self, _event: Event) {}
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let mut word = || {
        words
            .next()
            .ok_or_else(|| anyhow::anyhow!("gateway-bench PORT SERVICE:PORT"))
    };
    let (port, to): (u16, SocketAddr) = (word()?.parse()?, word()?.parse()?);
    let l7 = l7(&words.next().unwrap_or_else(|| "http".to_owned()))?;
    let authority = TestAuthority::new("plant.example");
    let clock = TurnedClock::at(TEST_NOW);
    let slice = slice(&authority, port, to, l7)?;
    let decider = Arc::new(Decider::new(Picture::new(parts(
        &authority, &clock, slice,
    )?)));
    let node = authority.svid("node/a");
    let token = CancellationToken::new();
    // Held to the end: who cannot hear of changes of trust serves nobody.
    let trust_changed = watch::Sender::new(0);
    let gateway = Gateway::new(
        Parts {
            node: node.id().clone(),
            clock: clock as _,
            svid: watch::Sender::new(Arc::new(node)).subscribe(),
            trust: Arc::new(ArcSwap::from_pointee(authority.trust_view())),
            trust_changed: trust_changed.subscribe(),
            decider,
            recorder: Arc::new(Nowhere),
            posture: Arc::default(),
            mesh: "lo".parse()?,
            nets: Nets::default(),
            report_every: Duration::from_secs(10),
            set_listening: Box::new(|spots| println!("listens: {spots:?}")),
        },
        token,
    )?;
    gateway.run().await;
    drop(trust_changed);
    Ok(())
}

fn parts(
    authority: &TestAuthority,
    clock: &TurnedClock,
    slice: Slice,
) -> anyhow::Result<PictureParts> {
    let passed = TEST_NOW.minus(Duration::from_secs(60));
    let peer = BoundPeer {
        id: authority.id("node/b"),
        spki: SpkiHash::from_bytes([2; 32]),
        evidence: Evidence {
            state: AttestationState::Trusted,
            tier: Some(Tier::Hardware),
            last_pass: Some(passed),
            profiles: Some(StatedProfiles::NONE),
            runs: None,
        },
        runs: None,
        by_boot_statement: false,
    };
    let held = HeldSlice {
        number: 1,
        digest: [0; 32],
        bytes: slice.to_json().into(),
        slice,
    };
    Ok(PictureParts {
        standing: Standing::Granting,
        node: authority.id("node/a"),
        overlay: Overlay {
            v6: Ipv6Addr::LOCALHOST,
            v4: Some(Ipv4Addr::LOCALHOST),
        },
        own: Some(OwnResult {
            state: AttestationState::Trusted,
            tier: Tier::Hardware,
            passed,
        }),
        floors: Arc::new(CutFloors::default()),
        hearing: Hearing::begin(&CloudLink::never_since(TEST_NOW), clock.boottime()),
        rules: Some(Arc::new(Rules::new(&held)?)),
        anchor: Anchor {
            wall: clock.now(),
            boot: clock.boottime(),
        },
        bound: HashMap::from([(PeerId(1), peer)]),
        listening: Arc::default(),
        exit: None,
        served: Arc::default(),
    })
}

fn l7(proto: &str) -> anyhow::Result<L7> {
    Ok(match proto {
        "http" => L7::Http(vec![
            action("read", "GET /status/**")?,
            action("call", "POST /bench.Echo/*")?,
            action("write", "POST /config/**")?,
        ]),
        "mqtt" => L7::Mqtt(vec![
            action("publish", "publish bench/#")?,
            action("subscribe", "subscribe bench/#")?,
        ]),
        "modbus" => L7::Modbus(vec![
            action("read", "fc:1-4 addr:0-999")?,
            action("write", "fc:16 addr:0-99")?,
        ]),
        other => anyhow::bail!("neither http, mqtt nor modbus: {other}"),
    })
}

fn action<P>(name: &str, pattern: &str) -> anyhow::Result<Patterns<P>>
where
    P: std::str::FromStr<Err = edgeward_policy::l7::BadPattern>,
{
    Ok(Patterns {
        action: name.to_owned(),
        any_of: vec![pattern.parse()?],
    })
}

fn slice(authority: &TestAuthority, port: u16, to: SocketAddr, l7: L7) -> anyhow::Result<Slice> {
    let term = Term {
        own: None,
        default: Seconds::from_hours(12),
        most: None,
    };
    let row = Row {
        rule: "clients-read".into(),
        effect: Effect::Allow,
        from: Sources::Groups(vec![GroupId(0)]),
        actions: vec![ActionId(0), ActionId(1)],
        window: None,
        until: None,
        tiers: Tiers::Rooted,
        states: States::Proven,
        profiles: Profiles::Every,
        runs: Vec::new(),
        approval: false,
        fresh: term,
        offline: term,
    };
    let id = authority.id("node/b");
    Ok(Slice {
        schema: SLICE_SCHEMA.to_owned(),
        version: 1,
        policy_hash: "00".repeat(32),
        roles: Roles::default(),
        routes: Vec::new(),
        node: authority.id("node/a"),
        expires: TEST_NOW.plus(Duration::from_secs(86_400)),
        groups: vec!["clients".to_owned()],
        windows: Vec::new(),
        interfaces: vec![SliceInterface {
            service: "bench".to_owned(),
            name: "http".to_owned(),
            net: MESH.to_owned(),
            proto: Proto::Tcp,
            port,
            to: Some(to),
            beyond: None,
            l7: Some(l7),
            rows: vec![row],
        }],
        peers: vec![SlicePeer {
            v6: edgeward_identity::overlay::ipv6_of(&id),
            id,
            groups: vec![GroupId(0)],
            v4: Some(Ipv4Addr::LOCALHOST),
            fresh: None,
            offline: None,
            software: false,
            relay: false,
            exit: false,
            routes: Vec::new(),
            devices: Vec::new(),
        }],
        operators: Vec::new(),
        egress: Vec::new(),
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
    })
}
