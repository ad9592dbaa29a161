use super::*;
use crate::check::check;
use crate::compile::CompiledPolicy;
use crate::diagnostic::Diagnostic;
use crate::fleet::Labels;
use crate::profile::Violations;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn policy(ima: &str) -> SourceFile {
    let text = format!(
        "schema = \"edgeward-policy/1\"\nowner = \"ot\"\nscope = {{ site = [\"suzhou\"] }}\n\
         [profile.gateway]\ntier = [\"hardware\"]\n{ima}\n\
         [group.gateways]\nmatch = {{ site = [\"suzhou\"] }}\nprofile = \"gateway\"\n"
    );
    SourceFile::new("site/a.toml", text)
}

fn list(path: &str, text: &str) -> SourceFile {
    SourceFile::new(path, text)
}

/// The one error of these files.
#[track_caller]
fn refused(files: &[SourceFile]) -> Diagnostic {
    let report = check(files);
    assert_eq!(report.diagnostics.len(), 1, "one error expected:\n{report}");
    report.diagnostics[0].clone()
}

#[test]
fn lines_that_are_no_digest_are_refused_where_they_break() {
    let short = "a".repeat(63);
    let long_path = "x".repeat(MAX_FILE_PATH_BYTES + 1);
    for (line, column, told) in [
        (A.to_owned(), 1, "algorithm:hex"),
        (format!("sha1:{A}"), 1, "sha256"),
        (format!("sha25:{A}"), 1, "did you mean `sha256`?"),
        (format!("md5:{A}"), 1, "accepted: sha256"),
        (format!("unknown:{A}"), 1, "accepted: sha256"),
        (format!(" sha256:{A}"), 1, "algorithm:hex"),
        (format!("sha256: {A}"), 8, "64 hex digits"),
        (format!("sha256:{short}"), 8, "64 hex digits"),
        (format!("sha256:{short}é"), 8, "64 hex digits"),
        (format!("sha384:{A}"), 8, "96 hex digits"),
        (format!("sha512:{A}"), 8, "128 hex digits"),
        (format!("sha256:{A} "), 73, "one space"),
        (format!("sha256:{A}  /bin/sh"), 73, "one space"),
        (format!("sha256:{A} /bin/sh "), 73, "one space"),
        (
            format!("sha256:{A} /bin/\u{7}sh"),
            73,
            "no control characters",
        ),
        (format!("sha256:{A} {long_path}"), 73, "at most 4096 bytes"),
    ] {
        let text = format!("# header\nsha256:{A}\n{line}\n");
        let files = [
            policy("ima = { allow = \"x.allow\" }"),
            list("site/x.allow", &text),
        ];
        let found = refused(&files);
        assert_eq!(
            (found.file.as_str(), found.line, found.column, found.code),
            ("site/x.allow", 3, column, Code::BadValue),
            "{line:?}: {found}"
        );
        let help = found.help.unwrap_or_default();
        assert!(help.contains(told), "{line:?}: {help}");
    }
}

#[test]
fn a_list_that_holds_nothing_or_too_much_is_refused() {
    for empty in ["", "\n\n", "# nothing\n  # at all\n"] {
        let files = [
            policy("ima = { allow = \"x.allow\" }"),
            list("x.allow", empty),
        ];
        assert_eq!(refused(&files).code, Code::ChecksNothing);
    }
    let large = "#".repeat(MAX_LIST_FILE_BYTES + 1);
    let files = [
        policy("ima = { allow = \"x.allow\" }"),
        list("x.allow", &large),
    ];
    assert_eq!(refused(&files).code, Code::TooMuch);

    let line = format!("sha256:{A}\n");
    let filler = format!("{line}{}", "#".repeat(MAX_LIST_FILE_BYTES - line.len()));
    let names = ["a.deny", "b.deny", "c.deny"];
    let mut files: Vec<SourceFile> = names.map(|name| list(name, &filler)).into();
    files.push(policy("ima = { allow = \"a.deny\", deny = \"b.deny\" }"));
    let codes: Vec<Code> = check(&files)
        .diagnostics
        .iter()
        .map(|found| found.code)
        .collect();
    assert_eq!(codes, [Code::TooMuch, Code::Unused]);
}

#[test]
fn a_list_outside_the_policy_s_directory_is_refused() {
    for path in [
        "../x.allow",
        "/etc/x.allow",
        "./x.allow",
        "ima/../x.allow",
        "ima//x.allow",
        "",
        "ima/\\u0000.allow",
    ] {
        let files = [policy(&format!("ima = {{ allow = \"{path}\" }}"))];
        let found = refused(&files);
        assert_eq!(
            (found.code, found.line, found.column),
            (Code::BadValue, 6, 17),
            "{found}"
        );
    }
    for path in ["../x.allow", "/x.allow", "a/./x.deny"] {
        let files = [
            policy("pcr = {}\nsecure_boot = true"),
            list(path, &format!("sha256:{A}")),
        ];
        assert_eq!(refused(&files).code, Code::BadValue, "{path}");
    }
}

