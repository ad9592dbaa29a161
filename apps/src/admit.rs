//! Whether a release may be installed and run here: what the policy allows on this node, what is denied, and that no
//! lower version comes back.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_identity::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::director::{Agreed, Director, Disagreed, Orders};
use crate::image::PublisherKeys;
use crate::manifest::{Entry, Manifest};
use crate::name::{AppName, PublisherName, Version};

mod rules;

pub use rules::{
    Allow, AppRules, BadRules, Deny, MAX_PUBLISHER_KEYS, MAX_RULED_PUBLISHERS, MAX_RULES, Mode,
};

/// The highest version of each app that was accepted here. Sealed as [`ImageFloors`](crate::image::ImageFloors) are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppFloors {
    /// Number of the newest director's word.
    pub director: u64,
    pub apps: BTreeMap<AppName, AppFloor>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppFloor {
    pub highest: Version,
    /// The one before it: the only way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Version>,
}

/// A release that may be installed. Only [`admit`] makes one; whatever installs takes it as an argument.
#[derive(Debug)]
pub struct Installable {
    manifest: Manifest,
    digest: Digest,
    until: Timestamp,
    floors: AppFloors,
    would_deny: Option<NotAdmitted>,
}

/// Why a release may not be installed. The code is stable; the text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    #[error(transparent)]
    Disagreed(#[from] Disagreed),
    #[error("more rules than the limit: {MAX_RULES}")]
    TooManyRules,
    #[error("no rule allows {0} {1} on this node")]
    NotAllowed(AppName, Version),
    #[error("{app} {version} is below the lowest version that a rule allows: {least}")]
    TooOld {
        app: AppName,
        version: Version,
        least: Version,
    },
    #[error("denied: {0}")]
    Denied(String),
    #[error("{app} was taken back: version {version} after {highest}")]
    Rollback {
        app: AppName,
        version: Version,
        highest: Version,
    },
    #[error("the director's word was taken back: number {number} after {highest}")]
    DirectorRollback { number: u64, highest: u64 },
    #[error("the director's word has expired, or that of the repository")]
    Expired,
}

impl NotAdmitted {
    /// Stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Disagreed(_) => "app-unproven",
            Self::TooManyRules => "app-rules",
            Self::NotAllowed(..) => "app-not-allowed",
            Self::TooOld { .. } => "app-too-old",
            Self::Denied(_) => "app-denied",
            Self::Rollback { .. } => "app-rollback",
            Self::DirectorRollback { .. } => "director-rollback",
            Self::Expired => "app-expired",
        }
    }
}

/// The one maker of [`Installable`]: both sides agree on these bytes, a rule allows them, nothing denies them, and
/// nothing goes back.
pub fn admit(
    agreed: &Agreed,
    manifest: &[u8],
    director: &Director,
    rules: &AppRules,
    floors: &AppFloors,
    now: Timestamp,
) -> Result<Installable, NotAdmitted> {
    if now >= agreed.until() {
        return Err(NotAdmitted::Expired);
    }
    let (number, highest) = (agreed.number(), floors.director);
    if number < highest || number != director.number() {
        return Err(NotAdmitted::DirectorRollback { number, highest });
    }
    let manifest = agreed.manifest(manifest)?;
    let digest = agreed.release().digest;
    let would_deny = rules.judge(&manifest, digest)?;
    director.orders().denies(&manifest, digest)?;
    let mut floors = floors.clone();
    floors.director = number;
    floors.raise(&manifest.app, &manifest.version, agreed.assigned().back)?;
    Ok(Installable {
        manifest,
        digest,
        until: agreed.until(),
        floors,
        would_deny,
    })
}

impl Orders {
    /// Whether a release was revoked, or a file in it.
    pub fn denies(&self, manifest: &Manifest, digest: Digest) -> Result<(), NotAdmitted> {
        let files = manifest.entries().values().filter_map(|entry| match entry {
            Entry::File(file) => Some(file.digest),
            Entry::Link(_) => None,
        });
        let mut named = std::iter::once(digest).chain(files);
        match named.find(|digest| self.denied.contains(digest)) {
            Some(denied) => Err(NotAdmitted::Denied(format!("revoked digest {denied}"))),
            None => Ok(()),
        }
    }
}

impl AppFloors {
    /// An operator's order leads one version back, to the one that was in force before, and no further.
    fn raise(&mut self, app: &AppName, version: &Version, back: bool) -> Result<(), NotAdmitted> {
        let Some(floor) = self.apps.get_mut(app) else {
            let floor = AppFloor {
                highest: version.clone(),
                previous: None,
            };
            self.apps.insert(app.clone(), floor);
            return Ok(());
        };
        if *version < floor.highest {
            return match back && floor.previous.as_ref() == Some(version) {
                true => Ok(()),
                false => Err(NotAdmitted::Rollback {
                    app: app.clone(),
                    version: version.clone(),
                    highest: floor.highest.clone(),
                }),
            };
        }
        if *version > floor.highest {
            floor.previous = Some(std::mem::replace(&mut floor.highest, version.clone()));
        }
        Ok(())
    }

    /// With the highest versions that somebody else states: the director to a node that lost its state.
    #[must_use]
    pub fn joined(mut self, stated: &BTreeMap<AppName, Version>) -> Self {
        for (app, version) in stated {
            let floor = self.apps.entry(app.clone()).or_insert_with(|| AppFloor {
                highest: version.clone(),
                previous: None,
            });
            if floor.highest < *version {
                floor.highest = version.clone();
            }
        }
        self
    }
}

impl Installable {
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Of the manifest: what the app is.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The words that it rests on end then.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Why rules refuse it, where they only observe.
    pub fn would_deny(&self) -> Option<&NotAdmitted> {
        self.would_deny.as_ref()
    }

    /// To be stored, and the TPM's epoch raised, before the release is activated.
    pub fn floors(&self) -> &AppFloors {
        &self.floors
    }
}

/// Publishers whose metadata a node needs: those that rules name with their keys, for the apps that are assigned.
pub fn publishers(director: &Director, rules: &AppRules) -> Vec<(PublisherName, PublisherKeys)> {
    let wanted: BTreeSet<&PublisherName> = director
        .orders()
        .apps
        .keys()
        .map(AppName::publisher)
        .collect();
    rules
        .publishers
        .iter()
        .filter(|(publisher, _)| wanted.contains(publisher))
        .map(|(publisher, keys)| (publisher.clone(), keys.clone()))
        .collect()
}

#[cfg(test)]
mod tests;
