use std::collections::VecDeque;

use edgeward_identity::Secret;
use proptest::prelude::*;

use super::*;
use crate::wireguard::{
    DATA_OVERHEAD_BYTES, MAX_HANDSHAKE_BYTES, REKEY_AFTER_MESSAGES, Session, SessionState,
    padded_length,
};

mod asleep;
mod handover;
mod path;
mod timers;

const MTU: usize = 1420;
const B: PeerId = PeerId(2);
const A: PeerId = PeerId(1);

/// Repeatable randomness (xorshift), so that a failure repeats.
struct Seeded(Mutex<u64>);

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        let mut state = self.0.lock();
        for byte in bytes {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *byte = state.to_le_bytes()[3];
        }
        Ok(())
    }
}

/// Two nodes, the network between them, and one clock.
struct Pair {
    a: Node,
    b: Node,
    now: BootTime,
    wire: VecDeque<(bool, Outgoing)>,
    to_a: Vec<Vec<u8>>,
    to_b: Vec<Vec<u8>>,
}

fn node(seed: u64) -> Node {
    let config = NodeConfig {
        mtu: MTU,
        allow_zero_psk: false,
    };
    Node::new(config, Box::new(Seeded(Mutex::new(seed))))
}

fn keys(seed: u8) -> Arc<StaticKeys> {
    Arc::new(StaticKeys::new(Secret::new([seed; 32])))
}

fn at(secs: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(secs))
}

fn addr_a() -> SocketAddr {
    "192.0.2.1:51820".parse().unwrap()
}

fn addr_b() -> SocketAddr {
    "192.0.2.2:51820".parse().unwrap()
}

fn endpoint(remote: SocketAddr) -> Endpoint {
    Endpoint {
        remote,
        local_ip: None,
    }
}

/// How A knows B.
fn config_of_b(role: Role, psk: u8) -> PeerConfig {
    PeerConfig {
        id: B,
        name: "b".into(),
        role,
        public_key: keys(2).public(),
        keys: keys(1),
        psk: Secret::new([psk; 32]),
        epoch: 1,
        allowed_ips: vec![
            "10.0.0.2/32".parse().unwrap(),
            "fd00::2/128".parse().unwrap(),
        ],
        endpoints: vec![addr_b()],
        valid_until: at(1_000_000),
        persistent_keepalive: None,
    }
}

/// How B knows A.
fn config_of_a(role: Role, psk: u8) -> PeerConfig {
    PeerConfig {
        id: A,
        name: "a".into(),
        role,
        public_key: keys(1).public(),
        keys: keys(2),
        allowed_ips: vec![
            "10.0.0.1/32".parse().unwrap(),
            "fd00::1/128".parse().unwrap(),
        ],
        endpoints: vec![],
        ..config_of_b(role, psk)
    }
}

fn packet(source: [u8; 4], destination: [u8; 4], mark: u8) -> Vec<u8> {
    let mut packet = vec![mark; 60];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&60u16.to_be_bytes());
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&destination);
    packet
}

fn a_to_b(mark: u8) -> Vec<u8> {
    packet([10, 0, 0, 1], [10, 0, 0, 2], mark)
}

fn b_to_a(mark: u8) -> Vec<u8> {
    packet([10, 0, 0, 2], [10, 0, 0, 1], mark)
}

/// Sends one inner packet as the shell would.
fn send(node: &Node, packet: &[u8], now: BootTime, out: &mut Vec<Outgoing>) {
    let destination = IpAddr::from(<[u8; 4]>::try_from(&packet[16..20]).unwrap());
    let Some(peer) = node.route(destination) else {
        node.count_unroutable();
        return;
    };
    let Ok(mut sealer) = peer.sealer(node, now) else {
        return;
    };
    match sealer.endpoint() {
        Some(to) => {
            let mut plain = packet.to_vec();
            plain.resize(padded_length(packet.len(), MTU), 0);
            let mut bytes = vec![0; (plain.len() + DATA_OVERHEAD_BYTES).max(MAX_HANDSHAKE_BYTES)];
            if let Ok(length) = sealer.seal(&plain, &mut bytes) {
                bytes.truncate(length);
                out.push(Outgoing { to, bytes });
            }
        }
        None => sealer.hold(packet, out),
    }
}

