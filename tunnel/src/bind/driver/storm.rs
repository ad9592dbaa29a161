//! A hub comes back and all its peers want it at once: real QUIC and TLS over loopback, one process, software keys.
//!
//! `EDGEWARD_STORM_PEERS` says how many, `EDGEWARD_STORM_SIGN_MS` how long the hub's signer takes
//! (`tests/bench/tunnel/storm`).

use std::net::UdpSocket;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{PublicKey, SignError, Timestamp};
use parking_lot::Mutex;
use quinn::Runtime as _;

use super::hub::Hub;
use super::*;
use crate::bind::testing::{Fleet, MINUTE, TestNode, TestPolicy};

/// Longest time for one peer more than its share of the hub's signatures.
const SLACK: Duration = Duration::from_secs(90);

struct RunningClock(Instant);

impl Clock for RunningClock {
    fn now(&self) -> Timestamp {
        TEST_NOW.plus(self.0.elapsed())
    }

    fn boottime(&self) -> BootTime {
        BootTime::from_duration(MINUTE + self.0.elapsed())
    }
}

/// Completes every WireGuard handshake at once.
#[derive(Default)]
struct ReadyWireGuard(Mutex<Option<mpsc::Sender<Command>>>);

impl WireGuardControl for ReadyWireGuard {
    fn arm(&self, arm: Arm, _at: Remote) -> Result<(), ControlFailed> {
        let confirmed = Command::Confirmed(arm.peer, arm.epoch);
        let commands = self.0.lock().clone();
        commands
            .and_then(|commands| commands.try_send(confirmed).ok())
            .ok_or_else(|| ControlFailed("queue is full".to_owned()))
    }

    fn turn(&self, _: &SpiffeId, _: u64, _: Secret<[u8; 32]>) -> Result<(), ControlFailed> {
        Ok(())
    }

    fn open(&self, _: &Opened) -> Result<(), ControlFailed> {
        Ok(())
    }

    fn set_lease(&self, _: &SpiffeId, _: BootTime, _: &[IpNet]) -> Result<(), ControlFailed> {
        Ok(())
    }

    fn cut(&self, _: &SpiffeId, _: &Ending) {}
}

/// The hub's key: counts, and takes its time as a TPM does.
#[derive(Debug)]
struct SlowSigner {
    inner: Arc<dyn Signer>,
    takes: Duration,
    signatures: Arc<AtomicUsize>,
}

impl Signer for SlowSigner {
    fn public_key(&self) -> &PublicKey {
        self.inner.public_key()
    }

    #[allow(clippy::disallowed_methods, reason = "a signature takes real time")]
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.signatures.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.takes);
        self.inner.sign(message)
    }
}

struct Running {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Event>,
    target: PeerTarget,
}

/// Starts a node on the present runtime.
fn start(fleet: &Fleet, node: &TestNode, svid: Svid, clock: &Arc<dyn Clock>) -> Running {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let local = node.local();
    let control = Arc::new(ReadyWireGuard::default());
    let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
    let (events, outbox) = mpsc::channel(MAX_WANTED);
    *control.0.lock() = Some(commands.clone());
    let setup = Setup {
        socket: quinn::TokioRuntime.wrap_udp_socket(socket).unwrap(),
        clock: Arc::clone(clock),
        policy: Arc::new(TestPolicy::granting()),
        control,
        trust: Arc::new(ArcSwap::from_pointee(fleet.trust.clone())),
        keys: Arc::new(ArcSwap::from_pointee(fleet.keys.clone())),
        svid,
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
    };
    tokio::spawn(Hub::new(setup, inbox, events).unwrap().run());
    Running {
        commands,
        events: outbox,
        target: PeerTarget {
            id: node.id.clone(),
            spki: node.spki(),
            endpoints: vec![address],
        },
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_hub_that_comes_back_lets_all_its_peers_in_without_a_storm() {
    let peers = usize::try_from(number("EDGEWARD_STORM_PEERS", 120)).unwrap();
    let takes = Duration::from_millis(number("EDGEWARD_STORM_SIGN_MS", 0));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(storm(peers, takes));
    runtime.shutdown_background();
}

async fn storm(peers: usize, takes: Duration) {
    let fleet = Fleet::new("plant.example");
    let clock: Arc<dyn Clock> = Arc::new(RunningClock(Instant::now()));
    let hub = fleet.node("hub");
    let signatures = Arc::new(AtomicUsize::new(0));
    let signer = SlowSigner {
        inner: Arc::clone(hub.svid.signer()),
        takes,
        signatures: Arc::clone(&signatures),
    };
    let svid = Svid::new(hub.chain.clone(), Arc::new(signer)).unwrap();
    let mut hub = start(&fleet, &hub, svid, &clock);
    let edges: Vec<Running> = (0..peers)
        .map(|number| {
            let node = fleet.node(&format!("edge-{number}"));
            let svid = node.svid.clone();
            start(&fleet, &node, svid, &clock)
        })
        .collect();
    let keys = edges.iter().map(|edge| edge.target.spki).collect();
    hub.commands.send(Command::Directory(keys)).await.unwrap();
    let begun = Instant::now();
    for edge in &edges {
        let directory = Command::Directory(vec![hub.target.spki]);
        edge.commands.send(directory).await.unwrap();
        let want = Command::Want(hub.target.clone());
        edge.commands.send(want).await.unwrap();
    }
    let mut opened: Vec<Duration> = Vec::with_capacity(peers);
    let mut each_second: Vec<usize> = Vec::new();
    // What the signer can do in half of its time, and at most what the gate allows.
    let share = (takes * 2)
        .max(Duration::from_millis(20))
        .max(Duration::from_millis(500) / 8);
    let deadline = share.saturating_mul(u32::try_from(peers).unwrap()) + SLACK;
    while opened.len() < peers {
        let left = deadline.saturating_sub(begun.elapsed());
        let event = tokio::time::timeout(left, hub.events.recv()).await;
        let event =
            event.unwrap_or_else(|_| panic!("{} of {peers} within {deadline:?}", opened.len()));
        if let Some(Event::Opened(_)) = event {
            let at = begun.elapsed();
            let second = usize::try_from(at.as_secs()).unwrap();
            each_second.resize(each_second.len().max(second + 1), 0);
            each_second[second] += 1;
            opened.push(at);
        }
    }
    let signatures = signatures.load(Ordering::Relaxed);
    let busiest = each_second.iter().max().copied().unwrap_or(0);
    let at = |share: usize| opened[(peers * share / 100).min(peers - 1)].as_secs_f64();
    println!(
        "| {peers} | {} | {:.1} | {:.1} | {:.1} | {busiest} | {signatures} |",
        takes.as_millis(),
        at(50),
        at(99),
        at(100),
    );
    assert!(
        signatures <= peers + peers / 10 + 5,
        "{signatures} signatures for {peers} peers"
    );
    let most =
        usize::try_from(crate::bind::gate::MOST_PER_MINUTE + crate::bind::gate::GLOBAL_BURST)
            .unwrap();
    assert!(busiest <= most / 10, "{busiest} in one second");
    drop(edges);
}
