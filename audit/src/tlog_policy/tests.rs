use super::*;
use crate::cosignature::Cosigner;
use crate::merkle::EMPTY_ROOT;
use crate::note::NoteSigner;
use crate::vectors::{LIVE_CHECKPOINT, LIVE_LOG, LIVE_WITNESSES, mutations};

const ORIGIN: &str = "plant.example/audit";
const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

fn log() -> NoteSigner {
    NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap()
}

fn witness(number: usize) -> Cosigner {
    let name = format!("w{number}.example");
    Cosigner::new(&name, &NoteSigner::generate().unwrap()).unwrap()
}

fn signed(log: &NoteSigner, witnesses: &[&Cosigner]) -> Vec<u8> {
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size: 0,
        root: EMPTY_ROOT,
    };
    let mut note = checkpoint.sign(log).unwrap();
    for witness in witnesses {
        note.add(witness.cosign(note.unverified_text(), NOW))
            .unwrap();
    }
    note.to_string().into_bytes()
}

fn fault(text: &str) -> LineFault {
    match TlogPolicy::parse(text.as_bytes()) {
        Err(TlogPolicyMalformed::Line { what, .. }) => what,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn what_is_no_policy_is_refused_with_its_reason() {
    let (a, b) = (witness(1).key().to_string(), witness(2).key().to_string());
    let log = log().verifier().to_string();
    let two = format!("witness a {a}\nwitness b {b}\n");
    for (text, reason) in [
        ("logs x\n".to_owned(), LineFault::Unknown),
        ("quorum\n".to_owned(), LineFault::Unknown),
        ("quorum a b\n".to_owned(), LineFault::Unknown),
        (format!("log {log} url more\n"), LineFault::Unknown),
        (format!("witness a {a} url more\n"), LineFault::Unknown),
        (format!("log {a}\n"), LineFault::Key(NoteMalformed::Key)),
        (
            format!("witness a {log}\n"),
            LineFault::Key(NoteMalformed::Key),
        ),
        (
            format!("witness {a} a\n"),
            LineFault::Key(NoteMalformed::Key),
        ),
        (
            "log \u{ff}\n".to_owned(),
            LineFault::Key(NoteMalformed::Key),
        ),
        (format!("log {log}\nlog {log}\n"), LineFault::KeyTwice),
        (format!("{two}witness c {a}\n"), LineFault::KeyTwice),
        (
            format!("witness a {a}\nwitness a {b}\n"),
            LineFault::NameTwice,
        ),
        (format!("witness none {a}\n"), LineFault::NameTwice),
        (format!("{two}group a any b\n"), LineFault::NameTwice),
        (format!("{two}group none any b\n"), LineFault::NameTwice),
        ("quorum a\n".to_owned(), LineFault::NoSuchName),
        (format!("{two}group g any none\n"), LineFault::NoSuchName),
        (format!("{two}group g any g\n"), LineFault::NoSuchName),
        (format!("{two}group g any c\n"), LineFault::NoSuchName),
        (format!("{two}group g all a a\n"), LineFault::MemberTwice),
        (
            format!("{two}group g any a b\ngroup h any a\n"),
            LineFault::MemberTwice,
        ),
        (format!("{two}group g any\n"), LineFault::Threshold),
        (format!("{two}group g all\n"), LineFault::Threshold),
        (format!("{two}group g 0 a b\n"), LineFault::Threshold),
        (format!("{two}group g 3 a b\n"), LineFault::Threshold),
        (format!("{two}group g 01 a b\n"), LineFault::Threshold),
        (format!("{two}group g +1 a b\n"), LineFault::Threshold),
        (format!("{two}group g most a b\n"), LineFault::Threshold),
        (
            "quorum none\nquorum none\n".to_owned(),
            LineFault::QuorumTwice,
        ),
        (
            format!("#{}\n", "x".repeat(MAX_LINE_BYTES)),
            LineFault::TooLong,
        ),
    ] {
        assert_eq!(fault(&text), reason, "{text}");
    }
    for (text, reason) in [
        ("", TlogPolicyMalformed::Cut),
        ("quorum none", TlogPolicyMalformed::Cut),
        ("\n", TlogPolicyMalformed::NoQuorum),
        ("quorum\tnone\r\n", TlogPolicyMalformed::Character),
        ("quorum none\n\u{7f}\n", TlogPolicyMalformed::Character),
    ] {
        assert_eq!(TlogPolicy::parse(text.as_bytes()), Err(reason), "{text:?}");
    }
    let long = vec![b'\n'; MAX_POLICY_BYTES + 1];
    assert_eq!(TlogPolicy::parse(&long), Err(TlogPolicyMalformed::TooLong));
}

#[test]
fn no_more_of_each_than_the_limit_is_read() {
    let mut text = String::new();
    for number in 0..=MAX_ENTRIES {
        text.push_str(&format!("witness {number} {}\n", witness(number).key()));
    }
    assert_eq!(fault(&text), LineFault::TooMany);
    let mut text = format!("witness 0 {}\n", witness(0).key());
    for number in 0..=MAX_ENTRIES {
        text.push_str(&format!("group {} any {number}\n", number + 1));
    }
    assert_eq!(fault(&text), LineFault::TooMany);
}

#[test]
fn the_form_of_the_specification_is_read() {
    let keys: Vec<String> = (0..3).map(|n| witness(n).key().to_string()).collect();
    let (a, b, c) = (&keys[0], &keys[1], &keys[2]);
    let text = format!(
        "# a comment\n\n \t \n  # another\nlog {} https://log.example\n\twitness  caf\u{e9} {a}\t\nwitness b {b} https://b\n\
         witness c {c}\ngroup two 2 caf\u{e9} b c\ngroup whole all two\nquorum whole\n# the end\n",
        log().verifier()
    );
    let policy = TlogPolicy::parse(text.as_bytes()).unwrap();
    assert_eq!((policy.logs().len(), policy.named.len()), (1, 5));
    mutations(text.as_bytes(), |bytes| drop(TlogPolicy::parse(bytes)));
}

#[test]
fn too_few_or_false_cosignatures_are_not_accepted() {
    let log = log();
    let [a, b, c] = [witness(1), witness(2), witness(3)];
    let defined = format!(
        "log {}\nwitness a {}\nwitness b {}\nwitness c {}\n",
        log.verifier(),
        a.key(),
        b.key(),
        c.key()
    );
    let policy = |rest: &str| TlogPolicy::parse(format!("{defined}{rest}").as_bytes()).unwrap();
    let nested = "group ab any a b\ngroup all all ab c\nquorum all\n";
    let cases: [(&str, &[&Cosigner], bool); 12] = [
        ("quorum none\n", &[], true),
        ("quorum a\n", &[], false),
        ("quorum a\n", &[&b, &c], false),
        ("quorum a\n", &[&a], true),
        ("group g any a b\nquorum g\n", &[&c], false),
        ("group g any a b\nquorum g\n", &[&b], true),
        ("group g 2 a b c\nquorum g\n", &[&c], false),
        ("group g 2 a b c\nquorum g\n", &[&c, &a], true),
        ("group g all a b c\nquorum g\n", &[&c, &a], false),
        (nested, &[&a, &b], false),
        (nested, &[&c], false),
        (nested, &[&b, &c], true),
    ];
    for (rest, witnesses, enough) in cases {
        let accepted = policy(rest).accept(&signed(&log, witnesses), None);
        match accepted {
            Ok(accepted) => {
                assert!(enough, "{rest}");
                assert_eq!(accepted.witnesses().len(), witnesses.len());
                assert!(accepted.witnesses().iter().all(|(_, time)| *time == NOW));
                assert_eq!(accepted.log(), log.verifier());
            }
            Err(error) => {
                assert!(!enough, "{rest}: {error}");
                assert_eq!(error.code(), "policy_quorum");
            }
        }
    }
    // The same witness twice is one witness.
    let twice = policy("group g 2 a b c\nquorum g\n");
    let later = Timestamp::from_secs(NOW.secs() + 1);
    let mut note = Note::parse(&signed(&log, &[&a])).unwrap();
    note.add(a.cosign(note.unverified_text(), later)).unwrap();
    assert!(twice.accept(note.to_string().as_bytes(), None).is_err());
    // One that lies in the name of a witness spoils it, even where it is not needed.
    let mut note = Note::parse(&signed(&log, &[&a])).unwrap();
    note.add(b.cosign("other\n", NOW)).unwrap();
    let lied = policy("quorum a\n").accept(note.to_string().as_bytes(), None);
    assert_eq!(lied, Err(NotAccepted::Cosignature("w2.example".to_owned())));
}

#[test]
fn a_checkpoint_of_another_log_is_not_accepted_whoever_cosigned_it() {
    let (ours, other) = (log(), log());
    let w = witness(1);
    let text = format!("log {}\nwitness w {}\nquorum w\n", ours.verifier(), w.key());
    let policy = TlogPolicy::parse(text.as_bytes()).unwrap();
    let foreign = policy.accept(&signed(&other, &[&w]), None);
    assert!(matches!(foreign, Err(NotAccepted::Checkpoint(_))));
    let elsewhere = NoteSigner::new("else.example", &NoteSigner::generate().unwrap()).unwrap();
    let text = format!("log {}\nquorum none\n", elsewhere.verifier());
    let policy = TlogPolicy::parse(text.as_bytes()).unwrap();
    let foreign = policy.accept(&signed(&ours, &[]), None);
    assert_eq!(foreign, Err(NotAccepted::OtherLog(ORIGIN.to_owned())));
    // The reader may know the log otherwise.
    let bare = TlogPolicy::parse(b"quorum none\n").unwrap();
    assert!(bare.accept(&signed(&ours, &[]), None).is_err());
    assert!(
        bare.accept(&signed(&ours, &[]), Some(ours.verifier()))
            .is_ok()
    );
    assert!(
        bare.accept(&signed(&ours, &[]), Some(other.verifier()))
            .is_err()
    );
}

#[test]
fn the_checkpoint_of_a_public_log_is_accepted_by_the_witnesses_that_cosigned_it() {
    let [a, b, c, d] = LIVE_WITNESSES;
    let text = format!(
        "log {LIVE_LOG}\nwitness a {a}\nwitness b {b}\nwitness c {c}\nwitness d {d}\ngroup g all a b c d\nquorum g\n"
    );
    let policy = TlogPolicy::parse(text.as_bytes()).unwrap();
    let accepted = policy.accept(LIVE_CHECKPOINT.as_bytes(), None).unwrap();
    assert_eq!(accepted.checkpoint().size, 1_432_088_532);
    assert_eq!(accepted.witnesses().len(), 4);
    let fewer: String = LIVE_CHECKPOINT
        .lines()
        .filter(|line| !line.contains("remora"))
        .map(|line| format!("{line}\n"))
        .collect();
    let refused = policy.accept(fewer.as_bytes(), None);
    assert!(matches!(refused, Err(NotAccepted::Quorum(names)) if names.len() == 3));
}
