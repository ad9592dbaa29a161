use super::*;
use crate::vectors::mutations;

fn signer(name: &str) -> NoteSigner {
    NoteSigner::new(name, &NoteSigner::generate().unwrap()).unwrap()
}

#[test]
fn what_is_not_a_note_is_refused_with_its_reason() {
    let good = Note::sign("a\nb\n", &signer("log")).unwrap().to_string();
    let line = good.lines().last().unwrap();
    let cases = [
        (String::new(), NoteMalformed::NoSignatures),
        ("a\nb\n".to_owned(), NoteMalformed::NoSignatures),
        ("a\n\n".to_owned(), NoteMalformed::SignatureLine),
        (good.trim_end().to_owned(), NoteMalformed::SignatureLine),
        (good.replace('\u{2014}', "-"), NoteMalformed::SignatureLine),
        (
            good.replace("\u{2014} log", "\u{2014} l+g"),
            NoteMalformed::KeyName,
        ),
        (
            good.replace("\u{2014} log", "\u{2014} "),
            NoteMalformed::KeyName,
        ),
        (good.replace("a\nb", "a\tb"), NoteMalformed::Text),
        (
            format!("{good}\u{2014} log !\n"),
            NoteMalformed::SignatureLine,
        ),
        (
            format!("{good}\u{2014} log AAAAAA==\n"),
            NoteMalformed::SignatureLine,
        ),
        (
            format!("{good}{}", format!("{line}\n").repeat(MAX_NOTE_SIGNATURES)),
            NoteMalformed::TooManySignatures,
        ),
        ("a".repeat(MAX_NOTE_BYTES + 1), NoteMalformed::TooLong),
    ];
    for (text, reason) in cases {
        assert_eq!(Note::parse(text.as_bytes()), Err(reason), "{text}");
    }
    assert_eq!(Note::parse(b"\xff\n\n"), Err(NoteMalformed::Text));
    assert_eq!(
        Note::sign("no end", &signer("log")),
        Err(NoteMalformed::Text)
    );
}

#[test]
fn a_note_opens_only_with_the_key_and_name_that_signed_it() {
    let log = signer("log");
    let note = Note::parse(Note::sign("a\n\nb\n", &log).unwrap().to_string().as_bytes()).unwrap();
    assert_eq!(note.open(log.verifier()), Ok("a\n\nb\n"));
    assert_eq!(
        note.open(signer("log").verifier()),
        Err(NoteUnverified::Missing)
    );
    let mut renamed = log.verifier().clone();
    renamed.name = "other".to_owned();
    assert_eq!(note.open(&renamed), Err(NoteUnverified::Missing));
    let mut forged = note.clone();
    forged.text = "a\n\nc\n".to_owned();
    assert_eq!(forged.open(log.verifier()), Err(NoteUnverified::Signature));
}

#[test]
fn a_verifier_key_has_one_spelling() {
    let text = signer("plant.example/audit").verifier().to_string();
    assert_eq!(NoteVerifier::parse(&text).unwrap().to_string(), text);
    mutations(text.as_bytes(), |bytes| {
        if let Ok(other) = str::from_utf8(bytes) {
            assert!(NoteVerifier::parse(other).is_err(), "{other}");
        }
    });
}

#[test]
fn a_note_that_was_changed_anywhere_does_not_open() {
    let log = signer("log");
    let good = Note::sign("origin\n1\n", &log).unwrap().to_string();
    mutations(good.as_bytes(), |bytes| {
        if let Ok(note) = Note::parse(bytes) {
            assert!(note.open(log.verifier()).is_err());
        }
    });
}

#[test]
fn debug_of_a_signer_shows_its_public_half_only() {
    let pkcs8 = NoteSigner::generate().unwrap();
    let signer = NoteSigner::new("log", &pkcs8).unwrap();
    assert_eq!(
        format!("{signer:?}"),
        format!("NoteSigner({})", signer.verifier())
    );
}
