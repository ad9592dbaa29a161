//! Cutting one node's slice out of the policy.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::{SpiffeId, Timestamp};

use super::fleet_index::{FleetIndex, IndexedNode};
use super::{CompiledPolicy, Interface, Rule};
use crate::check::DEFAULT_MAX_OFFLINE;
use crate::fleet::Fleet;
use crate::profile::Profile;
use crate::seconds::Seconds;
use crate::slice::{
    ActionId, Beyond, Effect, Egress, GroupId, Lifetimes, MESH, PeerIndex, Profiles, Row,
    SLICE_SCHEMA, Slice, SliceError, SliceInterface, Sources,
};

mod beyond;
mod outward;
mod subjects;

/// Names of a policy given small numbers in one slice.
#[derive(Default)]
struct Interned {
    numbers: BTreeMap<Named, u32>,
    order: Vec<Named>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Group(usize),
    OperatorGroup(usize),
}

/// One cut in the making.
struct Cut<'c> {
    policy: &'c CompiledPolicy,
    index: &'c FleetIndex,
    node: &'c IndexedNode,
    own: usize,
    groups: Interned,
    windows: Vec<usize>,
    largest_offline: Seconds,
    max_offline: Option<Seconds>,
    /// For the tests in policy files: what lies behind nodes is somewhere, whatever fleet there is.
    everybody_asked: bool,
    /// Whether `any` may reach something here: then every node and every operator that the policy names is known.
    everybody: bool,
    /// Groups of devices that may come from other nodes.
    guests: BTreeSet<usize>,
}

impl CompiledPolicy {
    /// The slice of one node of the fleet. It ends at `expires`. For many nodes use [`Self::index`] and [`Self::slice_of`].
    pub fn slice(
        &self,
        node: &SpiffeId,
        fleet: &Fleet,
        expires: Timestamp,
    ) -> Result<Slice, SliceError> {
        self.slice_of(&self.index(fleet), node, expires)
    }

    /// The slice of one node of an indexed fleet.
    pub fn slice_of(
        &self,
        index: &FleetIndex,
        node: &SpiffeId,
        expires: Timestamp,
    ) -> Result<Slice, SliceError> {
        let unknown = || SliceError::UnknownNode(node.to_string());
        let own = index.rank_of(node).ok_or_else(unknown)?;
        let slice = self.cut(index, own, expires, false).ok_or_else(unknown)??;
        slice.validate()?;
        Ok(slice)
    }

    /// For the tests in policy files: every node is a peer and every operator is known, so that each denial gets its
    /// true reason.
    pub(crate) fn slice_with_everybody(
        &self,
        index: &FleetIndex,
        node: &SpiffeId,
        expires: Timestamp,
    ) -> Option<Slice> {
        let own = index.rank_of(node)?;
        self.cut(index, own, expires, true)?.ok()
    }

    fn cut(
        &self,
        index: &FleetIndex,
        own: usize,
        expires: Timestamp,
        everybody: bool,
    ) -> Option<Result<Slice, SliceError>> {
        if index.policy != self.hash {
            return Some(Err(SliceError::OtherPolicy));
        }
        let cut = Cut {
            policy: self,
            index,
            node: index.node(own)?,
            own,
            groups: Interned::default(),
            windows: Vec::new(),
            largest_offline: Seconds::default(),
            max_offline: None,
            everybody_asked: everybody,
            everybody,
            guests: BTreeSet::new(),
        };
        let mut slice = cut.slice(expires);
        slice.break_glass = self.break_glass_of(&slice);
        Some(Ok(slice))
    }
}

