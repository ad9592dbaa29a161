use edgeward_identity::Tier;

use super::*;
use crate::check::openings::OpeningKind;
use crate::fleet::Labels;
use crate::seconds::Seconds;

#[test]
fn the_base_is_accepted_and_counted() {
    let policy = assert_accepted(BASE);
    let summary = Summary {
        files: 1,
        lists: 0,
        profiles: 1,
        groups: 2,
        devices: 0,
        operator_groups: 1,
        services: 1,
        interfaces: 2,
        windows: 1,
        workloads: 0,
        rules: 1,
        tests: 0,
        tests_failed: 0,
        invariants: 0,
    };
    assert_eq!(policy.report().summary, summary);
    assert_eq!(policy.report().openings, []);
    assert_eq!(policy.report().hash, hex::encode(policy.hash()));
    assert_eq!(policy.version(), 1);
}

#[test]
fn every_construct_that_is_enforced_is_accepted() {
    let full = base_with(
        "pcr = {",
        "firmware_deny = [\"0x2000400030001\"]\nsecure_boot = true\napp_control = \"fanotify\"\nmode = \"enforce\"\nfresh = \"10m\"\noffline = \"72h\"\npcr = {",
    );
    let rules = "
[defaults]
fresh = \"5m\"
offline = \"24h\"
tier = [\"hardware\", \"virtual\"]
max_offline = \"96h\"

[operator-group.oncall]
members = [\"operator/wu\", \"operator-group:vendor\"]

[[rule]]
id = \"vendor-maintenance\"
effect = \"allow\"
from = [\"operator-group:vendor\", \"operator-group:oncall\"]
to = [\"line3/admin\", \"line3/modbus\"]
do = [\"connect\"]
when = { window = \"night\", until = 2027-01-31T00:00:00+08:00 }
fresh = \"2m\"
offline = \"0s\"
tier = [\"hardware\"]
state = \"trusted\"

[[rule]]
id = \"never-when-stale\"
effect = \"deny\"
from = [\"any\"]
to = [\"line3/admin\"]
do = [\"connect\"]
unless_state = \"trusted\"

[[rule]]
id = \"stale-may-read\"
effect = \"allow\"
from = [\"group:scada\"]
to = [\"line3/admin\"]
do = [\"connect\"]
state = [\"trusted\", \"stale\"]
";
    let policy = assert_accepted(&format!("{full}{rules}"));
    assert_eq!(policy.report().summary.rules, 4);
    let labels: Labels = [("role", "gateway"), ("site", "suzhou")]
        .map(|(k, v)| (k.into(), v.into()))
        .into();
    let profiles = policy.profiles_for(&labels);
    assert_eq!(profiles.len(), 1);
    assert_eq!(profiles[0].firmware_deny, [0x0002_0004_0003_0001]);
    assert_eq!(profiles[0].offline, Some(Seconds::from_hours(72)));
    assert_eq!(profiles[0].tiers, [Tier::Hardware, Tier::Virtual]);
    assert_eq!(profiles[0].pcrs[&7], ["00".repeat(32)]);
    assert_eq!(profiles[0].mode, Mode::Enforce);
    assert_eq!(profiles[0].secure_boot, Some(true));
    assert_eq!(profiles[0].app_control, Some(AppControl::Fanotify));
    assert!(!policy.accepts_software(&labels));
    assert_eq!(policy.groups_of(&labels), ["gateways"]);
    assert_eq!(policy.groups_of(&Labels::new()), [""; 0]);
}

#[test]
fn every_opening_is_listed_with_its_place() {
    let text = base_with("{ site = [\"suzhou\"] }", "\"any\"").replacen(
        "pcr_bank",
        "mode = \"monitor\"\npcr_bank",
        1,
    ) + "
[profile.lab]
tier = [\"software\"]
[group.lab]
match = { role = [\"lab\"] }
profile = \"lab\"
[[rule]]
id = \"open\"
effect = \"allow\"
from = [\"any\"]
to = [\"any\"]
do = [\"connect\"]
tier = [\"software\", \"hardware\"]
state = [\"none\", \"trusted\"]
";
    let policy = assert_accepted(&text);
    let kinds: Vec<OpeningKind> = policy
        .report()
        .openings
        .iter()
        .map(|opening| opening.kind)
        .collect();
    assert_eq!(
        kinds,
        [
            OpeningKind::ScopeAny,
            OpeningKind::Monitor,
            OpeningKind::SoftwareTier,
            OpeningKind::FromAny,
            OpeningKind::ToAny,
            OpeningKind::UnprovenState,
            OpeningKind::SoftwareTier,
        ]
    );
    let shown = policy.report().openings[3].to_string();
    assert!(
        shown.starts_with("site/a.toml:") && shown.ends_with("opening: open: allows from any"),
        "{shown}"
    );
    let lab: Labels = [("role".to_owned(), "lab".to_owned())].into();
    assert!(policy.accepts_software(&lab));
}

#[test]
fn file_order_means_nothing() {
    let head = "schema = \"edgeward-policy/1\"\nowner = \"b\"\nscope = { site = [\"suzhou\"] }\n";
    let more = format!(
        "{head}[[rule]]\nid = \"a-first\"\neffect = \"allow\"\nfrom = [\"group:scada\"]\nto = [\"line3/admin\"]\ndo = [\"connect\"]\n"
    );
    let files = [
        SourceFile::new("b.toml", BASE),
        SourceFile::new("a.toml", more),
    ];
    let reversed = [files[1].clone(), files[0].clone()];
    let one = CompiledPolicy::compile(&files, 1).unwrap();
    let other = CompiledPolicy::compile(&reversed, 1).unwrap();
    assert_eq!(one.hash(), other.hash());
    assert_eq!(one.report().summary, other.report().summary);
}

#[test]
fn nearer_defaults_speak_and_a_sibling_directory_hears_nothing() {
    let head = "schema = \"edgeward-policy/1\"\nowner = \"x\"\nscope = \"any\"\n";
    let top = SourceFile::new(
        "top.toml",
        format!("{head}[defaults]\nfresh = \"9m\"\noffline = \"6h\"\nmax_offline = \"8h\"\n"),
    );
    let sibling = SourceFile::new("sit/x.toml", format!("{head}[defaults]\nfresh = \"1m\"\n"));
    let near = SourceFile::new("site/x.toml", format!("{head}[defaults]\nfresh = \"3m\"\n"));
    let policy = CompiledPolicy::compile(&[top, sibling, near, one(BASE)[0].clone()], 1).unwrap();
    let built_in = SourceFile::new(
        "top.toml",
        format!("{head}[defaults]\nmax_offline = \"8h\"\n"),
    );
    let capped = CompiledPolicy::compile(&[built_in, one(BASE)[0].clone()], 1).unwrap();
    assert_eq!(capped.rules[0].offline.default, Seconds::from_hours(8));
    let rule = &policy.rules[0];
    assert_eq!(rule.fresh.default, Seconds::new(180));
    assert_eq!(rule.offline.default, Seconds::from_hours(6));
    assert_eq!(rule.offline.most, Some(Seconds::from_hours(8)));
}
