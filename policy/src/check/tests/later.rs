//! What the format has and nothing enforces yet: a mistake in it has an error of its own, and what is right is refused
//! for that alone.

use super::*;

const PUBLISHER: &str =
    "[publisher.§acme]\nkeys = [\"ed25519:KEY\", \"ecdsa-p256:04POINT\"]\nthreshold = 2";
const APPS: &str = "[apps.§gateways]\nallow = [{ publisher = \"acme\", name = \"collector\", min_version = \"2.3.0\" }]\ndeny = [{ digest = \"sha256:KEY\" }]\nmode = \"enforce\"";

#[test]
fn what_nothing_enforces_is_refused_for_that_alone() {
    let cases = [
        base_with(
            "tier = [\"hardware\"",
            "apps_pcr = §14\ntier = [\"hardware\"",
        ),
        base_with(
            "[\"operator/li\"]",
            "[\"operator/li\", §\"claim:groups=acme-service\"]",
        ),
        after(PUBLISHER),
        after(&PUBLISHER.replace("threshold = 2", "threshold = 1")),
    ];
    for case in cases {
        let found = assert_refused(&case, Code::NotEnforced);
        assert!(
            found.message.contains("not enforced by this version"),
            "{found}"
        );
    }
    // Apps need their publisher, which is refused as well.
    let both = after(&format!("{APPS}\n{PUBLISHER}"));
    let report = check(&one(&both.replace('§', "")));
    let codes: Vec<_> = report.diagnostics.iter().map(|found| found.code).collect();
    assert_eq!(codes, [Code::NotEnforced; 2]);
}

#[test]
fn a_mistake_in_a_profile_or_a_group_that_nothing_enforces_is_its_own_error() {
    for pcr in ["16", "23", "24", "-1"] {
        let text = base_with(
            "tier = [\"hardware\"",
            &format!("apps_pcr = §{pcr}\ntier = [\"hardware\""),
        );
        assert_refused_among(&text, Code::BadValue);
    }
    let also_fixed = base_with(
        "tier = [\"hardware\"",
        "apps_pcr = §7\ntier = [\"hardware\"",
    );
    assert_refused_among(&also_fixed, Code::BadValue);
    let text = base_with(
        "tier = [\"hardware\"",
        "apps_pcr = §\"14\"\ntier = [\"hardware\"",
    );
    assert_refused_among(&text, Code::WrongType);
    for claim in ["claim:groups", "claim:=x", "claim:groups=", "claim: =x"] {
        let text = base_with(
            "[\"operator/li\"]",
            &format!("[\"operator/li\", §\"{claim}\"]"),
        );
        assert_refused_among(&text, Code::BadValue);
    }
}

#[test]
fn a_mistake_in_a_publisher_or_its_apps_is_its_own_error() {
    for (old, new, code) in [
        ("\"ed25519:KEY\"", "§\"ed25519:KEYab\"", Code::BadValue),
        ("\"ed25519:KEY\"", "§\"rsa:KEY\"", Code::BadValue),
        (
            "\"ecdsa-p256:04POINT\"",
            "§\"ecdsa-p256:02POINT\"",
            Code::BadValue,
        ),
        ("\"ecdsa-p256:04POINT\"", "§\"ed25519:KEY\"", Code::BadValue),
        ("threshold = 2", "threshold = §0", Code::BadValue),
        ("threshold = 2", "threshold = §3", Code::BadValue),
        ("threshold = 2", "threshold = §\"2\"", Code::WrongType),
        (
            "threshold = 2",
            "§treshold = 2\nthreshold = 2",
            Code::UnknownKey,
        ),
    ] {
        let text = PUBLISHER.replace('§', "").replacen(old, new, 1);
        assert_refused_among(&after(&text), code);
    }
    for (old, new, code) in [
        ("[apps.gateways]", "[apps.§gateway]", Code::UnknownName),
        ("\"acme\"", "§\"acne\"", Code::UnknownName),
        ("\"2.3.0\"", "§\"2.3.x\"", Code::BadValue),
        ("\"collector\"", "§\"a/b\"", Code::BadValue),
        ("\"sha256:KEY\"", "§\"sha256:ab\"", Code::BadValue),
        ("\"enforce\"", "§\"watch\"", Code::BadValue),
        ("{ publisher = \"acme\", name", "§{ name", Code::BadValue),
        ("{ digest", "{ §digests = \"\", digest", Code::UnknownKey),
        ("[{ digest = \"sha256:KEY\" }]", "§{}", Code::WrongType),
    ] {
        let text = APPS.replace('§', "").replacen(old, new, 1);
        let text = format!("{text}\n{}", PUBLISHER.replace('§', ""));
        assert_refused_among(&after(&text), code);
    }
}

#[test]
fn what_nothing_enforces_yet_keeps_to_the_scope_of_its_file_too() {
    let wide = "schema = \"edgeward-policy/1\"\nowner = \"plant\"\nscope = \"any\"\n[group.everywhere]\nmatch = { role = [\"gateway\"] }\n";
    for text in [
        "[route.r]\non = \"everywhere\"\nnet = \"lan0\"\nprefix = \"192.168.1.0/24\"",
        "[role]\nexit = [\"everywhere\"]",
        "[role]\nrelay = [\"everywhere\"]",
        "[apps.everywhere]\nallow = []",
    ] {
        let text = format!(
            "schema = \"edgeward-policy/1\"\nowner = \"line\"\nscope = {{ site = [\"suzhou\"] }}\n{text}\n"
        );
        let report = check(&[
            SourceFile::new("a.toml", wide),
            SourceFile::new("b.toml", text),
        ]);
        let codes: Vec<_> = report.diagnostics.iter().map(|found| found.code).collect();
        assert_eq!(codes, [Code::OutsideScope], "{report}");
    }
}

/// At its mark this error stands; what follows from it may stand elsewhere.
#[track_caller]
pub(super) fn assert_refused_among(marked: &str, code: Code) {
    let (before, _) = marked.split_once('§').expect("the case marks its place");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    let report = check(&one(&marked.replacen('§', "", 1)));
    let stands = report
        .diagnostics
        .iter()
        .any(|found| (found.code, found.line, found.column) == (code, line, column));
    assert!(stands, "{code} at {line}:{column} expected:\n{report}");
}

pub(super) fn after(text: &str) -> String {
    let text = text
        .replace("KEY", &"ab".repeat(32))
        .replace("POINT", &"cd".repeat(64));
    format!("{BASE}\n{text}\n")
}
