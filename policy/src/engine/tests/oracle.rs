//! Random policies over random fleets, decided by a second, plainer reading of the format: straight from the
//! random parts that the policy text was written from, for the whole fleet at once, without slices, groups of
//! numbers, time zones or caches.

use std::fmt::Write;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;
use crate::filter::{self, FilterSubject};
use crate::profile::{ProfileLabel, StatedProfiles};

const ROLES: [&str; 3] = ["a", "b", "c"];
const SITES: [&str; 2] = ["x", "y"];
const OPERATORS: [&str; 3] = ["li", "wu", "yi"];
const INTERFACES: [(&str, &str, u16); 4] = [
    ("s0", "p", 1000),
    ("s0", "q", 1001),
    ("s1", "p", 1002),
    ("s2", "p", 1003),
];
/// Monday 2026-11-16T00:00:00Z.
const MONDAY: u64 = 1_794_787_200;
const WEEK: u64 = 7 * 86_400;

/// Profiles by the number of their group, and whether each is named as it is now; `None`: unknown.
type Named = Option<Vec<(usize, bool)>>;
/// The group's role and site, where it names them.
type GroupOf = (Option<usize>, Option<usize>);

#[derive(Debug)]
struct World {
    groups: Vec<GroupOf>,
    /// Of each group: fresh and offline of its profile, in minutes.
    profiles: Vec<(u64, u64)>,
    operators: Vec<Vec<usize>>,
    service_groups: Vec<usize>,
    rules: Vec<RandomRule>,
    /// Role, site and tier.
    nodes: Vec<(usize, usize, Tier)>,
}

#[derive(Clone, Debug)]
struct RandomRule {
    id: usize,
    allow: bool,
    from: RandomFrom,
    to: Vec<usize>,
    /// Start and end in minutes of the day, Monday and Wednesday, eight hours ahead of UTC.
    window: Option<(u64, u64)>,
    until: Option<u64>,
    fresh: Option<u64>,
    offline: Option<u64>,
    tiers: Vec<Tier>,
    states: Vec<AttestationState>,
    /// Numbers of groups, for the profiles of the same names.
    profiles: Vec<usize>,
}

#[derive(Clone, Debug)]
enum RandomFrom {
    Any,
    Groups(Vec<usize>),
    Operators(Vec<usize>),
}

#[derive(Clone, Copy, Debug)]
enum Asker {
    Node(usize),
    Operator(usize),
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn some<T: Clone>(&mut self, of: &[T]) -> Vec<T> {
        let some: Vec<T> = of.iter().filter(|_| self.one_in(2)).cloned().collect();
        if some.is_empty() {
            vec![of[self.below(of.len())].clone()]
        } else {
            some
        }
    }

    fn minutes(&mut self) -> u64 {
        [1, 5, 10, 30, 60, 600][self.below(6)]
    }
}

proptest! {
    #![proptest_config(Config { cases: 150, ..Config::default() })]

    #[test]
    fn slices_engine_and_filter_decide_as_the_plain_reading_of_the_whole_policy(seed: u64) {
        let mut dice = Dice(seed);
        let (world, policy) = compiled_world(&mut dice);
        let fleet = world.fleet();
        let index = policy.index(&fleet);
        for target in 0..world.nodes.len() {
            let slice = policy.slice_of(&index, &name(target), end()).unwrap();
            let engine = Engine::new(Arc::new(slice)).unwrap();
            for _ in 0..120 {
                compare(&world, &policy, &engine, target, &mut dice)?;
            }
            compare_filter(&world, &policy, &engine, &mut dice)?;
            compare_egress(&world, &policy, &engine, target)?;
        }
    }
}

