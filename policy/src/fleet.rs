//! The fleet as the cloud knows it: what a policy is sliced against. No I/O: the cloud hands it in.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use edgeward_identity::{SpiffeId, Tier};

/// Labels of a node, one value per key; set by the enrolment token or an operator, never by the node.
pub type Labels = BTreeMap<String, String>;

/// One active node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetNode {
    /// An ID of kind `node`; others are never sliced for and never met.
    pub id: SpiffeId,
    pub labels: Labels,
    pub tier: Tier,
    /// Its overlay address from 100.64.0.0/10. The IPv6 one follows from the ID.
    pub v4: Option<Ipv4Addr>,
}

/// Every node that others may meet: status `active` only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    pub nodes: Vec<FleetNode>,
}