/// Gives one datagram to a node; what came out of it.
fn receive(
    node: &Node,
    from: SocketAddr,
    bytes: &[u8],
    now: BootTime,
) -> (Vec<Vec<u8>>, Vec<Outgoing>) {
    let mut batch = Inbound::with_capacity(1 << 16);
    node.receive(endpoint(from), bytes, bytes.len().max(1), now, &mut batch);
    node.check_sources(&mut batch);
    let packets = batch
        .runs()
        .iter()
        .flat_map(|run| batch.packets(run))
        .filter(|packet| !packet.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    (packets, std::mem::take(&mut batch.outgoing))
}

impl Pair {
    fn new() -> Self {
        Self {
            a: node(11),
            b: node(22),
            now: at(1000),
            wire: VecDeque::new(),
            to_a: Vec::new(),
            to_b: Vec::new(),
        }
    }

    /// B answers, A starts, both under the same key.
    fn armed() -> Self {
        let mut pair = Self::new();
        pair.arm_b(7);
        pair.arm_a(7);
        pair
    }

    fn open() -> Self {
        let mut pair = Self::armed();
        pair.deliver_all();
        pair
    }

    fn arm_a(&mut self, psk: u8) {
        let mut out = Vec::new();
        self.a
            .arm(config_of_b(Role::Initiator, psk), self.now, &mut out)
            .unwrap();
        self.put_a(out);
    }

    fn arm_b(&mut self, psk: u8) {
        let mut out = Vec::new();
        self.b
            .arm(config_of_a(Role::Responder, psk), self.now, &mut out)
            .unwrap();
        assert!(out.is_empty(), "a responder starts nothing");
    }

    fn put_a(&mut self, out: Vec<Outgoing>) {
        self.wire
            .extend(out.into_iter().map(|outgoing| (true, outgoing)));
    }

    fn put_b(&mut self, out: Vec<Outgoing>) {
        self.wire
            .extend(out.into_iter().map(|outgoing| (false, outgoing)));
    }

    fn deliver(&mut self, to_b: bool, outgoing: &Outgoing) {
        if to_b {
            let (packets, out) = receive(&self.b, addr_a(), &outgoing.bytes, self.now);
            self.to_b.extend(packets);
            self.put_b(out);
        } else {
            let (packets, out) = receive(&self.a, addr_b(), &outgoing.bytes, self.now);
            self.to_a.extend(packets);
            self.put_a(out);
        }
    }

    fn deliver_all(&mut self) {
        for _ in 0..1000 {
            match self.wire.pop_front() {
                Some((to_b, outgoing)) => self.deliver(to_b, &outgoing),
                None => return,
            }
        }
        panic!("the network does not come to rest");
    }

    fn send_both(&mut self, mark: u8) {
        let mut out = Vec::new();
        send(&self.a, &a_to_b(mark), self.now, &mut out);
        self.put_a(out);
        let mut out = Vec::new();
        send(&self.b, &b_to_a(mark), self.now, &mut out);
        self.put_b(out);
    }

    fn forget_arrived(&mut self) {
        self.to_a.clear();
        self.to_b.clear();
    }

    /// Whether a packet passes each way now.
    fn passes(&mut self) -> (bool, bool) {
        self.forget_arrived();
        self.send_both(0x55);
        self.deliver_all();
        (!self.to_b.is_empty(), !self.to_a.is_empty())
    }

    fn tick(&mut self) {
        let mut out = Vec::new();
        self.a.handle_timeout(self.now, &mut out);
        self.put_a(out);
        let mut out = Vec::new();
        self.b.handle_timeout(self.now, &mut out);
        self.put_b(out);
    }

    /// Turns the clock, stopping at every timer. `link` says whether datagrams arrive.
    fn run(&mut self, duration: Duration, link: bool) {
        let end = self.now.plus(duration);
        for _ in 0..100_000 {
            let due = [self.a.poll_timeout(), self.b.poll_timeout()]
                .into_iter()
                .flatten()
                .min();
            match due {
                Some(due) if due <= end => {
                    assert!(
                        due >= self.now || due == self.now,
                        "a timer lies in the past"
                    );
                    self.now = self.now.max(due);
                    self.tick();
                }
                _ => break,
            }
            if link {
                self.deliver_all();
            } else {
                self.wire.clear();
            }
        }
        self.now = end;
    }
}

#[test]
fn arming_refuses_what_would_check_nothing() {
    let node = node(1);
    let mut out = Vec::new();
    let now = at(1000);
    let mut arm = |config: PeerConfig| node.arm(config, now, &mut out);
    let base = || config_of_b(Role::Initiator, 7);
    assert_eq!(arm(config_of_b(Role::Initiator, 0)), Err(ArmRefused::NoPsk));
    assert_eq!(
        arm(PeerConfig {
            valid_until: now,
            ..base()
        }),
        Err(ArmRefused::LeaseEnded)
    );
    assert_eq!(
        arm(PeerConfig {
            public_key: keys(1).public(),
            ..base()
        }),
        Err(ArmRefused::BadKey)
    );
    assert_eq!(
        arm(PeerConfig {
            public_key: [0; 32],
            ..base()
        }),
        Err(ArmRefused::BadKey)
    );
    assert_eq!(
        arm(PeerConfig {
            endpoints: vec![addr_b(); MAX_CANDIDATES + 1],
            ..base()
        }),
        Err(ArmRefused::Limit)
    );
    let twice = vec!["10.0.0.0/8".parse().unwrap(), "10.1.0.0/8".parse().unwrap()];
    assert!(matches!(
        arm(PeerConfig {
            allowed_ips: twice,
            ..base()
        }),
        Err(ArmRefused::Route(_))
    ));
    assert_eq!(arm(base()), Ok(()));
    assert_eq!(arm(base()), Err(ArmRefused::Armed));
    assert_eq!(
        arm(PeerConfig {
            id: PeerId(9),
            ..base()
        }),
        Err(ArmRefused::KeyTaken)
    );
    let other = PeerConfig {
        id: PeerId(9),
        public_key: keys(9).public(),
        ..base()
    };
    assert!(
        matches!(arm(other), Err(ArmRefused::Route(_))),
        "prefixes are taken"
    );
    assert_eq!(node.status().len(), 1);
}

#[test]
fn nothing_flows_before_the_handshake_and_what_waited_flows_after() {
    let mut pair = Pair::armed();
    pair.send_both(1);
    assert!(
        pair.wire.iter().all(|(_, outgoing)| outgoing.bytes[0] != 4),
        "no data message yet"
    );
    assert_eq!(pair.a.poll_event(), None);
    pair.deliver_all();
    assert_eq!(pair.to_b, [a_to_b(1)]);
    assert_eq!(pair.to_a, [b_to_a(1)]);
    assert_eq!(
        pair.b.poll_event(),
        Some(Event::Opened { peer: A, epoch: 1 })
    );
    assert_eq!(pair.passes(), (true, true));
}

#[test]
fn a_wrong_pre_shared_key_never_opens() {
    let mut pair = Pair::new();
    pair.arm_b(7);
    pair.arm_a(8);
    pair.deliver_all();
    pair.send_both(1);
    pair.run(Duration::from_secs(600), true);
    assert!(pair.to_a.is_empty() && pair.to_b.is_empty());
    assert!(pair.a.refusals().get(Refusal::NotAuthentic) > 0);
    assert!(pair.a.status()[0].open.is_none() && pair.b.status()[0].open.is_none());
    assert_eq!(pair.a.poll_event(), Some(Event::Lost { peer: B }));
}

#[test]
fn a_stranger_gets_no_answer() {
    let mut pair = Pair::armed();
    let stranger = node(33);
    let mut out = Vec::new();
    let config = PeerConfig {
        keys: keys(3),
        ..config_of_b(Role::Initiator, 7)
    };
    stranger.arm(config, pair.now, &mut out).unwrap();
    let (_, answers) = receive(&pair.b, addr_a(), &out[0].bytes, pair.now);
    assert!(answers.is_empty());
    assert_eq!(pair.b.refusals().get(Refusal::UnknownPeer), 1);
    pair.deliver_all();
    assert_eq!(pair.passes(), (true, true));
}

#[test]
fn a_responder_never_starts_a_handshake() {
    let mut pair = Pair::new();
    pair.arm_b(7);
    let mut out = Vec::new();
    for second in 0..2000 {
        send(&pair.b, &b_to_a(1), at(1000 + second), &mut out);
        pair.b.handle_timeout(at(1000 + second), &mut out);
    }
    assert!(out.is_empty());
}

#[test]
fn the_waiting_queue_is_bounded() {
    let mut pair = Pair::new();
    pair.arm_b(7);
    let mut out = Vec::new();
    for _ in 0..1000 {
        send(&pair.b, &b_to_a(1), pair.now, &mut out);
    }
    let refused = pair.b.refusals().get(Refusal::QueueFull);
    assert_eq!(refused, 1000 - peer::MAX_QUEUED_PACKETS as u64);
    assert_eq!(pair.b.cut(A).unwrap().packets, peer::MAX_QUEUED_PACKETS);
}

#[test]
fn after_a_cut_no_packet_passes_either_way() {
    let mut pair = Pair::open();
    assert_eq!(pair.passes(), (true, true));
    let (mut sealed, mut scrap) = (Vec::new(), Vec::new());
    send(&pair.a, &a_to_b(9), pair.now, &mut sealed);
    let handle = pair.b.route("10.0.0.1".parse().unwrap()).unwrap();

    let report = pair.b.cut(A).unwrap();

    assert!(report.sessions >= 1 && report.prefixes == 2);
    assert!(handle.is_cut());
    assert_eq!(handle.sealer(&pair.b, pair.now).err(), Some(Refusal::Cut));
    send(&pair.b, &b_to_a(9), pair.now, &mut scrap);
    assert!(scrap.is_empty());
    let (packets, answers) = receive(&pair.b, addr_a(), &sealed[0].bytes, pair.now);
    assert!(packets.is_empty() && answers.is_empty());
    assert!(pair.b.status().is_empty() && pair.b.sessions.read().is_empty());
    assert!(pair.b.schedule.lock().is_empty());
    // A goes on trying, for longer than any session lives: nobody answers.
    pair.forget_arrived();
    for _ in 0..40 {
        pair.send_both(1);
        pair.run(Duration::from_secs(10), true);
    }
    assert!(pair.to_a.is_empty() && pair.to_b.is_empty());
    assert_eq!(pair.b.cut(A), None);
}

#[test]
fn the_end_of_a_lease_stops_both_directions_without_any_timer() {
    let mut pair = Pair::open();
    pair.b
        .extend_lease(A, pair.now.plus(Duration::from_secs(10)))
        .unwrap();
    pair.now = pair.now.plus(Duration::from_millis(9_999));
    assert_eq!(pair.passes(), (true, true));
    pair.now = pair.now.plus(Duration::from_millis(1));
    assert_eq!(pair.passes(), (false, false));
    assert_eq!(pair.b.refusals().get(Refusal::LeaseEnded), 2);
    pair.tick();
    assert!(pair.b.status().is_empty());
    let events: Vec<Event> = std::iter::from_fn(|| pair.b.poll_event()).collect();
    assert!(events.contains(&Event::LeaseEnded { peer: A }));
}

#[test]
fn a_longer_lease_is_honoured() {
    let mut pair = Pair::open();
    pair.b
        .extend_lease(A, pair.now.plus(Duration::from_secs(10)))
        .unwrap();
    pair.b
        .extend_lease(A, pair.now.plus(Duration::from_secs(1000)))
        .unwrap();
    pair.run(Duration::from_secs(500), true);
    assert_eq!(pair.passes(), (true, true));
    assert_eq!(pair.b.extend_lease(PeerId(77), at(9)), Err(NotArmed));
}

#[test]
fn an_epoch_turns_without_losing_a_packet() {
    let mut pair = Pair::open();
    for epoch in 2..20u8 {
        pair.run(Duration::from_secs(1), true);
        let mut out = Vec::new();
        pair.b
            .turn_epoch(
                A,
                Secret::new([epoch; 32]),
                epoch.into(),
                pair.now,
                &mut out,
            )
            .unwrap();
        assert!(out.is_empty());
        assert_eq!(
            pair.passes(),
            (true, true),
            "responder armed, initiator not yet"
        );
        pair.a
            .turn_epoch(
                B,
                Secret::new([epoch; 32]),
                epoch.into(),
                pair.now,
                &mut out,
            )
            .unwrap();
        pair.put_a(out);
        pair.forget_arrived();
        for mark in 0..5 {
            pair.send_both(mark);
            let next = pair.wire.pop_front().unwrap();
            pair.deliver(next.0, &next.1);
        }
        pair.deliver_all();
        assert_eq!((pair.to_a.len(), pair.to_b.len()), (5, 5), "epoch {epoch}");
        assert_eq!(pair.a.status()[0].open, Some(epoch.into()));
        assert_eq!(pair.b.status()[0].open, Some(epoch.into()));
        pair.run(Duration::from_secs(11), true);
        let live = pair.b.sessions.read().len();
        assert_eq!(live, 1, "the session of the old epoch is gone");
    }
}

#[test]
fn an_epoch_that_the_other_side_opens_turns_without_losing_a_packet_either() {
    let mut pair = Pair::open();
    for epoch in 2..10u8 {
        pair.run(Duration::from_secs(11), true);
        let (psk, by_b) = (|| Secret::new([epoch; 32]), epoch % 2 == 0);
        let roles = match by_b {
            true => [Role::Responder, Role::Initiator],
            false => [Role::Initiator, Role::Responder],
        };
        let mut out = Vec::new();
        for (node, peer, role) in [(&pair.a, B, roles[0]), (&pair.b, A, roles[1])] {
            node.set_role(peer, role).unwrap();
            let said = out.len();
            node.turn_epoch(peer, psk(), epoch.into(), pair.now, &mut out)
                .unwrap();
            assert_eq!(out.len() > said, role == Role::Initiator);
        }
        pair.wire
            .extend(out.into_iter().map(|message| (!by_b, message)));
        pair.forget_arrived();
        for mark in 0..5 {
            pair.send_both(mark);
            let next = pair.wire.pop_front().unwrap();
            pair.deliver(next.0, &next.1);
        }
        pair.deliver_all();
        assert_eq!((pair.to_a.len(), pair.to_b.len()), (5, 5), "epoch {epoch}");
        assert_eq!(pair.a.status()[0].open, Some(epoch.into()));
        assert_eq!(pair.b.status()[0].open, Some(epoch.into()));
    }
    pair.a.cut(B).unwrap();
    assert_eq!(pair.a.set_role(B, Role::Initiator), Err(NotArmed));
}

#[test]
fn an_epoch_only_grows() {
    let pair = Pair::open();
    let mut out = Vec::new();
    let mut turn = |psk: u8, epoch| {
        pair.a
            .turn_epoch(B, Secret::new([psk; 32]), epoch, pair.now, &mut out)
    };
    assert_eq!(turn(9, 1), Err(TurnRefused::NotLater(1)));
    assert_eq!(turn(9, 0), Err(TurnRefused::NotLater(1)));
    assert_eq!(turn(0, 2), Err(TurnRefused::NoPsk));
    assert_eq!(turn(9, 5), Ok(()));
    assert_eq!(turn(9, 4), Err(TurnRefused::NotLater(5)));
    assert_eq!(
        pair.a.turn_epoch(
            PeerId(77),
            Secret::new([9; 32]),
            9,
            pair.now,
            &mut Vec::new()
        ),
        Err(TurnRefused::Unknown)
    );
}

#[test]
fn an_epoch_that_only_one_side_turned_ends_with_the_old_session() {
    let mut pair = Pair::open();
    let mut out = Vec::new();
    pair.a
        .turn_epoch(B, Secret::new([99; 32]), 2, pair.now, &mut out)
        .unwrap();
    pair.put_a(out);
    pair.deliver_all();
    assert_eq!(pair.passes(), (true, true), "the old session carries data");
    pair.run(REJECT_AFTER_TIME, true);
    assert_eq!(pair.passes(), (false, false));
}

#[test]
fn a_peer_cannot_speak_for_a_longer_prefix_of_another() {
    let mut pair = Pair::open();
    pair.b
        .set_allowed_ips(A, &["10.0.0.0/8".parse().unwrap()])
        .unwrap();
    let other = PeerConfig {
        id: PeerId(5),
        public_key: keys(5).public(),
        allowed_ips: vec!["10.0.0.7/32".parse().unwrap()],
        ..config_of_a(Role::Responder, 7)
    };
    pair.b.arm(other, pair.now, &mut Vec::new()).unwrap();
    let mut out = Vec::new();
    for source in [[10, 0, 0, 7], [192, 0, 2, 9], [10, 0, 0, 1]] {
        send(
            &pair.a,
            &packet(source, [10, 0, 0, 2], 1),
            pair.now,
            &mut out,
        );
    }
    pair.put_a(out);
    pair.deliver_all();
    assert_eq!(pair.to_b, [a_to_b(1)]);
    assert_eq!(pair.b.refusals().get(Refusal::WrongSource), 2);
    // And what goes to that address goes to its owner, not to A.
    assert_eq!(
        pair.b.route("10.0.0.7".parse().unwrap()).unwrap().id(),
        PeerId(5)
    );
}

#[test]
fn prefixes_are_replaced_all_or_none() {
    let mut pair = Pair::open();
    let other = PeerConfig {
        id: PeerId(5),
        public_key: keys(5).public(),
        allowed_ips: vec!["10.0.0.7/32".parse().unwrap()],
        ..config_of_a(Role::Responder, 7)
    };
    pair.b.arm(other, pair.now, &mut Vec::new()).unwrap();
    let wanted = [
        "10.9.0.0/16".parse().unwrap(),
        "10.0.0.7/32".parse().unwrap(),
    ];
    assert!(pair.b.set_allowed_ips(A, &wanted).is_err());
    assert_eq!(pair.passes(), (true, true));
    pair.b.set_allowed_ips(A, &[]).unwrap();
    assert_eq!(pair.passes(), (false, false));
    assert_eq!(
        pair.b.set_allowed_ips(PeerId(77), &[]),
        Err(ArmRefused::NotArmed)
    );
}

#[test]
fn a_dead_link_is_retried_for_ever_with_growing_pauses() {
    let mut pair = Pair::open();
    pair.send_both(1);
    pair.run(Duration::from_secs(200), false);
    let mut pauses = Vec::new();
    let mut last = pair.now;
    let end = pair.now.plus(Duration::from_secs(1800));
    while pair.now < end {
        let due = pair.a.poll_timeout().unwrap();
        pair.now = due;
        let mut out = Vec::new();
        pair.a.handle_timeout(due, &mut out);
        if !out.is_empty() {
            pauses.push(due.since(last));
            last = due;
        }
    }
    let longest = pauses.iter().max().unwrap();
    assert!(
        *longest > Duration::from_secs(50) && *longest <= MAX_BACKOFF * 5 / 4,
        "{longest:?}"
    );
    assert!(pauses.len() > 25, "never gives up: {}", pauses.len());
    pair.wire.clear();
    pair.run(Duration::from_secs(80), true);
    assert_eq!(pair.passes(), (true, true), "the link is back");
}

/// A pair that was open and has idled for long.
fn idle() -> Pair {
    let mut pair = Pair::open();
    assert_eq!(pair.passes(), (true, true));
    pair.run(REKEY_AFTER_TIME + REJECT_AFTER_TIME, true);
    pair
}

#[test]
fn an_idle_pair_holds_no_keys_and_no_timer_but_its_lease() {
    let pair = idle();
    for node in [&pair.a, &pair.b] {
        assert!(node.sessions.read().is_empty());
        assert_eq!(node.poll_timeout(), Some(at(1_000_000)));
        assert!(node.status()[0].open.is_none());
    }
}

#[test]
fn after_idling_either_side_may_speak_first() {
    for (speaks, spoken) in [(b_to_a(3), [0, 1]), (a_to_b(3), [1, 0])] {
        let mut pair = idle();
        pair.forget_arrived();
        let mut out = Vec::new();
        if spoken == [0, 1] {
            send(&pair.b, &speaks, pair.now, &mut out);
            pair.put_b(out);
        } else {
            send(&pair.a, &speaks, pair.now, &mut out);
            pair.put_a(out);
        }
        pair.deliver_all();
        assert_eq!([pair.to_b.len(), pair.to_a.len()], spoken);
        assert_eq!(pair.passes(), (true, true));
    }
}

#[test]
fn both_may_speak_first_at_once() {
    let mut pair = idle();
    pair.forget_arrived();
    pair.send_both(4);
    pair.deliver_all();
    assert_eq!((pair.to_a.len(), pair.to_b.len()), (1, 1));
    assert_eq!(pair.passes(), (true, true));
    pair.run(Duration::from_secs(600), true);
    assert!(pair.a.sessions.read().is_empty() && pair.b.sessions.read().is_empty());
}

#[test]
fn a_responder_starts_nothing_under_a_key_that_only_it_has() {
    let mut pair = Pair::open();
    let mut out = Vec::new();
    pair.b
        .turn_epoch(A, Secret::new([99; 32]), 2, pair.now, &mut out)
        .unwrap();
    pair.run(REKEY_AFTER_TIME + REJECT_AFTER_TIME, true);
    send(&pair.b, &b_to_a(1), pair.now, &mut out);
    pair.b.handle_timeout(pair.now, &mut out);
    assert!(out.is_empty(), "{out:?}");
}

#[test]
fn an_idle_session_is_replaced_at_its_next_use() {
    let mut pair = Pair::open();
    pair.run(REKEY_AFTER_TIME + Duration::from_secs(20), true);
    let first = pair.a.status()[0].last_handshake.unwrap();
    assert_eq!(pair.passes(), (true, true), "the old session still carries");
    pair.run(Duration::from_secs(1), true);
    let last = pair.a.status()[0].last_handshake.unwrap();
    assert!(last.since(first) > REKEY_AFTER_TIME);
}

#[test]
fn a_session_is_replaced_before_its_counter_ends() {
    let mut pair = Pair::open();
    let peer = pair.a.peer(B).unwrap();
    let mut state = {
        let link = peer.link.read();
        link.current.as_ref().unwrap().session.export().encode()
    };
    state[8..16].copy_from_slice(&(REKEY_AFTER_MESSAGES - 1).to_le_bytes());
    let session = Session::import(SessionState::decode(&state).unwrap());
    peer.link.write().current.as_mut().unwrap().session = Arc::new(session);
    let before = pair.a.status()[0].last_handshake.unwrap();
    pair.run(Duration::from_secs(1), true);
    pair.send_both(1);
    pair.run(Duration::from_secs(1), true);
    assert!(pair.a.status()[0].last_handshake.unwrap() > before);
    assert_eq!(pair.passes(), (true, true));
}

#[test]
fn sealing_does_not_wait_for_opening_nor_the_other_way_round() {
    let pair = Pair::open();
    let mut sent = Vec::new();
    send(&pair.b, &b_to_a(1), pair.now, &mut sent);
    let handle = pair.a.route("10.0.0.2".parse().unwrap()).unwrap();
    let mut first = handle.sealer(&pair.a, pair.now).unwrap();
    let mut second = handle.sealer(&pair.a, pair.now).unwrap();
    let (packets, _) = receive(&pair.a, addr_b(), &sent[0].bytes, pair.now);
    assert_eq!(packets, [b_to_a(1)]);
    let mut wire = [[0; 64 + DATA_OVERHEAD_BYTES]; 2];
    let mut plain = a_to_b(1);
    plain.resize(64, 0);
    first.seal(&plain, &mut wire[0]).unwrap();
    second.seal(&plain, &mut wire[1]).unwrap();
    drop((first, second));
    for message in wire {
        let (packets, _) = receive(&pair.b, addr_a(), &message, pair.now);
        assert_eq!(packets, [a_to_b(1)]);
    }
}

#[test]
fn a_cut_waits_for_the_batch_under_way_and_lets_no_other_begin() {
    let pair = Pair::open();
    let handle = pair.a.route("10.0.0.2".parse().unwrap()).unwrap();
    let sealer = handle.sealer(&pair.a, pair.now).unwrap();
    std::thread::scope(|scope| {
        let cut = scope.spawn(|| pair.a.cut(B));
        while !handle.is_cut() {
            std::thread::yield_now();
        }
        assert!(!cut.is_finished());
        drop(sealer);
        assert_eq!(cut.join().unwrap().unwrap().sessions, 1);
    });
    assert_eq!(handle.sealer(&pair.a, pair.now).err(), Some(Refusal::Cut));
}

#[test]
fn a_packet_is_not_left_waiting_when_its_session_came_up_meanwhile() {
    let pair = Pair::armed();
    let handle = pair.a.route("10.0.0.2".parse().unwrap()).unwrap();
    let mut out = Vec::new();
    let mut sealer = handle.sealer(&pair.a, pair.now).unwrap();
    assert_eq!(sealer.endpoint(), None);
    // Gives its lock back, so that the handshake can end before the next packet.
    sealer.hold(&a_to_b(1), &mut out);
    assert!(out.is_empty(), "a handshake is under way already");
    let (_, answer) = receive(&pair.b, addr_a(), &pair.wire[0].1.bytes, pair.now);
    let (_, queued) = receive(&pair.a, addr_b(), &answer[0].bytes, pair.now);
    sealer.hold(&a_to_b(2), &mut out);
    let arrived: Vec<Vec<u8>> = queued
        .iter()
        .chain(&out)
        .flat_map(|message| receive(&pair.b, addr_a(), &message.bytes, pair.now).0)
        .collect();
    assert_eq!(arrived, [a_to_b(1), a_to_b(2)]);
}

#[test]
fn eight_thousand_datagrams_out_of_order_arrive_once_each() {
    let pair = Pair::open();
    let mut out = Vec::new();
    for _ in 0..8000 {
        send(&pair.a, &a_to_b(1), pair.now, &mut out);
    }
    out.reverse();
    let mut arrived = 0;
    for outgoing in out.iter().chain(&out) {
        arrived += receive(&pair.b, addr_a(), &outgoing.bytes, pair.now)
            .0
            .len();
    }
    assert_eq!(arrived, 8000);
    assert_eq!(pair.b.refusals().get(Refusal::Replayed), 8000);
}

#[test]
fn sessions_are_replaced_while_data_flows() {
    let mut pair = Pair::open();
    let first = pair.a.status()[0].last_handshake.unwrap();
    for _ in 0..200 {
        assert_eq!(pair.passes(), (true, true));
        pair.run(Duration::from_secs(3), true);
    }
    let last = pair.a.status()[0].last_handshake.unwrap();
    assert!(
        last.since(first) >= Duration::from_secs(470),
        "{:?}",
        last.since(first)
    );
    assert!(pair.a.sessions.read().len() <= 3 && pair.b.sessions.read().len() <= 3);
}

#[test]
fn received_data_is_answered_by_a_keepalive() {
    let mut pair = Pair::open();
    let mut out = Vec::new();
    send(&pair.a, &a_to_b(1), pair.now, &mut out);
    pair.put_a(out);
    pair.deliver_all();
    let mut out = Vec::new();
    let due = pair.now.plus(KEEPALIVE_TIMEOUT);
    pair.b.handle_timeout(due, &mut out);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].bytes.len(), DATA_OVERHEAD_BYTES);
}

