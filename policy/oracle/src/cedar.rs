//! A compiled policy as Cedar decides it: one Cedar policy for each rule of the whole policy, one entity for each party
//! and for each interface of each node. Nothing of slices, groups of numbers, rows or casbin is in it; what Cedar
//! cannot say (time zones, labels, patterns of protocols) is said here a second time, plainly.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityUid, PolicySet, Request, RestrictedExpression,
};
use edgeward_identity::{Tier, Timestamp};

use edgeward_policy::testing::Whole;
use edgeward_policy::window::{Day, Window};
use edgeward_policy::{Fleet, Labels, Link, Standing};

use crate::rules::write_rule;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker<'a> {
    Node(&'a str),
    Operator(&'a str),
    Device(&'a str),
}

/// What is asked of the whole policy.
#[derive(Clone, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) asker: Asker<'a>,
    pub(crate) target: &'a str,
    /// Service and interface.
    pub(crate) interface: (&'a str, &'a str),
    /// Actions that the request fits.
    pub(crate) actions: BTreeSet<&'a str>,
    pub(crate) standing: Standing,
    /// Names of profiles that the evidence names, and whether as they are now. `None`: unknown.
    pub(crate) named: &'a Option<Vec<(String, bool)>>,
    /// What the evidence says that runs, by places in the list of versions. `None`: unknown.
    pub(crate) running: &'a Option<BTreeMap<&'static str, usize>>,
    pub(crate) link: Link,
    pub(crate) now: Timestamp,
}

/// Until when single rules are lifted, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Lifted {
    pub(crate) opened: Vec<(String, Timestamp)>,
    /// With the name of the subject.
    pub(crate) approved: Vec<(String, String, Timestamp)>,
}

pub(crate) struct Oracle<'p> {
    policy: &'p Whole<'p>,
    policies: PolicySet,
    entities: Entities,
    authorizer: Authorizer,
}

impl<'p> Oracle<'p> {
    pub(crate) fn new(policy: &'p Whole<'p>, fleet: &Fleet) -> Self {
        let mut text = String::new();
        for rule in &policy.rules {
            write_rule(policy, rule, &mut text);
        }
        let policies = match text.parse() {
            Ok(policies) => policies,
            Err(error) => panic!("{error:?}\n{text}"),
        };
        let mut entities = Vec::new();
        for node in &fleet.nodes {
            let groups: Vec<usize> = groups_of_node(policy, &node.labels);
            let mut parents: HashSet<EntityUid> =
                groups.iter().map(|group| group_uid(*group)).collect();
            parents.insert(uid("Everybody", "all"));
            let profiles = groups
                .iter()
                .filter_map(|group| policy.groups[*group].profile);
            let profiles: Vec<_> = profiles.map(|index| &policy.profiles[index]).collect();
            let mut attributes = HashMap::new();
            for (key, strictest) in [
                (
                    "fresh",
                    profiles.iter().filter_map(|profile| profile.fresh).min(),
                ),
                (
                    "offline",
                    profiles.iter().filter_map(|profile| profile.offline).min(),
                ),
            ] {
                if let Some(term) = strictest {
                    attributes.insert(key.to_owned(), long(term.get() * 1000));
                }
            }
            entities.push(entity(uid("Node", node.id.name()), attributes, parents));
            add_offers(policy, node.id.name(), &mut entities);
            add_devices(
                policy,
                (node.id.name(), &node.labels),
                &groups,
                &mut entities,
            );
        }
        for interface in &policy.interfaces {
            let on = RestrictedExpression::new_entity_uid(group_uid(interface.on));
            let name = format!("{}/{}", interface.service, interface.name);
            let attributes = HashMap::from([("on".to_owned(), on)]);
            entities.push(entity(uid("Interface", &name), attributes, HashSet::new()));
        }
        add_operators(policy, &mut entities);
        add_actions(policy, &mut entities);
        Self {
            policy,
            policies,
            entities: Entities::from_entities(entities, None).unwrap(),
            authorizer: Authorizer::new(),
        }
    }

