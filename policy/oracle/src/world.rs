//! Random policies, as text, over a random fleet.

use std::fmt::Write;

use edgeward_identity::{AttestationState, Kind, SpiffeId, Tier, TrustDomain};
use edgeward_policy::testing::publishers_on;
use edgeward_policy::{CompiledPolicy, Fleet, FleetNode, SourceFile};

use crate::cedar::ZONES;
use crate::dice::Dice;

const ROLES: [&str; 3] = ["a", "b", "c"];
const SITES: [&str; 2] = ["x", "y"];
pub(crate) const OPERATORS: [&str; 3] = ["li", "wu", "yi"];
pub(crate) const DEVICES: [&str; 3] = ["v0", "v1", "v2"];
const KINDS: [&str; 2] = ["plc", "camera"];
pub(crate) const GROUPS: usize = 5;
pub(crate) const NODES: usize = 5;
/// Monday 2026-11-16T00:00:00Z.
pub(crate) const MONDAY: u64 = 1_794_787_200;
pub(crate) const WEEK: u64 = 7 * 86_400;

/// Interfaces: service, name, network, protocol and port, and which of [`PROTOCOLS`] it speaks.
pub(crate) const INTERFACES: [(&str, &str, &str, &str, Option<usize>); 7] = [
    ("s0", "p", "mesh", "tcp/1000", None),
    ("s0", "web", "mesh", "tcp/1001", Some(0)),
    ("s1", "p", "lan0", "udp/1002", None),
    ("s1", "web", "lan0", "tcp/1003", Some(0)),
    ("s2", "bus", "lan0", "tcp/1004", Some(1)),
    ("s2", "plain", "mesh", "udp/1005", None),
    ("s2", "topics", "mesh", "tcp/1006", Some(2)),
];

/// What there is to run, and what a rule may want of it.
pub(crate) const APPS: [&str; 3] = ["acme/collector", "acme/base", "evil/miner"];
const LEASTS: [&str; 4] = ["", ">=1", ">=2.3", ">=2.10"];
/// In their order, which is that of their numbers.
pub(crate) const VERSIONS: [&str; 8] = ["0.9", "1", "1.0.1", "2.2.9", "2.3", "2.3.1", "2.10", "11"];

/// A protocol's actions, and requests with the actions that they fit: the truth that pattern matching is held against.
pub(crate) struct Protocol {
    l7: &'static str,
    pub(crate) actions: &'static [&'static str],
    pub(crate) requests: &'static [(&'static str, &'static [&'static str])],
}

pub(crate) const PROTOCOLS: [Protocol; 3] = [
    Protocol {
        l7: "{ proto = \"http\", actions = { read = [\"GET /status/**\", \"GET /\"], write = [\"POST /config/*\", \"* /both\"], every = [\"* /status/*\", \"* /both\"] } }",
        actions: &["read", "write", "every"],
        requests: &[
            ("GET /status", &["read"]),
            ("GET /status/a", &["read", "every"]),
            ("GET /status/a/b", &["read"]),
            ("PUT /status/a", &["every"]),
            ("POST /config/a", &["write"]),
            ("POST /config", &[]),
            ("DELETE /both", &["write", "every"]),
            ("GET /", &["read"]),
            ("POST /", &[]),
        ],
    },
    Protocol {
        l7: "{ proto = \"modbus\", actions = { read = [\"fc:1-4\"], write = [\"fc:5,6,15,16 addr:0-99\"], setpoint = [\"fc:6 addr:40-49 unit:7\"] } }",
        actions: &["read", "write", "setpoint"],
        requests: &[
            ("fc:3 addr:10", &["read"]),
            ("fc:3 addr:500", &["read"]),
            ("fc:6 addr:40 unit:7", &["write", "setpoint"]),
            ("fc:6 addr:40 unit:1", &["write"]),
            ("fc:6 addr:50 unit:7", &["write"]),
            ("fc:16 addr:90-99 unit:1", &["write"]),
            ("fc:16 addr:90-100 unit:1", &[]),
            ("fc:43", &[]),
        ],
    },
    Protocol {
        l7: "{ proto = \"mqtt\", actions = { publish = [\"line3/+/temp\"], subscribe = [\"cmd/line3/#\"] } }",
        actions: &["publish", "subscribe"],
        requests: &[
            ("publish line3/a/temp", &["publish"]),
            ("publish line3/a/b/temp", &[]),
            ("publish line3/a", &[]),
            ("publish cmd/line3/a", &[]),
            ("subscribe cmd/line3/a", &["subscribe"]),
            ("subscribe cmd/line3/#", &["subscribe"]),
            ("subscribe cmd/#", &[]),
            ("subscribe line3/a/temp", &[]),
        ],
    },
];

/// Rules, and everything that they name.
pub(crate) struct World {
    pub(crate) policy: CompiledPolicy,
    pub(crate) fleet: Fleet,
    /// Names of groups that have a profile of their own.
    pub(crate) profiles: Vec<String>,
}

