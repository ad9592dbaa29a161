//! The policy commands that need no cloud: what they say, what they say to a mistake, and the exit codes.

use std::path::Path;
use std::process::Command;

use edgeward_tests::process::output;
use edgeward_tests::{bin_dir, cloud::clean_environment};
use serde_json::Value;

const POLICY: &str = r#"
schema = "edgeward-policy/1"
owner  = "ot"
scope  = { site = ["suzhou"] }
[group.gateways]
match = { role = ["gateway"], site = ["suzhou"] }
[group.scada]
match = { role = ["scada"], site = ["suzhou"] }
[operator-group.vendor]
members = ["operator/li"]
[service.line3]
on = "gateways"
[service.line3.interface.admin]
net = "mesh"
l4 = "tcp/443"
l7 = { proto = "http", actions = { read = ["GET /status/**"], write = ["POST /config/**"] } }
[window.night]
tz = "Asia/Shanghai"
days = ["sat", "sun"]
from = "02:00"
to = "05:00"
[[rule]]
id = "scada-reads"
effect = "allow"
from = ["group:scada"]
to = ["line3/admin"]
do = ["read"]
[[rule]]
id = "vendor"
effect = "allow"
from = ["operator-group:vendor"]
to = ["line3/admin"]
do = ["write"]
when = { window = "night", until = 2199-01-31T00:00:00Z }
[[test]]
name = "scada may read"
from = { groups = ["scada"] }
to = "line3/admin"
do = "read"
expect = "allow"
[[invariant]]
name = "the vendor writes at night only"
never = { from = "operator-group:vendor", to = "line3/admin", do = "write", outside = "night" }
"#;

fn folder(text: &str) -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("line.toml"), text)?;
    Ok(folder)
}

/// Exit code, standard output, standard error.
fn policy(arguments: &[&str], dirs: &[&Path]) -> anyhow::Result<(Option<i32>, String, String)> {
    let mut command = Command::new(bin_dir()?.join("edgeward"));
    clean_environment(&mut command);
    let home = tempfile::tempdir()?;
    command
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path());
    let output = output(command.arg("policy").args(arguments).args(dirs))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    ))
}

const EXPLAIN: [&str; 7] = [
    "explain",
    "--from",
    "group:scada",
    "--to",
    "line3/admin",
    "--do",
    "read",
];
const SLICE: [&str; 5] = [
    "slice",
    "--node",
    "gw-3",
    "--labels",
    "site=suzhou,role=gateway",
];

#[test]
fn every_command_answers_from_files_alone_as_text_and_as_json() -> anyhow::Result<()> {
    let before = folder(POLICY)?;
    let after = folder(&POLICY.replace("do = [\"read\"]", "do = [\"read\", \"write\"]"))?;
    let (one, two) = (before.path(), after.path());
    let cases: [(&[&str], &[&Path], &[&str]); 4] = [
        (&["test"], &[one], &["scada may read", "pass", "line.toml:"]),
        (
            &["diff"],
            &[one, two],
            &["opens", "group:scada", "write", "scada-reads", "wider"],
        ),
        (
            &EXPLAIN,
            &[one],
            &["allow: allowed, by rule scada-reads", "MISS who", "state"],
        ),
        (
            &SLICE,
            &[one],
            &["line3/admin", "operator-group:vendor", "tcp/443"],
        ),
    ];
    for (arguments, dirs, expected) in cases {
        let (code, text, errors) = policy(arguments, dirs)?;
        assert_eq!(code, Some(0), "{arguments:?}: {text}{errors}");
        for part in expected {
            assert!(text.contains(part), "{arguments:?}: {part}: {text}");
        }
        let (code, text, errors) = policy(&[arguments, &["-o", "json"]].concat(), dirs)?;
        assert_eq!(code, Some(0), "{arguments:?}: {errors}");
        serde_json::from_str::<Value>(&text)?;
    }
    let (_, text, _) = policy(&["diff", "-o", "json"], &[one, two])?;
    let diff: Value = serde_json::from_str(&text)?;
    assert_eq!(diff["change"], "wider");
    assert_eq!(diff["regions"][0]["actions"][0], "write");
    Ok(())
}

