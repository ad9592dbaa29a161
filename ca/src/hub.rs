//! What all sessions share: the fleet in memory, who is attached, and the fan-out of cuts, lists, slices and results.
//!
//! Fan-out never waits: a session whose queue is full is ended, and its agent comes back to a whole new state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_evidence::AttestationResult;
use edgeward_identity::signed::EVERYBODY;
use edgeward_identity::{
    AttestationState, Clock, DenyList, Kind, Purpose, SignError, SpiffeId, SpkiHash, Timestamp,
    TrustView,
};
use edgeward_policy::CompiledPolicy;
use edgeward_wire::control::{Cut, CutReason};
use edgeward_wire::v1::{self, cloud_message::Body};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditLog, RecordFault};
use crate::config::Config;
use crate::keys::{CloudKeys, Label};
use crate::serve::Connections;
use crate::store::results::AttestationRow;
use crate::store::{Store, StoreError};

mod directory;
mod slices;
mod writer;

pub use directory::Member;
pub(crate) use directory::nothing_known;
pub use slices::SignedSlice;

use directory::Directory;
use slices::{Fleeted, Sent};
use writer::Writer;

/// Most messages that wait for one session.
pub const MAX_QUEUED: usize = 256;
/// How long a cut stays valid: longer than any agent's session may lag.
const CUT_LIFETIME: Duration = Duration::from_secs(3600);
/// How long a signed deny-list stays valid; sent anew with every session and change.
const DENY_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// How often nodes without a session are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How old a pass of a node without a session may be before the node is called stale.
const DEFAULT_FRESH: Duration = Duration::from_secs(600);

/// A message to one agent.
pub type Outgoing = Result<v1::CloudMessage, tonic::Status>;

/// The state that all sessions share. One per process.
pub struct Hub {
    pub(crate) config: Arc<Config>,
    pub(crate) keys: Arc<CloudKeys>,
    pub(crate) store: Store,
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) trust: Arc<ArcSwap<TrustView>>,
    pub(crate) connections: Arc<Connections>,
    deny_object: ArcSwap<Vec<u8>>,
    policy: ArcSwapOption<CompiledPolicy>,
    directory: Mutex<Directory>,
    sessions: Mutex<BTreeMap<String, Attached>>,
    next_session: AtomicU64,
    writer: Writer,
    fleeted: tokio::sync::Mutex<Option<Arc<Fleeted>>>,
    stale_fleet: AtomicBool,
    fleet_notify: Notify,
    /// Held by whoever changes what a node is: enrolments and operators' acts happen one after the other.
    pub(crate) changes: tokio::sync::Mutex<()>,
}

/// A session that is in force.
struct Attached {
    number: u64,
    out: mpsc::Sender<Outgoing>,
    /// Asks for evidence at once.
    hasten: Arc<Notify>,
    displaced: CancellationToken,
    ended: CancellationToken,
    sent: Sent,
}

/// What a session hands over when it attaches.
pub(crate) struct Attachment {
    pub(crate) out: mpsc::Sender<Outgoing>,
    pub(crate) hasten: Arc<Notify>,
    /// Cancelled when another session of the node took its place.
    pub(crate) displaced: CancellationToken,
    /// Cancelled when the connection must end.
    pub(crate) ended: CancellationToken,
}

