//! Applications in policy files: every mistake has an error of its own, and what is right reaches the nodes that it is
//! about and no others.

use edgeward_apps::admit::{Allow, Deny, Mode};
use edgeward_apps::director::Wish;

use super::*;
use crate::compile::CompiledPolicy;
use crate::fleet::Labels;

const PUBLISHER: &str =
    "[publisher.§acme]\nkeys = [\"ed25519:KEY\", \"ecdsa-p256:04POINT\"]\nthreshold = 2";
const APPS: &str = "[apps.§gateways]\nallow = [{ publisher = \"acme\", name = \"collector\", min_version = \"2.3.0\" }]\ndeny = [{ digest = \"sha256:KEY\" }]\nmode = \"enforce\"";

#[test]
fn what_nothing_enforces_is_refused_for_that_alone() {
    let case = base_with(
        "[\"operator/li\"]",
        "[\"operator/li\", §\"claim:groups=acme-service\"]",
    );
    let found = assert_refused(&case, Code::NotEnforced);
    assert!(
        found.message.contains("not enforced by this version"),
        "{found}"
    );
}

#[test]
fn a_mistake_in_a_profile_or_a_group_that_nothing_enforces_is_its_own_error() {
    for pcr in ["0", "7", "10", "16", "17", "22", "23", "24", "-1"] {
        let text = base_with(
            "tier = [\"hardware\"",
            &format!("apps_pcr = §{pcr}\ntier = [\"hardware\""),
        );
        assert_refused_among(&text, Code::BadValue);
    }
    let value = format!("pcr = {{ 14 = [\"sha256:{}\"], 7", "ab".repeat(32));
    let also_fixed = base_with(
        "tier = [\"hardware\"",
        "apps_pcr = §14\ntier = [\"hardware\"",
    )
    .replacen("\npcr = { 7", &format!("\n{value}"), 1);
    assert_refused_among(&also_fixed, Code::BadValue);
    let other_bank = base_with(
        "tier = [\"hardware\"",
        "apps_pcr = §14\ntier = [\"hardware\"",
    )
    .replacen("\"sha256\"", "\"sha384\"", 1)
    .replacen(
        &format!("sha256:{}", "00".repeat(32)),
        &format!("sha384:{}", "00".repeat(48)),
        1,
    );
    assert_refused_among(&other_bank, Code::BadValue);
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
        ("[publisher.acme]", "[publisher.§Acme]", Code::BadValue),
        ("[publisher.acme]", "[publisher.§targets]", Code::BadValue),
        (
            "threshold = 2",
            "threshold = 2\ncosign = { keys = [\"ed25519:KEY\"], threshold = §2 }",
            Code::BadValue,
        ),
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
        (
            "{ digest = \"sha256:KEY\" }",
            "{ publisher = \"acme\", name = \"x\", §min_version = \"2.0\" }",
            Code::BadValue,
        ),
        ("\"collector\"", "§\"Collector\"", Code::BadValue),
    ] {
        let text = APPS.replace('§', "").replacen(old, new, 1);
        let text = format!("{text}\n{}", PUBLISHER.replace('§', ""));
        assert_refused_among(&after(&text), code);
    }
}

#[test]
fn what_is_installed_must_be_allowed_there_and_in_one_way() {
    let with = |install: &str| {
        let apps = APPS.replace('§', "");
        after(&format!(
            "{apps}\ninstall = [{install}]\n{}",
            PUBLISHER.replace('§', "")
        ))
    };
    let good = "{ publisher = \"acme\", name = \"collector\" }";
    assert!(check(&one(&with(good))).is_ok());
    for (install, code) in [
        (
            "{ publisher = §\"acme\", name = \"sender\" }",
            Code::BadValue,
        ),
        (
            "{ publisher = §\"acne\", name = \"collector\" }",
            Code::UnknownName,
        ),
        ("{ publisher = \"acme\", name = §\"a/b\" }", Code::BadValue),
        ("§{ publisher = \"acme\" }", Code::MissingKey),
        (
            "{ publisher = \"acme\", name = \"collector\", version = §\"newest\" }",
            Code::BadValue,
        ),
        (
            "{ publisher = \"acme\", name = \"collector\", state = §\"on\" }",
            Code::BadValue,
        ),
        (
            "{ publisher = \"acme\", name = \"collector\", reach = [§\"plc\"] }",
            Code::BadValue,
        ),
        (
            "{ publisher = §\"acme\", name = \"collector\", reach = [\"no/where\"] }",
            Code::UnknownName,
        ),
        (
            "{ publisher = \"acme\", name = \"collector\" }, { publisher = §\"acme\", name = \"collector\" }",
            Code::DuplicateName,
        ),
    ] {
        assert_refused_among(&with(install), code);
    }
    // Below the lowest that is allowed, and denied in the same breath.
    let old = "{ publisher = §\"acme\", name = \"collector\", version = \"2.2.9\" }";
    assert_refused_among(&with(old), Code::BadValue);
    let denied = with("{ publisher = §\"acme\", name = \"collector\" }").replacen(
        "{ digest = \"sha256:",
        "{ publisher = \"acme\" }, { digest = \"sha256:",
        1,
    );
    assert_refused_among(&denied, Code::BadValue);
}

