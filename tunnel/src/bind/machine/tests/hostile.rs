//! The malicious peer: every way to lie in a bind, each refused by its code, with nothing armed.

use super::*;
use crate::bind::claims::Floor;
use crate::bind::codec::{KemShare, Offer, Proof};

const OFFLINE: CloudLink = CloudLink::CutOff {
    last_heartbeat: TEST_NOW,
};

/// Runs a bind in which the responder's `nth` frame (or the initiator's) is altered on the way.
fn altered(
    setup: Setup<'_>,
    of_initiator: bool,
    nth: usize,
    alter: impl FnOnce(&mut Message),
) -> Pair {
    let mut pair = setup.start();
    let mut alter = Some(alter);
    let mut seen = [0_usize; 2];
    loop {
        let (from_initiator, mut body) = if let Some(body) = pair.initiator.sent.pop_front() {
            (true, body)
        } else if let Some(body) = pair.responder.sent.pop_front() {
            (false, body)
        } else {
            return pair;
        };
        let count = &mut seen[usize::from(from_initiator)];
        if from_initiator == of_initiator
            && *count == nth
            && let Some(alter) = alter.take()
        {
            let mut message = parse(&body).unwrap();
            alter(&mut message);
            body = message.body();
        }
        *count += 1;
        if from_initiator {
            pair.responder.input(Input::Frame(&body));
        } else {
            pair.initiator.input(Input::Frame(&body));
        }
    }
}

fn with_offer(change: impl FnOnce(&mut Offer)) -> impl FnOnce(&mut Message) {
    |message| match message {
        Message::Offer(offer) => change(offer),
        other => panic!("{other:?}"),
    }
}

fn with_proof(change: impl FnOnce(&mut Proof)) -> impl FnOnce(&mut Message) {
    |message| match message {
        Message::Proof(proof) => change(proof),
        other => panic!("{other:?}"),
    }
}

/// The responder refused with this code, and neither end armed anything.
fn assert_refused(pair: &Pair, code: Code) {
    assert_eq!(
        pair.responder.code(),
        Some(code),
        "{:?}",
        pair.responder.ending
    );
    assert!(pair.responder.armed.is_empty() && pair.initiator.armed.is_empty());
    assert!(!pair.responder.was_cut(), "nothing of this bind to cut");
}

fn first_offer(pair: &Pair) -> Vec<u8> {
    pair.initiator.sent.front().unwrap().clone()
}

#[test]
fn another_version_is_refused() {
    let (fleet, a, b) = fleet_of_two();
    let pair = altered(
        Setup::new(&fleet, &a, &b),
        true,
        0,
        with_offer(|o| o.version = 2),
    );
    assert_refused(&pair, Code::Version);
}

#[test]
fn an_altered_offer_changes_the_transcript_and_the_proofs_fail() {
    let (fleet, a, b) = fleet_of_two();
    for change in [
        (|o: &mut Offer| o.nonce[0] ^= 1) as fn(&mut Offer),
        |o| o.boot_id[0] ^= 1,
        |o| o.slice_number += 1,
    ] {
        let pair = altered(Setup::new(&fleet, &a, &b), true, 0, with_offer(change));
        assert_eq!(pair.initiator.code(), Some(Code::Proof));
        assert!(pair.responder.armed.is_empty() && pair.initiator.armed.is_empty());
        let pair = altered(Setup::new(&fleet, &a, &b), false, 0, with_offer(change));
        assert_eq!(pair.initiator.code(), Some(Code::Proof));
        assert!(pair.responder.armed.is_empty() && pair.initiator.armed.is_empty());
    }
}

#[test]
fn an_altered_key_share_is_refused() {
    let (fleet, a, b) = fleet_of_two();
    let flip = |offer: &mut Offer| match &mut offer.share {
        KemShare::Key(key) => key[1183] ^= 1,
        KemShare::Ciphertext(ciphertext) => ciphertext[7] ^= 1,
    };
    for of_initiator in [true, false] {
        let pair = altered(
            Setup::new(&fleet, &a, &b),
            of_initiator,
            0,
            with_offer(flip),
        );
        assert_eq!(pair.initiator.code(), Some(Code::Proof));
        assert!(pair.responder.armed.is_empty() && pair.initiator.armed.is_empty());
    }
}

#[test]
fn a_key_share_of_the_other_role_is_refused() {
    let (fleet, a, b) = fleet_of_two();
    let pair = altered(
        Setup::new(&fleet, &a, &b),
        true,
        0,
        with_offer(|o| o.share = KemShare::Ciphertext(Box::new([1; codec::CIPHERTEXT_BYTES]))),
    );
    assert_refused(&pair, Code::Protocol);
    let pair = altered(
        Setup::new(&fleet, &a, &b),
        true,
        0,
        with_offer(|o| o.share = KemShare::Key(Box::new([0xff; codec::ENCAPSULATION_KEY_BYTES]))),
    );
    assert_refused(&pair, Code::Protocol);
}

