use super::*;
use crate::checkpoint::Checkpoint;
use crate::merkle::EMPTY_ROOT;
use crate::note::{NoteSigner, NoteVerifier};
use crate::vectors::{LIVE_CHECKPOINT, LIVE_LOG, LIVE_WITNESSES, mutations};

const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

fn cosigner(name: &str) -> Cosigner {
    Cosigner::new(name, &NoteSigner::generate().unwrap()).unwrap()
}

fn note() -> Note {
    let checkpoint = Checkpoint {
        origin: "plant.example/audit".to_owned(),
        size: 0,
        root: EMPTY_ROOT,
    };
    let pkcs8 = NoteSigner::generate().unwrap();
    let log = NoteSigner::new("plant.example/audit", &pkcs8).unwrap();
    checkpoint.sign(&log).unwrap()
}

fn cosigned(note: &Note, witness: &Cosigner, now: Timestamp) -> Note {
    let mut note = note.clone();
    note.add(witness.cosign(note.unverified_text(), now))
        .unwrap();
    note
}

#[test]
fn a_key_of_another_type_or_spelling_is_refused() {
    let witness = cosigner("w.example/1").key().to_string();
    let log = NoteSigner::new("w.example/1", &NoteSigner::generate().unwrap()).unwrap();
    let log = log.verifier().to_string();
    assert_eq!(WitnessKey::parse(&log), Err(NoteMalformed::Key));
    assert_eq!(NoteVerifier::parse(&witness), Err(NoteMalformed::Key));
    assert_eq!(WitnessKey::parse(&witness).unwrap().to_string(), witness);
    mutations(witness.as_bytes(), |bytes| {
        if let Ok(other) = str::from_utf8(bytes) {
            assert!(WitnessKey::parse(other).is_err(), "{other}");
        }
    });
}

#[test]
fn what_was_cosigned_by_another_or_changed_does_not_verify() {
    let (witness, other) = (cosigner("w.example/1"), cosigner("w.example/1"));
    let note = note();
    assert_eq!(witness.key().verify(&note), Err(NoteUnverified::Missing));
    let signed = cosigned(&note, &other, NOW);
    assert_eq!(witness.key().verify(&signed), Err(NoteUnverified::Missing));
    let good = cosigned(&note, &witness, NOW).to_string();
    mutations(good.as_bytes(), |bytes| {
        if let Ok(changed) = Note::parse(bytes)
            && let Ok(found) = witness.key().verify(&changed)
        {
            // The log's own line is not what a witness vouches for.
            assert_eq!(changed.unverified_text(), note.unverified_text());
            assert_eq!(found.time(), NOW);
        }
    });
}

#[test]
fn a_signature_without_a_time_or_of_another_length_does_not_verify() {
    let witness = cosigner("w.example/1");
    let note = note();
    let line = witness.cosign(note.unverified_text(), NOW);
    let cut = line.signature.len() - 1;
    let whole = [line.signature.as_slice(), &[0]].concat();
    for signature in [
        line.signature.get(..cut).unwrap().to_vec(),
        line.signature.get(..4).unwrap().to_vec(),
        [[0; 8].as_slice(), line.signature.get(8..).unwrap()].concat(),
        [[0xff; 8].as_slice(), line.signature.get(8..).unwrap()].concat(),
        whole,
    ] {
        let mut note = note.clone();
        let line = line.clone();
        note.add(NoteSignature { signature, ..line }).unwrap();
        assert_eq!(witness.key().verify(&note), Err(NoteUnverified::Signature));
    }
}

#[test]
fn one_bad_line_in_the_name_of_a_key_spoils_the_good_one() {
    let witness = cosigner("w.example/1");
    let mut note = cosigned(&note(), &witness, NOW);
    let mut bad = witness.cosign("another text\n", NOW);
    bad.signature.rotate_left(1);
    note.add(bad).unwrap();
    assert_eq!(witness.key().verify(&note), Err(NoteUnverified::Signature));
}

#[test]
fn of_two_cosignatures_the_newer_counts() {
    let witness = cosigner("w.example/1");
    let later = Timestamp::from_secs(NOW.secs() + 9);
    let note = cosigned(&cosigned(&note(), &witness, later), &witness, NOW);
    let note = Note::parse(note.to_string().as_bytes()).unwrap();
    assert_eq!(witness.key().verify(&note).unwrap().time(), later);
}

#[test]
fn the_cosignatures_of_public_witnesses_under_a_public_log_verify() {
    let note = Note::parse(LIVE_CHECKPOINT.as_bytes()).unwrap();
    for key in LIVE_WITNESSES {
        let key = WitnessKey::parse(key).unwrap();
        let cosignature = key.verify(&note).unwrap();
        assert_eq!(cosignature.time(), Timestamp::from_secs(0x6a12_2120));
        let forged = LIVE_CHECKPOINT.replace("1432088532", "1432088533");
        let forged = Note::parse(forged.as_bytes()).unwrap();
        assert_eq!(key.verify(&forged), Err(NoteUnverified::Signature));
    }
    assert!(NoteVerifier::parse(LIVE_LOG).is_ok_and(|log| note.open(&log).is_ok()));
}

#[test]
fn the_example_of_the_specification_is_framed_as_it_says() {
    let line = NoteSignature::parse(
        "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==",
    )
    .unwrap();
    let (time, signature) = line.signature.split_first_chunk::<8>().unwrap();
    assert_eq!(u64::from_be_bytes(*time), 1_679_315_147);
    assert_eq!(signature.len(), SIGNATURE_BYTES);
}

#[test]
fn debug_of_a_cosigner_shows_its_public_half_only() {
    let witness = cosigner("w.example/1");
    assert_eq!(
        format!("{witness:?}"),
        format!("Cosigner({})", witness.key())
    );
}