fn compare(
    world: &World,
    policy: &CompiledPolicy,
    engine: &Engine,
    target: usize,
    dice: &mut Dice,
) -> Result<(), TestCaseError> {
    let asker = if dice.one_in(5) {
        Asker::Operator(dice.below(OPERATORS.len()))
    } else {
        Asker::Node(dice.below(world.nodes.len()))
    };
    let (service, interface, _) = INTERFACES[dice.below(INTERFACES.len())];
    let now = world.time(dice);
    let (standing, named) = random_standing(world, policy, asker, now, dice);
    let link = if dice.one_in(2) {
        Link::Online
    } else {
        Link::Offline {
            last_heartbeat: now.minus(minutes(dice.minutes())),
        }
    };
    let id = asker.id();
    let ask = |now: Timestamp| {
        engine.decide(&Request {
            subject: Subject::Id(&id),
            standing,
            target: Target::Named { service, interface },
            action: ActionId::CONNECT,
            link,
            now,
        })
    };
    let expect = |now: Timestamp| {
        now < end()
            && world.allows(
                asker,
                target,
                (service, interface),
                (standing, &named),
                link,
                now,
            )
    };
    let decision = ask(now);
    prop_assert_ne!(decision.reason, Reason::Internal);
    prop_assert_eq!(
        decision.is_allow(),
        expect(now),
        "{:?} {:?} {:?} {:?}",
        asker,
        standing,
        link,
        decision
    );
    prop_assert_eq!(ask(now), decision.clone(), "asked twice");
    // Until it ends, nothing but news may change it; and it ends in the future.
    prop_assert!(decision.valid_until > now || now >= end());
    let last = decision.valid_until.minus(Duration::from_millis(1));
    let middle = Timestamp::from_millis(now.millis().midpoint(last.millis()));
    for later in [middle, last].into_iter().filter(|later| *later > now) {
        prop_assert_eq!(
            decision.is_allow(),
            expect(later),
            "at {} of {:?}",
            later,
            decision
        );
    }
    Ok(())
}

fn compare_filter(
    world: &World,
    policy: &CompiledPolicy,
    engine: &Engine,
    dice: &mut Dice,
) -> Result<(), TestCaseError> {
    let now = world.time(dice);
    let peers: Vec<(PeerIndex, Standing)> = (0..world.nodes.len())
        .filter_map(|node| {
            let (standing, _) = random_standing(world, policy, Asker::Node(node), now, dice);
            Some((engine.peer(&name(node))?, standing))
        })
        .collect();
    let subjects: Vec<_> = peers
        .iter()
        .map(|(peer, standing)| (FilterSubject::Peer(*peer), *standing))
        .collect();
    let rows = filter::rows(engine, &subjects, Link::Online, now);
    for interface in &rows.interfaces {
        for (peer, standing) in &peers {
            let decision = engine.decide(&Request {
                subject: Subject::Peer(*peer),
                standing: *standing,
                target: Target::Interface(interface.interface),
                action: ActionId::CONNECT,
                link: Link::Online,
                now,
            });
            let entry = interface
                .allowed
                .iter()
                .find(|entry| entry.subject == FilterSubject::Peer(*peer));
            prop_assert_eq!(decision.is_allow(), entry.is_some());
            prop_assert_eq!(
                decision.rule.filter(|_| entry.is_some()),
                entry.map(|entry| entry.rule.clone())
            );
            prop_assert!(entry.is_none_or(|entry| entry.valid_until == decision.valid_until));
            prop_assert!(rows.valid_until <= decision.valid_until);
        }
    }
    Ok(())
}

/// Whatever any node could be allowed at a target is open on its way out.
fn compare_egress(
    world: &World,
    policy: &CompiledPolicy,
    engine: &Engine,
    source: usize,
) -> Result<(), TestCaseError> {
    let named: Named = Some(
        (0..world.groups.len())
            .filter(|group| world.is_in(source, *group))
            .map(|group| (group, true))
            .collect(),
    );
    let profiles = stated(policy, &named);
    for target in (0..world.nodes.len()).filter(|target| *target != source) {
        let tier = world.nodes[source].2;
        let state = if tier == Tier::Software {
            AttestationState::None
        } else {
            AttestationState::Trusted
        };
        for (service, interface, port) in INTERFACES {
            for hour in 0..7 * 24 {
                let now = Timestamp::from_secs(MONDAY + hour * 3600 + 1800);
                let standing = Standing {
                    state,
                    tier: Some(tier),
                    last_pass: Some(now),
                    profiles,
                    runs: None,
                };
                let allowed = world.allows(
                    Asker::Node(source),
                    target,
                    (service, interface),
                    (standing, &named),
                    Link::Online,
                    now,
                );
                if !allowed {
                    continue;
                }
                let Some(peer) = engine.peer(&name(target)) else {
                    return Err(TestCaseError::fail("a reachable node is no peer"));
                };
                let theirs = Standing {
                    state: AttestationState::Trusted,
                    tier: Some(Tier::Hardware),
                    last_pass: Some(now),
                    profiles: Some(StatedProfiles::NONE),
                    runs: None,
                };
                let egress =
                    engine.decide_egress(peer, (Proto::Tcp, port), theirs, Link::Online, now);
                prop_assert!(
                    egress.is_allow(),
                    "{} {} at {}: {:?}",
                    target,
                    port,
                    now,
                    egress
                );
                break;
            }
        }
    }
    Ok(())
}

