//! Signing authorities: an operator's word about them, and what follows from it in the fleet.
//!
//! What grants (publish, activate) is recorded first; what takes away (taint, retire) happens first. The states and
//! their order are in [`crate::keys::ledger`].

use std::collections::BTreeMap;
use std::sync::Arc;

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_identity::{SpkiHash, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::ControlFault;
use crate::hub::Hub;
use crate::keys::ledger::{Authority, Ledger, NotNow, Role, State};
use crate::keys::{CloudKeys, KeysFault};
use crate::store::StoreError;
use crate::store::authorities::NodeTrust;

mod view;

/// Whose keys authorities are denied under, in the store.
const NO_NODE: &str = "";
/// Why what a retired authority signed is refused.
pub const RETIRED: &str = "authority_retired";

/// What each node was last seen with. Part of the hub.
#[derive(Debug, Default)]
pub struct Trusts {
    nodes: Mutex<BTreeMap<String, NodeTrust>>,
    changed: Notify,
}

/// How an operator wants an authority turned over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotate {
    pub role: Role,
    /// Percent of active nodes that must hold a new root before it signs.
    pub activate_at: Option<u8>,
    /// Without waiting for them.
    pub now: bool,
}

impl Trusts {
    pub(crate) fn new(nodes: BTreeMap<String, NodeTrust>) -> Self {
        Self {
            nodes: Mutex::new(nodes),
            changed: Notify::new(),
        }
    }

    /// Waits until somebody was seen with something new, or an authority changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn of(&self, node: &str) -> Option<NodeTrust> {
        self.nodes.lock().get(node).copied()
    }
}

impl Hub {
    /// A node came with this certificate's issuer, and says which bundle it stored.
    pub(crate) async fn saw_trust(
        &self,
        node: &str,
        bundle: u64,
        issuer: Option<&SpkiHash>,
    ) -> Result<(), StoreError> {
        let Some(issuer) = issuer else { return Ok(()) };
        let trust = NodeTrust {
            // A sequence that was never signed says nothing.
            bundle: bundle.min(self.keys.ledger().sequence),
            issuer: *issuer,
        };
        if self.trusts.of(node) == Some(trust) {
            return Ok(());
        }
        let mut tx = self.store.begin("node.trust").await?;
        tx.put_node_trust(node, &trust, self.clock.now()).await?;
        tx.commit().await?;
        self.trusts.nodes.lock().insert(node.to_owned(), trust);
        self.trusts.changed.notify_one();
        Ok(())
    }

    /// Begins a rotation, or goes on with the one under way.
    pub(crate) async fn rotate(&self, rotate: Rotate, by: &Actor) -> Result<(), ControlFault> {
        let _changes = self.changes.lock().await;
        let role = rotate.role;
        let ledger = self.keys.ledger();
        if let (Role::Issuing, Some(root)) = (role, ledger.coming(Role::Root)) {
            return Err(KeysFault::from(NotNow::UnderWay(root.key)).into());
        }
        let now = self.clock.now();
        if ledger.coming(role).is_none() {
            let key = self.with_keys(move |keys| keys.prepare(role, now)).await?;
            self.record(EventKind::AuthorityPrepared, by, role, &key)
                .await?;
        }
        if let Some(percent) = rotate.activate_at {
            self.with_keys(move |keys| keys.activate_at(percent))
                .await?;
        }
        if let Some(coming) = self.keys.ledger().in_state(role, State::Prepared).next() {
            self.record(EventKind::AuthorityPublished, by, role, &coming.key)
                .await?;
            self.with_keys(move |keys| keys.publish(now)).await?;
            self.refresh_trust().map_err(unsigned)?;
        }
        if role == Role::Issuing || rotate.now {
            self.activate(by).await?;
        }
        self.trusts.changed.notify_one();
        Ok(())
    }

    /// Another key signs what each node should have of applications; the one before is named no more. Nodes with a session
    /// hear it at once, with a word that the new key signed; the others go on by what they hold until they come.
    pub(crate) async fn rotate_director(self: &Arc<Self>, by: &Actor) -> Result<(), ControlFault> {
        let (hub, by) = (self.clone(), by.clone());
        // Whoever asked may go away: once it is turned, everybody is told.
        let turned = tokio::spawn(async move { hub.turn_director(&by).await });
        turned
            .await
            .map_err(|error| ControlFault::Failed(error.to_string()))?
    }

