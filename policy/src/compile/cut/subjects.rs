//! Who a slice knows: peers, operators and devices.

use std::collections::BTreeMap;

use edgeward_identity::overlay::ipv6_of;
use edgeward_identity::{Kind, SpiffeId};

use super::beyond::{reached_routes, seen_in};
use super::{Cut, Named};
use crate::device::SliceDevice;
use crate::slice::{Beyond, GroupId, SliceOperator, SlicePeer};

impl Cut<'_> {
    /// `beyond`: what of the things behind it this node may reach.
    pub(super) fn peer(&self, index: usize, beyond: &[Beyond]) -> Option<SlicePeer> {
        let node = self.index.node(index)?;
        let groups = node.groups.iter();
        let groups = groups.filter_map(|group| self.groups.known(Named::Group(*group)));
        let routes = reached_routes(beyond);
        Some(SlicePeer {
            id: node.id.clone(),
            groups: groups.collect(),
            v6: ipv6_of(&node.id),
            v4: node.v4,
            fresh: node.fresh,
            offline: node.offline,
            software: node.software,
            relay: self.index.relays().any(|rank| rank == index),
            exit: beyond.contains(&Beyond::Internet),
            devices: self.seen_devices(node, &routes),
            routes,
        })
    }

    pub(super) fn operators(&self) -> Vec<SliceOperator> {
        let mut members: BTreeMap<&str, Vec<GroupId>> = BTreeMap::new();
        for (index, group) in self.policy.operator_groups.iter().enumerate() {
            let number = self.groups.known(Named::OperatorGroup(index));
            if number.is_none() && !self.everybody {
                continue;
            }
            for member in &group.members {
                members.entry(member).or_default().extend(number);
            }
        }
        let domain = self.node.id.trust_domain();
        members
            .into_iter()
            .filter_map(|(name, groups)| {
                let id = SpiffeId::new(domain, Kind::Operator, name).ok()?;
                Some(SliceOperator { id, groups })
            })
            .collect()
    }

    /// What this node vouches for, by name.
    pub(super) fn devices(&self) -> Vec<SliceDevice> {
        let domain = self.node.id.trust_domain();
        let routes = self.routes_of(self.node);
        let mut devices: Vec<SliceDevice> = self
            .node
            .devices
            .iter()
            .filter_map(|(index, groups)| {
                let device = self.policy.devices.get(*index)?;
                let groups = groups.iter();
                let groups = groups.filter_map(|group| self.groups.known(Named::Group(*group)));
                Some(SliceDevice {
                    id: SpiffeId::new(domain, Kind::Device, &device.name).ok()?,
                    groups: groups.collect(),
                    net: device.net.clone(),
                    recognised: device.recognised.clone(),
                    seen_as: seen_in(&routes, device),
                })
            })
            .collect();
        devices.sort_by(|one, other| one.id.cmp(&other.id));
        devices
    }
}
