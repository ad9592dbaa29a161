//! What is known of the tunnels, in words: everything but keys, packets and flows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edgeward_evidence::app_log::Runs;
use edgeward_identity::{AttestationState, BootTime, SpiffeId, SpkiHash, Tier, Timestamp};
use edgeward_policy::{Standing as Evidence, StatedProfiles};
use edgeward_tunnel::node::{MAX_PEERS, MovedPeer, PeerId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::NotHanded;
use crate::enforce::DeviceName;
use crate::enforce::books::{Armed, MAX_FORMER};
use crate::enforce::decide::BoundPeer;
use crate::view::{Heard, Overlay};

/// Time since boot, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Nanos(u64);

/// Whose tunnels these are, on what they stand, and who is at the other ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    /// Of the program that gave them.
    pub(super) version: String,
    pub(super) uid: u32,
    pub(super) node: SpiffeId,
    pub(super) v6: std::net::Ipv6Addr,
    pub(super) v4: Option<std::net::Ipv4Addr>,
    pub(super) device: DeviceName,
    pub(super) mtu: u16,
    pub(super) listen: SocketAddr,
    pub(super) offload: bool,
    pub(super) udp_offload: bool,
    /// SHA-256 of the kernel's table as it was made, if there is one.
    pub(super) table: Option<String>,
    pub(super) keys_since: Nanos,
    pub(super) heard: Option<HeardPaper>,
    /// The cloud was heard all the time.
    pub(super) online: bool,
    pub(super) next_number: u64,
    pub(super) numbers: BTreeMap<u64, SpiffeId>,
    pub(super) armed: Vec<ArmedPaper>,
    pub(super) bound: Vec<BoundPaper>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeardPaper {
    at: Nanos,
    time: Timestamp,
    lost_after: Nanos,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArmedPaper {
    pub(super) number: u64,
    keys: [String; 2],
    until: Nanos,
    allowed_ips: Vec<IpNet>,
    open_since: Option<Nanos>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BoundPaper {
    number: u64,
    spki: SpkiHash,
    state: AttestationState,
    tier: Option<Tier>,
    last_pass: Option<Timestamp>,
    profiles: Option<StatedProfiles>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runs: Option<Arc<Runs>>,
    by_boot_statement: bool,
}

impl Paper {
    pub(super) fn overlay(&self) -> Overlay {
        Overlay {
            v6: self.v6,
            v4: self.v4,
        }
    }

    /// When the cloud was heard last.
    pub(super) fn heard(&self) -> Option<Heard> {
        self.heard.map(|heard| Heard {
            at: heard.at.time(),
            time: heard.time,
            lost_after: Duration::from_nanos(heard.lost_after.0),
        })
    }

    /// Who is armed. Nobody longer than WireGuard itself was told.
    pub(super) fn armed(&self) -> Vec<(SpiffeId, Armed)> {
        let named = |armed: &ArmedPaper| {
            let peer = self.numbers.get(&armed.number)?.clone();
            Some((peer, armed.read()?))
        };
        self.armed.iter().filter_map(named).collect()
    }

    pub(super) fn bound(&self) -> Vec<(PeerId, BoundPeer)> {
        let named = |bound: &BoundPaper| {
            let peer = BoundPeer {
                id: self.numbers.get(&bound.number)?.clone(),
                spki: bound.spki,
                evidence: Evidence {
                    state: bound.state,
                    tier: bound.tier,
                    last_pass: bound.last_pass,
                    profiles: bound.profiles,
                    runs: None,
                },
                runs: bound.runs.clone(),
                by_boot_statement: bound.by_boot_statement,
            };
            Some((PeerId(bound.number), peer))
        };
        self.bound.iter().filter_map(named).collect()
    }

    /// Whether it speaks of these peers and of nobody else, and of each of them in one way.
    pub(super) fn check(&self, peers: &[MovedPeer]) -> Result<(), NotHanded> {
        let odd = |what| Err(NotHanded::Odd(what));
        if self.numbers.len() > MAX_PEERS + MAX_FORMER || self.armed.len() > MAX_PEERS {
            return odd("too many peers");
        }
        let names: BTreeSet<&SpiffeId> = self.numbers.values().collect();
        let highest = self.numbers.keys().next_back().copied().unwrap_or(0);
        if names.len() != self.numbers.len() || highest >= self.next_number {
            return odd("numbers of peers");
        }
        let armed = self.armed();
        let numbers: BTreeMap<PeerId, &(SpiffeId, Armed)> =
            armed.iter().map(|of| (of.1.number, of)).collect();
        if armed.len() != self.armed.len() || numbers.len() != armed.len() {
            return odd("who is armed");
        }
        if peers.len() != armed.len() {
            return odd("keys of some peers only");
        }
        for peer in peers {
            let same = numbers.get(&peer.id()).is_some_and(|(name, armed)| {
                name.to_string() == peer.name() && armed.keys[1] == *peer.public_key()
            });
            if !same {
                return odd("whose keys they are");
            }
        }
        let bound: BTreeSet<u64> = self.bound.iter().map(|bound| bound.number).collect();
        let all_armed = bound
            .iter()
            .all(|bound| numbers.contains_key(&PeerId(*bound)));
        if bound.len() != self.bound.len() || !all_armed {
            return odd("who is bound");
        }
        Ok(())
    }
}

impl Nanos {
    /// Cut off where it does not fit, so never later.
    pub(super) fn of(time: BootTime) -> Self {
        Self(u64::try_from(time.as_duration().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn time(self) -> BootTime {
        BootTime::from_duration(Duration::from_nanos(self.0))
    }
}

impl HeardPaper {
    pub(super) fn of(heard: &Heard) -> Self {
        Self {
            at: Nanos::of(heard.at),
            time: heard.time,
            lost_after: Nanos::of(BootTime::from_duration(heard.lost_after)),
        }
    }
}

impl ArmedPaper {
    pub(super) fn of(armed: &Armed) -> Self {
        Self {
            number: armed.number.0,
            keys: armed.keys.map(hex::encode),
            until: Nanos::of(armed.until),
            allowed_ips: armed.allowed_ips.clone(),
            open_since: armed.open_since.map(Nanos::of),
        }
    }

    fn read(&self) -> Option<Armed> {
        let mut keys = [[0; 32]; 2];
        for (key, text) in keys.iter_mut().zip(&self.keys) {
            hex::decode_to_slice(text, key).ok()?;
        }
        Some(Armed {
            number: PeerId(self.number),
            keys,
            until: self.until.time(),
            allowed_ips: self.allowed_ips.clone(),
            open_since: self.open_since.map(Nanos::time),
            handed: true,
        })
    }
}

impl BoundPaper {
    pub(super) fn of(number: PeerId, bound: &BoundPeer) -> Self {
        Self {
            number: number.0,
            spki: bound.spki,
            state: bound.evidence.state,
            tier: bound.evidence.tier,
            last_pass: bound.evidence.last_pass,
            profiles: bound.evidence.profiles,
            runs: bound.runs.clone(),
            by_boot_statement: bound.by_boot_statement,
        }
    }
}