impl World {
    /// A rule that does nothing is refused: those go, and what is left is the policy.
    pub(crate) fn random(dice: &mut Dice) -> Self {
        let head = head(dice);
        let count = 4 + dice.below(12);
        let mut rules: Vec<String> = (0..count).map(|number| rule(number, dice)).collect();
        let policy = loop {
            let text = format!("{head}{}", rules.concat());
            let report = match CompiledPolicy::compile(&[SourceFile::new("p.toml", text)], 7) {
                Ok(policy) => break policy,
                Err(report) => report,
            };
            let before = rules.len();
            let mut end = head.lines().count();
            rules.retain(|rule| {
                let start = end;
                end += rule.lines().count();
                let own = start + 1..=end;
                let mut diagnostics = report.diagnostics.iter();
                !diagnostics.any(|diagnostic| own.contains(&diagnostic.line))
            });
            assert!(rules.len() < before, "{head}{}{report}", rules.concat());
        };
        let nodes = (0..NODES).map(|index| FleetNode {
            id: name(index),
            labels: [
                ("role".to_owned(), ROLES[dice.below(3)].to_owned()),
                ("site".to_owned(), SITES[dice.below(2)].to_owned()),
            ]
            .into(),
            // Most rules are about none without a TPM.
            tier: Tier::ALL[dice.below(12) % 5 % 4],
            v4: None,
        });
        Self {
            fleet: Fleet {
                nodes: nodes.collect(),
            },
            profiles: policy
                .whole()
                .profiles
                .iter()
                .map(|one| one.name.clone())
                .collect(),
            policy,
        }
    }
}

fn head(dice: &mut Dice) -> String {
    let mut text = String::from("schema = \"edgeward-policy/1\"\nowner = \"o\"\nscope = \"any\"\n");
    if dice.one_in(3) {
        writeln!(
            text,
            "[defaults]\nmax_offline = \"{}m\"",
            60 * (10 + dice.below(4))
        )
        .unwrap();
    }
    for group in 0..GROUPS {
        let role = format!("role = [{}]", quoted(&dice.some(&ROLES)));
        let site = format!("site = [{}]", quoted(&dice.some(&SITES)));
        let matches =
            [role.clone(), site.clone(), format!("{role}, {site}")][dice.below(3)].clone();
        writeln!(text, "[group.g{group}]\nmatch = {{ {matches} }}").unwrap();
        if dice.one_in(2) {
            continue;
        }
        writeln!(text, "profile = \"g{group}\"\n[profile.g{group}]\ntier = [\"hardware\", \"listed\", \"virtual\", \"software\"]\npcr = {{ 0 = [\"sha256:{}\"] }}", "00".repeat(32)).unwrap();
        for key in ["fresh", "offline"] {
            if dice.one_in(2) {
                writeln!(text, "{key} = \"{}m\"", dice.minutes()).unwrap();
            }
        }
    }
    text += &publishers_on("g0");
    for (index, kind) in KINDS.iter().enumerate() {
        writeln!(
            text,
            "[group.d{index}]\nmatch = {{ kind = [\"{kind}\"] }}\nvia = \"g{}\"",
            dice.below(GROUPS)
        )
        .unwrap();
    }
    for (index, device) in DEVICES.iter().enumerate() {
        writeln!(text, "[device.{device}]\nnode = \"n{}\"\ninterface = \"lan{}\"\nlabels = {{ kind = \"{}\" }}\nmatch = {{ mac = \"02:00:00:00:00:1{index}\" }}", dice.below(NODES), usize::from(dice.one_in(4)), KINDS[dice.below(2)]).unwrap();
    }
    writeln!(
        text,
        "[operator-group.o0]\nmembers = [{}]",
        quoted(&operators(dice))
    )
    .unwrap();
    let mut members = operators(dice);
    if dice.one_in(2) {
        members.push("operator-group:o0".to_owned());
    }
    writeln!(
        text,
        "[operator-group.o1]\nmembers = [{}]",
        quoted(&members)
    )
    .unwrap();
    for service in 0..3 {
        writeln!(
            text,
            "[service.s{service}]\non = \"g{}\"",
            dice.below(GROUPS)
        )
        .unwrap();
        for (of, name, net, l4, protocol) in INTERFACES {
            if of == format!("s{service}") {
                writeln!(
                    text,
                    "[service.{of}.interface.{name}]\nnet = \"{net}\"\nl4 = \"{l4}\""
                )
                .unwrap();
                if let Some(protocol) = protocol {
                    writeln!(text, "l7 = {}", PROTOCOLS[protocol].l7).unwrap();
                }
            }
        }
    }
    text
}

fn operators(dice: &mut Dice) -> Vec<String> {
    let some = dice.some(&OPERATORS);
    some.iter().map(|name| format!("operator/{name}")).collect()
}

