//! Join counters of all nodes, in memory and, a moment later, in the store.
//!
//! A counter belongs to an SVID key, so that a recovery or an enrolment, which make a new key, begin a new one and no
//! write that is late can raise what was begun anew. What a crash keeps from being written makes a node come ahead,
//! which passes (see [`crate::session::join`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_identity::{BootTime, SpkiHash};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Hub;
use crate::alerts::act::{PROOF, Proof};
use crate::session::join::{self, Confirmed, JoinRefused, Joined};
use crate::store::{Store, StoreError};

/// How long counters are gathered.
const GATHER: Duration = Duration::from_millis(250);

/// All counters.
#[derive(Debug, Default)]
pub(super) struct Joins {
    counters: Mutex<Counters>,
    /// Held while writing, and while counters are forgotten: what is forgotten is not written again.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Counters {
    confirmed: HashMap<SpkiHash, Confirmed>,
    /// To be written: the key's node.
    waiting: BTreeMap<SpkiHash, String>,
}

impl Joins {
    pub(super) async fn load(store: &Store) -> Result<Self, StoreError> {
        let counters = Counters {
            // Every connection to this process begins after this.
            confirmed: store
                .joins()
                .await?
                .into_iter()
                .map(|(key, number)| {
                    (
                        key,
                        Confirmed {
                            number,
                            since: BootTime::default(),
                        },
                    )
                })
                .collect(),
            waiting: BTreeMap::new(),
        };
        Ok(Self {
            counters: Mutex::new(counters),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// Writes until `stop`, then what is still waiting.
    pub(super) async fn run(&self, store: &Store, stop: CancellationToken) {
        loop {
            let last = tokio::select! {
                () = tokio::time::sleep(GATHER) => false,
                () = stop.cancelled() => true,
            };
            if let Err(error) = self.flush(store).await {
                tracing::error!(%error, "join counters cannot be written");
            }
            if last {
                return;
            }
        }
    }

    async fn flush(&self, store: &Store) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        let rows: Vec<(SpkiHash, String, u64)> = {
            let mut counters = self.counters.lock();
            let waiting = std::mem::take(&mut counters.waiting);
            waiting
                .into_iter()
                .filter_map(|(key, node)| {
                    let confirmed = counters.confirmed.get(&key)?.number;
                    Some((key, node, confirmed))
                })
                .collect()
        };
        if rows.is_empty() {
            return Ok(());
        }
        let written = write(store, &rows).await;
        if written.is_err() {
            let mut counters = self.counters.lock();
            for (key, node, _) in rows {
                counters.waiting.entry(key).or_insert(node);
            }
        }
        written
    }
}

async fn write(store: &Store, rows: &[(SpkiHash, String, u64)]) -> Result<(), StoreError> {
    let mut tx = store.begin("join.raise").await?;
    for (key, node, confirmed) in rows {
        tx.raise_join(key, node, *confirmed).await?;
    }
    tx.commit().await
}

impl Hub {
    /// Judges the counter of a Hello on a connection that began at `accepted`, and keeps what follows.
    pub(crate) fn join(
        &self,
        node: &str,
        key: &SpkiHash,
        said: u64,
        accepted: BootTime,
    ) -> Result<Joined, JoinRefused> {
        let mut counters = self.joins.counters.lock();
        let known = counters.confirmed.get(key).copied();
        let joined = join::hello(known, said, accepted, self.clock.boottime())?;
        counters.keep(node, key, joined.confirmed);
        Ok(joined)
    }

    /// The node has stored the number that its session was offered.
    pub(crate) fn join_stored(
        &self,
        node: &str,
        key: &SpkiHash,
        offered: u64,
        said: u64,
    ) -> Result<(), JoinRefused> {
        let mut counters = self.joins.counters.lock();
        let known = counters.confirmed.get(key).copied();
        let confirmed = join::stored(known, offered, said, self.clock.boottime())?;
        counters.keep(node, key, confirmed);
        Ok(())
    }

    /// An operator has looked at the holders of a node's keys: the next to come says where the count stands.
    pub(crate) async fn forget_joins(
        &self,
        node: &str,
        keys: impl Iterator<Item = SpkiHash>,
    ) -> Result<(), StoreError> {
        let _writing = self.joins.writing.lock().await;
        let mut tx = self.store.begin("join.forget").await?;
        tx.forget_joins(node).await?;
        tx.commit().await?;
        let mut counters = self.joins.counters.lock();
        for key in keys {
            counters.confirmed.remove(&key);
            counters.waiting.remove(&key);
        }
        Ok(())
    }

    /// Drops the counters of keys whose certificates have all ended.
    pub(crate) async fn prune_joins(&self) -> Result<(), StoreError> {
        let _writing = self.joins.writing.lock().await;
        let mut tx = self.store.begin("join.prune").await?;
        tx.prune_joins().await?;
        tx.commit().await?;
        let kept: HashSet<SpkiHash> = (self.store.joins().await?.into_iter())
            .map(|(key, _)| key)
            .collect();
        let mut counters = self.joins.counters.lock();
        let Counters { confirmed, waiting } = &mut *counters;
        confirmed.retain(|key, _| kept.contains(key) || waiting.contains_key(key));
        Ok(())
    }

    /// Two holders of one identity showed: says so wherever the node is looked at, and in the audit log.
    pub(crate) async fn mark_cloned(&self, node: &str, remote: &str, why: &JoinRefused) {
        self.update_member(node, |member| {
            member.standing.code = Some("join_behind".to_owned());
        });
        let Some(member) = self.member(node) else {
            return;
        };
        let event = Event::new(self.clock.now(), Actor::Cloud, EventKind::NodeCloned)
            .subject(member.id.clone())
            .denied("join_behind")
            .detail("alert", "clone")
            .detail(PROOF, Proof::Clone.as_str())
            .detail("reason", why)
            .detail("remote", remote);
        if let Err(error) = self.writer.now(&member.standing, &self.audit, event).await {
            tracing::error!(node = %member.id, %error, "a clone cannot be recorded");
        }
    }
}

impl Counters {
    fn keep(&mut self, node: &str, key: &SpkiHash, confirmed: Confirmed) {
        if self.confirmed.insert(*key, confirmed) != Some(confirmed) {
            self.waiting.insert(*key, node.to_owned());
        }
    }
}
