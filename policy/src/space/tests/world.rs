//! Random pairs of policies, written as text, and random points.

use std::fmt::Write;
use std::time::Duration;

use edgeward_identity::{AttestationState, Kind, SpiffeId, Tier, Timestamp, TrustDomain};

use crate::decision::{Link, Standing};
use crate::fleet::{Fleet, FleetNode, Labels};
use crate::profile::{ProfileLabel, StatedProfiles};
use crate::space::wording::written;
use crate::{CompiledPolicy, SourceFile};

pub(super) const ROLES: [&str; 4] = ["a", "b", "c", "other"];
pub(super) const SITES: [&str; 3] = ["x", "y", "other"];
pub(super) const OPERATORS: [&str; 4] = ["li", "wu", "yi", "zu"];
const INTERFACES: [(&str, &str, u16); 4] = [
    ("s0", "p", 1000),
    ("s0", "q", 1001),
    ("s1", "p", 1002),
    ("s2", "w", 1003),
];
/// 2026-11-16T00:00:00Z, a Monday.
pub(super) const SINCE: u64 = 1_794_787_200;
const ZONES: [&str; 3] = ["Asia/Shanghai", "Europe/Berlin", "America/New_York"];

pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn some<T: Clone>(&mut self, of: &[T]) -> Vec<T> {
        let some: Vec<T> = of.iter().filter(|_| self.one_in(2)).cloned().collect();
        match some.is_empty() {
            true => vec![of[self.below(of.len())].clone()],
            false => some,
        }
    }

    fn minutes(&mut self) -> u64 {
        [1, 5, 10, 30, 60, 600][self.below(6)]
    }
}

#[derive(Clone, Debug)]
pub(super) struct World {
    /// Roles and sites that each matches; empty: any.
    groups: Vec<(Vec<usize>, Vec<usize>)>,
    /// Fresh and offline of the group's profile, where it says so, and a piece of what it measures.
    profiles: Vec<(Option<u64>, Option<u64>, u8)>,
    operators: Vec<Vec<usize>>,
    service_groups: Vec<usize>,
    windows: Vec<(usize, Vec<usize>, usize, usize)>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    id: usize,
    allow: bool,
    from: String,
    to: Vec<usize>,
    actions: Vec<usize>,
    conditions: String,
    pub(super) until: Option<u64>,
}

impl World {
    pub(super) fn random(dice: &mut Dice) -> Self {
        Self {
            groups: (0..5).map(|_| group(dice)).collect(),
            profiles: (0..5).map(|_| profile(dice)).collect(),
            operators: (0..2).map(|_| dice.some(&[0, 1, 2])).collect(),
            service_groups: (0..3).map(|_| dice.below(5)).collect(),
            windows: (0..3).map(|_| window(dice)).collect(),
            rules: (0..4 + dice.below(8))
                .map(|id| Rule::random(id, dice))
                .collect(),
        }
    }

    /// Another policy that has much in common with this one.
    pub(super) fn changed(&self, dice: &mut Dice) -> Self {
        let mut world = self.clone();
        for _ in 0..1 + dice.below(3) {
            match dice.below(9) {
                0 => {
                    let index = dice.below(5);
                    world.groups[index] = group(dice);
                }
                1 => {
                    let index = dice.below(5);
                    world.profiles[index] = profile(dice);
                }
                2 => {
                    let index = dice.below(2);
                    world.operators[index] = dice.some(&[0, 1, 2, 3]);
                }
                3 => {
                    let index = dice.below(3);
                    world.service_groups[index] = dice.below(5);
                }
                4 => {
                    let index = dice.below(3);
                    world.windows[index] = window(dice);
                }
                5 => world.rules.push(Rule::random(50 + dice.below(40), dice)),
                6 => {
                    let index = dice.below(world.rules.len());
                    world.rules.remove(index);
                }
                _ => {
                    let index = dice.below(world.rules.len());
                    world.rules[index] = Rule::random(world.rules[index].id, dice);
                }
            }
            if world.rules.is_empty() {
                world.rules.push(Rule::random(99, dice));
            }
        }
        world.rules.sort_by_key(|rule| rule.id);
        world.rules.dedup_by_key(|rule| rule.id);
        world
    }

