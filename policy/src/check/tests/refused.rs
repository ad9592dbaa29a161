use super::*;

#[test]
fn unknown_keys_are_refused_with_the_nearest_accepted_one() {
    for (case, nearest) in [
        (format!("§onwer = \"x\"\n{BASE}"), "owner"),
        (base_with("pcr_bank", "§pcr_bnak"), "pcr_bank"),
        (
            base_with("[group.scada]", "[group.scada]\n§profil = \"x\""),
            "profile",
        ),
        (
            base_with(
                "[operator-group.vendor]",
                "[operator-group.vendor]\n§member = [\"x\"]",
            ),
            "members",
        ),
        (
            base_with("on = \"gateways\"", "on = \"gateways\"\n§interfaces = 1"),
            "interface",
        ),
        (
            base_with("l4 = \"tcp/502\"", "l4 = \"tcp/502\"\n§l44 = 1"),
            "l4",
        ),
        (base_with("tz = ", "§day = 1\ntz = "), "days"),
        (rule("§untils = 1"), "unless_state"),
        (
            rule("when = { §windows = \"night\", window = \"night\" }"),
            "window",
        ),
        (test("§expects = 1"), "expect"),
    ] {
        let found = assert_refused(&case, Code::UnknownKey);
        let help = found.help.unwrap();
        assert!(
            help.contains(nearest) && help.contains("accepted:"),
            "{help}"
        );
    }
}

#[test]
fn a_text_that_is_not_toml_is_refused_where_it_breaks() {
    let found = check(&one("schema = \"edgeward-policy/1\"\nowner = \n")).diagnostics;
    assert_eq!((found[0].code, found[0].line), (Code::Syntax, 2));
    let doubled = format!("{BASE}\n[group.scada]\nmatch = {{ site = [\"suzhou\"] }}\n");
    assert_eq!(check(&one(&doubled)).diagnostics[0].code, Code::Syntax);
    for text in [
        "\u{0}",
        "[",
        "[[rule",
        "a = \"",
        "\u{feff}\u{feff}",
        "x = 1e999999",
        "rule = [[[[[[",
    ] {
        assert!(!check(&one(text)).is_ok());
    }
}

#[test]
fn a_file_without_its_head_is_refused() {
    assert_refused(
        &format!(
            "§{}",
            BASE.replacen("schema = \"edgeward-policy/1\"\n", "", 1)
        ),
        Code::MissingKey,
    );
    assert_refused(
        &format!("§{}", BASE.replacen("owner = \"ot-suzhou\"\n", "", 1)),
        Code::MissingKey,
    );
    let found = check(&one(&BASE.replacen(
        "scope = { site = [\"suzhou\"] }\n",
        "",
        1,
    )));
    assert_eq!(found.diagnostics[0].code, Code::MissingKey);
    assert_refused(
        &base_with("\"edgeward-policy/1\"", "§\"edgeward-policy/2\""),
        Code::BadValue,
    );
    assert_refused(
        &base_with("\"ot-suzhou\"", "§\"ot suzhou\""),
        Code::BadValue,
    );
}

#[test]
fn a_scope_that_checks_nothing_is_refused() {
    for scope in [
        "§{}",
        "§\"all\"",
        "§[\"suzhou\"]",
        "{ site = §[] }",
        "{ site = §\"suzhou\" }",
        "{ site = [§\"su zhou\"] }",
    ] {
        let report = check(&one(
            &base_with("{ site = [\"suzhou\"] }", scope).replacen('§', "", 1)
        ));
        assert!(!report.is_ok(), "{scope}");
        assert_eq!(report.diagnostics[0].line, 3, "{report}");
    }
}

#[test]
fn values_of_the_wrong_type_are_refused_where_they_stand() {
    for case in [
        base_with("\"ot-suzhou\"", "§7"),
        base_with("pcr = {", "firmware_deny = §\"0x1\"\npcr = {"),
        base_with("pcr = {", "secure_boot = §\"true\"\npcr = {"),
        base_with("pcr = {", "mode = §[\"enforce\"]\npcr = {"),
        base_with("pcr = {", "app_control = §[\"kernel\"]\npcr = {"),
        base_with("members = [\"operator/li\"]", "members = §\"operator/li\""),
        rule("from = §\"group:scada\""),
        rule("from = [§3]"),
        rule("when = { until = §\"2027-01-31T00:00:00Z\" }"),
        rule("when = §\"night\""),
        rule("fresh = §600"),
        format!("{BASE}\n[defaults]\nfresh = §10"),
        base_with(
            "[operator-group.vendor]",
            "[operator-group]\nx = §1\n[operator-group.vendor]",
        ),
    ] {
        assert_refused(&case, Code::WrongType);
    }
}

