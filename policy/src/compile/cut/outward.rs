//! Where this node, and the devices behind it, may go.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::{Kind, SpiffeId, Tier};

use super::{Cut, in_order};
use crate::compile::{Interface, Rule};
use crate::slice::{DeviceIndex, Effect, Egress, EgressRow, PeerIndex, States, Tiers};

impl<'c> Cut<'c> {
    /// Interfaces of others that an allow opens to this node or to devices of it, unless a deny closes them whatever the
    /// time and evidence.
    pub(super) fn egress(&mut self, peers: &mut BTreeSet<usize>) -> Vec<(usize, Egress)> {
        let mut found = Vec::new();
        let policy = self.policy;
        let opened = self.node.groups.iter();
        let opened = opened.filter_map(|group| self.index.interfaces.opened.get(*group));
        let opened = opened.flatten().chain(&self.index.interfaces.opened_to_any);
        for interface in in_order(policy, opened.copied()) {
            let rules = self.open(interface, |cut, rule| cut.is_from_here(rule));
            self.go(interface, &rules, &[], peers, &mut found);
        }
        for (groups, devices) in self.travellers() {
            let opened = groups.iter();
            let opened = opened.filter_map(|group| self.index.interfaces.opened.get(*group));
            for interface in in_order(policy, opened.flatten().copied()) {
                if interface.is_open_to_guests() {
                    let rules = self.open(interface, |cut, rule| cut.is_from(rule, &groups));
                    self.go(interface, &rules, &devices, peers, &mut found);
                }
            }
        }
        found
    }

    /// Devices of this node that can come to others, by the groups that they are in.
    fn travellers(&self) -> BTreeMap<BTreeSet<usize>, Vec<DeviceIndex>> {
        let known = self.node.devices.iter();
        let mut names: Vec<&str> = known
            .filter_map(|(index, _)| Some(self.policy.devices.get(*index)?.name.as_str()))
            .collect();
        let domain = self.node.id.trust_domain();
        // As the slice has them.
        names.sort_by_key(|name| SpiffeId::new(domain, Kind::Device, name).ok());
        let mut found: BTreeMap<BTreeSet<usize>, Vec<DeviceIndex>> = BTreeMap::new();
        for source in self.sources(self.node) {
            let place = names.iter().position(|name| *name == source.device.name);
            let index = place.and_then(|place| u32::try_from(place).ok());
            let of_groups = found.entry(source.groups.clone()).or_default();
            of_groups.extend(index.map(DeviceIndex));
        }
        for devices in found.values_mut() {
            devices.sort_unstable();
        }
        found
    }

    /// The allows of an interface about some source that no deny about it takes away whatever happens.
    fn open(&self, interface: &Interface, about: impl Fn(&Self, &Rule) -> bool) -> Vec<&'c Rule> {
        let mut rules = self.rules_of(interface);
        rules.retain(|rule| about(self, rule));
        let closed: BTreeSet<&str> = rules
            .iter()
            .filter(|rule| {
                rule.effect == Effect::Deny
                    && rule.states == States::Every
                    && rule.profiles.is_none()
                    && rule.window.is_none()
                    && rule.until.is_none()
            })
            .flat_map(|rule| rule.actions.iter().map(String::as_str))
            .collect();
        let names = interface.actions();
        rules.retain(|rule| {
            let mut actions = rule.actions.iter().map(String::as_str);
            rule.effect == Effect::Allow
                && actions.any(|action| names.contains(&action) && !closed.contains(action))
        });
        rules
    }

    /// To every node that offers the interface, by these rules.
    fn go(
        &mut self,
        interface: &Interface,
        rules: &[&Rule],
        devices: &[DeviceIndex],
        peers: &mut BTreeSet<usize>,
        found: &mut Vec<(usize, Egress)>,
    ) {
        let targets = self.index.members(interface.on);
        let mut targets: Vec<usize> = targets.filter(|node| *node != self.own).collect();
        targets.sort_unstable();
        if rules.is_empty() || targets.is_empty() {
            return;
        }
        for rule in rules {
            self.touch(rule);
        }
        let rows: Vec<EgressRow> = rules.iter().map(|rule| self.egress_row(rule)).collect();
        for target in targets {
            let node = self.index.node(target);
            let Some(beyond) = node.and_then(|node| self.beyond(interface, node)) else {
                continue;
            };
            peers.insert(target);
            let egress = Egress {
                peer: PeerIndex(0),
                service: interface.service.clone(),
                interface: interface.name.clone(),
                proto: interface.proto,
                port: interface.port,
                beyond,
                devices: devices.to_vec(),
                rows: rows.clone(),
            };
            found.push((target, egress));
        }
    }

    fn egress_row(&mut self, rule: &Rule) -> EgressRow {
        EgressRow {
            rule: rule.id.clone(),
            window: rule.window.map(|window| self.window(window)),
            until: rule.until,
            approval: rule.approval.is_some(),
            fresh: rule.fresh,
            offline: rule.offline,
        }
    }

    /// Whether a rule is about this node as its source, as far as groups, tier and profiles say.
    fn is_from_here(&self, rule: &Rule) -> bool {
        let profile_fits = rule.profiles.as_ref().is_none_or(|named| {
            let own = self.node.groups.iter();
            let mut own = own.filter_map(|group| self.policy.groups.get(*group)?.profile);
            own.any(|profile| named.contains(&profile))
        });
        self.has_tier(rule)
            && profile_fits
            && (rule.from.any || !rule.from.groups.is_disjoint(&self.node.groups))
    }

    /// The same for devices of this node, which come to another one: by their groups, with its tier, and no profile.
    fn is_from(&self, rule: &Rule, groups: &BTreeSet<usize>) -> bool {
        let any = rule.from.any && rule.effect == Effect::Deny;
        self.has_tier(rule)
            && (rule.profiles.is_none() || rule.effect == Effect::Deny)
            && (any || !rule.from.groups.is_disjoint(groups))
    }

    fn has_tier(&self, rule: &Rule) -> bool {
        match &rule.tiers {
            Tiers::Every => true,
            Tiers::Rooted => self.node.tier != Tier::Software,
            Tiers::These(tiers) => tiers.contains(&self.node.tier),
        }
    }
}
