//! Telling sessions: cuts, lists, peers. Never waits: a session whose queue is full is ended, and its agent comes back to
//! a whole new state.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edgeward_identity::deny::Denied;
use edgeward_identity::signed::EVERYBODY;
use edgeward_identity::{DenyList, Purpose, SignError, SpiffeId, SpkiHash, Timestamp, TrustView};
use edgeward_wire::control::{Cut, CutReason};
use edgeward_wire::v1::{self, cloud_message::Body};

use super::directory::tells_results;
use super::{Attached, Hub};
use crate::keys::Label;

/// How long a cut stays valid: longer than any agent's session may lag.
const CUT_LIFETIME: Duration = Duration::from_secs(3600);
/// Most peers in one gathered announcement: well below the largest message.
const MAX_ANNOUNCED: usize = 256;
/// How long a signed deny-list stays valid; sent anew with every session and change.
const DENY_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

impl Hub {
    /// Tells the peers of a node how to reach it and what its newest result is.
    pub(crate) fn announce(&self, name: &str) {
        let Some(member) = self.member(name) else {
            return;
        };
        let sessions = self.sessions.lock();
        for (other, session) in sessions.iter() {
            if other != name && session.sent.peers.contains(name) {
                session.push(Body::Peers(v1::PeerUpdate {
                    full: false,
                    peers: vec![member.to_wire(session.sent.peers.len())],
                    gone: Vec::new(),
                }));
            }
        }
    }

    /// As [`Hub::announce`], within [`super::ANNOUNCE_EVERY`] and together with others: for results that say what the
    /// one before said.
    pub(crate) fn announce_soon(&self, name: &str) {
        self.announcing.lock().insert(name.to_owned());
    }

    pub(super) fn announce_gathered(&self) {
        let names = std::mem::take(&mut *self.announcing.lock());
        let peers: Vec<(String, v1::Peer)> = names
            .into_iter()
            .filter_map(|name| {
                let peer = self.member(&name)?.to_wire(0);
                Some((name, peer))
            })
            .collect();
        for together in peers.chunks(MAX_ANNOUNCED) {
            for (other, session) in self.sessions.lock().iter() {
                // Open binds bring the same news.
                if session.metered || !tells_results(session.sent.peers.len()) {
                    continue;
                }
                let told: Vec<v1::Peer> = together
                    .iter()
                    .filter(|(name, _)| name != other && session.sent.peers.contains(name))
                    .map(|(_, peer)| peer.clone())
                    .collect();
                if !told.is_empty() {
                    session.push(Body::Peers(v1::PeerUpdate {
                        full: false,
                        peers: told,
                        gone: Vec::new(),
                    }));
                }
            }
        }
    }

    /// Tells every session that nothing goes to or from a node any more. Waits for nothing.
    pub(crate) fn push_cut(
        &self,
        node: &SpiffeId,
        reason: CutReason,
        now: Timestamp,
    ) -> Result<(), SignError> {
        let number = self.keys.rising_number(now);
        let label = Label {
            purpose: Purpose::Control,
            audience: EVERYBODY.to_owned(),
            number,
            issued: now,
            lifetime: CUT_LIFETIME,
        };
        let cut = Cut {
            node: node.clone(),
            reason,
            time: now,
        };
        self.broadcast(&Body::Cut(self.keys.sign(label, &cut)?));
        metrics::counter!("edgeward_cuts_total", "reason" => reason.as_str()).increment(1);
        Ok(())
    }

    /// Refuses these keys from now on, before the database knows.
    pub(crate) fn deny_at_once(&self, keys: &[(SpkiHash, Timestamp)], reason: &str) {
        let view = self.trust.load_full();
        let mut entries = view.deny.entries().clone();
        for (key, until) in keys {
            let denied = Denied {
                reason: reason.to_owned(),
                until: *until,
            };
            entries.insert(*key, denied);
        }
        if let Ok(deny) = DenyList::new(view.deny.number(), entries) {
            self.trust.store(Arc::new(TrustView {
                bundle: view.bundle.clone(),
                deny,
            }));
        }
        for (key, _) in keys {
            self.connections.close_key(key);
        }
    }

    /// The list in force from now on: handshakes, open connections, every session.
    pub(crate) fn enforce_deny_list(&self, deny: DenyList) -> Result<(), SignError> {
        let now = self.clock.now();
        let label = Label {
            purpose: Purpose::DenyList,
            audience: EVERYBODY.to_owned(),
            number: deny.number(),
            issued: now,
            lifetime: DENY_LIFETIME,
        };
        let bytes = self.keys.sign(label, &deny)?;
        // Read before what is told: a set that is signed meanwhile is told once more, not never.
        let key_set = self.keys.key_set_number();
        self.connections.close_denied(&deny);
        self.trust.store(Arc::new(TrustView {
            bundle: self.keys.bundle(),
            deny,
        }));
        self.deny_object.store(Arc::new(bytes));
        self.broadcast(&Body::Trust(self.trust_update()));
        self.told_key_set.store(key_set, Ordering::Release);
        Ok(())
    }

    /// Whether another key set is in force than the one that everybody was told of.
    pub(crate) fn has_new_key_set(&self) -> bool {
        self.keys.key_set_number() != self.told_key_set.load(Ordering::Acquire)
    }

    /// Tells everybody of the key set, and signs the director's words anew: it may name another key for them.
    pub(crate) fn tell_key_set(&self) -> Result<(), SignError> {
        self.refresh_trust()?;
        self.direct_anew();
        Ok(())
    }

    /// The lists of now, signed anew: bundle and key set may have changed, and signatures end.
    pub(crate) fn refresh_trust(&self) -> Result<(), SignError> {
        self.enforce_deny_list(self.trust.load().deny.clone())
    }

    /// Words of the director that say the same are signed anew: those before hold no longer.
    pub(crate) fn direct_anew(&self) {
        for session in self.sessions.lock().values_mut() {
            session.directed = None;
        }
        self.direct_everybody();
    }

    fn broadcast(&self, body: &Body) {
        for session in self.sessions.lock().values() {
            session.push(body.clone());
        }
    }
}

impl Attached {
    pub(super) fn push(&self, body: Body) {
        let message = v1::CloudMessage { body: Some(body) };
        if self.out.try_send(Box::new(message)).is_err() {
            self.ended.cancel();
        }
    }
}
