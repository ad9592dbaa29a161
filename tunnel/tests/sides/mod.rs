//! Two tunnels with a wire or a router between them.

mod detours;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use edgeward_identity::{BootTime, Clock as _, Secret, SystemClock};
use edgeward_tunnel::filter::{Decide, Direction, Filter, FlowKey, FlowVerdict};
use edgeward_tunnel::node::{MovedPeer, Node, NodeConfig, PeerConfig, PeerId, Refusal, Role};
use edgeward_tunnel::shell::demux::quic_inbox;
use edgeward_tunnel::shell::tun::TunConfig;
use edgeward_tunnel::shell::udp::{UdpOffload, any_address};
use edgeward_tunnel::shell::{Profile, ShellConfig, ShellCounters, SystemRandom, Threads, Tunnel};
use edgeward_tunnel::wireguard::StaticKeys;
use nix::sched::{CloneFlags, setns};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
const A4: &str = "10.97.0.1";
const B4: &str = "10.97.0.2";
const A6: &str = "fd97::1";
const B6: &str = "fd97::2";
const DEVICE: &str = "tunnel0";
const MTU: u16 = 1420;
const PORT: u16 = 51820;
/// Most datagrams sent and not seen yet.
const UNDER_WAY: u32 = 48;
/// Carried in each datagram after its number.
const PADDING: usize = 1000;

/// How the tunnels are to work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) threads: Threads,
    pub(crate) profile: Profile,
    pub(crate) tun_offload: bool,
    pub(crate) udp: UdpOffload,
}

/// Address family of the outer network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    V4,
    V6,
}

/// Two tunnels that know each other. Everything is taken away when dropped.
pub(crate) struct Sides {
    a: Namespace,
    b: Namespace,
    tunnels: [Arc<Tunnel>; 2],
    _router: Option<Namespace>,
    /// Carries for the two.
    relay: Option<Tunnel>,
}

struct Namespace(String);

struct AllowAll;

impl Decide for AllowAll {
    fn decide(
        &self,
        _flow: &FlowKey,
        _peer: PeerId,
        _direction: Direction,
        now: BootTime,
    ) -> FlowVerdict {
        FlowVerdict {
            allow: true,
            rule: "all".into(),
            valid_until: now.plus(PATIENCE * 10),
        }
    }
}

