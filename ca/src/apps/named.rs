//! Releases found by what an operator names: a version, a manifest, or a file in releases.

use edgeward_apps::{AppName, Digest, Version};

use super::repository::{PublishedRelease, Releases};

impl Releases {
    /// One release, under the version as it was published.
    pub fn find(&self, app: &AppName, version: &Version) -> Option<(Version, PublishedRelease)> {
        let (version, release) = self.apps.get(app)?.get_key_value(version)?;
        Some((version.clone(), release.clone()))
    }

    /// The releases whose manifest has this digest; where none has it, those with such a file. What is read of a release
    /// when it is published says so: nothing is opened.
    pub fn with(&self, digest: &Digest) -> Vec<(AppName, Version, Digest)> {
        let named = self.those(|release| release.digest == *digest);
        match named.is_empty() {
            true => self.those(|release| release.content.has(digest)),
            false => named,
        }
    }

    fn those(&self, which: impl Fn(&PublishedRelease) -> bool) -> Vec<(AppName, Version, Digest)> {
        let mut those = Vec::new();
        for (app, versions) in &self.apps {
            for (version, release) in versions.iter().filter(|(_, release)| which(release)) {
                those.push((app.clone(), version.clone(), release.digest));
            }
        }
        those
    }
}

#[cfg(test)]
mod tests {
    use edgeward_identity::testing::TEST_NOW;

    use super::*;
    use crate::apps::Content;

    #[test]
    fn a_digest_is_of_the_release_that_it_names_or_of_every_one_that_has_such_a_file() {
        let mut releases = Releases::default();
        for (name, version) in [("acme/a", "1.0"), ("acme/a", "1.1"), ("acme/b", "1.0")] {
            let own = Digest::of(format!("only in {name} {version}").as_bytes());
            let release = PublishedRelease {
                digest: Digest::of(format!("{name} {version}").as_bytes()),
                length: 100,
                size: 1_000,
                content: Content::of_files(&[own, Digest::of(b"in all")]),
                published: TEST_NOW,
                published_by: "operator/li".to_owned(),
            };
            let versions = releases.apps.entry(name.parse().unwrap()).or_default();
            versions.insert(version.parse().unwrap(), release);
        }
        let found = |of: &str| {
            let found = releases.with(&Digest::of(of.as_bytes())).into_iter();
            let shown = found.map(|(app, version, digest)| {
                let shown = format!("{app} {version}");
                assert_eq!(digest, Digest::of(shown.as_bytes()));
                shown
            });
            shown.collect::<Vec<_>>()
        };
        assert_eq!(found("of nobody"), [""; 0]);
        assert_eq!(found("acme/a 1.1"), ["acme/a 1.1"]);
        assert_eq!(found("only in acme/b 1.0"), ["acme/b 1.0"]);
        assert_eq!(found("in all"), ["acme/a 1.0", "acme/a 1.1", "acme/b 1.0"]);
    }
}
