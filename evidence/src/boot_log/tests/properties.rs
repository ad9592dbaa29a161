//! What no alteration of a log may do, tried everywhere in it.

use super::super::judge::judge;
use super::super::*;
use super::{ALL, parse};
use crate::testing::BootLogBuilder;
use crate::tpm::PcrBank;

const BANK: HashAlg = HashAlg::Sha256;

fn typical() -> BootLogBuilder {
    BootLogBuilder::typical_in(&[HashAlg::Sha1, BANK], true).startup_locality(3)
}

#[test]
fn a_changed_bit_anywhere_never_changes_what_is_believed() {
    let log = typical();
    let (bytes, quoted) = (log.build(), log.quoted(BANK, &ALL));
    let truth = judge(&parse(&log), PcrBank::Sha256, &quoted).unwrap();
    let (state, path) = (truth.secure_boot().unwrap(), truth.path().unwrap());
    for bit in 0..bytes.len() * 8 {
        let mut altered = bytes.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let judged = BootLog::parse(&altered).and_then(|log| judge(&log, PcrBank::Sha256, &quoted));
        // Refused, or told nothing else than the truth: texts for people aside.
        let Ok(judged) = judged else {
            continue;
        };
        if let Ok(told) = judged.secure_boot() {
            assert_eq!(told, state, "bit {bit}");
        }
        if let Ok(told) = judged.path() {
            let digests = |path: &BootPath| -> Vec<_> {
                path.applications()
                    .iter()
                    .map(|one| one.digest.clone())
                    .collect()
            };
            // An event of another kind may be called an image; no image can be called something else.
            let (told, path) = (digests(told), digests(path));
            assert!(path.iter().all(|digest| told.contains(digest)), "bit {bit}");
        }
    }
}

#[test]
fn a_changed_digest_or_pcr_index_gives_other_pcrs_or_no_log() {
    let log = typical();
    let bytes = log.build();
    let parsed = parse(&log);
    let truth = parsed.replay(BANK);
    for (event, span) in parsed.events().zip(&parsed.events) {
        if event.pcr().is_none() {
            continue;
        }
        let (from, to) = span.digests;
        let index_at = from - 12;
        // The SHA-256 digest is the second: after both ids and the SHA-1 digest.
        let digest_at = to - 32;
        for at in (digest_at..to).chain(index_at..index_at + 4) {
            for flip in [0x01, 0x80] {
                let mut altered = bytes.clone();
                altered[at] ^= flip;
                if let Ok(altered) = BootLog::parse(&altered) {
                    assert_ne!(altered.replay(BANK), truth, "byte {at}");
                }
            }
        }
    }
}

#[test]
fn two_swapped_events_of_one_pcr_give_another_value() {
    let log = typical();
    let truth = parse(&log).replay(BANK);
    let events = log.clone().events_mut().clone();
    let mut swaps = 0;
    for first in 0..events.len() {
        for second in first + 1..events.len() {
            let (a, b) = (&events[first], &events[second]);
            if a.pcr != b.pcr || a.measured == b.measured {
                continue;
            }
            let mut swapped = log.clone();
            swapped.events_mut().swap(first, second);
            // A locality after what it starts is no log at all.
            if let Ok(swapped) = BootLog::parse(&swapped.build()) {
                assert_ne!(swapped.replay(BANK), truth, "{first} {second}");
            }
            swaps += 1;
        }
    }
    assert!(swaps > 20, "{swaps}");
}

#[test]
fn a_removed_doubled_or_moved_event_does_not_replay() {
    let log = typical();
    let quoted = log.quoted(BANK, &ALL);
    let events = log.clone().events_mut().clone();
    for (at, event) in events.iter().enumerate() {
        let (mut removed, mut doubled) = (log.clone(), log.clone());
        removed.events_mut().remove(at);
        doubled.events_mut().insert(at, event.clone());
        for altered in [removed, doubled] {
            let judged = BootLog::parse(&altered.build())
                .and_then(|log| judge(&log, PcrBank::Sha256, &quoted));
            match judged {
                Err(_) => {}
                // Beyond the firmware's PCRs it counts as extended since, and nothing is read from there.
                Ok(judged) => {
                    let pcr = u8::try_from(event.pcr).unwrap();
                    assert!(
                        pcr > 7 && judged.extended_after_log().contains(&pcr),
                        "{at}"
                    );
                }
            }
        }
    }
}
