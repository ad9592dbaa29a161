use super::*;

const RULES: &str = r#"
[[rule]]
id = "vendor-night"
effect = "allow"
from = ["operator-group:vendor"]
to = ["line3/admin"]
do = ["connect"]
when = { window = "night", until = 2027-01-31T00:00:00Z }
fresh = "2m"

[[rule]]
id = "never-when-stale"
effect = "deny"
from = ["any"]
to = ["line3/admin"]
do = ["connect"]
unless_state = "trusted"
"#;

#[test]
fn a_failing_test_refuses_the_policy_at_its_place_and_says_what_came_instead() {
    let text = with(
        "[[test]]\nname = §\"wrong\"\nfrom = { groups = [\"scada\"] }\nto = \"line3/modbus\"\ndo = \"connect\"\nexpect = \"deny\"\n",
    );
    let found = assert_refused(&text, Code::TestFailed);
    let help = found.help.unwrap();
    assert_eq!(help, "got allow, because allowed, by rule `scada-connects`");
    let report = check(&one(&text.replacen('§', "", 1)));
    assert_eq!((report.summary.tests, report.summary.tests_failed), (1, 1));
}

#[test]
fn a_test_that_expects_another_rule_or_reason_fails() {
    for (expect, key) in [
        ("allow", "by = \"vendor-night\""),
        ("deny", "because = \"tier\""),
    ] {
        let state = if expect == "allow" {
            "trusted"
        } else {
            "stale"
        };
        let text = with(&format!(
            "[[test]]\nname = §\"t\"\nfrom = {{ groups = [\"scada\"], state = \"{state}\" }}\nto = \"line3/modbus\"\ndo = \"connect\"\nexpect = \"{expect}\"\n{key}\n"
        ));
        assert_refused(&text, Code::TestFailed);
    }
}

#[test]
fn a_test_that_can_mean_nothing_is_refused() {
    for (from, rest, code) in [
        ("{ groups = [§\"nobody\"] }", "", Code::UnknownName),
        ("{ operator-groups = [§\"nobody\"] }", "", Code::UnknownName),
        (
            "{ groups = [\"scada\", §\"gateways\"] }",
            "",
            Code::TestInvalid,
        ),
        ("§{ state = \"trusted\" }", "", Code::BadValue),
        (
            "§{ groups = [\"scada\"], operator-groups = [\"vendor\"] }",
            "",
            Code::BadValue,
        ),
        (
            "{ groups = [\"scada\"] }",
            "by = §\"scada-reads\"\n",
            Code::UnknownName,
        ),
        (
            "{ groups = [\"scada\"] }",
            "because = §\"mood\"\n",
            Code::BadValue,
        ),
        (
            "{ groups = [\"scada\"], state = §\"fine\" }",
            "",
            Code::BadValue,
        ),
        (
            "{ groups = [\"scada\"] }",
            "at = §\"noon\"\n",
            Code::WrongType,
        ),
    ] {
        let text = with(&format!(
            "[[test]]\nname = \"t\"\nfrom = {from}\nto = \"line3/modbus\"\ndo = \"connect\"\nexpect = \"allow\"\n{rest}"
        ));
        assert_refused(&text, code);
    }
    for (to, action, code) in [
        ("§\"line3/modbuss\"", "\"connect\"", Code::UnknownName),
        ("§\"any\"", "\"connect\"", Code::BadValue),
        ("\"line3/modbus\"", "§\"read\"", Code::UnknownAction),
    ] {
        let text = with(&format!(
            "[[test]]\nname = \"t\"\nfrom = {{ groups = [\"scada\"] }}\nto = {to}\ndo = {action}\nexpect = \"allow\"\n"
        ));
        assert_refused(&text, code);
    }
}

