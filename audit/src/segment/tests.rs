use super::*;
use crate::merkle::root;
use crate::note::NoteSigner;

const ORIGIN: &str = "plant.example/audit";

/// A log of so many events, and the segment of `blocks` blocks from leaf `first` on.
fn made(events: u64, first: u64, blocks: u64) -> (Segment, NoteSigner, Vec<Digest>) {
    let signer = NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap();
    let entries: Vec<Digest> = (0..events)
        .map(|n| Digest::of(&[&n.to_be_bytes()]))
        .collect();
    let hashes: Vec<Digest> = entries
        .iter()
        .map(|entry| leaf_hash(entry.as_bytes()))
        .collect();
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size: events,
        root: root(hashes.as_slice(), events).unwrap(),
    };
    let leaves = blocks * BLOCK_LEAVES;
    let odd: Places = (0..=u8::MAX).filter(|place| place % 2 == 1).collect();
    let part = |site_key, places| SegmentPart {
        site_key,
        places,
        columns: vec![1; 40],
        bodies: vec![2; 90],
    };
    let block = SegmentBlock {
        earliest: 5,
        latest: 9,
        parts: vec![part(3, odd), part(7, Places::ALL.without(odd))],
    };
    let segment = Segment {
        origin: ORIGIN.to_owned(),
        first,
        checkpoint: checkpoint.sign(&signer).unwrap().to_string(),
        proof: Segment::prove(hashes.as_slice(), first, leaves, events).unwrap(),
        entries: entries[first as usize..(first + leaves) as usize].to_vec(),
        blocks: vec![block; blocks as usize],
    };
    (segment, signer, entries)
}

#[test]
fn a_segment_that_is_cut_longer_or_changed_is_none() {
    let (segment, ..) = made(600, 256, 1);
    let bytes = segment.to_bytes().unwrap();
    for end in (0..bytes.len()).step_by(97) {
        assert!(Segment::parse(&bytes[..end]).is_err(), "{end}");
        let mut changed = bytes.clone();
        changed[end] ^= 4;
        assert!(Segment::parse(&changed).is_err(), "{end}");
    }
    let mut longer = bytes[..bytes.len() - DIGEST_BYTES].to_vec();
    longer.push(0);
    let sum = Digest::of(&[&longer]);
    longer.extend_from_slice(sum.as_bytes());
    assert_eq!(Segment::parse(&longer), Err(SegmentError::Length));
}

#[test]
fn a_range_that_is_no_complete_subtree_is_refused() {
    let (segment, ..) = made(600, 256, 1);
    for first in [1, 255, 300, u64::MAX - 255] {
        let moved = Segment {
            first,
            ..segment.clone()
        };
        assert_eq!(moved.to_bytes(), Err(SegmentError::Range), "{first}");
    }
    let hashes = vec![Digest::ZERO; 2048];
    for (first, leaves) in [(256, 512), (0, 768), (0, 128), (0, 0)] {
        assert_eq!(
            Segment::prove(hashes.as_slice(), first, leaves, 2048),
            Err(SegmentError::Range)
        );
    }
    assert!(matches!(
        Segment::prove(hashes.as_slice(), 256, 256, 511),
        Err(SegmentError::NotIncluded(_))
    ));
}

#[test]
fn an_event_that_is_in_two_parts_or_in_none_is_refused() {
    let (segment, ..) = made(256, 0, 1);
    let change = |change: &dyn Fn(&mut Vec<SegmentPart>)| {
        let mut changed = segment.clone();
        change(&mut changed.blocks[0].parts);
        changed.to_bytes()
    };
    let refused = Err(SegmentError::Places(0));
    assert_eq!(change(&|parts| drop(parts.pop())), refused);
    assert_eq!(change(&|parts| parts[0].places = Places::ALL), refused);
    assert_eq!(change(&|parts| parts[0].places = Places::NONE), refused);
    assert_eq!(change(&|parts| parts.swap(0, 1)), refused);
    assert_eq!(change(&|parts| parts[1].site_key = 3), refused);
}

#[test]
fn entries_of_another_log_place_or_key_prove_nothing() {
    let (segment, signer, _) = made(1500, 512, 2);
    let log = signer.verifier();
    assert!(matches!(
        segment.verify("other.example/audit", log),
        Err(SegmentError::Checkpoint(CheckpointError::OtherLog(_)))
    ));
    let stranger = NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap();
    assert!(matches!(
        segment.verify(ORIGIN, stranger.verifier()),
        Err(SegmentError::Checkpoint(_))
    ));
    let mut changed = segment.clone();
    changed.entries[77] = Digest::ZERO;
    assert!(matches!(
        changed.verify(ORIGIN, log),
        Err(SegmentError::NotIncluded(_))
    ));
    for first in [0, 1024, 1 << 40] {
        let moved = Segment {
            first,
            ..segment.clone()
        };
        assert!(
            matches!(moved.verify(ORIGIN, log), Err(SegmentError::NotIncluded(_))),
            "{first}"
        );
    }
    let mut short = segment.clone();
    short.proof.pop();
    assert!(matches!(
        short.verify(ORIGIN, log),
        Err(SegmentError::NotIncluded(_))
    ));
}

#[test]
fn a_segment_anywhere_in_a_log_of_any_size_proves_itself_and_each_of_its_events() {
    for (events, first, blocks) in [
        (256, 0, 1),
        (257, 0, 1),
        (512, 256, 1),
        (1500, 512, 2),
        (1500, 0, 4),
        (1537, 1024, 2),
        (2048, 1024, 4),
    ] {
        let (segment, signer, entries) = made(events, first, blocks);
        let segment = Segment::parse(&segment.to_bytes().unwrap()).unwrap();
        let verified = segment.verify(ORIGIN, signer.verifier()).unwrap();
        let end = first + blocks * BLOCK_LEAVES;
        assert_eq!((verified.first, verified.end), (first, end));
        assert_eq!(verified.sealed, end - first);
        for index in [first, first + 100, end - 1] {
            let proof = segment.proof_of(index).unwrap();
            let proof = LogProof::parse(proof.to_string().as_bytes()).unwrap();
            let entry = entries[index as usize];
            assert_eq!(segment.entry(index), Ok(entry));
            proof
                .verify(entry.as_bytes(), ORIGIN, signer.verifier())
                .unwrap();
        }
        assert_eq!(segment.proof_of(end), Err(SegmentError::Elsewhere(end)));
    }
}
