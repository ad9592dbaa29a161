//! The director's word: which node should have which applications, signed for each and pushed when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use edgeward_apps::director::MAX_DENIED;
use edgeward_apps::{AppName, Digest, Orders};
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_identity::{Purpose, SpiffeId, Timestamp};
use edgeward_policy::Seconds;
use edgeward_policy::check::DEFAULT_OFFLINE;
use edgeward_wire::v1::cloud_message::Body;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::directory::Member;
use super::slices::cut_slice;
use super::{Hub, HubFault};
use crate::apps::director::{Given, Question, direct};
use crate::keys::Label;
use crate::store::director::{NUMBER, Remembered};
use crate::store::{Store, StoreError};

mod back;
mod given;
mod revoking;
#[cfg(test)]
mod tests;

pub use back::{GoesBack, Whom};
use revoking::Unstored;
pub use revoking::{Revoked, Spread};

/// How often a word is signed anew that says the same: a node that is cut off goes on by the one that it holds.
const RENEW_EVERY: Duration = Duration::from_secs(3600);
/// How often it is looked whether one is due, and whether another cloud changed something.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same where several clouds share a database: what another one revoked concerns the nodes of this one.
const LOOK_EVERY_SHARED: Duration = Duration::from_millis(500);

/// What the director remembers, and whom it has still to tell.
pub(super) struct Directing {
    remembered: Mutex<Remembered>,
    /// Revoked, and not in the database yet. By what it is, and who said so.
    unstored: Mutex<BTreeMap<(Digest, String), Unstored>>,
    /// Held while one of these is stored: it is stored once.
    storing: tokio::sync::Mutex<()>,
    /// Digests of what is revoked, as every question takes them.
    denied: Mutex<Arc<BTreeSet<Digest>>>,
    /// The highest number that was used.
    last: AtomicU64,
    everybody: AtomicBool,
    /// Sessions that began.
    due: Mutex<BTreeSet<String>>,
    notify: Notify,
    /// Held while words are made: what a node is given is stored once.
    turn: tokio::sync::Mutex<()>,
}

/// What a session was told.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Of the signed word.
    number: u64,
    content: Digest,
    renew_at: Timestamp,
    lifetime: Duration,
    denied: Arc<BTreeSet<Digest>>,
}

/// A word before it is signed.
struct Word {
    orders: Orders,
    content: Digest,
    raised: BTreeMap<AppName, Given>,
    /// What was revoked when it was made.
    denied: Arc<BTreeSet<Digest>>,
}

/// Why an order about applications is not carried out: the operator's.
#[derive(Debug, thiserror::Error)]
pub enum AppOrderFault {
    #[error("more revoked digests than the limit: {MAX_DENIED}")]
    Full,
    #[error("no node of those has a release of it before the one that it has now")]
    NoWayBack,
    #[error(transparent)]
    Hub(#[from] HubFault),
}

impl Directing {
    pub(super) async fn load(store: &Store) -> Result<Self, StoreError> {
        let remembered = store.remembered().await?;
        Ok(Self {
            denied: Mutex::new(denied_of(&remembered)),
            remembered: Mutex::new(remembered),
            unstored: Mutex::default(),
            storing: tokio::sync::Mutex::default(),
            last: AtomicU64::new(store.number(NUMBER).await?),
            everybody: AtomicBool::new(true),
            due: Mutex::default(),
            notify: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    fn number(&self, now: Timestamp) -> u64 {
        let next = |last: u64| now.millis().max(last.saturating_add(1));
        let before = self
            .last
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(next(last)));
        match before {
            Ok(last) | Err(last) => next(last),
        }
    }
}

impl Hub {
    /// The task that tells nodes.
    pub(super) async fn run_director(self: Arc<Self>, stop: CancellationToken) {
        let mut published = self.apps.changed();
        let every = match self.store.is_shared() {
            true => LOOK_EVERY_SHARED,
            false => LOOK_EVERY,
        };
        let mut look = tokio::time::interval(every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut storing: Option<JoinHandle<()>> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    // The last occasion: a start knows only what was stored.
                    self.store_unstored().await;
                    return;
                }
                () = self.director.notify.notified() => {}
                changed = published.changed() => match changed {
                    Ok(()) => self.director.everybody.store(true, Ordering::Release),
                    Err(_) => return,
                },
                _ = look.tick() => {
                    // Words do not wait for a database that takes nothing.
                    if storing.as_ref().is_none_or(JoinHandle::is_finished) {
                        let hub = self.clone();
                        storing = Some(tokio::spawn(async move { hub.store_unstored().await }));
                    }
                    if let Err(error) = self.look_at_director().await {
                        tracing::warn!(%error, "what the director remembers cannot be read");
                    }
                }
            }
            if let Err(error) = self.direct_due().await {
                // Tried again at the next look.
                self.director.everybody.store(true, Ordering::Release);
                tracing::error!(%error, "the director's word cannot be given");
            }
        }
    }