fn random_standing(
    world: &World,
    policy: &CompiledPolicy,
    asker: Asker,
    now: Timestamp,
    dice: &mut Dice,
) -> (Standing, Named) {
    let named: Named = match dice.below(6) {
        0 => None,
        1 => Some(Vec::new()),
        _ => Some(
            dice.some(&[0, 1, 2, 3, 4])
                .into_iter()
                .map(|group| (group, !dice.one_in(4)))
                .collect(),
        ),
    };
    let tier = match asker {
        Asker::Node(node) if !dice.one_in(4) => Some(world.nodes[node].2),
        _ if dice.one_in(8) => None,
        _ => Some(Tier::ALL[dice.below(4)]),
    };
    let state = if dice.one_in(2) {
        AttestationState::Trusted
    } else {
        AttestationState::ALL[dice.below(5)]
    };
    let age = minutes(dice.minutes());
    let nearly = Duration::from_millis(u64::try_from(dice.below(3)).unwrap());
    let last_pass = match dice.below(8) {
        0 => None,
        1 => Some(now.plus(age)),
        2 => Some(now.minus(age).plus(nearly)),
        _ => Some(now.minus(Duration::from_secs(30))),
    };
    let standing = Standing {
        state,
        tier,
        last_pass,
        profiles: stated(policy, &named),
        runs: None,
    };
    (standing, named)
}

/// As a result would say it.
fn stated(policy: &CompiledPolicy, named: &Named) -> Option<StatedProfiles> {
    let labels: Vec<ProfileLabel> = named
        .as_ref()?
        .iter()
        .map(|(group, now)| {
            let name = format!("g{group}");
            match now {
                true => policy
                    .labels
                    .iter()
                    .find(|label| label.name() == name)
                    .unwrap()
                    .clone(),
                false => format!("{name}@0123456789abcdef").parse().unwrap(),
            }
        })
        .collect();
    match StatedProfiles::text(&labels).unwrap().as_str() {
        "" => Some(StatedProfiles::NONE),
        text => StatedProfiles::parse(text),
    }
}

/// Rules that the check calls useless are left out: what is left means the same.
fn compiled_world(dice: &mut Dice) -> (World, CompiledPolicy) {
    let mut world = World::random(dice);
    loop {
        let text = world.text();
        match CompiledPolicy::compile(&[SourceFile::new("p.toml", &text)], 1) {
            Ok(policy) => return (world, policy),
            Err(report) => {
                let before = world.rules.len();
                let shown = report.to_string();
                world
                    .rules
                    .retain(|rule| !shown.contains(&format!("rule `r{}` ", rule.id)));
                assert!(world.rules.len() < before, "{report}\n{text}");
            }
        }
    }
}

impl World {
    fn random(dice: &mut Dice) -> Self {
        let groups: Vec<GroupOf> = (0..5)
            .map(|_| match (dice.one_in(3), dice.one_in(2)) {
                (true, _) => (None, Some(dice.below(2))),
                (false, true) => (Some(dice.below(3)), None),
                (false, false) => (Some(dice.below(3)), Some(dice.below(2))),
            })
            .collect();
        let rules = (0..4 + dice.below(10))
            .map(|id| RandomRule::random(id, dice))
            .collect();
        Self {
            profiles: groups
                .iter()
                .map(|_| (dice.minutes(), dice.minutes()))
                .collect(),
            groups,
            operators: (0..2).map(|_| dice.some(&[0, 1, 2])).collect(),
            service_groups: (0..3).map(|_| dice.below(5)).collect(),
            rules,
            nodes: (0..6)
                .map(|_| (dice.below(3), dice.below(2), Tier::ALL[dice.below(4)]))
                .collect(),
        }
    }

