//! One policy, said in the words that it shares with the other.

use std::collections::{BTreeMap, BTreeSet};

use super::cells::device_groups;
use super::joint::Joint;
use super::rows::SpaceRow;
use crate::compile::{CompiledPolicy, Interface};
use crate::seconds::Seconds;
use crate::slice::CONNECT;

/// `fresh` and `offline` of the profiles of a subject, the strictest of each.
pub(super) type Terms = (Option<Seconds>, Option<Seconds>);

#[derive(Debug)]
pub(super) struct Side<'p> {
    pub(super) policy: &'p CompiledPolicy,
    /// Of each group of the policy, its number among those of both.
    pub(super) groups: Vec<usize>,
    pub(super) windows: Vec<usize>,
    /// What membership in a group asks for at most, where its profile says.
    pub(super) terms: BTreeMap<usize, Terms>,
    /// Operators that some group names: whom `any` means.
    pub(super) operators: BTreeSet<&'p str>,
    /// Its devices with their groups.
    pub(super) devices: BTreeMap<&'p str, BTreeSet<usize>>,
}

impl<'p> Side<'p> {
    pub(super) fn new(policy: &'p CompiledPolicy, joint: &mut Joint) -> Self {
        let groups: Vec<usize> = policy
            .groups
            .iter()
            .map(|group| joint.group(&group.name, &group.matches, group.via.is_some()))
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
            groups,
            windows: policy.windows.iter().map(|w| joint.window(w)).collect(),
            terms,
            operators: policy
                .operator_groups
                .iter()
                .flat_map(|group| group.members.iter().map(String::as_str))
                .collect(),
            devices: BTreeMap::new(),
            policy,
        }
    }

    /// Sorts the devices into groups, once the groups of both sides are known.
    pub(super) fn sort_devices(&mut self, joint: &Joint) {
        let devices = self.policy.devices.iter();
        self.devices = devices
            .map(|device| (device.name.as_str(), device_groups(joint, &device.labels)))
            .collect();
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