    async fn turn_director(&self, by: &Actor) -> Result<(), ControlFault> {
        let _changes = self.changes.lock().await;
        let new = self.with_keys(CloudKeys::new_director).await?;
        let event = Event::new(self.clock.now(), by.clone(), EventKind::AuthorityActivated)
            .allowed()
            .detail("authority", "director")
            .detail("key", new.key);
        self.audit.record(event).await?;
        let now = self.clock.now();
        self.with_keys(move |keys| keys.turn_director(&new, now))
            .await?;
        self.tell_key_set().map_err(unsigned)
    }

    /// What an old authority signed is renewed now, by every node whose session is open, and by the others when they come.
    pub(crate) async fn taint(&self, key: &str, by: &Actor) -> Result<(), ControlFault> {
        let _changes = self.changes.lock().await;
        let now = self.clock.now();
        let found = self.authority(key)?;
        let key = found.key;
        self.with_keys(move |keys| keys.taint(&key, now)).await?;
        self.hasten_those(|node| {
            self.trusts
                .of(node)
                .is_none_or(|trust| self.keys.is_tainted(&trust.issuer))
        });
        self.record(EventKind::AuthorityTainted, by, found.role, &key)
            .await?;
        self.trusts.changed.notify_one();
        Ok(())
    }

    /// Nobody trusts it from now on.
    pub(crate) async fn retire(
        &self,
        key: &str,
        force: bool,
        by: &Actor,
    ) -> Result<(), ControlFault> {
        let _changes = self.changes.lock().await;
        let found = self.authority(key)?;
        self.keys
            .ledger()
            .may_retire(&found.key)
            .map_err(KeysFault::from)?;
        if !force {
            let relying = self.relying(&found.key).await?;
            if !relying.is_empty() {
                return Err(ControlFault::Relied(relying));
            }
        }
        self.retire_now(&found, by).await
    }

    /// What happens by itself: a root that enough nodes hold becomes active; a tainted authority that nobody relies on
    /// any more is retired; what was retired is denied, even if the cloud stopped halfway.
    pub(crate) async fn turn_authorities(&self) -> Result<(), ControlFault> {
        let _changes = self.changes.lock().await;
        let ledger = self.keys.ledger();
        if ledger
            .in_state(Role::Root, State::Published)
            .next()
            .is_some()
        {
            let (held, of) = self.bundle_held(&ledger);
            if held.saturating_mul(100) >= of.saturating_mul(usize::from(ledger.activate_at)) {
                tracing::info!(
                    held,
                    of,
                    "the new root is known well enough: it signs from now on"
                );
                self.activate(&Actor::Cloud).await?;
            }
        }
        let ledger = self.keys.ledger();
        for role in [Role::Root, Role::Issuing] {
            for tainted in ledger.in_state(role, State::Tainted) {
                if self.keys.ledger().get(&tainted.key).map(|now| now.state) != Some(State::Tainted)
                    || !self.relying(&tainted.key).await?.is_empty()
                {
                    continue;
                }
                match self.retire_now(tainted, &Actor::Cloud).await {
                    Err(ControlFault::RootNeeded(reason)) => {
                        tracing::warn!(key = %tainted.key, reason, "a tainted root stays trusted");
                    }
                    done => done?,
                }
            }
        }
        self.deny_retired().await
    }

    /// Active nodes that stored the newest bundle, and all active ones.
    pub(crate) fn bundle_held(&self, ledger: &Ledger) -> (usize, usize) {
        let active = self.active_names();
        let held = active
            .iter()
            .filter(|node| self.holds(node, ledger.sequence))
            .count();
        (held, active.len())
    }

    /// Identities whose newest certificate came from this authority, or one below it.
    pub(crate) async fn relying(&self, key: &SpkiHash) -> Result<Vec<String>, StoreError> {
        let ledger = self.keys.ledger();
        let now = self.clock.now();
        let mut relying = Vec::new();
        for issuing in ledger.issuing_with(key) {
            relying.extend(self.store.signed_by(&issuing.key, now).await?.relying);
            let used = !matches!(issuing.state, State::Prepared | State::Published);
            let nodes = self.active_names().into_iter().filter(|node| {
                // A node that was not seen since it enrolled may hold what was signed by any.
                used && self
                    .trusts
                    .of(node)
                    .is_none_or(|trust| trust.issuer == issuing.key)
            });
            relying.extend(nodes);
        }
        relying.sort();
        relying.dedup();
        Ok(relying)
    }

