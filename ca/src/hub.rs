//! What all sessions share: the fleet in memory, who is attached, and the fan-out of cuts, lists, slices and results.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::{Clock, Kind, SignError, SpiffeId, TrustView};
use edgeward_wire::v1::{self, cloud_message::Body};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::apps::Repository;
use crate::attest::{Measures, NoThread, Verifiers};
use crate::audit::{AuditLog, RecordFault};
use crate::authorities::Trusts;
use crate::config::Config;
use crate::keys::CloudKeys;
use crate::serve::Connections;
use crate::store::results::AttestationRow;
use crate::store::{Store, StoreError};

mod calls;
mod deltas;
pub mod director;
mod directory;
mod fanout;
mod joins;
mod openings;
mod policies;
mod recall;
mod rollouts;
mod slices;
mod standing;
mod writer;

pub use directory::Member;
pub(crate) use directory::nothing_known;
pub use rollouts::{Begin, Progress, RolloutFault};
pub use slices::SignedSlice;
pub(crate) use standing::{Fall, with_findings};
pub(crate) use writer::Kept;

use deltas::{Fleets, LastSent};
use directory::Directory;
use joins::Joins;
use policies::Policies;
use recall::Recalled;
use rollouts::Trial;
use slices::Sent;
use writer::Writer;

/// Most messages that wait for one session.
pub const MAX_QUEUED: usize = 256;
/// How often peers are told of results that say the same as before, all at once.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);
/// How often nodes without a session are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// A message to one agent. Boxed: an empty queue keeps room for some dozens, for every session.
pub type Outgoing = Box<v1::CloudMessage>;

/// The state that all sessions share. One per process.
pub struct Hub {
    pub(crate) config: Arc<Config>,
    pub(crate) keys: Arc<CloudKeys>,
    pub(crate) store: Store,
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) apps: Arc<Repository>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) trust: Arc<ArcSwap<TrustView>>,
    pub(crate) connections: Arc<Connections>,
    deny_object: ArcSwap<Vec<u8>>,
    /// Number of the key set that sessions were told of last.
    told_key_set: AtomicU64,
    policies: ArcSwap<Policies>,
    /// The candidate among them, while there is one.
    trial: tokio::sync::Mutex<Option<Trial>>,
    directory: Mutex<Directory>,
    sessions: Mutex<BTreeMap<String, Attached>>,
    next_session: AtomicU64,
    writer: Writer,
    pub(crate) verifiers: Verifiers,
    measures: Measures,
    /// Of the candidate, for the nodes that it is tried on.
    staged_measures: Measures,
    recalled: Mutex<BTreeMap<String, Recalled>>,
    /// Nodes whose peers are to be told within [`ANNOUNCE_EVERY`].
    announcing: Mutex<BTreeSet<String>>,
    pub(crate) trusts: Trusts,
    joins: Joins,
    calls: Mutex<calls::Calls>,
    /// UDP port of the STUN server; 0: there is none.
    pub(crate) stun_port: u16,
    openings: ArcSwap<openings::Openings>,
    /// Held while they are read anew: none of two readings overtakes the other.
    openings_turn: tokio::sync::Mutex<()>,
    fleeted: tokio::sync::Mutex<Fleets>,
    /// What each node was sent last, with or without a session now.
    last_sent: Mutex<BTreeMap<String, LastSent>>,
    stale_fleet: AtomicBool,
    fleet_notify: Notify,
    director: director::Directing,
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
    /// Whether its agent takes deltas.
    deltas: bool,
    /// Whether its link is paid by the byte.
    metered: bool,
    sent: Sent,
    /// The director's word that it was sent last.
    directed: Option<director::Told>,
}

/// What a session hands over when it attaches.
pub(crate) struct Attachment {
    pub(crate) out: mpsc::Sender<Outgoing>,
    pub(crate) hasten: Arc<Notify>,
    /// Cancelled when another session of the node took its place.
    pub(crate) displaced: CancellationToken,
    /// Cancelled when the connection must end.
    pub(crate) ended: CancellationToken,
    /// Whether the agent takes deltas of slices.
    pub(crate) deltas: bool,
    /// Whether its link is paid by the byte.
    pub(crate) metered: bool,
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
    #[error(transparent)]
    Thread(#[from] NoThread),
    #[error("stored node has no valid name: {0}")]
    Name(String),
    #[error("a task ended before its time: {0}")]
    Task(#[from] tokio::task::JoinError),
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
    pub apps: Arc<Repository>,
    pub clock: Arc<dyn Clock>,
    pub trust: Arc<ArcSwap<TrustView>>,
    pub connections: Arc<Connections>,
    /// UDP port of the STUN server; 0: there is none.
    pub stun_port: u16,
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
            told_key_set: AtomicU64::new(0),
            policies: ArcSwap::default(),
            trial: tokio::sync::Mutex::default(),
            directory: Mutex::new(directory),
            sessions: Mutex::default(),
            next_session: AtomicU64::new(1),
            writer: Writer::new(parts.store.clone()),
            verifiers: Verifiers::start()?,
            measures: Measures::default(),
            staged_measures: Measures::default(),
            recalled: Mutex::new(recall::load(&parts.store).await?),
            announcing: Mutex::default(),
            trusts: Trusts::new(parts.store.node_trust().await?),
            joins: Joins::load(&parts.store).await?,
            calls: Mutex::default(),
            stun_port: parts.stun_port,
            openings: ArcSwap::default(),
            openings_turn: tokio::sync::Mutex::default(),
            fleeted: tokio::sync::Mutex::default(),
            last_sent: Mutex::default(),
            stale_fleet: AtomicBool::new(true),
            fleet_notify: Notify::new(),
            director: director::Directing::load(&parts.store).await?,
            changes: tokio::sync::Mutex::default(),
            config: parts.config,
            keys: parts.keys,
            store: parts.store,
            audit: parts.audit,
            apps: parts.apps,
            clock: parts.clock,
            trust: parts.trust,
            connections: parts.connections,
        };
        hub.enforce_deny_list(deny)?;
        hub.openings_changed().await?;
        Ok(Arc::new(hub))
    }

