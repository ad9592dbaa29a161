//! The SVIDs that this node holds for its workloads, in memory only.
//!
//! One is asked for when a process first wants it and again at half of its life while somebody still does. When the
//! cloud issues nothing (this node is not trusted, or is cut off), what is held serves until its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::{BootTime, Clock, Secret, Signer, SoftwareKey, SpiffeId, Timestamp, jwt};
use edgeward_policy::workload::MAX_SLICE_WORKLOADS;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::authority::{Authority, NotIssued, check_leaf};

/// Most tokens kept; past it those that end first go.
const MAX_TOKENS: usize = 1_024;
/// Waits between attempts after a refusal: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(15);

/// An X.509-SVID with its key.
pub struct Held {
    pub id: SpiffeId,
    /// Leaf first, DER one after the other.
    pub chain: Vec<u8>,
    /// PKCS#8, DER.
    pub key: Secret<Vec<u8>>,
    pub serial: String,
    pub ends: Timestamp,
    /// When a new one is asked for.
    renew: Timestamp,
}

/// What can be had for one workload now.
pub struct Had {
    pub svid: Result<Arc<Held>, NotIssued>,
    /// When to ask again, if nothing happens before.
    pub again_in: Duration,
}

/// All of them. Shared by whoever serves them.
pub struct Svids {
    authority: Arc<dyn Authority>,
    clock: Arc<dyn Clock>,
    entries: Mutex<BTreeMap<SpiffeId, Arc<Entry>>>,
    tokens: Mutex<BTreeMap<TokenKey, Token>>,
    changed: watch::Sender<u64>,
}

type TokenKey = (SpiffeId, Vec<String>);

struct Token {
    text: String,
    renew: Timestamp,
    ends: Timestamp,
}

#[derive(Default)]
struct Entry {
    state: Mutex<State>,
    /// Held by whoever asks the cloud, so that many callers are one request.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    held: Option<Arc<Held>>,
    failed: Option<Failed>,
}

#[derive(Clone)]
struct Failed {
    why: NotIssued,
    wait: Duration,
    retry: BootTime,
}

/// For status: one workload of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub id: SpiffeId,
    pub serial: Option<String>,
    pub ends: Option<Timestamp>,
    /// Why the last attempt gave nothing.
    pub failed: Option<String>,
}