    fn text(&self) -> String {
        let mut text =
            String::from("schema = \"edgeward-policy/1\"\nowner = \"o\"\nscope = \"any\"\n");
        for (index, ((role, site), (fresh, offline))) in
            self.groups.iter().zip(&self.profiles).enumerate()
        {
            let role = role.map(|role| format!("role = [\"{}\"]", ROLES[role]));
            let site = site.map(|site| format!("site = [\"{}\"]", SITES[site]));
            let matches: Vec<String> = role.into_iter().chain(site).collect();
            write!(
                text,
                "[profile.g{index}]\ntier = [\"hardware\", \"listed\", \"virtual\", \"software\"]\npcr = {{ 0 = [\"sha256:{}\"] }}\nfresh = \"{fresh}m\"\noffline = \"{offline}m\"\n[group.g{index}]\nmatch = {{ {} }}\nprofile = \"g{index}\"\n",
                "00".repeat(32),
                matches.join(", ")
            )
            .unwrap();
        }
        for (index, members) in self.operators.iter().enumerate() {
            let members: Vec<String> = members
                .iter()
                .map(|member| format!("\"operator/{}\"", OPERATORS[*member]))
                .collect();
            write!(
                text,
                "[operator-group.o{index}]\nmembers = [{}]\n",
                members.join(", ")
            )
            .unwrap();
        }
        for (index, group) in self.service_groups.iter().enumerate() {
            write!(text, "[service.s{index}]\non = \"g{group}\"\n").unwrap();
            for (_, interface, port) in INTERFACES
                .iter()
                .filter(|(service, ..)| *service == format!("s{index}"))
            {
                write!(text, "[service.s{index}.interface.{interface}]\nnet = \"mesh\"\nl4 = \"tcp/{port}\"\n").unwrap();
            }
        }
        for rule in &self.rules {
            rule.write(&mut text);
        }
        text
    }

    fn fleet(&self) -> Fleet {
        let nodes = self.nodes.iter().enumerate();
        let nodes = nodes.map(|(index, (role, site, tier))| FleetNode {
            id: name(index),
            labels: [
                ("role".to_owned(), ROLES[*role].to_owned()),
                ("site".to_owned(), SITES[*site].to_owned()),
            ]
            .into(),
            tier: *tier,
            v4: None,
        });
        Fleet {
            nodes: nodes.collect(),
        }
    }

    fn is_in(&self, node: usize, group: usize) -> bool {
        let (role, site, _) = self.nodes[node];
        let (wanted_role, wanted_site) = self.groups[group];
        wanted_role.is_none_or(|wanted| wanted == role)
            && wanted_site.is_none_or(|wanted| wanted == site)
    }

    /// Often near something that changes.
    fn time(&self, dice: &mut Dice) -> Timestamp {
        let wobble = |dice: &mut Dice| u64::try_from(dice.below(3)).unwrap();
        let rule =
            (!self.rules.is_empty()).then(|| &self.rules[dice.below(self.rules.len().max(1))]);
        let millis = match (
            dice.below(3),
            rule.and_then(|rule| rule.window),
            rule.and_then(|rule| rule.until),
        ) {
            (0, Some((from, to)), _) => {
                let minute = if dice.one_in(2) { from } else { to };
                let day = u64::try_from(dice.below(7)).unwrap();
                (MONDAY + 86_400 + day * 86_400 + minute * 60 - 8 * 3600) * 1000 + wobble(dice) - 1
            }
            (1, _, Some(until)) => until * 1000 + wobble(dice) - 1,
            _ => {
                (MONDAY + u64::try_from(dice.below(usize::try_from(WEEK).unwrap())).unwrap()) * 1000
            }
        };
        Timestamp::from_millis(millis)
    }

    fn allows(
        &self,
        asker: Asker,
        target: usize,
        interface: (&str, &str),
        (standing, named): (Standing, &Named),
        link: Link,
        now: Timestamp,
    ) -> bool {
        if matches!(asker, Asker::Node(node) if node == target) {
            return false;
        }
        let number = INTERFACES
            .iter()
            .position(|(service, name, _)| (*service, *name) == interface)
            .unwrap();
        let service: usize = interface.0.trim_start_matches('s').parse().unwrap();
        if !self.is_in(target, self.service_groups[service]) {
            return false;
        }
        let matching = |allow: bool| {
            self.rules.iter().any(|rule| {
                rule.allow == allow
                    && rule.to.contains(&number)
                    && self.rule_matches(rule, asker, (standing, named), link, now)
            })
        };
        matching(true) && !matching(false)
    }

