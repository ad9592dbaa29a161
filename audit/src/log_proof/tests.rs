use super::*;
use crate::merkle::{inclusion_proof, leaf_hash, root};
use crate::note::NoteSigner;
use crate::vectors::{self, mutations};

const ORIGIN: &str = "plant.example/audit";

fn entry(n: u64) -> [u8; 32] {
    *Digest::of(&[&n.to_be_bytes()]).as_bytes()
}

fn signer() -> NoteSigner {
    NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap()
}

fn proof_of(index: u64, size: u64, signer: &NoteSigner) -> LogProof {
    let leaves: Vec<Digest> = (0..size).map(|n| leaf_hash(&entry(n))).collect();
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size,
        root: root(leaves.as_slice(), size).unwrap(),
    };
    LogProof {
        index,
        hashes: inclusion_proof(leaves.as_slice(), index, size).unwrap(),
        checkpoint: checkpoint.sign(signer).unwrap().to_string(),
        extra: None,
    }
}

#[test]
fn what_is_spelled_otherwise_is_refused() {
    let good = proof_of(2, 5, &signer()).to_string();
    assert!(LogProof::parse(good.as_bytes()).is_ok());
    for (bad, error) in [
        (good.replace("@v1", "@v2"), LogProofError::Text),
        (good.replace("@v1\n", "@v1\r\n"), LogProofError::Text),
        (String::new(), LogProofError::Text),
        (good.replace("index 2", "index 02"), LogProofError::Index),
        (good.replace("index 2", "index +2"), LogProofError::Index),
        (good.replace("index 2", "index"), LogProofError::Index),
        (good.replace("index 2", "Index 2"), LogProofError::Index),
        (
            good.replace("index 2", "index 18446744073709551616"),
            LogProofError::Index,
        ),
        (
            good.replace("index 2", "extra \nindex 2"),
            LogProofError::Extra,
        ),
        (
            good.replace("index 2", "extra !\nindex 2"),
            LogProofError::Extra,
        ),
        (
            good.replace("index 2", "extra AA==\nextra AA==\nindex 2"),
            LogProofError::Index,
        ),
        (
            good.replace("index 2\n", "index 2\nAAAA\n"),
            LogProofError::Hash,
        ),
        (good.replace("\n\n", "\n"), LogProofError::NoCheckpoint),
        (
            good.split("\n\n").next().unwrap().to_owned() + "\n\n",
            LogProofError::NoCheckpoint,
        ),
        ("x".repeat(MAX_LOG_PROOF_BYTES + 1), LogProofError::TooLong),
    ] {
        assert_eq!(LogProof::parse(bad.as_bytes()), Err(error), "{bad:.200}");
    }
    let line = good.lines().nth(2).unwrap();
    let many = good.replace(line, &vec![line; MAX_PROOF_HASHES].join("\n"));
    assert_eq!(
        LogProof::parse(many.as_bytes()),
        Err(LogProofError::TooManyHashes)
    );
}

#[test]
fn no_changed_byte_still_proves_it() {
    let signer = signer();
    let mut proof = proof_of(3, 7, &signer);
    let text = proof.to_string();
    mutations(text.as_bytes(), |changed| {
        let Ok(parsed) = LogProof::parse(changed) else {
            return;
        };
        let holds = parsed.verify(&entry(3), ORIGIN, signer.verifier()).is_ok();
        assert!(!holds, "{}", String::from_utf8_lossy(changed));
    });
    proof.index = 4;
    assert!(matches!(
        proof.verify(&entry(3), ORIGIN, signer.verifier()),
        Err(LogProofError::Proof(_))
    ));
}

#[test]
fn another_entry_log_key_or_place_is_not_proven() {
    let signer = signer();
    let proof = proof_of(2, 5, &signer);
    let other = NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap();
    for (entry, origin, key) in [
        (entry(1), ORIGIN, signer.verifier()),
        (entry(2), "plant.example/other", signer.verifier()),
        (entry(2), ORIGIN, other.verifier()),
    ] {
        let error = proof.verify(&entry, origin, key).unwrap_err();
        assert!(
            ["proof_checkpoint", "proof_not_included"].contains(&error.code()),
            "{error}"
        );
    }
    let mut short = proof.clone();
    short.hashes.pop();
    assert!(short.verify(&entry(2), ORIGIN, signer.verifier()).is_err());
    let mut long = proof;
    long.hashes.push(Digest::ZERO);
    assert!(long.verify(&entry(2), ORIGIN, signer.verifier()).is_err());
}

#[test]
fn every_leaf_of_every_small_log_is_proven_over_its_text() {
    let signer = signer();
    for size in 1..40 {
        for index in 0..size {
            let mut made = proof_of(index, size, &signer);
            made.extra = (index % 2 == 0).then(|| b"what it is".to_vec());
            let parsed = LogProof::parse(made.to_string().as_bytes()).unwrap();
            assert_eq!(parsed, made);
            let checkpoint = parsed
                .verify(&entry(index), ORIGIN, signer.verifier())
                .unwrap();
            assert_eq!(checkpoint.size, size);
        }
    }
}

/// The published log of tlog-tiles: proofs over its tiles under its own checkpoints.
#[test]
fn the_published_log_is_proven_under_its_own_checkpoints() {
    let Some(folder) = vectors::folder("tlog-tiles") else {
        return;
    };
    let log = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";
    let log = NoteVerifier::parse(log).unwrap();
    let folder = folder.join("log");
    for size in [4_u64, 5, 6, 8, 9, 10, 11, 12, 14] {
        let read = |path: String| std::fs::read(folder.join(path)).unwrap();
        let tile: crate::tiles::Tile = format!("tile/0/000.p/{size}").parse().unwrap();
        let leaves = tile.parse_hashes(&read(tile.to_string())).unwrap();
        let bundle: crate::tiles::Tile = format!("tile/entries/000.p/{size}").parse().unwrap();
        let bytes = read(bundle.to_string());
        let entries = bundle.parse_entries(&bytes).unwrap();
        for (index, entry) in (0..size).zip(entries) {
            let proof = LogProof {
                index,
                hashes: inclusion_proof(leaves.as_slice(), index, size).unwrap(),
                checkpoint: String::from_utf8(read(format!("checkpoint.{size}"))).unwrap(),
                extra: None,
            };
            let parsed = LogProof::parse(proof.to_string().as_bytes()).unwrap();
            parsed
                .verify(entry, "example.com/log/testdata", &log)
                .unwrap();
        }
    }
}
