//! What a slice may hold at most, and the check of its inner references. A slice is signed by the cloud; it is
//! checked all the same, since everything after it counts on it.

use edgeward_apps::admit::BadRules;
use edgeward_identity::Kind;
use ipnet::IpNet;

use super::beyond::is_one_to_one;
use super::{
    Beyond, CONNECT, Egress, GroupId, MESH, Profiles, Row, SLICE_SCHEMA, Slice, SliceInterface,
    Sources, States, Tiers,
};
use crate::l7::{MAX_ACTIONS, MAX_PATTERNS};
use crate::runs::{MAX_RUNS, Wants};
use crate::workload::{MAX_SLICE_WORKLOADS, MAX_WORKLOAD_TTL, MIN_WORKLOAD_TTL};

/// Largest slice accepted, in bytes of JSON.
pub const MAX_SLICE_BYTES: usize = 32 * 1024 * 1024;
/// Most peers and operators of one node, each.
pub const MAX_SLICE_PEERS: usize = 65_536;
/// Most interfaces on one node.
pub const MAX_SLICE_INTERFACES: usize = 1_024;
/// Most rows on one interface.
pub const MAX_SLICE_ROWS: usize = 1_000;
/// Most devices of one node.
pub const MAX_SLICE_DEVICES: usize = 4_096;
/// Most approvals, and most ways to break the glass, on one node, each.
pub const MAX_SLICE_APPROVALS: usize = 4_096;
/// Most networks behind one node.
pub const MAX_SLICE_ROUTES: usize = 256;
/// Most networks behind one peer, and most devices whose addresses there are named.
pub const MAX_PEER_ROUTES: usize = 1_000;
/// Most groups that one slice names.
pub const MAX_SLICE_GROUPS: usize = 16_384;