#[test]
fn tests_see_state_tier_age_window_and_end_with_their_reasons() {
    let cases = [
        (
            "groups = [\"scada\"]",
            "line3/modbus",
            "allow",
            "by = \"scada-connects\"",
        ),
        (
            "groups = [\"scada\"], state = \"stale\"",
            "line3/modbus",
            "deny",
            "because = \"state\"",
        ),
        (
            "groups = [\"scada\"], tier = \"software\"",
            "line3/modbus",
            "deny",
            "because = \"tier\"",
        ),
        (
            "groups = [\"scada\"], age = \"10m\"",
            "line3/modbus",
            "deny",
            "because = \"age\"",
        ),
        (
            "groups = [\"scada\"], age = \"599s\"",
            "line3/modbus",
            "allow",
            "because = \"allowed\"",
        ),
        (
            "groups = [\"gateways\"], state = \"stale\"",
            "line3/admin",
            "deny",
            "because = \"state\"\nby = \"never-when-stale\"",
        ),
        (
            "groups = [\"gateways\"]",
            "line3/modbus",
            "deny",
            "because = \"no-rule\"",
        ),
        (
            "operator-groups = [\"vendor\"]",
            "line3/admin",
            "allow",
            "at = 2026-11-20T18:00:00Z",
        ),
        (
            "operator-groups = [\"vendor\"], age = \"2m\"",
            "line3/admin",
            "deny",
            "at = 2026-11-20T18:00:00Z\nbecause = \"age\"",
        ),
        (
            "operator-groups = [\"vendor\"]",
            "line3/admin",
            "deny",
            "at = 2026-11-20T21:00:00Z\nbecause = \"window\"",
        ),
        (
            "operator-groups = [\"vendor\"]",
            "line3/admin",
            "deny",
            "at = 2027-01-31T00:00:00Z\nbecause = \"window\"",
        ),
        (
            "operator-groups = [\"vendor\"]",
            "line3/admin",
            "deny",
            "at = 2027-02-06T18:00:00Z\nbecause = \"until\"",
        ),
        // Without a time a window cannot be evaluated, which fails an allow.
        (
            "operator-groups = [\"vendor\"]",
            "line3/admin",
            "deny",
            "because = \"window\"",
        ),
        (
            "operator-groups = [\"vendor\"]",
            "line3/modbus",
            "deny",
            "because = \"no-rule\"",
        ),
    ];
    let mut text = with("");
    for (index, (from, to, expect, rest)) in cases.iter().enumerate() {
        text.push_str(&format!("\n[[test]]\nname = \"case {index}\"\nfrom = {{ {from} }}\nto = \"{to}\"\ndo = \"connect\"\nexpect = \"{expect}\"\n{rest}\n"));
    }
    let policy = assert_accepted(&text);
    assert_eq!(policy.report().summary.tests, cases.len());
}

#[test]
fn a_test_measures_by_its_groups_profiles_unless_it_says_otherwise() {
    let rules = "
[profile.other]
tier = [\"hardware\"]
secure_boot = true
[[rule]]
id = \"measured\"
effect = \"allow\"
from = [\"group:scada\"]
to = [\"line3/admin\"]
do = [\"connect\"]
profile = [\"gateway\"]
";
    let ask = |from: &str, expect: &str| {
        format!(
            "{BASE}{rules}\n[[test]]\nname = \"t\"\nfrom = {{ groups = [\"scada\"]{from} }}\nto = \"line3/admin\"\ndo = \"connect\"\n{expect}\n"
        )
    };
    assert_accepted(&ask("", "expect = \"allow\""));
    assert_accepted(&ask(
        ", profile = [\"other\", \"gateway\"]",
        "expect = \"allow\"",
    ));
    let denied = "expect = \"deny\"\nbecause = \"profile\"";
    assert_accepted(&ask(", profile = [\"other\"]", denied));
    assert_refused(&ask(", profile = [§\"gatewy\"]", denied), Code::UnknownName);
}

#[test]
fn a_subject_is_in_every_group_that_its_groups_lie_within() {
    let text = with(
        "
[group.hall]
match = { role = [\"scada\"], site = [\"suzhou\"], hall = [\"1\"] }
[[test]]
name = \"the hall's stations are stations\"
from = { groups = [\"hall\"] }
to = \"line3/modbus\"
do = \"connect\"
expect = \"allow\"
",
    );
    assert_accepted(&text);
}

fn with(tests: &str) -> String {
    format!("{BASE}{RULES}\n{tests}")
}