    pub(crate) fn allows(&self, question: &Question<'_>, lifted: &Lifted) -> bool {
        let (kind, name) = match question.asker {
            Asker::Node(name) => ("Node", name),
            Asker::Operator(name) => ("Operator", name),
            Asker::Device(name) => ("Device", name),
        };
        let (service, interface) = question.interface;
        let offer = format!("{}/{service}/{interface}", question.target);
        let action = request_name(question.actions.iter().copied());
        let request = Request::new(
            uid(kind, name),
            uid("Action", &action),
            uid("Offer", &offer),
            self.context(question, lifted, name),
            None,
        );
        let answer =
            self.authorizer
                .is_authorized(&request.unwrap(), &self.policies, &self.entities);
        let errors: Vec<_> = answer.diagnostics().errors().collect();
        assert!(errors.is_empty(), "{errors:?}");
        answer.decision() == cedar_policy::Decision::Allow
    }

    fn context(&self, question: &Question<'_>, lifted: &Lifted, asker: &str) -> Context {
        let (now, standing) = (question.now, question.standing);
        let texts = |texts: Vec<&str>| {
            let texts = texts
                .into_iter()
                .map(|one| RestrictedExpression::new_string(one.to_owned()));
            RestrictedExpression::new_set(texts)
        };
        let untils = |untils: Vec<(&str, Timestamp)>| {
            let mut by_rule: HashMap<String, u64> = HashMap::new();
            for (rule, until) in untils {
                let held = by_rule.entry(rule.to_owned()).or_default();
                *held = (*held).max(until.millis());
            }
            let pairs = by_rule.into_iter().map(|(rule, until)| (rule, long(until)));
            RestrictedExpression::new_record(pairs).unwrap()
        };
        let open = self
            .policy
            .windows
            .iter()
            .filter(|window| is_open(window, now));
        let opened = lifted
            .opened
            .iter()
            .map(|(rule, until)| (rule.as_str(), *until));
        let approved = lifted.approved.iter();
        let approved = approved.filter(|(_, subject, _)| subject == asker);
        let approved = approved.map(|(rule, _, until)| (rule.as_str(), *until));
        let mut pairs = vec![
            ("now", long(now.millis())),
            (
                "state",
                RestrictedExpression::new_string(standing.state.as_str().to_owned()),
            ),
            (
                "open",
                texts(open.map(|window| window.name.as_str()).collect()),
            ),
            ("opened", untils(opened.collect())),
            ("approved", untils(approved.collect())),
        ];
        if let Some(tier) = standing.tier {
            pairs.push((
                "tier",
                RestrictedExpression::new_string(tier.as_str().to_owned()),
            ));
        }
        if let Some(pass) = standing.last_pass {
            pairs.push(("pass", long(pass.millis())));
        }
        if let Link::Offline { last_heartbeat } = question.link {
            pairs.push(("heard", long(last_heartbeat.millis())));
        }
        if let Some(named) = question.named {
            let of = |current: bool| {
                let those = named.iter().filter(move |(_, now)| *now == current);
                texts(those.map(|(name, _)| name.as_str()).collect())
            };
            pairs.push(("named", of(true)));
            pairs.push(("doubtful", of(false)));
        }
        if let Some(running) = question.running {
            let of = |(app, version): (&&str, &usize)| {
                let version = RestrictedExpression::new_long(i64::try_from(*version).unwrap());
                ((*app).to_owned(), version)
            };
            let running = RestrictedExpression::new_record(running.iter().map(of));
            pairs.push(("running", running.unwrap()));
        }
        let pairs = pairs
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        Context::from_pairs(pairs).unwrap()
    }
}

fn groups_of_node(policy: &Whole<'_>, labels: &Labels) -> Vec<usize> {
    let groups = policy.groups.iter().enumerate();
    let of_nodes = groups.filter(|(_, group)| group.via.is_none());
    let matching = of_nodes.filter(|(_, group)| has_labels(group.matches, labels));
    matching.map(|(index, _)| index).collect()
}

fn has_labels(wanted: &BTreeMap<String, BTreeSet<String>>, labels: &Labels) -> bool {
    wanted
        .iter()
        .all(|(key, values)| labels.get(key).is_some_and(|value| values.contains(value)))
}

fn add_offers(policy: &Whole<'_>, node: &str, entities: &mut Vec<Entity>) {
    for interface in &policy.interfaces {
        let (service, name) = (&interface.service, &interface.name);
        let of = |uid| RestrictedExpression::new_entity_uid(uid);
        let attributes = HashMap::from([
            ("node".to_owned(), of(uid("Node", node))),
            (
                "interface".to_owned(),
                of(uid("Interface", &format!("{service}/{name}"))),
            ),
        ]);
        let offer = uid("Offer", &format!("{node}/{service}/{name}"));
        entities.push(entity(offer, attributes, HashSet::new()));
    }
}