#[test]
fn a_different_exporter_is_refused() {
    let (fleet, a, b) = fleet_of_two();
    let mut setup = Setup::new(&fleet, &a, &b);
    setup.roots = [1, 2];
    let mut pair = setup.start();
    pair.settle();
    assert_eq!(pair.initiator.code(), Some(Code::Proof));
    assert!(pair.responder.armed.is_empty() && pair.initiator.armed.is_empty());
}

#[test]
fn proofs_that_are_altered_reflected_or_of_another_key_are_refused() {
    let (fleet, a, b) = fleet_of_two();
    let other = SoftwareKey::generate().unwrap();
    let forged = edgeward_identity::Signer::sign(&other, b"anything").unwrap();
    let pair = altered(
        Setup::new(&fleet, &a, &b),
        true,
        1,
        with_proof(|p| p.possession[0] ^= 1),
    );
    assert_refused(&pair, Code::Proof);
    let pair = altered(
        Setup::new(&fleet, &a, &b),
        true,
        1,
        with_proof(|p| p.signature = forged),
    );
    assert_refused(&pair, Code::Proof);

    // The responder's own proof, sent back to it.
    let mut pair = Setup::new(&fleet, &a, &b).start();
    let offer = pair.initiator.sent.pop_front().unwrap();
    pair.responder.input(Input::Frame(&offer));
    let own_proof = pair.responder.sent.pop_back().unwrap();
    pair.responder.input(Input::Frame(&own_proof));
    assert_refused(&pair, Code::Proof);
}

#[test]
fn an_offer_sent_back_to_its_sender_is_refused() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    let own = pair.initiator.sent.pop_front().unwrap();
    pair.initiator.input(Input::Frame(&own));
    assert_eq!(pair.initiator.code(), Some(Code::WireGuardKey));
}

#[test]
fn a_peer_with_this_nodes_own_key_is_refused() {
    let (fleet, a, _) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &a).start();
    pair.settle();
    assert_eq!(pair.initiator.code(), Some(Code::Identity));
    assert_eq!(pair.responder.code(), Some(Code::Identity));
}

#[test]
fn an_offer_replayed_from_another_bind_is_refused() {
    let (fleet, a, b) = fleet_of_two();
    let mut old = Setup::new(&fleet, &a, &b).start();
    let offer = first_offer(&old);
    old.settle();
    let mut setup = Setup::new(&fleet, &a, &b);
    setup.roots = [3, 3];
    let mut pair = setup.start();
    pair.responder.input(Input::Frame(&offer));
    // Whoever replays has neither the exporter nor a private key; the proof of the old bind does not fit.
    let mut replay = Setup::new(&fleet, &a, &b).start();
    replay.settle();
    pair.initiator.sent.clear();
    let mut again = Setup::new(&fleet, &a, &b).start();
    let body = again.initiator.sent.pop_front().unwrap();
    again.responder.input(Input::Frame(&body));
    while let Some(body) = again.responder.sent.pop_front() {
        again.initiator.input(Input::Frame(&body));
    }
    let old_proof = again.initiator.sent.pop_front().unwrap();
    pair.responder.input(Input::Frame(&old_proof));
    assert_refused(&pair, Code::Proof);
}

#[test]
fn a_wireguard_key_of_another_identity_is_refused() {
    let (fleet, a, b) = fleet_of_two();
    let mut setup = Setup::new(&fleet, &a, &b);
    let victim = fleet.authority.id("node/victim");
    setup
        .responder_memory
        .holders
        .insert(a.wireguard.public(), victim);
    let mut pair = setup.start();
    pair.settle();
    assert_refused(&pair, Code::WireGuardKey);
}

#[test]
fn a_wireguard_key_taken_between_offer_and_proof_is_refused() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    let offer = pair.initiator.sent.pop_front().unwrap();
    pair.responder.input(Input::Frame(&offer));
    let victim = fleet.authority.id("node/victim");
    pair.responder
        .memory
        .holders
        .insert(a.wireguard.public(), victim);
    pair.settle();
    assert_refused(&pair, Code::WireGuardKey);
}