    /// A session began: it is told.
    pub(crate) fn direct_soon(&self, name: &str) {
        self.director.due.lock().insert(name.to_owned());
        self.director.notify.notify_one();
    }

    /// Something changed that may concern every node.
    pub(crate) fn direct_everybody(&self) {
        self.director.everybody.store(true, Ordering::Release);
        self.director.notify.notify_one();
    }

    /// The newest word for a node, to be carried there where no session reaches. `None`: it should have nothing.
    pub(crate) async fn director_word(&self, name: &str) -> Result<Option<Vec<u8>>, HubFault> {
        let _turn = self.director.turn.lock().await;
        let Some(member) = self.member(name).filter(Member::is_active) else {
            return Ok(None);
        };
        let Some(word) = self.word(&member)? else {
            return Ok(None);
        };
        if !word.raised.is_empty() {
            self.keep_given(&[(name.to_owned(), &word)]).await?;
        }
        let lifetime = self.word_lifetime(&member.id).await?;
        let (_, bytes) = self.sign_word(&member.id, &word.orders, lifetime)?;
        Ok(Some(bytes))
    }

    /// Reads anew what another cloud changed.
    async fn look_at_director(&self) -> Result<(), StoreError> {
        let known = self.director.remembered.lock().changes;
        if self.store.director_changes().await? <= known {
            return Ok(());
        }
        let _turn = self.director.turn.lock().await;
        let read = self.store.remembered().await?;
        {
            let mut remembered = self.director.remembered.lock();
            remembered.read_again(read);
            *self.director.denied.lock() = denied_of(&remembered);
        }
        self.direct_everybody();
        Ok(())
    }

    /// Tells whoever has to be told something new.
    async fn direct_due(&self) -> Result<(), HubFault> {
        let _turn = self.director.turn.lock().await;
        let now = self.clock.now();
        let everybody = self.director.everybody.swap(false, Ordering::AcqRel);
        let due = std::mem::take(&mut *self.director.due.lock());
        let concerned: Vec<(String, u64, Option<Told>)> = self
            .sessions
            .lock()
            .iter()
            .filter(|(name, session)| {
                let told = session.directed.as_ref();
                let renew = told.is_some_and(|told| now >= told.renew_at);
                everybody || renew || due.contains(*name)
            })
            .map(|(name, session)| (name.clone(), session.number, session.directed.clone()))
            .collect();
        let mut words = Vec::new();
        for (name, number, told) in concerned {
            let Some(member) = self.member(&name).filter(Member::is_active) else {
                continue;
            };
            let Some(word) = self.word(&member)? else {
                continue;
            };
            let same = told.is_some_and(|told| told.content == word.content && now < told.renew_at);
            if !same {
                words.push((member, number, word));
            }
        }
        if words.is_empty() {
            return Ok(());
        }
        // What takes away raises nothing: it is told first, and waits for no database.
        let (raising, plain): (Vec<_>, Vec<_>) = words
            .into_iter()
            .partition(|(_, _, word)| !word.raised.is_empty());
        for (member, number, word) in &plain {
            self.tell(member, *number, word, now).await;
        }
        if !raising.is_empty() {
            let given: Vec<(String, &Word)> = raising
                .iter()
                .map(|(member, _, word)| (member.row.name.clone(), word))
                .collect();
            self.keep_given(&given).await?;
        }
        for (member, number, word) in &raising {
            self.tell(member, *number, word, now).await;
        }
        let mut tx = self.store.begin("director.number").await?;
        tx.keep_director_number(self.director.last.load(Ordering::Acquire))
            .await?;
        tx.commit().await?;
        Ok(())
    }

