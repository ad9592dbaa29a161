use super::*;
use crate::merkle::{consistency_proof, leaf_hash, root, verify_consistency};
use crate::tiles::{Row, Tile};
use crate::vectors;

const ORIGIN: &str = "example.com/log/testdata";
const KEY: &str = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";

#[test]
fn what_is_not_a_checkpoint_is_refused_with_its_reason() {
    let zero = BASE64_STANDARD.encode([0; 32]);
    let cases = [
        (String::new(), CheckpointError::Root),
        (format!("\n1\n{zero}\n"), CheckpointError::Origin),
        (
            format!("{}\n1\n{zero}\n", "a".repeat(MAX_ORIGIN_BYTES + 1)),
            CheckpointError::Origin,
        ),
        (format!("log\n01\n{zero}\n"), CheckpointError::Size),
        (format!("log\n+1\n{zero}\n"), CheckpointError::Size),
        (format!("log\n-1\n{zero}\n"), CheckpointError::Size),
        (format!("log\n\n{zero}\n"), CheckpointError::Size),
        (
            format!("log\n18446744073709551616\n{zero}\n"),
            CheckpointError::Size,
        ),
        ("log\n1\nAAAA\n".to_owned(), CheckpointError::Root),
        ("log\n1\n".to_owned(), CheckpointError::Root),
        (format!("log\n1\n{zero}"), CheckpointError::Root),
        (format!("log\n1\n{zero}\n\n"), CheckpointError::Extension),
        (
            format!("log\n1\n{zero}\n{}", "x\n".repeat(MAX_EXTENSION_LINES + 1)),
            CheckpointError::Extension,
        ),
    ];
    for (text, reason) in cases {
        assert_eq!(Checkpoint::parse_text(&text), Err(reason), "{text:?}");
    }
    assert!(Checkpoint::parse_text(&format!("log\n1\n{zero}\nextension\n")).is_ok());
}

#[test]
fn a_checkpoint_of_another_log_or_key_is_refused() {
    let signer = |name| NoteSigner::new(name, &NoteSigner::generate().unwrap()).unwrap();
    let (log, other) = (signer("a/log"), signer("a/log"));
    let checkpoint = Checkpoint {
        origin: "a/log".to_owned(),
        size: 3,
        root: Digest::ZERO,
    };
    let note = checkpoint.sign(&log).unwrap().to_string();
    assert_eq!(
        Checkpoint::open(note.as_bytes(), "a/log", log.verifier()),
        Ok(checkpoint)
    );
    let refused = Checkpoint::open(note.as_bytes(), "b/log", log.verifier());
    assert_eq!(refused, Err(CheckpointError::OtherLog("a/log".to_owned())));
    let refused = Checkpoint::open(note.as_bytes(), "a/log", other.verifier());
    assert_eq!(
        refused,
        Err(CheckpointError::Unverified(NoteUnverified::Missing))
    );
}

#[test]
fn the_log_of_others_verifies_at_every_size() {
    let Some(folder) = vectors::folder("tlog-tiles") else {
        return;
    };
    let log = folder.join("log");
    let verifier = NoteVerifier::parse(KEY).unwrap();
    assert_eq!(verifier.to_string(), KEY);
    let mut states = Vec::new();
    for size in [0_u64, 4, 5, 6, 8, 9, 10, 11, 12, 14] {
        let note = std::fs::read(log.join(format!("checkpoint.{size}"))).unwrap();
        let checkpoint = Checkpoint::open(&note, ORIGIN, &verifier).unwrap();
        assert_eq!(checkpoint.size, size);
        assert!(Checkpoint::open(&note, "example.com/other", &verifier).is_err());
        let hashes = match Tile::in_tree(Row::Level(0), 0, size) {
            None => Vec::new(),
            Some(tile) => {
                let hashes = tile
                    .parse_hashes(&std::fs::read(log.join(tile.to_string())).unwrap())
                    .unwrap();
                let bundle = Tile::in_tree(Row::Entries, 0, size).unwrap();
                let bytes = std::fs::read(log.join(bundle.to_string())).unwrap();
                let entries = bundle.parse_entries(&bytes).unwrap();
                let from_entries: Vec<Digest> =
                    entries.iter().map(|entry| leaf_hash(entry)).collect();
                assert_eq!(hashes, from_entries);
                hashes
            }
        };
        assert_eq!(root(&hashes[..], size), Ok(checkpoint.root));
        vectors::mutations(&note, |changed| {
            // Only what lies behind the signature line is not covered, and that does not parse.
            assert!(Checkpoint::open(changed, ORIGIN, &verifier).is_err());
        });
        states.push((checkpoint, hashes));
    }
    for (old, old_hashes) in states.iter().filter(|(old, _)| old.size > 0) {
        for (new, hashes) in states.iter().filter(|(new, _)| new.size >= old.size) {
            assert!(hashes.starts_with(old_hashes));
            let proof = consistency_proof(&hashes[..], old.size, new.size).unwrap();
            assert_eq!(
                verify_consistency(old.size, new.size, &proof, &old.root, &new.root),
                Ok(())
            );
        }
    }
}
