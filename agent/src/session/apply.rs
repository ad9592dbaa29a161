//! What the cloud sends, made known to the node: verified, published, stored.
//!
//! What takes away (deny-list, cut) is published first and recorded after; a renewed certificate is recorded first. A
//! policy is recorded by enforcement, which alone knows whether it can be put into force.

use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::event::Event;
use edgeward_audit::{Actor, EventKind};
use edgeward_evidence::result::{ResultExpect, check_result};
use edgeward_identity::{BootTime, Clock, SpkiHash, Svid};
use edgeward_wire::slice_delta::{self, NotApplied};
use edgeward_wire::v1;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::Keeper;
use crate::accept::{self, NotAccepted};
use crate::enforce::Recorder;
use crate::state::{Blob, SignedTime};
use crate::tpm::SvidSlot;
use crate::view::{Heard, Order, Publisher, Standing};
use crate::wear::Wear;

mod apps;
mod break_glass;
mod identity;
mod trust;

/// What was put into force is stored as a new epoch once nothing has come for this long,
const SETTLE_AFTER: Duration = Duration::from_millis(100);
/// and this long after the first of it, whatever comes.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);
/// How often the epoch is raised at most for ordinary changes.
const EPOCH_EVERY: Duration = Duration::from_secs(3600);
/// Raises of the epoch for records of class `must` that may follow each other at once,
const MUSTS_AT_ONCE: u32 = 10;
/// and how often there is one over time. What exceeds that is covered by the next, for whatever reason it comes.
const MUST_EVERY: Duration = Duration::from_secs(600);

/// The one writer of the node's view and state.
pub struct Holder {
    pub publisher: Publisher,
    pub keeper: Keeper,
    pub recorder: Arc<dyn Recorder>,
    heartbeat_number: u64,
    epoch_raised: BootTime,
    /// Something is in force that the stored epoch does not cover yet.
    unsettled: bool,
    /// Since when [`Holder::settle`] has something to do.
    unsettled_since: Option<BootTime>,
    /// When a join raised the epoch; none yet since the start.
    join_raised: Option<BootTime>,
    /// A join counter is stored that the epoch does not cover yet.
    joined: bool,
    /// Peers came, went or moved since the state was stored: a node that restarts without the cloud must find them.
    moved: bool,
    /// Sequence of the trust bundle that the cloud was told we hold.
    told: u64,
    pub musts: Musts,
    wear: Wear,
}

/// Changes with every record of class `must`; none where no journal is bound to the epoch.
#[derive(Debug)]
pub struct Musts(Option<watch::Receiver<u64>>);

impl Musts {
    /// Returns when the journal has a record that the epoch does not cover. Safe to cancel.
    pub async fn recorded(&mut self) {
        let changed = match &mut self.0 {
            Some(musts) => musts.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            std::future::pending().await
        }
    }
}

/// What the session has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Done,
    /// The cloud's deny-list is newer than ours.
    Behind,
    /// A new certificate is in force.
    Renewed,
    /// What the cloud said could not be put together: only another session brings it whole.
    Unread,
}

impl Holder {
    pub fn new(publisher: Publisher, keeper: Keeper, recorder: Arc<dyn Recorder>) -> Self {
        let epoch_raised = keeper.clock.boottime();
        let wear = Wear::new(MUSTS_AT_ONCE, MUST_EVERY, epoch_raised);
        Self {
            publisher,
            keeper,
            recorder,
            heartbeat_number: 0,
            epoch_raised,
            unsettled: false,
            unsettled_since: None,
            join_raised: None,
            joined: false,
            moved: false,
            told: 0,
            musts: Musts(None),
            wear,
        }
    }

    /// From now on the epoch covers records of class `must`.
    #[must_use]
    pub fn binding_journal(mut self, musts: watch::Receiver<u64>) -> Self {
        self.musts = Musts(Some(musts));
        self
    }

    /// Lets the next [`Holder::settle`] raise the epoch, if the TPM's memory can bear it. Not while nothing is granted: a
    /// state that went back would become the newest by what it records, and the good one old. The cloud's answer raises it.
    pub fn bind_journal(&mut self) {
        if *self.publisher.standing.borrow() != Standing::Granting {
            return;
        }
        let now = self.keeper.clock.boottime();
        self.unsettled |= self.unsettled || self.wear.take(now).is_ok();
    }