#[test]
fn missing_lists_unused_lists_and_other_files_are_refused() {
    let text = format!("sha256:{A}\n");
    let missing = refused(&[
        policy("ima = { allow = \"gateway.allw\", deny = \"gateway.allow\" }"),
        list("gateway.allow", &text),
    ]);
    assert_eq!(missing.code, Code::UnknownName);
    assert!(missing.help.unwrap().contains(".allow or .deny"));
    let missing = refused(&[
        policy("ima = { allow = \"gatway.allow\", deny = \"gateway.allow\" }"),
        list("gateway.allow", &text),
    ]);
    assert!(
        missing
            .help
            .unwrap()
            .contains("did you mean `gateway.allow`?")
    );

    let unused = refused(&[policy("secure_boot = true"), list("old.deny", &text)]);
    assert_eq!(
        (unused.code, unused.file.as_str()),
        (Code::Unused, "old.deny")
    );
    let other = refused(&[policy("secure_boot = true"), list("README.md", "hello")]);
    assert_eq!(other.code, Code::BadValue);
    let alone = check(&[list("old.deny", &text)]).diagnostics;
    assert!(alone.iter().any(|found| found.code == Code::ChecksNothing));
}

#[test]
fn what_ima_says_is_refused_where_it_does_not_fit() {
    let files = |ima: &str| [policy(ima), list("x.allow", &format!("sha256:{A}\n"))];
    for (ima, code) in [
        ("ima = {}", Code::MissingKey),
        ("ima = { deny = \"x.allow\" }", Code::MissingKey),
        ("ima = \"x.allow\"", Code::WrongType),
        ("ima = { allow = [\"x.allow\"] }", Code::WrongType),
        (
            "ima = { allow = \"x.allow\", violations = \"warn\" }",
            Code::BadValue,
        ),
        (
            "ima = { allow = \"x.allow\", violation = \"fail\" }",
            Code::UnknownKey,
        ),
    ] {
        let report = check(&files(ima));
        assert_eq!(report.diagnostics[0].code, code, "{ima}: {report}");
    }
}

#[test]
fn a_list_is_found_beside_its_file_first_and_its_comments_mean_nothing() {
    let b = A.replace('a', "B");
    let near = format!("# recorded\nsha256:{A} /usr/bin/my app\nsha256:{b}\n\n");
    let far = format!("sha256:{b}\n");
    let ima = "ima = { allow = \"x.allow\", deny = \"ima/x.deny\", violations = \"ignore\" }";
    let files = [
        policy(ima),
        list("site/x.allow", &near),
        list("ima/x.deny", &far),
    ];
    let policy = CompiledPolicy::compile(&files, 1).unwrap();
    let labels: Labels = [("site".to_owned(), "suzhou".to_owned())].into();
    let profile = policy.profiles_for(&labels)[0];
    let ima = profile.ima.as_ref().unwrap();
    let entries = ima.allow.entries().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].path.as_deref(), Some("/usr/bin/my app"));
    assert_eq!(
        entries[1].to_string(),
        format!("sha256:{}", b.to_lowercase())
    );
    assert_eq!(ima.deny.entries().unwrap().len(), 1);
    assert_eq!(ima.violations, Violations::Ignore);
    assert_eq!(
        (policy.report().summary.files, policy.report().summary.lists),
        (1, 2)
    );
    let openings: Vec<String> = policy
        .report()
        .openings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        openings,
        ["site/a.toml:6:62: opening: gateway: ignores violations in the IMA list"]
    );
}

#[test]
fn every_byte_of_a_list_counts_in_the_policy_s_hash_and_only_its_digests_in_the_profile_s() {
    let compile = |text: &str| {
        let files = [
            policy("ima = { allow = \"x.allow\" }"),
            list("x.allow", text),
        ];
        let policy = CompiledPolicy::compile(&files, 1).unwrap();
        let labels: Labels = [("site".to_owned(), "suzhou".to_owned())].into();
        (policy.hash(), policy.profiles_for(&labels)[0].hash())
    };
    let plain = compile(&format!("sha256:{A}\n"));
    let commented = compile(&format!("sha256:{A}\n# why\n"));
    let other = compile(&format!("sha256:{A} /x\n"));
    assert_ne!(plain.0, commented.0);
    assert_eq!(plain.1, commented.1);
    assert_ne!(plain.1, other.1);
}
