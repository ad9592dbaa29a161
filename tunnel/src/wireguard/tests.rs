use proptest::prelude::*;

use super::*;

struct Side {
    door: Door,
    public: [u8; 32],
}

fn side(seed: u8) -> Side {
    let keys = Arc::new(StaticKeys::new(Secret::new([seed; 32])));
    Side {
        public: keys.public(),
        door: Door::new(keys),
    }
}

fn psk(seed: u8) -> Psk {
    Secret::new([seed; 32])
}

fn local() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

/// An IPv4 packet of `length` bytes.
fn packet(length: usize) -> Vec<u8> {
    let mut packet = vec![0xab; length];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    packet
}

/// The initiator's and the responder's session.
fn sessions() -> (Session, Session) {
    let (a, b) = (side(1), side(2));
    let mut initiator = Initiator::new(&a.door, &b.public, &psk(7), SessionIndex(11));
    let mut buffer = [0; 256];
    let length = initiator.initiate(&mut buffer).unwrap();
    let initiation = buffer[..length].to_vec();
    let (mut responder, length) = Session::respond(
        &b.door,
        &a.public,
        &psk(7),
        SessionIndex(22),
        &initiation,
        &mut buffer,
    )
    .unwrap();
    let response = buffer[..length].to_vec();
    let length = initiator.complete(&response, &mut buffer).unwrap();
    let mut out = [0; 256];
    assert_eq!(
        responder.open(&buffer[..length], &mut out),
        Ok(Opened::Keepalive)
    );
    (initiator.into_session(), responder)
}

#[test]
fn a_wrong_pre_shared_key_ends_in_no_session() {
    let (a, b) = (side(1), side(2));
    let mut initiator = Initiator::new(&a.door, &b.public, &psk(7), SessionIndex(11));
    let mut buffer = [0; 256];
    let length = initiator.initiate(&mut buffer).unwrap();
    let initiation = buffer[..length].to_vec();
    let (_session, length) = Session::respond(
        &b.door,
        &a.public,
        &psk(8),
        SessionIndex(22),
        &initiation,
        &mut buffer,
    )
    .unwrap();
    let response = buffer[..length].to_vec();
    assert_eq!(
        initiator.complete(&response, &mut buffer),
        Err(Refused::NotAuthentic)
    );
    // The handshake goes on waiting: the right answer still completes it.
    let (_session, length) = Session::respond(
        &b.door,
        &a.public,
        &psk(7),
        SessionIndex(23),
        &initiation,
        &mut buffer,
    )
    .unwrap();
    let response = buffer[..length].to_vec();
    assert!(initiator.complete(&response, &mut buffer).is_ok());
}

#[test]
fn an_unconfirmed_responder_session_cannot_send() {
    let (a, b) = (side(1), side(2));
    let mut initiator = Initiator::new(&a.door, &b.public, &psk(7), SessionIndex(11));
    let mut buffer = [0; 256];
    let length = initiator.initiate(&mut buffer).unwrap();
    let initiation = buffer[..length].to_vec();
    let (mut session, _) = Session::respond(
        &b.door,
        &a.public,
        &psk(7),
        SessionIndex(22),
        &initiation,
        &mut buffer,
    )
    .unwrap();
    let mut out = [0; 2048];
    assert_eq!(
        session.seal(&packet(64), &mut out),
        Err(Refused::Unexpected)
    );
    assert_eq!(
        session.seal(&packet(148 - 32), &mut out),
        Err(Refused::Unexpected)
    );
}

#[test]
fn the_gate_refuses_a_replayed_or_foreign_initiation() {
    let (a, b, c) = (side(1), side(2), side(3));
    let mut buffer = [0; 256];
    let mut gate = ReplayGate::new(&b.door, &a.public);
    let mut initiator = Initiator::new(&a.door, &b.public, &psk(7), SessionIndex(11));
    let length = initiator.initiate(&mut buffer).unwrap();
    let first = buffer[..length].to_vec();
    assert_eq!(gate.pass(&first), Ok(()));
    assert_eq!(gate.pass(&first), Err(Refused::OldTimestamp));
    let length = initiator.initiate(&mut buffer).unwrap();
    assert_eq!(gate.pass(&buffer[..length]), Ok(()));
    let mut foreign = Initiator::new(&c.door, &b.public, &psk(7), SessionIndex(12));
    let length = foreign.initiate(&mut buffer).unwrap();
    assert_eq!(gate.pass(&buffer[..length]), Err(Refused::NotAuthentic));
}