    fn holds(&self, node: &str, sequence: u64) -> bool {
        self.trusts
            .of(node)
            .is_some_and(|trust| trust.bundle >= sequence)
    }

    async fn activate(&self, by: &Actor) -> Result<(), ControlFault> {
        let now = self.clock.now();
        let ledger = self.keys.ledger();
        for coming in &ledger.authorities {
            if coming.state == State::Published {
                self.record(EventKind::AuthorityActivated, by, coming.role, &coming.key)
                    .await?;
            }
        }
        self.with_keys(move |keys| keys.activate(now)).await?;
        // Members learn the key set of the new root; the cloud itself comes with a new certificate (`run/upkeep`).
        self.refresh_trust().map_err(unsigned)?;
        self.trusts.changed.notify_one();
        Ok(())
    }

    async fn retire_now(&self, authority: &Authority, by: &Actor) -> Result<(), ControlFault> {
        let (key, now) = (authority.key, self.clock.now());
        self.with_keys(move |keys| keys.retire(&key, now)).await?;
        self.deny_retired().await?;
        self.refresh_trust().map_err(unsigned)?;
        self.record(EventKind::AuthorityRetired, by, authority.role, &key)
            .await
    }

    /// Puts retired issuing authorities on the deny-list, and with them all that they signed.
    async fn deny_retired(&self) -> Result<(), ControlFault> {
        let now = self.clock.now();
        let view = self.trust.load_full();
        let ledger = self.keys.ledger();
        let keys: Vec<(SpkiHash, Timestamp)> = ledger
            .in_state(Role::Issuing, State::Retired)
            .filter(|retired| view.deny.get(&retired.key).is_none())
            .filter_map(|retired| Some((retired.key, self.keys.validity(retired).ok()?.1)))
            .filter(|(_, until)| *until > now)
            .collect();
        if keys.is_empty() {
            return Ok(());
        }
        self.deny_at_once(&keys, RETIRED);
        let mut tx = self.store.begin("authority.deny").await?;
        tx.deny_keys(NO_NODE, RETIRED, &keys).await?;
        let deny = tx.raise_deny_list(now).await?;
        let event = Event::new(now, Actor::Cloud, EventKind::DenyListRaised)
            .code(RETIRED)
            .detail("deny_number", deny.number());
        self.audit.record_in(&mut tx, event).await?;
        tx.commit().await?;
        self.enforce_deny_list(deny).map_err(unsigned)
    }

    async fn record(
        &self,
        kind: EventKind,
        by: &Actor,
        role: Role,
        key: &SpkiHash,
    ) -> Result<(), ControlFault> {
        let event = Event::new(self.clock.now(), by.clone(), kind)
            .allowed()
            .detail("authority", role.as_str())
            .detail("key", key)
            .detail("bundle", self.keys.ledger().sequence);
        self.audit.record(event).await?;
        Ok(())
    }

    fn authority(&self, key: &str) -> Result<Authority, ControlFault> {
        let ledger = self.keys.ledger();
        Ok(ledger.find(key).map_err(KeysFault::from)?.clone())
    }

    /// Keys may be in a token that takes its time.
    async fn with_keys<T: Send + 'static>(
        &self,
        act: impl FnOnce(&CloudKeys) -> Result<T, KeysFault> + Send + 'static,
    ) -> Result<T, ControlFault> {
        let keys: Arc<CloudKeys> = self.keys.clone();
        tokio::task::spawn_blocking(move || act(&keys))
            .await
            .map_err(|error| ControlFault::Failed(error.to_string()))?
            .map_err(ControlFault::from)
    }
}

impl From<KeysFault> for ControlFault {
    fn from(fault: KeysFault) -> Self {
        match fault {
            KeysFault::NotNow(NotNow::Unknown(_)) => Self::NoSuchAuthority(fault.to_string()),
            KeysFault::NotNow(not_now) => Self::Authority(not_now),
            KeysFault::RootNeeded { .. } => Self::RootNeeded(fault.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn unsigned(error: edgeward_identity::SignError) -> ControlFault {
    ControlFault::Failed(format!("signing failed: {error}"))
}