#[test]
fn two_groups_that_one_node_may_be_in_install_an_app_in_one_way() {
    let text = |other: &str, match_: &str| {
        let publisher = PUBLISHER.replace('§', "");
        let install = "{ publisher = \"acme\", name = \"collector\", version = \"2.3.1\" }";
        after(&format!(
            "{publisher}\n[apps.gateways]\nallow = [{{ publisher = \"acme\" }}]\ninstall = [{install}]\n\
             [group.others]\nmatch = {match_}\n\
             [apps.others]\nallow = [{{ publisher = \"acme\" }}]\ninstall = [{other}]"
        ))
    };
    let meets = "{ site = [\"suzhou\"] }";
    let apart = "{ role = [\"another\"], site = [\"suzhou\"] }";
    let same = "{ publisher = §\"acme\", name = \"collector\", version = \"2.3.1\" }";
    let latest = "{ publisher = §\"acme\", name = \"collector\" }";
    let idle = "{ publisher = §\"acme\", name = \"collector\", version = \"2.3.1\", state = \"installed\" }";
    for (install, match_) in [(same, meets), (latest, apart), (idle, apart)] {
        let report = check(&one(&text(install, match_).replace('§', "")));
        assert!(report.is_ok(), "{report}");
    }
    for install in [latest, idle] {
        assert_refused_among(&text(install, meets), Code::BadValue);
    }
}

#[test]
fn the_first_root_is_named_once_and_for_the_whole_domain() {
    let digest = "ab".repeat(32);
    let head =
        |scope: &str| format!("schema = \"edgeward-policy/1\"\nowner = \"x\"\nscope = {scope}\n");
    let root = format!("[apps_root]\nsha256 = \"{digest}\"\n");
    let check = |files: &[String]| {
        let files: Vec<_> = files
            .iter()
            .enumerate()
            .map(|(index, text)| SourceFile::new(format!("{index}.toml"), text.clone()))
            .collect();
        let report = check(&files);
        report
            .diagnostics
            .iter()
            .map(|found| found.code)
            .collect::<Vec<_>>()
    };
    let any = format!("{}{root}", head("\"any\""));
    let narrow = format!("{}{root}", head("{ site = [\"suzhou\"] }"));
    assert_eq!(check(std::slice::from_ref(&any)), []);
    assert_eq!(check(&[any.clone(), any]), [Code::DuplicateName]);
    assert_eq!(check(&[narrow]), [Code::OutsideScope]);
    let short = head("\"any\"") + "[apps_root]\nsha256 = \"abab\"\n";
    assert_eq!(check(&[short]), [Code::BadValue]);
}

#[test]
fn rules_of_apps_reach_the_nodes_of_their_groups_and_no_others() {
    let root = format!(
        "schema = \"edgeward-policy/1\"\nowner = \"x\"\nscope = \"any\"\n[apps_root]\nsha256 = \"{}\"",
        "cd".repeat(32)
    );
    let publisher = PUBLISHER.replace('§', "");
    let other = "[publisher.other]\nkeys = [\"ed25519:11KEY\"]\nthreshold = 1"
        .replace("11KEY", &"12".repeat(32));
    let text = after(&format!(
        "{publisher}\ncosign = {{ keys = [\"ed25519:KEY\"], threshold = 1 }}\n{other}\n{}\n\
         install = [{{ publisher = \"acme\", name = \"collector\", reach = [\"line3/admin\"] }}]\n\
         [group.lab]\nmatch = {{ lab = [\"yes\"], site = [\"suzhou\"] }}\n\
         [apps.lab]\nallow = [{{ digest = \"sha256:KEY\" }}]\nmode = \"observe\"",
        APPS.replace('§', "")
    ));
    let policy = CompiledPolicy::compile(
        &[one(&text), vec![SourceFile::new("root.toml", root)]].concat(),
        1,
    )
    .unwrap();
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let acme: edgeward_apps::PublisherName = "acme".parse().unwrap();
    let elsewhere = policy.app_rules_for(&labels(&[("role", "else")]));
    assert_eq!(elsewhere, edgeward_apps::AppRules::default());
    elsewhere.validate().unwrap();

    let gateway = [("role", "gateway"), ("site", "suzhou")];
    let rules = policy.app_rules_for(&labels(&gateway));
    rules.validate().unwrap();
    assert_eq!(rules.mode, Mode::Enforce);
    assert_eq!(rules.publishers.keys().collect::<Vec<_>>(), [&acme]);
    assert_eq!(rules.publishers[&acme].threshold, 2);
    assert_eq!(rules.cosign[&acme].threshold, 1);
    assert_eq!(rules.image_root.unwrap().to_string(), "cd".repeat(32));
    assert!(matches!(
        rules.allow.as_slice(),
        [Allow::Publisher { min_version: Some(least), .. }] if least.to_string() == "2.3.0"
    ));
    assert!(matches!(rules.deny.as_slice(), [Deny::Digest { .. }]));
    let app: edgeward_apps::AppName = "acme/collector".parse().unwrap();
    assert!(rules.reach[&app].contains("line3/admin"));
    let gateway = labels(&gateway);
    let installs = policy.installs_for(&gateway);
    assert_eq!(installs[&app].version, None);
    assert_eq!(installs[&app].wish, Wish::Running);

    // A digest may be of any publisher, but one of the policy's it must be.
    let lab = policy.app_rules_for(&labels(&[("lab", "yes"), ("site", "suzhou")]));
    assert_eq!(lab.mode, Mode::Observe);
    assert_eq!(lab.publishers.len(), 2);
    // Where one group of a node enforces, it is enforced there.
    let both = labels(&[("role", "gateway"), ("site", "suzhou"), ("lab", "yes")]);
    let both = policy.app_rules_for(&both);
    assert_eq!((both.mode, both.allow.len()), (Mode::Enforce, 2));
    let openings = policy.report().openings.iter();
    let observed =
        openings.filter(|opening| opening.kind == crate::check::OpeningKind::AppsObserved);
    assert_eq!(observed.count(), 1);
}

#[test]
fn what_is_about_groups_keeps_to_the_scope_of_its_file_too() {
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
