//! The I/O around the cores: a TUN device and one UDP port, with one thread per direction and one for timers.
//!
//! Everything happens in batches, and no lock is held across a system call. The threads work in the network
//! namespace they were started in.

pub mod demux;
pub mod detour;
mod egress;
mod gso;
mod ingress;
mod inherit;
mod inject;
mod knocking;
mod linger;
pub mod offload;
mod pipe;
mod profile;
pub mod quic_socket;
mod random;
pub mod reach_port;
mod relief;
mod sending;
mod sorting;
pub(crate) mod stop;
mod threads;
mod timer;
pub mod too_big;
mod translating;
pub mod tun;
pub mod udp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use edgeward_identity::Clock;
use parking_lot::Mutex;

pub use inherit::{DeviceFacts, Inherited};
pub use profile::{Profile, SMALL_BYTES, Threads};
pub use random::SystemRandom;

use crate::filter::Filter;
use crate::node::{ArmRefused, CutReport, Node, Outgoing, PeerConfig, PeerId, TurnRefused};
use crate::wireguard::Psk;
use demux::{DatagramSink, UdpSender};
use egress::{Departures, Reader, Sender};
use ingress::{Arrivals, Receiver, Writer};
use inject::Injector;
use pipe::Pipe;
use profile::Sizes;
use reach_port::{ReachDoor, ReachPort};
use relief::Relief;
use stop::{Stop, Watch};
use threads::Out;
use timer::Alarm;
use translating::Translating;
use tun::{TunConfig, TunDevice};
use udp::{UdpOffload, UdpPort};

/// What to open.
#[derive(Clone, Debug)]
pub struct ShellConfig {
    pub tun: TunConfig,
    /// Where to listen; the unspecified IPv6 address serves both families.
    pub listen: SocketAddr,
    pub udp: UdpOffload,
    pub profile: Profile,
    pub threads: Threads,
    /// Whether a thread may wait awake, for a very short time, for what usually comes at once. `small` never does.
    pub linger: bool,
}

/// Why the shell did not start. The operator's fault, or the system's.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("tun device {name}")]
    Tun {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("udp port {address}")]
    Udp {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("mtu of the device and of the node differ: {device} and {node}")]
    Mtu { device: u16, node: usize },
    #[error("thread")]
    Thread(#[source] io::Error),
}

/// A running tunnel. Stops, and takes the device away, when dropped.
pub struct Tunnel {
    shared: Arc<Shared>,
    watch: Watch,
    stop: Mutex<Option<Stop>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    inject: Injector,
}

/// Counters of the shell itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShellCounters {
    /// Datagrams for QUIC that found its queue full.
    pub quic_dropped: u64,
    /// Packets that the device did not take.
    pub device_errors: u64,
    /// Datagrams that the kernel did not take.
    pub send_failures: u64,
    /// Datagrams of channels that were not taken.
    pub inject_dropped: u64,
}

struct Shared {
    sizes: Sizes,
    linger: bool,
    node: Arc<Node>,
    filter: Arc<Filter>,
    device: TunDevice,
    port: Arc<UdpPort>,
    clock: Arc<dyn Clock>,
    alarm: Alarm,
    reach: ReachDoor,
    translating: Translating,
    quic_dropped: AtomicU64,
    device_errors: AtomicU64,
}

impl Tunnel {
    /// Opens device and port and starts the threads. What is not WireGuard goes to `quic`.
    pub fn start(
        config: &ShellConfig,
        node: Arc<Node>,
        filter: Arc<Filter>,
        quic: DatagramSink,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        if usize::from(config.tun.mtu) != node.config().mtu {
            return Err(StartError::Mtu {
                device: config.tun.mtu,
                node: node.config().mtu,
            });
        }
        let port =
            UdpPort::bind_sized(config.listen, config.udp, config.profile).map_err(|source| {
                StartError::Udp {
                    address: config.listen,
                    source,
                }
            })?;
        let device =
            TunDevice::create(&config.tun, config.profile).map_err(|source| StartError::Tun {
                name: config.tun.name.clone(),
                source,
            })?;
        Self::begin(config, device, port, node, filter, quic, clock)
    }