    fn rule_matches(
        &self,
        rule: &RandomRule,
        asker: Asker,
        (standing, named): (Standing, &Named),
        link: Link,
        now: Timestamp,
    ) -> bool {
        let source = match (&rule.from, asker) {
            (RandomFrom::Any, Asker::Node(_)) => true,
            // An operator that no group names is not known to the policy.
            (RandomFrom::Any, Asker::Operator(operator)) => {
                self.operators.iter().any(|group| group.contains(&operator))
            }
            (RandomFrom::Groups(groups), Asker::Node(node)) => {
                groups.iter().any(|group| self.is_in(node, *group))
            }
            (RandomFrom::Operators(groups), Asker::Operator(operator)) => groups
                .iter()
                .any(|group| self.operators[*group].contains(&operator)),
            _ => false,
        };
        let in_window = rule
            .window
            .is_none_or(|(from, to)| window_open(from, to, now));
        let before_end = rule
            .until
            .is_none_or(|until| now < Timestamp::from_secs(until));
        let tier = match (standing.tier, rule.tiers.is_empty(), rule.allow) {
            (_, true, false) => true,
            (None, false, false) => true,
            (None, _, true) => false,
            (Some(tier), true, true) => tier != Tier::Software,
            (Some(tier), false, _) => rule.tiers.contains(&tier),
        };
        let state = match (rule.states.is_empty(), rule.allow) {
            (true, true) => standing.state == AttestationState::Trusted,
            (true, false) => true,
            (false, true) => rule.states.contains(&standing.state),
            (false, false) => !rule.states.contains(&standing.state),
        };
        let profile = rule.profiles.is_empty()
            || match named {
                None => !rule.allow,
                Some(named) => named
                    .iter()
                    .any(|(group, now)| rule.profiles.contains(group) && (*now || !rule.allow)),
            };
        source
            && profile
            && in_window
            && before_end
            && tier
            && state
            && (!rule.allow || self.is_young(rule, asker, standing, link, now))
    }

    fn is_young(
        &self,
        rule: &RandomRule,
        asker: Asker,
        standing: Standing,
        link: Link,
        now: Timestamp,
    ) -> bool {
        let profiles: Vec<(u64, u64)> = match asker {
            Asker::Node(node) => (0..self.groups.len())
                .filter(|group| self.is_in(node, *group))
                .map(|group| self.profiles[group])
                .collect(),
            Asker::Operator(_) => Vec::new(),
        };
        let term = |own: Option<u64>, profile: Option<u64>, default: u64| match (own, profile) {
            (Some(own), Some(profile)) => own.min(profile),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => default,
        };
        let fresh = term(rule.fresh, profiles.iter().map(|p| p.0).min(), 10);
        let offline = term(rule.offline, profiles.iter().map(|p| p.1).min(), 12 * 60);
        let ages = matches!(
            standing.state,
            AttestationState::Trusted | AttestationState::Vouched
        ) || rule.fresh.is_some()
            || rule.offline.is_some();
        let pass = standing.last_pass.map(|pass| pass.min(now));
        let young = |since: Timestamp, limit: u64| now < since.plus(minutes(limit));
        match (link, ages) {
            (Link::Online, false) => true,
            (Link::Online, true) => pass.is_some_and(|pass| young(pass, fresh)),
            (Link::Offline { last_heartbeat }, false) => young(last_heartbeat.min(now), offline),
            (Link::Offline { last_heartbeat }, true) => {
                pass.is_some_and(|pass| young(pass.min(last_heartbeat), offline))
            }
        }
    }
}

impl RandomRule {
    fn random(id: usize, dice: &mut Dice) -> Self {
        let allow = !dice.one_in(3);
        let from = match dice.below(6) {
            0 => RandomFrom::Any,
            1 => RandomFrom::Operators(dice.some(&[0, 1])),
            _ => RandomFrom::Groups(dice.some(&[0, 1, 2, 3, 4])),
        };
        let some_minutes = |dice: &mut Dice| (allow && dice.one_in(3)).then(|| dice.minutes());
        Self {
            id,
            allow,
            from,
            to: dice.some(&[0, 1, 2, 3]),
            window: dice.one_in(3).then(|| {
                let from = u64::try_from(dice.below(1440)).unwrap();
                (
                    from,
                    (from + 1 + u64::try_from(dice.below(1400)).unwrap()) % 1440,
                )
            }),
            until: dice.one_in(4).then(|| {
                MONDAY + u64::try_from(dice.below(usize::try_from(WEEK).unwrap())).unwrap()
            }),
            fresh: some_minutes(dice),
            offline: some_minutes(dice),
            tiers: if dice.one_in(3) {
                dice.some(&Tier::ALL)
            } else {
                Vec::new()
            },
            states: if dice.one_in(3) {
                dice.some(&AttestationState::ALL)
            } else {
                Vec::new()
            },
            profiles: if dice.one_in(3) {
                dice.some(&[0, 1, 2, 3, 4])
            } else {
                Vec::new()
            },
        }
    }