    /// Number of the newest heartbeat.
    pub fn heartbeat_number(&self) -> u64 {
        self.heartbeat_number
    }

    pub fn addresses(&self) -> &[String] {
        &self.keeper.stored.addresses
    }

    pub fn slot(&self) -> SvidSlot {
        self.keeper.stored.slot
    }

    pub fn spki_hash(&self) -> SpkiHash {
        self.publisher.svid.borrow().leaf().key.spki_hash()
    }

    pub fn slice_number(&self) -> u64 {
        self.publisher
            .slice
            .borrow()
            .as_ref()
            .map_or(0, |slice| slice.number)
    }

    /// SHA-256 of the signed slice in force; empty without one.
    pub fn slice_digest(&self) -> Vec<u8> {
        let held = self.publisher.slice.borrow();
        held.as_ref()
            .map(|slice| slice.digest.to_vec())
            .unwrap_or_default()
    }

    pub fn set_connected(&self, connected: bool) {
        if !connected {
            self.publisher.cloud.send_replace(None);
        }
        let now = self.keeper.clock.boottime();
        self.publisher.link.send_modify(|link| {
            if link.connected != connected {
                link.changed = Some(now);
            }
            link.connected = connected;
        });
        metrics::gauge!("edgeward_session_up").set(f64::from(u8::from(connected)));
    }

    /// Everything at once. What granted nothing until now may grant again once the cloud's signed time is in force.
    pub async fn welcome(&mut self, welcome: v1::Welcome) -> Result<(), NotApplied> {
        if let Some(update) = welcome.trust {
            self.trust(update).await;
        }
        let heard = self.heartbeat(&welcome.heartbeat);
        if !welcome.slice.is_empty() {
            self.slice(&welcome.slice);
        }
        let rebuilt = welcome
            .slice_delta
            .as_ref()
            .map_or(Ok(()), |delta| self.slice_delta(delta));
        if let Some(update) = &welcome.peers {
            self.peers(update);
        }
        if let Some(overlay) = &welcome.overlay {
            self.overlay(overlay);
        }
        if !welcome.apps.is_empty() {
            self.apps(&welcome.apps);
        }
        if heard == Applied::Done {
            self.release().await;
        }
        self.keeper.store();
        rebuilt
    }

    pub fn heartbeat(&mut self, bytes: &[u8]) -> Applied {
        let keys = self.publisher.keys.borrow().clone();
        let node = self.keeper.stored.node.clone();
        let least = self.heartbeat_number.saturating_add(1);
        let (number, heartbeat) = match accept::heartbeat(bytes, &keys, &node, least) {
            Ok(accepted) => accepted,
            Err(error) => {
                self.refused("heartbeat", &error);
                return Applied::Behind;
            }
        };
        self.heartbeat_number = number;
        self.keeper.clock.raise(heartbeat.time);
        self.keeper.recent.last_heartbeat = heartbeat.time;
        let heard = Heard {
            at: self.keeper.clock.boottime(),
            time: heartbeat.time,
            lost_after: heartbeat.lost_after(),
        };
        self.publisher
            .link
            .send_modify(|link| link.heard = Some(heard));
        if heartbeat.deny_number > self.publisher.trust.load().deny.number() {
            Applied::Behind
        } else {
            Applied::Done
        }
    }

    /// A policy for this node. Enforcement records it before it puts it into force.
    pub fn slice(&mut self, bytes: &[u8]) {
        let keys = self.publisher.keys.borrow().clone();
        let held = self.slice_number();
        let now = self.keeper.clock.now();
        let slice = match accept::slice(bytes, &keys, &self.keeper.stored.node, held, now) {
            Ok(slice) => slice,
            Err(error) => return self.refused("slice", &error),
        };
        let known = self
            .publisher
            .slice
            .borrow()
            .as_ref()
            .is_some_and(|held| held.digest == slice.digest);
        if known {
            return;
        }
        tracing::info!(
            number = slice.number,
            version = slice.slice.version,
            "policy received"
        );
        let held = self.publisher.slice.borrow().clone();
        let ruled_anew = held.is_none_or(|held| held.slice.apps != slice.slice.apps);
        self.keeper.stored.slice = Blob(bytes.to_vec());
        self.publisher.slice.send_replace(Some(Arc::new(slice)));
        self.unsettled = true;
        if ruled_anew {
            // An application that it ends must not come back by a power cut.
            self.keeper.store_held();
        }
    }