#[test]
fn values_that_do_not_fit_are_refused_where_they_stand() {
    for case in [
        base_with("[\"hardware\", \"virtual\"]", "[\"hardware\", §\"vitual\"]"),
        base_with(
            "[\"hardware\", \"virtual\"]",
            "[\"hardware\", §\"hardware\"]",
        ),
        base_with("[\"hardware\", \"virtual\"]", "§[]"),
        base_with("pcr_bank = \"sha256\"", "pcr_bank = §\"sha1\""),
        base_with("{ 7 = [", "{ §16 = [\"sha256:00\"], 7 = ["),
        base_with("{ 7 = [", "{ §23 = [\"sha256:00\"], 7 = ["),
        base_with("{ 7 = [", "{ §24 = [\"sha256:00\"], 7 = ["),
        base_with("{ 7 = [", "{ §07 = [\"sha256:00\"], 7 = ["),
        base_with("{ 7 = [", "{ 8 = §[], 7 = ["),
        base_with("{ 7 = [", "{ 8 = [§\"sha256:00\"], 7 = ["),
        base_with("{ 7 = [", "{ 8 = [§\"sha384:00\"], 7 = ["),
        base_with("pcr = {", "firmware_deny = [§\"2000400030001\"]\npcr = {"),
        base_with("pcr = {", "firmware_deny = [§\"0x+1\"]\npcr = {"),
        base_with("pcr = {", "fresh = §\"ten minutes\"\npcr = {"),
        base_with("pcr = {", "mode = §\"observe\"\npcr = {"),
        base_with("pcr = {", "secure_boot = §false\npcr = {"),
        base_with("pcr = {", "app_control = §\"strict\"\npcr = {"),
        base_with("[\"operator/li\"]", "[§\"li\"]"),
        base_with("[\"operator/li\"]", "[§\"operator/l i\"]"),
        base_with("[\"operator/li\"]", "[§\"operator/a/b\"]"),
        base_with(
            "net = \"mesh\"\nl4 = \"tcp/443\"",
            "net = §\"mesh of sixteen\"\nl4 = \"tcp/443\"",
        ),
        base_with("l4 = \"tcp/443\"", "l4 = §\"sctp/443\""),
        base_with("l4 = \"tcp/443\"", "l4 = §\"tcp/0\""),
        base_with("l4 = \"tcp/443\"", "l4 = §\"tcp/65536\""),
        base_with("l4 = \"tcp/443\"", "l4 = §\"tcp/+443\""),
        base_with(
            "l4 = \"tcp/502\"",
            "l4 = \"tcp/502\"\nto = §\"plc.example:502\"",
        ),
        base_with(
            "l4 = \"tcp/502\"",
            "l4 = \"tcp/502\"\nto = §\"0.0.0.0:502\"",
        ),
        base_with("\"Asia/Shanghai\"", "§\"Asia/Atlantis\""),
        base_with("[\"sat\", \"sun\"]", "[\"sat\", §\"sunday\"]"),
        base_with("from = \"02:00\"", "from = §\"24:00\""),
        base_with("from = \"02:00\"", "from = §\"2:00\""),
        base_with("to = \"05:00\"", "to = §\"24:01\""),
        base_with("[window.night]", "[window.§night]").replacen("\"05:00\"", "\"02:00\"", 1),
        format!("{BASE}\n[group.§\"sca da\"]\nmatch = {{ site = [\"suzhou\"] }}\n"),
        rule("id = §\"white space\""),
        rule("effect = §\"permit\""),
        rule("from = §[]"),
        rule("from = [§\"scada\"]"),
        rule("from = [§\"node:a\"]"),
        rule("from = [§\"any\", \"group:scada\"]"),
        rule("to = [§\"line3\"]"),
        rule("when = §{}"),
        rule("when = { until = §2027-01-31T00:00:00 }"),
        rule("when = { until = §2027-01-31 }"),
        rule("when = { until = §1901-01-31T00:00:00Z }"),
        rule("state = §\"good\""),
        rule("tier = §\"gold\""),
        rule("offline = §\"72 h\""),
    ] {
        assert_refused(&case, Code::BadValue);
    }
}