#[test]
fn a_claimed_wireguard_key_without_its_private_half_is_refused() {
    let (fleet, a, b) = fleet_of_two();
    let victim = fleet.node("victim");
    let pair = altered(
        Setup::new(&fleet, &a, &b),
        true,
        0,
        with_offer(|o| o.wireguard_key = victim.wireguard.public()),
    );
    // Here the initiator notices first, since its own proof cannot fit either.
    assert!(pair.initiator.ending.is_some() && pair.responder.ending.is_some());
    assert!(pair.responder.armed.is_empty() && pair.initiator.armed.is_empty());
}

#[test]
fn wireguard_keys_of_low_order_are_refused() {
    let (fleet, a, b) = fleet_of_two();
    let mut one = [0; 32];
    one[0] = 1;
    for key in [[0; 32], one] {
        let pair = altered(
            Setup::new(&fleet, &a, &b),
            true,
            0,
            with_offer(|o| o.wireguard_key = key),
        );
        assert_refused(&pair, Code::WireGuardKey);
    }
    let pair = altered(
        Setup::new(&fleet, &a, &b),
        true,
        0,
        with_offer(|o| o.wireguard_key = b.wireguard.public()),
    );
    assert_refused(&pair, Code::WireGuardKey);
}

#[test]
fn a_result_about_anybody_or_anything_else_is_refused() {
    let (fleet, mut a, b) = fleet_of_two();
    let other_fleet = Fleet::new("other.example");
    let stranger = SoftwareKey::generate().unwrap();
    let elsewhere = other_fleet.node("a").result;
    let of_another_key = fleet.node("a").result;
    let of_another_node = b.result.clone();
    let by_a_stranger = fleet.result_of(&mut a, TEST_NOW, &stranger);
    let expired = fleet.result_of(&mut a, TEST_NOW.minus(MINUTE * 2000), &fleet.results);
    for result in [
        Vec::new(),
        vec![7; 300],
        elsewhere,
        of_another_key,
        of_another_node,
        by_a_stranger,
        expired,
    ] {
        let pair = altered(
            Setup::new(&fleet, &a, &b),
            true,
            0,
            with_offer(|o| o.result = result),
        );
        assert_refused(&pair, Code::Result);
    }
}

#[test]
fn a_result_older_than_one_seen_before_is_refused() {
    let (fleet, a, b) = fleet_of_two();
    for floor in [Floor { result: 2, boot: 0 }, Floor { result: 1, boot: 8 }] {
        let mut setup = Setup::new(&fleet, &a, &b);
        setup.responder_memory.floor = floor;
        let mut pair = setup.start();
        pair.settle();
        assert_refused(&pair, Code::Result);
    }
}

#[test]
fn a_result_that_passed_too_long_ago_gives_no_lease() {
    let (fleet, mut a, b) = fleet_of_two();
    fleet.attest(&mut a, TEST_NOW.minus(MINUTE * 10));
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.settle();
    assert_refused(&pair, Code::Lease);
}

#[test]
fn a_boot_key_that_attestation_did_not_name_is_refused() {
    let (fleet, mut a, b) = fleet_of_two();
    a.boot_key = std::sync::Arc::new(SoftwareKey::generate().unwrap());
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.settle();
    assert_refused(&pair, Code::Proof);
}

#[test]
fn a_boot_statement_counts_only_while_cut_off_and_for_this_node() {
    let (fleet, mut a, b) = fleet_of_two();
    a.reboot_offline();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.settle();
    assert_refused(&pair, Code::Lease);

    let mut setup = Setup::new(&fleet, &a, &b);
    setup.link = OFFLINE;
    let mut pair = setup.start();
    pair.open();
    assert!(pair.responder.opened[0].claims.by_boot_statement());

    let mut other = fleet.node("other");
    other.reboot_offline();
    let mut setup = Setup::new(&fleet, &a, &b);
    setup.link = OFFLINE;
    let pair = altered(
        setup,
        true,
        0,
        with_offer(|o| o.boot_statement = other.statement.clone()),
    );
    assert_refused(&pair, Code::BootStatement);
}

#[test]
fn a_boot_statement_of_an_earlier_boot_or_another_system_is_refused() {
    let (fleet, mut a, b) = fleet_of_two();
    a.reboot_offline();
    let mut setup = Setup::new(&fleet, &a, &b);
    setup.link = OFFLINE;
    setup.responder_memory.floor = Floor { result: 1, boot: 9 };
    let mut pair = setup.start();
    pair.settle();
    assert_refused(&pair, Code::BootStatement);

    a.tpm.pcrs[7] = [0xee; 32];
    a.reboot_offline();
    let mut setup = Setup::new(&fleet, &a, &b);
    setup.link = OFFLINE;
    let mut pair = setup.start();
    pair.settle();
    assert_refused(&pair, Code::BootStatement);
}