#[test]
fn the_endpoint_moves_only_on_authenticated_packets() {
    let pair = Pair::open();
    let elsewhere: SocketAddr = "203.0.113.9:4000".parse().unwrap();
    let mut out = Vec::new();
    send(&pair.a, &a_to_b(1), pair.now, &mut out);
    let mut forged = out[0].bytes.clone();
    *forged.last_mut().unwrap() ^= 1;
    receive(&pair.b, elsewhere, &forged, pair.now);
    assert_eq!(pair.b.status()[0].endpoint, Some(addr_a()));
    receive(&pair.b, elsewhere, &out[0].bytes, pair.now);
    assert_eq!(pair.b.status()[0].endpoint, Some(elsewhere));
    // The same datagram, replayed from a third place, moves nothing.
    receive(&pair.b, addr_b(), &out[0].bytes, pair.now);
    assert_eq!(pair.b.status()[0].endpoint, Some(elsewhere));
}

#[test]
fn a_new_endpoint_is_tried_at_once() {
    let mut pair = Pair::new();
    pair.arm_b(7);
    let nowhere = PeerConfig {
        endpoints: vec![],
        ..config_of_b(Role::Initiator, 7)
    };
    let mut out = Vec::new();
    pair.a.arm(nowhere, pair.now, &mut out).unwrap();
    assert!(out.is_empty());
    pair.a
        .set_endpoints(B, &["203.0.113.1:1".parse().unwrap()])
        .unwrap();
    pair.tick();
    assert_eq!(pair.wire.pop_front().unwrap().1.to.remote.port(), 1);
    pair.a.set_endpoints(B, &[addr_b()]).unwrap();
    pair.tick();
    assert_eq!(pair.wire[0].1.to.remote, addr_b());
    pair.deliver_all();
    assert_eq!(pair.passes(), (true, true));
    pair.a.set_endpoints(B, &[]).unwrap();
    pair.tick();
    assert!(pair.wire.is_empty(), "an open peer is left alone");
}

