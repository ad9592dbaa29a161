//! Namespaces, and one enforcement in each, on threads and a runtime of its own.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use edgeward_agent::enforce::data_path::DataPath;
use edgeward_agent::enforce::{self, EnforceConfig, Nets, Progress, RecordRefused, Recorder};
use edgeward_agent::status::{self, Status};
use edgeward_agent::view::{CloudLink, Heard, NodeView, Publisher};
use edgeward_audit::{Event, EventKind};
use edgeward_identity::{BootTime, Clock, SpiffeId, SystemClock, Timestamp};
use nix::sched::{CloneFlags, setns};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, Member, overlay};

static LABS: AtomicUsize = AtomicUsize::new(0);

const TRY: Duration = Duration::from_secs(2);

/// Two namespaces with a cable between them.
pub(crate) struct Namespaces {
    prefix: String,
}

pub(crate) struct Lab {
    pub(crate) member: Member,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) recorder: Arc<Memory>,
    pub(crate) result: Arc<[u8]>,
    pub(crate) ipv4: &'static str,
    pub(crate) nets: Nets,
    view: Option<NodeView>,
    namespace: PathBuf,
    folder: tempfile::TempDir,
    token: CancellationToken,
    silent: Arc<AtomicBool>,
    progress: Option<watch::Receiver<Progress>>,
    thread: Option<JoinHandle<()>>,
}

/// A journal in memory.
#[derive(Default)]
pub(crate) struct Memory {
    events: Mutex<Vec<Event>>,
    refuse: Mutex<Option<EventKind>>,
    refused: AtomicUsize,
}

/// A TCP connection that asks and is answered.
pub(crate) struct Asking(TcpStream);

impl Namespaces {
    /// `None` where the machine cannot.
    pub(crate) fn new() -> Option<Self> {
        let able = nix::unistd::geteuid().is_root() && works("ip", "-V") && works("nft", "-v");
        if !able {
            return None;
        }
        let namespaces = Self {
            prefix: format!(
                "ewe{}-{}",
                std::process::id(),
                LABS.fetch_add(1, Ordering::Relaxed)
            ),
        };
        let (a, b) = (namespaces.name("a"), namespaces.name("b"));
        ip(&["netns", "add", &a]);
        ip(&["netns", "add", &b]);
        ip(&[
            "link", "add", "eth0", "netns", &a, "type", "veth", "peer", "name", "eth0", "netns", &b,
        ]);
        for (name, address) in [(&a, "192.0.2.1/24"), (&b, "192.0.2.2/24")] {
            ip(&["-n", name, "link", "set", "lo", "up"]);
            ip(&["-n", name, "addr", "add", address, "dev", "eth0"]);
            ip(&["-n", name, "link", "set", "eth0", "up"]);
        }
        Some(namespaces)
    }

    pub(crate) fn name(&self, node: &str) -> String {
        format!("{}-{node}", self.prefix)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for node in ["a", "b"] {
            let _gone = Command::new("ip")
                .args(["netns", "del", &self.name(node)])
                .output();
        }
    }
}

impl Lab {
    pub(crate) fn new(namespaces: &Namespaces, fleet: &Fleet, name: &str) -> Self {
        let member = fleet.member(name);
        let (publisher, view) = fleet.view(&member);
        Self {
            member,
            publisher: Arc::new(publisher),
            recorder: Arc::default(),
            result: Arc::default(),
            ipv4: if name == "a" {
                "192.0.2.1"
            } else {
                "192.0.2.2"
            },
            nets: Nets::default(),
            view: Some(view),
            namespace: Path::new("/var/run/netns").join(namespaces.name(name)),
            folder: tempfile::tempdir().unwrap(),
            token: CancellationToken::new(),
            silent: Arc::default(),
            progress: None,
            thread: None,
        }
    }

    pub(crate) fn id(&self) -> SpiffeId {
        self.member.id.clone()
    }

    pub(crate) fn v6(&self) -> Ipv6Addr {
        overlay(&self.member.id)
    }

    /// The cloud says that this node passed.
    pub(crate) fn attest(&mut self, fleet: &Fleet, passed: Timestamp) {
        self.result = fleet.result(&mut self.member, passed);
        self.publisher
            .result
            .send_replace(Some(Arc::clone(&self.result)));
    }

    /// Starts enforcement inside the namespace.
    pub(crate) fn start(&mut self) {
        let view = self.view.take().unwrap();
        let config = EnforceConfig {
            metered: false,
            relay: edgeward_agent::reach::allowance::RelayConfig::default(),
            demand: edgeward_agent::enforce::demand::DemandConfig::default(),
            device: "edgeward0".parse().unwrap(),
            listen: "[::]:51820".parse().unwrap(),
            mtu: 1420,
            data_path: DataPath::default(),
            status_socket: self.socket(),
            wireguard_folder: self.folder.path().to_owned(),
            kernel_leases: true,
            nets: self.nets.clone(),
            report_every: Duration::from_millis(500),
            exit: None,
            exit_use: edgeward_agent::enforce::steer::ExitUse::default(),
            ext_authz: None,
        };
        let (recorder, token) = (Arc::clone(&self.recorder), self.token.clone());
        let publisher = Arc::clone(&self.publisher);
        let silent = Arc::clone(&self.silent);
        let namespace = self.namespace.clone();
        let (tell, told) = mpsc::channel();
        self.thread = Some(std::thread::spawn(move || {
            enter(&namespace);
            // Its threads are made here, and so live in the namespace.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let log = std::env::var("EDGEWARD_TEST_LOG").unwrap_or_else(|_| "off".to_owned());
            // Only the first node of the process can.
            let _started = edgeward_runtime::telemetry::init(&log, Default::default());
            runtime.block_on(async move {
                let beating = tokio::spawn(beat(publisher, silent));
                let enforcement = enforce::start(view, recorder, config, token).await.unwrap();
                tell.send(enforcement.progress()).unwrap();
                enforcement.run().await.unwrap();
                beating.abort();
            });
        }));
        self.progress = Some(told.recv().unwrap());
    }