    /// A policy as what is new against the one held. What comes out is judged as if it had come whole; where nothing
    /// comes out, what is held stays and the whole is to be asked for.
    pub fn slice_delta(&mut self, delta: &v1::SliceDelta) -> Result<(), NotApplied> {
        let held = self.publisher.slice.borrow().clone();
        let bytes = held.as_ref().map_or(&[] as &[u8], |held| &held.bytes);
        let whole = slice_delta::apply(delta, bytes).inspect_err(|why| {
            metrics::counter!("edgeward_slice_deltas_refused_total", "code" => why.code())
                .increment(1);
            tracing::warn!(code = why.code(), %why, "a delta of the policy is of no use here");
        })?;
        self.slice(&whole);
        Ok(())
    }

    pub fn peers(&mut self, update: &v1::PeerUpdate) {
        let held = self.publisher.peers.borrow().clone();
        match held.updated(self.keeper.stored.node.trust_domain(), update) {
            Ok(directory) => {
                if directory == *held {
                    return;
                }
                self.keeper.stored.peers = directory.to_stored();
                self.keeper.dirty = true;
                self.moved |= !directory.has_places_of(&held);
                self.publisher.peers.send_replace(Arc::new(directory));
            }
            Err(error) => tracing::warn!(%error, "an update of the directory is refused"),
        }
    }

    /// Takes effect first; enforcement records what it cut.
    pub async fn cut(&mut self, bytes: &[u8]) {
        let keys = self.publisher.keys.borrow().clone();
        let now = self.keeper.clock.now();
        let domain = self.keeper.stored.node.trust_domain().clone();
        let (number, cut) = match accept::cut(bytes, &keys, &domain, now) {
            Ok(accepted) => accepted,
            Err(error) => return self.refused("cut", &error),
        };
        let mut floors = (**self.publisher.cuts.borrow()).clone();
        floors.add(number, &cut);
        self.publisher.cuts.send_replace(Arc::new(floors.clone()));
        tracing::warn!(node = %cut.node, reason = cut.reason.as_str(), number, "cut");
        self.keeper.stored.cuts = floors;
        self.unsettled = true;
    }

    /// The cloud's word on our evidence.
    pub async fn outcome(&mut self, mut outcome: v1::AttestOutcome) -> Applied {
        if let Some(delta) = outcome.result_delta.take() {
            match slice_delta::apply(&delta, &self.keeper.recent.result) {
                Ok(whole) => outcome.result = whole,
                Err(error) => {
                    tracing::warn!(code = error.code(), %error, "a result cannot be put together");
                    return Applied::Unread;
                }
            }
        }
        let now = self.keeper.clock.now();
        self.publisher
            .outcome
            .send_modify(|held| *held = Arc::new(held.after(&outcome, now)));
        if let Some(refused) = outcome.refused {
            tracing::error!(code = %refused.code, "the cloud refused our evidence");
            metrics::counter!("edgeward_attestations_refused_total").increment(1);
        }
        if !outcome.result.is_empty() {
            self.result(&outcome.result);
        }
        if outcome.svid_chain.is_empty() {
            return Applied::Done;
        }
        self.renewed(outcome.svid_chain).await
    }

    /// A quote was made: what the TPM's clock said at a moment that the cloud's time is known for.
    pub fn quoted(&mut self, moment: SignedTime) {
        self.keeper.recent.signed = Some(moment);
    }

    fn result(&mut self, bytes: &[u8]) {
        let keys = self.publisher.keys.borrow().clone();
        let node = self.keeper.stored.node.clone();
        let expect = ResultExpect {
            trust_domain: node.trust_domain(),
            spiffe_id: &node,
            svid_spki: &self.spki_hash(),
            least_number: self.keeper.recent.result_number,
            now: self.keeper.clock.now(),
        };
        match check_result(bytes, &keys, &expect) {
            Ok(result) => {
                self.keeper.recent.result_number = result.number();
                self.keeper.recent.result = bytes.to_vec();
                // From here on the result names this boot's key: no statement is needed any more.
                self.publisher.boot_statement.send_replace(None);
                self.publisher.result.send_replace(Some(Arc::from(bytes)));
                self.keeper.store_recent();
            }
            Err(error) => {
                tracing::error!(code = error.code(), %error, "a result of the cloud is not acceptable");
            }
        }
    }