#[test]
fn a_part_that_must_be_there_is_missed() {
    for (case, line) in [
        (
            BASE.replacen("tier = [\"hardware\", \"virtual\"]\n", "", 1),
            "profile",
        ),
        (BASE.replacen("net = \"mesh\"\n", "", 1), "interface"),
        (BASE.replacen("l4 = \"tcp/443\"\n", "", 1), "interface"),
        (BASE.replacen("tz = \"Asia/Shanghai\"\n", "", 1), "window"),
        (BASE.replacen("effect = \"allow\"\n", "", 1), "rule"),
        (BASE.replacen("do = [\"connect\"]\n", "", 1), "rule"),
        (
            BASE.replacen("members = [\"operator/li\"]\n", "", 1),
            "operator group",
        ),
    ] {
        let report = check(&one(&case));
        assert_eq!(report.diagnostics.len(), 1, "{report}");
        assert_eq!(report.diagnostics[0].code, Code::MissingKey, "{report}");
        assert!(report.diagnostics[0].message.starts_with(line), "{report}");
        assert!(report.diagnostics[0].line > 3, "{report}");
    }
}

#[test]
fn unknown_names_are_refused_with_the_nearest_one() {
    for (case, nearest) in [
        (
            base_with("profile = \"gateway\"", "profile = §\"gatway\""),
            "gateway",
        ),
        (
            base_with("on = \"gateways\"", "on = §\"gateway\""),
            "gateways",
        ),
        (
            base_with(
                "[\"operator/li\"]",
                "[\"operator/li\", §\"operator-group:vendr\"]",
            ),
            "vendor",
        ),
        (rule("from = [§\"group:scade\"]"), "scada"),
        (rule("from = [§\"operator-group:vender\"]"), "vendor"),
        (rule("to = [§\"line3/modbuss\"]"), "line3/modbus"),
        (rule("when = { window = §\"nigth\" }"), ""),
    ] {
        let unmarked = case.replacen('§', "", 1);
        let report = check(&one(&unmarked));
        let first = report
            .diagnostics
            .iter()
            .find(|found| found.code == Code::UnknownName)
            .unwrap();
        let before = case.split('§').next().unwrap();
        assert_eq!(first.line, before.matches('\n').count() + 1, "{report}");
        assert!(first.help.as_ref().unwrap().contains(nearest), "{report}");
    }
}

#[test]
fn names_defined_twice_are_refused_across_files() {
    let text = |body: &str| {
        format!(
            "schema = \"edgeward-policy/1\"\nowner = \"b\"\nscope = {{ site = [\"suzhou\"] }}\n{body}"
        )
    };
    for body in [
        "[group.scada]\nmatch = { site = [\"suzhou\"] }\n",
        "[operator-group.vendor]\nmembers = [\"operator/wu\"]\n",
        "[window.night]\ntz = \"UTC\"\nfrom = \"00:00\"\nto = \"01:00\"\n",
        "[profile.gateway]\ntier = [\"software\"]\n",
        "[service.line3]\non = \"scada\"\n[service.line3.interface.x]\nnet = \"mesh\"\nl4 = \"tcp/1\"\n",
        "[[rule]]\nid = \"scada-connects\"\neffect = \"deny\"\nfrom = [\"any\"]\nto = [\"line3/admin\"]\ndo = [\"connect\"]\n",
    ] {
        let files = [
            SourceFile::new("a.toml", BASE),
            SourceFile::new("b.toml", text(body)),
        ];
        let report = check(&files);
        assert_eq!(report.diagnostics.len(), 1, "{report}");
        assert_eq!(report.diagnostics[0].code, Code::DuplicateName);
        assert!(
            report.diagnostics[0].message.contains("a.toml:"),
            "{report}"
        );
        assert_eq!(report.diagnostics[0].file, "b.toml");
    }
    let same_path = [
        SourceFile::new("a.toml", BASE),
        SourceFile::new("a.toml", BASE),
    ];
    assert_eq!(check(&same_path).diagnostics[0].code, Code::DuplicateName);
}