    /// Rules that the check calls useless are left out.
    pub(super) fn compile(mut self) -> (Self, CompiledPolicy) {
        loop {
            let text = self.text();
            match CompiledPolicy::compile(&[SourceFile::new("p.toml", &text)], 1) {
                Ok(policy) => return (self, policy),
                Err(report) => {
                    let before = self.rules.len();
                    let shown = report.to_string();
                    self.rules
                        .retain(|rule| !shown.contains(&format!("rule `r{}` ", rule.id)));
                    assert!(self.rules.len() < before, "{report}\n{text}");
                }
            }
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text =
            String::from("schema = \"edgeward-policy/1\"\nowner = \"o\"\nscope = \"any\"\n");
        for (index, ((roles, sites), (fresh, offline, measured))) in
            self.groups.iter().zip(&self.profiles).enumerate()
        {
            let named = |key: &str, names: &[&str], chosen: &[usize]| {
                let values: Vec<&str> = chosen.iter().map(|index| names[*index]).collect();
                (!values.is_empty()).then(|| format!("{key} = {values:?}"))
            };
            let matches: Vec<String> = [named("role", &ROLES, roles), named("site", &SITES, sites)]
                .into_iter()
                .flatten()
                .collect();
            let term = |name: &str, minutes: &Option<u64>| {
                minutes.map_or(String::new(), |minutes| {
                    format!("{name} = \"{minutes}m\"\n")
                })
            };
            write!(
                text,
                "[profile.g{index}]\ntier = [\"hardware\", \"listed\", \"virtual\", \"software\"]\npcr = {{ 0 = [\"sha256:{}\"] }}\n{}{}[group.g{index}]\nmatch = {{ {} }}\nprofile = \"g{index}\"\n",
                format!("{measured:02x}").repeat(32),
                term("fresh", fresh),
                term("offline", offline),
                matches.join(", ")
            )
            .unwrap();
        }
        for (index, members) in self.operators.iter().enumerate() {
            let members: Vec<String> = members
                .iter()
                .map(|member| format!("operator/{}", OPERATORS[*member]))
                .collect();
            write!(text, "[operator-group.o{index}]\nmembers = {members:?}\n").unwrap();
        }
        for (index, group) in self.service_groups.iter().enumerate() {
            write!(text, "[service.s{index}]\non = \"g{group}\"\n").unwrap();
            let service = format!("s{index}");
            for (_, name, port) in INTERFACES.iter().filter(|one| one.0 == service) {
                write!(
                    text,
                    "[service.s{index}.interface.{name}]\nnet = \"mesh\"\nl4 = \"tcp/{port}\"\n"
                )
                .unwrap();
                if *name == "w" {
                    text.push_str("l7 = { proto = \"http\", actions = { read = [\"GET /**\"], write = [\"POST /**\"] } }\n");
                }
            }
        }
        for (index, (zone, days, from, to)) in self.windows.iter().enumerate() {
            let days: Vec<&str> = days
                .iter()
                .map(|day| ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][*day])
                .collect();
            let clock = |half: usize| format!("{:02}:{:02}", half / 2, half % 2 * 30);
            write!(
                text,
                "[window.w{index}]\ntz = \"{}\"\ndays = {days:?}\nfrom = \"{}\"\nto = \"{}\"\n",
                ZONES[*zone],
                clock(*from),
                clock(*to)
            )
            .unwrap();
        }
        for rule in &self.rules {
            rule.write(&mut text);
        }
        text
    }
}

fn group(dice: &mut Dice) -> (Vec<usize>, Vec<usize>) {
    match (dice.one_in(3), dice.one_in(2)) {
        (true, _) => (Vec::new(), dice.some(&[0, 1])),
        (false, true) => (dice.some(&[0, 1, 2]), Vec::new()),
        (false, false) => (dice.some(&[0, 1, 2]), dice.some(&[0, 1])),
    }
}

fn profile(dice: &mut Dice) -> (Option<u64>, Option<u64>, u8) {
    let fresh = (!dice.one_in(2)).then(|| dice.minutes());
    let offline = (!dice.one_in(2)).then(|| dice.minutes());
    (fresh, offline, u8::try_from(dice.below(2)).unwrap())
}