/// Devices that hang on a node which may vouch for them, in the groups for which it may.
fn add_devices(
    policy: &Whole<'_>,
    (node, labels): (&str, &Labels),
    groups: &[usize],
    entities: &mut Vec<Entity>,
) {
    for device in policy.devices.iter().filter(|device| device.node == node) {
        let mut parents: HashSet<EntityUid> = HashSet::new();
        for (index, group) in policy.groups.iter().enumerate() {
            let vouched = group.via.is_some_and(|via| groups.contains(&via));
            if vouched
                && has_labels(device.scope, labels)
                && has_labels(group.matches, device.labels)
            {
                parents.insert(group_uid(index));
                parents.insert(uid("Everybody", "all"));
            }
        }
        let node = RestrictedExpression::new_entity_uid(uid("Node", node));
        let attributes = HashMap::from([("node".to_owned(), node)]);
        entities.push(entity(uid("Device", device.name), attributes, parents));
    }
}

fn add_operators(policy: &Whole<'_>, entities: &mut Vec<Entity>) {
    let mut parents: HashMap<&str, HashSet<EntityUid>> = HashMap::new();
    for (index, group) in policy.operator_groups.iter().enumerate() {
        for member in *group {
            let of_member = parents.entry(member).or_default();
            of_member.insert(uid("OperatorGroup", &index.to_string()));
            of_member.insert(uid("Everybody", "all"));
        }
    }
    for (name, parents) in parents {
        entities.push(entity(uid("Operator", name), HashMap::new(), parents));
    }
}

/// A request is below each action that it fits: every set of actions of one interface is one.
fn add_actions(policy: &Whole<'_>, entities: &mut Vec<Entity>) {
    let mut sets: BTreeSet<Vec<&str>> = BTreeSet::new();
    for interface in &policy.interfaces {
        let names = &interface.actions;
        for bits in 0_u32..1 << names.len() {
            let chosen = names
                .iter()
                .enumerate()
                .filter(|(bit, _)| bits & (1 << bit) != 0);
            sets.insert(chosen.map(|(_, name)| *name).collect());
        }
    }
    for set in sets {
        let parents = set.iter().map(|name| uid("Action", name)).collect();
        let request = uid("Action", &request_name(set.iter().copied()));
        entities.push(entity(request, HashMap::new(), parents));
    }
}

fn request_name<'a>(actions: impl Iterator<Item = &'a str>) -> String {
    let names: BTreeSet<&str> = actions.collect();
    format!(
        "request {}",
        names.into_iter().collect::<Vec<_>>().join(" ")
    )
}

/// Zones without daylight saving, by their distance from UTC in minutes.
pub(crate) const ZONES: [(&str, i64); 4] = [
    ("Asia/Shanghai", 8 * 60),
    ("Asia/Kolkata", 5 * 60 + 30),
    ("America/Phoenix", -7 * 60),
    ("Pacific/Kiritimati", 14 * 60),
];

fn is_open(window: &Window, now: Timestamp) -> bool {
    let (_, offset) = ZONES
        .into_iter()
        .find(|(name, _)| *name == window.tz)
        .unwrap();
    let local = i64::try_from(now.secs()).unwrap() / 60 + offset;
    // 1970-01-01 was a Thursday.
    let (day, minute) = ((local.div_euclid(1440) + 3) % 7, local.rem_euclid(1440));
    let named = |day: i64| {
        window
            .days
            .contains(&Day::ALL[usize::try_from(day % 7).unwrap()])
    };
    let (from, to) = (i64::from(window.from), i64::from(window.to));
    if from < to {
        named(day) && (from..to).contains(&minute)
    } else {
        (named(day) && minute >= from) || (named(day + 6) && minute < to)
    }
}

fn entity(
    uid: EntityUid,
    attributes: HashMap<String, RestrictedExpression>,
    parents: HashSet<EntityUid>,
) -> Entity {
    Entity::new(uid, attributes, parents).unwrap()
}

fn group_uid(group: usize) -> EntityUid {
    uid("Group", &group.to_string())
}

fn uid(kind: &str, name: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.parse().unwrap(), name.parse().unwrap())
}

fn long(value: u64) -> RestrictedExpression {
    RestrictedExpression::new_long(i64::try_from(value).unwrap())
}

/// Every tier, and none known.
pub(crate) fn tiers() -> impl Iterator<Item = Option<Tier>> {
    Tier::ALL.into_iter().map(Some).chain([None])
}
