//! `fresh`, `offline`, `tier` and `max_offline` by directory: the nearest `[defaults]` above a file speaks.

use std::collections::BTreeMap;

use edgeward_identity::Tier;

use crate::ast::PolicyFile;
use crate::diagnostic::{Code, Diagnostics};
use crate::seconds::Seconds;
use crate::source::{Place, Placed};

/// `fresh` where nobody says otherwise.
pub const DEFAULT_FRESH: Seconds = Seconds::new(10 * 60);
/// `offline` where nobody says otherwise.
pub const DEFAULT_OFFLINE: Seconds = Seconds::from_hours(12);
/// `max_offline` where nobody says otherwise.
pub const DEFAULT_MAX_OFFLINE: Seconds = Seconds::from_hours(7 * 24);

/// What holds in one directory.
#[derive(Clone)]
pub(super) struct DirectoryTerms {
    pub(super) fresh: Seconds,
    pub(super) offline: Seconds,
    pub(super) tier: Option<Vec<Tier>>,
    pub(super) max_offline: Seconds,
}

/// The defaults stated in one directory, each with its place.
#[derive(Default)]
struct Stated {
    fresh: Option<Placed<Seconds>>,
    offline: Option<Placed<Seconds>>,
    tier: Option<Placed<Vec<Tier>>>,
    max_offline: Option<Placed<Seconds>>,
}

pub(super) struct Directories {
    stated: BTreeMap<String, Stated>,
}

impl Directories {
    /// Gathers the defaults; two of one kind in one directory are an error, since file order means nothing.
    pub(super) fn gather(files: &[PolicyFile], found: &mut Diagnostics<'_>) -> Self {
        let mut stated: BTreeMap<String, Stated> = BTreeMap::new();
        for file in files {
            let Some(defaults) = &file.defaults else {
                continue;
            };
            let here = stated.entry(file.directory.clone()).or_default();
            set(&mut here.fresh, defaults.fresh.as_ref(), "fresh", found);
            set(
                &mut here.offline,
                defaults.offline.as_ref(),
                "offline",
                found,
            );
            set(&mut here.tier, defaults.tier.as_ref(), "tier", found);
            set(
                &mut here.max_offline,
                defaults.max_offline.as_ref(),
                "max_offline",
                found,
            );
        }
        let directories = Self { stated };
        directories.check(found);
        directories
    }

    pub(super) fn terms(&self, directory: &str) -> DirectoryTerms {
        let mut terms = DirectoryTerms {
            fresh: DEFAULT_FRESH,
            offline: DEFAULT_OFFLINE,
            tier: None,
            max_offline: DEFAULT_MAX_OFFLINE,
        };
        for stated in self.chain(directory) {
            terms.fresh = stated
                .fresh
                .as_ref()
                .map_or(terms.fresh, |fresh| fresh.value);
            terms.offline = stated
                .offline
                .as_ref()
                .map_or(terms.offline, |offline| offline.value);
            terms.max_offline = stated
                .max_offline
                .as_ref()
                .map_or(terms.max_offline, |max| max.value);
            if let Some(tier) = &stated.tier {
                terms.tier = Some(tier.value.clone());
            }
        }
        terms.offline = terms.offline.min(terms.max_offline);
        terms
    }

    /// From the top down to the directory itself.
    fn chain(&self, directory: &str) -> impl Iterator<Item = &Stated> {
        self.stated
            .iter()
            .filter(move |(above, _)| is_at_or_above(above, directory))
            .map(|(_, stated)| stated)
    }

    fn check(&self, found: &mut Diagnostics<'_>) {
        for (directory, stated) in &self.stated {
            let terms = self.terms(directory);
            if let Some(offline) = &stated.offline {
                offline_within(offline.value, terms.max_offline, offline.at, found);
            }
            let Some(max) = &stated.max_offline else {
                continue;
            };
            let above = self
                .stated
                .iter()
                .filter(|(above, _)| *above != directory && is_at_or_above(above, directory))
                .filter_map(|(_, stated)| stated.max_offline.as_ref())
                .find(|above| above.value < max.value);
            if let Some(above) = above {
                found.error_with_help(
                    max.at,
                    Code::OfflineAboveMax,
                    format!(
                        "max_offline {} is above the one of the directory above",
                        max.value
                    ),
                    format!("at most {}, as {} says", above.value, found.show(above.at)),
                );
            }
        }
    }
}

pub(super) fn offline_within(
    offline: Seconds,
    max: Seconds,
    at: Place,
    found: &mut Diagnostics<'_>,
) {
    if offline > max {
        found.error_with_help(
            at,
            Code::OfflineAboveMax,
            format!("offline {offline} is above max_offline"),
            format!("at most {max}; `[defaults]` max_offline of the directory sets it"),
        );
    }
}

fn is_at_or_above(above: &str, directory: &str) -> bool {
    above.is_empty()
        || directory == above
        || directory
            .strip_prefix(above)
            .is_some_and(|rest| rest.starts_with('/'))
}

fn set<T: Clone>(
    slot: &mut Option<Placed<T>>,
    stated: Option<&Placed<T>>,
    what: &str,
    found: &mut Diagnostics<'_>,
) {
    let Some(stated) = stated else { return };
    match slot {
        Some(first) => {
            let message = format!(
                "default `{what}` of this directory is also set at {}",
                found.show(first.at)
            );
            found.error(stated.at, Code::DuplicateName, message);
        }
        None => *slot = Some(stated.clone()),
    }
}
