//! The direction of the house, read from `cargo metadata`: who of ours may depend on whom, and who may name what.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Ours -> what of ours it may use (design, section 3).
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "agent",
        &[
            "apps", "audit", "evidence", "guard", "identity", "policy", "runtime", "tunnel", "wire",
        ],
    ),
    ("apps", &["identity"]),
    ("audit", &["identity"]),
    (
        "ca",
        &[
            "apps", "audit", "evidence", "identity", "policy", "runtime", "wire",
        ],
    ),
    ("evidence", &["identity"]),
    ("guard", &[]),
    ("identity", &[]),
    ("oracle", &[]),
    ("policy", &["apps", "identity"]),
    ("runtime", &[]),
    ("tunnel", &["evidence", "identity"]),
    ("wire", &["apps", "audit", "evidence", "identity", "policy"]),
];

/// A part -> the one crate of ours that may name it.
const KEPT_BY: &[(&str, &str)] = &[
    ("casbin", "policy"),
    ("fastcdc", "apps"),
    ("landlock", "guard"),
    ("seccompiler", "guard"),
    ("sigstore-tuf", "apps"),
    ("sigstore-verify", "apps"),
    ("snow", "tunnel"),
    ("sqlx", "ca"),
    ("tss-esapi", "agent"),
];

/// Crates whose cores do no I/O: none of these may appear among their dependencies.
const NO_IO: &[&str] = &["apps", "audit", "evidence", "identity", "policy"];
const IO_CRATES: &[&str] = &[
    "hyper",
    "quinn",
    "reqwest",
    "sqlx",
    "tokio",
    "tonic",
    "tss-esapi",
];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    metadata
        .packages
        .iter()
        .filter_map(|package| {
            let name = package.name.strip_prefix("edgeward-")?.to_owned();
            let used = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind == DependencyKind::Normal)
                .map(|dependency| dependency.name.clone())
                .collect();
            Some((name, used))
        })
        .collect()
}

#[test]
fn every_room_depends_only_on_the_rooms_it_may() {
    let dependencies = dependencies();
    for (name, used) in &dependencies {
        if name == "tests" {
            continue;
        }
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(room, _)| room == name)
            .unwrap_or_else(|| panic!("a room that the house does not know: {name}"));
        for ours in used
            .iter()
            .filter_map(|used| used.strip_prefix("edgeward-"))
        {
            assert!(allowed.contains(&ours), "{name} must not depend on {ours}");
        }
    }
    assert_eq!(dependencies.len(), ALLOWED.len() + 1);
}

#[test]
fn each_kept_part_is_named_by_its_keeper_only() {
    let dependencies = dependencies();
    for (part, keeper) in KEPT_BY {
        for (name, used) in &dependencies {
            if name != keeper && name != "tests" {
                assert!(
                    !used.contains(*part),
                    "{name} names {part}, which {keeper} keeps"
                );
            }
        }
        assert!(
            dependencies[*keeper].contains(*part),
            "{keeper} no longer uses {part}"
        );
    }
}

#[test]
fn cores_use_no_crate_that_does_io() {
    let dependencies = dependencies();
    for name in NO_IO {
        for part in IO_CRATES {
            assert!(
                !dependencies[*name].contains(*part),
                "{name} must not use {part}"
            );
        }
    }
}
