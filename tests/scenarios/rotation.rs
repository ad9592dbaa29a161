//! Turns of the pre-shared key under a counted stream, on real devices, ports and threads. What a bad
//! network does to it is held on a simulated one: `tunnel/tests/simulation`.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use edgeward_identity::{BootTime, Clock as _, Secret, SystemClock};
use edgeward_tests::impair::Faults;
use edgeward_tests::netns::{Host, Network};
use edgeward_tunnel::filter::{Decide, Direction, Filter, FlowKey, FlowVerdict};
use edgeward_tunnel::node::{Event, Node, NodeConfig, PeerConfig, PeerId, Role};
use edgeward_tunnel::shell::demux::quic_inbox;
use edgeward_tunnel::shell::tun::TunConfig;
use edgeward_tunnel::shell::udp::{UdpOffload, any_address};
use edgeward_tunnel::shell::{Profile, ShellConfig, SystemRandom, Threads, Tunnel};
use edgeward_tunnel::wireguard::StaticKeys;

/// More on demand: `EDGEWARD_TURNS=1000`.
const TURNS: u64 = 300;
/// Each takes as long as two round trips.
const TURNS_ON_A_BAD_CABLE: u64 = 60;
/// Time from the end of one turn to the next: a node refuses two first messages of one peer within 20 ms, and the
/// second one is repeated only after half a second.
const PAUSE: Duration = Duration::from_millis(25);
/// Time between two packets of the stream.
const PACE: Duration = Duration::from_millis(2);
/// How long one turn may take: a first message that a busy machine lost is repeated within this time.
const TURN_DEADLINE: Duration = Duration::from_secs(10);
const PORT: u16 = 51_820;
const STREAM_PORT: u16 = 9_000;
const PEER: PeerId = PeerId(1);

/// One end, all in this process, its device and ports in a host's namespace.
struct End {
    tunnel: Tunnel,
    stream: UdpSocket,
}

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
            rule: "allow-all".into(),
            valid_until: now.plus(Duration::from_secs(3600)),
        }
    }
}

#[test]
fn turns_of_the_key_lose_no_packet_of_a_stream() -> anyhow::Result<()> {
    edgeward_tests::require_root()?;
    let turns = std::env::var("EDGEWARD_TURNS").map_or(Ok(TURNS), |text| text.parse())?;
    let mut network = Network::new()?;
    let hosts = [network.host("a", 1)?, network.host("b", 2)?];
    turn_under_a_stream(&hosts, turns)
}

/// What is late, twice or out of order is not lost.
#[test]
fn turns_on_a_cable_that_delays_repeats_and_exchanges_lose_no_packet() -> anyhow::Result<()> {
    edgeward_tests::require_root()?;
    let mut network = Network::new()?;
    let near = network.host("a", 1)?;
    let (far, mut cable) = network.host_by_cable("b", 2)?;
    cable.set(&Faults {
        delay_ms: 15,
        jitter_ms: 10,
        reorder: 100,
        duplicate: 50,
        ..Faults::default()
    })?;
    turn_under_a_stream(&[near, far], TURNS_ON_A_BAD_CABLE)
}

fn turn_under_a_stream(hosts: &[Host; 2], turns: u64) -> anyhow::Result<()> {
    let ends = [start(&hosts[0], 1)?, start(&hosts[1], 2)?];
    arm(&ends, hosts)?;
    await_epoch(&ends, 1)?;

    let done = Arc::new(AtomicBool::new(false));
    let mut streams = Vec::new();
    for (from, to) in [(0, 1), (1, 0)] {
        let (sender, receiver) = (ends[from].stream.try_clone()?, ends[to].stream.try_clone()?);
        let target = SocketAddr::new(inner(to).into(), STREAM_PORT);
        let done = Arc::clone(&done);
        streams.push((
            std::thread::spawn(move || send(&sender, target, &done)),
            std::thread::spawn(move || receive(&receiver)),
        ));
    }
    let started = Instant::now();
    for epoch in 2..=turns + 1 {
        for end in ends.iter().rev() {
            end.tunnel.turn_epoch(PEER, psk(epoch), epoch)?;
        }
        await_epoch(&ends, epoch)?;
        std::thread::sleep(PAUSE);
    }
    let took = started.elapsed();
    done.store(true, Ordering::SeqCst);
    for (sender, receiver) in streams {
        let sent = sender
            .join()
            .map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        let received = receiver
            .join()
            .map_err(|_| anyhow::anyhow!("a receiver panicked"))??;
        println!("{turns} turns in {took:?}: {received} of {sent} packets");
        anyhow::ensure!(sent > 2_000, "{sent} packets prove nothing");
        anyhow::ensure!(received == sent, "{received} of {sent} packets arrived");
    }
    for end in &ends {
        let status = end.tunnel.node().status();
        assert_eq!(status[0].open, Some(turns + 1));
        end.tunnel.stop();
    }
    Ok(())
}

