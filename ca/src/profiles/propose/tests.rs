use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_evidence::testing::ima::ImaList;
use edgeward_evidence::tpm::HashAlg;
use edgeward_identity::Timestamp;
use edgeward_policy::CompiledPolicy;

use super::*;
use crate::profiles::FindingView;

const POLICY: &str = "schema = \"edgeward-policy/1\"\nowner = \"ot\"\nscope = \"any\"\n\n[profile.gateway]\ntier = [\"virtual\"]\n[profile.gateway.pcr]\n0 = [\"sha256:00\"]\n7 = [\n    \"sha256:77\",   # of May\n]\n\n[group.g]\nmatch = { role = [\"g\"] }\nprofile = \"gateway\"\n";

fn value(byte: &str) -> String {
    byte.repeat(32)
}

fn sources() -> Vec<SourceFile> {
    let full = POLICY
        .replace("sha256:00", &format!("sha256:{}", value("00")))
        .replace("sha256:77", &format!("sha256:{}", value("77")));
    let other = "schema = \"edgeward-policy/1\"\nowner = \"ot\"\nscope = \"any\"\n";
    vec![
        SourceFile::new("a.toml", other),
        SourceFile::new("site/g.toml", full),
    ]
}

fn evidence(pcrs: &[(u8, &str)], code: Option<&str>) -> EvidenceView {
    EvidenceView {
        taken: Timestamp::from_secs(1_800_000_000).into(),
        code: code.map(str::to_owned),
        tier: "virtual".to_owned(),
        bank: "sha256".to_owned(),
        pcrs: pcrs.iter().map(|(pcr, byte)| (*pcr, value(byte))).collect(),
        firmware: "0x1".to_owned(),
        secure_boot: None,
        findings: Vec::new(),
        boot_log: None,
        ima: None,
    }
}

/// What comes of machines with this evidence.
fn proposal(machines: &[(&str, Option<EvidenceView>)], at_least: usize) -> Proposal {
    let files = sources();
    let policy = CompiledPolicy::compile(&files, 1).unwrap();
    let labels = [("role".to_owned(), "g".to_owned())].into();
    let machines: Vec<Machine<'_>> = machines
        .iter()
        .map(|(name, evidence)| Machine {
            name,
            profiles: policy.profiles_for(&labels),
            evidence: evidence.as_ref(),
        })
        .collect();
    propose(&machines, &files, at_least).unwrap()
}

fn what(proposal: &Proposal, pcr: u8, byte: &str) -> Option<(usize, Standing)> {
    let value = format!("sha256:{}", value(byte));
    let mut values = proposal.values.iter();
    let found = values.find(|seen| seen.pcr == pcr && seen.value == value);
    found.map(|seen| (seen.nodes, seen.what))
}

#[test]
fn a_value_on_too_few_machines_is_named_and_not_proposed() {
    let new = Some(evidence(&[(0, "00"), (7, "bb")], Some("profile_pcr_value")));
    let old = Some(evidence(&[(0, "00"), (7, "77")], None));
    let one = proposal(&[("a", new.clone()), ("b", old.clone()), ("c", old)], 2);
    assert_eq!(what(&one, 7, "bb"), Some((1, Standing::TooFew)));
    assert_eq!(what(&one, 7, "77"), Some((2, Standing::Accepted)));
    assert_eq!(one.diff, "");
    let alone = proposal(&[("a", new)], 1);
    assert_eq!(what(&alone, 7, "bb"), Some((1, Standing::Proposed)));
    assert_eq!(what(&alone, 7, "77"), Some((0, Standing::Unused)));
}

#[test]
fn evidence_that_a_forger_may_have_made_is_not_counted() {
    let bad = |code: &str| Some(evidence(&[(0, "00"), (7, "bb")], Some(code)));
    let mut other_bank = evidence(&[(7, "bb")], None);
    other_bank.bank = "sha384".to_owned();
    let seen = proposal(
        &[
            ("a", bad("boot_log_replay_mismatch")),
            ("b", bad("ima_violation")),
            ("c", None),
            ("d", Some(other_bank)),
        ],
        1,
    );
    assert_eq!((seen.counted, seen.left_out.len()), (0, 4));
    assert!(seen.left_out["a"].contains("boot_log_replay_mismatch"));
    assert_eq!(what(&seen, 7, "bb"), None);
    assert_eq!(seen.diff, "");
}

