use edgeward_policy::{DigestList, FileHash, ImaRequirement, ListedDigest, SourceFile};

use super::*;

fn profile(name: &str, pcrs: &[(u8, &[&str])]) -> policy::Profile {
    policy::Profile {
        name: name.to_owned(),
        tiers: vec![Tier::Hardware, Tier::Virtual],
        bank: policy::PcrBank::Sha256,
        pcrs: pcrs
            .iter()
            .map(|(index, values)| {
                let values = values.iter().map(|value| value.repeat(32)).collect();
                (*index, values)
            })
            .collect(),
        firmware_deny: vec![],
        secure_boot: None,
        ima: None,
        app_control: None,
        apps_pcr: None,
        mode: policy::Mode::Enforce,
        fresh: None,
        offline: None,
    }
}

fn monitor(name: &str, pcrs: &[(u8, &[&str])]) -> policy::Profile {
    policy::Profile {
        mode: policy::Mode::Monitor,
        ..profile(name, pcrs)
    }
}

fn file(byte: u8, path: Option<&str>) -> ListedDigest {
    ListedDigest {
        hash: FileHash::Sha256,
        digest: Box::from([byte; 32]),
        path: path.map(Box::from),
    }
}

fn files(name: &str, allow: &[ListedDigest], deny: &[ListedDigest]) -> policy::Profile {
    policy::Profile {
        ima: Some(ImaRequirement {
            allow: Arc::new(DigestList::new(allow.to_vec())),
            deny: Arc::new(DigestList::new(deny.to_vec())),
            violations: policy::Violations::Ignore,
        }),
        ..profile(name, &[])
    }
}

fn made(profiles: &[&policy::Profile]) -> Result<Measured, Unmeasurable> {
    make(profiles, false, &mut Lists::default())
}

#[test]
fn profiles_that_contradict_each_other_are_refused() {
    let one = profile("one", &[(7, &["aa"])]);
    let value = profile("two", &[(7, &["bb"])]);
    assert_eq!(made(&[&one, &value]), Err(Unmeasurable::Values(7)));
    let mut bank = profile("two", &[(7, &["aa"])]);
    bank.bank = policy::PcrBank::Sha384;
    assert!(matches!(made(&[&one, &bank]), Err(Unmeasurable::Banks(_))));
    let mut tier = profile("two", &[(7, &["aa"])]);
    tier.tiers = vec![Tier::Listed];
    assert!(matches!(made(&[&one, &tier]), Err(Unmeasurable::Tiers(_))));
    let secure_boot = |wanted| policy::Profile {
        secure_boot: Some(wanted),
        ..profile("boot", &[])
    };
    assert!(matches!(
        made(&[&secure_boot(true), &secure_boot(false)]),
        Err(Unmeasurable::SecureBoot(_))
    ));
    assert!(matches!(
        made(&[
            &files("one", &[file(1, None)], &[]),
            &files("two", &[file(2, None)], &[])
        ]),
        Err(Unmeasurable::Files(_))
    ));
}

#[test]
fn a_profile_that_monitors_makes_nobody_trusted_beside_one_that_enforces_and_compares_nothing() {
    let bare = policy::Profile {
        tiers: vec![Tier::Software],
        ..profile("bare", &[])
    };
    let watching = monitor("watching", &[(7, &["aa"])]);
    assert!(made(&[&watching]).unwrap().profile.is_some());
    let measured = made(&[&bare, &watching]).unwrap();
    assert_eq!(measured.profile, None);
    assert!(measured.monitors.is_empty());
}

#[test]
fn a_contradiction_between_profiles_that_monitor_has_no_consequences() {
    let one = monitor("one", &[(7, &["aa"])]);
    let two = monitor("two", &[(7, &["bb"])]);
    let measured = made(&[&one, &two]).unwrap();
    assert_eq!(measured.profile.unwrap().mode(), Mode::Monitor);
    assert_eq!(measured.monitors.len(), 1);
}

#[test]
fn a_node_in_two_groups_must_pass_both_profiles() {
    let one = profile("one", &[(0, &["aa"]), (7, &["aa", "bb"])]);
    let mut two = profile("two", &[(4, &["cc"]), (7, &["BB", "cc"])]);
    two.secure_boot = Some(true);
    two.app_control = Some(policy::AppControl::Fanotify);
    let mut merged = made(&[&one, &two]).unwrap().profile.unwrap();
    assert_eq!(
        merged.name(),
        format!("{}+{}", one.label().as_str(), two.label().as_str())
    );
    assert_eq!(merged.pcr().keys().copied().collect::<Vec<_>>(), [0, 4, 7]);
    assert_eq!(merged.pcr()[&7], BTreeSet::from([vec![0xbb; 32]]));
    assert_eq!(merged.secure_boot(), Some(true));
    assert_eq!(merged.app_control(), Some(AppControl::Fanotify));
    merged = made(&[&one]).unwrap().profile.unwrap();
    assert_eq!(merged.app_control(), None);
}

