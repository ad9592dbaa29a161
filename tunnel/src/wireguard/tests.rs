use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use edgeward_identity::BootTime;
use proptest::prelude::*;

use super::message::{INITIATION_BYTES, RESPONSE_BYTES};
use super::*;

/// Differs at every call; nothing here needs it to be unpredictable.
struct Counting(AtomicU8);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        bytes.fill(self.0.fetch_add(1, Ordering::Relaxed));
        Ok(())
    }
}

struct NoSource;

impl Random for NoSource {
    fn fill(&self, _bytes: &mut [u8]) -> Result<(), NoRandomness> {
        Err(NoRandomness)
    }
}

struct Side {
    door: Door,
    public: [u8; 32],
    jar: CookieJar,
    stamps: StampClock,
    gate: ReplayGate,
    random: Counting,
}

fn side(seed: u8) -> Side {
    let keys = Arc::new(StaticKeys::new(Secret::new([seed; 32])));
    Side {
        public: keys.public(),
        door: Door::new(keys),
        jar: CookieJar::default(),
        stamps: StampClock::default(),
        gate: ReplayGate::default(),
        random: Counting(AtomicU8::new(seed)),
    }
}

impl Side {
    fn seed(&self) -> Seed {
        Seed::draw(&self.random).unwrap()
    }

    /// An initiation, signed.
    fn initiate(&mut self, initiator: &mut Initiator, to: &[u8; 32], now: BootTime) -> Vec<u8> {
        let stamp = self.stamps.next(now.as_duration());
        let mut message = initiator.initiate(self.seed(), stamp).unwrap();
        self.jar.sign(to, &mut message, now);
        message.to_vec()
    }

    /// The answer to an initiation that passed the gate.
    fn answer(
        &mut self,
        initiation: &[u8],
        under: u8,
        index: u32,
    ) -> Result<(Arc<Session>, Vec<u8>), Refused> {
        let received = self.door.read(initiation, self.seed())?;
        self.gate.pass(received.stamp())?;
        let to = *received.sender();
        let (session, mut message) = received.answer(&psk(under), SessionIndex(index))?;
        self.jar.sign(&to, &mut message, at(0));
        Ok((Arc::new(session), message.to_vec()))
    }

    fn busy(&self, now: BootTime) -> Mood<'_> {
        Mood::Busy {
            now,
            random: &self.random,
        }
    }
}

fn psk(seed: u8) -> Psk {
    Secret::new([seed; 32])
}

fn at(secs: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(1000 + secs))
}

fn place() -> SocketAddr {
    "192.0.2.1:4000".parse().unwrap()
}

/// An IPv4 packet of `length` bytes.
fn packet(length: usize) -> Vec<u8> {
    let mut packet = vec![0xab; length];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    packet
}

fn initiator(from: &Side, to: &Side, under: u8) -> Initiator {
    Initiator::new(&from.door, &to.public, &psk(under), SessionIndex(11))
}

/// The initiator's and the responder's session, the latter not confirmed yet.
fn unconfirmed() -> (Arc<Session>, Arc<Session>) {
    let (mut a, mut b) = (side(1), side(2));
    let mut handshake = initiator(&a, &b, 7);
    let initiation = a.initiate(&mut handshake, &b.public, at(0));
    let (responder, response) = b.answer(&initiation, 7, 22).unwrap();
    (Arc::new(handshake.complete(&response).unwrap()), responder)
}

fn sessions() -> (Arc<Session>, Arc<Session>) {
    let (a, b) = unconfirmed();
    let (mut wire, mut out) = ([0; 64], [0; 64]);
    let length = a.seal(&[], &mut wire).unwrap();
    assert_eq!(b.open(&wire[..length], &mut out), Ok(Opened::Keepalive));
    (a, b)
}

fn seal(session: &Arc<Session>, plain: &[u8]) -> Vec<u8> {
    let mut wire = vec![0; plain.len() + DATA_OVERHEAD_BYTES];
    assert_eq!(session.seal(plain, &mut wire), Ok(wire.len()));
    wire
}

