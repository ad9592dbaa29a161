//! What a node says of itself to the cloud.

use std::net::IpAddr;
use std::time::Duration;

use edgeward_wire::limits::MAX_ENDPOINTS;
use edgeward_wire::v1;

use super::news::{News, Sources};
use super::{Live, Session, upload};

/// How long the Hello waits for the journal's end.
const HEAD_WITHIN: Duration = Duration::from_secs(2);

/// Where peers reach this node.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// As configured; if empty, what was found out, or the address that reaches the cloud.
    pub advertised: Vec<String>,
    pub udp_port: u16,
}

impl Session {
    pub(super) fn hello(&mut self, local: IpAddr, journal_head: Vec<u8>) -> v1::Hello {
        v1::Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.boot.id().as_bytes().to_vec(),
            boot_key: self.boot.public_key().point().to_vec(),
            slice_number: self.holder.slice_number(),
            deny_number: *self.view.trust_changed.borrow(),
            key_set_number: self.view.keys.borrow().number(),
            endpoints: self.own_endpoints(local),
            bundle_sequence: self.holder.say_bundle_sequence(),
            join: self.holder.join(),
            slice_deltas: true,
            slice_digest: self.holder.slice_digest(),
            metered: self.metered,
            apps: Some(self.said_of_apps()),
            journal_head,
            log_size: Some(self.journal.log_size()),
        }
    }

    /// Where the journal ends, signed; empty where that is not known soon: a disk that hangs keeps no node from the cloud.
    pub(super) async fn journal_head(&self) -> Vec<u8> {
        let end = tokio::time::timeout(HEAD_WITHIN, self.journal.end());
        match end.await {
            Ok(Some(end)) => upload::signed_head(&self.view, end, 0).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// To be asked for before the Hello is made: nothing may change between the two.
    pub(super) fn news(&self) -> News {
        let publisher = &self.holder.publisher;
        let sources = Sources {
            progress: self.progress.clone(),
            endpoints: publisher.reach.endpoints.clone(),
            apps: publisher.apps.clone(),
            measured: self.measure.newest_change(),
        };
        News::new(sources, self.metered)
    }

    /// The number is that of the word in hand: the desk may be behind it.
    fn said_of_apps(&self) -> v1::AppsState {
        let measured = *self.measure.newest_change().borrow();
        let mut said = self.holder.publisher.apps.borrow().to_wire(measured);
        said.director_number = self.holder.director_number();
        said
    }

    fn own_endpoints(&self, local: IpAddr) -> Vec<String> {
        let found = self.holder.publisher.reach.endpoints.borrow();
        self.endpoints.say(&found, local)
    }

    pub(super) fn status(&mut self, live: &Live) -> v1::NodeStatus {
        let progress = *self.progress.borrow();
        v1::NodeStatus {
            endpoints: self.own_endpoints(live.connected.local),
            binds_open: progress.binds_open,
            slice_number: self.holder.slice_number(),
            cut_number: progress.cut_number,
            bundle_sequence: self.holder.say_bundle_sequence(),
            apps: Some(self.said_of_apps()),
        }
    }
}

impl Endpoints {
    /// What was configured, or what was found out, or what the session's address suggests.
    pub(super) fn say(&self, found: &[String], local: IpAddr) -> Vec<String> {
        if !self.advertised.is_empty() {
            self.advertised.clone()
        } else if !found.is_empty() {
            found.iter().take(MAX_ENDPOINTS).cloned().collect()
        } else {
            vec![std::net::SocketAddr::new(local, self.udp_port).to_string()]
        }
    }
}