#[test]
fn a_denial_is_an_answer_and_says_what_was_missed() -> anyhow::Result<()> {
    let dir = folder(POLICY)?;
    let arguments = [
        "explain",
        "--from",
        "operator/li",
        "--to",
        "line3/admin",
        "--l7",
        "POST /config/x",
        "--at",
        "2026-11-21T12:00:00Z",
        "--state",
        "stale",
    ];
    let (code, text, errors) = policy(&arguments, &[dir.path()])?;
    assert_eq!(code, Some(0), "{text}{errors}");
    for part in [
        "deny: state",
        "MISS state    stale; wanted trusted",
        "MISS window",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    Ok(())
}

#[test]
fn a_test_or_an_invariant_that_does_not_hold_fails_the_command_at_its_place() -> anyhow::Result<()>
{
    let wrong = folder(&POLICY.replace("expect = \"allow\"", "expect = \"deny\""))?;
    let (code, text, errors) = policy(&["test"], &[wrong.path()])?;
    assert_eq!(code, Some(1), "{text}{errors}");
    assert!(
        text.contains("fail") && text.contains("got allow"),
        "{text}"
    );
    let always = folder(&POLICY.replace("window = \"night\", ", ""))?;
    let (code, text, _) = policy(&["check"], &[always.path()])?;
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("invariant-violated") && text.contains("operator/li may write"),
        "{text}"
    );
    assert!(text.contains("line.toml:42:8"), "{text}");
    Ok(())
}

#[test]
fn every_command_names_a_typo_an_empty_directory_and_a_wrong_flag() -> anyhow::Result<()> {
    let good = folder(POLICY)?;
    let typo = folder(&POLICY.replace("[operator-group.vendor]", "[operator-group.vender]"))?;
    let empty = tempfile::tempdir()?;
    let diff_from: [&str; 1] = ["diff"];
    let commands: [&[&str]; 4] = [&["test"], &diff_from, &EXPLAIN, &SLICE];
    for arguments in commands {
        let dirs = |dir| match arguments[0] {
            "diff" => vec![good.path(), dir],
            _ => vec![dir],
        };
        let (code, text, errors) = policy(arguments, &dirs(typo.path()))?;
        assert_eq!(code, Some(1), "{arguments:?}: {text}{errors}");
        let all = format!("{text}{errors}");
        assert!(
            all.contains("line.toml:") && all.contains("did you mean"),
            "{arguments:?}: {all}"
        );
        let (code, text, errors) = policy(arguments, &dirs(empty.path()))?;
        assert_eq!(code, Some(1), "{arguments:?}: {text}{errors}");
        assert!(
            errors.contains("no policy files"),
            "{arguments:?}: {errors}"
        );
        let (code, _, errors) =
            policy(&[arguments, &["--frobnicate"]].concat(), &dirs(good.path()))?;
        assert_eq!(code, Some(2), "{arguments:?}: {errors}");
        let (code, text, _) = policy(&[arguments[0], "--help"], &[])?;
        assert_eq!(code, Some(0));
        assert!(text.contains("Examples:"), "{text}");
    }
    Ok(())
}

#[test]
fn a_question_that_makes_no_sense_says_what_would() -> anyhow::Result<()> {
    let dir = folder(POLICY)?;
    let cases: [(&[&str], i32, &str); 7] = [
        (&["diff"], 2, "--live DIR"),
        (
            &[
                "explain",
                "--from",
                "group:scda",
                "--to",
                "line3/admin",
                "--do",
                "read",
            ],
            1,
            "did you mean `scada`",
        ),
        (
            &[
                "explain",
                "--from",
                "scada",
                "--to",
                "line3/admin",
                "--do",
                "read",
            ],
            2,
            "group:NAME",
        ),
        (
            &[
                "explain",
                "--from",
                "group:scada",
                "--to",
                "line3",
                "--do",
                "read",
            ],
            2,
            "line3/modbus",
        ),
        (
            &[
                "explain",
                "--from",
                "group:scada",
                "--to",
                "line3/admin",
                "--do",
                "reed",
            ],
            1,
            "read",
        ),
        (
            &[
                "explain",
                "--from",
                "group:scada",
                "--to",
                "line3/admin",
                "--l7",
                "fc:3",
            ],
            1,
            "GET /status/3",
        ),
        (
            &["slice", "--node", "gw 3", "--labels", "site=suzhou"],
            2,
            "--node",
        ),
    ];
    for (arguments, expected, part) in cases {
        let (code, text, errors) = policy(arguments, &[dir.path()])?;
        assert_eq!(code, Some(expected), "{arguments:?}: {text}{errors}");
        assert!(errors.contains(part), "{arguments:?}: {errors}");
    }
    Ok(())
}