#[test]
fn a_pair_without_a_rule_or_prefix_is_refused() {
    let (fleet, a, b) = fleet_of_two();
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.responder.policy.refuse = true;
    pair.settle();
    assert_refused(&pair, Code::Policy);
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.responder.policy.prefixes.clear();
    pair.settle();
    assert_refused(&pair, Code::Policy);
}

#[test]
fn messages_out_of_turn_are_refused() {
    let (fleet, a, b) = fleet_of_two();
    let messages = [
        Message::Armed { epoch: 0 },
        Message::Turn {
            epoch: 1,
            nonce: [0; 32],
        },
        Message::NewResult(a.result.clone()),
        Message::Proof(Proof {
            signature: vec![1],
            possession: [0; 32],
        }),
    ];
    for message in &messages {
        let mut pair = Setup::new(&fleet, &a, &b).start();
        pair.responder.input(Input::Frame(&message.body()));
        assert_refused(&pair, Code::Protocol);
    }
    // A second offer on an armed bind takes the tunnel with it.
    let mut pair = Setup::new(&fleet, &a, &b).start();
    let offer = first_offer(&pair);
    pair.settle();
    pair.responder.input(Input::Frame(&offer));
    assert_eq!(pair.responder.code(), Some(Code::Protocol));
    assert!(pair.responder.was_cut());
}

#[test]
fn an_epoch_that_does_not_follow_is_refused() {
    let (fleet, a, b) = fleet_of_two();
    for epoch in [0, 2, u64::MAX] {
        let mut pair = Setup::new(&fleet, &a, &b).start();
        pair.open();
        let turn = Message::Turn {
            epoch,
            nonce: [9; 32],
        };
        pair.responder.input(Input::Frame(&turn.body()));
        assert_eq!(pair.responder.code(), Some(Code::Protocol));
        assert!(pair.responder.turned.is_empty() && pair.responder.was_cut());
    }
    let mut pair = Setup::new(&fleet, &a, &b).start();
    pair.open();
    let turn = Message::Turn {
        epoch: 1,
        nonce: [9; 32],
    };
    pair.initiator.input(Input::Frame(&turn.body()));
    assert_eq!(pair.initiator.code(), Some(Code::Protocol), "nobody asked");
}

#[test]
fn an_armed_message_for_another_epoch_is_refused() {
    let (fleet, a, b) = fleet_of_two();
    let pair = altered(Setup::new(&fleet, &a, &b), false, 2, |message| {
        *message = Message::Armed { epoch: 1 };
    });
    assert_eq!(pair.initiator.code(), Some(Code::Protocol));
    assert!(pair.initiator.armed.is_empty());
}

#[test]
fn a_bad_new_result_cuts_the_open_bind() {
    let (fleet, mut a, b) = fleet_of_two();
    let old = a.result.clone();
    fleet.attest(&mut a, TEST_NOW);
    let other_boot = {
        let mut twin = fleet.node("twin");
        std::mem::swap(&mut twin.boot_key, &mut a.boot_key);
        let result = fleet.result_of(&mut a, TEST_NOW, &fleet.results);
        std::mem::swap(&mut twin.boot_key, &mut a.boot_key);
        result
    };
    for result in [old, b.result.clone(), other_boot, vec![1; 40]] {
        let mut pair = Setup::new(&fleet, &a, &b).start();
        pair.open();
        pair.responder
            .input(Input::Frame(&Message::NewResult(result).body()));
        assert_eq!(pair.responder.code(), Some(Code::Result));
        assert!(pair.responder.was_cut());
    }
}

#[test]
fn altered_bytes_anywhere_never_open_anything_and_never_panic() {
    let (fleet, a, b) = fleet_of_two();
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % (bound as u64)).unwrap()
    };
    for _ in 0..60 {
        let mut pair = Setup::new(&fleet, &a, &b).start();
        let target = next(5);
        for turn in 0..12 {
            let from_initiator = !pair.initiator.sent.is_empty();
            let end = if from_initiator {
                &mut pair.initiator
            } else {
                &mut pair.responder
            };
            let Some(mut body) = end.sent.pop_front() else {
                break;
            };
            if turn == target {
                let at = next(body.len());
                body[at] ^= 1 << next(8);
                if next(3) == 0 {
                    body.truncate(at);
                }
            }
            let to = if from_initiator {
                &mut pair.responder
            } else {
                &mut pair.initiator
            };
            to.input(Input::Frame(&body));
        }
        let armed = !pair.initiator.armed.is_empty() && !pair.responder.armed.is_empty();
        assert!(!armed, "an altered bind armed both ends: frame {target}");
    }
}
