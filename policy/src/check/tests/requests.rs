use super::*;

/// The base with actions on its interfaces, and rules for them.
fn with(test: &str) -> String {
    let text = base_with(
        "l4 = \"tcp/502\"",
        "l4 = \"tcp/502\"\nl7 = { proto = \"modbus\", actions = { read = [\"fc:1-4\"], write = [\"fc:5,6 addr:0-99\"] } }",
    );
    let text = text.replacen(
        "l4 = \"tcp/443\"",
        "l4 = \"tcp/443\"\nl7 = { proto = \"http\", actions = { read = [\"GET /**\"], admin = [\"* /admin/**\"] } }",
        1,
    );
    let text = text.replacen("do = [\"connect\"]", "do = [\"read\"]", 1);
    format!(
        "{text}
[[rule]]
id = \"scada-web\"
effect = \"allow\"
from = [\"group:scada\"]
to = [\"line3/admin\"]
do = [\"read\"]
[[rule]]
id = \"no-admin\"
effect = \"deny\"
from = [\"any\"]
to = [\"line3/admin\"]
do = [\"admin\"]
[service.line3.interface.plain]
net = \"mesh\"
l4 = \"tcp/22\"
[[test]]
name = \"t\"
from = {{ groups = [\"scada\"] }}
{test}
"
    )
}

#[test]
fn a_request_is_decided_as_a_gateway_decides_it() {
    for test in [
        "to = \"line3/modbus\"\nl7 = \"fc:3 addr:10\"\nexpect = \"allow\"\nby = \"scada-connects\"",
        "to = \"line3/modbus\"\ndo = \"read\"\nl7 = \"fc:3 addr:10-12 unit:9\"\nexpect = \"allow\"",
        "to = \"line3/modbus\"\nl7 = \"fc:5 addr:10\"\nexpect = \"deny\"\nbecause = \"no-rule\"",
        "to = \"line3/modbus\"\nl7 = \"fc:5 addr:100\"\nexpect = \"deny\"\nbecause = \"no-action\"",
        "to = \"line3/admin\"\nl7 = \"GET /status\"\nexpect = \"allow\"\nby = \"scada-web\"",
        "to = \"line3/admin\"\ndo = \"read\"\nl7 = \"GET /admin/users\"\nexpect = \"deny\"\nby = \"no-admin\"",
    ] {
        assert_accepted(&with(test));
    }
}

#[test]
fn a_request_that_means_nothing_there_is_refused() {
    for (test, code) in [
        (
            "to = \"line3/modbus\"\nl7 = §\"GET /\"\nexpect = \"deny\"",
            Code::BadValue,
        ),
        (
            "to = \"line3/admin\"\nl7 = §\"GET /../admin\"\nexpect = \"deny\"",
            Code::BadValue,
        ),
        (
            "to = \"line3/plain\"\nl7 = §\"GET /\"\nexpect = \"deny\"",
            Code::TestInvalid,
        ),
        (
            "to = \"line3/modbus\"\ndo = §\"write\"\nl7 = \"fc:3 addr:10\"\nexpect = \"deny\"",
            Code::TestInvalid,
        ),
        (
            "to = \"line3/modbus\"\ndo = §\"writes\"\nl7 = \"fc:3 addr:10\"\nexpect = \"deny\"",
            Code::UnknownAction,
        ),
    ] {
        assert_refused(&with(test), code);
    }
    let without =
        with("to = \"line3/modbus\"\nexpect = \"allow\"").replacen("[[test]]", "§[[test]]", 1);
    assert_refused(&without, Code::MissingKey);
}

#[test]
fn what_a_rule_wants_run_is_met_by_what_the_subject_is_proven_to_run() {
    let publishers = crate::testing::publishers_on("gateways");
    let rule = |lines: &str| format!("{}\n{publishers}", rule(lines));
    let text = rule("runs = [\"acme/collector>=2.3\", \"acme/base\"]");
    let policy = assert_accepted(&text);
    let asking = policy.rules.iter().find(|rule| &*rule.id == "more");
    assert_eq!(asking.unwrap().runs, ["acme/collector>=2.3", "acme/base"]);
    let test = "[[test]]\nname = \"t\"\nfrom = { groups = [\"scada\"] }\nto = \"line3/admin\"\ndo = \"connect\"\nexpect = \"deny\"\nbecause = \"runs\"\n";
    assert_accepted(&format!("{text}\n{test}"));
    let running = |runs: &str, expect: &str| {
        test.replace("[\"scada\"] }", &format!("[\"scada\"], runs = [{runs}] }}"))
            .replace("\"deny\"\nbecause = \"runs\"", expect)
    };
    let deny = "\"deny\"\nbecause = \"runs\"";
    for (runs, expect) in [
        ("\"acme/collector@2.3.1\", \"acme/base@1\"", "\"allow\""),
        ("\"acme/collector@2.2.9\", \"acme/base@1\"", deny),
        ("\"acme/collector@2.3.1\"", deny),
    ] {
        assert_accepted(&format!("{text}\n{}", running(runs, expect)));
    }
    for runs in [
        "§\"acme/collector\"",
        "§\"acme/collector>=2\"",
        "\"acme/a@1\", §\"acme/a@2\"",
    ] {
        let test = running(runs, deny);
        assert_refused(&format!("{text}\n{test}"), Code::BadValue);
    }
    let many: Vec<String> = (0..=64).map(|n| format!("\"acme/x{n}\"")).collect();
    let many = rule(&format!("runs = [{}]", many.join(", ")));
    let report = check(&one(&many));
    assert_eq!(report.diagnostics.len(), 1, "{report}");
    assert_eq!(report.diagnostics[0].code, Code::TooMuch);
    for runs in [
        "collector",
        "acme/collector>2.3",
        "acme/collector>=2.x",
        "acme/collector>=02",
        "acme//collector",
        "acme/collector>=1.2.3.4.5",
        "acme/collector >=2",
        "/collector",
    ] {
        assert_refused(&rule(&format!("runs = [§\"{runs}\"]")), Code::BadValue);
    }
}

#[test]
fn what_a_rule_wants_run_is_of_a_publisher_of_the_policy_and_may_run_somewhere() {
    let publishers = crate::testing::publishers_on("gateways");
    let with = |lines: &str, publishers: &str| format!("{}\n{publishers}", rule(lines));
    let wants = "runs = [§\"acme/collector\"]";
    for (want, publishers, code) in [
        (wants, "", Code::UnknownName),
        (
            "runs = [\"acme/base\", §\"acne/base\"]",
            &*publishers,
            Code::UnknownName,
        ),
        (
            wants,
            &publishers.replace(
                "publisher = \"acme\" }",
                "publisher = \"acme\", name = \"other\" }",
            ),
            Code::Dead,
        ),
        (
            wants,
            &publishers.replace("{ publisher = \"acme\" },", ""),
            Code::Dead,
        ),
    ] {
        assert_refused(&with(want, publishers), code);
    }
    let found = assert_refused(
        &with("runs = [§\"acne/base\"]", &publishers),
        Code::UnknownName,
    );
    assert!(found.help.unwrap().contains("acme"), "the nearest is named");
    // What a version before accepted goes on: it lets nobody in, and stops no cloud.
    for lines in ["runs = [\"acne/base\"]", "runs = [\"acme/collector\"]"] {
        let files = one(&with(lines, ""));
        assert!(CompiledPolicy::compile(&files, 1).is_err());
        let stored = CompiledPolicy::compile_stored(&files, 1);
        assert!(stored.is_ok(), "{}", stored.unwrap_err());
    }
    // All else is checked as ever.
    let broken = one(&with("runs = [\"acne//base\"]", ""));
    assert!(CompiledPolicy::compile_stored(&broken, 1).is_err());
    // Who denies may still name what nobody is allowed to run any more; and what is only observed runs.
    let nowhere = publishers.replace("{ publisher = \"acme\" },", "");
    let wants = wants.replace('§', "");
    assert_accepted(&with(&format!("effect = \"deny\"\n{wants}"), &nowhere));
    assert_accepted(&with(&wants, &format!("{nowhere}mode = \"observe\"\n")));
    assert_accepted(&with(&wants, &publishers));
}

#[test]
fn an_invariant_names_what_there_is() {
    let never = |rest: &str| format!("{BASE}\n[[invariant]]\nname = \"x\"\nnever = {{ {rest} }}\n");
    for (rest, code) in [
        ("to = \"line3/admin\"", Code::MissingKey),
        ("from = \"vendor\", to = \"line3/admin\"", Code::BadValue),
        (
            "from = \"operator-group:vendors\", to = \"line3/admin\"",
            Code::UnknownName,
        ),
        (
            "from = \"operator-group:vendor\", to = \"line3/admins\"",
            Code::UnknownName,
        ),
        (
            "from = \"operator-group:vendor\", to = \"line3/admin\", do = \"write\"",
            Code::UnknownAction,
        ),
        (
            "from = \"operator-group:vendor\", to = \"line3/admin\", outside = \"day\"",
            Code::UnknownName,
        ),
        (
            "from = \"operator-group:vendor\", to = \"line3/admin\", state = \"bad\"",
            Code::BadValue,
        ),
        (
            "from = \"any\", to = [\"any\"], when = \"night\"",
            Code::UnknownKey,
        ),
    ] {
        let report = check(&one(&never(rest)));
        assert!(
            report.diagnostics.iter().any(|found| found.code == code),
            "{rest}:\n{report}"
        );
    }
}