#[test]
fn a_file_defines_and_grants_only_inside_its_scope() {
    for case in [
        base_with(
            "[group.scada]\nmatch = { role = [\"scada\"], site = [\"suzhou\"] }",
            "[group.§scada]\nmatch = { role = [\"scada\"] }",
        ),
        base_with(
            "[group.scada]\nmatch = { role = [\"scada\"], site = [\"suzhou\"] }",
            "[group.§scada]\nmatch = { role = [\"scada\"], site = [\"suzhou\", \"wuxi\"] }",
        ),
        rule("to = [§\"any\"]"),
    ] {
        assert_refused(&case, Code::OutsideScope);
    }
    let wuxi = "schema = \"edgeward-policy/1\"\nowner = \"wuxi\"\nscope = { site = [\"wuxi\"] }\n";
    let grant = format!(
        "{wuxi}[[rule]]\nid = \"x\"\neffect = \"allow\"\nfrom = [\"group:scada\"]\nto = [\"line3/admin\"]\ndo = [\"connect\"]\n"
    );
    let service = format!(
        "{wuxi}[service.x]\non = \"scada\"\n[service.x.interface.y]\nnet = \"mesh\"\nl4 = \"tcp/9\"\n"
    );
    for (text, line, column) in [(grant, 8, 7), (service, 5, 6)] {
        let files = [
            SourceFile::new("suzhou.toml", BASE),
            SourceFile::new("wuxi.toml", text),
        ];
        let report = check(&files);
        assert_eq!(report.diagnostics.len(), 1, "{report}");
        let found = &report.diagnostics[0];
        assert_eq!(
            (found.code, found.line, found.column),
            (Code::OutsideScope, line, column),
            "{report}"
        );
        assert!(found.help.as_ref().unwrap().contains("site = [\"wuxi\"]"));
    }
}

#[test]
fn rules_that_match_nobody_are_refused() {
    for lines in [
        "id = §\"more\"\ntier = [\"software\"]",
        "id = §\"more\"\ntier = [\"listed\"]",
        "id = §\"more\"\nstate = \"vouched\"",
        "id = §\"more\"\nstate = \"none\"",
        "id = §\"more\"\nfresh = \"0s\"\noffline = \"0s\"",
        "id = §\"more\"\neffect = \"deny\"\nunless_state = [\"trusted\", \"stale\", \"failed\", \"vouched\", \"none\"]",
    ] {
        assert_refused(&rule(lines), Code::MatchesNobody);
    }
    assert_refused(
        &format!("{BASE}\n[service.§empty]\non = \"scada\"\ninterface = {{}}\n"),
        Code::MatchesNobody,
    );
}

#[test]
fn shadowed_rules_are_refused() {
    let deny = "\n[[rule]]\nid = \"no\"\neffect = \"deny\"\nfrom = [\"any\"]\nto = [\"line3/modbus\", \"line3/admin\"]\ndo = [\"connect\"]\n";
    assert_refused(
        &base_with("id = \"scada-connects\"", "id = §\"scada-connects\"").replace(
            "do = [\"connect\"]\n",
            &format!("do = [\"connect\"]\n{deny}"),
        ),
        Code::Shadowed,
    );
    for lines in [
        "id = §\"more\"\nto = [\"line3/modbus\"]",
        "id = §\"more\"\nto = [\"line3/modbus\"]\nwhen = { window = \"night\" }",
        "id = §\"more\"\nto = [\"line3/modbus\"]\nfresh = \"2m\"",
        "id = §\"more\"\nto = [\"line3/modbus\"]\ntier = [\"hardware\"]",
    ] {
        let found = assert_refused(&rule(lines), Code::Shadowed);
        assert!(
            found
                .help
                .unwrap()
                .contains("`scada-connects` at site/a.toml:")
        );
    }
    let narrower = format!(
        "{BASE}\n[group.scada-hall]\nmatch = {{ role = [\"scada\"], site = [\"suzhou\"], hall = [\"1\"] }}\n[[rule]]\nid = §\"more\"\neffect = \"allow\"\nfrom = [\"group:scada-hall\"]\nto = [\"line3/modbus\"]\ndo = [\"connect\"]\n"
    );
    assert_refused(&narrower, Code::Shadowed);
}

