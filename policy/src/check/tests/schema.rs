//! The published JSON Schema says what the parser says: an independent validator is given every text of these tests
//! and every sample.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::*;
use crate::schema::JSON_SCHEMA;
use crate::source::hash_sources;

/// What a text is collected under where it was accepted; else the error's code.
pub(super) const ACCEPTED: &str = "accepted";
/// Where texts are collected, while this is set.
const FOLDER: &str = "EDGEWARD_POLICY_TEXTS";
/// Where Debian's package python3-jsonschema is.
const PYTHON: &str = "/usr/bin/python3";
/// What no schema can tell from a time.
const QUOTED_TIME: &str = "\"2027-01-31T00:00:00Z\"";
/// Errors of form: these a schema must find.
const OF_FORM: [Code; 3] = [Code::MissingKey, Code::UnknownKey, Code::WrongType];

/// Keeps a text of another test for the validator.
pub(super) fn collect(text: &str, verdict: &str) {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let hash = hex::encode(hash_sources(&one(text)));
        let name = format!("{verdict}.{hash}.toml");
        std::fs::write(Path::new(&folder).join(name), text).unwrap();
    }
}

#[test]
fn a_validator_accepts_every_accepted_text_and_refuses_those_of_another_form() {
    let folder = Folder::new();
    let tests = Command::new(std::env::current_exe().unwrap())
        .args(["check::tests::", "--skip", "schema", "--test-threads", "2"])
        .env(FOLDER, &folder.0)
        .output()
        .unwrap();
    assert!(tests.status.success(), "{tests:?}");
    samples(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies"),
        &mut |path| {
            collect_sample(&folder.0, path);
        },
    );
    let mut files = Vec::new();
    samples(&folder.0, &mut |path| files.push(path.to_owned()));
    let refused = refused(&files);
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for path in &files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let verdict = name.split('.').next().unwrap().to_owned();
        let why = refused.get(name);
        let text = || std::fs::read_to_string(path).unwrap();
        if verdict == ACCEPTED || verdict == Code::NotEnforced.as_str() {
            assert_eq!(why, None, "{}", text());
        }
        // As JSON a time in quotes is the same as one without.
        let is_quoted_time = verdict == "wrong-type" && text().contains(QUOTED_TIME);
        if OF_FORM.iter().any(|code| code.as_str() == verdict) && !is_quoted_time {
            assert!(why.is_some(), "not refused: {verdict}\n{}", text());
        }
        let count = counts.entry(verdict).or_default();
        count.0 += 1;
        count.1 += usize::from(why.is_some());
    }
    // So that nothing collected never looks like nothing wrong.
    assert!(counts[ACCEPTED].0 > 50, "{counts:?}");
    for code in OF_FORM {
        assert!(counts[code.as_str()].0 > 2, "{counts:?}");
    }
    let (values, bad) = counts[Code::BadValue.as_str()];
    assert!(values > 50 && bad * 2 > values, "{counts:?}");
}

