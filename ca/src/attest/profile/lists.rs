//! Lists of files, from the policy's form into the one that IMA lists are judged by: each made once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgeward_evidence::ima::{BadImaPolicy, ImaPolicy, ListedFile, Violations};
use edgeward_evidence::tpm::HashAlg;
use edgeward_policy as policy;
use edgeward_policy::{DigestList, FileHash, ImaRequirement, ListedDigest};

use super::Unmeasurable;

/// Lists that were made, by what they were made of.
#[derive(Debug, Default)]
pub(super) struct Lists {
    made: BTreeMap<Vec<Key>, Arc<ImaPolicy>>,
}

/// Hashes of the allow-list and the deny-list, and whether violations fail.
type Key = ([u8; 32], [u8; 32], bool);

/// Why a list cannot be compared with. The fault is ours, or the policy's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    #[error("only the hash of a list is known here")]
    Absent,
    #[error(transparent)]
    Ima(#[from] BadImaPolicy),
}

impl Lists {
    /// What all profiles together let run: what each allows and none denies.
    pub(super) fn merge(
        &mut self,
        profiles: &[&policy::Profile],
        name: &str,
    ) -> Result<Option<Arc<ImaPolicy>>, Unmeasurable> {
        let wanted: Vec<&ImaRequirement> = profiles
            .iter()
            .filter_map(|profile| profile.ima.as_ref())
            .collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let key: BTreeSet<Key> = wanted.iter().map(|ima| key_of(ima)).collect();
        let key: Vec<Key> = key.into_iter().collect();
        if let Some(made) = self.made.get(&key) {
            return Ok(Some(made.clone()));
        }
        let made = Arc::new(make(&wanted, name)?);
        self.made.insert(key, made.clone());
        Ok(Some(made))
    }

    /// Keeps what somebody still holds: a new policy mostly has the lists of the one before.
    pub(super) fn forget_unused(&mut self) {
        self.made.retain(|_, made| Arc::strong_count(made) > 1);
    }
}

fn make(wanted: &[&ImaRequirement], name: &str) -> Result<ImaPolicy, Unmeasurable> {
    let mut allowed: Option<Vec<&ListedDigest>> = None;
    for ima in wanted {
        let entries = entries(&ima.allow)?;
        allowed = Some(match allowed {
            None => entries.iter().collect(),
            Some(before) => before
                .into_iter()
                .flat_map(|listed| common(listed, entries))
                .collect(),
        });
    }
    let allowed = allowed.unwrap_or_default();
    if allowed.is_empty() {
        return Err(Unmeasurable::Files(name.to_owned()));
    }
    let mut denied = Vec::new();
    for ima in wanted {
        denied.extend(entries(&ima.deny)?);
    }
    let strict = wanted
        .iter()
        .any(|ima| ima.violations == policy::Violations::Fail);
    let violations = match strict {
        true => Violations::Fail,
        false => Violations::Ignore,
    };
    let policy = ImaPolicy::new(
        allowed.into_iter().map(listed),
        denied.into_iter().map(listed),
        violations,
    );
    Ok(policy.map_err(BadList::from)?)
}

/// What an entry and those of another list allow both: of each pair the narrower, which is the one with a path.
fn common<'a>(one: &'a ListedDigest, others: &'a [ListedDigest]) -> Vec<&'a ListedDigest> {
    let file = (one.hash, &one.digest);
    let from = others.partition_point(|other| (other.hash, &other.digest) < file);
    others
        .iter()
        .skip(from)
        .take_while(|other| (other.hash, &other.digest) == file)
        .filter_map(|other| match (&one.path, &other.path) {
            (None, _) => Some(other),
            (Some(_), None) => Some(one),
            (Some(path), Some(others)) => (path == others).then_some(one),
        })
        .collect()
}

fn entries(list: &DigestList) -> Result<&[ListedDigest], BadList> {
    list.entries().ok_or(BadList::Absent)
}

fn listed(entry: &ListedDigest) -> ListedFile<'_> {
    ListedFile {
        hash: match entry.hash {
            FileHash::Sha256 => HashAlg::Sha256,
            FileHash::Sha384 => HashAlg::Sha384,
            FileHash::Sha512 => HashAlg::Sha512,
        },
        digest: &entry.digest,
        path: entry.path.as_deref().map(str::as_bytes),
    }
}

fn key_of(ima: &ImaRequirement) -> Key {
    let strict = ima.violations == policy::Violations::Fail;
    (*ima.allow.hash(), *ima.deny.hash(), strict)
}
