//! Waking peers and letting them sleep: what [`crate::enforce::demand`] decides, performed.

use std::collections::BTreeMap;

use edgeward_identity::SpiffeId;
use edgeward_tunnel::bind::code::Code;
use edgeward_tunnel::bind::driver::Event as BindEvent;
use edgeward_tunnel::node::PeerId;
use ipnet::IpNet;

use super::{Broken, Driver};
use crate::enforce::peers::Wanted;

impl Driver {
    /// After a wish: `new` are permitted peers that are new or moved.
    pub(super) async fn wake_and_sleep(
        &mut self,
        mut new: Vec<(SpiffeId, Wanted)>,
    ) -> Result<(), Broken> {
        let permitted = &self.permitted;
        self.demand.keep_only(|peer| permitted.contains_key(peer));
        self.control
            .books
            .lock()
            .keep_only(|peer| permitted.contains_key(peer));
        if self.demand.permitted(permitted.len()) {
            tracing::info!(
                permitted = permitted.len(),
                on_demand = self.demand.is_on_demand(),
                "peers are bound another way from now on"
            );
            self.begin_anew();
            new = self
                .permitted
                .iter()
                .map(|(id, wanted)| (id.clone(), wanted.clone()))
                .collect();
        }
        for (peer, wanted) in new {
            if self.demand.wants(&peer) {
                self.want(peer, wanted, false).await?;
            } else {
                self.control.desk.forget(&peer);
                self.bind.forget(peer).await?;
            }
        }
        self.tell_sleepers();
        Ok(())
    }

    /// Whoever is bound now is awake.
    fn begin_anew(&mut self) {
        let now = self.view.clock.boottime();
        for peer in self.control.armed() {
            self.demand.opened(&peer, now);
        }
    }

    /// Tells data path and kernel whom a packet wakes.
    fn tell_sleepers(&mut self) {
        let sleepers = self.present_sleepers();
        if sleepers == self.sleepers {
            return;
        }
        let no_longer: Vec<IpNet> = self
            .sleepers
            .iter()
            .filter(|(peer, prefixes)| sleepers.get(*peer) != Some(*prefixes))
            .filter(|(peer, _)| !self.control.books.lock().armed.contains_key(*peer))
            .flat_map(|(_, prefixes)| prefixes.iter().copied())
            .collect();
        let is_new = |peer: &SpiffeId| self.sleepers.get(peer) != sleepers.get(peer);
        self.control.let_sleep(&sleepers, is_new, &no_longer);
        self.sleepers = sleepers;
    }

    fn present_sleepers(&self) -> BTreeMap<SpiffeId, Vec<IpNet>> {
        if !self.demand.has_sleepers() {
            return BTreeMap::new();
        }
        let picture = self.scene.picture();
        let Ok(rules) = picture.may_grant() else {
            return BTreeMap::new();
        };
        self.permitted
            .keys()
            .filter(|peer| self.demand.may_sleep(peer))
            .filter_map(|peer| Some((peer.clone(), rules.prefixes(rules.peer(peer)?))))
            .collect()
    }

    /// A packet waits for a peer.
    pub(super) async fn knocked(&mut self, number: PeerId) -> Result<(), Broken> {
        let peer = self.control.books.lock().name(number).cloned();
        let Some(peer) = peer else {
            return Ok(());
        };
        let Some(wanted) = self.permitted.get(&peer).cloned() else {
            return Ok(());
        };
        if self.demand.knock(&peer, self.view.clock.boottime()) {
            tracing::debug!(%peer, "woken by a packet");
            metrics::counter!("edgeward_bind_wakes_total").increment(1);
            self.want(peer, wanted, true).await?;
        }
        Ok(())
    }

    /// Puts to sleep who was idle, or was woken in vain.
    pub(super) async fn put_to_sleep(&mut self) -> Result<(), Broken> {
        if !self.demand.has_sleepers() {
            return Ok(());
        }
        let carried = self.control.carried();
        let now = self.view.clock.boottime();
        let sleepy = self.demand.look(|peer| carried.get(peer).copied(), now);
        for peer in sleepy {
            tracing::info!(%peer, "idle: its bind is closed until the next packet");
            self.control.desk.forget(&peer);
            if self.control.rest_if_handed(&peer) {
                self.demand.ended(&peer, true);
            }
            self.bind.rest(peer).await?;
        }
        self.tell_sleepers();
        Ok(())
    }

    /// What the bind has to tell.
    pub(super) async fn hear_bind(&mut self, event: BindEvent) -> Result<(), Broken> {
        let now = self.view.clock.boottime();
        match &event {
            BindEvent::Opened(opened) if self.demand.opened(&opened.peer, now) => {
                let (peer, wanted) = (&opened.peer, self.permitted.get(&opened.peer));
                if let Some(wanted) = wanted.cloned() {
                    self.want(peer.clone(), wanted, false).await?;
                }
            }
            BindEvent::Ended { peer, ending, .. } => {
                let idle = ending.code == Code::Idle;
                self.demand.ended(peer, idle);
                if idle {
                    self.control.desk.forget(peer);
                    self.bind.forget(peer.clone()).await?;
                    self.tell_sleepers();
                }
                if let Some(prefixes) = self.sleepers.get(peer) {
                    self.control.asleep_in_kernel(peer, prefixes);
                }
            }
            _ => {}
        }
        self.record_bind(event);
        Ok(())
    }
}
