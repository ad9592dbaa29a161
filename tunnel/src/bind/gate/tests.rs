use super::*;

fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

fn spki(byte: u8) -> SpkiHash {
    SpkiHash::from_bytes([byte; 32])
}

fn at(seconds: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(seconds))
}

fn gate() -> Gate {
    let mut gate = Gate::new(&domain(), &[spki(1)], at(0));
    gate.set_directory([spki(2), spki(3)], at(0));
    gate
}

fn pass(from: u8, nonce: u32) -> Pass {
    PassKey::new(&domain(), &spki(1)).issue(&spki(from), nonce.to_be_bytes())
}

#[test]
fn a_thousand_strangers_a_second_cost_no_signature_and_no_memory() {
    let mut gate = gate();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let before = gate.remembered();
    for millisecond in 0..10_000_u64 {
        let now = BootTime::from_duration(Duration::from_millis(millisecond));
        let mut id = [0; PASS_BYTES];
        for byte in &mut id {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            *byte = seed.to_le_bytes()[0];
        }
        for validated in [false, true] {
            assert_eq!(
                gate.judge(&id, validated, now),
                Verdict::Ignore(Turned::WrongMac)
            );
        }
    }
    assert_eq!(gate.remembered(), before);
    assert_eq!(
        gate.judge(&pass(2, 0), true, at(10)),
        Verdict::Accept(spki(2)),
        "a member still gets in"
    );
}

#[test]
fn other_lengths_other_responders_and_unknown_sources_are_ignored() {
    let mut gate = gate();
    for length in [0, 8, 19] {
        assert_eq!(
            gate.judge(&vec![0; length], true, at(0)),
            Verdict::Ignore(Turned::NoPass)
        );
    }
    let elsewhere = PassKey::new(&domain(), &spki(9)).issue(&spki(2), [0; 4]);
    assert_eq!(
        gate.judge(&elsewhere, true, at(0)),
        Verdict::Ignore(Turned::WrongMac)
    );
    let other_domain = TrustDomain::new("other.example").unwrap();
    let foreign = PassKey::new(&other_domain, &spki(1)).issue(&spki(2), [0; 4]);
    assert_eq!(
        gate.judge(&foreign, true, at(0)),
        Verdict::Ignore(Turned::WrongMac)
    );
    assert_eq!(
        gate.judge(&pass(7, 0), true, at(0)),
        Verdict::Ignore(Turned::Unknown)
    );
}

#[test]
fn an_address_is_validated_before_anything_is_counted() {
    let mut gate = gate();
    for nonce in 0..10_000 {
        assert_eq!(gate.judge(&pass(2, nonce), false, at(0)), Verdict::Retry);
    }
    assert_eq!(gate.remembered(), (2, 0));
    assert_eq!(
        gate.judge(&pass(2, 0), true, at(0)),
        Verdict::Accept(spki(2))
    );
}

#[test]
fn a_pass_is_good_once() {
    let mut gate = gate();
    assert_eq!(
        gate.judge(&pass(2, 5), true, at(0)),
        Verdict::Accept(spki(2))
    );
    for seconds in [0, 599, 601, 1100] {
        assert_eq!(
            gate.judge(&pass(2, 5), true, at(seconds)),
            Verdict::Ignore(Turned::Replayed),
            "{seconds}"
        );
    }
}

#[test]
fn one_source_spends_its_own_budget_and_it_refills() {
    let mut gate = gate();
    for nonce in 0..SOURCE_BURST {
        assert_eq!(
            gate.judge(&pass(2, nonce), true, at(0)),
            Verdict::Accept(spki(2))
        );
    }
    assert_eq!(
        gate.judge(&pass(2, 100), true, at(0)),
        Verdict::Ignore(Turned::SourceBudget)
    );
    assert_eq!(
        gate.judge(&pass(3, 0), true, at(0)),
        Verdict::Accept(spki(3))
    );
    assert_eq!(
        gate.judge(&pass(2, 101), true, at(10)),
        Verdict::Accept(spki(2))
    );
    assert_eq!(
        gate.judge(&pass(2, 102), true, at(10)),
        Verdict::Ignore(Turned::SourceBudget)
    );
}

