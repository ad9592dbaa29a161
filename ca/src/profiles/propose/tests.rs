use edgeward_identity::Timestamp;
use edgeward_policy::CompiledPolicy;

use super::*;

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