/// Starts a tunnel whose device, port and threads are in the host's namespace.
fn start(host: &Host, number: u8) -> anyhow::Result<End> {
    let config = ShellConfig {
        tun: TunConfig {
            name: "ewrot0".into(),
            mtu: 1420,
            ipv4: Some((inner(usize::from(number - 1)), 24)),
            ipv6: Vec::new(),
            offload: true,
        },
        listen: any_address(PORT),
        udp: UdpOffload::default(),
        profile: Profile::default(),
        threads: Threads::default(),
        linger: true,
    };
    host.inside(move || -> anyhow::Result<End> {
        let node = Node::new(
            NodeConfig {
                mtu: 1420,
                allow_zero_psk: false,
            },
            Box::new(SystemRandom::default()),
        );
        let (quic, _nobody) = quic_inbox();
        let tunnel = Tunnel::start(
            &config,
            Arc::new(node),
            Arc::new(Filter::new(Arc::new(AllowAll))),
            quic,
            Arc::new(SystemClock),
        )?;
        let stream = UdpSocket::bind((inner(usize::from(number - 1)), STREAM_PORT))?;
        Ok(End { tunnel, stream })
    })?
}

/// The responder first, as the bind does.
fn arm(ends: &[End; 2], hosts: &[Host; 2]) -> anyhow::Result<()> {
    let keys = [1u8, 2].map(|seed| Arc::new(StaticKeys::new(Secret::new([seed; 32]))));
    for (own, role) in [(1, Role::Responder), (0, Role::Initiator)] {
        let other = 1 - own;
        ends[own].tunnel.arm(PeerConfig {
            id: PEER,
            name: "peer".into(),
            role,
            public_key: keys[other].public(),
            keys: Arc::clone(&keys[own]),
            psk: psk(1),
            epoch: 1,
            allowed_ips: vec![format!("{}/32", inner(other)).parse()?],
            endpoints: vec![format!("{}:{PORT}", hosts[other].ipv4()).parse()?],
            valid_until: SystemClock.boottime().plus(Duration::from_secs(3600)),
            persistent_keepalive: None,
        })?;
    }
    Ok(())
}

/// Waits until both ends say that this epoch carries data.
fn await_epoch(ends: &[End; 2], wanted: u64) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut open = [false; 2];
    while open != [true; 2] {
        anyhow::ensure!(
            started.elapsed() < TURN_DEADLINE,
            "epoch {wanted} is not open on both ends: {open:?}"
        );
        for (end, open) in ends.iter().zip(&mut open) {
            while let Some(event) = end.tunnel.node().poll_event() {
                *open |= matches!(event, Event::Opened { epoch, .. } if epoch == wanted);
            }
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

/// Numbers, until told to stop; how many.
fn send(socket: &UdpSocket, target: SocketAddr, done: &AtomicBool) -> anyhow::Result<u64> {
    let mut number = 0u64;
    while !done.load(Ordering::SeqCst) {
        number += 1;
        socket.send_to(&number.to_be_bytes(), target)?;
        std::thread::sleep(PACE);
    }
    Ok(number)
}

/// Until nothing comes for three seconds; how many different numbers came. Twice the same is a failure.
fn receive(socket: &UdpSocket) -> anyhow::Result<u64> {
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    let (mut seen, mut buffer) = (HashSet::new(), [0; 8]);
    while let Ok((8, _)) = socket.recv_from(&mut buffer) {
        let number = u64::from_be_bytes(buffer);
        anyhow::ensure!(seen.insert(number), "packet {number} came twice");
    }
    u64::try_from(seen.len()).context("too many packets")
}

fn inner(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, 0, number as u8 + 1)
}

fn psk(epoch: u64) -> Secret<[u8; 32]> {
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&epoch.to_be_bytes());
    Secret::new(bytes)
}