    /// The tasks of the hub: passes are written, slices distributed, silent nodes noticed.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        let mut rollout = tokio::time::interval(rollouts::LOOK_EVERY);
        rollout.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut announce = tokio::time::interval(ANNOUNCE_EVERY);
        announce.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let writing = {
            let (hub, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move { hub.writer.run(stop).await })
        };
        let joining = {
            let (hub, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move { hub.joins.run(&hub.store, stop).await })
        };
        let directing = {
            let (hub, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move { hub.run_director(stop).await })
        };
        loop {
            let everybody = tokio::select! {
                () = stop.cancelled() => break,
                () = self.fleet_notify.notified() => true,
                _ = announce.tick() => {
                    self.announce_gathered();
                    continue;
                }
                _ = rollout.tick() => {
                    self.look_after_rollout().await;
                    continue;
                }
                _ = sweep.tick() => {
                    self.sweep().await;
                    // What failed before is tried again.
                    self.stale_fleet.load(Ordering::Acquire)
                }
            };
            if let Err(error) = self.distribute(everybody).await {
                tracing::error!(%error, "slices cannot be distributed");
            }
        }
        writing.await?;
        joining.await?;
        directing.await?;
        Ok(())
    }

    /// Asks these nodes for evidence at once, if their session is open.
    pub(crate) fn hasten_those(&self, which: impl Fn(&str) -> bool) {
        for (_, session) in self.sessions.lock().iter().filter(|(name, _)| which(name)) {
            session.hasten.notify_one();
        }
    }

    /// A node as it is now.
    pub fn member(&self, name: &str) -> Option<Member> {
        self.directory.lock().get(name).cloned()
    }

    /// Every node as it is now, removed ones too.
    pub fn members(&self) -> Vec<Member> {
        self.directory.lock().all().cloned().collect()
    }

    /// Names of the active nodes.
    pub(crate) fn active_names(&self) -> Vec<String> {
        let directory = self.directory.lock();
        let active = directory.all().filter(|member| member.is_active());
        active.map(|member| member.row.name.clone()).collect()
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

    /// The strictest `fresh` in what the node was last sent.
    pub(crate) fn strictest_fresh(&self, name: &str) -> Option<Duration> {
        self.sessions.lock().get(name)?.sent.fresh
    }

    pub fn deny_number(&self) -> u64 {
        self.trust.load().deny.number()
    }

    pub(crate) fn put_member(&self, member: Member) {
        self.forget(&member.row.name);
        self.directory.lock().put(member);
        self.fleet_changed();
    }

    pub(crate) fn update_member(&self, name: &str, change: impl FnOnce(&mut Member)) {
        self.directory.lock().update(name, change);
    }

    /// What every member must hold to check what the cloud signs.
    pub(crate) fn trust_update(&self) -> v1::TrustUpdate {
        v1::TrustUpdate {
            trust_bundle: self.keys.bundle().to_spiffe_json(),
            key_set: self.keys.key_set_bytes(),
            deny_list: self.deny_object.load().to_vec(),
            authorities: self.keys.steps(),
        }
    }

    pub(crate) fn deny_bytes(&self) -> Vec<u8> {
        self.deny_object.load().to_vec()
    }

    /// Puts a session in force. What `first` makes is sent before anything that is pushed to it, and says everything
    /// that was pushed to others before. A session that this one takes the place of is told so.
    pub(crate) fn attach(
        &self,
        name: &str,
        attachment: Attachment,
        slice: Option<&SignedSlice>,
        first: impl FnOnce() -> Vec<Body>,
    ) -> u64 {
        let number = self.next_session.fetch_add(1, Ordering::Relaxed);
        let attached = Attached {
            number,
            out: attachment.out,
            hasten: attachment.hasten,
            displaced: attachment.displaced,
            ended: attachment.ended,
            deltas: attachment.deltas,
            metered: attachment.metered,
            sent: slice.map(SignedSlice::sent).unwrap_or_default(),
            directed: None,
        };
        if let Some(slice) = slice {
            self.note_sent(name, slice.last_sent());
        }
        let mut sessions = self.sessions.lock();
        for body in first() {
            attached.push(body);
        }
        if let Some(before) = sessions.insert(name.to_owned(), attached) {
            before.displaced.cancel();
        }
        count_sessions(sessions.len());
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
        count_sessions(sessions.len());
    }

    pub(crate) async fn next_number(&self, name: &'static str) -> Result<u64, HubFault> {
        let mut tx = self.store.begin("number.raise").await?;
        let number = tx.raise_number(name).await?;
        tx.commit().await?;
        Ok(number)
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
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a count of sessions is far below 2^52"
)]
fn count_sessions(number: usize) {
    metrics::gauge!("edgeward_sessions").set(number as f64);
}
