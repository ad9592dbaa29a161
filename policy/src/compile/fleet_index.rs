//! The fleet sorted by a policy's groups, once for all slices.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use edgeward_identity::{Kind, SpiffeId, Tier};

use super::{CompiledPolicy, accept_software};
use crate::fleet::{Fleet, Labels};
use crate::labels::{Lookup, matches};
use crate::seconds::Seconds;
use crate::slice::Effect;

/// Who is in which group, for one policy and one fleet.
#[derive(Debug)]
pub struct FleetIndex {
    pub(super) policy: [u8; 32],
    pub(super) nodes: Vec<IndexedNode>,
    pub(super) by_id: HashMap<SpiffeId, usize, foldhash::fast::RandomState>,
    /// Nodes of each group of the policy.
    pub(super) members: Vec<Vec<usize>>,
    /// Interfaces that each group offers.
    pub(super) offered: Vec<BTreeSet<usize>>,
    /// Interfaces that an allow opens to each group by its name.
    pub(super) opened: Vec<BTreeSet<usize>>,
    /// Interfaces that an allow opens to `any`.
    pub(super) opened_to_any: BTreeSet<usize>,
}

#[derive(Debug)]
pub(crate) struct IndexedNode {
    pub(super) id: SpiffeId,
    pub(super) tier: Tier,
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) groups: BTreeSet<usize>,
    /// The devices that it vouches for, each with its groups.
    pub(super) devices: Vec<(usize, BTreeSet<usize>)>,
    /// The strictest terms of its profiles.
    pub(super) fresh: Option<Seconds>,
    pub(super) offline: Option<Seconds>,
    pub(super) software: bool,
}

impl CompiledPolicy {
    /// Sorts the fleet into groups, once for all slices.
    pub fn index(&self, fleet: &Fleet) -> FleetIndex {
        let nodes = fleet
            .nodes
            .iter()
            .filter(|node| node.id.kind() == Kind::Node);
        let lookup = Lookup::new(self.groups.iter().map(|group| &group.matches));
        let mut by_node: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, device) in self.devices.iter().enumerate() {
            by_node.entry(&device.node).or_default().push(index);
        }
        let nodes = nodes.map(|node| {
            let mut groups = lookup.candidates(&node.labels);
            groups.retain(|index| {
                let group = self.groups.get(*index);
                group.is_some_and(|group| group.has_node(&node.labels))
            });
            let named = by_node.get(node.id.name()).into_iter().flatten();
            let devices = named.filter_map(|index| self.vouched(*index, &node.labels, &groups));
            let devices = devices.collect();
            let mut indexed = IndexedNode::new(node.id.clone(), node.tier, groups);
            indexed.devices = devices;
            indexed.v4 = node.v4;
            indexed
        });
        FleetIndex::of_indexed(self, nodes.collect())
    }

    /// A device and its groups, if this node may vouch for it in any: the node lies in the scope of the file that
    /// names the device, and in the group that vouches.
    fn vouched(
        &self,
        device: usize,
        labels: &Labels,
        node_groups: &BTreeSet<usize>,
    ) -> Option<(usize, BTreeSet<usize>)> {
        let known = self.devices.get(device)?;
        if !matches(&known.scope, labels) {
            return None;
        }
        let groups = self.groups.iter().enumerate().filter(|(_, group)| {
            group.via.is_some_and(|via| node_groups.contains(&via))
                && matches(&group.matches, &known.labels)
        });
        let groups: BTreeSet<usize> = groups.map(|(index, _)| index).collect();
        (!groups.is_empty()).then_some((device, groups))
    }
}

impl FleetIndex {
    pub(crate) fn of_indexed(policy: &CompiledPolicy, mut nodes: Vec<IndexedNode>) -> Self {
        nodes.sort_by(|one, other| one.id.cmp(&other.id));
        nodes.dedup_by(|one, other| one.id == other.id);
        let mut by_id = HashMap::default();
        let mut members = vec![Vec::new(); policy.groups.len()];
        for (index, node) in nodes.iter_mut().enumerate() {
            by_id.insert(node.id.clone(), index);
            let profiles: BTreeSet<usize> = node
                .groups
                .iter()
                .filter_map(|group| policy.groups.get(*group)?.profile)
                .collect();
            let profiles: Vec<_> = profiles
                .iter()
                .filter_map(|index| policy.profiles.get(*index))
                .collect();
            node.fresh = profiles.iter().filter_map(|profile| profile.fresh).min();
            node.offline = profiles.iter().filter_map(|profile| profile.offline).min();
            node.software = accept_software(&profiles);
            for group in &node.groups {
                if let Some(members) = members.get_mut(*group) {
                    members.push(index);
                }
            }
        }
        let mut index = Self {
            policy: policy.hash(),
            nodes,
            by_id,
            members,
            offered: vec![BTreeSet::new(); policy.groups.len()],
            opened: vec![BTreeSet::new(); policy.groups.len()],
            opened_to_any: BTreeSet::new(),
        };
        index.sort_interfaces(policy);
        index
    }

    fn sort_interfaces(&mut self, policy: &CompiledPolicy) {
        for (number, interface) in policy.interfaces.iter().enumerate() {
            if let Some(offered) = self.offered.get_mut(interface.on) {
                offered.insert(number);
            }
            let rules = interface.rows.iter().chain(&policy.everywhere);
            let allows = rules
                .filter_map(|rule| policy.rules.get(*rule))
                .filter(|rule| rule.effect == Effect::Allow);
            for rule in allows {
                if rule.from.any {
                    self.opened_to_any.insert(number);
                }
                for group in &rule.from.groups {
                    if let Some(opened) = self.opened.get_mut(*group) {
                        opened.insert(number);
                    }
                }
            }
        }
    }
}

impl IndexedNode {
    /// Before it is sorted into an index.
    pub(crate) fn join(&mut self, group: usize) {
        self.groups.insert(group);
    }

    pub(crate) fn new(id: SpiffeId, tier: Tier, groups: BTreeSet<usize>) -> Self {
        Self {
            id,
            tier,
            v4: None,
            groups,
            devices: Vec::new(),
            fresh: None,
            offline: None,
            software: false,
        }
    }
}
