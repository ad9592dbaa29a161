//! What one node should have: the policy's wishes held against what is published, what was revoked, and what the node
//! was given before. Decides only; nothing is signed or stored here.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_apps::director::{Assigned, MAX_ASSIGNED};
use edgeward_apps::{AppName, AppRules, Digest, Orders, Version};
use edgeward_policy::apps::Install;

use super::{PublishedRelease, Releases};

mod inside;

/// What a node was given of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) highest: Version,
    /// The one before it: the only way back.
    pub(crate) previous: Option<Version>,
}

/// Everything that decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'q> {
    pub(crate) installs: &'q BTreeMap<&'q AppName, &'q Install>,
    pub(crate) rules: &'q AppRules,
    pub(crate) releases: &'q Releases,
    pub(crate) denied: &'q BTreeSet<Digest>,
    pub(crate) given: &'q BTreeMap<AppName, Given>,
    /// Apps that an operator ordered back, each from the version that it was at.
    pub(crate) back: &'q BTreeMap<AppName, Version>,
}

/// What comes of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Directed {
    pub(crate) orders: Orders,
    /// What the node is given for the first time: to be stored before it is told.
    pub(crate) raised: BTreeMap<AppName, Given>,
    pub(crate) unmet: BTreeMap<AppName, Unmet>,
}

/// Why the node gets nothing of an app that the policy wants there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmet {
    /// Nothing that fits is published.
    NotPublished,
    /// What is published is below the least version, denied or revoked.
    NotAllowed,
    /// What is left is lower than what the node had, and nobody ordered the way back.
    Lower,
}

impl Unmet {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotPublished => "not_published",
            Self::NotAllowed => "not_allowed",
            Self::Lower => "lower",
        }
    }
}

/// The highest version of each app that the policy allows there, never one that is lower than what the node had:
/// a node takes that for a rollback. Only an operator's word leads back, and then one step.
pub(crate) fn direct(question: &Question<'_>) -> Directed {
    let mut directed = Directed {
        orders: Orders {
            denied: question.denied.clone(),
            floors: question.releases.floors.clone(),
            ..Orders::default()
        },
        raised: BTreeMap::new(),
        unmet: BTreeMap::new(),
    };
    for (app, install) in question.installs {
        match chosen(question, app, install) {
            Err(why) => {
                directed.unmet.insert((*app).clone(), why);
            }
            Ok((version, release, back)) => {
                let assigned = Assigned {
                    version: version.clone(),
                    digest: release.digest,
                    length: release.length,
                    state: install.wish,
                    back,
                };
                directed.orders.apps.insert((*app).clone(), assigned);
                if let Some(given) = raised(question.given.get(*app), version) {
                    directed.raised.insert((*app).clone(), given);
                }
            }
        }
    }
    directed.orders.highest = highest(question, &directed);
    directed
}

/// As [`direct`], but nothing in it is given for the first time: that would have to be stored before it is told, and what
/// takes away waits for no database.
pub(crate) fn direct_as_given(question: &Question<'_>) -> Orders {
    let Directed {
        mut orders, raised, ..
    } = direct(question);
    for app in raised.keys() {
        match (question.given.get(app), question.held(app)) {
            (Some(given), Some(held)) => {
                orders.highest.insert(app.clone(), given.highest.clone());
                orders.apps.insert(app.clone(), held);
            }
            (given, None) => {
                orders.apps.remove(app);
                match given {
                    Some(given) => orders.highest.insert(app.clone(), given.highest.clone()),
                    None => orders.highest.remove(app),
                };
            }
            (None, Some(_)) => {}
        }
    }
    orders
}

impl Question<'_> {
    fn allows(&self, app: &AppName, version: &Version, release: &PublishedRelease) -> bool {
        let by_rules = self.rules.may_allow(app, version, release.digest);
        by_rules.is_ok() && !self.denied.contains(&release.digest) && !self.denies_in(release)
    }

    /// What the node has of an app until it is given something higher: where it was ordered back, the release before.
    fn held(&self, app: &AppName) -> Option<Assigned> {
        let given = self.given.get(app)?;
        let back = self.back.get(app) == Some(&given.highest);
        let version = match back {
            true => given.previous.as_ref()?,
            false => &given.highest,
        };
        let published = self.releases.apps.get(app)?;
        let (version, release) = published.get_key_value(version)?;
        let install = self.installs.get(app)?;
        self.allows(app, version, release).then(|| Assigned {
            version: version.clone(),
            digest: release.digest,
            length: release.length,
            state: install.wish,
            back,
        })
    }
}

fn chosen<'q>(
    question: &Question<'q>,
    app: &AppName,
    install: &Install,
) -> Result<(&'q Version, &'q PublishedRelease, bool), Unmet> {
    let published = question.releases.apps.get(app).ok_or(Unmet::NotPublished)?;
    let wanted = |version: &Version| install.version.as_ref().is_none_or(|only| only == version);
    let allowed =
        |version: &Version, release: &PublishedRelease| question.allows(app, version, release);
    let mut fitting = published.iter().rev().filter(|(one, _)| wanted(one));
    let best = match fitting.clone().next() {
        None => Err(Unmet::NotPublished),
        Some(_) => fitting
            .find(|(version, release)| allowed(version, release))
            .ok_or(Unmet::NotAllowed),
    };
    let Some(given) = question.given.get(app) else {
        return best.map(|(version, release)| (version, release, false));
    };
    // An order to go back holds until there is something higher than what it leads back from.
    let newer = best.is_ok_and(|(version, _)| *version > given.highest);
    let ordered = question.back.get(app) == Some(&given.highest);
    if ordered && !newer {
        let previous = given.previous.as_ref().ok_or(Unmet::Lower)?;
        let found = published
            .get_key_value(previous)
            .ok_or(Unmet::NotPublished)?;
        return match allowed(found.0, found.1) {
            true => Ok((found.0, found.1, true)),
            false => Err(Unmet::NotAllowed),
        };
    }
    let (version, release) = best?;
    if *version >= given.highest {
        return Ok((version, release, false));
    }
    // It keeps what it has, as long as that may be: to be without it is nobody's wish.
    match published.get_key_value(&given.highest) {
        Some((highest, release)) if allowed(highest, release) => Ok((highest, release, false)),
        _ => Err(Unmet::Lower),
    }
}

/// As the node reckons it when it accepts the version.
fn raised(given: Option<&Given>, version: &Version) -> Option<Given> {
    match given {
        None => Some(Given {
            highest: version.clone(),
            previous: None,
        }),
        Some(given) if *version > given.highest => Some(Given {
            highest: version.clone(),
            previous: Some(given.highest.clone()),
        }),
        Some(_) => None,
    }
}

/// What a node that lost its state starts from. What it has now counts first where there is more than fits.
fn highest(question: &Question<'_>, directed: &Directed) -> BTreeMap<AppName, Version> {
    let now = |app: &AppName| {
        let given = directed.raised.get(app).or_else(|| question.given.get(app));
        given.map(|given| (app.clone(), given.highest.clone()))
    };
    let mut highest: BTreeMap<AppName, Version> =
        directed.orders.apps.keys().filter_map(now).collect();
    for app in question.given.keys() {
        if highest.len() < MAX_ASSIGNED {
            highest.extend(now(app));
        }
    }
    highest
}

#[cfg(test)]
mod tests;
