use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{PublicKey, SignError, Timestamp};
use parking_lot::Mutex;

use super::*;
use crate::bind::Role;
use crate::bind::endpoint::Identity;
use crate::bind::gate::{PASS_BYTES, PassKey};
use crate::bind::testing::{Fleet, MINUTE, TestNode, TestPolicy};
use crate::shell::demux::{DatagramSink, UdpSender, is_wireguard, quic_inbox};
use crate::shell::quic_socket::QuicSocket;
use crate::shell::udp::{RECV_BUFFER_BYTES, UdpOffload, UdpPort, any_address};

mod dial;

const PATIENCE: Duration = Duration::from_secs(20);

/// [`TEST_NOW`], running on.
struct RunningClock(Instant);

/// Records what the driver does to WireGuard.
#[derive(Default)]
struct FakeWireGuard {
    armed: Mutex<Vec<(Arm, Remote)>>,
    turned: Mutex<Vec<(u64, Secret<[u8; 32]>)>>,
    opened: Mutex<Vec<Opened>>,
    leases: Mutex<Vec<BootTime>>,
    cut: Mutex<Vec<Code>>,
    /// As if the journal could not be written.
    refuse_open: AtomicBool,
}

/// A signer that counts, as a TPM would feel it.
#[derive(Debug)]
struct CountingSigner {
    inner: Arc<dyn Signer>,
    signatures: Arc<AtomicUsize>,
}

/// A node on a UDP port of its own.
struct Running {
    driver: Option<BindDriver>,
    handle: BindHandle,
    events: mpsc::Receiver<Event>,
    wireguard: Arc<FakeWireGuard>,
    signatures: Arc<AtomicUsize>,
    target: PeerTarget,
    stop: Arc<AtomicBool>,
    trust: Arc<ArcSwap<TrustView>>,
}

impl Clock for RunningClock {
    fn now(&self) -> Timestamp {
        TEST_NOW.plus(self.0.elapsed())
    }

    fn boottime(&self) -> BootTime {
        BootTime::from_duration(MINUTE + self.0.elapsed())
    }
}

impl WireGuardControl for FakeWireGuard {
    fn arm(&self, arm: Arm, at: Remote) -> Result<(), ControlFailed> {
        self.armed.lock().push((arm, at));
        Ok(())
    }

    fn turn(
        &self,
        _peer: &SpiffeId,
        epoch: u64,
        psk: Secret<[u8; 32]>,
    ) -> Result<(), ControlFailed> {
        self.turned.lock().push((epoch, psk));
        Ok(())
    }

    fn open(&self, opened: &Opened) -> Result<(), ControlFailed> {
        if self.refuse_open.load(Ordering::Relaxed) {
            return Err(ControlFailed("journal is full".into()));
        }
        self.opened.lock().push(opened.clone());
        Ok(())
    }

    fn set_lease(
        &self,
        _peer: &SpiffeId,
        until: BootTime,
        _allowed_ips: &[IpNet],
    ) -> Result<(), ControlFailed> {
        self.leases.lock().push(until);
        Ok(())
    }

    fn cut(&self, _peer: &SpiffeId, ending: &Ending) {
        self.cut.lock().push(ending.code);
    }
}

impl Signer for CountingSigner {
    fn public_key(&self) -> &PublicKey {
        self.inner.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.signatures.fetch_add(1, Ordering::Relaxed);
        self.inner.sign(message)
    }
}