#[test]
fn all_sources_together_stay_within_the_global_budget_and_the_memory_bound() {
    let mut gate = Gate::new(&domain(), &[spki(1)], at(0));
    let peers: Vec<SpkiHash> = (0..2000_u32)
        .map(|n| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            SpkiHash::from_bytes(bytes)
        })
        .collect();
    gate.set_directory(peers.iter().copied(), at(0));
    let key = PassKey::new(&domain(), &spki(1));
    let mut accepted = 0_u32;
    for second in 0..1200_u64 {
        for (n, peer) in peers.iter().enumerate().take(50) {
            let nonce = u32::try_from(second * 50 + n as u64).unwrap();
            let first_id = key.issue(peer, nonce.to_be_bytes());
            if let Verdict::Accept(_) = gate.judge(&first_id, true, at(second)) {
                accepted += 1;
            }
        }
    }
    assert!(accepted <= GLOBAL_BURST + 20 * GLOBAL_PER_MINUTE);
    assert!(accepted >= 19 * GLOBAL_PER_MINUTE);
    assert!(gate.remembered().1 <= MAX_PASSES);
}

#[test]
fn the_key_before_still_lets_members_in() {
    let mut gate = gate();
    gate.set_own_keys(&domain(), &[spki(8), spki(1)]);
    assert_eq!(
        gate.judge(&pass(2, 0), true, at(0)),
        Verdict::Accept(spki(2))
    );
    gate.set_own_keys(&domain(), &[spki(8)]);
    assert_eq!(
        gate.judge(&pass(2, 1), true, at(0)),
        Verdict::Ignore(Turned::WrongMac)
    );
}

#[test]
fn budgets_survive_a_change_of_the_directory() {
    let mut gate = gate();
    for nonce in 0..SOURCE_BURST {
        gate.judge(&pass(2, nonce), true, at(0));
    }
    gate.set_directory([spki(2)], at(0));
    assert_eq!(
        gate.judge(&pass(2, 100), true, at(0)),
        Verdict::Ignore(Turned::SourceBudget)
    );
}

#[test]
fn passes_of_one_source_look_unrelated() {
    let (a, b) = (pass(2, 1), pass(2, 2));
    assert_ne!(a[4..12], b[4..12]);
    assert_ne!(a[12..], b[12..]);
}

fn fleet(size: u32) -> (Gate, Vec<SpkiHash>) {
    let peers: Vec<SpkiHash> = (0..size)
        .map(|number| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            SpkiHash::from_bytes(bytes)
        })
        .collect();
    let mut gate = Gate::new(&domain(), &[spki(1)], at(0));
    gate.set_directory(peers.iter().copied(), at(0));
    (gate, peers)
}

/// How many seconds it takes until all of them have got in, if each comes again after `pause` seconds, and how many
/// got in within the busiest minute.
fn storm(gate: &mut Gate, peers: &[SpkiHash], pause: impl Fn(u32, u32) -> u64) -> (u64, u32) {
    let key = PassKey::new(&domain(), &spki(1));
    let mut waiting: Vec<(u64, u32, &SpkiHash)> = peers
        .iter()
        .enumerate()
        .map(|(n, peer)| (0, u32::try_from(n).unwrap(), peer))
        .collect();
    let (mut nonce, mut second) = (0_u32, 0_u64);
    let mut minutes: std::collections::BTreeMap<u64, u32> = std::collections::BTreeMap::new();
    while !waiting.is_empty() {
        assert!(second < 48 * 3600, "{} starve", waiting.len());
        waiting.retain_mut(|(due, number, peer)| {
            if *due > second {
                return true;
            }
            nonce += 1;
            match gate.judge(&key.issue(peer, nonce.to_be_bytes()), true, at(second)) {
                Verdict::Accept(_) => {
                    *minutes.entry(second / 60).or_default() += 1;
                    false
                }
                Verdict::Later => {
                    *due = second + pause(*number, nonce);
                    true
                }
                other => panic!("{other:?}"),
            }
        });
        second += 1;
    }
    (second, minutes.into_values().max().unwrap_or(0))
}

