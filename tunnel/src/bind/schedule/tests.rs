use super::*;

fn parties() -> Parties {
    Parties {
        initiator: Party {
            leaf_hash: [0x11; 32],
            spki: SpkiHash::from_bytes([0x12; 32]),
        },
        responder: Party {
            leaf_hash: [0x21; 32],
            spki: SpkiHash::from_bytes([0x22; 32]),
        },
    }
}

fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

fn start(parties: &Parties, offers: [&[u8]; 2], keys: [[u8; 32]; 2]) -> Schedule {
    let context = exporter_context(&domain(), parties);
    let transcript = Transcript::of(&context, offers[0], offers[1]);
    Schedule::start(
        Secret::new([0x31; 32]),
        Secret::new([0x32; 32]),
        &transcript,
        parties,
        keys,
    )
}

/// The schedule once more, straight down, on ring's own HKDF and without a line of the module's code.
mod again {
    use ring::digest::{SHA256, digest};
    use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

    struct Len32;

    impl KeyType for Len32 {
        fn len(&self) -> usize {
            32
        }
    }

    fn expand(prk: &Prk, info: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        prk.expand(&[info], Len32).unwrap().fill(&mut out).unwrap();
        out
    }

    pub(super) struct Values {
        pub(super) context: [u8; 32],
        pub(super) transcript: [u8; 32],
        pub(super) confirm: [u8; 32],
        pub(super) reach: [u8; 32],
        pub(super) psk: [[u8; 32]; 2],
    }

    pub(super) fn compute() -> Values {
        let mut context = Vec::new();
        context.extend(b"\x00\x10edgeward-bind-v1");
        context.extend(b"\x00\x0dplant.example");
        context.extend(b"\x00\x0fedgeward-bind/1");
        context.extend(b"\x00\x20");
        context.extend([0x11; 32]);
        context.extend(b"\x00\x20");
        context.extend([0x12; 32]);
        context.extend(b"\x00\x20");
        context.extend([0x21; 32]);
        context.extend(b"\x00\x20");
        context.extend([0x22; 32]);
        let context: [u8; 32] = digest(&SHA256, &context).as_ref().try_into().unwrap();

        let mut transcript = Vec::new();
        transcript.extend(b"\x00\x1bedgeward-bind-transcript-v1");
        transcript.extend(context);
        transcript.extend(b"\x00\x00\x00\x07offer-i");
        transcript.extend(b"\x00\x00\x00\x08offer-rr");
        let transcript: [u8; 32] = digest(&SHA256, &transcript).as_ref().try_into().unwrap();

        let ikm = [[0x31; 32], [0x32; 32]].concat();
        let s0 = Salt::new(HKDF_SHA256, &transcript).extract(&ikm);
        let confirm = expand(&s0, b"edgeward-bind-confirm-v1");
        let reach = expand(&s0, b"edgeward-bind-reach-v1");
        let psk0 = expand(
            &s0,
            &[
                b"edgeward-bind-psk-v1".as_slice(),
                &0u64.to_be_bytes(),
                &[0x41; 32],
                &[0x42; 32],
                &[0x12; 32],
                &[0x22; 32],
            ]
            .concat(),
        );

        // ring keeps its extracted key to itself: extract by HMAC, which is what RFC 5869 says it is.
        let s0_bytes = {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &transcript);
            ring::hmac::sign(&key, &ikm)
        };
        let s1 = Salt::new(HKDF_SHA256, s0_bytes.as_ref()).extract(
            &[
                b"edgeward-bind-ratchet-v1".as_slice(),
                &1u64.to_be_bytes(),
                &[0x51; 32],
                &[0x52; 32],
            ]
            .concat(),
        );
        let psk1 = expand(
            &s1,
            &[
                b"edgeward-bind-psk-v1".as_slice(),
                &1u64.to_be_bytes(),
                &[0x41; 32],
                &[0x42; 32],
                &[0x12; 32],
                &[0x22; 32],
            ]
            .concat(),
        );
        Values {
            context,
            transcript,
            confirm,
            reach,
            psk: [psk0, psk1],
        }
    }
}

#[test]
fn an_independent_computation_gives_the_same_values() {
    let again = again::compute();
    let context = exporter_context(&domain(), &parties());
    assert_eq!(context, again.context);
    let transcript = Transcript::of(&context, b"offer-i", b"offer-rr");
    assert_eq!(*transcript.as_bytes(), again.transcript);
    let mut schedule = start(
        &parties(),
        [b"offer-i", b"offer-rr"],
        [[0x42; 32], [0x41; 32]],
    );
    assert!(schedule.confirm().matches(&again.confirm));
    assert!(schedule.reach().matches(&again.reach));
    assert!(schedule.psk().matches(&again.psk[0]));
    schedule.turn(1, &[0x51; 32], &[0x52; 32]).unwrap();
    assert!(schedule.psk().matches(&again.psk[1]));
}

#[test]
fn the_known_answer_stays() {
    // Changing any of these is a new version of the protocol.
    let mut schedule = start(
        &parties(),
        [b"offer-i", b"offer-rr"],
        [[0x41; 32], [0x42; 32]],
    );
    assert_eq!(hex::encode(schedule.psk().expose()), KNOWN_PSK_0);
    schedule.turn(1, &[0x51; 32], &[0x52; 32]).unwrap();
    assert_eq!(hex::encode(schedule.psk().expose()), KNOWN_PSK_1);
}

const KNOWN_PSK_0: &str = "ed0ede6cd0a679cab5543e8db55249b55c7dba2502dfcae68988fb2831fd4d59";
const KNOWN_PSK_1: &str = "fa77606f2ac504db60cc47b1590b017090dadcce695fe81e58df7cfb32068bb8";

#[test]
fn epochs_only_go_up_by_one() {
    let mut schedule = start(&parties(), [b"a", b"b"], [[1; 32], [2; 32]]);
    for asked in [0, 2, u64::MAX] {
        assert_eq!(
            schedule.turn(asked, &[0; 32], &[0; 32]),
            Err(NotNext { asked, present: 0 })
        );
    }
    let before = schedule.psk();
    schedule.turn(1, &[0; 32], &[0; 32]).unwrap();
    assert!(!schedule.psk().matches(before.expose()));
    assert!(schedule.turn(1, &[0; 32], &[0; 32]).is_err());
}

#[test]
fn every_input_changes_the_key() {
    let base = start(&parties(), [b"a", b"b"], [[1; 32], [2; 32]]);
    let swapped = Parties {
        initiator: parties().responder,
        responder: parties().initiator,
    };
    let mut other_leaf = parties();
    other_leaf.initiator.leaf_hash = [0; 32];
    for other in [
        start(&swapped, [b"a", b"b"], [[1; 32], [2; 32]]),
        start(&other_leaf, [b"a", b"b"], [[1; 32], [2; 32]]),
        start(&parties(), [b"b", b"a"], [[1; 32], [2; 32]]),
        start(&parties(), [b"ab", b""], [[1; 32], [2; 32]]),
        start(&parties(), [b"a", b"b"], [[1; 32], [3; 32]]),
    ] {
        assert!(!other.psk().matches(base.psk().expose()));
    }
    let same = start(&parties(), [b"a", b"b"], [[2; 32], [1; 32]]);
    assert!(same.psk().matches(base.psk().expose()));
}

#[test]
fn debug_shows_the_epoch_only() {
    let schedule = start(&parties(), [b"a", b"b"], [[1; 32], [2; 32]]);
    assert_eq!(format!("{schedule:?}"), "Schedule { epoch: 0, .. }");
}