#[test]
fn every_table_has_the_keys_in_the_schema_that_the_parser_accepts() {
    let schema: Value = serde_json::from_str(JSON_SCHEMA).unwrap();
    let head = "schema = \"edgeward-policy/1\"\nowner = \"x\"\nscope = \"any\"\n";
    for (pointer, table) in [
        ("", "zzzz = 1"),
        ("/$defs/defaults", "[defaults]\nzzzz = 1"),
        ("/$defs/profile", "[profile.x]\nzzzz = 1"),
        (
            "/$defs/profile/properties/ima",
            "[profile.x]\nima = { zzzz = 1 }",
        ),
        ("/$defs/group", "[group.x]\nzzzz = 1"),
        ("/$defs/operatorGroup", "[operator-group.x]\nzzzz = 1"),
        ("/$defs/device", "[device.x]\nzzzz = 1"),
        (
            "/$defs/device/properties/match",
            "[device.x]\nmatch = { zzzz = 1 }",
        ),
        ("/$defs/workload", "[workload.x]\nzzzz = 1"),
        (
            "/$defs/workload/properties/match",
            "[workload.x]\nmatch = { zzzz = 1 }",
        ),
        (
            "/$defs/workload/properties/match/properties/k8s",
            "[workload.x]\nmatch = { k8s = { zzzz = 1 } }",
        ),
        ("/$defs/route", "[route.x]\nzzzz = 1"),
        ("/$defs/role", "[role]\nzzzz = 1"),
        ("/$defs/service", "[service.x]\nzzzz = 1"),
        ("/$defs/interface", "[service.x.interface.y]\nzzzz = 1"),
        (
            "/$defs/l7",
            "[service.x.interface.y]\nnet = \"mesh\"\nl4 = \"tcp/1\"\nl7 = { zzzz = 1 }",
        ),
        ("/$defs/window", "[window.x]\nzzzz = 1"),
        ("/$defs/rule", "[[rule]]\nzzzz = 1"),
        (
            "/$defs/rule/properties/when",
            "[[rule]]\nwhen = { zzzz = 1 }",
        ),
        (
            "/$defs/rule/properties/approval",
            "[[rule]]\napproval = { zzzz = 1 }",
        ),
        ("/$defs/publisher", "[publisher.x]\nzzzz = 1"),
        ("/$defs/apps", "[apps.x]\nzzzz = 1"),
        ("/$defs/app", "[apps.x]\nallow = [{ zzzz = 1 }]"),
        ("/$defs/deniedApp", "[apps.x]\ndeny = [{ zzzz = 1 }]"),
        ("/$defs/installedApp", "[apps.x]\ninstall = [{ zzzz = 1 }]"),
        (
            "/$defs/publisher/properties/cosign",
            "[publisher.x]\ncosign = { zzzz = 1 }",
        ),
        ("/properties/apps_root", "[apps_root]\nzzzz = 1"),
        ("/$defs/breakGlass", "[break-glass.x]\nzzzz = 1"),
        ("/$defs/test", "[[test]]\nzzzz = 1"),
        (
            "/$defs/test/properties/from",
            "[[test]]\nfrom = { zzzz = 1 }",
        ),
        ("/$defs/invariant", "[[invariant]]\nzzzz = 1"),
        (
            "/$defs/invariant/properties/never",
            "[[invariant]]\nname = \"x\"\nnever = { zzzz = 1 }",
        ),
    ] {
        let report = check(&one(&format!("{head}{table}\n")));
        let mut found = report.diagnostics.iter();
        let unknown = found.find(|found| found.message.contains("unknown key `zzzz`"));
        let help = unknown
            .and_then(|found| found.help.clone())
            .unwrap_or_default();
        let accepted: Vec<&str> = help
            .strip_prefix("accepted: ")
            .unwrap_or_else(|| panic!("{pointer}: {report}"))
            .split(", ")
            .collect();
        let object = schema.pointer(pointer).unwrap();
        let mut known: Vec<&str> = object["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        known.sort_unstable();
        assert_eq!(known, accepted, "{pointer}");
        assert_eq!(
            object["additionalProperties"],
            Value::Bool(false),
            "{pointer}"
        );
    }
}

#[test]
fn the_schema_lists_the_reasons_that_a_test_may_name() {
    let schema: Value = serde_json::from_str(JSON_SCHEMA).unwrap();
    let listed = schema
        .pointer("/$defs/test/properties/because/enum")
        .unwrap();
    let reasons = crate::Reason::ALL.map(crate::Reason::as_str);
    assert_eq!(*listed, serde_json::json!(reasons));
}

/// Why each file that the validator refuses is refused, by its name.
fn refused(files: &[PathBuf]) -> BTreeMap<String, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(PYTHON)
        .arg(here.join("src/check/tests/validate.py"))
        .arg(here.join("../docs/policy.schema.json"))
        .args(files)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "Debian's python3-jsonschema is needed (tests/run installs it): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    let pairs = lines.lines().filter_map(|line| line.split_once(' '));
    pairs
        .map(|(name, why)| (name.to_owned(), why.to_owned()))
        .collect()
}

fn collect_sample(folder: &Path, path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let hash = hex::encode(hash_sources(&one(&text)));
    std::fs::write(folder.join(format!("{ACCEPTED}.{hash}.toml")), text).unwrap();
}

/// Every policy file at or below a folder.
fn samples(folder: &Path, found: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            samples(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "toml") {
            found(&path);
        }
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("edgeward-policy-texts-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