    async fn renewed(&mut self, chain: Vec<Vec<u8>>) -> Applied {
        let certificates: Vec<_> = chain
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        let key = self.publisher.session_key().clone();
        let svid = match Svid::new(certificates.clone(), key) {
            Ok(svid) if *svid.id() == self.keeper.stored.node => svid,
            Ok(svid) => {
                tracing::error!(id = %svid.id(), "the renewed certificate is of another identity");
                return Applied::Done;
            }
            Err(error) => {
                tracing::error!(%error, "the renewed certificate is not usable");
                return Applied::Done;
            }
        };
        let event = self
            .event(EventKind::SvidRenewed)
            .allowed()
            .detail("serial", &svid.leaf().serial);
        if let Err(error) = self.recorder.record(event).await {
            tracing::error!(%error, "a certificate is not put into force: it could not be recorded");
            return Applied::Done;
        }
        tracing::info!(not_after = %svid.leaf().not_after, "certificate renewed");
        self.keeper.stored.svid_chain = chain.into_iter().map(Blob).collect();
        self.keeper.dirty = true;
        self.keeper.store();
        match self.publisher.set_chain(certificates) {
            Ok(()) => Applied::Renewed,
            Err(error) => {
                tracing::error!(%error, "the renewed certificate is not usable");
                Applied::Done
            }
        }
    }

    fn overlay(&mut self, overlay: &v1::OverlayAddresses) {
        let v4 = overlay.ipv4.parse().ok();
        self.keeper.stored.v4 = v4;
        self.publisher.overlay.send_if_modified(|held| {
            let changed = held.v4 != v4;
            held.v4 = v4;
            changed
        });
    }

    /// The cloud has answered: clock and state are known to be good.
    async fn release(&mut self) {
        let held = *self.publisher.standing.borrow();
        if let Standing::Held(why) = held {
            tracing::info!(%why, "the cloud answered: granting again");
            self.raise().await;
            self.publisher.standing.send_replace(Standing::Granting);
        }
    }

    /// Stores what has changed; once an hour as a new epoch, which also covers the journal's records of that hour.
    pub async fn store(&mut self) {
        let due = self.keeper.clock.boottime().since(self.epoch_raised) >= EPOCH_EVERY;
        if due || self.unsettled || self.joined {
            self.raise().await;
        } else {
            self.keeper.store();
        }
    }

    /// Serves what somebody else on this node wants.
    pub async fn serve(&mut self, order: Order) {
        match order {
            Order::Glass(ordered) => self.glass(ordered).await,
            Order::Apps(order) => self.ledger(order).await,
        }
    }

    /// When [`Holder::settle`] is due if nothing else comes; `None`: it has nothing to do.
    pub fn settle_in(&mut self) -> Option<Duration> {
        let now = self.keeper.clock.boottime();
        let waits = self.unsettled || self.moved;
        self.unsettled_since = waits.then(|| self.unsettled_since.unwrap_or(now));
        let since = self.unsettled_since?;
        Some(SETTLE_AFTER.min(SETTLE_WITHIN.saturating_sub(now.since(since))))
    }

    /// Stores what was put into force as a new epoch, and what only moved without one. Apart from putting it into force, because the TPM takes its time
    /// and the next cut must not wait for it.
    pub async fn settle(&mut self) {
        if self.unsettled {
            self.raise().await;
        } else if self.moved {
            self.moved = false;
            self.keeper.store();
        }
    }

    async fn raise(&mut self) -> bool {
        self.unsettled = false;
        self.joined = false;
        self.moved = false;
        self.epoch_raised = self.keeper.clock.boottime();
        self.keeper.store_new_epoch().await
    }

    fn event(&self, kind: EventKind) -> Event {
        let node = self.keeper.stored.node.clone();
        Event::new(self.keeper.clock.now(), Actor::Identity(node), kind)
    }

    fn refused(&self, what: &str, error: &NotAccepted) {
        metrics::counter!("edgeward_cloud_objects_refused_total", "code" => error.code())
            .increment(1);
        tracing::error!(what, code = error.code(), %error, "something of the cloud is not acceptable");
        let event = self
            .event(EventKind::PolicyRefused)
            .denied(error.code())
            .detail("what", what)
            .detail("reason", error);
        self.recorder.record_after(event);
    }
}
