use super::*;
use crate::wireguard::SESSION_STATE_BYTES;

/// Another process takes A's place: a node of its own, and nothing but bytes between the two.
fn move_a(pair: &mut Pair) -> Vec<Vec<u8>> {
    let fresh = node(77);
    let exported: Vec<Vec<u8>> = pair
        .a
        .export()
        .iter()
        .map(|peer| peer.encode().to_vec())
        .collect();
    for bytes in &exported {
        let moved = MovedPeer::decode(bytes).unwrap();
        fresh.import(moved, pair.now).unwrap();
    }
    pair.a = fresh;
    exported
}

#[test]
fn the_old_process_seals_and_opens_nothing_any_more() {
    let mut pair = Pair::open();
    let mut late = Vec::new();
    send(&pair.b, &b_to_a(1), pair.now, &mut late);
    let handle = pair.a.route("10.0.0.2".parse().unwrap()).unwrap();
    let old = std::mem::replace(&mut pair.a, node(5));
    let moved = old.export();
    assert_eq!(moved.len(), 1);
    assert_eq!(handle.sealer(&old, pair.now).err(), Some(Refusal::Cut));
    assert!(
        receive(&old, addr_b(), &late[0].bytes, pair.now)
            .0
            .is_empty()
    );
    assert!(old.status().is_empty() && old.sessions.read().is_empty());
    assert!(old.export().is_empty(), "and nothing is given away twice");
}

#[test]
fn a_stream_goes_on_through_a_handover_in_both_directions() {
    let mut pair = Pair::open();
    pair.forget_arrived();
    for round in 0..20u8 {
        // Some are on the wire while the processes change places.
        pair.send_both(round);
        if round % 5 == 2 {
            move_a(&mut pair);
        }
        pair.deliver_all();
        pair.run(Duration::from_secs(17), true);
    }
    assert_eq!((pair.to_a.len(), pair.to_b.len()), (20, 20));
}

#[test]
fn no_counter_is_used_twice_and_no_message_taken_twice() {
    let mut pair = Pair::open();
    let mut out = Vec::new();
    send(&pair.a, &a_to_b(1), pair.now, &mut out);
    send(&pair.b, &b_to_a(1), pair.now, &mut out);
    assert_eq!(
        receive(&pair.a, addr_b(), &out[1].bytes, pair.now).0.len(),
        1
    );
    move_a(&mut pair);
    send(&pair.a, &a_to_b(2), pair.now, &mut out);
    let counter = |message: &Outgoing| message.bytes[8..16].to_vec();
    assert_ne!(counter(&out[0]), counter(&out[2]));
    assert_eq!(
        receive(&pair.a, addr_b(), &out[1].bytes, pair.now).0.len(),
        0
    );
    assert_eq!(pair.a.refusals().get(Refusal::Replayed), 1);
}

#[test]
fn an_initiation_taken_before_the_handover_is_not_taken_after_it() {
    let mut pair = Pair::armed();
    let initiation = pair.wire[0].1.bytes.clone();
    pair.deliver_all();
    let fresh = node(78);
    for peer in pair.b.export() {
        fresh.import(peer, pair.now).unwrap();
    }
    pair.b = fresh;
    pair.run(Duration::from_secs(1), true);
    assert!(
        receive(&pair.b, addr_a(), &initiation, pair.now)
            .1
            .is_empty()
    );
    assert_eq!(pair.b.refusals().get(Refusal::Replayed), 1);
    // And what the new process sends is newer than what the old one sent.
    pair.run(REKEY_AFTER_TIME + REJECT_AFTER_TIME, true);
    move_a(&mut pair);
    assert_eq!(pair.passes(), (true, true));
}

#[test]
fn a_lease_that_ended_meanwhile_is_not_taken_over() {
    let pair = Pair::open();
    pair.a
        .extend_lease(B, pair.now.plus(Duration::from_secs(5)))
        .unwrap();
    let moved = pair.a.export().remove(0);
    assert_eq!(moved.valid_until(), pair.now.plus(Duration::from_secs(5)));
    let fresh = node(79);
    let late = pair.now.plus(Duration::from_secs(5));
    assert_eq!(fresh.import(moved, late), Err(ArmRefused::LeaseEnded));
    assert!(fresh.status().is_empty());
}

#[test]
fn what_waited_for_a_handshake_is_sent_by_the_new_process() {
    let mut pair = Pair::new();
    pair.arm_b(7);
    pair.arm_a(7);
    let mut out = Vec::new();
    send(&pair.a, &a_to_b(5), pair.now, &mut out);
    // The handshake that was under way is lost with the old process.
    pair.wire.clear();
    move_a(&mut pair);
    pair.run(Duration::from_secs(1), true);
    assert_eq!(pair.to_b, [a_to_b(5)]);
    assert_eq!(pair.passes(), (true, true));
}

#[test]
fn what_waited_for_a_peer_that_had_idled_is_sent_by_the_new_process() {
    let mut pair = idle();
    pair.forget_arrived();
    let mut out = Vec::new();
    send(&pair.a, &a_to_b(6), pair.now, &mut out);
    assert_eq!(out.len(), 1, "an initiation, which is lost");
    move_a(&mut pair);
    pair.run(Duration::from_secs(1), true);
    assert_eq!(pair.to_b, [a_to_b(6)]);
}

#[test]
fn an_epoch_turned_before_the_handover_opens_after_it() {
    let mut pair = Pair::open();
    pair.run(Duration::from_secs(1), true);
    let mut out = Vec::new();
    for (node, peer) in [(&pair.b, A), (&pair.a, B)] {
        node.turn_epoch(peer, Secret::new([9; 32]), 2, pair.now, &mut out)
            .unwrap();
    }
    move_a(&mut pair);
    assert_eq!(pair.passes(), (true, true), "under the old key for now");
    pair.run(Duration::from_secs(20), true);
    assert_eq!(pair.a.status()[0].open, Some(2));
    assert_eq!(pair.passes(), (true, true));
}

#[test]
fn a_peer_that_is_there_already_is_refused() {
    let pair = Pair::open();
    let bytes = pair.a.export().remove(0).encode();
    let fresh = node(80);
    let import = || fresh.import(MovedPeer::decode(&bytes).unwrap(), pair.now);
    assert_eq!(import(), Ok(()));
    assert_eq!(import(), Err(ArmRefused::Armed));
}

#[test]
fn bytes_that_are_no_peer_are_refused() {
    let mut pair = Pair::open();
    let whole = move_a(&mut pair).remove(0);
    for length in 0..whole.len() {
        assert!(MovedPeer::decode(&whole[..length]).is_err(), "{length}");
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(MovedPeer::decode(&longer).is_err());
    let mut later = whole.clone();
    later[0] = 2;
    assert!(MovedPeer::decode(&later).is_err(), "another version");
    let mut greedy = whole.clone();
    greedy[9..13].fill(0xff);
    assert!(MovedPeer::decode(&greedy).is_err(), "a name without end");
    assert!(MovedPeer::decode(&vec![1; MAX_MOVED_BYTES + 1]).is_err());
    assert!(whole.len() < 2 * SESSION_STATE_BYTES, "{}", whole.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_of_a_peer_panic_nowhere(at in any::<usize>(), value in any::<u8>()) {
        let mut pair = Pair::open();
        let mut bytes = move_a(&mut pair).remove(0);
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(moved) = MovedPeer::decode(&bytes) {
            let fresh = node(81);
            let _refused = fresh.import(moved, pair.now);
            fresh.handle_timeout(pair.now.plus(Duration::from_secs(1000)), &mut Vec::new());
        }
    }
}