/// Why shared state could not be made. Ours, or the database's.
#[derive(Debug, thiserror::Error)]
pub enum HubFault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordFault),
    #[error("signing failed: {0}")]
    Sign(#[from] SignError),
    #[error("slice: {0}")]
    Slice(#[from] edgeward_policy::SliceError),
    #[error("stored node has no valid name: {0}")]
    Name(String),
    #[error("not serialisable: {0}")]
    Json(#[source] serde_json::Error),
}

impl HubFault {
    fn json(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// What a hub is made of.
pub struct Parts {
    pub config: Arc<Config>,
    pub keys: Arc<CloudKeys>,
    pub store: Store,
    pub audit: Arc<AuditLog>,
    pub clock: Arc<dyn Clock>,
    pub trust: Arc<ArcSwap<TrustView>>,
    pub connections: Arc<Connections>,
}

impl Hub {
    /// Reads the fleet and the deny-list.
    pub async fn load(parts: Parts) -> Result<Arc<Self>, HubFault> {
        let now = parts.clock.now();
        let mut standings: BTreeMap<String, AttestationRow> = parts
            .store
            .attestations()
            .await?
            .into_iter()
            .map(|row| (row.node.clone(), row))
            .collect();
        let mut directory = Directory::default();
        for row in parts.store.nodes().await? {
            let id = SpiffeId::new(&parts.config.trust_domain, Kind::Node, &row.name)
                .map_err(|_| HubFault::Name(row.name.clone()))?;
            let standing = standings.remove(&row.name);
            let mut member = Member::new(id, row, standing);
            member.keys = parts.store.live_keys(&member.row.name, now).await?;
            member.key = member.keys.first().map(|(key, _)| *key);
            directory.put(member);
        }
        let deny = parts.store.deny_list(now).await?;
        let hub = Self {
            deny_object: ArcSwap::from_pointee(Vec::new()),
            policy: ArcSwapOption::empty(),
            directory: Mutex::new(directory),
            sessions: Mutex::default(),
            next_session: AtomicU64::new(1),
            writer: Writer::new(parts.store.clone()),
            fleeted: tokio::sync::Mutex::default(),
            stale_fleet: AtomicBool::new(true),
            fleet_notify: Notify::new(),
            changes: tokio::sync::Mutex::default(),
            config: parts.config,
            keys: parts.keys,
            store: parts.store,
            audit: parts.audit,
            clock: parts.clock,
            trust: parts.trust,
            connections: parts.connections,
        };
        hub.enforce_deny_list(deny)?;
        Ok(Arc::new(hub))
    }

    /// The tasks of the hub: passes are written, slices distributed, silent nodes noticed.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        let writing = {
            let (hub, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move { hub.writer.run(stop).await })
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.fleet_notify.notified() => {}
                _ = sweep.tick() => self.sweep().await,
            }
            if let Err(error) = self.distribute().await {
                tracing::error!(%error, "slices cannot be distributed");
            }
        }
        writing.await?;
        Ok(())
    }

    /// The policy in force from now on; every session gets its new slice, and is asked for evidence.
    pub fn set_policy(&self, policy: Arc<CompiledPolicy>) {
        self.policy.store(Some(policy));
        self.fleet_changed();
        for session in self.sessions.lock().values() {
            session.hasten.notify_one();
        }
    }

    pub fn policy(&self) -> Option<Arc<CompiledPolicy>> {
        self.policy.load_full()
    }

    /// A node as it is now.
    pub fn member(&self, name: &str) -> Option<Member> {
        self.directory.lock().get(name).cloned()
    }

    /// Every node as it is now, removed ones too.
    pub fn members(&self) -> Vec<Member> {
        self.directory.lock().all().cloned().collect()
    }

    pub fn is_attached(&self, name: &str) -> bool {
        self.sessions.lock().contains_key(name)
    }

    /// Names of the nodes with a session.
    pub fn attached_names(&self) -> Vec<String> {
        self.sessions.lock().keys().cloned().collect()
    }

    pub fn sessions(&self) -> usize {
        self.sessions.lock().len()
    }

    pub fn deny_number(&self) -> u64 {
        self.trust.load().deny.number()
    }

    pub(crate) fn put_member(&self, member: Member) {
        self.directory.lock().put(member);
        self.fleet_changed();
    }

    pub(crate) fn update_member(&self, name: &str, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.directory.lock().get_mut(name) {
            change(member);
        }
    }

    /// What every member must hold to check what the cloud signs.
    pub(crate) fn trust_update(&self) -> v1::TrustUpdate {
        v1::TrustUpdate {
            trust_bundle: self.keys.bundle().to_spiffe_json(),
            key_set: self.keys.key_set_bytes(),
            deny_list: self.deny_object.load().to_vec(),
        }
    }

    pub(crate) fn deny_bytes(&self) -> Vec<u8> {
        self.deny_object.load().to_vec()
    }

    /// Puts a session in force. One that another has taken the place of is told so.
    pub(crate) fn attach(
        &self,
        name: &str,
        attachment: Attachment,
        slice: Option<&SignedSlice>,
    ) -> u64 {
        let number = self.next_session.fetch_add(1, Ordering::Relaxed);
        let attached = Attached {
            number,
            out: attachment.out,
            hasten: attachment.hasten,
            displaced: attachment.displaced,
            ended: attachment.ended,
            sent: slice.map(SignedSlice::sent).unwrap_or_default(),
        };
        let before = self.sessions.lock().insert(name.to_owned(), attached);
        if let Some(before) = before {
            before.displaced.cancel();
        }
        #[allow(
            clippy::cast_precision_loss,
            reason = "a count of sessions is far below 2^52"
        )]
        metrics::gauge!("edgeward_sessions").set(self.sessions() as f64);
        number
    }

    /// Ends a session's being in force, unless another one is.
    pub(crate) fn detach(&self, name: &str, number: u64) {
        let mut sessions = self.sessions.lock();
        if sessions
            .get(name)
            .is_some_and(|session| session.number == number)
        {
            sessions.remove(name);
        }
        #[allow(
            clippy::cast_precision_loss,
            reason = "a count of sessions is far below 2^52"
        )]
        metrics::gauge!("edgeward_sessions").set(sessions.len() as f64);
    }

    /// Tells the peers of a node how to reach it and what its newest result is.
    pub(crate) fn announce(&self, name: &str) {
        let Some(member) = self.member(name) else {
            return;
        };
        let update = v1::PeerUpdate {
            full: false,
            peers: vec![member.to_wire()],
            gone: Vec::new(),
        };
        let sessions = self.sessions.lock();
        for (other, session) in sessions.iter() {
            if other != name && session.sent.peers.contains(name) {
                session.push(Body::Peers(update.clone()));
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
        use edgeward_identity::deny::Denied;
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
        self.connections.close_denied(&deny);
        self.trust.store(Arc::new(TrustView {
            bundle: self.keys.bundle(),
            deny,
        }));
        self.deny_object.store(Arc::new(bytes));
        self.broadcast(&Body::Trust(self.trust_update()));
        Ok(())
    }

    /// A pass: in force at once, written soon.
    pub(crate) fn passed(&self, row: AttestationRow, key: SpkiHash) {
        let name = row.node.clone();
        self.update_member(&name, |member| {
            member.standing = row.clone();
            member.key = Some(key);
        });
        self.writer.soon(row);
        self.announce(&name);
    }

    /// A node that failed or went silent: its peers are told first, then it is written.
    pub(crate) async fn fell(
        &self,
        member: &Member,
        state: AttestationState,
        code: &str,
        reason: String,
    ) {
        let now = self.clock.now();
        let (cut, kind) = match state {
            AttestationState::Stale => (CutReason::Stale, EventKind::AttestationStale),
            _ => (CutReason::Failed, EventKind::AttestationFailed),
        };
        let fell_before = member.standing.state == state;
        if !fell_before && let Err(error) = self.push_cut(&member.id, cut, now) {
            tracing::error!(node = %member.id, %error, "cut cannot be signed");
        }
        let row = AttestationRow {
            state,
            code: Some(code.to_owned()),
            changed: now,
            result: None,
            ..member.standing.clone()
        };
        self.update_member(&member.row.name, |known| known.standing = row.clone());
        let event = Event::new(now, Actor::Cloud, kind)
            .subject(member.id.clone())
            .denied(code)
            .detail("reason", reason);
        if let Err(error) = self.writer.now(&row, &self.audit, event).await {
            tracing::error!(node = %member.id, %error, "fall cannot be recorded");
        }
    }

    /// Signs what the cloud says about a node's evidence; it ends when the node's certificate would.
    pub(crate) fn sign_result(
        &self,
        result: &AttestationResult,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Vec<u8>, HubFault> {
        let number = self.keys.rising_number(now);
        let object = result.sign(self.keys.results_signer(), number, now.plus(lifetime))?;
        Ok(object.to_bytes())
    }

    pub(crate) async fn next_number(&self, name: &'static str) -> Result<u64, HubFault> {
        let mut tx = self.store.begin("number.raise").await?;
        let number = tx.raise_number(name).await?;
        tx.commit().await?;
        Ok(number)
    }

    fn broadcast(&self, body: &Body) {
        for session in self.sessions.lock().values() {
            session.push(body.clone());
        }
    }

    fn attached(&self) -> Vec<(String, u64)> {
        self.sessions
            .lock()
            .iter()
            .map(|(name, session)| (name.clone(), session.number))
            .collect()
    }

    fn with_session<T>(
        &self,
        name: &str,
        number: u64,
        read: impl FnOnce(&mut Attached) -> T,
    ) -> Option<T> {
        self.sessions
            .lock()
            .get_mut(name)
            .filter(|session| session.number == number)
            .map(read)
    }

    fn send_to(&self, name: &str, number: u64, body: Body) {
        self.with_session(name, number, |session| session.push(body));
    }

    /// Nodes that gave no evidence for long and have no session: their peers let them age by themselves; here they
    /// get their name.
    async fn sweep(&self) {
        let now = self.clock.now();
        let attached: BTreeSet<String> = self.sessions.lock().keys().cloned().collect();
        let policy = self.policy();
        let silent: Vec<Member> = self
            .directory
            .lock()
            .all()
            .filter(|member| member.standing.state == AttestationState::Trusted)
            .filter(|member| !attached.contains(&member.row.name))
            .filter(|member| {
                let fresh = policy
                    .as_ref()
                    .and_then(|policy| {
                        policy
                            .profiles_for(&member.row.labels)
                            .iter()
                            .filter_map(|profile| profile.fresh)
                            .min()
                    })
                    .map_or(DEFAULT_FRESH, edgeward_policy::Seconds::as_duration);
                let passed = member.standing.passed.unwrap_or_default();
                now.since(passed) > fresh
            })
            .cloned()
            .collect();
        for member in silent {
            let row = AttestationRow {
                state: AttestationState::Stale,
                code: Some("silent".to_owned()),
                changed: now,
                ..member.standing.clone()
            };
            self.update_member(&member.row.name, |known| known.standing = row.clone());
            let event = Event::new(now, Actor::Cloud, EventKind::AttestationStale)
                .subject(member.id.clone())
                .denied("silent");
            if let Err(error) = self.writer.now(&row, &self.audit, event).await {
                tracing::error!(node = %member.id, %error, "silence cannot be recorded");
            }
        }
    }
}

impl Attached {
    fn push(&self, body: Body) {
        let message = v1::CloudMessage { body: Some(body) };
        if self.out.try_send(Ok(message)).is_err() {
            self.ended.cancel();
        }
    }
}