impl Namespace {
    fn new(letter: char) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ewd{}-{number}{letter}", std::process::id());
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Self(name)
    }

    /// Runs `act` in a thread of its own inside; what it opens, and the threads it starts, stay inside.
    fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let place = File::open(format!("/run/netns/{}", self.0)).unwrap();
                setns(place, CloneFlags::CLONE_NEWNET).unwrap();
                act()
            });
            inside.join().unwrap()
        })
    }

    /// Joins two namespaces by a wire with these addresses at its ends.
    fn join(&self, name: &str, other: &Self, ends: [[&str; 2]; 2], mtu: u16) {
        let mtu = mtu.to_string();
        ip(&[
            "link", "add", name, "netns", &self.0, "type", "veth", "peer", "name", name, "netns",
            &other.0,
        ]);
        for (space, addresses) in [(self, ends[0]), (other, ends[1])] {
            for address in addresses {
                let mut arguments = vec!["-n", &space.0, "addr", "add", address, "dev", name];
                if address.contains(':') {
                    arguments.push("nodad");
                }
                ip(&arguments);
            }
            ip(&["-n", &space.0, "link", "set", name, "mtu", &mtu, "up"]);
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

impl Sides {
    /// One wire between both.
    pub(crate) fn joined(choice: Choice, outside: Outside) -> Self {
        let (a, b) = (Namespace::new('a'), Namespace::new('b'));
        let ends = [
            ["192.0.2.1/24", "2001:db8::1/64"],
            ["192.0.2.2/24", "2001:db8::2/64"],
        ];
        a.join("wire", &b, ends, 1500);
        let to = match outside {
            Outside::V4 => "192.0.2.2",
            Outside::V6 => "2001:db8::2",
        };
        let to = SocketAddr::new(to.parse().unwrap(), PORT);
        Self::start(a, b, None, choice, to, |_| {})
    }

    /// A router between both, whose way to the second takes `mtu` bytes.
    pub(crate) fn with_router(choice: Choice, outside: Outside, mtu: u16) -> Self {
        let (a, b, router) = (
            Namespace::new('a'),
            Namespace::new('b'),
            Namespace::new('r'),
        );
        let near = [
            ["192.0.2.1/24", "2001:db8:1::1/64"],
            ["192.0.2.254/24", "2001:db8:1::fe/64"],
        ];
        let far = [
            ["198.51.100.254/24", "2001:db8:2::fe/64"],
            ["198.51.100.2/24", "2001:db8:2::2/64"],
        ];
        a.join("near", &router, near, 1500);
        router.join("far", &b, far, mtu);
        // The far end takes long packets too: only the router refuses.
        router.inside(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        for (space, v4, v6) in [
            (&a, "192.0.2.254", "2001:db8:1::fe"),
            (&b, "198.51.100.254", "2001:db8:2::fe"),
        ] {
            ip(&["-n", &space.0, "route", "add", "default", "via", v4]);
            ip(&["-n", &space.0, "-6", "route", "add", "default", "via", v6]);
        }
        let to = match outside {
            Outside::V4 => "198.51.100.2",
            Outside::V6 => "2001:db8:2::2",
        };
        let to = SocketAddr::new(to.parse().unwrap(), PORT);
        Self::start(a, b, Some(router), choice, to, |_| {})
    }

    fn start(
        a: Namespace,
        b: Namespace,
        router: Option<Namespace>,
        choice: Choice,
        to: SocketAddr,
        prepare: impl FnOnce(&[Arc<Tunnel>; 2]),
    ) -> Self {
        let keys = [1u8, 2].map(|seed| Arc::new(StaticKeys::new(Secret::new([seed; 32]))));
        let own = [[A4, A6], [B4, B6]];
        let tunnels = [&a, &b].map(|space| {
            let [v4, v6] = if std::ptr::eq(space, &a) {
                own[0]
            } else {
                own[1]
            };
            Arc::new(space.inside(|| open(choice, v4, v6)))
        });
        prepare(&tunnels);
        let [mine, theirs] = tunnels;
        let peer = |number: usize, role, endpoints: Vec<SocketAddr>| PeerConfig {
            id: PeerId(1),
            name: "other".to_owned(),
            role,
            public_key: keys[1 - number].public(),
            keys: Arc::clone(&keys[number]),
            psk: Secret::new([7; 32]),
            epoch: 1,
            allowed_ips: own[1 - number]
                .map(|address| address.parse::<IpAddr>().unwrap().into())
                .to_vec(),
            endpoints,
            valid_until: SystemClock.boottime().plus(PATIENCE * 10),
            persistent_keepalive: None,
        };
        theirs.arm(peer(1, Role::Responder, Vec::new())).unwrap();
        mine.arm(peer(0, Role::Initiator, vec![to])).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while mine.node().status()[0].open.is_none() {
            assert!(Instant::now() < deadline, "no handshake to {to}");
            thread::sleep(Duration::from_millis(10));
        }
        Self {
            a,
            b,
            tunnels: [mine, theirs],
            _router: router,
            relay: None,
        }
    }

    /// A TCP stream from the first to the second, whole and unchanged.
    pub(crate) fn stream(&self, ipv6: bool, bytes: usize) {
        let to = if ipv6 { B6 } else { B4 };
        let listener = self
            .b
            .inside(|| TcpListener::bind(SocketAddr::new(to.parse().unwrap(), 0)).unwrap());
        let to = listener.local_addr().unwrap();
        let expected: Vec<u8> = (0..bytes).map(pattern).collect();
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                self.a.inside(|| {
                    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
                    stream.set_write_timeout(Some(PATIENCE)).unwrap();
                    stream.write_all(&expected).unwrap();
                })
            });
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut received = Vec::with_capacity(bytes);
            stream.read_to_end(&mut received).unwrap();
            sender.join().unwrap();
            assert!(received == expected, "{} of {bytes} bytes", received.len());
        });
    }

    /// One packet as long as the device takes, from the first to nobody.
    pub(crate) fn long_datagram(&self) {
        const HEADERS: usize = 28;
        self.a.inside(|| {
            let socket = UdpSocket::bind((A4, 0)).unwrap();
            let packet = vec![0; usize::from(MTU) - HEADERS];
            socket.send_to(&packet, (B4, 9)).unwrap();
        });
        // The router's answer reaches the kernel, not us.
        thread::sleep(Duration::from_millis(200));
    }

    /// Numbered datagrams from the first to the second: each later than the one before it; how many arrived.
    pub(crate) fn ordered_datagrams(&self, count: u32) -> u32 {
        let receiver = self.b.inside(|| UdpSocket::bind((B4, 0)).unwrap());
        let to = receiver.local_addr().unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let sender = self.a.inside(|| UdpSocket::bind((A4, 0)).unwrap());
        let seen = AtomicU32::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=count {
                    let mut datagram = vec![0; 4 + PADDING];
                    datagram[..4].copy_from_slice(&number.to_be_bytes());
                    sender.send_to(&datagram, to).unwrap();
                    // Never more under way than buffers hold, however busy the machine is.
                    let patience = Instant::now() + Duration::from_millis(500);
                    while number - seen.load(Ordering::Relaxed) >= UNDER_WAY
                        && Instant::now() < patience
                    {
                        thread::yield_now();
                    }
                }
            });
            let (mut last, mut arrived) = (0, 0);
            let mut buffer = [0; 2048];
            while last < count {
                let Ok(length) = receiver.recv(&mut buffer) else {
                    break;
                };
                assert_eq!(length, 4 + PADDING);
                let number = u32::from_be_bytes(buffer[..4].try_into().unwrap());
                assert!(number > last, "{number} after {last}");
                (last, arrived) = (number, arrived + 1);
                seen.store(number, Ordering::Relaxed);
            }
            arrived
        })
    }

    /// What the first system was told about the path to the second, inside.
    pub(crate) fn inner_mtu(&self, within: Duration) -> Option<usize> {
        let deadline = Instant::now() + within;
        loop {
            let shown = Command::new("ip")
                .args(["-n", &self.a.0, "route", "get", B4])
                .output()
                .unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            let mut words = shown.split_whitespace();
            if words.any(|word| word == "mtu") {
                return words.next()?.parse().ok();
            }
            if Instant::now() > deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Another node takes the first one's place, as in another process: device, port and peers change hands.
    pub(crate) fn take_over(&self, choice: Choice) -> Tunnel {
        let [old, _] = &self.tunnels;
        let inherited = old.give_away().unwrap();
        let moved: Vec<_> = old.node().export().iter().map(MovedPeer::encode).collect();
        // Before the threads start: what waits in the kernel finds its peer.
        let node = node();
        for peer in moved {
            let peer = MovedPeer::decode(&peer).unwrap();
            node.import(peer, SystemClock.boottime()).unwrap();
        }
        self.a.inside(|| {
            let (quic, _nobody) = quic_inbox();
            Tunnel::start_on(
                &config(choice, A4, A6),
                inherited,
                Arc::new(node),
                Arc::new(Filter::new(Arc::new(AllowAll))),
                quic,
                Arc::new(SystemClock),
            )
            .unwrap()
        })
    }

    pub(crate) fn is_now(&mut self, next: Tunnel) {
        self.tunnels[0] = Arc::new(next);
    }

    /// When the second side completed its last handshake.
    pub(crate) fn handshakes(&self) -> Option<BootTime> {
        self.tunnels[1].node().status()[0].last_handshake
    }

    /// By both.
    pub(crate) fn refused(&self, refusal: Refusal) -> u64 {
        let refused = |tunnel: &Arc<Tunnel>| tunnel.node().refusals().get(refusal);
        self.tunnels.iter().map(refused).sum()
    }

    /// Takes from the wire what it does for the kernel.
    pub(crate) fn without_offload(&self) {
        for space in [&self.a, &self.b] {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &space.0, "ethtool", "-K", "wire"]);
            for feature in ["tx", "rx", "sg", "tso", "gso", "gro"] {
                command.args([feature, "off"]);
            }
            let told = command.output().unwrap();
            assert!(told.status.success(), "ethtool: {told:?}");
        }
    }

    /// Of both.
    pub(crate) fn counters(&self) -> ShellCounters {
        let [a, b] = [0, 1].map(|number: usize| self.tunnels[number].counters());
        ShellCounters {
            send_failures: a.send_failures + b.send_failures,
            device_errors: a.device_errors + b.device_errors,
            ..a
        }
    }
}

