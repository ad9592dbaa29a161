//! Revoking what runs: every node that has it is told before anything waits for a lock or for the database, and it is said
//! how far the word has come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgeward_apps::director::MAX_DENIED;
use edgeward_apps::{AppName, Digest, Version};
use edgeward_audit::event::{Actor, Event, EventKind};

use super::super::directory::Member;
use super::super::{Hub, HubFault};
use super::{AppOrderFault, Told, denied_of};
use crate::apps::AppsSaid;
use crate::apps::director::{Question, direct_as_given};
use crate::store::director::DeniedRow;

/// After so many nodes other work has its turn.
const TOLD_AT_ONCE: usize = 64;
/// What a node says of an app of which processes may be there.
const ALIVE: [&str; 2] = ["starting", "running"];

/// What was revoked, as nodes know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    pub digest: Digest,
    /// Of the releases that are it, or have it in them.
    pub manifests: BTreeSet<Digest>,
    /// Those of them that have a name here.
    pub releases: Vec<(AppName, Version)>,
}

/// How far a revocation has come among the nodes that were given such a release, or say that they have one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// They hold the word, and say that nothing of it runs.
    pub ended: BTreeSet<String>,
    /// They are connected, and have not said so yet.
    pub told: BTreeSet<String>,
    /// No session of this cloud reaches them.
    pub away: BTreeSet<String>,
}

/// What is to be stored, and the event that goes with it.
#[derive(Clone, Debug)]
pub(super) struct Unstored {
    row: DeniedRow,
    event: Event,
}

impl Hub {
    /// From now on this runs nowhere. Once it is in force here it is told and stored, whatever becomes of who asked: where
    /// the database does not take it now, it is offered again with every look.
    pub(crate) async fn revoke_app(
        self: &Arc<Self>,
        row: DeniedRow,
        by: &Actor,
    ) -> Result<(), AppOrderFault> {
        let act = self.deny_here(&row, by)?;
        let hub = self.clone();
        let stored = tokio::spawn(async move {
            hub.tell_denied(&row).await;
            hub.direct_everybody();
            hub.store_denied(&act).await
        });
        Ok(stored.await.map_err(HubFault::from)??)
    }

    /// Puts it in force in memory, to be stored.
    pub(super) fn deny_here(
        &self,
        row: &DeniedRow,
        by: &Actor,
    ) -> Result<(Digest, String), AppOrderFault> {
        let subject = match row.app.is_empty() {
            true => format!("sha256:{}", row.digest),
            false => row.app.clone(),
        };
        let event = Event::new(self.clock.now(), by.clone(), EventKind::AppRevoked)
            .subject(subject.as_str())
            .detail("version", &row.version)
            .detail("digest", row.digest)
            .detail("reason", &row.reason);
        let act = (row.digest, by.to_string());
        let mut remembered = self.director.remembered.lock();
        if remembered.denied.len() >= MAX_DENIED {
            return Err(AppOrderFault::Full);
        }
        let first = remembered.denied.entry(row.digest);
        first.or_insert_with(|| row.clone());
        let unstored = Unstored {
            row: row.clone(),
            event,
        };
        let mut waiting = self.director.unstored.lock();
        waiting.entry(act.clone()).or_insert(unstored);
        drop(waiting);
        *self.director.denied.lock() = denied_of(&remembered);
        Ok(act)
    }

    /// Stores what is revoked in memory only. What fails is tried again with the next look.
    pub(super) async fn store_unstored(&self) {
        let acts: Vec<_> = self.director.unstored.lock().keys().cloned().collect();
        for act in acts {
            if let Err(fault) = self.store_denied(&act).await {
                tracing::error!(digest = %act.0, %fault, "a revocation that is in force is not stored yet");
            }
        }
    }

    /// Stores one of these with its event, unless that is done.
    async fn store_denied(&self, act: &(Digest, String)) -> Result<(), HubFault> {
        let _storing = self.director.storing.lock().await;
        let found = self.director.unstored.lock().get(act).cloned();
        let Some(Unstored { row, event }) = found else {
            return Ok(());
        };
        let mut tx = self.store.begin("app.revoke").await?;
        tx.deny_app(&row).await?;
        let changes = tx.director_changed().await?;
        self.audit.record_in(&mut tx, event).await?;
        tx.commit().await?;
        let mut remembered = self.director.remembered.lock();
        self.director.unstored.lock().remove(act);
        remembered.changed_to(changes);
        Ok(())
    }

