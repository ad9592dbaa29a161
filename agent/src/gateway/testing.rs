//! A gateway on loopback, with a picture that tests change by hand. The tunnel is `lo`: node `b` owns 127.0.0.2 there,
//! node `c` 127.0.0.3, and the gateway listens at 127.0.0.1 and ::1. A second network, `lan0`, is `lo` too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use edgeward_audit::{Event, EventKind};
use edgeward_identity::deny::Denied;
use edgeward_identity::testing::{TEST_NOW, TestAuthority, TurnedClock};
use edgeward_identity::tls::{Credentials, PeerVerifier};
use edgeward_identity::{
    AttestationState, Clock, DenyList, Kind, SpiffeId, SpkiHash, Svid, Tier, TrustView,
};
use edgeward_policy::slice::{GroupId, MESH, SliceInterface, SliceOperator, SlicePeer, Sources};
use edgeward_policy::{ActionId, L7, Proto, Slice, SliceDevice, Standing as Evidence};
use edgeward_tunnel::node::PeerId;
use parking_lot::Mutex;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{Gateway, Parts, Shown};
use crate::enforce::decide::{Anchor, BoundPeer, Decider, Picture, PictureParts};
use crate::enforce::own::OwnResult;
use crate::enforce::posture::Posture;
use crate::enforce::testing as enforce;
use crate::enforce::{Nets, RecordRefused, Recorder};
use crate::view::Overlay;

/// Long enough for whatever is to happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(5);
/// How often what was decided is recorded.
const REPORT_EVERY: Duration = Duration::from_millis(50);

/// Ports that no other test of this process uses.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

pub(crate) struct Rig {
    pub(crate) authority: TestAuthority,
    pub(crate) clock: Arc<TurnedClock>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) shown: Arc<Shown>,
    /// What the filter was told.
    pub(crate) listening: Arc<Mutex<HashSet<(Proto, u16)>>>,
    parts: Mutex<PictureParts>,
    decider: Arc<Decider>,
    trust: Arc<ArcSwap<TrustView>>,
    trust_changed: watch::Sender<u64>,
    token: CancellationToken,
}

/// Events in memory.
#[derive(Default)]
pub(crate) struct Journal(Mutex<Vec<Event>>);

#[async_trait]
impl Recorder for Journal {
    async fn record(&self, event: Event) -> Result<(), RecordRefused> {
        self.0.lock().push(event);
        Ok(())
    }

    fn record_after(&self, event: Event) {
        self.0.lock().push(event);
    }
}

impl Journal {
    /// Events of a kind, as JSON.
    pub(crate) fn of(&self, kind: EventKind) -> Vec<serde_json::Value> {
        let events = self.0.lock();
        let of_kind = events.iter().filter(|event| event.kind == kind);
        of_kind
            .map(|event| serde_json::to_value(event).unwrap())
            .collect()
    }
}

/// An interface of group 0 on the tunnel that is forwarded to `to`; `b` is in the group, `c` is not.
pub(crate) fn interface(port: u16, to: SocketAddr, l7: Option<L7>) -> SliceInterface {
    let mut interface = enforce::slice().interfaces.remove(0);
    interface.port = port;
    interface.to = Some(to);
    interface.l7 = l7;
    let row = interface.rows.first_mut().unwrap();
    row.actions = vec![ActionId(0)];
    row.from = Sources::Groups(vec![GroupId(0)]);
    interface
}

/// A port that is free at 127.0.0.1 and ::1, and stays with the caller.
pub(crate) fn port() -> u16 {
    loop {
        let offset = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let base = u16::try_from(20_000 + std::process::id() % 10_000).unwrap();
        let port = base + offset;
        let free = |address: SocketAddr| StdListener::bind(address).is_ok();
        if free((Ipv4Addr::LOCALHOST, port).into()) && free((Ipv6Addr::LOCALHOST, port).into()) {
            return port;
        }
    }
}

