//! What the policy says of apps on one node.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::NotAdmitted;
use crate::digest::Digest;
use crate::director::MAX_ASSIGNED;
use crate::image::PublisherKeys;
use crate::manifest::{Entry, Manifest};
use crate::name::{AppName, PublisherName, Version};

/// Most entries in each list of the rules.
pub const MAX_RULES: usize = 1_000;
/// Most publishers that the rules of one node name.
pub const MAX_RULED_PUBLISHERS: usize = 256;
/// Most keys of one publisher.
pub const MAX_PUBLISHER_KEYS: usize = 64;

/// What the policy says of apps on one node: `[publisher.x]` and `[apps.x]` of its groups, joined. Nothing that is not
/// allowed runs; empty rules allow nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppRules {
    pub publishers: BTreeMap<PublisherName, PublisherKeys>,
    pub allow: Vec<Allow>,
    #[serde(default)]
    pub deny: Vec<Deny>,
    /// Keys whose signatures the image must carry that a publisher's app was made from, by publisher.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cosign: BTreeMap<PublisherName, PublisherKeys>,
    /// SHA-256 of the first root of the image repository: what a node without one takes, and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_root: Option<Digest>,
    #[serde(default)]
    pub mode: Mode,
    /// What an app may reach of what the node may, as `service/interface`. One that is not named here reaches nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reach: BTreeMap<AppName, BTreeSet<String>>,
}

/// What follows from rules that refuse a release. Signatures, floors and expiry hold either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Enforce,
    /// It runs all the same, and what would have been denied is told.
    Observe,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, untagged)]
pub enum Allow {
    /// The one manifest.
    Digest { digest: Digest },
    Publisher {
        publisher: PublisherName,
        /// `None`: all of its apps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min_version: Option<Version>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, untagged)]
pub enum Deny {
    /// A manifest, or any file in an app.
    Digest { digest: Digest },
    Publisher {
        publisher: PublisherName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
}

/// Why rules are not sound: the fault of whoever made them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRules {
    #[error("more {what} than the limit: {limit}")]
    TooMany { what: &'static str, limit: usize },
    #[error("the threshold of publisher {0} cannot be met by its keys")]
    Threshold(PublisherName),
    #[error("publisher without keys: {0}")]
    NoKeys(PublisherName),
}

impl AppRules {
    /// Bounds hold, thresholds can be met, and whoever is allowed something has keys.
    pub fn validate(&self) -> Result<(), BadRules> {
        at_most("rules", self.allow.len().max(self.deny.len()), MAX_RULES)?;
        for signers in [&self.publishers, &self.cosign] {
            at_most("publishers", signers.len(), MAX_RULED_PUBLISHERS)?;
            for (publisher, own) in signers {
                at_most("keys of a publisher", own.keys.len(), MAX_PUBLISHER_KEYS)?;
                if !(1..=own.keys.len()).contains(&usize::from(own.threshold)) {
                    return Err(BadRules::Threshold(publisher.clone()));
                }
            }
        }
        at_most("apps that reach something", self.reach.len(), MAX_ASSIGNED)?;
        for reached in self.reach.values() {
            at_most("interfaces that an app reaches", reached.len(), MAX_RULES)?;
        }
        let mut allowed = self.allow.iter().filter_map(|allow| match allow {
            Allow::Publisher { publisher, .. } => Some(publisher),
            Allow::Digest { .. } => None,
        });
        let mut named = allowed.by_ref().chain(self.cosign.keys());
        match named.find(|publisher| !self.publishers.contains_key(*publisher)) {
            Some(publisher) => Err(BadRules::NoKeys(publisher.clone())),
            None => Ok(()),
        }
    }

    /// As [`AppRules::allows`], in the mode that the rules are in: what is only to be told is returned.
    pub fn judge(
        &self,
        manifest: &Manifest,
        digest: Digest,
    ) -> Result<Option<NotAdmitted>, NotAdmitted> {
        match (self.allows(manifest, digest), self.mode) {
            (Ok(()), _) => Ok(None),
            (Err(refused), Mode::Enforce) => Err(refused),
            (Err(refused), Mode::Observe) => Ok(Some(refused)),
        }
    }

    /// Deny wins, else any allow, else deny.
    pub fn allows(&self, manifest: &Manifest, digest: Digest) -> Result<(), NotAdmitted> {
        if self.allow.len() > MAX_RULES || self.deny.len() > MAX_RULES {
            return Err(NotAdmitted::TooManyRules);
        }
        let (app, version) = (&manifest.app, &manifest.version);
        for rule in &self.deny {
            if rule.concerns(manifest, digest) {
                return Err(NotAdmitted::Denied(format!("{app} {version}, by a rule")));
            }
        }
        self.lets(app, version, digest)
    }

    /// What is told from the name, the version and the manifest's digest alone: who chooses among releases asks this
    /// before the manifest is at hand. A digest that is denied may still be that of a file in it.
    pub fn may_allow(
        &self,
        app: &AppName,
        version: &Version,
        digest: Digest,
    ) -> Result<(), NotAdmitted> {
        let denied = |rule: &Deny| match rule {
            Deny::Digest { digest: denied } => *denied == digest,
            Deny::Publisher { publisher, name } => is_of(app, publisher, name.as_deref()),
        };
        match self.deny.iter().any(denied) {
            true => Err(NotAdmitted::Denied(format!("{app} {version}, by a rule"))),
            false => self.lets(app, version, digest),
        }
    }

    /// Whether any allow lets it.
    fn lets(&self, app: &AppName, version: &Version, digest: Digest) -> Result<(), NotAdmitted> {
        if !self.publishers.contains_key(app.publisher()) {
            return Err(NotAdmitted::NotAllowed(app.clone(), version.clone()));
        }
        let mut least: Option<&Version> = None;
        for rule in &self.allow {
            match rule {
                Allow::Digest { digest: only } if *only == digest => return Ok(()),
                Allow::Publisher {
                    publisher,
                    name,
                    min_version,
                } if is_of(app, publisher, name.as_deref()) => match min_version {
                    Some(wanted) if version < wanted => {
                        least = Some(least.map_or(wanted, |other| other.min(wanted)))
                    }
                    _ => return Ok(()),
                },
                _ => {}
            }
        }
        let (app, version) = (app.clone(), version.clone());
        Err(match least {
            Some(least) => NotAdmitted::TooOld {
                app,
                version,
                least: least.clone(),
            },
            None => NotAdmitted::NotAllowed(app, version),
        })
    }
}

impl Deny {
    fn concerns(&self, manifest: &Manifest, digest: Digest) -> bool {
        match self {
            Self::Digest { digest: denied } => names(manifest, digest, denied),
            Self::Publisher { publisher, name } => is_of(&manifest.app, publisher, name.as_deref()),
        }
    }
}

/// Whether a digest is that of the app, or of a file in it.
fn names(manifest: &Manifest, own: Digest, digest: &Digest) -> bool {
    own == *digest
        || manifest
            .entries()
            .values()
            .any(|entry| matches!(entry, Entry::File(file) if file.digest == *digest))
}

fn is_of(app: &AppName, publisher: &PublisherName, name: Option<&str>) -> bool {
    app.publisher() == publisher && name.is_none_or(|name| name == app.name())
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), BadRules> {
    match count > limit {
        true => Err(BadRules::TooMany { what, limit }),
        false => Ok(()),
    }
}
