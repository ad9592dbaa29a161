//! Approvals and break-glass in the files: what is refused, and what tests see of them.

use super::*;

const RULE: &str = "[[rule]]\nid = \"vendor\"\neffect = \"allow\"\nfrom = [\"operator-group:vendor\"]\nto = [\"line3/admin\"]\ndo = [\"connect\"]\n";
const TWO: &str = "[operator-group.oncall]\nmembers = [\"operator/wu\", \"operator/yi\"]\n";
const GLASS: &str =
    "grants = [\"vendor\"]\nby = [\"operator-group:oncall\"]\nquorum = 2\nttl = \"1h\"\n";

fn with(rest: &str) -> String {
    format!("{BASE}{TWO}{RULE}{rest}\n")
}

fn approval(inner: &str) -> String {
    with(&format!("approval = {{ {inner} }}"))
}

fn glass(text: &str) -> String {
    format!("{}[break-glass.line3]\n{text}", with(""))
}

#[test]
fn an_approval_that_nobody_could_give_or_that_holds_too_long_is_refused() {
    let by = "by = [\"operator-group:oncall\"]";
    for (inner, code) in [
        (format!("{by}, quorum = §3, ttl = \"2h\""), Code::MatchesNobody),
        (format!("{by}, quorum = §0, ttl = \"2h\""), Code::BadValue),
        (format!("{by}, quorum = §-1, ttl = \"2h\""), Code::BadValue),
        (format!("{by}, quorum = §70000, ttl = \"2h\""), Code::BadValue),
        (format!("{by}, quorum = §\"1\", ttl = \"2h\""), Code::WrongType),
        (format!("{by}, quorum = 1, ttl = §\"8d\""), Code::BadValue),
        (format!("{by}, quorum = 1, ttl = §\"0s\""), Code::BadValue),
        (format!("{by}, quorum = 1, ttl = §\"soon\""), Code::BadValue),
        ("by = [§\"operator-group:oncal\"], quorum = 1, ttl = \"2h\"".to_owned(), Code::UnknownName),
        ("by = [§\"group:scada\"], quorum = 1, ttl = \"2h\"".to_owned(), Code::BadValue),
        ("by = [§\"any\"], quorum = 1, ttl = \"2h\"".to_owned(), Code::BadValue),
        ("by = §[], quorum = 1, ttl = \"2h\"".to_owned(), Code::BadValue),
        (
            "by = [\"operator-group:oncall\", §\"operator-group:oncall\"], quorum = 1, ttl = \"2h\"".to_owned(),
            Code::BadValue,
        ),
        (format!("{by}, quorum = 1, ttl = \"2h\", §who = 1"), Code::UnknownKey),
    ] {
        assert_refused(&approval(&inner), code);
    }
    for inner in [
        "quorum = 1, ttl = \"2h\"",
        "by = [\"operator-group:oncall\"], ttl = \"2h\"",
    ] {
        let report = check(&one(&approval(inner)));
        assert_eq!(report.diagnostics.len(), 1, "{report}");
        assert_eq!(report.diagnostics[0].code, Code::MissingKey);
    }
}

#[test]
fn a_deny_is_neither_approved_nor_opened() {
    let deny = format!(
        "{BASE}{TWO}[[rule]]\nid = \"never\"\neffect = \"deny\"\nfrom = [\"any\"]\nto = [\"line3/admin\"]\ndo = [\"connect\"]\n"
    );
    assert_refused(
        &format!(
            "{deny}approval = §{{ by = [\"operator-group:oncall\"], quorum = 1, ttl = \"2h\" }}\n"
        ),
        Code::MisplacedCondition,
    );
    let granted = GLASS.replace("\"vendor\"", "§\"never\"");
    assert_refused(&format!("{deny}[break-glass.x]\n{granted}"), Code::BadValue);
}

#[test]
fn break_glass_that_nobody_could_open_or_that_opens_nothing_is_refused() {
    for (text, code) in [
        (
            GLASS.replace("quorum = 2", "quorum = §3"),
            Code::MatchesNobody,
        ),
        (GLASS.replace("\"1h\"", "§\"73h\""), Code::BadValue),
        (GLASS.replace("[\"vendor\"]", "§[]"), Code::BadValue),
        (GLASS.replace("\"vendor\"", "§\"vendr\""), Code::UnknownName),
        (
            GLASS.replace("\"vendor\"", "\"vendor\", §\"vendor\""),
            Code::BadValue,
        ),
        (
            GLASS
                .replace("operator-group:oncall", "operator-group:nobody")
                .replace("[\"operator-group:nobody", "[§\"operator-group:nobody"),
            Code::UnknownName,
        ),
        (format!("{GLASS}§reason = 1\n"), Code::UnknownKey),
    ] {
        assert_refused(&glass(&text), code);
    }
    let again = format!("{}[break-glass.line3]\n{GLASS}", glass(GLASS));
    assert_eq!(check(&one(&again)).diagnostics[0].code, Code::Syntax);
}

