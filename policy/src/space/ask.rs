//! A question put to a whole policy, from its files alone: who asks and in which standing is told, the slice that
//! answers is made up for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgeward_identity::{AttestationState, Kind, SpiffeId, Tier, Timestamp, TrustDomain};

use super::explain::{Explanation, Question, Unexplained, explain};
use crate::ast::LabelSets;
use crate::compile::{CompiledPolicy, FleetIndex, Group, IndexedNode, Interface};
use crate::decision::{Link, Standing};
use crate::device::{Recognition, SliceDevice};
use crate::diagnostic::suggest;
use crate::engine::Engine;
use crate::fleet::Labels;
use crate::l7::ActionSet;
use crate::l7::written::WrittenRequest;
use crate::labels::{is_within, matches, meet};
use crate::profile::{Mode, Profile, StatedProfiles};
use crate::runs::read_running;
use crate::seconds::Seconds;
use crate::slice::{ActionId, GroupId, Slice, SliceApproval};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A node, or a device, in all of these groups, and in those that every such one is in as well.
    Groups(Vec<String>),
    /// A node with these labels.
    Node {
        name: String,
        labels: Labels,
    },
    /// Somebody in all of these operator groups.
    OperatorGroups(Vec<String>),
    Operator(String),
    /// One that the policy names, on a node that may vouch for it.
    Device(String),
}

/// The question.
#[derive(Clone, Debug)]
pub struct Ask {
    pub from: Asker,
    pub service: String,
    pub interface: String,
    /// Name of an action.
    pub action: Option<String>,
    /// A request of the interface's protocol, as people write it.
    pub request: Option<String>,
    pub at: Timestamp,
    /// `None`: what an allow asks for that says nothing.
    pub state: Option<AttestationState>,
    /// `None`: the best that the profiles of its groups accept.
    pub tier: Option<Tier>,
    /// Age of the last pass.
    pub age: Seconds,
    /// For how long the answering node has not heard from the cloud; `None`: it hears.
    pub offline: Option<Seconds>,
    /// Names of the profiles that the result names; `None`: those of its groups.
    pub profiles: Option<Vec<String>>,
    /// What its evidence says that it runs, as `publisher/name@2.3.1`; `None`: that is not known.
    pub runs: Option<Vec<String>>,
    /// Whether it has every approval that a rule asks for.
    pub approved: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotAsk {
    /// The asker's to mend.
    #[error("{what} `{name}` is not defined{}", more(.help))]
    Unknown {
        what: &'static str,
        name: String,
        help: String,
    },
    #[error("nobody can be in all of these groups")]
    Nobody,
    #[error("name an action or a request")]
    NothingAsked,
    #[error("the request is not of this action: {0}")]
    OtherAction(String),
    #[error("{0} has no protocol of its own: ask by an action")]
    NoProtocol(String),
    #[error("not a release that runs: {0}: write publisher/name@2.3.1")]
    Running(String),
    #[error("{0}")]
    Request(String),
    /// Our fault.
    #[error("no slice could be made up for the question")]
    NoSlice,
    #[error(transparent)]
    Unexplained(#[from] Unexplained),
}

fn more(help: &str) -> String {
    match help.is_empty() {
        true => String::new(),
        false => format!(": {help}"),
    }
}

fn running(ask: &Ask) -> Result<Option<BTreeMap<String, String>>, CannotAsk> {
    let Some(texts) = &ask.runs else {
        return Ok(None);
    };
    let read = |text: &String| read_running(text).ok_or_else(|| CannotAsk::Running(text.clone()));
    texts.iter().map(read).collect::<Result<_, _>>().map(Some)
}

/// Explains one request as a node that offers the interface would decide it.
pub fn ask(policy: &CompiledPolicy, ask: &Ask) -> Result<Explanation, CannotAsk> {
    let target = target(policy, ask)?;
    let actions = actions(target, ask)?;
    let who = Who::of(policy, &ask.from)?;
    let tier = ask.tier.unwrap_or_else(|| who.tier(policy));
    let standing = Standing {
        state: ask.state.unwrap_or(match who.kind {
            Kind::Device => AttestationState::Vouched,
            _ => AttestationState::Trusted,
        }),
        tier: Some(tier),
        last_pass: Some(ask.at.minus(ask.age.as_duration())),
        profiles: who.profiles(policy, ask.profiles.as_deref())?,
        runs: None,
    };
    let running = running(ask)?;
    let (slice, subject) = who.slice(policy, target, tier).ok_or(CannotAsk::NoSlice)?;
    let slice = match ask.approved {
        true => approved(slice, &subject),
        false => slice,
    };
    let engine = Engine::new(Arc::new(slice)).map_err(|_| CannotAsk::NoSlice)?;
    let standing = Standing {
        runs: running.map(|running| engine.wants().met_by(&running)),
        ..standing
    };
    let interface = engine.interface(&target.service, &target.name);
    let question = Question {
        subject: &subject,
        standing,
        interface: interface.ok_or(CannotAsk::NoSlice)?,
        actions,
        link: match ask.offline {
            None => Link::Online,
            Some(offline) => Link::Offline {
                last_heartbeat: ask.at.minus(offline.as_duration()),
            },
        },
        now: ask.at,
    };
    Ok(explain(&engine, &question)?)
}

fn target<'p>(policy: &'p CompiledPolicy, ask: &Ask) -> Result<&'p Interface, CannotAsk> {
    let mut known = policy.interfaces.iter();
    let found = known.find(|one| one.service == ask.service && one.name == ask.interface);
    found.ok_or_else(|| {
        let name = format!("{}/{}", ask.service, ask.interface);
        let names: Vec<String> = policy
            .interfaces
            .iter()
            .map(|known| format!("{}/{}", known.service, known.name))
            .collect();
        unknown("interface", name, names.iter().map(String::as_str))
    })
}

