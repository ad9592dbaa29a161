use super::*;
use crate::cosignature::Cosigner;
use crate::merkle::{consistency_proof, leaf_hash, root};
use crate::note::NoteSigner;
use crate::vectors::mutations;

const ORIGIN: &str = "plant.example/audit";
const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

/// A log with these leaves; another `salt` is another history.
fn leaves(size: u64, salt: u8) -> Vec<Digest> {
    (0..size)
        .map(|n| leaf_hash(&[&n.to_be_bytes()[..], &[salt]].concat()))
        .collect()
}

fn known(size: u64, salt: u8) -> Known {
    let root = root(leaves(size, salt).as_slice(), size).unwrap();
    Known { size, root }
}

fn signer() -> NoteSigner {
    NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap()
}

fn submission(log: &NoteSigner, old: u64, size: u64, salt: u8) -> Submission {
    let leaves = leaves(size, salt);
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size,
        root: root(leaves.as_slice(), size).unwrap(),
    };
    let proof = match old {
        0 => Vec::new(),
        old => consistency_proof(leaves.as_slice(), old, size).unwrap_or_default(),
    };
    let note = checkpoint.sign(log).unwrap();
    Submission { old, proof, note }
}

fn opened(submission: Submission, log: &NoteSigner) -> Opened {
    let stated = submission.stated().unwrap();
    submission.open(stated, &[log.verifier().clone()]).unwrap()
}

#[test]
fn what_is_no_submission_is_refused_with_its_reason() {
    let good = submission(&signer(), 2, 5, 0).to_string();
    assert!(Submission::parse(good.as_bytes()).is_ok());
    let hash = format!("{}\n", BASE64_STANDARD.encode([0; 32]));
    let many = |count: usize| format!("old 2\n{}", hash.repeat(count));
    let none = SubmissionMalformed::Note(NoteMalformed::NoSignatures);
    let cases = [
        (String::new(), none.clone()),
        (good.replace("old 2", "old 02"), SubmissionMalformed::Old),
        (good.replace("old 2", "old -2"), SubmissionMalformed::Old),
        (good.replace("old 2", "old +2"), SubmissionMalformed::Old),
        (good.replace("old 2", "old  2"), SubmissionMalformed::Old),
        (good.replace("old 2", "Old 2"), SubmissionMalformed::Old),
        (good.replace("old 2\n", ""), SubmissionMalformed::Old),
        (
            good.replace("old 2", "old 18446744073709551616"),
            SubmissionMalformed::Old,
        ),
        (
            good.replace("old 2\n", "old 2\nAAAA\n"),
            SubmissionMalformed::Hash,
        ),
        (
            good.replace("old 2\n", "old 2\r\n"),
            SubmissionMalformed::Old,
        ),
        (
            good.replace("old 2\n", &many(MAX_SUBMITTED_HASHES + 1)),
            SubmissionMalformed::TooManyHashes,
        ),
        (good.replace("\n\n", "\n"), none),
        (
            "a".repeat(MAX_SUBMISSION_BYTES + 1),
            SubmissionMalformed::TooLong,
        ),
    ];
    for (text, reason) in cases {
        assert_eq!(Submission::parse(text.as_bytes()), Err(reason), "{text}");
    }
    assert_eq!(
        Submission::parse(b"\xff\n\n"),
        Err(SubmissionMalformed::Old)
    );
}

#[test]
fn a_tree_that_no_database_can_count_is_refused() {
    let log = signer();
    for (size, fits) in [
        (MAX_TREE_SIZE, true),
        (MAX_TREE_SIZE + 1, false),
        (u64::MAX, false),
    ] {
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root: leaf_hash(b""),
        };
        let note = checkpoint.sign(&log).unwrap();
        let submission = Submission {
            old: 0,
            proof: Vec::new(),
            note,
        };
        let wanted = match fits {
            true => Ok(checkpoint),
            false => Err(SubmissionMalformed::TooLarge),
        };
        assert_eq!(submission.stated(), wanted);
    }
}

#[test]
fn a_submission_has_one_spelling() {
    for (old, size) in [(0, 0), (0, 7), (3, 7), (7, 7), (4, 8)] {
        let submission = submission(&signer(), old, size, 0);
        let text = submission.to_string();
        assert_eq!(Submission::parse(text.as_bytes()), Ok(submission));
        mutations(text.as_bytes(), |bytes| {
            if let Ok(other) = Submission::parse(bytes) {
                assert_eq!(other.to_string().as_bytes(), bytes);
            }
        });
    }
}

