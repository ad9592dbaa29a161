//! The fleet sorted by a policy's groups, once for all slices, and kept so as nodes come, change and go.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use edgeward_identity::overlay::ipv6_of;
use edgeward_identity::{Kind, SpiffeId, Tier};

use super::{CompiledPolicy, accept_software};
use crate::fleet::{Fleet, FleetNode, Labels};
use crate::labels::{Lookup, matches};
use crate::seconds::Seconds;
use crate::slice::Effect;

/// Who is in which group, for one policy and one fleet. A copy shares everything with its original until one of the
/// two changes: a fleet of 10,000 is copied in tens of microseconds.
///
/// A node is known by its rank, its place among all nodes in the order of their IDs: slices list them in that order.
#[derive(Clone, Debug)]
pub struct FleetIndex {
    pub(super) policy: [u8; 32],
    pub(super) interfaces: Arc<SortedInterfaces>,
    /// Nodes keep their slots while others come and go.
    slots: Vec<Option<Arc<IndexedNode>>>,
    free: Vec<usize>,
    /// Slots in the order of IDs.
    order: Vec<usize>,
    /// The rank of each slot.
    ranks: Vec<usize>,
    /// Slots of the nodes of each group of the policy, in no order.
    members: Vec<Arc<Vec<usize>>>,
    /// Slots of the nodes that vouch for a device of each group of the policy, in no order.
    vouchers: Vec<Arc<Vec<usize>>>,
    /// Slots of the nodes that may carry for others, by addresses that are as good as drawn by lot: the first of them
    /// do, and stay the same while others come and go.
    relays: Arc<BTreeSet<(Ipv6Addr, usize)>>,
}

/// Most nodes that carry for others: each has the whole fleet as peers, and everybody has each of them.
pub const MAX_RELAYS: usize = 16;

/// What of a policy is looked up for every node: made once for each policy.
#[derive(Debug)]
pub(crate) struct SortedInterfaces {
    lookup: Lookup,
    /// Devices by the name of the node that they hang on.
    devices: HashMap<String, Vec<usize>, foldhash::fast::RandomState>,
    /// Interfaces that each group offers.
    pub(super) offered: Vec<BTreeSet<usize>>,
    /// Interfaces that an allow opens to each group by its name.
    pub(super) opened: Vec<BTreeSet<usize>>,
    /// Interfaces that an allow opens to `any`.
    pub(super) opened_to_any: BTreeSet<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
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
        let interfaces = self.sorted();
        let nodes = fleet.nodes.iter();
        let nodes = nodes.filter_map(|node| self.indexed(&interfaces, node));
        FleetIndex::of_indexed(self, nodes.collect())
    }

    fn sorted(&self) -> Arc<SortedInterfaces> {
        Arc::clone(
            self.sorted
                .get_or_init(|| Arc::new(SortedInterfaces::new(self))),
        )
    }

    /// `None` for what is no node.
    fn indexed(&self, interfaces: &SortedInterfaces, node: &FleetNode) -> Option<IndexedNode> {
        if node.id.kind() != Kind::Node {
            return None;
        }
        let mut groups = interfaces.lookup.candidates(&node.labels);
        groups.retain(|index| {
            let group = self.groups.get(*index);
            group.is_some_and(|group| group.has_node(&node.labels))
        });
        let named = interfaces.devices.get(node.id.name()).into_iter().flatten();
        let devices = named.filter_map(|index| self.vouched(*index, &node.labels, &groups));
        let devices = devices.collect();
        let mut indexed = IndexedNode::new(node.id.clone(), node.tier, groups);
        indexed.devices = devices;
        indexed.v4 = node.v4;
        Some(indexed)
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
        let count = nodes.len();
        let mut members = vec![Vec::new(); policy.groups.len()];
        let mut vouchers = members.clone();
        let mut relays = BTreeSet::new();
        let slots = nodes.into_iter().enumerate().map(|(slot, mut node)| {
            node.take_terms(policy);
            if node.may_relay(policy) {
                relays.insert((ipv6_of(&node.id), slot));
            }
            for group in &node.groups {
                if let Some(members) = members.get_mut(*group) {
                    members.push(slot);
                }
            }
            for group in node.vouched() {
                if let Some(vouchers) = vouchers.get_mut(group) {
                    vouchers.push(slot);
                }
            }
            Some(Arc::new(node))
        });
        let slots = slots.collect();
        Self {
            policy: policy.hash(),
            interfaces: policy.sorted(),
            slots,
            free: Vec::new(),
            order: (0..count).collect(),
            ranks: (0..count).collect(),
            members: members.into_iter().map(Arc::new).collect(),
            vouchers: vouchers.into_iter().map(Arc::new).collect(),
            relays: Arc::new(relays),
        }
    }

    /// Takes a node in, in the place of the one of its ID if there is one. `policy` is the one it was made for; with
    /// another, and for what is no node, nothing changes.
    pub fn put(&mut self, policy: &CompiledPolicy, node: &FleetNode) {
        if self.policy != policy.hash() {
            return;
        }
        let Some(mut indexed) = policy.indexed(&self.interfaces, node) else {
            return;
        };
        indexed.take_terms(policy);
        self.remove(&node.id);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.ranks.push(0);
            self.slots.len() - 1
        });
        for group in &indexed.groups {
            if let Some(members) = self.members.get_mut(*group) {
                Arc::make_mut(members).push(slot);
            }
        }
        for group in indexed.vouched() {
            if let Some(vouchers) = self.vouchers.get_mut(group) {
                Arc::make_mut(vouchers).push(slot);
            }
        }
        if indexed.may_relay(policy) {
            Arc::make_mut(&mut self.relays).insert((ipv6_of(&node.id), slot));
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(Arc::new(indexed));
        }
        let rank = self.place_of(&node.id).unwrap_or_else(|rank| rank);
        self.order.insert(rank, slot);
        self.rank_from(rank);
    }

    /// Takes a node out.
    pub fn remove(&mut self, id: &SpiffeId) {
        let Ok(rank) = self.place_of(id) else {
            return;
        };
        let slot = self.order.remove(rank);
        self.rank_from(rank);
        let Some(node) = self.slots.get_mut(slot).and_then(Option::take) else {
            return;
        };
        self.free.push(slot);
        let place = (ipv6_of(id), slot);
        if self.relays.contains(&place) {
            Arc::make_mut(&mut self.relays).remove(&place);
        }
        for group in &node.groups {
            if let Some(members) = self.members.get_mut(*group) {
                Arc::make_mut(members).retain(|member| *member != slot);
            }
        }
        for group in node.vouched() {
            if let Some(vouchers) = self.vouchers.get_mut(group) {
                Arc::make_mut(vouchers).retain(|member| *member != slot);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn rank_of(&self, id: &SpiffeId) -> Option<usize> {
        self.place_of(id).ok()
    }

    pub(super) fn node(&self, rank: usize) -> Option<&IndexedNode> {
        self.slots.get(*self.order.get(rank)?)?.as_deref()
    }

    /// Ranks of a group's nodes, in no order.
    pub(super) fn members(&self, group: usize) -> impl Iterator<Item = usize> {
        self.ranks_of(self.members.get(group))
    }

    /// Ranks of the nodes that vouch for a device of this group, in no order.
    pub(super) fn vouchers(&self, group: usize) -> impl Iterator<Item = usize> {
        self.ranks_of(self.vouchers.get(group))
    }

    fn ranks_of<'s>(
        &'s self,
        slots: Option<&'s Arc<Vec<usize>>>,
    ) -> impl Iterator<Item = usize> + 's {
        let slots = slots.into_iter().flat_map(|slots| slots.iter());
        slots.filter_map(|slot| self.ranks.get(*slot).copied())
    }

    /// Ranks of the nodes that carry for others.
    pub(super) fn relays(&self) -> impl Iterator<Item = usize> {
        let chosen = self.relays.iter().take(MAX_RELAYS);
        chosen.filter_map(|(_, slot)| self.ranks.get(*slot).copied())
    }

    fn place_of(&self, id: &SpiffeId) -> Result<usize, usize> {
        self.order.binary_search_by(|slot| {
            let node = self.slots.get(*slot).and_then(Option::as_ref);
            node.map(|node| &node.id).cmp(&Some(id))
        })
    }

    fn rank_from(&mut self, first: usize) {
        for (rank, slot) in self.order.iter().enumerate().skip(first) {
            if let Some(known) = self.ranks.get_mut(*slot) {
                *known = rank;
            }
        }
    }
}