impl Running {
    fn start(fleet: &Fleet, node: &TestNode, clock: &Arc<dyn Clock>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), fleet, node, clock)
    }

    fn start_at(local: SocketAddr, fleet: &Fleet, node: &TestNode, clock: &Arc<dyn Clock>) -> Self {
        let port = Arc::new(UdpPort::bind(local, UdpOffload::default()).unwrap());
        let (sink, source) = quic_inbox();
        let stop = Arc::new(AtomicBool::new(false));
        receive_in_background(Arc::clone(&port), sink, Arc::clone(&stop));
        let socket = QuicSocket::new(source, UdpSender::new(Arc::clone(&port))).unwrap();
        let signatures = Arc::new(AtomicUsize::new(0));
        let signer = CountingSigner {
            inner: Arc::clone(node.svid.signer()),
            signatures: Arc::clone(&signatures),
        };
        let wireguard = Arc::new(FakeWireGuard::default());
        let trust = Arc::new(ArcSwap::from_pointee(fleet.trust.clone()));
        let local = node.local();
        let (driver, events) = BindDriver::start(Setup {
            socket,
            clock: Arc::clone(clock),
            policy: Arc::new(TestPolicy::granting()),
            control: Arc::clone(&wireguard) as _,
            trust: Arc::clone(&trust),
            keys: Arc::new(ArcSwap::from_pointee(fleet.keys.clone())),
            svid: Svid::new(node.chain.clone(), Arc::new(signer)).unwrap(),
            evidence: OwnEvidence {
                boot_key: local.boot_key,
                boot_id: local.boot_id,
                result: local.result,
                boot_statement: None,
            },
            wireguard: local.wireguard,
            slice_number: 3,
            link: CloudLink::Online,
            standing: Vec::new(),
        })
        .unwrap();
        Self {
            handle: driver.handle(),
            driver: Some(driver),
            events,
            wireguard,
            signatures,
            target: PeerTarget {
                id: node.id.clone(),
                spki: node.spki(),
                endpoints: vec![SocketAddr::new(
                    "127.0.0.1".parse().unwrap(),
                    port.local_addr().unwrap().port(),
                )],
            },
            stop,
            trust,
        }
    }

    async fn meets(&self, other: &Self) {
        self.handle
            .set_directory(vec![other.target.spki])
            .await
            .unwrap();
        other
            .handle
            .set_directory(vec![self.target.spki])
            .await
            .unwrap();
    }

    /// Says to the driver what WireGuard would: the handshake under the newest key is complete.
    async fn confirm(&self, peer: &SpiffeId) {
        let epoch = self.wireguard.armed.lock().last().unwrap().0.epoch;
        self.handle
            .wireguard_confirmed(peer.clone(), epoch)
            .await
            .unwrap();
    }

    async fn opened(&mut self) -> Opened {
        loop {
            if let Event::Opened(opened) = self.event().await {
                return *opened;
            }
        }
    }

    async fn event(&mut self) -> Event {
        tokio::time::timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("the driver runs")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What the receive thread of the node does for QUIC.
fn receive_in_background(port: Arc<UdpPort>, sink: DatagramSink, stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; RECV_BUFFER_BYTES];
        let mut meta = [quinn_udp::RecvMeta::default()];
        while !stop.load(Ordering::Relaxed) {
            match port.recv(&mut [std::io::IoSliceMut::new(&mut buffer)], &mut meta) {
                Ok(_) => {
                    for datagram in buffer[..meta[0].len].chunks(meta[0].stride.max(1)) {
                        assert!(!is_wireguard(datagram), "QUIC must not look like WireGuard");
                        sink.offer(meta[0].addr, meta[0].dst_ip, None, datagram);
                    }
                }
                Err(_) => std::thread::park_timeout(Duration::from_millis(1)),
            }
        }
    });
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(RunningClock(Instant::now()))
}

/// Two nodes, the first with the smaller key: the one that dials at once.
fn two(fleet: &Fleet) -> (Running, Running) {
    let clock = clock();
    let (one, other) = (fleet.node("a"), fleet.node("b"));
    let (first, second) = if one.spki() < other.spki() {
        (one, other)
    } else {
        (other, one)
    };
    (
        Running::start(fleet, &first, &clock),
        Running::start(fleet, &second, &clock),
    )
}

