//! The key for snapshot and timestamp, and how it is turned over: the next one is made here, the offline root names it,
//! and from then on it signs. Until a root names it the one before does; nodes follow the chain of roots.

use std::sync::Arc;

use edgeward_apps::image::{KeyText, StatedRoot};
use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_identity::{PublicKey, Signer};

use super::draft::{SNAPSHOT, TIMESTAMP};
use super::refusal::NotTaken;
use super::repository::Repository;

impl Repository {
    /// The key that the offline root has to name for snapshot and timestamp.
    pub fn online_key(&self) -> String {
        written(self.keys.apps_signer().public_key())
    }

    /// The one that the next root may name in its place.
    pub fn next_online_key(&self) -> Option<String> {
        let next = self.keys.next_apps_signer()?;
        Some(written(next.public_key()))
    }

    /// Makes the next key. One that waits for its root is the next one until then.
    pub async fn prepare_online_key(&self, by: &Actor) -> Result<String, NotTaken> {
        let _turn = self.turn.lock().await;
        let keys = self.keys.clone();
        // A token may take its time.
        let made = tokio::task::spawn_blocking(move || keys.prepare_apps_online());
        let (key, is_new) = made.await.map_err(|_| NotTaken::Interrupted)??;
        let key = written(key.public_key());
        if is_new {
            let event = Event::new(self.clock.now(), by.clone(), EventKind::PublisherChanged)
                .allowed()
                .detail("role", "apps-online")
                .detail("key", &key);
            self.audit.record(event).await?;
        }
        Ok(key)
    }

    /// The key of this cloud that a root names for both roles, alone sufficient.
    pub(super) fn online_signer(&self, root: &StatedRoot) -> Result<Arc<dyn Signer>, NotTaken> {
        let found = self.keys.apps_signer_of(|key| names(root, key))?;
        found.ok_or_else(|| {
            let own = [Some(self.online_key()), self.next_online_key()];
            let own: Vec<String> = own.into_iter().flatten().collect();
            NotTaken::OnlineKey(own.join(" or "))
        })
    }

    /// The key before goes, once the root in force names another one. What fails is tried again at the next renewal.
    pub(super) fn settle_online_key(&self, root: &StatedRoot) {
        match self.keys.settle_apps_online(|key| names(root, key)) {
            Ok(true) => tracing::info!("the key for snapshot and timestamp was turned over"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "the key before for snapshot and timestamp stays");
            }
        }
    }
}

fn written(key: &PublicKey) -> String {
    format!("ecdsa-p256:{}", hex::encode(key.point()))
}

fn names(root: &StatedRoot, key: &PublicKey) -> bool {
    let Ok(key) = written(key).parse::<KeyText>() else {
        return false;
    };
    [TIMESTAMP, SNAPSHOT].into_iter().all(|role| {
        root.roles
            .get(role)
            .is_some_and(|role| role.threshold == 1 && role.keys.contains(&key))
    })
}