impl Svids {
    pub fn new(authority: Arc<dyn Authority>, clock: Arc<dyn Clock>) -> Self {
        Self {
            authority,
            clock,
            entries: Mutex::default(),
            tokens: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// Changes whenever an SVID was renewed.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The SVID of a workload: held, or asked for now.
    pub async fn x509(&self, id: &SpiffeId) -> Had {
        let entry = self.entry(id);
        if let Some(had) = self.settled(&entry) {
            return had;
        }
        let _asking = entry.asking.lock().await;
        // Whoever held it may have brought what we need.
        if let Some(had) = self.settled(&entry) {
            return had;
        }
        match self.ask(id).await {
            Ok(held) => self.took(&entry, held),
            Err(why) => self.failed(&entry, id, why),
        }
        self.had(&entry)
    }

    /// A token of a workload for an audience: a kept one in the first half of its life, or a new one.
    pub async fn jwt(&self, id: &SpiffeId, audience: &[String]) -> Result<String, NotIssued> {
        let mut sorted = audience.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let key = (id.clone(), sorted);
        let now = self.clock.now();
        if let Some(token) = self.tokens.lock().get(&key)
            && now < token.renew
        {
            return Ok(token.text.clone());
        }
        match self.authority.jwt(id, &key.1).await {
            Ok(text) => {
                let ends =
                    jwt::end_of(&text).ok_or_else(|| NotIssued::Wrong("no end".to_owned()))?;
                let renew = now.plus(ends.since(now) / 2);
                self.keep(
                    key,
                    Token {
                        text: text.clone(),
                        renew,
                        ends,
                    },
                );
                Ok(text)
            }
            // In the second half of its life a kept one still serves.
            Err(why) => {
                let tokens = self.tokens.lock();
                let kept = tokens.get(&key).filter(|token| now < token.ends);
                kept.map(|token| token.text.clone()).ok_or(why)
            }
        }
    }

    /// Asks again without waiting: something has changed that may have been in the way.
    pub fn hurry(&self) {
        let now = self.clock.boottime();
        for entry in self.entries.lock().values() {
            if let Some(failed) = &mut entry.state.lock().failed {
                failed.retry = now;
            }
        }
    }

    /// Lets go of what the policy no longer names, keys first of all.
    pub fn retain(&self, named: impl Fn(&SpiffeId) -> bool) {
        self.entries.lock().retain(|id, _| named(id));
        self.tokens.lock().retain(|(id, _), _| named(id));
    }

    pub fn report(&self) -> Vec<Report> {
        let entries: Vec<_> = {
            let entries = self.entries.lock();
            entries
                .iter()
                .map(|(id, entry)| (id.clone(), entry.clone()))
                .collect()
        };
        let now = self.clock.now();
        entries
            .into_iter()
            .map(|(id, entry)| {
                let state = entry.state.lock();
                let held = state.held.as_ref().filter(|held| held.ends > now);
                Report {
                    id,
                    serial: held.map(|held| held.serial.clone()),
                    ends: held.map(|held| held.ends),
                    failed: state
                        .failed
                        .as_ref()
                        .map(|failed| failed.why.code().to_owned()),
                }
            })
            .collect()
    }

    fn entry(&self, id: &SpiffeId) -> Arc<Entry> {
        let mut entries = self.entries.lock();
        // Only what the slice names is asked for, so the slice's bound is ours; what is over goes first.
        if entries.len() >= MAX_SLICE_WORKLOADS && !entries.contains_key(id) {
            let now = self.clock.now();
            entries.retain(|_, entry| {
                let state = entry.state.lock();
                state.held.as_ref().is_some_and(|held| held.ends > now)
            });
        }
        entries.entry(id.clone()).or_default().clone()
    }

    /// What there is without asking; `None` where it is time to ask.
    fn settled(&self, entry: &Entry) -> Option<Had> {
        let (now, boot) = (self.clock.now(), self.clock.boottime());
        let asks = {
            let state = entry.state.lock();
            let fresh = state.held.as_ref().is_some_and(|held| now < held.renew);
            let waits = state.failed.as_ref().is_some_and(|f| boot < f.retry);
            !fresh && !waits
        };
        (!asks).then(|| self.had(entry))
    }

    fn had(&self, entry: &Entry) -> Had {
        let (now, boot) = (self.clock.now(), self.clock.boottime());
        let state = entry.state.lock();
        let held = state.held.as_ref().filter(|held| held.ends > now);
        let retry = state.failed.as_ref().map(|failed| failed.retry.since(boot));
        match held {
            Some(held) => {
                let until_end = held.ends.since(now);
                let wait = retry.unwrap_or_else(|| held.renew.since(now));
                Had {
                    svid: Ok(held.clone()),
                    again_in: wait.min(until_end),
                }
            }
            None => {
                let failed = state.failed.as_ref();
                let why = failed.map_or(NotIssued::Offline, |failed| failed.why.clone());
                Had {
                    svid: Err(why),
                    again_in: retry.unwrap_or(FIRST_RETRY),
                }
            }
        }
    }

    async fn ask(&self, id: &SpiffeId) -> Result<Held, NotIssued> {
        let key = SoftwareKey::generate().map_err(|error| NotIssued::Key(error.to_string()))?;
        let chain = self.authority.x509(id, &key).await?;
        let now = self.clock.now();
        let leaf = check_leaf(&chain, id, key.public_key(), now)?;
        Ok(Held {
            id: id.clone(),
            chain: chain.iter().flat_map(|der| der.iter().copied()).collect(),
            key: key.pkcs8().clone(),
            serial: leaf.serial.clone(),
            ends: leaf.not_after,
            // Its own beginning lies before now: half of what is left counts.
            renew: now.plus(leaf.not_after.since(now) / 2),
        })
    }

    fn took(&self, entry: &Entry, held: Held) {
        tracing::info!(workload = %held.id, serial = held.serial, ends = %held.ends, "svid for a workload");
        metrics::counter!("edgeward_workload_issued_total").increment(1);
        {
            let mut state = entry.state.lock();
            state.held = Some(Arc::new(held));
            state.failed = None;
        }
        self.changed.send_modify(|number| *number += 1);
    }

    fn failed(&self, entry: &Entry, id: &SpiffeId, why: NotIssued) {
        tracing::warn!(workload = %id, code = why.code(), reason = %why, "no svid for a workload");
        metrics::counter!("edgeward_workload_not_issued_total").increment(1);
        let mut state = entry.state.lock();
        let wait = state
            .failed
            .as_ref()
            .map_or(FIRST_RETRY, |failed| (failed.wait * 2).min(LAST_RETRY));
        let retry = self.clock.boottime().plus(wait);
        state.failed = Some(Failed { why, wait, retry });
    }

    fn keep(&self, key: TokenKey, token: Token) {
        let mut tokens = self.tokens.lock();
        if tokens.len() >= MAX_TOKENS {
            let first = tokens.iter().min_by_key(|(_, token)| token.ends);
            if let Some(first) = first.map(|(key, _)| key.clone()) {
                tokens.remove(&first);
            }
        }
        tokens.insert(key, token);
    }
}

#[cfg(test)]
mod tests;
