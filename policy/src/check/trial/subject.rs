//! Who asks in a test: a node in the named groups, a device in them, or an operator.

use std::collections::BTreeSet;

use edgeward_identity::{SpiffeId, Tier};

use crate::ast::{LabelSets, TestDef};
use crate::compile::{CompiledPolicy, Interface};
use crate::device::{Recognition, SliceDevice};
use crate::diagnostic::{Code, Diagnostics, suggest};
use crate::labels::{is_within, may_meet, meet};
use crate::profile::{Mode, Profile, StatedProfiles};
use crate::slice::{GroupId, MESH, Slice};

/// The groups of a test's subject: of a node, or of a device and those who vouch for it.
#[derive(Default)]
pub(super) struct Groups {
    /// Of the node; for a device of the node that vouches.
    pub(super) nodes: BTreeSet<usize>,
    pub(super) devices: BTreeSet<usize>,
}

impl Groups {
    pub(super) fn are_devices(&self) -> bool {
        !self.devices.is_empty()
    }
}

/// The named groups and all that every member of them is in as well.
pub(super) fn groups_of(
    policy: &CompiledPolicy,
    test: &TestDef,
    found: &mut Diagnostics<'_>,
) -> Option<Groups> {
    let mut all = LabelSets::new();
    let mut groups = Groups::default();
    for name in &test.groups {
        let mut known = policy.groups.iter().enumerate();
        let Some((index, group)) = known.find(|(_, group)| group.name == name.value) else {
            let names = policy.groups.iter().map(|group| group.name.as_str());
            found.error_with_help(
                name.at,
                Code::UnknownName,
                format!("group `{}` is not defined", name.value),
                suggest(&name.value, names),
            );
            return None;
        };
        let mixed = match group.via {
            None => groups.are_devices(),
            Some(_) => groups.devices.is_empty() && !groups.nodes.is_empty(),
        };
        let Some(both) = meet(&all, &group.matches).filter(|_| !mixed) else {
            found.error(
                name.at,
                Code::TestInvalid,
                format!("test `{}`: nobody can be in all of its groups", test.name),
            );
            return None;
        };
        all = both;
        match group.via {
            None => groups.nodes.insert(index),
            Some(via) => {
                groups.nodes.insert(via);
                groups.devices.insert(index)
            }
        };
    }
    if test.groups.is_empty() {
        return Some(groups);
    }
    let devices = groups.are_devices();
    for (index, group) in policy.groups.iter().enumerate() {
        if !is_within(&all, &group.matches) {
            continue;
        }
        match group.via {
            None if !devices => groups.nodes.insert(index),
            Some(via) if devices && groups.nodes.contains(&via) => groups.devices.insert(index),
            _ => false,
        };
    }
    Some(groups)
}

/// The groups of the node that a device hangs on, which must be able to offer the target too.
pub(super) fn vouching(
    policy: &CompiledPolicy,
    target: &Interface,
    groups: &Groups,
    test: &TestDef,
    found: &mut Diagnostics<'_>,
) -> Option<BTreeSet<usize>> {
    let on = policy.groups.get(target.on)?;
    let meets = |index: &usize| {
        let group = policy.groups.get(*index);
        group.is_some_and(|group| may_meet(&group.matches, &on.matches))
    };
    if !groups.nodes.iter().all(meets) {
        found.error(
            test.at,
            Code::TestInvalid,
            format!(
                "test `{}`: no node can both offer {}/{} and vouch for the device",
                test.name, target.service, target.name
            ),
        );
        return None;
    }
    Some(groups.nodes.clone())
}

