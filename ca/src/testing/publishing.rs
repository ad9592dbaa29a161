//! Releases in a cloud's repository, with every offline key at hand.

use std::time::Duration;

use edgeward_apps::testing::{Published, acme};
use edgeward_audit::event::Actor;

use super::{Cloud, now};
use crate::apps::shelf::Kind;

impl Cloud {
    /// A publisher whose root names this cloud's key for snapshot and timestamp.
    pub(crate) fn publisher(&self) -> Published {
        let mut offline = Published::new();
        let key = self.config.data.join("keys/apps-online.key");
        let repository = &mut offline.repository;
        repository.online = crate::keys::files::read_key(&key).unwrap();
        let end = now().plus(Duration::from_secs(90 * 86_400));
        let expires = &mut repository.expires;
        (expires.root, expires.targets, expires.publisher) = (end, end, end);
        repository.sign_root(&[]);
        offline
    }

    /// Uploads all of it.
    pub(crate) async fn publish(&self, offline: &Published) {
        let (apps, by) = (&self.hub.apps, Actor::Cloud);
        let root = offline.repository.root().to_vec();
        apps.take_root(root, &by).await.unwrap();
        let files = offline.repository.files();
        apps.take_image(files["1.targets.json"].clone(), &by)
            .await
            .unwrap();
        for (kind, files) in [
            (Kind::Chunk, &offline.chunks),
            (Kind::Manifest, &offline.manifests),
        ] {
            for (digest, bytes) in files {
                apps.put(kind, &acme(), *digest, bytes.clone())
                    .await
                    .unwrap();
            }
        }
        apps.take_releases(&acme(), files["1.acme.json"].clone(), None, &by)
            .await
            .unwrap();
    }
}