#[test]
fn a_rule_s_profile_must_be_known_and_one_that_its_sources_measure_by() {
    let found = assert_refused(&rule("profile = [§\"gatway\"]"), Code::UnknownName);
    assert!(found.help.unwrap().contains("did you mean `gateway`?"));
    assert_refused(&rule("profile = §\"gateway\""), Code::WrongType);
    assert_refused(&rule("profile = §[]"), Code::BadValue);
    assert_refused(
        &rule("profile = [\"gateway\", §\"gateway\"]"),
        Code::BadValue,
    );
    let lab = "[profile.lab]\ntier = [\"software\"]\n[group.lab]\nmatch = { role = [\"scada\"], site = [\"suzhou\"] }\nprofile = \"lab\"\n";
    let other = "[profile.other]\ntier = [\"hardware\"]\nsecure_boot = true\n[group.other]\nmatch = { role = [\"other\"], site = [\"suzhou\"] }\nprofile = \"other\"\n";
    for (more, named) in [(lab, "lab"), (other, "other")] {
        for effect in ["allow", "deny"] {
            let case = format!(
                "{}\n{more}",
                rule(&format!(
                    "id = §\"r\"\neffect = \"{effect}\"\nprofile = [\"{named}\"]"
                ))
            );
            assert_refused(&case, Code::MatchesNobody);
        }
    }
    let narrower = rule("id = §\"narrow\"\nto = [\"line3/modbus\"]\nprofile = [\"gateway\"]");
    assert_refused(&narrower, Code::Shadowed);
}

#[test]
fn a_profile_that_checks_nothing_is_refused() {
    let pcr = "pcr = { 7 = [\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"] }\n";
    for with in [
        "",
        "pcr = {}\n",
        "firmware_deny = [\"0x1\"]\n",
        "app_control = \"kernel\"\n",
    ] {
        let case = base_with(pcr, with).replacen("[profile.gateway]", "[profile.§gateway]", 1);
        assert_refused(&case, Code::ChecksNothing);
    }
    let software = base_with("[\"hardware\", \"virtual\"]", "[\"software\"]").replacen(
        "[profile.gateway]",
        "[profile.§gateway]",
        1,
    );
    assert_refused(&software, Code::ChecksNothing);
    let report = check(&[]);
    assert_eq!(report.diagnostics[0].code, Code::ChecksNothing);
}

#[test]
fn an_offline_above_the_largest_is_refused() {
    for case in [
        base_with("pcr = {", "offline = §\"8d\"\npcr = {"),
        rule("offline = §\"8d\""),
        format!("{BASE}\n[defaults]\noffline = §\"13h\"\nmax_offline = \"12h\"\n"),
    ] {
        assert_refused(&case, Code::OfflineAboveMax);
    }
    let head = "schema = \"edgeward-policy/1\"\nowner = \"x\"\nscope = \"any\"\n";
    let top = SourceFile::new(
        "top.toml",
        format!("{head}[defaults]\nmax_offline = \"24h\"\n"),
    );
    let below = SourceFile::new(
        "a/b/c.toml",
        format!("{head}[defaults]\nmax_offline = \"25h\"\n"),
    );
    let twice = SourceFile::new(
        "twin.toml",
        format!("{head}[defaults]\nmax_offline = \"24h\"\n"),
    );
    let report = check(&[top.clone(), below]);
    let found = &report.diagnostics[0];
    assert_eq!(
        (found.code, found.line, found.file.as_str()),
        (Code::OfflineAboveMax, 5, "a/b/c.toml")
    );
    assert_eq!(
        check(&[top, twice]).diagnostics[0].code,
        Code::DuplicateName
    );
}

#[test]
fn conditions_on_the_wrong_effect_are_refused() {
    for lines in [
        "unless_state = §\"trusted\"",
        "effect = \"deny\"\nstate = §\"stale\"",
        "effect = \"deny\"\nfresh = §\"2m\"",
        "effect = \"deny\"\noffline = §\"2m\"",
    ] {
        assert_refused(&rule(lines), Code::MisplacedCondition);
    }
}

#[test]
fn the_one_action_of_plain_l4_is_connect() {
    assert_refused(&rule("do = [\"connect\", §\"read\"]"), Code::UnknownAction);
    assert_refused(&rule("do = [§\"Connect\"]"), Code::UnknownAction);
}