fn open(session: &Session, wire: &[u8]) -> Result<Opened, Refused> {
    session.open(wire, &mut vec![0; wire.len()])
}

#[test]
fn a_wrong_pre_shared_key_ends_in_no_session() {
    let (mut a, mut b) = (side(1), side(2));
    let mut handshake = initiator(&a, &b, 7);
    let initiation = a.initiate(&mut handshake, &b.public, at(0));
    let (_, wrong) = b.answer(&initiation, 8, 22).unwrap();
    assert_eq!(
        handshake.complete(&wrong).err(),
        Some(Refused::NotAuthentic)
    );
    // The handshake goes on waiting: the right answer still completes it.
    b.gate = ReplayGate::default();
    let (_, right) = b.answer(&initiation, 7, 23).unwrap();
    assert!(handshake.complete(&right).is_ok());
    assert_eq!(handshake.complete(&right).err(), Some(Refused::Unexpected));
}

#[test]
fn an_answer_to_an_earlier_initiation_is_refused() {
    let (mut a, mut b) = (side(1), side(2));
    let mut handshake = initiator(&a, &b, 7);
    let first = a.initiate(&mut handshake, &b.public, at(0));
    let (_, late) = b.answer(&first, 7, 22).unwrap();
    let second = a.initiate(&mut handshake, &b.public, at(1));
    let (_, fresh) = b.answer(&second, 7, 23).unwrap();
    assert_eq!(handshake.complete(&late).err(), Some(Refused::NotAuthentic));
    assert!(handshake.complete(&fresh).is_ok());
}

#[test]
fn an_answer_for_another_handshake_is_refused() {
    let (mut a, mut b) = (side(1), side(2));
    let mut handshake = initiator(&a, &b, 7);
    let initiation = a.initiate(&mut handshake, &b.public, at(0));
    let (_, mut response) = b.answer(&initiation, 7, 22).unwrap();
    response[8] ^= 1;
    assert_eq!(
        handshake.complete(&response).err(),
        Some(Refused::Unexpected)
    );
    assert_eq!(
        handshake.complete(&initiation).err(),
        Some(Refused::Unexpected)
    );
    assert_eq!(handshake.complete(&[]).err(), Some(Refused::Malformed));
}

#[test]
fn an_unconfirmed_responder_session_cannot_send() {
    let (_, session) = unconfirmed();
    let mut out = [0; 2048];
    assert_eq!(
        session.seal(&packet(64), &mut out),
        Err(Refused::Unexpected)
    );
    assert_eq!(session.seal(&[], &mut out), Err(Refused::Unexpected));
    assert_eq!(session.sealed(), 0);
    // A message that does not authenticate confirms nothing.
    let (mut forged, _) = ([0; 48], ());
    forged[0] = 4;
    forged[4] = 22;
    assert_eq!(open(&session, &forged), Err(Refused::NotAuthentic));
    assert_eq!(session.seal(&[], &mut out), Err(Refused::Unexpected));
}

#[test]
fn a_replayed_initiation_is_refused_and_a_newer_one_is_not() {
    let (mut a, mut b) = (side(1), side(2));
    let mut handshake = initiator(&a, &b, 7);
    let first = a.initiate(&mut handshake, &b.public, at(0));
    // Made in the same instant: still newer.
    let second = a.initiate(&mut handshake, &b.public, at(0));
    assert!(b.answer(&first, 7, 22).is_ok());
    assert_eq!(b.answer(&first, 7, 22).err(), Some(Refused::OldTimestamp));
    assert!(b.answer(&second, 7, 22).is_ok());
    assert_eq!(b.answer(&first, 7, 22).err(), Some(Refused::OldTimestamp));
}

#[test]
fn an_initiation_for_another_key_is_not_opened() {
    let (mut a, b, c) = (side(1), side(2), side(3));
    let mut handshake = initiator(&a, &b, 7);
    let initiation = a.initiate(&mut handshake, &b.public, at(0));
    assert_eq!(
        c.door.admit(place(), &initiation, Mood::Calm),
        Admission::Refused(Refused::WrongMac)
    );
    assert_eq!(
        c.door.read(&initiation, c.seed()).err(),
        Some(Refused::NotAuthentic)
    );
    assert_eq!(
        b.door.admit(place(), &initiation, Mood::Calm),
        Admission::Admitted
    );
    let received = b.door.read(&initiation, b.seed()).unwrap();
    assert_eq!(received.sender(), &a.public);
}

