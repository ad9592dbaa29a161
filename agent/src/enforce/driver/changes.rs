//! What each change of the view does.

use std::sync::Arc;

use edgeward_identity::SpiffeId;
use edgeward_policy::{EngineError, Opened};
use edgeward_tunnel::bind::code::Code;
use edgeward_tunnel::bind::driver::PeerTarget;
use tokio::net::lookup_host;
use tokio::task::JoinError;

use super::{Broken, Driver, bind_link, own_evidence};
use crate::enforce::decide::Rules;
use crate::enforce::own;
use crate::enforce::peers::{self, Wanted};
use crate::enforce::scene::Kept;
use crate::view::{Endpoint, HeldSlice};

/// Longest time for the name of an endpoint to be looked up.
const LOOKUP_DEADLINE: std::time::Duration = std::time::Duration::from_secs(5);

impl Driver {
    /// Everything of the view that decisions rest on.
    pub(super) fn take_view_into_picture(&self) {
        let own = self.own();
        let floors = Arc::clone(&self.view.cuts.borrow());
        let standing = *self.view.standing.borrow();
        let overlay = *self.view.overlay.borrow();
        let hearing = self.hearing;
        self.scene.change(Kept::Void, |parts| {
            parts.own = own;
            parts.floors = floors;
            parts.standing = standing;
            parts.overlay = overlay;
            parts.hearing = hearing;
        });
    }

    /// Cuts were ordered: the picture first, then every peer they name, then the record.
    pub(super) async fn cuts_changed(&mut self) -> Result<(), Broken> {
        let floors = Arc::clone(&self.view.cuts.borrow_and_update());
        let seen = self.cut_number;
        self.scene
            .change(Kept::Void, |parts| parts.floors = Arc::clone(&floors));
        let own = floors.since(seen).any(|(node, _)| *node == self.view.node);
        let named: Vec<(SpiffeId, &'static str, u64)> = if own {
            let everybody = self.control.armed();
            everybody
                .into_iter()
                .map(|peer| (peer, "self-cut", floors.number()))
                .collect()
        } else {
            floors
                .since(seen)
                .map(|(node, floor)| (node.clone(), floor.reason.as_str(), floor.number))
                .collect()
        };
        for (peer, code, number) in named {
            self.cut(&peer, code, Some(number)).await?;
        }
        self.cut_number = floors.number();
        self.tell_progress();
        self.wish().await
    }

    /// Roots or deny-list changed.
    pub(super) async fn trust_changed(&mut self) -> Result<(), Broken> {
        self.view.trust_changed.borrow_and_update();
        let trust = self.view.trust.load_full();
        let denied: Vec<SpiffeId> = {
            let picture = self.scene.picture();
            let bound = picture.parts().bound.values();
            bound
                .filter(|peer| trust.deny.get(&peer.spki).is_some())
                .map(|peer| peer.id.clone())
                .collect()
        };
        for peer in denied {
            self.cut(&peer, "denied", None).await?;
        }
        self.bind.recheck().await?;
        self.recheck_handed().await?;
        self.wish().await
    }

    /// Whether anything may be granted at all changed.
    pub(super) async fn standing_changed(&mut self) -> Result<(), Broken> {
        let standing = *self.view.standing.borrow_and_update();
        self.scene
            .change(Kept::Void, |parts| parts.standing = standing);
        if let Err(held) = standing.may_grant() {
            for peer in self.control.armed() {
                self.cut(&peer, held.code(), None).await?;
            }
        }
        self.bind.recheck().await?;
        self.wish().await
    }

    /// Puts the newest slice into force: recorded first, since it grants.
    pub(super) async fn activate_slice(&mut self) -> Result<(), Broken> {
        let held = self.view.slice.borrow_and_update().clone();
        let number = held.as_ref().map_or(0, |held| held.number);
        let rules = match held {
            None => None,
            Some(held) => self.accept_slice(held).await,
        };
        self.scene.change(Kept::Void, |parts| parts.rules = rules);
        self.recheck_handed().await?;
        Ok(self.bind.set_slice(number).await?)
    }

