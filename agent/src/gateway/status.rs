//! How the gateway stands, for people and for Prometheus.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::listen::Stand;
use super::rooms::Rooms;
use crate::enforce::decide::Spot;

/// One interface that the agent itself serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// `service/interface`.
    pub interface: String,
    pub net: String,
    pub protocol: String,
    pub port: u16,
    /// Where it listens; empty where it cannot.
    pub addresses: Vec<String>,
    /// Why nobody is let in.
    pub failed: Option<String>,
    /// Connections and UDP flows at this moment.
    pub connections: usize,
}

/// What the local socket shows.
pub struct Shown {
    rooms: Rooms,
    stands: Mutex<BTreeMap<Spot, Stand>>,
}

impl Shown {
    pub(super) fn new(rooms: Rooms) -> Self {
        Self {
            rooms,
            stands: Mutex::default(),
        }
    }

    pub(super) fn set(&self, stands: &BTreeMap<Spot, Stand>) {
        let mut shown = self.stands.lock();
        if *shown != *stands {
            shown.clone_from(stands);
        }
    }

    /// Every interface, in the order of networks and ports.
    pub fn status(&self) -> Vec<GatewayStatus> {
        let stands = self.stands.lock();
        let one = |(spot, stand): (&Spot, &Stand)| GatewayStatus {
            interface: stand.interface.to_string(),
            net: spot.net.to_string(),
            protocol: spot.proto.as_str().to_owned(),
            port: spot.port,
            addresses: stand.addresses.iter().map(ToString::to_string).collect(),
            failed: stand.failed.clone(),
            connections: self.rooms.at(spot),
        };
        stands.iter().map(one).collect()
    }
}

/// How many are connected now, for Prometheus.
pub(super) fn count(stands: &BTreeMap<Spot, Stand>, rooms: &Rooms) {
    for (spot, stand) in stands {
        let present = u32::try_from(rooms.at(spot)).unwrap_or(u32::MAX);
        let interface = stand.interface.to_string();
        metrics::gauge!("edgeward_gateway_connections", "interface" => interface).set(present);
    }
}