#[test]
fn a_weak_ephemeral_key_is_refused_at_the_door() {
    let (mut a, b) = (side(1), side(2));
    let mut handshake = initiator(&a, &b, 7);
    let mut initiation = a.initiate(&mut handshake, &b.public, at(0));
    initiation[8..40].fill(0);
    assert_eq!(
        b.door.read(&initiation, b.seed()).err(),
        Some(Refused::WeakKey)
    );
}

#[test]
fn a_changed_first_authenticator_is_refused_whatever_the_mood() {
    let (mut a, b) = (side(1), side(2));
    let mut handshake = initiator(&a, &b, 7);
    let initiation = a.initiate(&mut handshake, &b.public, at(0));
    for at_byte in [0, 8, 60, 115, 116, 131] {
        let mut changed = initiation.clone();
        changed[at_byte] ^= 0x80;
        for mood in [Mood::Calm, b.busy(at(0))] {
            assert!(matches!(
                b.door.admit(place(), &changed, mood),
                Admission::Refused(Refused::WrongMac | Refused::Malformed)
            ));
        }
    }
}

/// What a busy door answers to an initiation of `a`.
fn cookie_for(a: &mut Side, b: &Side, handshake: &mut Initiator, from: SocketAddr) -> [u8; 64] {
    let initiation = a.initiate(handshake, &b.public, at(0));
    match b.door.admit(from, &initiation, b.busy(at(0))) {
        Admission::Answer(reply) => reply,
        other => panic!("a busy door asks for a cookie: {other:?}"),
    }
}

#[test]
fn a_busy_door_wants_the_cookie_of_this_address_and_port() {
    let (mut a, b) = (side(1), side(2));
    let mut handshake = initiator(&a, &b, 7);
    let reply = cookie_for(&mut a, &b, &mut handshake, place());
    assert!(
        reply.len() < INITIATION_BYTES && reply.len() < RESPONSE_BYTES,
        "no amplification"
    );
    a.jar.take(&b.public, &reply, at(0)).unwrap();
    let signed = a.initiate(&mut handshake, &b.public, at(1));
    assert_eq!(
        b.door.admit(place(), &signed, b.busy(at(1))),
        Admission::Admitted
    );
    for elsewhere in ["192.0.2.1:4001", "192.0.2.2:4000", "[2001:db8::1]:4000"] {
        let from = elsewhere.parse().unwrap();
        assert!(
            matches!(
                b.door.admit(from, &signed, b.busy(at(1))),
                Admission::Answer(_)
            ),
            "{elsewhere}"
        );
    }
    let mut forged = signed.clone();
    forged[147] ^= 1;
    assert!(matches!(
        b.door.admit(place(), &forged, b.busy(at(1))),
        Admission::Answer(_)
    ));
}

#[test]
fn a_cookie_ends_with_the_secret_it_was_made_from() {
    let (mut a, b) = (side(1), side(2));
    let mut handshake = initiator(&a, &b, 7);
    let reply = cookie_for(&mut a, &b, &mut handshake, place());
    a.jar.take(&b.public, &reply, at(0)).unwrap();
    let late = cookie::COOKIE_LIFE.as_secs() - 1;
    let signed = a.initiate(&mut handshake, &b.public, at(late));
    assert_eq!(
        b.door.admit(place(), &signed, b.busy(at(late))),
        Admission::Admitted
    );
    let too_late = at(cookie::SECRET_LIFE.as_secs());
    assert!(matches!(
        b.door.admit(place(), &signed, b.busy(too_late)),
        Admission::Answer(_)
    ));
    // And its holder stops using it before that.
    let unsigned = a.initiate(&mut handshake, &b.public, at(cookie::COOKIE_LIFE.as_secs()));
    assert_eq!(unsigned[132..], [0; 16]);
}