    /// `None` where nothing may be granted by it: unsound, or not to be recorded.
    async fn accept_slice(&self, held: Arc<HeldSlice>) -> Option<Arc<Rules>> {
        let number = held.number;
        let built = self.build(held).await;
        let now = self.view.clock.now();
        let rules = match built {
            Ok(Ok(rules)) => rules,
            Ok(Err(error)) => {
                tracing::error!(number, %error, "policy slice is not sound");
                let event = self.records.policy_refused(now, number, &error.to_string());
                self.recorder.record_after(event);
                return None;
            }
            Err(_) => {
                tracing::error!(number, "policy slice could not be made ready");
                return None;
            }
        };
        let event = self.records.policy_activated(now, &rules);
        if let Err(refused) = self.recorder.record(event).await {
            tracing::error!(number, %refused, "policy slice not put into force");
            return None;
        }
        tracing::info!(number, "policy slice in force");
        Some(Arc::new(rules))
    }

    /// The rules with what break-glass opened on this node now.
    async fn build(&self, held: Arc<HeldSlice>) -> Result<Result<Rules, EngineError>, JoinError> {
        let (now, wall) = (self.view.clock.boottime(), self.view.clock.now());
        let open = Arc::clone(&self.view.opened.borrow());
        let opened: Vec<Opened> = open
            .iter()
            .flat_map(|one| {
                let until = wall.plus(one.until.since(now));
                one.rules.iter().map(move |rule| Opened {
                    rule: Arc::clone(rule),
                    until,
                })
            })
            .collect();
        tokio::task::spawn_blocking(move || Rules::with_opened(&held, &opened)).await
    }

    /// The glass was broken, or closed: recorded by then. The same policy, decided anew.
    pub(super) async fn glass_changed(&mut self) -> Result<(), Broken> {
        self.view.opened.borrow_and_update();
        let held = self.view.slice.borrow().clone();
        let in_force = self.scene.picture().parts().rules.clone();
        let (Some(held), Some(in_force)) = (held, in_force) else {
            return Ok(());
        };
        // A newer policy is on its way, and takes this along.
        if *in_force.digest() != held.digest {
            return Ok(());
        }
        let rules = match self.build(held).await {
            Ok(Ok(rules)) => Some(Arc::new(rules)),
            Ok(Err(error)) => {
                tracing::error!(%error, "policy slice is not sound");
                None
            }
            Err(error) => {
                tracing::error!(%error, "policy slice could not be made ready");
                None
            }
        };
        self.scene.change(Kept::Void, |parts| parts.rules = rules);
        self.bind.recheck().await?;
        self.wish().await
    }

    pub(super) async fn keys_changed(&mut self) -> Result<(), Broken> {
        let keys = Arc::clone(&self.view.keys.borrow_and_update());
        self.keys.store(keys);
        self.take_view_into_picture();
        Ok(self.bind.recheck().await?)
    }

    /// This node passed again.
    pub(super) async fn result_changed(&mut self) -> Result<(), Broken> {
        let result = self.view.result.borrow_and_update().clone();
        let own = self.own();
        self.scene.change(Kept::Hold, |parts| parts.own = own);
        match result {
            // Peers would cut a node that shows them something else than a result of its own key.
            Some(_) if own.is_none() => {}
            Some(result) => self.bind.set_result(result.to_vec()).await?,
            None => self.bind.set_evidence(own_evidence(&self.view)).await?,
        }
        // It may end this node's own cut.
        if self.permitted.is_empty() {
            self.wish().await?;
        }
        Ok(())
    }

    pub(super) async fn svid_changed(&mut self) -> Result<(), Broken> {
        let svid = self.view.svid.borrow_and_update().as_ref().clone();
        self.bind.set_svid(svid).await?;
        self.take_view_into_picture();
        self.wish().await
    }

    pub(super) fn overlay_changed(&mut self) {
        let overlay = *self.view.overlay.borrow_and_update();
        let device = self.control.tunnel.device().name();
        tracing::warn!(
            ?overlay,
            device,
            "overlay addresses changed: restart the agent to use them"
        );
        self.scene
            .change(Kept::Void, |parts| parts.overlay = overlay);
    }

    /// Heartbeats come every ten seconds; only a change of what follows from them is one.
    pub(super) async fn link_changed(&mut self) -> Result<(), Broken> {
        let link = *self.view.link.borrow_and_update();
        let hearing = self.hearing.after(&link, self.view.clock.boottime());
        if hearing == self.hearing {
            return Ok(());
        }
        tracing::info!(
            before = self.hearing.as_str(),
            now = hearing.as_str(),
            "link to the cloud"
        );
        self.hearing = hearing;
        self.scene
            .change(Kept::Void, |parts| parts.hearing = hearing);
        self.bind.set_link(bind_link(&hearing)).await?;
        self.wish().await
    }