/// Hangs the device on the network of the target, or behind the node that vouches for it. It gets no further than to a
/// node itself: what lies beyond does not know it.
pub(super) fn hang(
    policy: &CompiledPolicy,
    groups: &Groups,
    (id, node): (&SpiffeId, &SpiffeId),
    target: &Interface,
    slice: &mut Slice,
) {
    let number = |index: &usize| {
        let name = format!("group:{}", policy.groups.get(*index)?.name);
        let position = slice.groups.iter().position(|known| *known == name)?;
        u32::try_from(position).ok().map(GroupId)
    };
    let groups = groups.devices.iter().filter_map(number).collect();
    if target.net == MESH {
        if target.is_open_to_guests() {
            slice.seat(node, id.clone(), groups);
        }
        return;
    }
    slice.devices.push(SliceDevice {
        id: id.clone(),
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

/// `Some(None)`: the test is about a node or a device.
pub(super) fn operator_of(
    policy: &CompiledPolicy,
    test: &TestDef,
    found: &mut Diagnostics<'_>,
) -> Option<Option<String>> {
    let mut common: Option<BTreeSet<String>> = None;
    for name in &test.operator_groups {
        let group = policy
            .operator_groups
            .iter()
            .find(|group| group.name == name.value);
        let Some(group) = group else {
            found.error_with_help(
                name.at,
                Code::UnknownName,
                format!("operator group `{}` is not defined", name.value),
                suggest(
                    &name.value,
                    policy
                        .operator_groups
                        .iter()
                        .map(|group| group.name.as_str()),
                ),
            );
            return None;
        };
        common = Some(match common {
            None => group.members.clone(),
            Some(common) => common.intersection(&group.members).cloned().collect(),
        });
    }
    match common {
        None => Some(None),
        Some(common) => match common.into_iter().next() {
            Some(name) => Some(Some(name)),
            None => {
                found.error(
                    test.at,
                    Code::TestInvalid,
                    format!("test `{}`: no operator is in all of its groups", test.name),
                );
                None
            }
        },
    }
}

/// The profiles that a result of the subject names: those stated, else those of its groups.
pub(super) fn profiles_of(
    policy: &CompiledPolicy,
    test: &TestDef,
    groups: &Groups,
    found: &mut Diagnostics<'_>,
) -> Option<Option<StatedProfiles>> {
    let mut indices = BTreeSet::new();
    match &test.profiles {
        // No result speaks of a device.
        None if groups.are_devices() => {}
        None => {
            let profiles = groups.nodes.iter();
            indices.extend(profiles.filter_map(|group| policy.groups.get(*group)?.profile));
            // Where one enforces, those in mode `monitor` are not compared.
            let enforces = |index: &usize| {
                let profile = policy.profiles.get(*index);
                profile.is_some_and(|profile| profile.mode == Mode::Enforce)
            };
            if indices.iter().any(enforces) {
                indices.retain(enforces);
            }
            indices.retain(|index| policy.profiles.get(*index).is_some_and(Profile::compares));
        }
        Some(names) => {
            for name in names {
                let known = policy.profiles.iter();
                let Some(index) = known.clone().position(|known| known.name == name.value) else {
                    found.error_with_help(
                        name.at,
                        Code::UnknownName,
                        format!("profile `{}` is not defined", name.value),
                        suggest(&name.value, known.map(|known| known.name.as_str())),
                    );
                    return None;
                };
                indices.insert(index);
            }
        }
    }
    let labels = indices.iter().filter_map(|index| policy.labels.get(*index));
    // More than a result may name is unknown, as it is in service.
    let text = StatedProfiles::text(labels);
    Some(match text.as_deref() {
        None => None,
        Some("") => Some(StatedProfiles::NONE),
        Some(text) => StatedProfiles::parse(text),
    })
}

/// The best tier that every profile of the groups accepts.
pub(super) fn tier_of(policy: &CompiledPolicy, groups: &BTreeSet<usize>) -> Tier {
    let profiles: Vec<_> = groups
        .iter()
        .filter_map(|group| policy.groups.get(*group)?.profile)
        .filter_map(|index| policy.profiles.get(index))
        .collect();
    Tier::ALL
        .into_iter()
        .find(|tier| profiles.iter().all(|profile| profile.tiers.contains(tier)))
        .unwrap_or(Tier::Hardware)
}