#[test]
fn candidates_are_tried_in_turn() {
    let mut pair = Pair::new();
    let places: Vec<SocketAddr> = (1..4)
        .map(|port| SocketAddr::new([192, 0, 2, 7].into(), port))
        .collect();
    let config = PeerConfig {
        endpoints: places.clone(),
        ..config_of_b(Role::Initiator, 7)
    };
    let mut out = Vec::new();
    pair.a.arm(config, pair.now, &mut out).unwrap();
    for _ in 0..5 {
        pair.now = pair.a.poll_timeout().unwrap();
        pair.a.handle_timeout(pair.now, &mut out);
    }
    let tried: Vec<u16> = out
        .iter()
        .map(|outgoing| outgoing.to.remote.port())
        .collect();
    assert_eq!(tried, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn a_replayed_initiation_does_not_disturb_the_session() {
    let mut pair = Pair::armed();
    let initiation = pair.wire[0].1.bytes.clone();
    pair.deliver_all();
    pair.now = pair.now.plus(Duration::from_secs(1));
    let (_, answers) = receive(&pair.b, addr_a(), &initiation, pair.now);
    assert!(answers.is_empty());
    assert_eq!(pair.b.refusals().get(Refusal::Replayed), 1);
    assert_eq!(pair.passes(), (true, true));
}

#[test]
fn a_flood_of_initiations_is_answered_with_cookies_and_an_honest_peer_still_gets_in() {
    let mut pair = Pair::armed();
    let initiation = pair.wire[0].1.bytes.clone();
    let mut cookies = 0;
    for _ in 0..500 {
        let (_, answers) = receive(
            &pair.b,
            "198.51.100.1:9".parse().unwrap(),
            &initiation,
            pair.now,
        );
        cookies += answers.iter().filter(|answer| answer.bytes[0] == 3).count();
    }
    assert!(cookies >= 300, "{cookies}");
    // A's own initiation is lost in the flood; its cookie comes with the next one.
    for _ in 0..4 {
        pair.run(Duration::from_secs(5), true);
    }
    assert_eq!(pair.passes(), (true, true));
}

#[test]
fn initiations_of_one_peer_are_answered_at_a_bounded_rate() {
    let mut pair = Pair::new();
    pair.arm_b(7);
    let mut answers = 0;
    for round in 0..50 {
        let a = node(round + 1);
        let mut out = Vec::new();
        a.arm(config_of_b(Role::Initiator, 7), pair.now, &mut out)
            .unwrap();
        answers += receive(&pair.b, addr_a(), &out[0].bytes, pair.now).1.len();
    }
    assert_eq!(answers, 1);
}

#[test]
fn new_static_keys_name_the_peers_to_bind_anew() {
    let pair = Pair::open();
    assert_eq!(pair.a.public_key(), Some(keys(1).public()));
    let fresh = keys(40);
    assert_eq!(pair.a.replace_keys(&fresh), Ok(vec![B]));
    assert_eq!(pair.a.public_key(), Some(fresh.public()));
    pair.a.cut(B);
    assert_eq!(pair.a.replace_keys(&fresh), Ok(vec![]));
    assert_eq!(
        pair.a.table.read().doors.len(),
        1,
        "the old key is forgotten"
    );
}

#[test]
fn plain_peers_may_both_start_and_give_up_until_there_is_data() {
    let config = NodeConfig {
        mtu: MTU,
        allow_zero_psk: true,
    };
    let mut pair = Pair::new();
    pair.a = Node::new(config, Box::new(Seeded(Mutex::new(5))));
    pair.b = Node::new(config, Box::new(Seeded(Mutex::new(6))));
    pair.a
        .arm(config_of_b(Role::Either, 0), pair.now, &mut Vec::new())
        .unwrap();
    let known = PeerConfig {
        endpoints: vec![addr_a()],
        ..config_of_a(Role::Either, 0)
    };
    pair.b.arm(known, pair.now, &mut Vec::new()).unwrap();
    assert_eq!(pair.passes(), (true, true));
    // Idle for long, then the other side speaks first.
    pair.run(Duration::from_secs(1000), true);
    assert!(pair.a.status()[0].open.is_none());
    let mut out = Vec::new();
    send(&pair.b, &b_to_a(2), pair.now, &mut out);
    pair.put_b(out);
    pair.forget_arrived();
    pair.deliver_all();
    assert_eq!(pair.to_a, [b_to_a(2)]);
    // A dead link: given up after 90 s.
    pair.run(Duration::from_secs(200), true);
    let mut out = Vec::new();
    send(&pair.a, &a_to_b(2), pair.now, &mut out);
    pair.run(Duration::from_secs(300), false);
    assert_eq!(
        pair.a.poll_timeout(),
        Some(at(1_000_000)),
        "only the lease is left"
    );
    assert_eq!(pair.passes(), (true, true));
}

#[test]
fn every_refusal_has_its_own_counter() {
    for (number, refusal) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!(refusal as usize, number);
    }
}

/// What the simulated network and the operators do.
#[derive(Clone, Debug)]
enum Step {
    SendA(u8),
    SendB(u8),
    Deliver(u8),
    Duplicate(u8),
    Lose(u8),
    Corrupt(u8, u16),
    Wait(u16),
    Turn,
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::SendA),
        4 => any::<u8>().prop_map(Step::SendB),
        8 => any::<u8>().prop_map(Step::Deliver),
        2 => any::<u8>().prop_map(Step::Duplicate),
        2 => any::<u8>().prop_map(Step::Lose),
        1 => (any::<u8>(), any::<u16>()).prop_map(|(which, bit)| Step::Corrupt(which, bit)),
        2 => (0u16..30_000).prop_map(Step::Wait),
        1 => Just(Step::Turn),
        1 => Just(Step::Cut),
    ]
}