#[test]
fn a_file_opens_only_what_lies_in_its_own_scope() {
    let other = |scope: &str| {
        format!(
            "schema = \"edgeward-policy/1\"\nowner = \"ot-wuxi\"\nscope = {scope}\n[break-glass.theirs]\n{GLASS}"
        )
    };
    let check_with = |scope: &str| {
        check(&[
            SourceFile::new("site/a.toml", with("")),
            SourceFile::new("wuxi/b.toml", other(scope)),
        ])
    };
    let refused = check_with("{ site = [\"wuxi\"] }");
    assert_eq!(refused.diagnostics.len(), 1, "{refused}");
    assert_eq!(refused.diagnostics[0].code, Code::OutsideScope);
    assert_eq!(refused.diagnostics[0].file, "wuxi/b.toml");
    assert!(check_with("{ site = [\"suzhou\", \"wuxi\"] }").is_ok());
}

#[test]
fn break_glass_is_listed_among_the_openings() {
    let report = check(&one(&glass(GLASS)));
    assert!(report.is_ok(), "{report}");
    let listed: Vec<_> = report.openings.iter().map(ToString::to_string).collect();
    let line = listed.iter().find(|line| line.contains("break-glass"));
    assert!(
        line.is_some_and(|line| line.contains("line3")),
        "{listed:?}"
    );
}

#[test]
fn a_test_says_whether_its_subject_is_approved() {
    let asked = approval("by = [\"operator-group:oncall\"], quorum = 1, ttl = \"2h\"");
    let test = |rest: &str| {
        format!(
            "{asked}[[test]]\nname = \"t\"\nfrom = {{ operator-groups = [\"vendor\"] }}\nto = \"line3/admin\"\ndo = \"connect\"\n{rest}\n"
        )
    };
    for good in [
        "expect = \"deny\"\nbecause = \"approval\"",
        "expect = \"deny\"\nbecause = \"approval\"\napproved = false",
        "expect = \"allow\"\nby = \"vendor\"\napproved = true",
    ] {
        let report = check(&one(&test(good)));
        assert!(report.is_ok(), "{good}: {report}");
    }
    let bad = check(&one(&test("expect = \"allow\"")));
    assert_eq!(bad.diagnostics[0].code, Code::TestFailed);
    assert_refused(
        &test("expect = \"allow\"\napproved = §\"yes\""),
        Code::WrongType,
    );
}

#[test]
fn a_rule_that_needs_an_approval_does_not_shadow_one_that_needs_none() {
    let asked = approval("by = [\"operator-group:oncall\"], quorum = 1, ttl = \"2h\"");
    let plain = RULE.replace("\"vendor\"\neffect", "\"vendor-at-night\"\neffect");
    let night = format!("{asked}{plain}when = {{ window = \"night\" }}\n");
    assert!(check(&one(&night)).is_ok(), "{}", check(&one(&night)));
    let shadowed = format!(
        "{}{plain}approval = {{ by = [\"operator-group:oncall\"], quorum = 1, ttl = \"2h\" }}\n",
        with("")
    );
    let report = check(&one(&shadowed));
    assert_eq!(report.diagnostics[0].code, Code::Shadowed);
}

#[test]
fn the_digest_of_a_rule_changes_with_its_words_and_not_with_their_order() {
    let digest = |text: &str| {
        let policy = CompiledPolicy::compile(&one(text), 1).unwrap();
        policy.approval_terms("vendor").unwrap().digest
    };
    let inner = "by = [\"operator-group:oncall\"], quorum = 1, ttl = \"2h\"";
    let base = digest(&approval(inner));
    assert_eq!(
        digest(&approval(
            "ttl = \"2h\", quorum = 1, by = [\"operator-group:oncall\"]"
        )),
        base
    );
    for other in [
        approval(inner).replace("quorum = 1", "quorum = 2"),
        approval(inner).replace("\"2h\"", "\"3h\""),
        approval(inner).replace(
            "to = [\"line3/admin\"]",
            "to = [\"line3/admin\", \"line3/modbus\"]",
        ),
        format!("{}fresh = \"2m\"\n", approval(inner)),
        format!("{}when = {{ window = \"night\" }}\n", approval(inner)),
    ] {
        assert_ne!(digest(&other), base, "{other}");
    }
}