#[test]
fn a_node_measures_its_applications_in_one_pcr_or_its_profiles_contradict_each_other() {
    let with = |mut profile: policy::Profile, pcr| {
        profile.apps_pcr = Some(pcr);
        profile
    };
    let one = with(profile("one", &[(7, &["aa"])]), 14);
    let other = with(profile("two", &[(7, &["aa"])]), 15);
    let refused = made(&[&one, &other]).unwrap_err();
    assert!(matches!(refused, Unmeasurable::AppsPcr(_)), "{refused}");
    let plain = profile("three", &[(7, &["aa"])]);
    let measured = made(&[&plain, &one]).unwrap();
    assert_eq!(measured.apps_pcr(), Some(14));
    assert!(measured.selection.contains(14));
    assert_eq!(made(&[&plain]).unwrap().apps_pcr(), None);
    // A value that is compared there never holds.
    let both = profile("four", &[(14, &["aa"])]);
    let refused = made(&[&one, &both]).unwrap_err();
    assert!(matches!(
        refused,
        Unmeasurable::Profile(BadProfile::AppsPcrCompared(14))
    ));
    // What only monitors has no consequences, and its log is asked for all the same.
    let watching = with(monitor("five", &[(7, &["aa"])]), 13);
    let measured = made(&[&plain, &watching]).unwrap();
    assert_eq!(measured.apps_pcr(), Some(13));
}

#[test]
fn a_profile_that_monitors_is_judged_beside_those_that_enforce_and_its_pcrs_are_quoted() {
    let one = profile("one", &[(7, &["aa"])]);
    let watching = monitor("two", &[(7, &["bb"]), (15, &["cc"])]);
    let measured = made(&[&one, &watching]).unwrap();
    assert_eq!(measured.profile.as_ref().unwrap().mode(), Mode::Enforce);
    assert_eq!(measured.monitors.len(), 1);
    assert_eq!(measured.monitors[0].mode(), Mode::Monitor);
    assert!(measured.selection.contains(15));
    let alone = made(&[&one]).unwrap();
    assert!(!alone.selection.contains(15));
    assert_ne!(alone.identity, measured.identity);
    assert_eq!(
        alone.profile, measured.profile,
        "watching changes nothing for the node"
    );
}

#[test]
fn two_lists_of_files_let_run_what_both_allow_and_neither_denies() {
    let one = files(
        "one",
        &[
            file(1, None),
            file(2, Some("/a")),
            file(3, None),
            file(4, Some("/x")),
        ],
        &[file(9, None)],
    );
    let two = files(
        "two",
        &[
            file(1, Some("/b")),
            file(1, Some("/c")),
            file(2, None),
            file(4, Some("/y")),
        ],
        &[file(8, None)],
    );
    let both = made(&[&one, &two]).unwrap();
    let expected = files(
        "both",
        &[
            file(1, Some("/b")),
            file(1, Some("/c")),
            file(2, Some("/a")),
        ],
        &[file(8, None), file(9, None)],
    );
    let expected = made(&[&expected]).unwrap();
    assert_eq!(both.ima()[0].hash(), expected.ima()[0].hash());
    assert!(both.selection.contains(10));
}

#[test]
fn a_list_is_made_once_for_all_profiles_that_have_it() {
    let list = [file(1, None)];
    let (one, two) = (files("one", &list, &[]), files("two", &list, &[]));
    let mut lists = Lists::default();
    let first = make(&[&one], false, &mut lists).unwrap();
    let second = make(&[&two], false, &mut lists).unwrap();
    assert!(Arc::ptr_eq(first.ima()[0], second.ima()[0]));
    let mut watching = two.clone();
    watching.mode = policy::Mode::Monitor;
    let beside = make(&[&one, &watching], false, &mut lists).unwrap();
    assert_eq!(beside.ima().len(), 1);
}

#[test]
fn without_a_policy_nothing_is_compared_and_a_tpm_is_needed() {
    let measured = Measures::default().of(None, &Labels::new()).unwrap();
    assert_eq!(measured.profile, None);
    assert!(!measured.software);
    assert_eq!(measured.selection, evidence_selection(PcrBank::Sha256));
}

#[test]
fn what_a_policy_means_is_made_once_until_there_is_another_policy() {
    let policy = |value: &str| {
        let text = format!(
            "schema = \"edgeward-policy/1\"\nowner = \"test\"\nscope = \"any\"\n\
             [profile.gateway]\ntier = [\"listed\"]\npcr_bank = \"sha256\"\npcr = {{ 7 = [\"sha256:{}\"] }}\n\
             [group.gateways]\nmatch = {{ role = [\"gateway\"] }}\nprofile = \"gateway\"\n",
            value.repeat(32)
        );
        let files = [SourceFile::new("fleet.toml", text)];
        Arc::new(CompiledPolicy::compile(&files, 1).unwrap())
    };
    let labels = Labels::from([("role".to_owned(), "gateway".to_owned())]);
    let measures = Measures::default();
    let one = policy("aa");
    let first = measures.of(Some(&one), &labels).unwrap();
    let again = measures.of(Some(&one), &labels).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let other = measures.of(Some(&policy("bb")), &labels).unwrap();
    assert_ne!(first.identity, other.identity);
}
