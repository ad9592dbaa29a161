//! Channels to peers through the cloud: opened where nothing else answers, closed when nobody uses them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId};
use edgeward_tunnel::reach::{Input, Kind};

use super::{Act, Seeker};
use crate::reach::carry::Brought;

/// How long a channel stays that no peer uses.
pub const CHANNEL_FOR: Duration = Duration::from_secs(90);
/// Most channels.
const MAX_CHANNELS: usize = 256;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Cloud {
    channels: BTreeMap<SpiffeId, Channel>,
    carries: bool,
}

#[derive(Debug)]
struct Channel {
    address: SocketAddr,
    /// Not closed before.
    until: BootTime,
}

impl Cloud {
    pub(super) fn deadline(&self) -> Option<BootTime> {
        self.channels.values().map(|channel| channel.until).min()
    }

    pub(super) fn address_of(&self, peer: &SpiffeId) -> Option<SocketAddr> {
        self.channels.get(peer).map(|channel| channel.address)
    }

    /// The addresses of the channels that were dropped.
    pub(super) fn keep_only(&mut self, keep: impl Fn(&SpiffeId) -> bool) -> Vec<SocketAddr> {
        let gone = self
            .channels
            .iter()
            .filter(|(peer, _)| !keep(peer))
            .map(|(_, channel)| channel.address)
            .collect();
        self.channels.retain(|peer, _| keep(peer));
        gone
    }
}

impl Seeker {
    /// Has the cloud carry datagrams to a peer. Whether it can.
    pub(super) fn open_channel(&mut self, peer: &SpiffeId, now: BootTime) -> bool {
        let until = now.plus(CHANNEL_FOR);
        if let Some(channel) = self.cloud.channels.get_mut(peer) {
            channel.until = until;
            return true;
        }
        if !self.seen.relays || self.cloud.channels.len() >= MAX_CHANNELS {
            return false;
        }
        let Some(address) = self.reach.channel_address() else {
            return false;
        };
        tracing::info!(%peer, "asking the cloud to carry datagrams");
        self.cloud
            .channels
            .insert(peer.clone(), Channel { address, until });
        self.acts.push(Act::OpenChannel {
            peer: peer.clone(),
            address,
        });
        self.input(
            Input::Channel {
                peer: peer.clone(),
                address,
            },
            now,
        );
        self.carry();
        self.tell_candidates(peer, now);
        true
    }

    /// The cloud's stream brought something. Where it is to be handed in; `None`: it is not from a peer of ours.
    pub fn brought(&mut self, brought: &Brought, now: BootTime) -> Option<SocketAddr> {
        match brought {
            Brought::Datagrams { from, .. } => {
                if !self.permitted.contains(from) || !self.open_channel(from, now) {
                    return None;
                }
                self.cloud.address_of(from)
            }
            Brought::Refused { to, code } => {
                tracing::debug!(%to, code, "not carried");
                None
            }
        }
    }

    /// Closes those that no peer uses any more. What is in use stays.
    pub(super) fn close_idle_channels(&mut self, now: BootTime) {
        if self.cloud.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let used: Vec<SpiffeId> = self
            .reach
            .qualities()
            .into_iter()
            .filter(|quality| quality.chosen && quality.kind == Kind::Cloud)
            .map(|quality| quality.peer)
            .collect();
        for (peer, channel) in &mut self.cloud.channels {
            if used.contains(peer) {
                channel.until = channel.until.max(now.plus(CHANNEL_FOR));
            }
        }
        let stays: Vec<SpiffeId> = self
            .cloud
            .channels
            .iter()
            .filter(|(_, channel)| channel.until > now)
            .map(|(peer, _)| peer.clone())
            .collect();
        let gone = self.cloud.keep_only(|peer| stays.contains(peer));
        self.closed(gone, now);
    }

    pub(super) fn closed(&mut self, gone: Vec<SocketAddr>, now: BootTime) {
        for address in gone {
            self.acts.push(Act::CloseChannel { address });
            self.input(Input::ChannelGone { address }, now);
        }
        self.carry();
    }

    fn carry(&mut self) {
        let wanted = !self.cloud.channels.is_empty();
        if std::mem::replace(&mut self.cloud.carries, wanted) != wanted {
            self.acts.push(Act::Carry(wanted));
        }
    }
}
