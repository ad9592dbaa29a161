use edgeward_identity::{Kind, SpiffeId, Timestamp, TrustDomain};

use super::*;
use crate::event::{Actor, Event, EventKind};
use crate::merkle::{inclusion_proof, leaf_hash, root};
use crate::note::NoteSigner;
use crate::record::{BootId, BootOpened, Chain, Salt};
use crate::vectors::mutations;

const ORIGIN: &str = "plant.example/audit";
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A log of two journals, one record of each in turn.
struct Log {
    signer: NoteSigner,
    records: Vec<SealedRecord>,
}

impl Log {
    fn new(pairs: u64) -> Self {
        let domain = TrustDomain::new("plant.example").unwrap();
        let mut chains = [1_u8, 2].map(|n| {
            let node = SpiffeId::new(&domain, Kind::Node, &format!("gw-{n}")).unwrap();
            Chain::new(node, BootId::from_bytes([n; 16]))
        });
        let mut records = Vec::new();
        for pair in 0..pairs {
            for chain in &mut chains {
                let kind = if pair == 0 {
                    EventKind::JournalOpened
                } else {
                    EventKind::FlowDenied
                };
                let event = Event::new(NOW, Actor::Cloud, kind).detail("pair", pair);
                let record = if pair == 0 {
                    let opened = BootOpened {
                        previous: None,
                        reset_count: None,
                        restart_count: None,
                    };
                    chain
                        .seal_opening(opened, event, Salt::from_bytes([7; 16]))
                        .unwrap()
                } else {
                    chain.seal(event, Salt::from_bytes([7; 16])).unwrap()
                };
                chain.advance(&record).unwrap();
                records.push(record);
            }
        }
        Self {
            signer: NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap(),
            records,
        }
    }

    fn lines(&self, indices: impl IntoIterator<Item = usize>) -> Vec<String> {
        let leaves: Vec<Digest> = self
            .records
            .iter()
            .map(|record| leaf_hash(record.hash().as_bytes()))
            .collect();
        let size = leaves.len() as u64;
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root: root(leaves.as_slice(), size).unwrap(),
        };
        let mut lines = vec![
            Line::Export(Header {
                format: FORMAT.to_owned(),
                origin: ORIGIN.to_owned(),
                log_key: self.signer.verifier().to_string(),
                checkpoint: checkpoint.sign(&self.signer).unwrap().to_string(),
                filter: String::new(),
            })
            .to_json(),
        ];
        for index in indices {
            let proof = inclusion_proof(leaves.as_slice(), index as u64, size).unwrap();
            let record = String::from_utf8(self.records[index].bytes().to_vec()).unwrap();
            lines.push(Line::Event(Proven::new(index as u64, record, &proof)).to_json());
        }
        let events = lines.len() as u64 - 1;
        lines.push(Line::End(End { events }).to_json());
        lines
    }
}

fn verify(lines: &[String], trusted: Option<&NoteVerifier>) -> Result<Verified, Unproven> {
    let (first, rest) = lines.split_first().unwrap();
    let mut verifier = Verifier::begin(first.as_bytes(), trusted)?;
    for line in rest {
        verifier.line(line.as_bytes())?;
    }
    verifier.finish()
}

fn code(lines: &[String]) -> &'static str {
    verify(lines, None).unwrap_err().code()
}

#[test]
fn whatever_is_left_out_put_in_or_moved_is_found() {
    let log = Log::new(5);
    let good = log.lines(0..10);
    let without = |at: usize| {
        let mut lines = good.clone();
        lines.remove(at);
        lines
    };
    assert_eq!(code(&without(0)), "export_malformed");
    assert_eq!(code(&without(4)), "export_cut");
    assert_eq!(code(&without(11)), "export_cut");
    let mut twice = good.clone();
    twice.insert(3, good[2].clone());
    assert_eq!(code(&twice), "export_order");
    let mut swapped = good.clone();
    swapped.swap(2, 3);
    assert_eq!(code(&swapped), "export_order");
    let mut behind = good.clone();
    behind.push(good[3].clone());
    assert_eq!(code(&behind), "export_malformed");
    let mut headed = good.clone();
    headed.insert(1, good[0].clone());
    assert_eq!(code(&headed), "export_malformed");
    let mut moved = good.clone();
    moved[5] = moved[5].replace("\"index\":4", "\"index\":5");
    assert_eq!(code(&moved), "export_not_included");
    let mut other = good.clone();
    other[0] = other[0].replace(FORMAT, "edgeward-audit/2");
    assert_eq!(code(&other), "export_malformed");
    assert_eq!(
        Line::parse(&vec![b' '; MAX_LINE_BYTES + 1])
            .unwrap_err()
            .code(),
        "export_malformed"
    );
}

