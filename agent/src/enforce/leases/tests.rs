use super::*;

fn device(name: &str) -> DeviceName {
    name.parse().unwrap()
}

fn lease(address: &str, seconds: u64) -> Change {
    Change::Lease {
        address: address.parse().unwrap(),
        left: Duration::from_secs(seconds),
    }
}

#[test]
fn a_lease_without_a_whole_second_left_is_a_cut() {
    let text = apply(&device("ew0"), &[lease("fd00::1", 0)]);
    assert!(!text.contains("timeout 0s"), "{text}");
    assert!(
        text.trim_end()
            .ends_with("delete element inet edgeward_ew0 lease6 { fd00::1 }")
    );
}

#[test]
fn every_chain_drops_what_has_no_lease_and_accepts_nothing() {
    let text = make_table(&device("ew0"));
    assert!(!text.contains(" accept\n"), "{text}");
    assert_eq!(text.matches("drop").count(), 6);
}

#[test]
fn names_that_differ_have_tables_that_differ() {
    let names = ["a-b", "a_b", "a__b", "a_hb", "a_ub"];
    let tables: std::collections::BTreeSet<String> =
        names.iter().map(|name| table(&device(name))).collect();
    assert_eq!(tables.len(), names.len());
}

#[test]
fn the_kernel_takes_what_is_written() {
    let root = nix::unistd::geteuid().is_root();
    let installed = std::process::Command::new("nft")
        .arg("--version")
        .output()
        .is_ok();
    if !root || !installed {
        println!("needs root and nft: skipped");
        return;
    }
    let name = device("ew-test_0");
    let changes = [
        lease("fd00::1", 600),
        lease("100.64.0.7", 5),
        Change::Cut {
            address: "fd00::1".parse().unwrap(),
        },
        Change::Asleep {
            address: "100.64.0.9".parse().unwrap(),
        },
    ];
    let transactions = [
        make_table(&name),
        make_table(&name),
        apply(&name, &changes),
        apply(&name, &changes),
        format!("list table inet {}\n", table(&name)),
        remove_table(&name),
        remove_table(&name),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut command = String::from("set -e");
    for (number, text) in transactions.iter().enumerate() {
        let path = folder.path().join(number.to_string());
        std::fs::write(&path, text).unwrap();
        command.push_str(&format!("; nft -f {}", path.display()));
    }
    // In a namespace of its own, which ends with the process.
    let output = std::process::Command::new("unshare")
        .args(["--net", "sh", "-c", &command])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{:?} {complaint}\n{}",
        output.status,
        transactions.concat()
    );
    let listed = String::from_utf8_lossy(&output.stdout);
    assert!(listed.contains("100.64.0.7 timeout 5s"), "{listed}");
    assert!(!listed.contains("fd00::1"), "{listed}");
    assert!(listed.contains("100.64.0.9 }"), "{listed}");
}

#[test]
fn who_sleeps_may_be_sent_to_and_never_be_heard_and_a_lease_or_a_cut_ends_it() {
    let table = make_table(&device("ew0"));
    assert!(!table.contains("saddr != @asleep"), "{table}");
    for set in ["asleep4", "asleep6", "asleepnets4", "asleepnets6"] {
        let allows = format!("daddr != @{set} ");
        assert_eq!(table.matches(&allows).count(), 2, "{set}: {table}");
    }
    let asleep = Change::Asleep {
        address: "fd00::1".parse().unwrap(),
    };
    let cut = Change::Cut {
        address: "fd00::1".parse().unwrap(),
    };
    let last = |change| {
        let text = apply(&device("ew0"), &[change]);
        let ends = |word: &str| text.rfind(&format!("{word} element inet edgeward_ew0 asleep6"));
        (ends("add") > ends("delete"), text.contains("timeout 600s"))
    };
    assert_eq!(last(asleep), (true, false));
    assert_eq!(last(cut), (false, false));
    assert_eq!(last(lease("fd00::1", 600)), (false, true));
}

#[test]
fn a_table_that_stands_is_made_to_hold_these_leases_and_no_others_in_one_go() {
    let device = device("edgeward0");
    let text = replace(&device, &[lease("fd00::b", 90), lease("100.64.0.9", 0)]);
    assert_eq!(
        text,
        "flush set inet edgeward_edgeward0 lease4\n\
         flush set inet edgeward_edgeward0 lease6\n\
         flush set inet edgeward_edgeward0 asleep4\n\
         flush set inet edgeward_edgeward0 asleep6\n\
         flush set inet edgeward_edgeward0 asleepnets4\n\
         flush set inet edgeward_edgeward0 asleepnets6\n\
         add element inet edgeward_edgeward0 lease6 { fd00::b timeout 90s }\n"
    );
    assert_ne!(table_hash(&device), table_hash(&self::device("other")));
}