fn actions(target: &Interface, ask: &Ask) -> Result<ActionSet, CannotAsk> {
    let names = target.actions();
    let named = match &ask.action {
        None => None,
        Some(name) => {
            let place = names.iter().position(|known| known == name);
            let action = place
                .and_then(|place| u8::try_from(place).ok())
                .map(ActionId);
            let unknown = || unknown("action", name.clone(), names.iter().copied());
            Some(action.ok_or_else(unknown)?)
        }
    };
    let Some(text) = &ask.request else {
        let action = named.ok_or(CannotAsk::NothingAsked)?;
        return Ok([action].into_iter().collect());
    };
    let l7 = target
        .l7
        .as_ref()
        .ok_or_else(|| CannotAsk::NoProtocol(format!("{}/{}", target.service, target.name)))?;
    let request =
        WrittenRequest::parse(l7, text).map_err(|error| CannotAsk::Request(error.to_string()))?;
    let actions = l7.actions_of(&request.as_request());
    match (named, &ask.action) {
        (Some(action), Some(name)) if !actions.contains(action) => {
            Err(CannotAsk::OtherAction(name.clone()))
        }
        _ => Ok(actions),
    }
}

fn approved(mut slice: Slice, subject: &SpiffeId) -> Slice {
    let rows = slice
        .interfaces
        .iter()
        .flat_map(|interface| &interface.rows);
    slice.approvals = rows
        .filter(|row| row.approval)
        .map(|row| SliceApproval {
            rule: Arc::clone(&row.rule),
            subject: subject.clone(),
            until: slice.expires,
        })
        .collect();
    slice
}

fn unknown<'n>(
    what: &'static str,
    name: String,
    names: impl Iterator<Item = &'n str> + Clone,
) -> CannotAsk {
    let help = suggest(&name, names);
    CannotAsk::Unknown { what, name, help }
}

/// A subject by what the policy knows of it.
struct Who {
    kind: Kind,
    name: String,
    /// Groups of the node; for a device of the node that it hangs on.
    nodes: BTreeSet<usize>,
    devices: BTreeSet<usize>,
}