    async fn tell(&self, member: &Member, number: u64, word: &Word, now: Timestamp) {
        let told = match self.word_lifetime(&member.id).await {
            Ok(lifetime) => self.tell_now(member, number, word, (lifetime, now)),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = told {
            tracing::error!(node = member.row.name, %fault, "no word of the director for this node");
            // Tried again at the next look.
            self.director.due.lock().insert(member.row.name.clone());
        }
    }

    /// Waits for nothing.
    fn tell_now(
        &self,
        member: &Member,
        session: u64,
        word: &Word,
        (lifetime, now): (Duration, Timestamp),
    ) -> Result<(), HubFault> {
        let (number, bytes) = self.sign_word(&member.id, &word.orders, lifetime)?;
        let pushed = self.with_session(&member.row.name, session, |session| {
            // Something was revoked since: told after the word that says so, this one would take it back.
            if !Arc::ptr_eq(&word.denied, &self.director.denied.lock()) {
                return false;
            }
            session.directed = Some(Told {
                number,
                content: word.content,
                renew_at: now.plus(RENEW_EVERY),
                lifetime,
                denied: word.denied.clone(),
            });
            session.push(Body::Apps(bytes));
            true
        });
        match pushed {
            Some(false) => self.direct_everybody(),
            _ => metrics::counter!("edgeward_director_words_total").increment(1),
        }
        Ok(())
    }

    /// What a node should have now. `None`: nothing, and it never had anything.
    fn word(&self, member: &Member) -> Result<Option<Word>, HubFault> {
        self.asked(member, |question| {
            let directed = direct(question);
            for (app, why) in &directed.unmet {
                tracing::debug!(node = member.row.name, %app, why = why.as_str(), "an app cannot be given");
            }
            (directed.orders, directed.raised)
        })
    }

    fn asked(
        &self,
        member: &Member,
        answer: impl FnOnce(&Question<'_>) -> (Orders, BTreeMap<AppName, Given>),
    ) -> Result<Option<Word>, HubFault> {
        let name = &member.row.name;
        let Some(policy) = self.policy_of(name) else {
            return Ok(None);
        };
        let (given, back) = {
            let remembered = self.director.remembered.lock();
            let given = remembered.given.get(name).cloned().unwrap_or_default();
            (
                given,
                remembered.back.get(name).cloned().unwrap_or_default(),
            )
        };
        let installs = policy.installs_for(&member.row.labels);
        if installs.is_empty() && given.is_empty() {
            return Ok(None);
        }
        let denied = self.director.denied.lock().clone();
        let (orders, raised) = answer(&Question {
            installs: &installs,
            rules: &policy.app_rules_for(&member.row.labels),
            releases: &self.apps.releases(),
            denied: &denied,
            given: &given,
            back: &back,
        });
        let bytes = serde_json::to_vec(&orders).map_err(HubFault::json)?;
        Ok(Some(Word {
            content: Digest::of(&bytes),
            orders,
            raised,
            denied,
        }))
    }

    /// Stores what nodes are given for the first time, before they are told.
    async fn keep_given(&self, words: &[(String, &Word)]) -> Result<(), HubFault> {
        let now = self.clock.now();
        let mut tx = self.store.begin("app.assign").await?;
        for (name, word) in words {
            for (app, given) in &word.raised {
                tx.give_app(name, app, given).await?;
                let digest = word.orders.apps.get(app).map(|assigned| assigned.digest);
                let event = Event::new(now, Actor::Cloud, EventKind::AppAssigned)
                    .subject(app.to_string().as_str())
                    .detail("node", name)
                    .detail("version", &given.highest)
                    .detail(
                        "digest",
                        digest.map(|digest| digest.to_string()).unwrap_or_default(),
                    );
                self.audit.record_in(&mut tx, event).await?;
            }
        }
        let changes = tx.director_changed().await?;
        tx.commit().await?;
        let mut remembered = self.director.remembered.lock();
        remembered.changed_to(changes);
        for (name, word) in words {
            let node = remembered.given.entry(name.clone()).or_default();
            node.extend(word.raised.clone());
        }
        Ok(())
    }

    /// A node that is cut off uses up the longest `offline` that it has, from whatever moment on.
    async fn word_lifetime(&self, id: &SpiffeId) -> Result<Duration, HubFault> {
        let offline = match self.fleeted().await? {
            Some(fleeted) => cut_slice(&fleeted, id)?.0.lifetimes.largest_offline,
            None => Seconds::default(),
        };
        Ok(offline.max(DEFAULT_OFFLINE).as_duration() + 2 * RENEW_EVERY)
    }

    fn sign_word(
        &self,
        id: &SpiffeId,
        orders: &Orders,
        lifetime: Duration,
    ) -> Result<(u64, Vec<u8>), HubFault> {
        let now = self.clock.now();
        let label = Label {
            purpose: Purpose::Director,
            audience: id.to_string(),
            number: self.director.number(now),
            issued: now,
            lifetime,
        };
        let number = label.number;
        Ok((number, self.keys.sign(label, orders)?))
    }
}

fn denied_of(remembered: &Remembered) -> Arc<BTreeSet<Digest>> {
    Arc::new(remembered.denied.keys().copied().collect())
}
