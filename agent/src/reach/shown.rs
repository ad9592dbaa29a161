//! Paths as people and metrics see them.

use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId};
use edgeward_tunnel::reach::{Kind, Quality};
use serde::{Deserialize, Serialize};

use super::seeker::name_of;

/// Most paths in a status.
const MAX_PATHS: usize = 256;

/// One path to a bound peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStatus {
    pub peer: SpiffeId,
    /// `direct`, `relay` or `cloud`.
    pub kind: String,
    /// The relay.
    pub through: Option<SpiffeId>,
    /// Where datagrams go; none where they go through a relay or the cloud.
    pub endpoint: Option<String>,
    pub in_use: bool,
    pub answers: bool,
    pub rtt_micros: Option<u64>,
    pub loss_percent: u8,
    /// Longest UDP payload that gets through, in bytes.
    pub largest_datagram: Option<u16>,
    pub keepalive_secs: Option<u64>,
    /// How long it has been in use.
    pub since_secs: Option<u64>,
}

/// How this node is found, and its ways to others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachStatus {
    /// Addresses that peers are told, best first.
    pub endpoints: Vec<String>,
    /// Whether a router between here and the cloud translates addresses; none: not known.
    pub translated: Option<bool>,
    /// Those in use first.
    pub paths: Vec<PathStatus>,
    /// Peers that were reached another way before, newest first.
    #[serde(default)]
    pub switched: Vec<SwitchStatus>,
}

/// A peer that was reached another way before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchStatus {
    pub peer: SpiffeId,
    /// `direct`, `relay`, `cloud` or `none`.
    pub from: String,
    pub to: String,
    pub times: u32,
    pub ago_secs: u64,
}

/// What the desk shows, for the status.
pub fn status(shown: &super::desk::Shown, now: BootTime) -> ReachStatus {
    let mut paths: Vec<PathStatus> = shown
        .paths
        .iter()
        .map(|path| PathStatus {
            peer: path.peer.clone(),
            kind: name_of(Some(&path.kind)).to_owned(),
            through: match &path.kind {
                Kind::Relay(relay) => Some(relay.clone()),
                Kind::Direct | Kind::Cloud => None,
            },
            endpoint: (path.kind == Kind::Direct).then(|| path.address.to_string()),
            in_use: path.chosen,
            answers: path.alive,
            rtt_micros: path.rtt.map(micros),
            loss_percent: path.loss_percent,
            largest_datagram: path.largest_datagram,
            keepalive_secs: path.keepalive.map(|every| every.as_secs()),
            since_secs: path.since.map(|since| now.since(since).as_secs()),
        })
        .collect();
    paths.sort_by(|one, other| (!one.in_use, &one.peer).cmp(&(!other.in_use, &other.peer)));
    paths.truncate(MAX_PATHS);
    ReachStatus {
        endpoints: shown.endpoints.clone(),
        translated: shown.translated,
        paths,
        switched: shown
            .switched
            .iter()
            .map(|switched| SwitchStatus {
                peer: switched.peer.clone(),
                from: switched.from.to_owned(),
                to: switched.to.to_owned(),
                times: switched.times,
                ago_secs: now.since(switched.last).as_secs(),
            })
            .collect(),
    }
}

/// Gauges by kind, never by peer: labels that policy could make without end.
pub(super) fn count(paths: &[Quality]) {
    for kind in ["direct", "relay", "cloud"] {
        let used: Vec<&Quality> = paths
            .iter()
            .filter(|path| path.chosen && name_of(Some(&path.kind)) == kind)
            .collect();
        let worst = used.iter().filter_map(|path| path.rtt).max();
        let lossy = used.iter().filter(|path| path.loss_percent > 2).count();
        metrics::gauge!("edgeward_paths_in_use", "kind" => kind).set(float(used.len()));
        metrics::gauge!("edgeward_paths_lossy", "kind" => kind).set(float(lossy));
        metrics::gauge!("edgeward_path_rtt_seconds_max", "kind" => kind)
            .set(worst.unwrap_or_default().as_secs_f64());
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a count of paths is far below 2^52"
)]
fn float(number: usize) -> f64 {
    number as f64
}