#[test]
fn after_a_restart_everybody_gets_in_at_the_first_knock_after_its_turn() {
    let (mut gate, peers) = fleet(5000);
    let (seconds, busiest) = storm(&mut gate, &peers, |number, nonce| {
        30 + u64::from((number ^ nonce) % 31)
    });
    let span = u64::from(5000 * 60 / GLOBAL_PER_MINUTE);
    assert!(seconds <= span + 60, "{seconds} s");
    assert!(seconds >= span - 60, "{seconds} s");
    assert!(busiest <= 2 * GLOBAL_PER_MINUTE + GLOBAL_BURST, "{busiest}");
}

#[test]
fn whoever_comes_rarely_is_not_overtaken_by_those_who_come_often() {
    let (mut gate, peers) = fleet(600);
    let key = PassKey::new(&domain(), &spki(1));
    let mut nonce = 0_u32;
    let mut knock = |gate: &mut Gate, who: usize, second: u64| {
        nonce += 1;
        gate.judge(
            &key.issue(&peers[who], nonce.to_be_bytes()),
            true,
            at(second),
        )
    };
    // All but the last spend the burst and queue up; the last comes in the middle, and again only after its turn.
    for who in 0..300 {
        knock(&mut gate, who, 0);
    }
    assert_eq!(knock(&mut gate, 599, 0), Verdict::Later);
    for second in 1..143 {
        for who in 300..599 {
            knock(&mut gate, who, second);
        }
    }
    assert_eq!(knock(&mut gate, 599, 143), Verdict::Accept(peers[599]));
}

#[test]
fn the_pace_follows_how_fast_the_node_signs_within_bounds() {
    let (mut gate, _) = fleet(1);
    gate.signed(Duration::from_millis(100), at(0));
    assert_eq!(gate.per_minute(), 300);
    gate.signed(Duration::from_millis(900), at(0));
    assert_eq!(gate.per_minute(), 150, "an average of 200 ms");
    let (mut slow, _) = fleet(1);
    slow.signed(Duration::from_secs(5), at(0));
    assert_eq!(slow.per_minute(), LEAST_PER_MINUTE);
    let (mut fast, _) = fleet(1);
    for took in [Duration::ZERO, Duration::from_micros(1)] {
        fast.signed(took, at(0));
        assert_eq!(fast.per_minute(), MOST_PER_MINUTE);
    }
}

#[test]
fn a_faster_signer_calls_those_who_wait_sooner() {
    let (mut gate, peers) = fleet(1000);
    let key = PassKey::new(&domain(), &spki(1));
    for (n, peer) in peers.iter().enumerate() {
        let nonce = u32::try_from(n).unwrap();
        gate.judge(&key.issue(peer, nonce.to_be_bytes()), true, at(0));
    }
    let last = &peers[999];
    assert_eq!(
        gate.judge(&key.issue(last, [9; 4]), true, at(30)),
        Verdict::Later
    );
    gate.signed(Duration::from_millis(10), at(30));
    assert_eq!(
        gate.judge(&key.issue(last, [8; 4]), true, at(50)),
        Verdict::Accept(*last)
    );
}

#[test]
fn a_turn_that_nobody_takes_is_given_up_while_others_wait() {
    let (mut gate, peers) = fleet(3000);
    let key = PassKey::new(&domain(), &spki(1));
    for (n, peer) in peers.iter().enumerate() {
        let nonce = u32::try_from(n).unwrap();
        gate.judge(&key.issue(peer, nonce.to_be_bytes()), true, at(0));
    }
    // Its turn came after half a second, and four minutes of turns ago.
    let early = &peers[GLOBAL_BURST as usize];
    assert_eq!(
        gate.judge(&key.issue(early, [9; 4]), true, at(241)),
        Verdict::Later
    );
    assert_eq!(
        gate.judge(&key.issue(early, [8; 4]), true, at(300)),
        Verdict::Later
    );
}