#[test]
fn a_cookie_reply_is_taken_once_and_only_for_the_newest_message() {
    let (mut a, b, c) = (side(1), side(2), side(3));
    let mut handshake = initiator(&a, &b, 7);
    assert_eq!(
        CookieJar::default().take(&b.public, &[0; 64], at(0)),
        Err(Refused::Unexpected)
    );
    let early = cookie_for(&mut a, &b, &mut handshake, place());
    let reply = cookie_for(&mut a, &b, &mut handshake, place());
    assert_eq!(
        a.jar.take(&b.public, &early, at(0)),
        Err(Refused::NotAuthentic)
    );
    assert_eq!(
        a.jar.take(&c.public, &reply, at(0)),
        Err(Refused::NotAuthentic)
    );
    let mut forged = reply;
    forged[40] ^= 1;
    assert_eq!(
        a.jar.take(&b.public, &forged, at(0)),
        Err(Refused::NotAuthentic)
    );
    assert_eq!(
        a.jar.take(&b.public, &reply[..63], at(0)),
        Err(Refused::Malformed)
    );
    assert_eq!(a.jar.take(&b.public, &reply, at(0)), Ok(()));
    assert_eq!(
        a.jar.take(&b.public, &reply, at(0)),
        Err(Refused::Unexpected)
    );
}

#[test]
fn a_response_under_load_is_admitted_with_a_cookie_too() {
    let (mut a, mut b) = (side(1), side(2));
    let mut handshake = initiator(&a, &b, 7);
    let initiation = a.initiate(&mut handshake, &b.public, at(0));
    let (_, response) = b.answer(&initiation, 7, 22).unwrap();
    let Admission::Answer(reply) = a.door.admit(place(), &response, a.busy(at(0))) else {
        panic!("a busy door asks for a cookie");
    };
    assert_eq!(
        Message::parse(&reply),
        Ok(Message::Cookie(SessionIndex(22))),
        "addressed to the answer"
    );
    b.jar.take(&a.public, &reply, at(0)).unwrap();
    let initiation = a.initiate(&mut handshake, &b.public, at(1));
    let (_, response) = b.answer(&initiation, 7, 23).unwrap();
    assert_eq!(
        a.door.admit(place(), &response, a.busy(at(1))),
        Admission::Admitted
    );
}

#[test]
fn without_randomness_nothing_is_made() {
    let (mut a, b) = (side(1), side(2));
    assert_eq!(Seed::draw(&NoSource).err(), Some(NoRandomness));
    let mut handshake = initiator(&a, &b, 7);
    let initiation = a.initiate(&mut handshake, &b.public, at(0));
    let mood = Mood::Busy {
        now: at(0),
        random: &NoSource,
    };
    assert_eq!(
        b.door.admit(place(), &initiation, mood),
        Admission::Refused(Refused::Random(NoRandomness))
    );
}

#[test]
fn a_replayed_data_message_is_refused() {
    let (a, b) = sessions();
    let wire = seal(&a, &packet(100));
    assert_eq!(open(&b, &wire), Ok(Opened::Packet(100)));
    assert_eq!(open(&b, &wire), Err(Refused::Replayed));
}

#[test]
fn a_forged_counter_does_not_move_the_window() {
    let (a, b) = sessions();
    let honest = seal(&a, &packet(100));
    let mut forged = honest.clone();
    forged[8..16].copy_from_slice(&(1u64 << 40).to_le_bytes());
    assert_eq!(open(&b, &forged), Err(Refused::NotAuthentic));
    assert_eq!(open(&b, &honest), Ok(Opened::Packet(100)));
}

#[test]
fn eight_thousand_messages_in_any_order_arrive_once_each() {
    let (a, b) = sessions();
    let mut all: Vec<Vec<u8>> = (0..8000).map(|_| seal(&a, &packet(20))).collect();
    all.reverse();
    // Neighbours of the reversed order far apart.
    let (front, back) = all.split_at(4000);
    let mixed = back.iter().zip(front).flat_map(|(one, two)| [one, two]);
    let mut out = [0; 64];
    for wire in mixed {
        assert_eq!(b.open(wire, &mut out), Ok(Opened::Packet(20)));
    }
    for wire in &all {
        assert_eq!(b.open(wire, &mut out), Err(Refused::Replayed));
    }
}