    fn write(&self, text: &mut String) {
        let quoted = |prefix: &str, items: &[usize]| {
            let items: Vec<String> = items
                .iter()
                .map(|item| format!("\"{prefix}{item}\""))
                .collect();
            items.join(", ")
        };
        let from = match &self.from {
            RandomFrom::Any => "\"any\"".to_owned(),
            RandomFrom::Groups(groups) => quoted("group:g", groups),
            RandomFrom::Operators(groups) => quoted("operator-group:o", groups),
        };
        let to: Vec<String> = self
            .to
            .iter()
            .map(|to| format!("\"{}/{}\"", INTERFACES[*to].0, INTERFACES[*to].1))
            .collect();
        let effect = if self.allow { "allow" } else { "deny" };
        if let Some((from, to)) = self.window {
            write!(
                text,
                "[window.w{}]\ntz = \"Asia/Shanghai\"\ndays = [\"mon\", \"wed\"]\nfrom = \"{:02}:{:02}\"\nto = \"{:02}:{:02}\"\n",
                self.id,
                from / 60,
                from % 60,
                to / 60,
                to % 60
            )
            .unwrap();
        }
        write!(text, "[[rule]]\nid = \"r{}\"\neffect = \"{effect}\"\nfrom = [{from}]\nto = [{}]\ndo = [\"connect\"]\n", self.id, to.join(", ")).unwrap();
        let window = self.window.map(|_| format!("window = \"w{}\"", self.id));
        let until = self.until.map(|until| {
            let until = jiff::Timestamp::from_second(i64::try_from(until).unwrap()).unwrap();
            format!("until = {until}")
        });
        let when: Vec<String> = window.into_iter().chain(until).collect();
        if !when.is_empty() {
            writeln!(text, "when = {{ {} }}", when.join(", ")).unwrap();
        }
        for (key, value) in [("fresh", self.fresh), ("offline", self.offline)] {
            if let Some(value) = value {
                writeln!(text, "{key} = \"{value}m\"").unwrap();
            }
        }
        let words = |words: Vec<&str>| format!("[\"{}\"]", words.join("\", \""));
        if !self.tiers.is_empty() {
            writeln!(
                text,
                "tier = {}",
                words(self.tiers.iter().map(|tier| tier.as_str()).collect())
            )
            .unwrap();
        }
        if !self.profiles.is_empty() {
            writeln!(text, "profile = [{}]", quoted("g", &self.profiles)).unwrap();
        }
        if !self.states.is_empty() {
            let key = if self.allow { "state" } else { "unless_state" };
            writeln!(
                text,
                "{key} = {}",
                words(self.states.iter().map(|state| state.as_str()).collect())
            )
            .unwrap();
        }
    }
}

impl Asker {
    fn id(self) -> SpiffeId {
        match self {
            Self::Node(node) => name(node),
            Self::Operator(operator) => id(edgeward_identity::Kind::Operator, OPERATORS[operator]),
        }
    }
}

/// Eight hours ahead of UTC, no daylight saving; Mondays and Wednesdays.
fn window_open(from: u64, to: u64, now: Timestamp) -> bool {
    let local = now.secs() + 8 * 3600;
    // 1970-01-01 was a Thursday.
    let day = (local / 86_400 + 3) % 7;
    let minute = local % 86_400 / 60;
    let named = |day: u64| day == 0 || day == 2;
    if from < to {
        named(day) && (from..to).contains(&minute)
    } else {
        (named(day) && minute >= from) || (named((day + 6) % 7) && minute < to)
    }
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

fn name(index: usize) -> SpiffeId {
    node(&format!("n{index}"))
}

fn end() -> Timestamp {
    Timestamp::from_secs(MONDAY + WEEK + 86_400)
}