fn window(dice: &mut Dice) -> (usize, Vec<usize>, usize, usize) {
    let (from, mut to) = (dice.below(48), dice.below(48));
    if from == to {
        to = (to + 1) % 48;
    }
    (dice.below(3), dice.some(&[0, 1, 2, 3, 4, 5, 6]), from, to)
}

impl Rule {
    fn random(id: usize, dice: &mut Dice) -> Self {
        let allow = !dice.one_in(4);
        let from = match dice.below(8) {
            0 => "[\"any\"]".to_owned(),
            1 | 2 => format!(
                "{:?}",
                dice.some(&["operator-group:o0", "operator-group:o1"])
            ),
            3 => format!(
                "{:?}",
                dice.some(&["group:g0", "operator-group:o1", "group:g3"])
            ),
            _ => format!(
                "{:?}",
                dice.some(&["group:g0", "group:g1", "group:g2", "group:g3", "group:g4"])
            ),
        };
        let l7 = dice.one_in(3);
        let to = if l7 { vec![3] } else { dice.some(&[0, 1, 2]) };
        let mut conditions = String::new();
        if dice.one_in(5) {
            let tiers = dice.some(&["hardware", "listed", "virtual", "software"]);
            writeln!(conditions, "tier = {tiers:?}").unwrap();
        }
        if dice.one_in(4) {
            let key = if allow { "state" } else { "unless_state" };
            let states = dice.some(&["trusted", "stale", "failed", "none"]);
            writeln!(conditions, "{key} = {states:?}").unwrap();
        }
        if dice.one_in(4) {
            let profiles = dice.some(&["g0", "g1", "g2"]);
            writeln!(conditions, "profile = {profiles:?}").unwrap();
        }
        if allow && dice.one_in(4) {
            writeln!(conditions, "fresh = \"{}m\"", dice.minutes()).unwrap();
        }
        if allow && dice.one_in(4) {
            writeln!(conditions, "offline = \"{}m\"", dice.minutes()).unwrap();
        }
        let until = dice.one_in(4).then(|| {
            let hour = u64::try_from(dice.below(24 * 40)).unwrap();
            SINCE + hour * 3600
        });
        let window = dice.one_in(3).then(|| dice.below(3));
        let when: Vec<String> = window
            .map(|window| format!("window = \"w{window}\""))
            .into_iter()
            .chain(until.map(|until| {
                let until = written(Timestamp::from_secs(until));
                format!("until = {until}")
            }))
            .collect();
        if !when.is_empty() {
            writeln!(conditions, "when = {{ {} }}", when.join(", ")).unwrap();
        }
        Self {
            id,
            allow,
            from,
            to,
            actions: dice.some(&[0, 1]),
            conditions,
            until,
        }
    }

    fn write(&self, text: &mut String) {
        let effect = if self.allow { "allow" } else { "deny" };
        let to: Vec<String> = self
            .to
            .iter()
            .map(|index| format!("{}/{}", INTERFACES[*index].0, INTERFACES[*index].1))
            .collect();
        let actions: Vec<&str> = match self.to.contains(&3) {
            true => self
                .actions
                .iter()
                .map(|one| ["read", "write"][*one])
                .collect(),
            false => vec!["connect"],
        };
        write!(
            text,
            "[[rule]]\nid = \"r{}\"\neffect = \"{effect}\"\nfrom = {}\nto = {to:?}\ndo = {actions:?}\n{}",
            self.id, self.from, self.conditions
        )
        .unwrap();
    }
}

/// One question.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) subject: SpiffeId,
    /// Of a node.
    pub(super) labels: Labels,
    pub(super) service: &'static str,
    pub(super) interface: &'static str,
    pub(super) action: &'static str,
    pub(super) standing: Standing,
    /// What the result says of profiles; `None`: unknown.
    pub(super) stated: Option<Vec<ProfileLabel>>,
    pub(super) link: Link,
    pub(super) now: Timestamp,
}