pub(crate) async fn eventually(what: &str, done: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(SOON, async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect(what);
}

impl Rig {
    /// Runs a gateway until the rig is dropped.
    pub(crate) async fn start(interfaces: Vec<SliceInterface>) -> Self {
        let authority = TestAuthority::new("plant.example");
        let clock = TurnedClock::at(TEST_NOW);
        let node = authority.svid("node/a");
        let parts = picture_parts(&clock, slice(interfaces));
        let decider = Arc::new(Decider::new(Picture::new(parts.clone())));
        let journal = Arc::<Journal>::default();
        let posture = Arc::<Posture>::default();
        let listening = Arc::<Mutex<HashSet<(Proto, u16)>>>::default();
        let trust = Arc::new(ArcSwap::from_pointee(authority.trust_view()));
        let trust_changed = watch::Sender::new(0);
        let token = CancellationToken::new();
        let told = Arc::clone(&listening);
        let lan = BTreeMap::from([("lan0".to_owned(), "lo".parse().unwrap())]);
        let gateway = Gateway::new(
            Parts {
                node: node.id().clone(),
                clock: Arc::clone(&clock) as _,
                svid: watch::Sender::new(Arc::new(node.clone())).subscribe(),
                trust: Arc::clone(&trust),
                trust_changed: trust_changed.subscribe(),
                decider: Arc::clone(&decider),
                recorder: Arc::clone(&journal) as _,
                posture: Arc::clone(&posture),
                mesh: "lo".parse().unwrap(),
                nets: Nets::new(lan, &"edgeward0".parse().unwrap()).unwrap(),
                report_every: REPORT_EVERY,
                set_listening: Box::new(move |spots| {
                    let mesh = spots.iter().filter(|spot| &*spot.net == MESH);
                    *told.lock() = mesh.map(|spot| (spot.proto, spot.port)).collect();
                }),
            },
            token.clone(),
        )
        .unwrap();
        let shown = gateway.shown();
        tokio::spawn(gateway.run());
        let (sums, book, node) = (posture, Arc::clone(&journal), node.id().clone());
        let ended = token.clone();
        tokio::spawn(async move {
            while !ended.is_cancelled() {
                sums.write_as(&node, &*book).await;
                tokio::time::sleep(REPORT_EVERY).await;
            }
        });
        Self {
            authority,
            clock,
            journal,
            shown,
            listening,
            parts: Mutex::new(parts),
            decider,
            trust,
            trust_changed,
            token,
        }
    }

    /// Waits until every interface listens.
    pub(crate) async fn up(&self) {
        eventually("the gateway listens", async || {
            let stands = self.shown.status();
            !stands.is_empty() && stands.iter().all(|stand| stand.failed.is_none())
        })
        .await;
    }

    /// Changes the picture, as enforcement would.
    pub(crate) fn change(&self, change: impl FnOnce(&mut PictureParts)) {
        let mut parts = self.parts.lock();
        change(&mut parts);
        parts.anchor = Anchor {
            wall: self.clock.now(),
            boot: self.clock.boottime(),
        };
        self.decider.replace(Arc::new(Picture::new(parts.clone())));
    }

    /// Puts other interfaces into force.
    pub(crate) fn put(&self, interfaces: Vec<SliceInterface>) {
        self.change(|parts| parts.rules = Some(enforce::rules(slice(interfaces))));
    }

    /// Puts another slice into force.
    pub(crate) fn put_slice(&self, slice: Slice) {
        self.change(|parts| parts.rules = Some(enforce::rules(slice)));
    }

    /// Takes `b` away, as a cut would.
    pub(crate) fn cut_b(&self) {
        self.change(|parts| {
            parts.bound.remove(&B);
        });
    }

    /// The bind of a peer rests on this key.
    pub(crate) fn bind_with(&self, peer: PeerId, spki: SpkiHash) {
        self.change(|parts| parts.bound.get_mut(&peer).unwrap().spki = spki);
    }

    pub(crate) fn deny(&self, spki: SpkiHash) {
        let denied = Denied {
            reason: "revoked".to_owned(),
            until: TEST_NOW.plus(Duration::from_secs(86_400)),
        };
        let deny = DenyList::new(1, BTreeMap::from([(spki, denied)])).unwrap();
        self.trust.store(Arc::new(TrustView {
            bundle: self.authority.bundle(),
            deny,
        }));
        self.trust_changed.send_replace(1);
    }

    /// A TLS client with a certificate, from an address.
    pub(crate) async fn tls(
        &self,
        from: Ipv4Addr,
        port: u16,
        svid: &Svid,
        alpn: &[&[u8]],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let verifier = PeerVerifier::mandatory(
            Arc::new(ArcSwap::from_pointee(self.authority.trust_view())),
            Arc::clone(&self.clock) as _,
            &[Kind::Node],
        );
        let config = edgeward_identity::tls::client(Credentials::new(svid), verifier, alpn);
        let stream = dial(from, port).await?;
        let name = "gateway.invalid".try_into().unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

pub(crate) const B: PeerId = enforce::PEER;
pub(crate) const C: PeerId = PeerId(8);
pub(crate) const B_AT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
pub(crate) const C_AT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// An address that no peer owns.
pub(crate) const NOBODY_AT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// A connection to the gateway from one address.
pub(crate) async fn dial(from: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect((Ipv4Addr::LOCALHOST, port).into()).await
}

/// Interfaces, peers `b` (group 0) and `c` (no group), operator `ada` (group 1) and device `plc` at 127.0.0.4 on
/// `lan0` (group 0).
pub(crate) fn slice(interfaces: Vec<SliceInterface>) -> Slice {
    let mut slice = enforce::slice();
    slice.interfaces = interfaces;
    slice.groups.push("operators".to_owned());
    slice.peers.first_mut().unwrap().v4 = Some(B_AT);
    let id = enforce::id("c");
    slice.peers.push(SlicePeer {
        v6: edgeward_identity::overlay::ipv6_of(&id),
        id,
        groups: Vec::new(),
        v4: Some(C_AT),
        fresh: None,
        offline: None,
        software: false,
        relay: false,
        exit: false,
        routes: Vec::new(),
        devices: Vec::new(),
    });
    slice.operators.push(SliceOperator {
        id: spiffe("operator/ada"),
        groups: vec![GroupId(1)],
    });
    slice.devices.push(SliceDevice {
        id: spiffe("device/plc"),
        groups: vec![GroupId(0)],
        net: "lan0".to_owned(),
        recognised: edgeward_policy::Recognition {
            mac: None,
            ip: Some(Ipv4Addr::new(127, 0, 0, 4).into()),
            certificate: None,
        },
        seen_as: None,
    });
    slice
}

pub(crate) fn spiffe(path: &str) -> SpiffeId {
    format!("spiffe://plant.example/{path}").parse().unwrap()
}

fn picture_parts(clock: &TurnedClock, slice: Slice) -> PictureParts {
    let mut parts = enforce::parts();
    parts.overlay = Overlay {
        v6: Ipv6Addr::LOCALHOST,
        v4: Some(Ipv4Addr::LOCALHOST),
    };
    parts.anchor = Anchor {
        wall: clock.now(),
        boot: clock.boottime(),
    };
    let evidence: Evidence = enforce::evidence(TEST_NOW.minus(enforce::MINUTE));
    parts.own = Some(OwnResult {
        state: AttestationState::Trusted,
        tier: Tier::Hardware,
        passed: TEST_NOW.minus(enforce::MINUTE),
    });
    let c = BoundPeer {
        id: enforce::id("c"),
        spki: enforce::spki(3),
        evidence,
        runs: None,
        by_boot_statement: false,
    };
    let mut bound = HashMap::from([(C, c)]);
    bound.extend(std::mem::take(&mut parts.bound));
    parts.bound = bound;
    parts.rules = Some(enforce::rules(slice));
    parts
}
