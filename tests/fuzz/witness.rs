//! Targets of the witness protocol: submissions, cosignatures under a note, policies of readers.

use std::sync::OnceLock;

use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::cosignature::{Cosigner, WitnessKey};
use edgeward_audit::merkle::{EMPTY_ROOT, leaf_hash};
use edgeward_audit::note::{Note, NoteSigner, NoteVerifier};
use edgeward_audit::witness::{Known, Submission};
use edgeward_identity::testing::TEST_NOW;

const ORIGIN: &str = "plant.example/audit";

/// A log, a witness, and a checkpoint of one leaf that both signed.
struct Made {
    log: NoteVerifier,
    witness: WitnessKey,
    submission: Submission,
    cosigned: Note,
}

fn made() -> Option<&'static Made> {
    static MADE: OnceLock<Option<Made>> = OnceLock::new();
    MADE.get_or_init(make).as_ref()
}

fn make() -> Option<Made> {
    let log = NoteSigner::new(ORIGIN, &NoteSigner::generate().ok()?).ok()?;
    let witness = Cosigner::new("w.example", &NoteSigner::generate().ok()?).ok()?;
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size: 1,
        root: leaf_hash(b"a"),
    };
    let submission = Submission {
        old: 0,
        proof: Vec::new(),
        note: checkpoint.sign(&log).ok()?,
    };
    let keys = [log.verifier().clone()];
    let opened = submission.clone().open(checkpoint, &keys).ok()?;
    let continued = opened.judge(None).ok()?;
    let line = continued.cosign(&witness, TEST_NOW);
    Some(Made {
        log: log.verifier().clone(),
        witness: witness.key().clone(),
        cosigned: continued.noted(&keys, line).ok()?,
        submission,
    })
}

/// Whatever is read has one spelling, and is cosigned only where the log signed it.
pub fn submission(bytes: &[u8]) {
    let Ok(submission) = Submission::parse(bytes) else {
        return;
    };
    assert_eq!(submission.to_string().as_bytes(), bytes);
    let (Ok(stated), Some(made)) = (submission.stated(), made()) else {
        return;
    };
    let Ok(opened) = submission.open(stated, std::slice::from_ref(&made.log)) else {
        return;
    };
    let signed = made.submission.note.unverified_text();
    assert_eq!(
        opened.note().unverified_text(),
        signed,
        "the log signed one"
    );
    let other = Known {
        size: 1,
        root: EMPTY_ROOT,
    };
    assert!(opened.judge(Some(other)).is_err());
}

/// A cosignature that verifies is over the one text that the witness signed.
pub fn cosignature(bytes: &[u8]) {
    let (Ok(note), Some(made)) = (Note::parse(bytes), made()) else {
        return;
    };
    if made.witness.verify(&note).is_ok() {
        let signed = made.cosigned.unverified_text();
        assert_eq!(note.unverified_text(), signed);
    }
}

pub fn submissions() -> Vec<Vec<u8>> {
    let hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let note = format!("{ORIGIN}\n4\n{hash}\n\n\u{2014} {ORIGIN} AAAAAAAA\n");
    let mut seeds = vec![format!("old 3\n{hash}\n{hash}\n\n{note}").into_bytes()];
    seeds.extend(made().map(|made| made.submission.to_string().into_bytes()));
    seeds
}

pub fn cosigned() -> Vec<Vec<u8>> {
    made()
        .map(|made| made.cosigned.to_string().into_bytes())
        .into_iter()
        .collect()
}

pub fn policies() -> Vec<Vec<u8>> {
    let Some(made) = made() else {
        return Vec::new();
    };
    let text = format!(
        "# readers\nlog {} https://log.example\nwitness w {}\ngroup g any w\ngroup h 1 g\nquorum h\n",
        made.log, made.witness
    );
    vec![text.into_bytes(), b"quorum none\n".to_vec()]
}
