//! Releases found by what an operator names: a version, a manifest, or a file in releases.

use edgeward_apps::manifest::Entry;
use edgeward_apps::{AppName, Digest, Manifest, Version};

use super::refusal::NotTaken;
use super::repository::{PublishedRelease, Releases, Repository};

impl Releases {
    /// One release, under the version as it was published.
    pub fn find(&self, app: &AppName, version: &Version) -> Option<(Version, PublishedRelease)> {
        let (version, release) = self.apps.get(app)?.get_key_value(version)?;
        Some((version.clone(), release.clone()))
    }

    fn all(&self) -> Vec<(AppName, Version, Digest)> {
        let mut all = Vec::new();
        for (app, versions) in &self.apps {
            for (version, release) in versions {
                all.push((app.clone(), version.clone(), release.digest));
            }
        }
        all
    }
}

impl Repository {
    /// The releases whose manifest has this digest; where none has it, those with such a file.
    pub async fn releases_with(
        &self,
        digest: &Digest,
    ) -> Result<Vec<(AppName, Version, Digest)>, NotTaken> {
        let releases = self.releases();
        let (named, others): (Vec<_>, Vec<_>) = releases
            .all()
            .into_iter()
            .partition(|(_, _, own)| own == digest);
        if !named.is_empty() {
            return Ok(named);
        }
        let mut with = Vec::new();
        for release in others {
            let Some(bytes) = self.manifest(&release.2).await? else {
                continue;
            };
            let manifest = Manifest::parse(&bytes).map_err(NotTaken::Manifest)?;
            let mut entries = manifest.entries().values();
            if entries.any(|entry| matches!(entry, Entry::File(file) if file.digest == *digest)) {
                with.push(release);
            }
        }
        Ok(with)
    }
}