#[test]
fn two_interfaces_at_one_port_of_one_node_are_refused() {
    assert_refused(
        &format!("{BASE}\n[service.line3.interface.§twin]\nnet = \"mesh\"\nl4 = \"tcp/443\"\n"),
        Code::InterfaceClash,
    );
    let overlapping = format!(
        "{BASE}\n[group.hall]\nmatch = {{ hall = [\"1\"], site = [\"suzhou\"] }}\n[service.x]\non = \"hall\"\n[service.x.interface.§y]\nnet = \"mesh\"\nl4 = \"tcp/443\"\n"
    );
    assert_refused(&overlapping, Code::InterfaceClash);
    assert_accepted(&format!(
        "{BASE}\n[service.x]\non = \"scada\"\n[service.x.interface.y]\nnet = \"mesh\"\nl4 = \"tcp/443\"\n"
    ));
}

#[test]
fn groups_nested_too_deep_or_in_themselves_are_refused() {
    let chain = |levels: usize| {
        let mut text = BASE.to_owned();
        for level in 0..levels {
            let inner = if level + 1 == levels {
                "operator/li".to_owned()
            } else {
                format!("operator-group:g{}", level + 1)
            };
            text.push_str(&format!(
                "\n[operator-group.g{level}]\nmembers = [\"{inner}\"]\n"
            ));
        }
        text
    };
    assert_accepted(&chain(MAX_NESTING + 1));
    let report = check(&one(&chain(MAX_NESTING + 2)));
    assert_eq!(report.diagnostics.len(), 1, "{report}");
    assert_eq!(report.diagnostics[0].code, Code::Nesting);
    let cycle = format!(
        "{BASE}\n[operator-group.a]\nmembers = [\"operator-group:b\"]\n[operator-group.b]\nmembers = [\"operator-group:a\"]\n"
    );
    assert!(
        check(&one(&cycle))
            .diagnostics
            .iter()
            .all(|found| found.code == Code::Nesting)
    );
    assert!(!check(&one(&cycle)).is_ok());
}

#[test]
fn limits_on_files_sizes_and_lists_hold() {
    let large = format!("{BASE}\n#{}", "x".repeat(MAX_FILE_BYTES));
    assert_eq!(check(&one(&large)).diagnostics[0].code, Code::TooMuch);
    let many: Vec<_> = (0..=MAX_FILES)
        .map(|index| SourceFile::new(format!("{index}.toml"), ""))
        .collect();
    let report = check(&many);
    assert_eq!(
        (report.diagnostics.len(), report.diagnostics[0].code),
        (1, Code::TooMuch)
    );
    let list = vec!["\"operator/li\""; MAX_LIST + 1].join(",");
    assert_refused(
        &base_with(
            "members = [\"operator/li\"]",
            &format!("members = §[{list}]"),
        ),
        Code::TooMuch,
    );
    for path in ["", "/etc/x.toml", "a/../b.toml", "a//b.toml", "a\nb.toml"] {
        assert_eq!(
            check(&[SourceFile::new(path, BASE)]).diagnostics[0].code,
            Code::BadValue,
            "{path:?}"
        );
    }
}

#[test]
fn deep_nesting_of_values_ends_in_an_error_not_in_a_crash() {
    let deep = format!(
        "{BASE}\n[defaults]\nfresh = {}1{}\n",
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    assert!(!check(&one(&deep)).is_ok());
    let dotted = format!("{BASE}\n{}x = 1\n", "a.".repeat(50_000));
    assert!(!check(&one(&dotted)).is_ok());
}

#[test]
fn all_errors_are_told_at_once_and_in_order() {
    let text = BASE
        .replacen("role = [\"scada\"]", "role = []", 1)
        .replacen("l4 = \"tcp/443\"", "l4 = \"icmp\"", 1)
        .replacen("effect = \"allow\"", "effect = \"permit\"", 1);
    let report = check(&one(&text));
    let lines: Vec<usize> = report.diagnostics.iter().map(|found| found.line).collect();
    assert_eq!(lines.len(), 3, "{report}");
    assert!(lines.is_sorted());
    let shown = report.to_string();
    assert!(shown.starts_with("site/a.toml:15:"), "{shown}");
    assert!(shown.contains("error[bad-value]: "), "{shown}");
    assert!(shown.contains("\n  help: "), "{shown}");
}

fn test(line: &str) -> String {
    format!(
        "{BASE}\n[[test]]\nname = \"t\"\nfrom = {{ groups = [\"scada\"] }}\nto = \"line3/modbus\"\ndo = \"connect\"\nexpect = \"allow\"\n{line}\n"
    )
}