fn rule(number: usize, dice: &mut Dice) -> String {
    let allow = !dice.one_in(4);
    let mut text = String::new();
    let mut when = Vec::new();
    if dice.one_in(3) {
        let (from, to) = (dice.below(1440), 1 + dice.below(1440));
        let to = if from == to { 1440 } else { to };
        let clock = |minute: usize| format!("{:02}:{:02}", minute / 60, minute % 60);
        let days = dice.some(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"]);
        writeln!(
            text,
            "tz = \"{}\"\ndays = [{}]\nfrom = \"{}\"\nto = \"{}\"",
            ZONES[dice.below(4)].0,
            quoted(&days),
            clock(from),
            clock(to)
        )
        .unwrap();
        text = format!("[window.w{number}]\n{text}");
        when.push(format!("window = \"w{number}\""));
    }
    if dice.one_in(4) {
        let until = MONDAY + u64::try_from(dice.below(usize::try_from(WEEK).unwrap())).unwrap();
        let until = jiff::Timestamp::from_second(i64::try_from(until).unwrap()).unwrap();
        when.push(format!("until = {until}"));
    }
    let (to, actions) = targets(dice);
    let effect = if allow { "allow" } else { "deny" };
    let mut rule = format!(
        "[[rule]]\nid = \"r{number}\"\neffect = \"{effect}\"\nfrom = [{}]\nto = [{}]\ndo = [{}]\n",
        quoted(&sources(dice)),
        quoted(&to),
        quoted(&actions)
    );
    if !when.is_empty() {
        writeln!(rule, "when = {{ {} }}", when.join(", ")).unwrap();
    }
    for key in ["fresh", "offline"] {
        if allow && dice.one_in(4) {
            writeln!(rule, "{key} = \"{}m\"", dice.minutes().min(60)).unwrap();
        }
    }
    if dice.one_in(5) {
        let tiers: Vec<&str> = dice
            .some(&Tier::ALL)
            .iter()
            .map(|tier| tier.as_str())
            .collect();
        writeln!(rule, "tier = [{}]", quoted(&tiers)).unwrap();
    }
    if dice.one_in(5) {
        let states = dice.some(&AttestationState::ALL);
        let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        let key = if allow { "state" } else { "unless_state" };
        writeln!(rule, "{key} = [{}]", quoted(&states)).unwrap();
    }
    if dice.one_in(8) {
        writeln!(rule, "profile = [\"g{}\"]", dice.below(GROUPS)).unwrap();
    }
    if dice.one_in(4) {
        let wants = dice.some(&APPS).into_iter();
        let wants: Vec<String> = wants
            .take(2)
            .map(|app| format!("{app}{}", LEASTS[dice.below(LEASTS.len())]))
            .collect();
        writeln!(rule, "runs = [{}]", quoted(&wants)).unwrap();
    }
    if allow && dice.one_in(5) {
        writeln!(
            rule,
            "approval = {{ by = [\"operator-group:o0\"], quorum = 1, ttl = \"2h\" }}"
        )
        .unwrap();
    }
    text + rule.as_str()
}

fn sources(dice: &mut Dice) -> Vec<String> {
    let mut groups: Vec<String> = (0..GROUPS).map(|group| format!("group:g{group}")).collect();
    groups.extend(["group:d0".to_owned(), "group:d1".to_owned()]);
    let operators = [
        "operator-group:o0".to_owned(),
        "operator-group:o1".to_owned(),
    ];
    match dice.below(6) {
        0 | 5 => vec!["any".to_owned()],
        1 => dice.some(&operators),
        2 => vec![
            groups[dice.below(7)].clone(),
            operators[dice.below(2)].clone(),
        ],
        _ => {
            groups.retain(|_| dice.one_in(3));
            if groups.is_empty() {
                groups.push(format!("group:g{}", dice.below(GROUPS)));
            }
            groups
        }
    }
}

fn targets(dice: &mut Dice) -> (Vec<String>, Vec<String>) {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    if dice.one_in(6) {
        let every = [
            "connect",
            "read",
            "write",
            "every",
            "setpoint",
            "publish",
            "subscribe",
        ];
        return (vec!["any".to_owned()], owned(&dice.some(&every)));
    }
    let (.., protocol) = INTERFACES[dice.below(INTERFACES.len())];
    let alike: Vec<String> = INTERFACES
        .iter()
        .filter(|(.., speaks)| *speaks == protocol)
        .map(|(service, name, ..)| format!("{service}/{name}"))
        .collect();
    let actions = match protocol {
        None => owned(&["connect"]),
        Some(protocol) => owned(&dice.some(PROTOCOLS[protocol].actions)),
    };
    (dice.some(&alike), actions)
}

fn quoted<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<String> = items
        .iter()
        .map(|item| format!("{:?}", item.as_ref()))
        .collect();
    items.join(", ")
}

pub(crate) fn name(index: usize) -> SpiffeId {
    id(Kind::Node, &format!("n{index}"))
}

pub(crate) fn id(kind: Kind, name: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::new("plant.example").unwrap(), kind, name).unwrap()
}
