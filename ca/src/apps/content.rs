//! Which files a release holds, in as little memory as it takes to leave one alone that is denied by a file in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgeward_apps::manifest::Entry;
use edgeward_apps::{AppName, Digest, Manifest, Version};

use super::refusal::NotTaken;
use super::repository::{PublishedRelease, Repository};

/// The beginnings of the digests of its files, in order: at most 160 KB, for a release with as many files as one may
/// have. Two files that begin alike are taken for the same one: then a release is left alone that might be ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content(Arc<[u64]>);

impl Content {
    pub fn of(manifest: &Manifest) -> Self {
        let files = manifest.entries().values().filter_map(|entry| match entry {
            Entry::File(file) => Some(beginning(&file.digest)),
            Entry::Link(_) => None,
        });
        files.collect()
    }

    pub fn has(&self, file: &Digest) -> bool {
        self.0.binary_search(&beginning(file)).is_ok()
    }

    /// Whether it has one of these; as fast as the shorter of the two lists is.
    pub fn has_any(&self, files: &BTreeSet<Digest>) -> bool {
        match files.len() <= self.0.len() {
            true => files.iter().any(|file| self.has(file)),
            false => self.0.iter().any(|own| {
                let mut alike = files.range(end(*own, 0)..=end(*own, u8::MAX));
                alike.next().is_some()
            }),
        }
    }
}

impl FromIterator<u64> for Content {
    fn from_iter<T: IntoIterator<Item = u64>>(files: T) -> Self {
        let files: BTreeSet<u64> = files.into_iter().collect();
        Self(files.into_iter().collect())
    }
}

/// The first digest, or the last, of those that begin so.
fn end(beginning: u64, rest: u8) -> Digest {
    let mut bytes = [rest; 32];
    for (to, from) in bytes.iter_mut().zip(beginning.to_be_bytes()) {
        *to = from;
    }
    Digest::from_bytes(bytes)
}

fn beginning(digest: &Digest) -> u64 {
    let first = digest.as_bytes().first_chunk().copied();
    u64::from_be_bytes(first.unwrap_or_default())
}

impl Repository {
    /// Looks into manifests that were not looked into yet. One that is not here says nothing: then a node that may not
    /// have what is in it refuses it by itself.
    pub(super) async fn look_into(
        &self,
        apps: &mut BTreeMap<AppName, BTreeMap<Version, PublishedRelease>>,
    ) {
        let before = self.releases();
        let known: BTreeMap<Digest, Content> = before
            .apps
            .values()
            .flat_map(BTreeMap::values)
            .map(|release| (release.digest, release.content.clone()))
            .collect();
        for release in apps.values_mut().flat_map(BTreeMap::values_mut) {
            release.content = match known.get(&release.digest) {
                Some(content) if *content != Content::default() => content.clone(),
                _ => self.content_of(release.digest).await,
            };
        }
    }

    async fn content_of(&self, digest: Digest) -> Content {
        let read = match self.manifest(&digest).await {
            Ok(Some(bytes)) => Manifest::parse(&bytes).map_err(NotTaken::Manifest),
            Ok(None) => {
                tracing::warn!(%digest, "the manifest of a release is not on this cloud's disk");
                return Content::default();
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(manifest) => Content::of(&manifest),
            Err(error) => {
                tracing::error!(%digest, %error, "the manifest of a release cannot be read");
                Content::default()
            }
        }
    }
}

#[cfg(test)]
impl Content {
    pub(crate) fn of_files(files: &[Digest]) -> Self {
        files.iter().map(beginning).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u32) -> Digest {
        Digest::of(&number.to_be_bytes())
    }

    #[test]
    fn a_file_is_found_among_many_and_one_that_is_not_there_is_not() {
        let files: Vec<Digest> = (0..300).map(file).collect();
        let content = Content::of_files(&files);
        assert!(files.iter().all(|file| content.has(file)));
        assert!(!content.has(&file(300)));
        assert!(!Content::default().has(&file(0)));
    }

    #[test]
    fn the_longer_of_two_lists_is_searched_for_the_shorter_and_the_other_way_round() {
        let some = |numbers: std::ops::Range<u32>| numbers.map(file).collect::<BTreeSet<_>>();
        let content = Content::of_files(&[file(5), file(6), file(7)]);
        for (denied, found) in [
            (some(0..0), false),
            (some(7..8), true),
            (some(8..9), false),
            (some(8..2_000), false),
            (some(7..2_000), true),
        ] {
            assert_eq!(content.has_any(&denied), found, "{}", denied.len());
        }
        assert!(!Content::default().has_any(&some(0..9)));
    }
}
