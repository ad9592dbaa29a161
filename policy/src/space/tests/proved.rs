//! Invariants over the whole space.

use crate::check::check;
use crate::diagnostic::{Code, Diagnostic};
use crate::source::SourceFile;

const BASE: &str = r#"
schema = "edgeward-policy/1"
owner = "ot"
scope = { site = ["suzhou"] }

[profile.gateway]
tier = ["listed"]
pcr = { 7 = ["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] }

[group.gateways]
match = { role = ["gateway"], site = ["suzhou"] }
profile = "gateway"
[group.scada]
match = { role = ["scada"], site = ["suzhou"] }
profile = "gateway"
[group.everything]
match = { site = ["suzhou"] }
[operator-group.vendor]
members = ["operator/li"]

[service.line3]
on = "gateways"
[service.line3.interface.admin]
net = "mesh"
l4 = "tcp/443"
l7 = { proto = "http", actions = { read = ["GET /**"], write = ["POST /**"] } }

[window.night]
tz = "Asia/Shanghai"
days = ["sat", "sun"]
from = "02:00"
to = "05:00"
[window.early]
tz = "Asia/Shanghai"
days = ["sun"]
from = "03:00"
to = "04:00"
"#;

fn found(rules: &str, never: &str) -> Option<Diagnostic> {
    let publishers = crate::testing::publishers_on("gateways");
    let text = format!(
        "{BASE}{rules}\n[[invariant]]\nname = \"kept\"\nnever = {{ {never} }}\n{publishers}"
    );
    let report = check(&[SourceFile::new("p.toml", &text)]);
    assert!(report.diagnostics.len() <= 1, "{report}");
    report.diagnostics.into_iter().next()
}

fn rule(from: &str, actions: &str, rest: &str) -> String {
    format!(
        "[[rule]]\nid = \"one\"\neffect = \"allow\"\nfrom = [\"{from}\"]\nto = [\"line3/admin\"]\ndo = {actions}\n{rest}\n"
    )
}

#[test]
fn what_is_allowed_only_in_the_window_keeps_the_invariant() {
    let never = "from = \"operator-group:vendor\", to = \"line3/admin\", do = \"write\", outside = \"night\"";
    for when in ["night", "early"] {
        let rules = rule(
            "operator-group:vendor",
            "[\"read\", \"write\"]",
            &format!("when = {{ window = \"{when}\" }}"),
        );
        assert_eq!(found(&rules, never), None, "{when}");
    }
    // Reading outside the window is none of it.
    let rules = rule("operator-group:vendor", "[\"read\"]", "");
    assert_eq!(found(&rules, never), None);
}

#[test]
fn a_rule_outside_the_window_is_found_with_a_counterexample_at_the_place_of_the_invariant() {
    let rules = rule("operator-group:vendor", "[\"read\", \"write\"]", "");
    let never = "from = \"operator-group:vendor\", to = \"line3/admin\", do = \"write\", outside = \"night\"";
    let found = found(&rules, never).unwrap();
    assert_eq!(found.code, Code::InvariantViolated);
    assert_eq!((found.line, found.column), (47, 8));
    assert_eq!(
        found.message,
        "invariant `kept` does not hold: operator/li may write line3/admin"
    );
    // 2026-01-01T00:00:00Z was a Thursday.
    assert_eq!(
        found.help.unwrap(),
        "state trusted, tier hardware, at 2026-01-01T00:00:00Z; allowed by rule `one`"
    );
}

#[test]
fn who_may_be_in_both_groups_is_found_though_no_rule_names_the_invariants_group() {
    let rules = rule("group:everything", "[\"write\"]", "");
    let scada = found(
        &rules,
        "from = \"group:scada\", to = \"any\", do = \"write\"",
    )
    .unwrap();
    assert_eq!(
        scada.message,
        "invariant `kept` does not hold: a node with labels role=scada, site=suzhou may write line3/admin"
    );
    // Gateways are never scada: the rule about them leaves the invariant alone.
    let rules = rule("group:gateways", "[\"write\"]", "");
    assert_eq!(
        found(
            &rules,
            "from = \"group:scada\", to = \"any\", do = \"write\""
        ),
        None
    );
}

#[test]
fn a_deny_that_wins_keeps_the_invariant_and_one_with_a_gap_does_not() {
    let deny = |rest: &str| {
        format!(
            "{}[[rule]]\nid = \"two\"\neffect = \"deny\"\nfrom = [\"any\"]\nto = [\"line3/admin\"]\ndo = [\"write\"]\n{rest}\n",
            rule(
                "group:scada",
                "[\"write\"]",
                "state = [\"trusted\", \"stale\"]"
            )
        )
    };
    let never = "from = \"group:scada\", to = \"line3/admin\", do = \"write\"";
    assert_eq!(
        found(
            &deny("unless_state = \"trusted\""),
            &format!("{never}, state = \"stale\"")
        ),
        None
    );
    let gap = found(&deny("unless_state = \"trusted\""), never).unwrap();
    assert!(
        gap.help.unwrap().starts_with("state trusted"),
        "the gap is where it is trusted"
    );
    let gap = found(
        &deny("unless_state = [\"trusted\", \"stale\"]"),
        &format!("{never}, state = \"stale\""),
    )
    .unwrap();
    assert!(gap.help.unwrap().starts_with("state stale"));
}

#[test]
fn who_is_allowed_for_what_it_runs_is_found_and_what_no_version_lets_in_is_not() {
    let never = "from = \"group:scada\", to = \"line3/admin\", do = \"write\"";
    let wanting = |runs: &str| {
        rule(
            "group:scada",
            "[\"read\", \"write\"]",
            &format!("runs = [{runs}]"),
        )
    };
    let found_one = found(&wanting("\"acme/collector>=2.3\""), never).unwrap();
    assert_eq!(found_one.code, Code::InvariantViolated);
    let text = found_one.to_string();
    assert!(text.contains("runs acme/collector>=2.3"), "{text}");
    let denied = |runs: &str| {
        format!(
            "[[rule]]\nid = \"no\"\neffect = \"deny\"\nfrom = [\"group:scada\"]\nto = [\"line3/admin\"]\ndo = [\"write\"]\nruns = [\"{runs}\"]\n"
        )
    };
    // Whoever runs 2.3 runs some version; whoever runs some may run one below 2.4.
    let rules = wanting("\"acme/collector>=2.3\"") + denied("acme/collector").as_str();
    assert_eq!(found(&rules, never), None);
    let rules = wanting("\"acme/collector>=2.3\"") + denied("acme/collector>=2.4").as_str();
    let text = found(&rules, never).unwrap().to_string();
    assert!(
        text.contains("runs acme/collector>=2.3 below 2.4"),
        "{text}"
    );
    // Nothing that is unknown lets anybody in.
    let rules =
        rule("group:scada", "[\"read\", \"write\"]", "") + denied("acme/collector").as_str();
    let text = found(&rules, never).unwrap().to_string();
    assert!(text.contains("does not run acme/collector"), "{text}");
}