#[test]
fn what_the_log_did_not_sign_does_not_open() {
    let (log, other) = (signer(), signer());
    let foreign = submission(&other, 0, 3, 0);
    let stated = foreign.stated().unwrap();
    let keys = [log.verifier().clone()];
    assert_eq!(
        foreign.clone().open(stated.clone(), &keys),
        Err(NoteUnverified::Missing)
    );
    assert_eq!(
        foreign.clone().open(stated, &[]),
        Err(NoteUnverified::Missing)
    );
    // A line in the log's name that is not its signature: refused though another key of the log signed.
    let mut forged = foreign;
    let mut line = submission(&log, 0, 3, 1)
        .note
        .signatures()
        .first()
        .unwrap()
        .clone();
    line.signature.rotate_left(1);
    forged.note.add(line).unwrap();
    let stated = forged.stated().unwrap();
    let keys = [other.verifier().clone(), log.verifier().clone()];
    assert_eq!(forged.open(stated, &keys), Err(NoteUnverified::Signature));
    // Signatures of strangers are no reason to refuse.
    let mut noted = submission(&log, 0, 3, 0);
    noted
        .note
        .add(
            submission(&other, 0, 3, 0)
                .note
                .signatures()
                .first()
                .unwrap()
                .clone(),
        )
        .unwrap();
    assert_eq!(opened(noted, &log).checkpoint().size, 3);
}

#[test]
fn only_what_continues_the_known_tree_is_cosigned() {
    let log = signer();
    let judge = |submission: Submission, known| opened(submission, &log).judge(known);
    let inconsistent = |result: Result<Continued, NotCosigned>| {
        matches!(result, Err(NotCosigned::Inconsistent(_)))
    };
    let three = Some(known(3, 0));
    // The old size is above the new one, or not what is known.
    let above = NotCosigned::OldAbove { old: 4, size: 3 };
    assert_eq!(judge(submission(&log, 4, 3, 0), three), Err(above.clone()));
    assert_eq!(judge(submission(&log, 4, 3, 0), None), Err(above));
    let other = Err(NotCosigned::OtherSize(3));
    assert_eq!(judge(submission(&log, 0, 7, 0), three), other);
    assert_eq!(judge(submission(&log, 2, 7, 0), three), other);
    assert_eq!(judge(submission(&log, 1, 2, 0), three), other);
    assert_eq!(
        judge(submission(&log, 3, 7, 0), None),
        Err(NotCosigned::OtherSize(0))
    );
    // Another history.
    assert!(inconsistent(judge(submission(&log, 3, 7, 9), three)));
    for (old, refused) in [
        (0, NotCosigned::OtherSize(3)),
        (1, NotCosigned::OtherSize(3)),
        (3, NotCosigned::Forked(3)),
    ] {
        let forked = opened(submission(&log, old, 3, 9), &log);
        assert!(forked.forks(&known(3, 0)), "evidence, whatever the answer");
        assert_eq!(forked.judge(three), Err(refused));
    }
    for (old, size) in [(3, 3), (3, 7), (0, 0)] {
        assert!(!opened(submission(&log, old, size, 0), &log).forks(&known(3, 0)));
    }
    // A proof that is not one, or is where none belongs.
    let mut cut = submission(&log, 3, 7, 0);
    cut.proof.pop();
    assert!(inconsistent(judge(cut, three)));
    for (old, size, known) in [(0, 7, None), (3, 3, three)] {
        let mut more = submission(&log, old, size, 0);
        more.proof.push(EMPTY_ROOT);
        assert!(inconsistent(judge(more, known)));
    }
    // Nothing has one root.
    let note = Checkpoint {
        origin: ORIGIN.to_owned(),
        size: 0,
        root: leaf_hash(b""),
    };
    let note = note.sign(&log).unwrap();
    let empty = Submission {
        old: 0,
        proof: Vec::new(),
        note,
    };
    assert_eq!(judge(empty, None), Err(NotCosigned::NotEmpty));
}

#[test]
fn what_continues_is_cosigned_and_kept_with_the_signatures_of_the_log() {
    let log = signer();
    let witness = Cosigner::new("w.example/1", &NoteSigner::generate().unwrap()).unwrap();
    let mut before = None;
    for (old, size) in [(0, 0), (0, 1), (1, 3), (3, 3), (3, 8), (8, 21)] {
        let mut submitted = submission(&log, old, size, 0);
        let stranger = submission(&signer(), 0, 1, 0);
        submitted
            .note
            .add(stranger.note.signatures().first().unwrap().clone())
            .unwrap();
        let continued = opened(submitted, &log).judge(before).unwrap();
        let line = continued.cosign(&witness, NOW);
        let noted = continued.noted(&[log.verifier().clone()], line).unwrap();
        assert_eq!(noted.signatures().len(), 2);
        assert_eq!(witness.key().verify(&noted).unwrap().time(), NOW);
        let text = noted.open(log.verifier()).unwrap();
        assert_eq!(Checkpoint::parse_text(text).unwrap().size, size);
        before = Some(known(size, 0));
    }
}

#[test]
fn a_size_in_an_answer_is_a_number_and_a_line_feed() {
    for bad in [
        "",
        "\n",
        "3",
        "3\n\n",
        "03\n",
        "+3\n",
        "3 \n",
        "3\r\n",
        "18446744073709551616\n",
    ] {
        assert!(parse_size_answer(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert_eq!(parse_size_answer(b"0\n"), Ok(0));
    assert_eq!(parse_size_answer(b"20852163\n"), Ok(20_852_163));
}