#[test]
fn the_door_refuses_what_was_made_for_another_key_and_asks_for_a_cookie_when_busy() {
    let (a, b, c) = (side(1), side(2), side(3));
    let mut buffer = [0; 256];
    let mut initiator = Initiator::new(&a.door, &b.public, &psk(7), SessionIndex(11));
    let length = initiator.initiate(&mut buffer).unwrap();
    let initiation = buffer[..length].to_vec();
    let mut reply = [0; 256];
    assert_eq!(
        c.door.admit(local(), &initiation, false, &mut reply),
        Admission::Refused(Refused::WrongMac)
    );
    assert_eq!(
        b.door.admit(local(), &initiation, false, &mut reply),
        Admission::Admitted
    );
    assert_eq!(b.door.sender(&initiation), Ok(a.public));
    let Admission::Answer(length) = b.door.admit(local(), &initiation, true, &mut reply) else {
        panic!("a busy door asks for a cookie");
    };
    initiator.take_cookie(&reply[..length]).unwrap();
    let length = initiator.initiate(&mut buffer).unwrap();
    assert_eq!(
        b.door.admit(local(), &buffer[..length], true, &mut reply),
        Admission::Admitted
    );
}

#[test]
fn a_replayed_data_message_is_refused() {
    let (mut a, mut b) = sessions();
    let (mut wire, mut out) = ([0; 2048], [0; 2048]);
    let length = a.seal(&packet(100), &mut wire).unwrap();
    assert_eq!(b.open(&wire[..length], &mut out), Ok(Opened::Packet(100)));
    assert_eq!(b.open(&wire[..length], &mut out), Err(Refused::Replayed));
}

#[test]
fn a_counter_at_its_end_is_refused_before_the_replay_window_sees_it() {
    let (mut a, mut b) = sessions();
    let (mut wire, mut out) = ([0; 2048], [0; 2048]);
    let length = a.seal(&packet(100), &mut wire).unwrap();
    for end in [u64::MAX, u64::MAX - 1023, REJECT_AFTER_MESSAGES] {
        wire[8..16].copy_from_slice(&end.to_le_bytes());
        assert_eq!(b.open(&wire[..length], &mut out), Err(Refused::Exhausted));
    }
    wire[8..16].copy_from_slice(&(REJECT_AFTER_MESSAGES - 1).to_le_bytes());
    assert_eq!(
        b.open(&wire[..length], &mut out),
        Err(Refused::NotAuthentic)
    );
}

#[test]
fn short_buffers_are_refused_instead_of_panicking() {
    let (mut a, mut b) = sessions();
    let mut wire = [0; 2048];
    assert_eq!(
        a.seal(&packet(1400), &mut wire[..1431]),
        Err(Refused::Buffer(1431))
    );
    let length = a.seal(&packet(1400), &mut wire[..1432]).unwrap();
    let mut short = [0; 1431];
    assert_eq!(
        b.open(&wire[..length], &mut short),
        Err(Refused::Buffer(1431))
    );
    assert_eq!(a.seal(&[], &mut [0; 100]), Err(Refused::Buffer(100)));
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
    let (mut a, mut b) = sessions();
    let (mut wire, mut out) = ([0; 2048], [0; 2048]);
    let mut plain = packet(101);
    plain.resize(112, 0);
    let length = a.seal(&plain, &mut wire).unwrap();
    assert_eq!(length, 112 + DATA_OVERHEAD_BYTES);
    assert_eq!(b.open(&wire[..length], &mut out), Ok(Opened::Packet(101)));
    assert_eq!(&out[..101], &plain[..101]);
}

#[test]
fn a_low_order_key_agrees_on_nothing() {
    let keys = StaticKeys::new(Secret::new([1; 32]));
    assert!(keys.agree(&[0; 32]).is_none());
    assert!(keys.agree(&side(2).public).is_some());
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_or_a_session_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096), kind in 0u8..6) {
        let (mut a, mut b) = sessions();
        let mut bytes = bytes;
        if let Some(prefix) = bytes.get_mut(..4) {
            prefix.copy_from_slice(&[kind, 0, 0, 0]);
        }
        let _parsed = Message::parse(&bytes);
        let mut out = vec![0; 4096];
        let _refused = a.open(&bytes, &mut out);
        let _refused = b.open(&bytes, &mut out);
        let door = side(2).door;
        let _refused = door.sender(&bytes);
        let _refused = door.admit(local(), &bytes, kind % 2 == 0, &mut out);
    }

    #[test]
    fn a_changed_bit_never_opens(position in 0usize..(1000 + DATA_OVERHEAD_BYTES), bit in 0u8..8) {
        let (mut a, mut b) = sessions();
        let (mut wire, mut out) = ([0; 2048], [0; 2048]);
        let length = a.seal(&packet(1000), &mut wire).unwrap();
        wire[position] ^= 1 << bit;
        prop_assert!(b.open(&wire[..length], &mut out).is_err());
    }
}