#[test]
fn a_counter_at_its_end_is_refused() {
    let (a, b) = sessions();
    let mut wire = seal(&a, &packet(100));
    for end in [u64::MAX, u64::MAX - 1023, REJECT_AFTER_MESSAGES] {
        wire[8..16].copy_from_slice(&end.to_le_bytes());
        assert_eq!(open(&b, &wire), Err(Refused::Exhausted));
    }
    wire[8..16].copy_from_slice(&(REJECT_AFTER_MESSAGES - 1).to_le_bytes());
    assert_eq!(open(&b, &wire), Err(Refused::NotAuthentic));
}

/// Both sessions with the sender's counter set.
fn counted_from(sealed: u64) -> (Arc<Session>, Arc<Session>) {
    let (a, b) = sessions();
    let mut state = a.export();
    state.sealed = sealed;
    (Arc::new(Session::import(state)), b)
}

#[test]
fn a_session_ends_before_its_counter_does_and_never_counts_on() {
    let (a, b) = counted_from(REJECT_AFTER_MESSAGES - 2);
    assert_eq!(open(&b, &seal(&a, &packet(60))), Ok(Opened::Packet(60)));
    assert_eq!(open(&b, &seal(&a, &packet(60))), Ok(Opened::Packet(60)));
    for _ in 0..3 {
        assert_eq!(a.seal(&packet(60), &mut [0; 128]), Err(Refused::Exhausted));
        assert_eq!(a.sealed(), REJECT_AFTER_MESSAGES);
    }
}

#[test]
fn an_exported_session_goes_on_elsewhere_and_nowhere_else() {
    let (a, b) = sessions();
    let early = seal(&a, &packet(40));
    assert_eq!(open(&b, &early), Ok(Opened::Packet(40)));
    let late = seal(&a, &packet(41));
    let bytes = b.export().encode();
    assert_eq!(bytes.len(), SESSION_STATE_BYTES);
    // The old holder neither seals nor opens.
    assert_eq!(b.seal(&packet(40), &mut [0; 128]), Err(Refused::Exhausted));
    assert!(open(&b, &late).is_err());
    let moved = Arc::new(Session::import(SessionState::decode(&bytes).unwrap()));
    assert_eq!(
        open(&moved, &early),
        Err(Refused::Replayed),
        "the window came along"
    );
    assert_eq!(open(&moved, &late), Ok(Opened::Packet(41)));
    assert_eq!(open(&a, &seal(&moved, &packet(42))), Ok(Opened::Packet(42)));
    let state = unconfirmed().1.export().encode();
    let unconfirmed = Arc::new(Session::import(SessionState::decode(&state).unwrap()));
    assert_eq!(
        unconfirmed.seal(&[], &mut [0; 64]),
        Err(Refused::Unexpected)
    );
}