    /// Starts the threads on an open device and port.
    fn begin(
        config: &ShellConfig,
        device: TunDevice,
        port: UdpPort,
        node: Arc<Node>,
        filter: Arc<Filter>,
        quic: DatagramSink,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        if usize::from(config.tun.mtu) != node.config().mtu {
            return Err(StartError::Mtu {
                device: config.tun.mtu,
                node: node.config().mtu,
            });
        }
        let shared = Arc::new(Shared {
            sizes: config.profile.sizes(),
            linger: config.linger && config.profile != Profile::Small,
            node,
            filter,
            device,
            port: Arc::new(port),
            clock,
            alarm: Alarm::default(),
            reach: ReachDoor::new(),
            translating: Translating::default(),
            quic_dropped: AtomicU64::new(0),
            device_errors: AtomicU64::new(0),
        });
        let (stop, watch) = stop::pair().map_err(StartError::Thread)?;
        let tunnel = Self {
            shared,
            watch,
            stop: Mutex::new(Some(stop)),
            threads: Mutex::default(),
            inject: Injector::new(quic.clone()),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = config.threads.resolve(cores, config.profile);
        tunnel.spawn(quic, threads).map_err(StartError::Thread)?;
        Ok(tunnel)
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.shared.node
    }

    pub fn filter(&self) -> &Arc<Filter> {
        &self.shared.filter
    }

    pub fn device(&self) -> &TunDevice {
        &self.shared.device
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.port.local_addr()
    }

    /// What leaves the port bears this mark from now on, for the kernel's rules of routing.
    pub fn mark_port(&self, mark: u32) -> io::Result<()> {
        self.shared.port.set_mark(mark)
    }

    /// Sends on the port that WireGuard uses.
    pub fn udp_sender(&self) -> UdpSender {
        UdpSender::new(Arc::clone(&self.shared.port))
    }

    /// What drives [`Reach`](crate::reach::Reach) works through this.
    pub fn reach(&self) -> ReachPort {
        ReachPort::new(Arc::clone(&self.shared))
    }

    /// [`Node::arm`], with its first message sent.
    pub fn arm(&self, config: PeerConfig) -> Result<(), ArmRefused> {
        self.with_outgoing(|now, out| self.shared.node.arm(config, now, out))
    }

    /// [`Node::turn_epoch`], with its first message sent.
    pub fn turn_epoch(&self, peer: PeerId, psk: Psk, epoch: u64) -> Result<(), TurnRefused> {
        self.with_outgoing(|now, out| self.shared.node.turn_epoch(peer, psk, epoch, now, out))
    }

    /// Takes a peer away: the data path first, then its flows. `None` if it was not armed.
    pub fn cut(&self, peer: PeerId) -> Option<(CutReport, usize)> {
        let report = self.shared.node.cut(peer);
        let flows = self.shared.filter.cut(peer);
        report.map(|report| (report, flows))
    }

    /// Call after any other change to the node (a lease, say): timers may be due earlier.
    pub fn wake_timer(&self) {
        self.shared.wake_timer();
    }

    pub fn counters(&self) -> ShellCounters {
        ShellCounters {
            quic_dropped: self.shared.quic_dropped.load(Ordering::Relaxed),
            device_errors: self.shared.device_errors.load(Ordering::Relaxed),
            send_failures: self.shared.port.send_failures(),
            inject_dropped: self.inject.dropped(),
        }
    }

    /// Whether all threads still run: one that ends early means that the device or the port is gone.
    pub fn is_running(&self) -> bool {
        self.threads
            .lock()
            .iter()
            .all(|thread| !thread.is_finished())
    }

    /// Ends the threads and waits for them.
    pub fn stop(&self) {
        drop(self.stop.lock().take());
        self.shared.alarm.stop();
        self.inject.stop();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the tunnel panicked");
            }
        }
    }

    fn with_outgoing<T>(
        &self,
        act: impl FnOnce(edgeward_identity::BootTime, &mut Vec<Outgoing>) -> T,
    ) -> T {
        let mut outgoing = Vec::new();
        let result = act(self.shared.clock.boottime(), &mut outgoing);
        sending::send_all(&self.shared.port, &self.watch, &mut outgoing);
        self.shared.wake_timer();
        result
    }

    fn spawn(&self, quic: DatagramSink, division: Threads) -> io::Result<()> {
        let shared = || Arc::clone(&self.shared);
        let watch = || self.watch.try_clone();
        let (reader, sender) = (Reader::new(shared()), Sender::new(shared(), watch()?));
        let (mut receiver, mut writer) = (
            Receiver::new(shared(), quic),
            Writer::new(shared(), watch()?),
        );
        let (here, stop) = (shared(), watch()?);
        match division {
            Threads::Shared => {
                let out = Mutex::new(Out::new(&here, reader, sender));
                self.start_thread("tunnel", move || {
                    let into = (&mut receiver, &mut writer);
                    let done = threads::both(&here, &stop, &out, into, None);
                    report(done, "both ways")
                })?;
            }
            Threads::Auto | Threads::One => {
                let relief = Arc::new(Relief::new()?);
                let out = Arc::new(Mutex::new(Out::new(&here, reader, sender)));
                let (help, theirs) = (Arc::clone(&relief), Arc::clone(&out));
                self.start_thread("tunnel", move || {
                    let into = (&mut receiver, &mut writer);
                    let done = threads::both(&here, &stop, &theirs, into, Some(&help));
                    report(done, "both ways")
                })?;
                let (here, stop) = (shared(), watch()?);
                self.start_thread("tunnel-egress", move || {
                    let done = threads::relieve(&here, &stop, &out, &relief);
                    report(done, "from the device")
                })?;
            }
            Threads::Two => {
                let (mut reader, mut sender) = (reader, sender);
                let sizes = &self.shared.sizes;
                let batches = (0..sizes.batches).map(|_| Departures::new(sizes));
                let pipe = Arc::new(Pipe::new(batches.collect()));
                let (filled, mut last) = (Arc::clone(&pipe), Sender::new(shared(), watch()?));
                self.start_thread("tunnel-seal", move || {
                    threads::out_second(&filled, &mut last)
                })?;
                self.start_thread("tunnel-egress", move || {
                    let done = threads::out_first(&here, &stop, &pipe, &mut reader, &mut sender);
                    report(done, "from the device")
                })?;
                let (here, stop) = (shared(), watch()?);
                let batches = (0..sizes.batches).map(|_| Arrivals::new(sizes));
                let pipe = Arc::new(Pipe::new(batches.collect()));
                let (filled, mut last) = (Arc::clone(&pipe), Writer::new(shared(), watch()?));
                self.start_thread("tunnel-write", move || {
                    threads::into_second(&filled, &mut last)
                })?;
                self.start_thread("tunnel-ingress", move || {
                    let done = threads::into_first(&here, &stop, &pipe, &mut receiver, &mut writer);
                    report(done, "from the network")
                })?;
            }
        }
        let (here, stop) = (shared(), watch()?);
        self.start_thread("tunnel-timer", move || timer::run(&here, &stop))
    }

    fn start_thread(&self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)?;
        self.threads.lock().push(thread);
        Ok(())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn mtu(&self) -> usize {
        usize::from(self.device.mtu())
    }

    fn wake_timer(&self) {
        self.alarm.ring_for(self.node.poll_timeout());
    }
}

fn report(result: io::Result<()>, direction: &str) {
    if let Err(error) = result {
        tracing::error!(%error, direction, "the tunnel stops");
    }
}