impl Who {
    fn of(policy: &CompiledPolicy, asker: &Asker) -> Result<Self, CannotAsk> {
        let node = |name: &str, nodes| Self {
            kind: Kind::Node,
            name: name.to_owned(),
            nodes,
            devices: BTreeSet::new(),
        };
        let operator = |name: String| Self {
            kind: Kind::Operator,
            name,
            nodes: BTreeSet::new(),
            devices: BTreeSet::new(),
        };
        match asker {
            Asker::Node { name, labels } => {
                let groups = policy.groups.iter().enumerate();
                let groups = groups.filter(|(_, group)| group.has_node(labels));
                Ok(node(name, groups.map(|(index, _)| index).collect()))
            }
            Asker::Operator(name) => Ok(operator(name.clone())),
            Asker::OperatorGroups(names) => Ok(operator(member_of_all(policy, names)?)),
            Asker::Groups(names) => Self::in_groups(policy, names),
            Asker::Device(name) => {
                let device = policy.devices.iter().find(|device| device.name == *name);
                let device = device.ok_or_else(|| {
                    let names = policy.devices.iter().map(|device| device.name.as_str());
                    unknown("device", name.clone(), names)
                })?;
                let mut who = Self {
                    kind: Kind::Device,
                    ..operator(name.clone())
                };
                for (index, group) in policy.groups.iter().enumerate() {
                    if let Some(via) = group.via
                        && matches(&group.matches, &device.labels)
                    {
                        who.devices.insert(index);
                        who.nodes.insert(via);
                    }
                }
                Ok(who)
            }
        }
    }

    /// The named groups and all that every member of them is in as well.
    fn in_groups(policy: &CompiledPolicy, names: &[String]) -> Result<Self, CannotAsk> {
        let mut all = LabelSets::new();
        let mut who = Self {
            kind: Kind::Node,
            name: "subject".to_owned(),
            nodes: BTreeSet::new(),
            devices: BTreeSet::new(),
        };
        for name in names {
            let mut known = policy.groups.iter().enumerate();
            let found = known.find(|(_, group)| group.name == *name);
            let (index, group) = found.ok_or_else(|| {
                let names = policy.groups.iter().map(|group| group.name.as_str());
                unknown("group", name.clone(), names)
            })?;
            all = meet(&all, &group.matches).ok_or(CannotAsk::Nobody)?;
            match group.via {
                None => who.nodes.insert(index),
                Some(via) => {
                    who.kind = Kind::Device;
                    who.nodes.insert(via);
                    who.devices.insert(index)
                }
            };
        }
        let is_device = |group: &Group| group.via.is_some();
        let of_devices = |index: &usize| policy.groups.get(*index).is_some_and(is_device);
        if who.kind == Kind::Device && names.len() != who.devices.len() {
            return Err(CannotAsk::Nobody);
        }
        for (index, group) in policy.groups.iter().enumerate() {
            if !is_within(&all, &group.matches) {
                continue;
            }
            match (who.kind, group.via) {
                (Kind::Node, None) => who.nodes.insert(index),
                (Kind::Device, Some(via)) if who.nodes.contains(&via) => who.devices.insert(index),
                _ => false,
            };
        }
        debug_assert!(!who.nodes.iter().any(of_devices));
        Ok(who)
    }

    /// The best tier that every profile of its groups accepts.
    fn tier(&self, policy: &CompiledPolicy) -> Tier {
        let profiles: Vec<&Profile> = self
            .nodes
            .iter()
            .filter_map(|group| policy.groups.get(*group)?.profile)
            .filter_map(|index| policy.profiles.get(index))
            .collect();
        let accepted = |tier: &Tier| profiles.iter().all(|profile| profile.tiers.contains(tier));
        Tier::ALL
            .into_iter()
            .find(accepted)
            .unwrap_or(Tier::Hardware)
    }