async fn open(a: &mut Running, b: &mut Running) {
    a.meets(b).await;
    a.handle.want(b.target.clone()).await.unwrap();
    eventually("both arm", || {
        !a.wireguard.armed.lock().is_empty() && !b.wireguard.armed.lock().is_empty()
    })
    .await;
    a.confirm(&b.target.id).await;
    b.confirm(&a.target.id).await;
    assert!(matches!(a.event().await, Event::Opened(_)));
    assert!(matches!(b.event().await, Event::Opened(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_bind_over_one_port_and_reach_equal_keys() {
    let fleet = Fleet::new("plant.example");
    let (mut a, mut b) = two(&fleet);
    open(&mut a, &mut b).await;
    {
        let (armed_a, armed_b) = (a.wireguard.armed.lock(), b.wireguard.armed.lock());
        let ((arm_a, at_a), (arm_b, at_b)) = (&armed_a[0], &armed_b[0]);
        assert!(arm_a.psk.matches(arm_b.psk.expose()));
        assert_eq!((arm_a.role, arm_b.role), (Role::Initiator, Role::Responder));
        assert_eq!(at_a.address, b.target.endpoints[0]);
        assert_eq!(at_b.address, a.target.endpoints[0]);
        assert_eq!((&arm_a.peer, &arm_b.peer), (&b.target.id, &a.target.id));
    }
    assert_eq!(a.signatures.load(Ordering::Relaxed), 1);
    assert_eq!(b.signatures.load(Ordering::Relaxed), 1);

    a.handle.turn(b.target.id.clone()).await.unwrap();
    eventually("both turn", || {
        !a.wireguard.turned.lock().is_empty() && !b.wireguard.turned.lock().is_empty()
    })
    .await;
    {
        let (turned_a, turned_b) = (a.wireguard.turned.lock(), b.wireguard.turned.lock());
        assert!(turned_a[0].1.matches(turned_b[0].1.expose()));
        assert_eq!(turned_a[0].0, a.wireguard.armed.lock()[0].0.epoch + 1);
    }
    assert_eq!(
        a.signatures.load(Ordering::Relaxed),
        1,
        "a turn costs no signature"
    );
    assert_eq!(b.signatures.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_of_both_address_families_meet() {
    let fleet = Fleet::new("plant.example");
    let clock = clock();
    let mut a = Running::start_at(any_address(0), &fleet, &fleet.node("a"), &clock);
    let mut b = Running::start(&fleet, &fleet.node("b"), &clock);
    open(&mut a, &mut b).await;
    assert_eq!(a.wireguard.armed.lock()[0].1.address, b.target.endpoints[0]);

    let mut a = Running::start_at(any_address(0), &fleet, &fleet.node("a"), &clock);
    let mut b = Running::start_at(any_address(0), &fleet, &fleet.node("b"), &clock);
    open(&mut a, &mut b).await;
    assert_eq!(b.wireguard.armed.lock()[0].1.address, a.target.endpoints[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_dialling_at_once_leaves_one_bind() {
    let fleet = Fleet::new("plant.example");
    let (mut a, mut b) = two(&fleet);
    a.meets(&b).await;
    // The second waits before it dials: the first begins just when that wait is over.
    b.handle.want(a.target.clone()).await.unwrap();
    tokio::time::sleep(DIAL_PATIENCE - Duration::from_millis(3)).await;
    a.handle.want(b.target.clone()).await.unwrap();
    eventually("both arm the same key", || {
        let (armed_a, armed_b) = (a.wireguard.armed.lock(), b.wireguard.armed.lock());
        match (armed_a.last(), armed_b.last()) {
            (Some((arm_a, _)), Some((arm_b, _))) => arm_a.psk.matches(arm_b.psk.expose()),
            _ => false,
        }
    })
    .await;
    a.confirm(&b.target.id).await;
    b.confirm(&a.target.id).await;
    let opened_a = a.opened().await;
    let opened_b = b.opened().await;
    assert_eq!(opened_a.transcript, opened_b.transcript);
    assert_eq!(opened_a.role, opened_b.role.other());
    if a.wireguard.armed.lock().len() + b.wireguard.armed.lock().len() > 2 {
        assert_eq!(
            opened_a.role,
            Role::Initiator,
            "the smaller key's dial survives"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_takes_both_tunnels_and_a_denied_key_is_cut_by_a_recheck() {
    let fleet = Fleet::new("plant.example");
    let (mut a, mut b) = two(&fleet);
    open(&mut a, &mut b).await;
    a.handle.cut(b.target.id.clone(), Code::Cut).await.unwrap();
    eventually("both cut", || {
        !a.wireguard.cut.lock().is_empty() && !b.wireguard.cut.lock().is_empty()
    })
    .await;

    let (mut a, mut b) = two(&fleet);
    open(&mut a, &mut b).await;
    let denied = edgeward_identity::deny::Denied {
        reason: "quarantined".into(),
        until: TEST_NOW.plus(MINUTE),
    };
    let mut view = fleet.trust.clone();
    view.deny = edgeward_identity::DenyList::new(1, [(b.target.spki, denied)].into()).unwrap();
    a.trust.store(Arc::new(view));
    a.handle.recheck().await.unwrap();
    eventually("cut", || a.wireguard.cut.lock().contains(&Code::Identity)).await;
    let event = a.event().await;
    let Event::Ended {
        ending, was_open, ..
    } = event
    else {
        panic!("{event:?}");
    };
    assert!(was_open && ending.cut);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_vanishes_leaves_the_tunnel_to_its_lease() {
    let fleet = Fleet::new("plant.example");
    let (mut a, mut b) = two(&fleet);
    open(&mut a, &mut b).await;
    b.driver.take().unwrap().shutdown().await;
    let event = a.event().await;
    let Event::Ended { ending, .. } = event else {
        panic!("{event:?}");
    };
    assert_eq!(
        ending.code,
        Code::Shutdown,
        "a goodbye takes the tunnel along"
    );
    assert!(ending.cut);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bind_whose_record_cannot_be_written_does_not_open() {
    let fleet = Fleet::new("plant.example");
    let (mut a, b) = two(&fleet);
    a.wireguard.refuse_open.store(true, Ordering::Relaxed);
    a.meets(&b).await;
    a.handle.want(b.target.clone()).await.unwrap();
    eventually("armed", || !a.wireguard.armed.lock().is_empty()).await;
    a.confirm(&b.target.id).await;
    let event = a.event().await;
    let Event::Ended { ending, .. } = event else {
        panic!("{event:?}");
    };
    assert_eq!(ending.code, Code::Internal);
    assert!(a.wireguard.opened.lock().is_empty());
    assert!(a.wireguard.cut.lock().contains(&Code::Internal));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_started_anew_takes_over_without_a_cut() {
    let fleet = Fleet::new("plant.example");
    let clock = clock();
    let (node, mut peer) = (fleet.node("a"), fleet.node("b"));
    let mut a = Running::start(&fleet, &node, &clock);
    let mut b = Running::start(&fleet, &peer, &clock);
    open(&mut a, &mut b).await;
    // The same node once more, as after a crash: the same SVID, another WireGuard key, another port.
    b.stop.store(true, Ordering::Relaxed);
    peer.wireguard = fleet.node("spare").wireguard;
    let mut again = Running::start(&fleet, &peer, &clock);
    again
        .handle
        .set_directory(vec![a.target.spki])
        .await
        .unwrap();
    again.handle.want(a.target.clone()).await.unwrap();
    eventually("armed anew", || a.wireguard.armed.lock().len() >= 2).await;
    eventually("armed there", || !again.wireguard.armed.lock().is_empty()).await;
    a.confirm(&again.target.id).await;
    again.confirm(&a.target.id).await;
    assert!(matches!(again.event().await, Event::Opened(_)));
    let event = a.event().await;
    let Event::Adrift { ending, .. } = event else {
        panic!("{event:?}");
    };
    assert_eq!(ending.code, Code::Superseded);
    assert!(matches!(a.event().await, Event::Opened(_)));
    let armed = a.wireguard.armed.lock();
    assert!(
        armed[1].0.epoch > armed[0].0.epoch,
        "epochs grow across binds"
    );
    assert_eq!(armed[1].0.wireguard_key, peer.wireguard.public());
    assert!(a.wireguard.cut.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_wireguard_key_is_bound_anew_while_the_tunnel_goes_on() {
    let fleet = Fleet::new("plant.example");
    let (mut a, mut b) = two(&fleet);
    open(&mut a, &mut b).await;
    let fresh = fleet.node("spare").wireguard;
    a.handle.set_wireguard(Arc::clone(&fresh)).await.unwrap();
    eventually("bound anew", || b.wireguard.armed.lock().len() >= 2).await;
    assert_eq!(b.wireguard.armed.lock()[1].0.wireguard_key, fresh.public());
    assert!(a.wireguard.cut.lock().is_empty() && b.wireguard.cut.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_result_reaches_the_peer_and_extends_its_lease() {
    let fleet = Fleet::new("plant.example");
    let clock = clock();
    let (mut node, peer) = (fleet.node("a"), fleet.node("b"));
    let mut a = Running::start(&fleet, &node, &clock);
    let mut b = Running::start(&fleet, &peer, &clock);
    open(&mut a, &mut b).await;
    fleet.attest(&mut node, TEST_NOW.plus(Duration::from_secs(3)));
    a.handle.set_result(node.result.clone()).await.unwrap();
    eventually("extended", || !b.wireguard.leases.lock().is_empty()).await;
    let armed_until = b.wireguard.armed.lock()[0].0.until;
    assert!(b.wireguard.leases.lock()[0] > armed_until);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_for_another_key_gets_no_answer() {
    let fleet = Fleet::new("plant.example");
    let (a, b) = two(&fleet);
    a.meets(&b).await;
    let mut wrong = b.target.clone();
    wrong.spki = SpkiHash::from_bytes([7; 32]);
    a.handle.want(wrong).await.unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(b.signatures.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_result_neither_dials_nor_answers() {
    let fleet = Fleet::new("plant.example");
    let clock = clock();
    let (node, mut bare) = (fleet.node("a"), fleet.node("b"));
    let result = std::mem::take(&mut bare.result);
    let a = Running::start(&fleet, &node, &clock);
    let b = Running::start(&fleet, &bare, &clock);
    a.meets(&b).await;
    a.handle.want(b.target.clone()).await.unwrap();
    b.handle.want(a.target.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(b.signatures.load(Ordering::Relaxed), 0);
    b.handle.set_result(result).await.unwrap();
    eventually("armed", || !a.wireguard.armed.lock().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_in_the_directory_gets_no_answer_and_costs_no_signature() {
    let fleet = Fleet::new("plant.example");
    let (a, b) = two(&fleet);
    b.handle.set_directory(vec![]).await.unwrap();
    a.handle.want(b.target.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(b.signatures.load(Ordering::Relaxed), 0);
    assert_eq!(a.signatures.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_kinds_of_identity_are_refused_on_either_side() {
    let fleet = Fleet::new("plant.example");
    let clock = clock();
    for kind in ["cloud/main", "operator/eve", "workload/eve"] {
        let node = Running::start(&fleet, &fleet.node("a"), &clock);
        let mut impostor = Running::start(&fleet, &fleet.member(kind), &clock);
        node.meets(&impostor).await;
        impostor.handle.want(node.target.clone()).await.unwrap();
        let event = impostor.event().await;
        assert!(
            matches!(event, Event::DialFailed { .. } | Event::Ended { .. }),
            "{event:?}"
        );

        node.handle.want(impostor.target.clone()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(node.wireguard.armed.lock().is_empty());
        assert!(impostor.wireguard.armed.lock().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_first_flights_of_strangers_cost_no_signature_and_members_still_bind() {
    let fleet = Fleet::new("plant.example");
    let (mut a, mut b) = two(&fleet);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = b.target.endpoints[0];
    for n in 0..1000_u32 {
        stranger.send_to(&first_flight(n), target).unwrap();
        if n % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(b.signatures.load(Ordering::Relaxed), 0);
    open(&mut a, &mut b).await;
    assert_eq!(b.signatures.load(Ordering::Relaxed), 1);
}

/// A member of the fleet that speaks QUIC and TLS as it should and writes what it likes on the stream.
async fn write_raw(fleet: &Fleet, victim: &mut Running, bytes: &[u8]) -> Ending {
    let member = fleet.node("mallory");
    let trust = Arc::new(ArcSwap::from_pointee(fleet.trust.clone()));
    let identity = Identity::new(&member.svid, &trust, &clock()).unwrap();
    let port =
        Arc::new(UdpPort::bind("127.0.0.1:0".parse().unwrap(), UdpOffload::default()).unwrap());
    let (sink, source) = quic_inbox();
    let stop = Arc::new(AtomicBool::new(false));
    receive_in_background(Arc::clone(&port), sink, Arc::clone(&stop));
    let socket = QuicSocket::new(source, UdpSender::new(port)).unwrap();
    let endpoint = crate::bind::endpoint::open(socket, &identity).unwrap();
    victim
        .handle
        .set_directory(vec![member.spki()])
        .await
        .unwrap();
    let pass = PassKey::new(fleet.authority.trust_domain(), &victim.target.spki)
        .issue(&member.spki(), [1; 4]);
    let connection = identity
        .connect(&endpoint, victim.target.endpoints[0], pass)
        .unwrap()
        .await
        .unwrap();
    let other_stream = tokio::time::timeout(Duration::from_millis(50), connection.open_uni()).await;
    assert!(
        other_stream.is_err(),
        "one bidirectional stream and no other"
    );
    let (mut sender, _receiver) = connection.open_bi().await.unwrap();
    sender.write_all(bytes).await.unwrap();
    let event = victim.event().await;
    stop.store(true, Ordering::Relaxed);
    match event {
        Event::Ended { ending, .. } => ending,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_breaks_the_protocol_is_refused_and_nothing_is_armed() {
    let fleet = Fleet::new("plant.example");
    let clock = clock();
    let mut node = Running::start(&fleet, &fleet.node("a"), &clock);
    for bytes in [
        [0xff; 8].as_slice(),
        &[0, 0, 0, 0, 0],
        &[0, 1, 0, 1, 0],
        &[0, 0, 0, 1, 99],
        &[0, 0, 0, 3, 6, 0, 0, 0],
    ] {
        let ending = write_raw(&fleet, &mut node, bytes).await;
        assert!(
            matches!(ending.code, Code::Protocol | Code::Unspecified),
            "{bytes:?}: {ending:?}"
        );
        assert!(!ending.cut);
    }
    assert!(node.wireguard.armed.lock().is_empty());
}

/// A well-formed header of an Initial packet of QUIC version 1 with a random destination, padded to 1,200 bytes.
fn first_flight(n: u32) -> Vec<u8> {
    let mut id = [0; PASS_BYTES];
    id[..4].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
    let mut packet = vec![0xc3, 0, 0, 0, 1, u8::try_from(PASS_BYTES).unwrap()];
    packet.extend(id);
    packet.extend([0, 0]); // no source id, no token
    packet.extend([0x44, 0x80]); // length 1,152
    packet.resize(1200, 0);
    packet
}