fn pick(wire: &VecDeque<(bool, Outgoing)>, which: u8) -> Option<usize> {
    usize::from(which).checked_rem(wire.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Loss, reordering, duplicates, corruption, turns and cuts in any order: what arrives was sent, at most
    /// once, only while the peer is armed; and a healthy network always heals.
    #[test]
    fn the_network_may_do_anything(steps in proptest::collection::vec(step(), 1..120)) {
        let mut pair = Pair::armed();
        let (mut epoch, mut cut) = (1u8, false);
        let mut number = 0u32;
        for step in steps {
            let mut out = Vec::new();
            match step {
                Step::SendA(mark) => {
                    number += 1;
                    let mut packet = a_to_b(mark);
                    packet[40..44].copy_from_slice(&number.to_le_bytes());
                    send(&pair.a, &packet, pair.now, &mut out);
                    pair.put_a(out);
                }
                Step::SendB(mark) => {
                    number += 1;
                    let mut packet = b_to_a(mark);
                    packet[40..44].copy_from_slice(&number.to_le_bytes());
                    send(&pair.b, &packet, pair.now, &mut out);
                    pair.put_b(out);
                }
                Step::Deliver(which) => if let Some(at) = pick(&pair.wire, which) {
                    let (to_b, outgoing) = pair.wire.remove(at).unwrap();
                    pair.deliver(to_b, &outgoing);
                },
                Step::Duplicate(which) => if let Some(at) = pick(&pair.wire, which) {
                    let (to_b, outgoing) = pair.wire[at].clone();
                    pair.deliver(to_b, &outgoing);
                },
                Step::Lose(which) => if let Some(at) = pick(&pair.wire, which) {
                    pair.wire.remove(at);
                },
                Step::Corrupt(which, bit) => if let Some(at) = pick(&pair.wire, which) {
                    let bytes = &mut pair.wire[at].1.bytes;
                    let bit = usize::from(bit) % (bytes.len() * 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                },
                Step::Wait(millis) => {
                    pair.now = pair.now.plus(Duration::from_millis(millis.into()));
                    pair.tick();
                }
                Step::Turn => if !cut {
                    epoch += 1;
                    pair.b.turn_epoch(A, Secret::new([epoch; 32]), epoch.into(), pair.now, &mut out).unwrap();
                    pair.a.turn_epoch(B, Secret::new([epoch; 32]), epoch.into(), pair.now, &mut out).unwrap();
                    pair.put_a(out);
                },
                Step::Cut => if !cut {
                    prop_assert!(pair.b.cut(A).is_some());
                    cut = true;
                    pair.to_b.clear();
                },
            }
            if cut {
                prop_assert!(pair.to_b.is_empty());
                prop_assert!(pair.b.sessions.read().is_empty());
            }
        }
        for (packets, source) in [(&pair.to_a, 2), (&pair.to_b, 1)] {
            let mut numbers: Vec<&[u8]> = packets.iter().map(|packet| &packet[40..44]).collect();
            numbers.sort_unstable();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), packets.len(), "a packet arrived twice");
            prop_assert!(packets.iter().all(|packet| packet[15] == source && packet.len() == 60));
        }
        pair.run(Duration::from_secs(200), true);
        let expected = if cut { (false, false) } else { (true, true) };
        prop_assert_eq!(pair.passes(), expected);
    }

    #[test]
    fn no_datagram_panics_a_node(
        bytes in proptest::collection::vec(any::<u8>(), 0..3000),
        kind in 0u8..5,
        index in any::<usize>(),
        stride in 0usize..3000,
    ) {
        let mut pair = Pair::open();
        let mut bytes = bytes;
        if let Some(prefix) = bytes.get_mut(..4) {
            prefix.copy_from_slice(&[kind, 0, 0, 0]);
        }
        // As if for a live session, when there is room for its index.
        let mut out = Vec::new();
        send(&pair.a, &a_to_b(1), pair.now, &mut out);
        if index % 2 == 0 && let Some(field) = bytes.get_mut(4..8) {
            field.copy_from_slice(&out[0].bytes[4..8]);
        }
        let mut batch = Inbound::with_capacity(4096);
        pair.b.receive(endpoint(addr_a()), &bytes, stride, pair.now, &mut batch);
        pair.b.check_sources(&mut batch);
        prop_assert!(batch.is_empty());
        prop_assert_eq!(pair.passes(), (true, true));
    }

    #[test]
    fn mutated_messages_of_a_real_exchange_never_pass(position in any::<usize>(), bit in 0u8..8, cut_to in any::<usize>()) {
        let mut pair = Pair::armed();
        let mut messages: Vec<Outgoing> = Vec::new();
        for _ in 0..10 {
            let Some((to_b, outgoing)) = pair.wire.pop_front() else { break };
            messages.push(outgoing.clone());
            pair.deliver(to_b, &outgoing);
        }
        let mut out = Vec::new();
        send(&pair.a, &a_to_b(1), pair.now, &mut out);
        messages.extend(out);
        pair.forget_arrived();
        for message in &messages {
            let mut bytes = message.bytes.clone();
            let at = position % bytes.len();
            bytes[at] ^= 1 << bit;
            for changed in [&bytes[..], &message.bytes[..cut_to % message.bytes.len()]] {
                prop_assert!(receive(&pair.b, addr_a(), changed, pair.now).0.is_empty());
                prop_assert!(receive(&pair.a, addr_b(), changed, pair.now).0.is_empty());
            }
        }
    }
}

