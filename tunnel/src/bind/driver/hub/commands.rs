//! What the agent tells the driver.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edgeward_identity::{SpiffeId, SpkiHash, Svid};

use super::super::PeerTarget;
use super::super::wanted::patience;
use super::{Command, Hub, Identity, Input, RENEW_EACH, bind_epoch, fraction};
use crate::bind::code::Code;
use crate::bind::ending::{By, Ending};

impl Hub {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Want(target) => {
                let patience = patience(&self.own.identity.party().spki, &target.spki);
                self.want(target, patience);
            }
            Command::Wake(target) => self.want(target, Duration::ZERO),
            Command::Forget(peer) => {
                self.wanted.forget(&peer);
            }
            Command::Rest(peer) => {
                self.wanted.forget(&peer);
                self.leave(&peer, Code::Idle);
            }
            Command::Directory(peers) => self.set_directory(peers),
            Command::Cut(peer, code) => self.cut(&peer, code),
            Command::Turn(peer) => {
                if let Some(bind) = self.table.current(&peer) {
                    self.feed(bind, Input::Turn);
                }
            }
            Command::Confirmed(peer, node_epoch) => {
                let (bind, epoch) = bind_epoch(node_epoch);
                let of_this_peer = self
                    .binds
                    .get(&bind)
                    .is_some_and(|bound| *bound.machine.peer().id() == peer);
                if of_this_peer {
                    self.feed(bind, Input::WireGuardConfirmed { epoch });
                }
            }
            Command::OwnResult(result) => {
                self.own.evidence.result.clone_from(&result);
                self.own.evidence.boot_statement = None;
                self.ready.store(self.own.is_ready(), Ordering::Relaxed);
                self.feed_all(|| Input::OwnResult(&result));
            }
            Command::OwnEvidence(evidence) => {
                self.own.evidence = evidence;
                self.ready.store(self.own.is_ready(), Ordering::Relaxed);
            }
            Command::Svid(svid) => self.replace_svid(&svid),
            Command::WireGuard(keys) => {
                self.own.wireguard = keys;
                self.renew_all();
            }
            Command::Slice(number) => {
                self.own.slice_number = number;
                self.feed_all(|| Input::Recheck);
            }
            Command::Link(link) => {
                self.link = link;
                self.feed_all(|| Input::Recheck);
            }
            Command::Recheck => self.feed_all(|| Input::Recheck),
            // The loop ends before it gets here.
            Command::Shutdown => {}
        }
    }

    fn want(&mut self, target: PeerTarget, patience: Duration) {
        let now = self.clock.boottime();
        let peer = target.id.clone();
        if self.wanted.want(target, patience, now).is_err() {
            tracing::warn!(%peer, "too many peers: not dialled");
        }
    }

    fn set_directory(&mut self, peers: Vec<SpkiHash>) {
        let now = self.clock.boottime();
        self.table
            .keep_only(&peers.iter().copied().collect::<HashSet<_>>());
        self.gate.lock().set_directory(peers, now);
    }

    /// The tunnel first, whether a bind still knows of it or not.
    fn cut(&mut self, peer: &SpiffeId, code: Code) {
        let ending = Ending {
            code,
            reason: "cut by this node".to_owned(),
            by: By::Us,
            cut: true,
        };
        self.control.cut(peer, &ending);
        self.table.release(peer);
        self.leave(peer, code);
    }

    /// Ends every bind with this peer, and what it opened.
    fn leave(&mut self, peer: &SpiffeId, code: Code) {
        for bind in self.binds_with(peer) {
            self.feed(bind, Input::Leave { code, cut: true });
        }
    }

    fn replace_svid(&mut self, svid: &Svid) {
        let identity = match Identity::new(svid, &self.trust, &self.clock) {
            Ok(identity) => Arc::new(identity),
            Err(error) => {
                tracing::error!(%error, "svid not replaced");
                return;
            }
        };
        let former = self.own.identity.party().spki;
        let present = identity.party().spki;
        if former != present {
            self.former_spki = Some(former);
        }
        let keys: Vec<SpkiHash> = [Some(present), self.former_spki]
            .into_iter()
            .flatten()
            .collect();
        self.gate.lock().set_own_keys(&self.trust_domain, &keys);
        self.endpoint
            .set_server_config(Some(identity.server_config().as_ref().clone()));
        self.door_identity.store(Arc::clone(&identity));
        self.own.identity = identity;
        self.renew_all();
    }

    /// Binds that are open go on until the new ones have armed WireGuard.
    fn renew_all(&mut self) {
        let now = self.clock.boottime();
        self.wanted.renew_all(RENEW_EACH, now, fraction);
    }

    fn feed_all<'a>(&mut self, input: impl Fn() -> Input<'a>) {
        for bind in self.all_binds() {
            self.feed(bind, input());
        }
    }
}