    pub(crate) fn stop(&mut self) {
        self.token.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// No heartbeat comes any more, and the last one came 31 seconds ago.
    pub(crate) fn lose_the_cloud(&self) {
        self.silent.store(true, Ordering::Relaxed);
        let ago = Duration::from_secs(31);
        self.publisher.link.send_modify(|link| {
            link.heard = Some(Heard {
                at: BootTime::from_duration(SystemClock.boottime().as_duration() - ago),
                time: SystemClock.now().minus(ago),
                lost_after: edgeward_wire::limits::HEARTBEAT_LOST_AFTER,
            });
        });
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.progress.as_ref().unwrap().borrow()
    }

    pub(crate) fn status(&self) -> Status {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(status::ask(&self.socket())).unwrap()
    }

    /// The table of the tunnel, as the kernel has it.
    pub(crate) fn nft(&self) -> String {
        self.run("nft", &["list", "table", "inet", "edgeward_edgeward0"])
    }

    pub(crate) fn nft_all(&self) -> String {
        self.run("nft", &["list", "ruleset"])
    }

    /// What `wg show` makes of the read-only socket, or why it is not asked.
    pub(crate) fn wg_show(&self) -> String {
        let mut stream =
            std::os::unix::net::UnixStream::connect(self.folder.path().join("edgeward0.sock"))
                .unwrap();
        stream.write_all(b"get=1\n\n").unwrap();
        stream.set_read_timeout(Some(TRY)).unwrap();
        let mut answer = vec![0; 65_536];
        let length = stream.read(&mut answer).unwrap();
        let text = String::from_utf8(answer[..length].to_vec()).unwrap();
        assert!(text.contains("public_key="), "{text}");
        assert!(
            !text.contains("private_key=") && !text.contains("preshared_key="),
            "{text}"
        );
        text
    }

    /// Does something in the namespace.
    fn inside<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = self.namespace.clone();
        std::thread::spawn(move || {
            enter(&namespace);
            act()
        })
        .join()
        .unwrap()
    }

    fn run(&self, program: &'static str, arguments: &[&'static str]) -> String {
        let arguments = arguments.to_vec();
        self.inside(move || {
            let output = Command::new(program).args(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        })
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl Memory {
    pub(crate) fn refuse(&self, kind: Option<EventKind>) {
        *self.refuse.lock() = kind;
    }

    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, kind: EventKind) -> usize {
        self.kinds().iter().filter(|found| **found == kind).count()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    pub(crate) fn kinds(&self) -> Vec<EventKind> {
        self.events.lock().iter().map(|event| event.kind).collect()
    }
}

#[async_trait]
impl Recorder for Memory {
    async fn record(&self, event: Event) -> Result<(), RecordRefused> {
        if *self.refuse.lock() == Some(event.kind) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(RecordRefused("full".to_owned()));
        }
        self.events.lock().push(event);
        Ok(())
    }

    fn record_after(&self, event: Event) {
        self.events.lock().push(event);
    }
}

impl Asking {
    pub(crate) fn ask(&mut self) -> std::io::Result<String> {
        self.0.write_all(b"?")?;
        let mut answer = [0; 5];
        self.0.read_exact(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// Answers every byte with `hello` at the overlay address.
pub(crate) fn serve(lab: &Lab, port: u16) -> JoinHandle<()> {
    let address = SocketAddr::new(lab.v6().into(), port);
    let listener = lab.inside(move || TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(b"hello").is_ok() {}
            });
        }
    })
}

pub(crate) fn connect(from: &Lab, to: &Lab, port: u16) -> std::io::Result<Asking> {
    let address = SocketAddr::new(to.v6().into(), port);
    from.inside(move || {
        let stream = TcpStream::connect_timeout(&address, TRY)?;
        stream.set_read_timeout(Some(TRY))?;
        Ok(Asking(stream))
    })
}

/// A connection that was answered. Both may have dialled at once: then the tunnel turns once more after it opened.
pub(crate) fn answered(from: &Lab, to: &Lab, port: u16) -> Asking {
    let mut found = None;
    eventually(Duration::from_secs(20), "the interface answers", || {
        let mut stream = match connect(from, to, port) {
            Ok(stream) => stream,
            Err(_) => return false,
        };
        let hello = stream.ask().is_ok_and(|answer| answer == "hello");
        found = hello.then_some(stream);
        hello
    });
    found.unwrap()
}

pub(crate) fn exchange(from: &Lab, to: &Lab, port: u16) -> std::io::Result<String> {
    connect(from, to, port)?.ask()
}

pub(crate) fn eventually(within: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The cloud's heartbeats.
async fn beat(publisher: Arc<Publisher>, silent: Arc<AtomicBool>) {
    while !silent.load(Ordering::Relaxed) {
        publisher.link.send_modify(|link: &mut CloudLink| {
            link.heard = Some(Heard {
                at: SystemClock.boottime(),
                time: SystemClock.now(),
                lost_after: edgeward_wire::limits::HEARTBEAT_LOST_AFTER,
            });
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

pub(crate) fn enter(namespace: &Path) {
    let file = std::fs::File::open(namespace).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}

fn works(program: &str, argument: &str) -> bool {
    let output = Command::new(program).arg(argument).output();
    output.is_ok_and(|output| output.status.success())
}

pub(crate) fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {complaint}");
}