#[test]
fn bytes_that_are_no_session_are_refused() {
    let bytes = sessions().0.export().encode();
    for length in 0..bytes.len() {
        assert_eq!(
            SessionState::decode(&bytes[..length]).err(),
            Some(NotASession)
        );
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(SessionState::decode(&longer).is_err());
    // A counter past the end, a truth value of two, a window past the end.
    for (place, value) in [(8..16, 0xff), (16..17, 2), (81..89, 0xff)] {
        let mut changed = bytes.to_vec();
        changed[place].fill(value);
        assert!(SessionState::decode(&changed).is_err());
    }
}

#[test]
fn short_buffers_are_refused_and_cost_no_counter() {
    let (a, b) = sessions();
    let mut wire = [0; 2048];
    let before = a.sealed();
    assert_eq!(
        a.seal(&packet(1400), &mut wire[..1431]),
        Err(Refused::Buffer(1431))
    );
    assert_eq!(a.seal(&[], &mut wire[..31]), Err(Refused::Buffer(31)));
    assert_eq!(a.sealed(), before);
    let length = a.seal(&packet(1400), &mut wire[..1432]).unwrap();
    assert_eq!(
        b.open(&wire[..length], &mut [0; 1415]),
        Err(Refused::Buffer(1415))
    );
    assert_eq!(
        b.open(&wire[..length], &mut [0; 1416]),
        Ok(Opened::Packet(1400))
    );
}

#[test]
fn messages_of_other_sessions_kinds_and_lengths_are_refused() {
    let (a, b) = sessions();
    let wire = seal(&a, &packet(100));
    let mut other = wire.clone();
    other[4] ^= 1;
    assert_eq!(open(&b, &other), Err(Refused::Unexpected));
    assert_eq!(
        open(&a, &wire),
        Err(Refused::Unexpected),
        "sent back to its maker"
    );
    for length in 0..wire.len() {
        assert!(open(&b, &wire[..length]).is_err(), "{length}");
    }
    let mut longer = wire.clone();
    longer.push(0);
    assert_eq!(open(&b, &longer), Err(Refused::NotAuthentic));
}

#[test]
fn lengths_of_messages_are_exact() {
    for (kind, length) in [(1u8, 148usize), (2, 92), (3, 64)] {
        for wrong in [0, 3, 4, 8, length - 1, length + 1, 2 * length, 65_535] {
            let mut bytes = vec![0; wrong];
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            assert_eq!(
                Message::parse(&bytes),
                Err(Refused::Malformed),
                "{kind} {wrong}"
            );
        }
        let mut bytes = vec![0; length];
        bytes[0] = kind;
        assert!(Message::parse(&bytes).is_ok());
        bytes[1] = 1;
        assert_eq!(
            Message::parse(&bytes),
            Err(Refused::Malformed),
            "reserved bytes"
        );
    }
    assert_eq!(Message::parse(&[4; 31]), Err(Refused::Malformed));
}

#[test]
fn what_is_no_whole_packet_is_refused() {
    let (a, b) = sessions();
    let mut cut = packet(100);
    cut.truncate(99);
    let mut short = packet(100);
    short[2..4].copy_from_slice(&19u16.to_be_bytes());
    let mut sixth = vec![0; 39];
    sixth[0] = 0x60;
    let mut unknown = packet(100);
    unknown[0] = 0x55;
    for plain in [
        &cut,
        &short,
        &sixth,
        &unknown,
        &vec![0x45],
        &vec![0x45, 0, 0],
    ] {
        assert_eq!(open(&b, &seal(&a, plain)), Err(Refused::NotIp));
    }
    let mut empty = vec![0; 40];
    empty[0] = 0x60;
    assert_eq!(open(&b, &seal(&a, &empty)), Ok(Opened::Packet(40)));
}

#[test]
fn padding_reaches_a_multiple_of_sixteen_but_not_past_the_mtu() {
    assert_eq!(padded_length(0, 1420), 0);
    assert_eq!(padded_length(1, 1420), 16);
    assert_eq!(padded_length(1408, 1420), 1408);
    assert_eq!(padded_length(1409, 1420), 1420);
    assert_eq!(padded_length(1420, 1420), 1420);
    assert_eq!(padded_length(1500, 1420), 1500);
}

#[test]
fn padding_is_cut_off_by_the_receiver() {
    let (a, b) = sessions();
    let mut plain = packet(101);
    plain.resize(112, 0);
    let wire = seal(&a, &plain);
    assert_eq!(wire.len(), 112 + DATA_OVERHEAD_BYTES);
    let mut out = [0; 256];
    assert_eq!(b.open(&wire, &mut out), Ok(Opened::Packet(101)));
    assert_eq!(&out[..101], &plain[..101]);
}

#[test]
fn a_packet_is_sealed_where_it_stands_as_if_it_were_copied() {
    let (a, b) = sessions();
    let mut message = vec![0; 100 + DATA_OVERHEAD_BYTES];
    message[16..116].copy_from_slice(&packet(100));
    let sealing = a.sealing().unwrap();
    assert_eq!(sealing.seal_in_place(100, &mut message), Ok(132));
    assert_eq!(open(&b, &message), Ok(Opened::Packet(100)));
}

#[test]
fn several_threads_seal_without_using_a_counter_twice() {
    let (a, b) = sessions();
    let all: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..500).map(|_| seal(&a, &packet(60))).collect::<Vec<_>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        all.iter()
            .all(|wire| open(&b, wire) == Ok(Opened::Packet(60)))
    );
    assert_eq!(a.sealed(), 2001);
}

