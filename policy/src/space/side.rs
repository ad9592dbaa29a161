//! One policy, said in the words that it shares with the other.

use std::collections::{BTreeMap, BTreeSet};

use super::joint::Joint;
use super::rows::SpaceRow;
use crate::compile::{CompiledPolicy, Device, Group, Interface};
use crate::seconds::Seconds;
use crate::slice::CONNECT;

/// `fresh` and `offline` of the profiles of a subject, the strictest of each.
pub(super) type Terms = (Option<Seconds>, Option<Seconds>);

#[derive(Debug)]
pub(super) struct Side<'p> {
    /// 0 before, 1 after.
    pub(super) number: usize,
    pub(super) policy: &'p CompiledPolicy,
    /// Of each group of the policy, its number among those of both.
    pub(super) groups: Vec<usize>,
    pub(super) windows: Vec<usize>,
    /// What membership in a group asks for at most, where its profile says.
    pub(super) terms: BTreeMap<usize, Terms>,
    /// Operators that some group names: whom `any` means.
    pub(super) operators: BTreeSet<&'p str>,
    pub(super) devices: BTreeMap<&'p str, &'p Device>,
}

impl<'p> Side<'p> {
    pub(super) fn new(number: usize, policy: &'p CompiledPolicy, joint: &mut Joint) -> Self {
        let node_group =
            |group: &Group, joint: &mut Joint| joint.group(&group.name, &group.matches, None);
        let groups: Vec<usize> = policy
            .groups
            .iter()
            .map(|group| {
                let via = group.via.and_then(|via| policy.groups.get(via));
                match via.map(|via| node_group(via, joint)) {
                    None => node_group(group, joint),
                    via => joint.group(&group.name, &group.matches, via),
                }
            })
            .collect();
        let mut terms: BTreeMap<usize, Terms> = BTreeMap::new();
        for (group, number) in policy.groups.iter().zip(&groups) {
            let profile = group.profile.and_then(|index| policy.profiles.get(index));
            let Some(profile) = profile.filter(|p| p.fresh.is_some() || p.offline.is_some()) else {
                continue;
            };
            let known = terms.entry(*number).or_default();
            *known = stricter(*known, (profile.fresh, profile.offline));
        }
        Self {
            number,
            groups,
            windows: policy.windows.iter().map(|w| joint.window(w)).collect(),
            terms,
            operators: policy
                .operator_groups
                .iter()
                .flat_map(|group| group.members.iter().map(String::as_str))
                .collect(),
            devices: policy
                .devices
                .iter()
                .map(|device| (device.name.as_str(), device))
                .collect(),
            policy,
        }
    }

    /// The groups that it has of devices, among those of both.
    pub(super) fn device_groups(&self, joint: &Joint) -> BTreeSet<usize> {
        let groups = self.groups.iter().copied();
        groups
            .filter(|index| {
                joint
                    .groups
                    .get(*index)
                    .is_some_and(|group| group.via.is_some())
            })
            .collect()
    }

    /// The groups whose nodes may lead to a device, among those of both.
    pub(super) fn leading_to(&self, device: &Device) -> BTreeSet<usize> {
        let routes = self.policy.routes.iter();
        let leading = routes.filter(|route| device.lies_in(route));
        leading
            .filter_map(|route| self.groups.get(route.on).copied())
            .collect()
    }

    /// By service and name.
    pub(super) fn interfaces(&self) -> BTreeMap<(&'p str, &'p str), &'p Interface> {
        self.policy
            .interfaces
            .iter()
            .map(|interface| {
                (
                    (interface.service.as_str(), interface.name.as_str()),
                    interface,
                )
            })
            .collect()
    }

    /// The rows of an interface as its slice would have them: by id.
    pub(super) fn rows(&self, interface: &Interface) -> Vec<SpaceRow> {
        let indices: BTreeSet<usize> = interface
            .rows
            .iter()
            .chain(&self.policy.everywhere)
            .copied()
            .collect();
        let mut rows: Vec<SpaceRow> = indices
            .into_iter()
            .filter_map(|index| self.policy.rules.get(index))
            .filter_map(|rule| SpaceRow::new(self, rule, &interface.actions()))
            .collect();
        rows.sort_by(|one, other| one.rule.cmp(&other.rule));
        rows
    }

    pub(super) fn terms_of(&self, members: &BTreeSet<usize>) -> Terms {
        let terms = members.iter().filter_map(|group| self.terms.get(group));
        terms.fold((None, None), |all, one| stricter(all, *one))
    }
}

fn stricter(one: Terms, other: Terms) -> Terms {
    let least = |a: Option<Seconds>, b: Option<Seconds>| a.into_iter().chain(b).min();
    (least(one.0, other.0), least(one.1, other.1))
}

/// The actions of an interface, or of its counterpart.
pub(super) fn actions_of(interfaces: [Option<&Interface>; 2]) -> Vec<String> {
    let named: BTreeSet<&str> = interfaces
        .into_iter()
        .flatten()
        .flat_map(Interface::actions)
        .collect();
    match named.is_empty() {
        true => vec![CONNECT.to_owned()],
        false => named.into_iter().map(str::to_owned).collect(),
    }
}