    /// What its result says of profiles: what is told, else what is compared of those of its groups.
    fn profiles(
        &self,
        policy: &CompiledPolicy,
        told: Option<&[String]>,
    ) -> Result<Option<StatedProfiles>, CannotAsk> {
        let mut indices = BTreeSet::new();
        match told {
            // No result speaks of a device.
            None if self.kind == Kind::Device => {}
            None => {
                let groups = self.nodes.iter();
                indices.extend(groups.filter_map(|group| policy.groups.get(*group)?.profile));
                let is = |index: &usize, wanted: &dyn Fn(&Profile) -> bool| {
                    policy.profiles.get(*index).is_some_and(wanted)
                };
                let enforces = |index: &usize| is(index, &|profile| profile.mode == Mode::Enforce);
                // Where one enforces, those in mode `monitor` are not compared.
                if indices.iter().any(enforces) {
                    indices.retain(enforces);
                }
                indices.retain(|index| is(index, &Profile::compares));
            }
            Some(names) => {
                for name in names {
                    let known = policy.profiles.iter();
                    let place = known.clone().position(|known| known.name == *name);
                    let names = known.map(|known| known.name.as_str());
                    indices.insert(place.ok_or_else(|| unknown("profile", name.clone(), names))?);
                }
            }
        }
        let labels = indices.iter().filter_map(|index| policy.labels.get(*index));
        Ok(match StatedProfiles::text(labels).as_deref() {
            // More than a result may name is unknown, as it is in service.
            None => None,
            Some("") => Some(StatedProfiles::NONE),
            Some(text) => StatedProfiles::parse(text),
        })
    }

    /// The slice of a node that offers the target, and the subject's name in it.
    fn slice(
        &self,
        policy: &CompiledPolicy,
        target: &Interface,
        tier: Tier,
    ) -> Option<(Slice, SpiffeId)> {
        let domain = TrustDomain::new("asked.invalid").ok()?;
        let id = |kind, name: &str| SpiffeId::new(&domain, kind, name).ok();
        let node = id(Kind::Node, "the-target-of-the-question")?;
        let subject = id(self.kind, &self.name)?;
        let mut offering = BTreeSet::from([target.on]);
        let mut nodes = Vec::new();
        let asker = match self.kind {
            Kind::Device => id(Kind::Node, "the-node-of-the-device")?,
            _ => subject.clone(),
        };
        match self.kind {
            Kind::Device if !target.is_open_to_guests() => offering.extend(&self.nodes),
            Kind::Node | Kind::Device => {
                nodes.push(IndexedNode::new(asker.clone(), tier, self.nodes.clone()));
            }
            _ => {}
        }
        nodes.push(IndexedNode::new(node.clone(), tier, offering));
        let fleet = FleetIndex::of_indexed(policy, nodes);
        let end = Timestamp::from_millis(u64::MAX);
        let mut slice = policy.slice_with_everybody(&fleet, &node, end)?;
        if self.kind == Kind::Device && !self.devices.is_empty() {
            let number = |index: &usize| {
                let name = format!("group:{}", policy.groups.get(*index)?.name);
                let place = slice.groups.iter().position(|known| *known == name)?;
                u32::try_from(place).ok().map(GroupId)
            };
            let groups = self.devices.iter().filter_map(number).collect();
            if target.is_open_to_guests() {
                slice.seat(&asker, subject.clone(), groups);
                return Some((slice, subject));
            }
            slice.devices.push(SliceDevice {
                id: subject.clone(),
                groups,
                net: target.net.clone(),
                recognised: Recognition {
                    mac: None,
                    ip: Some(std::net::Ipv4Addr::new(192, 0, 2, 1).into()),
                    certificate: None,
                },
                seen_as: None,
            });
        }
        Some((slice, subject))
    }
}

/// The first of those who are in every one of these groups.
fn member_of_all(policy: &CompiledPolicy, names: &[String]) -> Result<String, CannotAsk> {
    let mut common: Option<BTreeSet<String>> = None;
    for name in names {
        let mut known = policy.operator_groups.iter();
        let group = known.find(|group| group.name == *name).ok_or_else(|| {
            let names = policy
                .operator_groups
                .iter()
                .map(|group| group.name.as_str());
            unknown("operator group", name.clone(), names)
        })?;
        common = Some(match common {
            None => group.members.clone(),
            Some(common) => common.intersection(&group.members).cloned().collect(),
        });
    }
    common
        .and_then(|common| common.into_iter().next())
        .ok_or(CannotAsk::Nobody)
}