#[test]
fn timestamps_grow_even_when_the_clock_does_not() {
    let mut clock = StampClock::default();
    let first = clock.next(Duration::from_secs(1_700_000_000));
    let second = clock.next(Duration::from_secs(1_700_000_000));
    let back = clock.next(Duration::from_secs(5));
    let later = clock.next(Duration::from_millis(1_700_000_000_020));
    assert!(first < second && second < back && back < later);
    assert_eq!(
        first.to_bytes()[..8],
        (0x4000_0000_0000_000au64 + 1_700_000_000).to_be_bytes()
    );
    let mut gate = ReplayGate::default();
    assert_eq!(gate.pass(second), Ok(()));
    assert_eq!(gate.pass(first), Err(Refused::OldTimestamp));
    assert_eq!(gate.pass(second), Err(Refused::OldTimestamp));
    assert_eq!(gate.pass(back), Ok(()));
}

#[test]
fn a_low_order_key_agrees_on_nothing() {
    let keys = StaticKeys::new(Secret::new([1; 32]));
    assert!(keys.agree(&[0; 32]).is_none());
    assert!(keys.agree(&side(2).public).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_engine_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096), kind in 0u8..6) {
        let (a, b) = sessions();
        let mut bytes = bytes;
        if let Some(prefix) = bytes.get_mut(..4) {
            prefix.copy_from_slice(&[kind, 0, 0, 0]);
        }
        let length = match kind { 1 => 148, 2 => 92, 3 => 64, _ => bytes.len() };
        bytes.resize(length, 7);
        prop_assert!(open(&a, &bytes).is_err() && open(&b, &bytes).is_err());
        let (mut c, d) = (side(3), side(4));
        prop_assert!(d.door.read(&bytes, d.seed()).is_err());
        for mood in [Mood::Calm, d.busy(at(0))] {
            prop_assert!(matches!(d.door.admit(place(), &bytes, mood), Admission::Refused(_)));
        }
        let mut handshake = initiator(&c, &d, 7);
        let _message = c.initiate(&mut handshake, &d.public, at(0));
        prop_assert!(handshake.complete(&bytes).is_err());
        prop_assert!(c.jar.take(&d.public, &bytes, at(0)).is_err());
        let _refused = SessionState::decode(&bytes);
    }

    #[test]
    fn a_changed_bit_never_opens(position in 0usize..(1000 + DATA_OVERHEAD_BYTES), bit in 0u8..8) {
        let (a, b) = sessions();
        let mut wire = seal(&a, &packet(1000));
        wire[position] ^= 1 << bit;
        prop_assert!(open(&b, &wire).is_err());
    }

    #[test]
    fn a_changed_bit_never_completes_a_handshake(position in 0usize..116, bit in 0u8..8) {
        let (mut a, mut b) = (side(1), side(2));
        let mut handshake = initiator(&a, &b, 7);
        let mut initiation = a.initiate(&mut handshake, &b.public, at(0));
        let mut changed = initiation.clone();
        changed[position] ^= 1 << bit;
        // Kind, reserved bytes and sender index are covered by the authenticators at the door.
        let admitted = b.door.admit(place(), &changed, Mood::Calm) == Admission::Admitted;
        prop_assert!(!admitted);
        if position >= 8 {
            prop_assert!(b.door.read(&changed, b.seed()).is_err());
        }
        initiation.truncate(148);
        let (_, response) = b.answer(&initiation, 7, 22).unwrap();
        let mut changed = response;
        let position = position % 60;
        changed[position] ^= 1 << bit;
        // The responder's index is covered by the authenticators only.
        prop_assert!((4..8).contains(&position) || handshake.complete(&changed).is_err());
    }
}