#[test]
fn notices_about_clocks_and_findings_of_any_mode_are_told_apart() {
    let finding = |code: &str, monitored| FindingView {
        code: code.to_owned(),
        pcr: None,
        event: String::new(),
        found: String::new(),
        expected: Vec::new(),
        advice: String::new(),
        since: Timestamp::from_secs(1).into(),
        monitored,
    };
    for (code, monitored, doubted) in [
        ("clock_unsafe", true, false),
        ("clock_unsafe", false, true),
        ("profile_pcr_value", false, false),
        ("boot_log_replay_mismatch", true, true),
    ] {
        let mut view = evidence(&[], None);
        view.findings = vec![finding(code, monitored)];
        assert_eq!(view.doubt().is_some(), doubted, "{code} {monitored}");
    }
}

#[test]
fn a_new_value_is_added_beside_the_old_one_in_the_file_that_has_it() {
    let new = Some(evidence(&[(0, "00"), (7, "bb")], Some("profile_pcr_value")));
    let old = Some(evidence(&[(0, "00"), (7, "77")], None));
    let proposal = proposal(&[("a", new.clone()), ("b", new), ("c", old)], 2);
    assert_eq!(what(&proposal, 7, "bb"), Some((2, Standing::Proposed)));
    assert_eq!(proposal.counted, 3);
    let expected = format!(
        "--- a/site/g.toml\n+++ b/site/g.toml\n@@ -7,7 +7,8 @@\n [profile.gateway.pcr]\n 0 = [\"sha256:{}\"]\n 7 = [\n-    \"sha256:{old}\",   # of May\n+    \"sha256:{old}\",   # of May\n+    \"sha256:{new}\",\n ]\n \n [group.g]\n",
        value("00"),
        old = value("77"),
        new = value("bb"),
    );
    assert_eq!(proposal.diff, expected);
}

const FILES: &str = "schema = \"edgeward-policy/1\"\nowner = \"ot\"\nscope = \"any\"\n[profile.gateway]\ntier = [\"virtual\"]\nima = { allow = \"g.allow\", deny = \"g.deny\" }\n[group.g]\nmatch = { role = [\"g\"] }\nprofile = \"gateway\"\n";

/// A machine that ran these files: name and digest.
fn ran(files: &[(&str, u8)]) -> EvidenceView {
    let mut list = ImaList::new();
    for (name, digest) in files {
        list.add(*name, HashAlg::Sha256, &[*digest; 32]);
    }
    let mut evidence = evidence(&[], Some("ima_file_not_allowed"));
    evidence.ima = Some(STANDARD.encode(list.bytes));
    evidence
}

#[test]
fn files_that_enough_machines_ran_are_added_to_the_list_and_denied_ones_never() {
    let line = |digest: u8, path: &str| format!("sha256:{}{path}", hex::encode([digest; 32]));
    let sources = [
        SourceFile::new("site/g.toml", FILES),
        SourceFile::new(
            "site/g.allow",
            format!("{}\n{}\n", line(1, ""), line(2, " /b")),
        ),
        SourceFile::new("g.deny", format!("{}\n", line(9, ""))),
    ];
    let policy = CompiledPolicy::compile(&sources, 1).unwrap();
    let labels = [("role".to_owned(), "g".to_owned())].into();
    let views = [
        ran(&[("/anywhere", 1), ("/b", 2), ("/new", 3), ("/bad", 9)]),
        ran(&[("/elsewhere", 2), ("/new", 3), ("/bad", 9), ("/odd\n", 4)]),
    ];
    let machines: Vec<Machine<'_>> = ["a", "b"]
        .into_iter()
        .zip(&views)
        .map(|(name, evidence)| Machine {
            name,
            profiles: policy.profiles_for(&labels),
            evidence: Some(evidence),
        })
        .collect();
    let proposal = propose(&machines, &sources, 2).unwrap();
    let seen: Vec<(&str, usize, Standing)> = proposal
        .files
        .iter()
        .map(|file| (file.line.as_str(), file.nodes, file.what))
        .collect();
    let (elsewhere, new, bad) = (line(2, " /elsewhere"), line(3, " /new"), line(9, " /bad"));
    assert_eq!(
        seen,
        [
            (elsewhere.as_str(), 1, Standing::TooFew),
            (new.as_str(), 2, Standing::Proposed),
            (bad.as_str(), 2, Standing::Denied),
        ]
    );
    let expected = format!(
        "--- a/site/g.allow\n+++ b/site/g.allow\n@@ -1,2 +1,3 @@\n {}\n-{old}\n+{old}\n+{new}\n",
        line(1, ""),
        old = line(2, " /b"),
    );
    assert_eq!(proposal.diff, expected);
}