impl<'c> Cut<'c> {
    fn slice(mut self, expires: Timestamp) -> Slice {
        let mut peers = BTreeSet::new();
        let mut interfaces = Vec::new();
        let policy = self.policy;
        let offered = self.node.groups.iter();
        let offered = offered.filter_map(|group| self.index.interfaces.offered.get(*group));
        for interface in in_order(policy, offered.flatten().copied()) {
            let Some(beyond) = self.beyond(interface, self.node) else {
                continue;
            };
            let rules = self.rules_of(interface);
            for rule in rules.iter().filter(|rule| rule.effect == Effect::Allow) {
                self.add_sources(rule, &mut peers);
                if interface.is_open_to_guests() {
                    self.add_guests(rule, &mut peers);
                }
                self.touch(rule);
            }
            let actions = interface.actions();
            let rows = rules
                .iter()
                .filter_map(|rule| self.row(rule, interface, &actions))
                .collect();
            interfaces.push(SliceInterface {
                service: interface.service.clone(),
                name: interface.name.clone(),
                net: interface.net.clone(),
                proto: interface.proto,
                port: interface.port,
                to: interface.to,
                beyond,
                l7: interface.l7.clone(),
                rows,
            });
        }
        if self.everybody {
            peers.extend((0..self.index.len()).filter(|node| *node != self.own));
        }
        let egress = self.egress(&mut peers);
        let roles = self.roles();
        self.add_relays(roles, &mut peers);
        let order: BTreeMap<usize, u32> = peers.iter().copied().zip(0..).collect();
        let mut reached: BTreeMap<usize, Vec<Beyond>> = BTreeMap::new();
        for (peer, egress) in &egress {
            reached.entry(*peer).or_default().extend(egress.beyond);
        }
        let egress = egress
            .into_iter()
            .filter_map(|(peer, egress)| {
                Some(Egress {
                    peer: PeerIndex(*order.get(&peer)?),
                    ..egress
                })
            })
            .collect();
        Slice {
            schema: SLICE_SCHEMA.to_owned(),
            version: self.policy.version,
            policy_hash: hex::encode(self.policy.hash),
            node: self.node.id.clone(),
            roles,
            routes: self.routes_of(self.node),
            expires,
            groups: self.group_names(),
            windows: self
                .windows
                .iter()
                .filter_map(|window| self.policy.windows.get(*window).cloned())
                .collect(),
            interfaces,
            peers: peers
                .iter()
                .filter_map(|peer| {
                    let beyond = reached.get(peer).map_or(&[] as &[Beyond], Vec::as_slice);
                    self.peer(*peer, beyond)
                })
                .collect(),
            operators: self.operators(),
            egress,
            profiles: self.profiles(),
            lifetimes: Lifetimes {
                largest_offline: self.largest_offline,
                max_offline: self.max_offline.unwrap_or(DEFAULT_MAX_OFFLINE),
            },
            workloads: self.policy.workloads_on(self.node.id.trust_domain(), |on| {
                self.node.groups.contains(&on)
            }),
            devices: self.devices(),
            approvals: Vec::new(),
            break_glass: Vec::new(),
            apps: self
                .policy
                .app_rules_on(|on| self.node.groups.contains(&on)),
        }
    }

    fn profiles(&self) -> Vec<Profile> {
        let groups = self.node.groups.iter();
        let named = groups.filter_map(|group| self.policy.groups.get(*group)?.profile);
        let profiles: BTreeMap<&str, &Profile> = named
            .filter_map(|index| self.policy.profiles.get(index))
            .map(|profile| (profile.name.as_str(), profile))
            .collect();
        profiles.into_values().cloned().collect()
    }