#[test]
fn no_changed_byte_of_a_record_its_proof_or_the_checkpoint_passes() {
    let log = Log::new(2);
    let good = log.lines(0..4);
    for at in [0, 2] {
        mutations(good[at].as_bytes(), |changed| {
            let mut lines = good.clone();
            let Ok(text) = String::from_utf8(changed.to_vec()) else {
                return;
            };
            // What people read in the first line is covered by nothing.
            if at == 0 && !text.ends_with(",\"filter\":\"\"}}") {
                return;
            }
            lines[at] = text;
            if let Ok(verified) = verify(&lines, Some(log.signer.verifier())) {
                // JSON has more than one spelling for the same text.
                let (was, is) = (Line::parse(good[at].as_bytes()), Line::parse(changed));
                assert_eq!(was.unwrap(), is.unwrap(), "{verified:?}");
            }
        });
    }
}

#[test]
fn another_key_than_the_trusted_one_is_refused_even_if_everything_else_is_right() {
    let (log, other) = (Log::new(3), Log::new(3));
    let lines = log.lines(0..6);
    let error = verify(&lines, Some(other.signer.verifier())).unwrap_err();
    assert_eq!(error.code(), "export_key");
    // A forger signs with his own key and names the log's.
    let mut forged = other.lines(0..6);
    forged[0] = forged[0].replace(
        &other.signer.verifier().to_string(),
        &log.signer.verifier().to_string(),
    );
    let error = verify(&forged, Some(log.signer.verifier())).unwrap_err();
    assert_eq!(error.code(), "export_checkpoint");
}

#[test]
fn two_histories_of_one_journal_in_one_log_are_found() {
    let mut log = Log::new(4);
    let other = Log::new(4);
    // The fifth record of the log is replaced by one of the same place with another past.
    let forged = {
        let mut record = other.records[6].record().clone();
        record.prev = Digest::of(&[b"another past"]);
        record.seal().unwrap()
    };
    log.records[6] = forged;
    assert_eq!(code(&log.lines(0..8)), "export_chain");
    let mut doubled = Log::new(4);
    doubled.records.push(doubled.records[6].clone());
    assert_eq!(code(&doubled.lines(0..9)), "export_chain");
}

#[test]
fn records_that_were_missing_may_come_late_but_must_fit_on_both_sides() {
    // Of the first journal come 0, 3, 1, 2.
    let mut log = Log::new(4);
    log.records = [0, 6, 2, 4].map(|at| log.records[at].clone()).into();
    let verified = verify(&log.lines(0..4), None).unwrap();
    assert_eq!((verified.events, verified.links), (4, 3));
    for (at, forge) in [(3, true), (2, false)] {
        let mut record = log.records[at].record().clone();
        match forge {
            true => record.event = record.event.detail("what", "never was"),
            false => record.prev = Digest::of(&[b"another past"]),
        }
        let mut forged = Log::new(1);
        forged.records = log.records.clone();
        forged.records[at] = record.seal().unwrap();
        assert_eq!(code(&forged.lines(0..4)), "export_chain", "{at}");
    }
}

#[test]
fn whole_and_filtered_exports_are_verified() {
    let log = Log::new(20);
    let whole = verify(&log.lines(0..40), Some(log.signer.verifier())).unwrap();
    assert_eq!((whole.events, whole.range), (40, Some((0, 39))));
    assert_eq!(whole.links, 38);
    assert!(whole.is_without_gap());
    let some = verify(&log.lines([3, 5, 17]), None).unwrap();
    assert_eq!((some.events, some.range, some.links), (3, Some((3, 17)), 1));
    assert!(!some.is_without_gap());
    let none = verify(&log.lines([]), None).unwrap();
    assert_eq!((none.events, none.range), (0, None));
}