pub(super) fn id(kind: Kind, name: &str) -> SpiffeId {
    let domain = TrustDomain::new("plant.example").unwrap();
    SpiffeId::new(&domain, kind, name).unwrap()
}

/// A node for each point of label space that the groups can tell apart.
pub(super) fn fleet() -> Fleet {
    let mut nodes = Vec::new();
    for role in ROLES {
        for site in SITES {
            nodes.push(FleetNode {
                id: id(Kind::Node, &format!("{role}-{site}")),
                labels: [
                    ("role".to_owned(), role.to_owned()),
                    ("site".to_owned(), site.to_owned()),
                ]
                .into(),
                tier: Tier::Hardware,
                v4: None,
            });
        }
    }
    Fleet { nodes }
}

pub(super) fn point(
    dice: &mut Dice,
    fleet: &Fleet,
    rules: &[Rule],
    labels: &[ProfileLabel],
) -> Point {
    let (subject, node_labels) = match dice.one_in(4) {
        true => (id(Kind::Operator, OPERATORS[dice.below(4)]), Labels::new()),
        false => {
            let node = &fleet.nodes[dice.below(fleet.nodes.len())];
            (node.id.clone(), node.labels.clone())
        }
    };
    let (service, interface, _) = INTERFACES[dice.below(4)];
    let action = match interface {
        "w" => ["read", "write"][dice.below(2)],
        _ => "connect",
    };
    let now = time(dice, rules);
    let stated = match dice.below(6) {
        0 => None,
        1 => Some(Vec::new()),
        _ => {
            let mut stated = if labels.is_empty() {
                Vec::new()
            } else {
                dice.some(labels)
            };
            stated.sort();
            stated.dedup_by(|one, other| one.name() == other.name());
            if dice.one_in(4) {
                stated.retain(|label| label.name() != "g0");
                stated.push("g0@0123456789abcdef".parse().unwrap());
            }
            Some(stated)
        }
    };
    let profiles = stated.as_ref().map(|stated| {
        let text = StatedProfiles::text(stated).unwrap();
        match text.as_str() {
            "" => StatedProfiles::NONE,
            text => StatedProfiles::parse(text).unwrap(),
        }
    });
    let nearly = |dice: &mut Dice| Duration::from_millis(u64::try_from(dice.below(3)).unwrap());
    let age = |dice: &mut Dice| {
        let minutes = dice.minutes();
        now.minus(Duration::from_secs(minutes * 60))
            .plus(nearly(dice))
            .minus(Duration::from_millis(1))
    };
    let last_pass = match dice.below(8) {
        0 => None,
        1 => Some(now.plus(Duration::from_secs(90))),
        2 | 3 => Some(age(dice)),
        _ => Some(now.minus(Duration::from_secs(30))),
    };
    let link = match dice.one_in(3) {
        true => Link::Offline {
            last_heartbeat: age(dice),
        },
        false => Link::Online,
    };
    Point {
        subject,
        labels: node_labels,
        service,
        interface,
        action,
        standing: Standing {
            state: match dice.one_in(3) {
                true => AttestationState::ALL[dice.below(5)],
                false => AttestationState::Trusted,
            },
            tier: match dice.one_in(9) {
                true => None,
                false => Some(Tier::ALL[dice.below(4)]),
            },
            last_pass,
            profiles,
            runs: None,
        },
        stated,
        link,
        now,
    }
}

/// Near the end of a rule, at a half hour of any day of a year, or anywhere.
fn time(dice: &mut Dice, rules: &[Rule]) -> Timestamp {
    let wobble = u64::try_from(dice.below(3)).unwrap();
    let until = rules
        .get(dice.below(rules.len().max(1)))
        .and_then(|rule| rule.until);
    let millis = match (dice.below(3), until) {
        (0, Some(until)) => until * 1000 + wobble,
        (1, _) => {
            let half = u64::try_from(dice.below(52 * 7 * 48)).unwrap();
            (SINCE + half * 1800) * 1000 + wobble
        }
        _ => (SINCE + u64::try_from(dice.below(40 * 86_400)).unwrap()) * 1000 + 1,
    };
    Timestamp::from_millis((millis - 1).max(SINCE * 1000))
}
