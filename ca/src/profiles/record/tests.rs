use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgeward_evidence::testing::BootLogBuilder;
use edgeward_evidence::testing::ima::ImaList;
use edgeward_identity::Timestamp;
use edgeward_policy::{CompiledPolicy, Labels, SourceFile};

use super::*;

const GROUP: &str = "schema = \"edgeward-policy/1\"\nowner = \"ot\"\nscope = \"any\"\n[group.g]\nmatch = { site = [\"suzhou\"] }\nprofile = \"gateway.2026\"\n";

pub(crate) fn evidence() -> EvidenceView {
    let log = BootLogBuilder::typical(true);
    let pcrs = log.pcrs(HashAlg::Sha256);
    EvidenceView {
        taken: Timestamp::from_secs(1_800_000_000).into(),
        code: None,
        tier: "hardware".to_owned(),
        bank: "sha256".to_owned(),
        pcrs: (0_u8..10)
            .filter_map(|pcr| Some((pcr, hex::encode(pcrs.get(usize::from(pcr))?))))
            .chain([(10, "cc".repeat(32))])
            .collect(),
        firmware: "0x2000400030001".to_owned(),
        secure_boot: Some(true),
        findings: Vec::new(),
        boot_log: Some(STANDARD.encode(log.build())),
        ima: None,
    }
}

fn labels() -> BTreeMap<String, String> {
    [("site".to_owned(), "suzhou".to_owned())].into()
}

fn written(
    evidence: &EvidenceView,
    pcrs: &[u8],
    list: Option<&str>,
) -> Result<Recorded, NotRecorded> {
    let (labels, pcrs) = (labels(), pcrs.iter().copied().collect());
    let wanted = Wanted {
        node: "gw-3",
        labels: &labels,
        profile: "gateway.2026",
        owner: "li",
        pcrs: &pcrs,
        list,
    };
    record(&wanted, evidence)
}

fn compiled(recorded: &Recorded) -> edgeward_policy::Profile {
    let mut files = vec![
        SourceFile::new("p.toml", recorded.policy.as_str()),
        SourceFile::new("g.toml", GROUP),
    ];
    if let Some(list) = &recorded.list {
        files.push(SourceFile::new("gateway.allow", list.as_str()));
    }
    let policy = match CompiledPolicy::compile(&files, 1) {
        Ok(policy) => policy,
        Err(report) => panic!("{report}\n{}", recorded.policy),
    };
    let labels: Labels = labels();
    policy.profiles_for(&labels)[0].clone()
}

#[test]
fn what_cannot_be_compared_is_not_written_down() {
    let mut other = evidence();
    other.bank = "sha512".to_owned();
    assert!(matches!(
        written(&other, &[0], None),
        Err(NotRecorded::Bank(_))
    ));
    for pcr in [10, 16, 23, 24, 255] {
        assert_eq!(
            written(&evidence(), &[pcr], None),
            Err(NotRecorded::Pcr(pcr))
        );
    }
    assert_eq!(
        written(&evidence(), &[0, 12], None),
        Err(NotRecorded::NotQuoted(12))
    );
    let mut off = evidence();
    off.secure_boot = Some(false);
    assert_eq!(written(&off, &[], None), Err(NotRecorded::Nothing));
    assert_eq!(
        written(&evidence(), &[0], Some("gateway.allow")),
        Err(NotRecorded::NoList)
    );
}

#[test]
fn a_list_that_proves_nothing_is_not_written_down() {
    let with = |list: ImaList| {
        let mut evidence = evidence();
        evidence.ima = Some(STANDARD.encode(list.bytes));
        written(&evidence, &[0], Some("gateway.allow"))
    };
    let mut sha1 = ImaList::new();
    sha1.add("/bin/sh", HashAlg::Sha1, &[1; 20]);
    assert_eq!(with(sha1), Err(NotRecorded::Sha1));
    assert_eq!(with(ImaList::new()), Err(NotRecorded::Nothing));
    let mut cut = evidence();
    cut.ima = Some(STANDARD.encode([0; 9]));
    assert!(matches!(
        written(&cut, &[0], Some("gateway.allow")),
        Err(NotRecorded::Ima(_))
    ));
}