    /// Tells who has it. Nothing is given that was not given before, so nothing has to be stored first; and nobody is
    /// waited for who makes words at this moment. All others hear it with their next word.
    async fn tell_denied(&self, row: &DeniedRow) {
        let sessions: Vec<(String, u64, Told)> = {
            let sessions = self.sessions.lock();
            let told = sessions.iter().filter_map(|(name, session)| {
                let told = session.directed.clone()?;
                Some((name.clone(), session.number, told))
            });
            told.collect()
        };
        let had = sessions
            .into_iter()
            .filter(|(name, _, _)| self.may_have(name, row));
        for (told, (name, number, before)) in had.enumerate() {
            if told % TOLD_AT_ONCE == TOLD_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let Some(member) = self.member(&name).filter(Member::is_active) else {
                continue;
            };
            let now = self.clock.now();
            let told = match self.asked(&member, |question: &Question<'_>| {
                (direct_as_given(question), BTreeMap::new())
            }) {
                Ok(Some(word)) => self.tell_now(&member, number, &word, (before.lifetime, now)),
                Ok(None) => Ok(()),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = told {
                // Whoever makes words comes by here soon.
                tracing::error!(node = name, %fault, "a node is not told at once what was revoked");
            }
        }
    }

    /// Of a file nobody knows here in which apps it is, so every node that has any is meant.
    fn may_have(&self, node: &str, row: &DeniedRow) -> bool {
        let remembered = self.director.remembered.lock();
        let given = remembered.given.get(node);
        let given = given.is_some_and(|given| {
            let named = |app: &AppName| app.to_string() == row.app;
            row.app.is_empty() && !given.is_empty() || given.keys().any(named)
        });
        drop(remembered);
        let said = self.member(node).and_then(|member| member.apps);
        let named = |_: &str, digest: &Digest| *digest == row.digest || row.app.is_empty();
        given || says(said.as_deref(), named)
    }

    /// How far the word has come that this runs nowhere.
    pub(crate) fn spread_of(&self, revoked: &Revoked) -> Spread {
        let ours = |digest: &Digest| revoked.manifests.contains(digest);
        let mut spread = Spread::default();
        for member in self.members().into_iter().filter(Member::is_active) {
            let node = member.row.name;
            let said = member.apps.as_deref();
            let alive = says(said, |state, digest| ALIVE.contains(&state) && ours(digest));
            let has = says(said, |_, digest| ours(digest));
            if !has && !self.was_given(&node, &revoked.releases) {
                continue;
            }
            let acted_on = said.map_or(0, |said| said.acted_on);
            let told = {
                let sessions = self.sessions.lock();
                sessions.get(&node).map(|session| session.directed.clone())
            };
            let place = match told {
                None => &mut spread.away,
                Some(Some(told))
                    if told.denied.contains(&revoked.digest)
                        && acted_on >= told.number
                        && !alive =>
                {
                    &mut spread.ended
                }
                Some(_) => &mut spread.told,
            };
            place.insert(node);
        }
        spread
    }

    fn was_given(&self, node: &str, releases: &[(AppName, Version)]) -> bool {
        let remembered = self.director.remembered.lock();
        let Some(given) = remembered.given.get(node) else {
            return false;
        };
        releases.iter().any(|(app, version)| {
            given.get(app).is_some_and(|given| {
                given.highest == *version || given.previous.as_ref() == Some(version)
            })
        })
    }
}

/// Whether a node says so of any of its apps: by its state and the digest of its manifest.
fn says(said: Option<&AppsSaid>, what: impl Fn(&str, &Digest) -> bool) -> bool {
    let apps = said.map_or(&[][..], |said| &said.apps);
    apps.iter().any(|app| {
        let digest = app.digest.as_ref();
        digest.is_some_and(|digest| what(app.state, digest))
    })
}