impl SortedInterfaces {
    fn new(policy: &CompiledPolicy) -> Self {
        let mut sorted = Self {
            lookup: Lookup::new(policy.groups.iter().map(|group| &group.matches)),
            devices: HashMap::default(),
            offered: vec![BTreeSet::new(); policy.groups.len()],
            opened: vec![BTreeSet::new(); policy.groups.len()],
            opened_to_any: BTreeSet::new(),
        };
        for (index, device) in policy.devices.iter().enumerate() {
            let of_node = sorted.devices.entry(device.node.clone()).or_default();
            of_node.push(index);
        }
        for (number, interface) in policy.interfaces.iter().enumerate() {
            if let Some(offered) = sorted.offered.get_mut(interface.on) {
                offered.insert(number);
            }
            let rules = interface.rows.iter().chain(&policy.everywhere);
            let allows = rules
                .filter_map(|rule| policy.rules.get(*rule))
                .filter(|rule| rule.effect == Effect::Allow);
            for rule in allows {
                if rule.from.any {
                    sorted.opened_to_any.insert(number);
                }
                for group in &rule.from.groups {
                    if let Some(opened) = sorted.opened.get_mut(*group) {
                        opened.insert(number);
                    }
                }
            }
        }
        sorted
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

    /// The groups of its devices, each once.
    fn vouched(&self) -> BTreeSet<usize> {
        let groups = self.devices.iter().flat_map(|(_, groups)| groups);
        groups.copied().collect()
    }

    fn may_relay(&self, policy: &CompiledPolicy) -> bool {
        !policy.relays.is_disjoint(&self.groups)
    }

    /// What its groups' profiles say.
    fn take_terms(&mut self, policy: &CompiledPolicy) {
        let profiles: BTreeSet<usize> = self
            .groups
            .iter()
            .filter_map(|group| policy.groups.get(*group)?.profile)
            .collect();
        let profiles: Vec<_> = profiles
            .iter()
            .filter_map(|index| policy.profiles.get(*index))
            .collect();
        self.fresh = profiles.iter().filter_map(|profile| profile.fresh).min();
        self.offline = profiles.iter().filter_map(|profile| profile.offline).min();
        self.software = accept_software(&profiles);
    }
}

#[cfg(test)]
mod tests;