    /// Tells the bind whom to dial and whom to listen to.
    pub(super) async fn wish(&mut self) -> Result<(), Broken> {
        self.wished_at = self.view.clock.boottime();
        let wanted = {
            let directory = Arc::clone(&self.view.peers.borrow_and_update());
            let own = self.view.svid.borrow().leaf().key.spki_hash();
            let trust = self.view.trust.load();
            let picture = self.scene.picture();
            peers::wanted(
                &picture,
                &directory,
                &trust.deny,
                &own,
                self.view.clock.now(),
            )
        };
        let changes = peers::changes(&self.permitted, &wanted);
        if changes.keys_changed {
            let keys = wanted.values().map(|wanted| wanted.spki).collect();
            self.bind.set_directory(keys).await?;
        }
        for peer in changes.forget {
            self.control.desk.forget(&peer);
            self.bind.forget(peer).await?;
        }
        let new = changes.want;
        self.permitted = wanted;
        self.wake_and_sleep(new).await
    }

    /// Names are looked up beside the loop.
    pub(super) async fn want(
        &self,
        id: SpiffeId,
        wanted: Wanted,
        at_once: bool,
    ) -> Result<(), Broken> {
        let plain: Vec<_> = wanted
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint.as_str().parse().ok())
            .collect();
        let names: Vec<Endpoint> = wanted
            .endpoints
            .into_iter()
            .filter(|endpoint| endpoint.as_str().parse::<std::net::SocketAddr>().is_err())
            .collect();
        let target = PeerTarget {
            endpoints: self.control.desk.want(&id, plain.clone()),
            id,
            spki: wanted.spki,
        };
        if !names.is_empty() {
            let (bind, mut found) = (self.bind.clone(), target.clone());
            let (desk, mut all) = (Arc::clone(&self.control.desk), plain);
            tokio::spawn(async move {
                for name in names {
                    all.extend(look_up(&name).await);
                }
                found.endpoints = desk.also_at(&found.id, all);
                // The driver is gone only at the end.
                let _stopped = bind.want(found).await;
            });
        }
        match at_once {
            true => self.bind.wake(target).await?,
            false => self.bind.want(target).await?,
        }
        Ok(())
    }

    /// Whoever seeks ways found some, or needs a relay.
    pub(super) async fn ways_found(&mut self) -> Result<(), Broken> {
        let asked = self.control.desk.take_asked();
        let now = self.view.clock.boottime();
        for peer in asked.wake {
            if self.permitted.contains_key(&peer) && self.demand.knock(&peer, now) {
                tracing::debug!(%peer, "woken: it relays");
                self.dial_again(peer).await?;
            }
        }
        for peer in asked.dial {
            if self.demand.wants(&peer) {
                self.dial_again(peer).await?;
            }
        }
        Ok(())
    }

    async fn dial_again(&self, peer: SpiffeId) -> Result<(), Broken> {
        match self.permitted.get(&peer).cloned() {
            Some(wanted) => self.want(peer, wanted, true).await,
            None => Ok(()),
        }
    }

    /// Takes a peer's rights away: data path, flows and kernel at once, then its connection, then the record.
    pub(super) async fn cut(
        &self,
        peer: &SpiffeId,
        code: &str,
        number: Option<u64>,
    ) -> Result<(), Broken> {
        let Some(cut) = self.control.cut_now(peer) else {
            // A bind that is only under way must end, too.
            return Ok(self.bind.cut(peer.clone(), Code::Cut).await?);
        };
        let now = self.view.clock.now();
        self.recorder
            .record_after(self.records.cut_effected(now, peer, code, number, &cut));
        tracing::info!(%peer, code, micros = u64::try_from(cut.took.as_micros()).unwrap_or(u64::MAX), "cut");
        Ok(self.bind.cut(peer.clone(), Code::Cut).await?)
    }

    fn own(&self) -> Option<own::OwnResult> {
        let result = self.view.result.borrow().clone();
        let spki = self.view.svid.borrow().leaf().key.spki_hash();
        let keys = self.keys.load();
        let now = self.view.clock.now();
        own::read(&result?, &keys, &self.view.node, &spki, now)
    }
}

async fn look_up(name: &Endpoint) -> Vec<std::net::SocketAddr> {
    match tokio::time::timeout(LOOKUP_DEADLINE, lookup_host(name.as_str())).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => {
            tracing::warn!(%name, %error, "endpoint not found");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!(%name, "endpoint not found in time");
            Vec::new()
        }
    }
}