/// Why a slice is refused: the cloud's fault, or somebody's who is not the cloud.
#[derive(Debug, thiserror::Error)]
pub enum SliceError {
    #[error("slice larger than the limit in bytes: {0}")]
    TooLarge(usize),
    #[error("slice is not in the expected form")]
    Form(#[source] serde_json::Error),
    #[error("slice of an unknown schema: {0:?}")]
    Schema(String),
    #[error("slice gives a workload a lifetime out of bounds, in seconds: {0}")]
    WorkloadTtl(u64),
    #[error("slice names as a workload what is none: {0}")]
    NotAWorkload(String),
    #[error("slice is for something that is not a node: {0}")]
    NotANode(String),
    #[error("slice holds more {what} than the limit: {limit}")]
    TooMany { what: &'static str, limit: usize },
    #[error("slice refers to {what} that it does not hold")]
    Dangling { what: &'static str },
    #[error("slice holds an empty {what}")]
    Empty { what: &'static str },
    #[error("slice maps networks to others that do not fit: {0}")]
    Route(String),
    #[error("slice says of apps what does not hold: {0}")]
    Apps(#[from] BadRules),
    #[error("slice wants a program that is none: {0:?}")]
    NotAWant(String),
    #[error("slice names twice: {what}")]
    Twice { what: String },
    #[error("node is not in the fleet: {0}")]
    UnknownNode(String),
    #[error("the fleet was indexed for another policy")]
    OtherPolicy,
}

impl Slice {
    /// Parses and checks a slice.
    pub fn parse(json: &[u8]) -> Result<Self, SliceError> {
        if json.len() > MAX_SLICE_BYTES {
            return Err(SliceError::TooLarge(MAX_SLICE_BYTES));
        }
        let slice: Self = serde_json::from_slice(json).map_err(SliceError::Form)?;
        slice.validate()?;
        Ok(slice)
    }

    /// The JSON that is signed.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("string keys and plain values always serialise")
    }

    /// Bounds and inner references hold.
    pub fn validate(&self) -> Result<(), SliceError> {
        if self.schema != SLICE_SCHEMA {
            return Err(SliceError::Schema(self.schema.clone()));
        }
        if self.node.kind() != Kind::Node {
            return Err(SliceError::NotANode(self.node.to_string()));
        }
        at_most("groups", self.groups.len(), MAX_SLICE_GROUPS)?;
        at_most("peers", self.peers.len(), MAX_SLICE_PEERS)?;
        at_most("operators", self.operators.len(), MAX_SLICE_PEERS)?;
        at_most("devices", self.devices.len(), MAX_SLICE_DEVICES)?;
        at_most("approvals", self.approvals.len(), MAX_SLICE_APPROVALS)?;
        at_most("break-glass", self.break_glass.len(), MAX_SLICE_APPROVALS)?;
        at_most("interfaces", self.interfaces.len(), MAX_SLICE_INTERFACES)?;
        for interface in &self.interfaces {
            at_most("rows", interface.rows.len(), MAX_SLICE_ROWS)?;
            validate_actions(interface)?;
            for row in &interface.rows {
                self.validate_row(interface, row)?;
            }
        }
        self.validate_subjects()?;
        self.validate_interfaces()?;
        self.validate_workloads()?;
        self.validate_openings()?;
        self.validate_beyond()?;
        self.apps.validate()?;
        self.validate_wants()?;
        for egress in &self.egress {
            if egress.peer.0 as usize >= self.peers.len() {
                return Err(SliceError::Dangling { what: "a peer" });
            }
            port_fits(egress.port, egress.beyond)?;
            not_empty("egress", egress.rows.is_empty())?;
            self.validate_travellers(egress)?;
            for row in &egress.rows {
                self.validate_window(row.window)?;
            }
        }
        Ok(())
    }

    /// What leaves for peers without being this node itself: its devices that are known by an address there.
    fn validate_travellers(&self, egress: &Egress) -> Result<(), SliceError> {
        let next = egress.devices.iter().skip(1);
        let sorted = egress
            .devices
            .iter()
            .zip(next)
            .all(|(one, other)| one < other);
        let known = egress.devices.iter().all(|index| {
            let device = self.devices.get(index.0 as usize);
            device.is_some_and(|device| {
                device.seen_as.is_some() && device.recognised.certificate.is_none()
            })
        });
        let beyond = !egress.devices.is_empty() && egress.beyond.is_some();
        match sorted && known && !beyond {
            true => Ok(()),
            false => Err(SliceError::Dangling { what: "a device" }),
        }
    }

    /// What is not written as it should be, or does not fit any more, would be met by nobody.
    fn validate_wants(&self) -> Result<(), SliceError> {
        let rows = self.interfaces.iter().flat_map(|interface| &interface.rows);
        let wants: std::collections::BTreeSet<&String> = rows.flat_map(|row| &row.runs).collect();
        at_most("wants of what runs", wants.len(), MAX_RUNS)?;
        match wants.iter().find(|text| text.parse::<Wants>().is_err()) {
            Some(text) => Err(SliceError::NotAWant((*text).clone())),
            None => Ok(()),
        }
    }

    fn validate_workloads(&self) -> Result<(), SliceError> {
        at_most("workloads", self.workloads.len(), MAX_SLICE_WORKLOADS)?;
        let mut seen = std::collections::BTreeSet::new();
        for workload in &self.workloads {
            let id = &workload.id;
            if id.kind() != Kind::Workload || id.trust_domain() != self.node.trust_domain() {
                return Err(SliceError::NotAWorkload(id.to_string()));
            }
            not_empty("match of a workload", workload.selectors.is_empty())?;
            if !(MIN_WORKLOAD_TTL..=MAX_WORKLOAD_TTL).contains(&workload.ttl) {
                return Err(SliceError::WorkloadTtl(workload.ttl.get()));
            }
            if !seen.insert(id) {
                return Err(SliceError::Twice {
                    what: id.to_string(),
                });
            }
        }
        Ok(())
    }

    fn validate_openings(&self) -> Result<(), SliceError> {
        for device in &self.devices {
            let how = &device.recognised;
            let nothing = how.mac.is_none() && how.ip.is_none() && how.certificate.is_none();
            not_empty("recognition of a device", nothing)?;
            let mut routes = self.routes.iter();
            let led = device.seen_as.is_none_or(|address| {
                routes.any(|route| route.net == device.net && route.seen_as.contains(&address))
            });
            if !led {
                return Err(SliceError::Route(device.id.to_string()));
            }
            not_empty(
                "network of a device",
                device.net.is_empty() || device.net == MESH,
            )?;
        }
        for glass in &self.break_glass {
            let no_quorum = glass.quorum == 0 || usize::from(glass.quorum) > glass.by.len();
            not_empty("quorum", no_quorum)?;
            not_empty("break-glass", glass.rules.is_empty())?;
            at_most("revoked grants", glass.revoked.len(), MAX_SLICE_APPROVALS)?;
        }
        Ok(())
    }

    fn validate_row(&self, interface: &SliceInterface, row: &Row) -> Result<(), SliceError> {
        if let Sources::Groups(groups) = &row.from {
            not_empty("from", groups.is_empty())?;
            self.validate_groups(groups)?;
        }
        not_empty("do", row.actions.is_empty())?;
        let actions = interface.actions().len();
        if row
            .actions
            .iter()
            .any(|action| usize::from(action.0) >= actions)
        {
            return Err(SliceError::Dangling { what: "an action" });
        }
        not_empty("rule id", row.rule.is_empty())?;
        if let Tiers::These(tiers) = &row.tiers {
            not_empty("tier", tiers.is_empty())?;
        }
        if let States::These(states) | States::Unless(states) = &row.states {
            not_empty("state", states.is_empty())?;
        }
        if let Profiles::These(profiles) = &row.profiles {
            not_empty("profile", profiles.is_empty())?;
        }
        self.validate_window(row.window)
    }

    fn validate_window(&self, window: Option<u32>) -> Result<(), SliceError> {
        match window {
            Some(index) if index as usize >= self.windows.len() => {
                Err(SliceError::Dangling { what: "a window" })
            }
            _ => Ok(()),
        }
    }

    fn validate_groups(&self, groups: &[GroupId]) -> Result<(), SliceError> {
        if groups
            .iter()
            .any(|group| group.0 as usize >= self.groups.len())
        {
            return Err(SliceError::Dangling { what: "a group" });
        }
        Ok(())
    }

    fn validate_subjects(&self) -> Result<(), SliceError> {
        let peers = self
            .peers
            .iter()
            .map(|peer| (&peer.id, &peer.groups, Kind::Node));
        let operators = self
            .operators
            .iter()
            .map(|op| (&op.id, &op.groups, Kind::Operator));
        let devices = self
            .devices
            .iter()
            .map(|device| (&device.id, &device.groups, Kind::Device));
        let mut seen = std::collections::BTreeSet::new();
        let beyond = self.peers.iter().flat_map(|peer| &peer.devices);
        let beyond = beyond.map(|device| (&device.id, &device.groups, Kind::Device));
        for (id, groups, kind) in peers.chain(operators).chain(devices).chain(beyond) {
            if id.kind() != kind || id.trust_domain() != self.node.trust_domain() {
                return Err(SliceError::NotANode(id.to_string()));
            }
            if !seen.insert(id) || *id == self.node {
                return Err(SliceError::Twice {
                    what: id.to_string(),
                });
            }
            self.validate_groups(groups)?;
        }
        Ok(())
    }

    fn validate_beyond(&self) -> Result<(), SliceError> {
        at_most("routes", self.routes.len(), MAX_SLICE_ROUTES)?;
        let mut names = std::collections::BTreeSet::new();
        for (index, route) in self.routes.iter().enumerate() {
            not_empty(
                "network of a route",
                route.net.is_empty() || route.net == MESH,
            )?;
            if !names.insert(&route.name) {
                return Err(SliceError::Twice {
                    what: route.name.clone(),
                });
            }
            let earlier = self.routes.iter().take(index);
            let mut clash = earlier.filter(|earlier| overlap(earlier.seen_as, route.seen_as));
            let sound = is_one_to_one(route.prefix, route.seen_as)
                && is_network(route.prefix)
                && is_network(route.seen_as);
            if !sound || clash.next().is_some() {
                return Err(SliceError::Route(route.name.clone()));
            }
        }
        for interface in &self.interfaces {
            port_fits(interface.port, interface.beyond)?;
            let Some(beyond) = interface.beyond else {
                continue;
            };
            let led = match beyond {
                Beyond::Internet => self.roles.exit,
                Beyond::Net(net) => {
                    let mut routes = self.routes.iter();
                    routes.any(|route| is_network(net) && route.seen_as.contains(&net))
                }
            };
            let plain = interface.net == MESH && !interface.is_forwarded();
            if !led || !plain {
                return Err(SliceError::Route(interface.name.clone()));
            }
        }
        self.validate_peers_beyond()
    }

    fn validate_peers_beyond(&self) -> Result<(), SliceError> {
        let mut sources = std::collections::BTreeSet::new();
        for peer in &self.peers {
            at_most("routes of a peer", peer.routes.len(), MAX_PEER_ROUTES)?;
            at_most("devices of a peer", peer.devices.len(), MAX_PEER_ROUTES)?;
            let next = peer.routes.iter().skip(1);
            let apart = peer
                .routes
                .iter()
                .zip(next)
                .all(|(one, other)| one < other && !overlap(*one, *other));
            let sound = peer.routes.iter().all(|net| is_network(*net));
            let led = peer.devices.iter().all(|device| {
                let mut routes = peer.routes.iter();
                device.source || routes.any(|net| net.contains(&device.address))
            });
            // Who has an address of his own is known by it.
            let alone = peer
                .devices
                .iter()
                .filter(|device| device.source)
                .all(|device| sources.insert(device.address));
            let apart = apart && alone;
            if !apart || !sound || !led {
                return Err(SliceError::Route(peer.id.to_string()));
            }
        }
        Ok(())
    }

    fn validate_interfaces(&self) -> Result<(), SliceError> {
        let mut names = std::collections::BTreeSet::new();
        let mut ports = std::collections::BTreeSet::new();
        for interface in &self.interfaces {
            if !names.insert((&interface.service, &interface.name)) {
                return Err(SliceError::Twice {
                    what: format!("{}/{}", interface.service, interface.name),
                });
            }
            let port = (
                &interface.net,
                interface.proto,
                interface.port,
                interface.beyond,
            );
            if !ports.insert(port) {
                return Err(SliceError::Twice {
                    what: format!(
                        "{} {}/{}",
                        interface.net,
                        interface.proto.as_str(),
                        interface.port
                    ),
                });
            }
        }
        Ok(())
    }
}

fn validate_actions(interface: &SliceInterface) -> Result<(), SliceError> {
    let Some(l7) = &interface.l7 else {
        return Ok(());
    };
    at_most("patterns of an action", l7.most_patterns(), MAX_PATTERNS)?;
    not_empty("action", l7.most_patterns() == 0)?;
    let names = l7.names();
    at_most("actions", names.len(), MAX_ACTIONS)?;
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    not_empty(
        "name of an action",
        distinct.len() < names.len() || names.contains(&"") || names.contains(&CONNECT),
    )
}

/// Zero means every port, and only of the internet.
fn port_fits(port: u16, beyond: Option<Beyond>) -> Result<(), SliceError> {
    not_empty("port", (port == 0) != (beyond == Some(Beyond::Internet)))
}

/// Whether a network is written by its first address.
fn is_network(net: IpNet) -> bool {
    net == net.trunc()
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), SliceError> {
    if count > limit {
        return Err(SliceError::TooMany { what, limit });
    }
    Ok(())
}

fn not_empty(what: &'static str, empty: bool) -> Result<(), SliceError> {
    if empty {
        return Err(SliceError::Empty { what });
    }
    Ok(())
}