#[test]
fn a_lost_first_handshake_is_repeated_within_a_second() {
    let mut pair = Pair::armed();
    pair.wire.clear();
    pair.run(Duration::from_millis(700), true);
    assert_eq!(pair.passes(), (true, true));
}

#[test]
fn two_lost_first_handshakes_are_made_good_within_two_seconds() {
    let mut pair = Pair::armed();
    pair.wire.clear();
    pair.run(Duration::from_millis(700), false);
    pair.run(Duration::from_millis(1300), true);
    assert_eq!(pair.passes(), (true, true));
}

#[test]
fn an_epoch_turned_right_after_a_handshake_opens_within_a_second() {
    let mut pair = Pair::open();
    let mut out = Vec::new();
    // The responder answers no second initiation within 20 ms.
    pair.b
        .turn_epoch(A, Secret::new([8; 32]), 2, pair.now, &mut out)
        .unwrap();
    pair.a
        .turn_epoch(B, Secret::new([8; 32]), 2, pair.now, &mut out)
        .unwrap();
    pair.put_a(out);
    pair.deliver_all();
    let open = |node: &Node| node.status().first().and_then(|peer| peer.open);
    assert_eq!((open(&pair.a), open(&pair.b)), (Some(1), Some(1)));
    pair.run(Duration::from_millis(700), true);
    assert_eq!((open(&pair.a), open(&pair.b)), (Some(2), Some(2)));
    assert_eq!(pair.passes(), (true, true));
}

#[test]
fn a_late_answer_to_an_earlier_initiation_does_not_part_the_two_sides() {
    let mut pair = Pair::armed();
    let (_, first) = pair.wire.pop_front().unwrap();
    pair.deliver(true, &first);
    let (_, late) = pair.wire.pop_front().unwrap();
    // The initiator asks again before the answer is there, and the responder forgets its first session.
    pair.now = pair.now.plus(Duration::from_millis(700));
    pair.tick();
    let (to_b, second) = pair.wire.pop_front().unwrap();
    assert!(to_b);
    pair.deliver(true, &second);
    pair.deliver(false, &late);
    assert_eq!(pair.a.status().first().and_then(|peer| peer.open), None);
    pair.deliver_all();
    assert_eq!(pair.passes(), (true, true));
}