#[test]
fn what_is_written_is_a_policy_that_the_machine_meets_and_says_what_is_measured() {
    let evidence = evidence();
    let recorded = written(&evidence, &[0, 4, 7], None).unwrap();
    let profile = compiled(&recorded);
    assert_eq!(profile.pcrs.keys().copied().collect::<Vec<_>>(), [0, 4, 7]);
    for (pcr, values) in &profile.pcrs {
        assert_eq!(values, &[evidence.pcrs[pcr].clone()], "{pcr}");
    }
    assert_eq!(profile.secure_boot, Some(true));
    assert_eq!(profile.tiers, [edgeward_identity::Tier::Hardware]);
    assert_eq!(recorded.notes, [""; 0]);
    let text = &recorded.policy;
    assert!(
        text.contains("scope = { \"site\" = [\"suzhou\"] }"),
        "{text}"
    );
    for pcr in [1, 2, 3, 5, 6, 8, 9] {
        let comment = format!("# {pcr} = [\"sha256:{}\"]", evidence.pcrs[&pcr]);
        assert!(text.contains(&comment), "{text}");
    }
    assert!(
        !text.contains("\n10 =") && !text.contains("# 10 ="),
        "{text}"
    );
    assert!(text.contains("# PCR 7 event"), "{text}");
    for line in text.lines().filter(|line| line.starts_with("# PCR")) {
        assert!(line.chars().count() <= MAX_COMMENT_CHARS);
    }
}

#[test]
fn a_machine_without_secure_boot_or_log_is_written_down_without() {
    let mut bare = evidence();
    bare.secure_boot = None;
    bare.boot_log = None;
    let recorded = written(&bare, &[0], None).unwrap();
    assert_eq!(compiled(&recorded).secure_boot, None);
    assert!(recorded.policy.contains("# Secure Boot is not known"));
    bare.secure_boot = Some(false);
    let recorded = written(&bare, &[0], None).unwrap();
    assert_eq!(compiled(&recorded).secure_boot, None);
    assert!(recorded.policy.contains("# Secure Boot is off"));
}

#[test]
fn evidence_that_was_refused_for_more_than_its_values_is_said_to_be() {
    let mut refused = evidence();
    refused.code = Some("profile_pcr_value".to_owned());
    assert_eq!(written(&refused, &[0], None).unwrap().notes, [""; 0]);
    refused.code = Some("boot_log_replay_mismatch".to_owned());
    let notes = written(&refused, &[0], None).unwrap().notes;
    assert!(notes[0].contains("boot_log_replay_mismatch"), "{notes:?}");
}

#[test]
fn files_that_ran_are_listed_once_beside_it() {
    let mut list = ImaList::new();
    list.add("/usr/bin/z", HashAlg::Sha256, &[1; 32]);
    list.add("/usr/bin/a b", HashAlg::Sha384, &[2; 48]);
    list.add("/usr/bin/z", HashAlg::Sha256, &[1; 32]);
    list.add(b"/tmp/\xff".as_slice(), HashAlg::Sha256, &[3; 32]);
    list.add_violation("/var/log/x");
    let mut evidence = evidence();
    evidence.ima = Some(STANDARD.encode(list.bytes));
    let recorded = written(&evidence, &[0], Some("gateway.allow")).unwrap();
    let profile = compiled(&recorded);
    let ima = profile.ima.unwrap();
    let lines: Vec<String> = ima
        .allow
        .entries()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        lines,
        [
            format!("sha256:{} /usr/bin/z", "01".repeat(32)),
            format!("sha256:{}", "03".repeat(32)),
            format!("sha384:{} /usr/bin/a b", "02".repeat(48)),
        ]
    );
    assert!(
        recorded
            .notes
            .iter()
            .any(|note| note.starts_with("1 files changed"))
    );
    assert!(
        recorded
            .notes
            .iter()
            .any(|note| note.starts_with("1 files have names"))
    );
}