    fn rules_of(&self, interface: &Interface) -> Vec<&'c Rule> {
        let policy: &'c CompiledPolicy = self.policy;
        let named = interface.rows.iter().chain(&policy.everywhere).copied();
        // By id, so that the order of files and rules means nothing.
        let mut rules: Vec<&Rule> = named.filter_map(|index| policy.rules.get(index)).collect();
        rules.sort_by(|one, other| one.id.cmp(&other.id));
        rules
    }

    /// The nodes that a rule is from, but for this one.
    fn add_sources(&mut self, rule: &Rule, peers: &mut BTreeSet<usize>) {
        self.everybody |= rule.from.any;
        for group in &rule.from.groups {
            let members = self.index.members(*group);
            peers.extend(members.filter(|node| *node != self.own));
        }
    }

    fn touch(&mut self, rule: &Rule) {
        // What break-glass may open in a long outage is worth nothing with certificates that have ended by then.
        let offline = match rule.opened_by_glass {
            true => rule.max_offline,
            false => rule.offline.for_profile(self.node.offline),
        };
        self.largest_offline = self.largest_offline.max(offline);
        let max = self.max_offline.unwrap_or_default().max(rule.max_offline);
        self.max_offline = Some(max);
    }

    /// `None` for a rule about everything that names none of this interface's actions.
    fn row(&mut self, rule: &Rule, interface: &Interface, names: &[&str]) -> Option<Row> {
        let actions: Vec<ActionId> = (0..)
            .map(ActionId)
            .zip(names)
            .filter(|(_, name)| rule.actions.iter().any(|action| action == *name))
            .map(|(id, _)| id)
            .collect();
        if actions.is_empty() {
            return None;
        }
        let from = if rule.from.any {
            Sources::Any
        } else {
            // No device gets beyond the node that it asks: nothing is opened to one there.
            let on_mesh = interface.net == MESH && rule.effect == Effect::Allow;
            let closed = on_mesh && !interface.is_open_to_guests();
            let is_device = |group: &usize| {
                let group = self.policy.groups.get(*group);
                group.is_some_and(|group| group.via.is_some())
            };
            let groups = rule.from.groups.iter();
            let groups = groups.filter(|group| !(closed && is_device(group)));
            let groups: Vec<Named> = groups.map(|group| Named::Group(*group)).collect();
            let operators = rule
                .from
                .operator_groups
                .iter()
                .map(|group| Named::OperatorGroup(*group));
            let named: Vec<Named> = groups.into_iter().chain(operators).collect();
            if named.is_empty() {
                return None;
            }
            let numbers = named.into_iter().map(|named| self.groups.number(named));
            Sources::Groups(numbers.collect())
        };
        Some(Row {
            rule: rule.id.clone(),
            effect: rule.effect,
            from,
            actions,
            window: rule.window.map(|window| self.window(window)),
            until: rule.until,
            tiers: rule.tiers.clone(),
            states: rule.states.clone(),
            profiles: match &rule.profiles {
                None => Profiles::Every,
                Some(named) => Profiles::These(
                    named
                        .iter()
                        .filter_map(|index| self.policy.labels.get(*index).cloned())
                        .collect(),
                ),
            },
            runs: rule.runs.clone(),
            approval: rule.approval.is_some(),
            fresh: rule.fresh,
            offline: rule.offline,
        })
    }

    fn window(&mut self, window: usize) -> u32 {
        let known = self.windows.iter().position(|known| *known == window);
        let index = known.unwrap_or_else(|| {
            self.windows.push(window);
            self.windows.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    fn group_names(&self) -> Vec<String> {
        let name = |named: &Named| match named {
            Named::Group(index) => self
                .policy
                .groups
                .get(*index)
                .map(|group| format!("group:{}", group.name)),
            Named::OperatorGroup(index) => {
                let group = self.policy.operator_groups.get(*index);
                group.map(|group| format!("operator-group:{}", group.name))
            }
        };
        self.groups
            .order
            .iter()
            .map(|named| name(named).unwrap_or_default())
            .collect()
    }
}

/// Interfaces by their names: the order of files means nothing.
fn in_order(
    policy: &CompiledPolicy,
    interfaces: impl Iterator<Item = usize>,
) -> impl Iterator<Item = &Interface> {
    let named = interfaces.filter_map(|index| {
        let interface = policy.interfaces.get(index)?;
        Some(((&interface.service, &interface.name), interface))
    });
    named.collect::<BTreeMap<_, _>>().into_values()
}

impl Interned {
    fn number(&mut self, named: Named) -> GroupId {
        let next = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(named).or_insert(next);
        if number == next {
            self.order.push(named);
        }
        GroupId(number)
    }

    fn known(&self, named: Named) -> Option<GroupId> {
        self.numbers.get(&named).copied().map(GroupId)
    }
}
