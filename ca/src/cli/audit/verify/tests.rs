use edgeward_audit::Digest;
use edgeward_audit::cosignature::Cosigner;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::merkle::{inclusion_proof, leaf_hash, root};
use edgeward_audit::note::{Note, NoteSigner};
use edgeward_audit::proven::{End, FORMAT, Header, Line, Proven};
use edgeward_audit::record::{BootId, BootOpened, Chain, Salt};
use edgeward_audit::witness::Submission;
use edgeward_identity::{Kind, SpiffeId, Timestamp, TrustDomain};

use super::*;

const ORIGIN: &str = "plant.example/audit";

/// A log of a few records, with its key.
struct Log {
    signer: NoteSigner,
    records: Vec<SealedRecord>,
    folder: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        let domain = TrustDomain::new("plant.example").unwrap();
        let node = SpiffeId::new(&domain, Kind::Node, "gw-3").unwrap();
        let mut chain = Chain::new(node, BootId::from_bytes([1; 16]));
        let event = |kind| Event::new(Timestamp::from_secs(1_800_000_000), Actor::Cloud, kind);
        let opened = BootOpened {
            previous: None,
            reset_count: None,
            restart_count: None,
        };
        let mut records = vec![
            chain
                .seal_opening(
                    opened,
                    event(EventKind::JournalOpened),
                    Salt::from_bytes([7; 16]),
                )
                .unwrap(),
        ];
        chain.advance(&records[0]).unwrap();
        for _ in 1..9 {
            let record = chain
                .seal(event(EventKind::FlowDenied), Salt::from_bytes([7; 16]))
                .unwrap();
            chain.advance(&record).unwrap();
            records.push(record);
        }
        Self {
            signer: NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap(),
            records,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn leaves(&self) -> Vec<Digest> {
        let hashes = self.records.iter().map(SealedRecord::hash);
        hashes.map(|hash| leaf_hash(hash.as_bytes())).collect()
    }

    fn checkpoint(&self, size: u64) -> String {
        let root = root(self.leaves().as_slice(), size).unwrap();
        let origin = ORIGIN.to_owned();
        let checkpoint = Checkpoint { origin, size, root };
        checkpoint.sign(&self.signer).unwrap().to_string()
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn export(&self) -> String {
        let leaves = self.leaves();
        let size = leaves.len() as u64;
        let mut lines = vec![Line::Export(Header {
            format: FORMAT.to_owned(),
            origin: ORIGIN.to_owned(),
            log_key: self.signer.verifier().to_string(),
            checkpoint: self.checkpoint(size),
            filter: String::new(),
        })];
        for (index, record) in (0..).zip(&self.records) {
            let proof = inclusion_proof(leaves.as_slice(), index, size).unwrap();
            let record = String::from_utf8(record.bytes().to_vec()).unwrap();
            lines.push(Line::Event(Proven::new(index, record, &proof)));
        }
        lines.push(Line::End(End { events: size }));
        lines.iter().map(|line| line.to_json() + "\n").collect()
    }

    fn proof(&self, index: u64) -> LogProof {
        let leaves = self.leaves();
        LogProof {
            index,
            hashes: inclusion_proof(leaves.as_slice(), index, 9).unwrap(),
            checkpoint: self.checkpoint(9),
            extra: Some(
                self.records[usize::try_from(index).unwrap()]
                    .bytes()
                    .to_vec(),
            ),
        }
    }

    fn arguments(&self, file: PathBuf) -> Arguments {
        Arguments {
            file,
            log_key: Some(self.signer.verifier().to_string()),
            checkpoint: None,
            policy: None,
            record: None,
        }
    }
}

fn session() -> Session {
    use clap::Parser;
    let cli = crate::cli::Cli::try_parse_from(["edgeward", "status"]).unwrap();
    Session {
        screen: edgeward_runtime::screen::Screen::new(cli.global.output, cli.global.color),
        global: cli.global,
    }
}

fn refused(arguments: &Arguments) -> String {
    let failure = run(&session(), arguments).unwrap_err();
    assert!(matches!(failure, Failure::Unsound(_)), "{failure}");
    failure.to_string()
}

#[test]
fn a_changed_or_cut_export_is_refused_and_the_line_is_named() {
    let log = Log::new();
    let good = log.export();
    let changed = good.replacen("\"seq\\\":4", "\"seq\\\":5", 1);
    assert_ne!(changed, good);
    let text = refused(&log.arguments(log.file("changed", &changed)));
    assert!(
        text.contains("line 6") && text.contains("export_not_included"),
        "{text}"
    );
    let cut: String = good
        .lines()
        .take(7)
        .map(|line| format!("{line}\n"))
        .collect();
    let text = refused(&log.arguments(log.file("cut", &cut)));
    assert!(text.contains("export_cut"), "{text}");
    assert!(refused(&log.arguments(log.file("empty", ""))).contains("empty"));
    let endless = "x".repeat(MAX_LINE_BYTES + 100);
    let text = refused(&log.arguments(log.file("endless", &endless)));
    assert!(text.contains("longer"), "{text}");
}

#[test]
fn an_export_is_refused_under_another_key_or_another_checkpoint_of_its_size() {
    let (log, other) = (Log::new(), Log::new());
    let file = log.file("good", &log.export());
    let mut arguments = other.arguments(file.clone());
    assert!(refused(&arguments).contains("export_key"));
    arguments = log.arguments(file);
    let mut forked = Log::new();
    forked.signer = NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap();
    arguments.checkpoint = Some(log.file("unsigned", &forked.checkpoint(9)));
    refused(&arguments);
    let split = Checkpoint {
        origin: ORIGIN.to_owned(),
        size: 9,
        root: Digest::ZERO,
    };
    let split = split.sign(&log.signer).unwrap().to_string();
    arguments.checkpoint = Some(log.file("split", &split));
    assert!(refused(&arguments).contains("signed twice"));
    arguments.checkpoint = Some(log.file("smaller", &log.checkpoint(8)));
    let failure = run(&session(), &arguments).unwrap_err();
    assert!(matches!(failure, Failure::NoAnswer(_)), "{failure}");
}

#[test]
fn a_proof_is_refused_for_another_record_and_without_a_key() {
    let log = Log::new();
    let file = log.file("3.tlog-proof", &log.proof(3).to_string());
    let mut arguments = log.arguments(file);
    let other = String::from_utf8(log.records[4].bytes().to_vec()).unwrap();
    arguments.record = Some(log.file("other", &other));
    assert!(refused(&arguments).contains("proof_not_included"));
    arguments.record = None;
    arguments.log_key = None;
    let failure = run(&session(), &arguments).unwrap_err();
    assert!(matches!(failure, Failure::Usage(_)), "{failure}");
}

#[test]
fn without_the_cosignatures_that_a_policy_wants_nothing_passes() {
    let log = Log::new();
    let witness = Cosigner::new("w.example/1", &NoteSigner::generate().unwrap()).unwrap();
    let of = |signer: &NoteSigner| {
        let (log, witness) = (signer.verifier(), witness.key());
        format!("log {log}\nwitness w {witness}\nquorum w\n")
    };
    let policy = log.file("policy", &of(&log.signer));
    let none = log.file("none", "quorum none\n");
    let bare = log.proof(3);
    let mut cosigned = bare.clone();
    cosigned.checkpoint = cosign(&log, &bare.checkpoint, &witness);
    let bare = log.file("bare.tlog-proof", &bare.to_string());
    let cosigned = log.file("cosigned.tlog-proof", &cosigned.to_string());
    let with = |file: &PathBuf, policy: &PathBuf, key: bool| Arguments {
        policy: Some(policy.clone()),
        log_key: key.then(|| log.signer.verifier().to_string()),
        ..log.arguments(file.clone())
    };
    for key in [true, false] {
        assert!(refused(&with(&bare, &policy, key)).contains("policy_quorum"));
        run(&session(), &with(&cosigned, &policy, key)).unwrap();
    }
    // Whose log it is must come from somewhere.
    assert!(refused(&with(&cosigned, &none, false)).contains("policy_other_log"));
    run(&session(), &with(&bare, &none, true)).unwrap();
    let other = NoteSigner::new(ORIGIN, &NoteSigner::generate().unwrap()).unwrap();
    let other = log.file("other", &of(&other));
    assert!(refused(&with(&cosigned, &other, false)).contains("policy_checkpoint"));
    let torn = log.file("torn", "quorum none");
    let failure = run(&session(), &with(&cosigned, &torn, true)).unwrap_err();
    assert!(matches!(failure, Failure::Usage(_)), "{failure}");
    // Exports, too.
    let export = log.file("export", &log.export());
    assert!(refused(&with(&export, &policy, false)).contains("policy_quorum"));
    let note = log.checkpoint(9);
    let (note, with_line) = (note.clone(), cosign(&log, &note, &witness));
    let (note, with_line) = (json(&note), json(&with_line));
    let export = log.file("export", &log.export().replace(&note, &with_line));
    run(&session(), &with(&export, &policy, false)).unwrap();
}

fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// As a witness that knows nothing of the log yet would.
fn cosign(log: &Log, note: &str, witness: &Cosigner) -> String {
    let submission = Submission {
        old: 0,
        proof: Vec::new(),
        note: Note::parse(note.as_bytes()).unwrap(),
    };
    let keys = [log.signer.verifier().clone()];
    let stated = submission.stated().unwrap();
    let continued = submission.open(stated, &keys).unwrap().judge(None).unwrap();
    let line = continued.cosign(witness, Timestamp::from_secs(1_800_000_000));
    continued.noted(&keys, line).unwrap().to_string()
}

#[test]
fn good_exports_and_proofs_pass_with_the_key_as_text_and_in_a_file() {
    let log = Log::new();
    let mut arguments = log.arguments(log.file("good", &log.export()));
    arguments.checkpoint = Some(log.file("checkpoint", &log.checkpoint(9)));
    run(&session(), &arguments).unwrap();
    let key = log.file("key", &format!("{}\n", log.signer.verifier()));
    arguments.log_key = Some(key.display().to_string());
    run(&session(), &arguments).unwrap();
    arguments.log_key = None;
    run(&session(), &arguments).unwrap();
    let proof = log.file("8.tlog-proof", &log.proof(8).to_string());
    run(&session(), &log.arguments(proof)).unwrap();
}