fn open(choice: Choice, v4: &str, v6: &str) -> Tunnel {
    let (sink, _nobody) = quic_inbox();
    Tunnel::start(
        &config(choice, v4, v6),
        Arc::new(node()),
        Arc::new(Filter::new(Arc::new(AllowAll))),
        sink,
        Arc::new(SystemClock),
    )
    .unwrap()
}

fn config(choice: Choice, v4: &str, v6: &str) -> ShellConfig {
    ShellConfig {
        tun: TunConfig {
            name: DEVICE.to_owned(),
            mtu: MTU,
            ipv4: Some((v4.parse().unwrap(), 24)),
            ipv6: vec![(v6.parse().unwrap(), 64)],
            offload: choice.tun_offload,
        },
        listen: any_address(PORT),
        udp: choice.udp,
        profile: choice.profile,
        threads: choice.threads,
        linger: true,
    }
}

fn node() -> Node {
    let config = NodeConfig {
        mtu: MTU.into(),
        allow_zero_psk: false,
    };
    Node::new(config, Box::new(SystemRandom::default()))
}

/// Differs from segment to segment, so that exchanged ones are found.
fn pattern(at: usize) -> u8 {
    let at = at as u32;
    (at.wrapping_mul(2_654_435_761) >> 24) as u8
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {}", arguments.join(" "));
}
