//! What a rule wants its subject to run, and which of it evidence says.
//!
//! A decision carries only which of one slice's wants are met: small, without memory of its own, and told apart from
//! that of any other slice.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use edgeward_apps::{AppName, Version};
use ring::digest::{SHA256, digest};

use crate::slice::Slice;

/// Most different wants in one policy.
pub const MAX_RUNS: usize = 64;

/// `publisher/name`, or `publisher/name>=2.3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wants {
    pub app: AppName,
    /// `None`: any version will do.
    pub least: Option<Version>,
}

/// Not written as a want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a program of a publisher")]
pub struct NotAWant;

/// Everything that the rows of one slice want, each once and in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllWants {
    wants: Vec<(String, Wants)>,
    /// The beginning of a hash over them.
    id: u64,
}

/// Which of a slice's wants a subject meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MetWants {
    /// Of [`AllWants`]; `None`: whatever is wanted.
    of: Option<u64>,
    /// One bit for each.
    met: u64,
}

impl MetWants {
    /// Of what is known to run nothing.
    pub const NONE: Self = Self { of: None, met: 0 };
    /// For asking what could be at best. No evidence ever says so.
    pub const AT_BEST: Self = Self {
        of: None,
        met: u64::MAX,
    };
}

impl Slice {
    pub fn wants(&self) -> AllWants {
        let rows = self.interfaces.iter().flat_map(|interface| &interface.rows);
        AllWants::new(rows.flat_map(|row| &row.runs).map(String::as_str))
    }
}

impl AllWants {
    /// What is not written as a want is left out, and so never met.
    pub(crate) fn new<'t>(texts: impl Iterator<Item = &'t str>) -> Self {
        let wants: BTreeMap<&str, Wants> = texts
            .filter_map(|text| Some((text, text.parse().ok()?)))
            .collect();
        let mut all = Vec::new();
        for text in wants.keys() {
            all.extend_from_slice(text.as_bytes());
            all.push(0);
        }
        let hash = digest(&SHA256, &all);
        let first = hash.as_ref().first_chunk().copied();
        Self {
            id: u64::from_be_bytes(first.unwrap_or_default()),
            wants: wants
                .into_iter()
                .take(MAX_RUNS)
                .map(|(text, wants)| (text.to_owned(), wants))
                .collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// What evidence says by `publisher/name` and version. A version that cannot be read meets no least one.
    pub fn met_by(&self, runs: &BTreeMap<String, String>) -> MetWants {
        let met = |wants: &Wants| match (runs.get(&wants.app.to_string()), &wants.least) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(version), Some(least)) => version.parse().is_ok_and(|v: Version| v >= *least),
        };
        let bits = self.wants.iter().enumerate();
        let bits = bits.filter(|(_, (_, wants))| met(wants));
        MetWants {
            of: Some(self.id),
            met: bits.fold(0, |all, (index, _)| all | bit(index)),
        }
    }

    /// Whether all of a row's wants are met. `None`: cannot be told.
    pub(crate) fn answer(&self, wanted: &[String], met: Option<MetWants>) -> Option<bool> {
        if wanted.is_empty() {
            return Some(true);
        }
        let met = met?;
        if met.of.is_some_and(|of| of != self.id) {
            return None;
        }
        let is_met = |text: &String| {
            let place = self.wants.binary_search_by(|(known, _)| known.cmp(text));
            place.is_ok_and(|index| met.met & bit(index) != 0)
        };
        Some(wanted.iter().all(is_met))
    }
}

fn bit(index: usize) -> u64 {
    u32::try_from(index)
        .ok()
        .and_then(|index| 1_u64.checked_shl(index))
        .unwrap_or_default()
}

impl FromStr for Wants {
    type Err = NotAWant;

    fn from_str(text: &str) -> Result<Self, NotAWant> {
        let (app, least) = match text.split_once(">=") {
            None => (text, None),
            Some((app, version)) => (app, Some(version.parse().map_err(|_| NotAWant)?)),
        };
        Ok(Self {
            app: app.parse().map_err(|_| NotAWant)?,
            least,
        })
    }
}

impl fmt::Display for Wants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.least {
            None => write!(f, "{}", self.app),
            Some(least) => write!(f, "{}>={least}", self.app),
        }
    }
}

/// What a test or a question says that its subject runs: `publisher/name@2.3.1`.
pub(crate) fn read_running(text: &str) -> Option<(String, String)> {
    let (app, version) = text.split_once('@')?;
    let app: AppName = app.parse().ok()?;
    let version: Version = version.parse().ok()?;
    Some((app.to_string(), version.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(app, version)| ((*app).to_owned(), (*version).to_owned()))
            .collect()
    }

    fn wanted(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_was_met_of_other_wants_says_nothing() {
        let one = AllWants::new(["a/x>=2", "a/y"].into_iter());
        let other = AllWants::new(["a/x>=1", "a/y"].into_iter());
        let met = one.met_by(&runs(&[("a/x", "3"), ("a/y", "1")]));
        assert_eq!(
            one.answer(&wanted(&["a/x>=2", "a/y"]), Some(met)),
            Some(true)
        );
        assert_eq!(other.answer(&wanted(&["a/y"]), Some(met)), None);
        assert_eq!(one.answer(&wanted(&["a/y"]), None), None);
        assert_eq!(one.answer(&[], None), Some(true), "nothing is wanted");
    }

    #[test]
    fn a_want_is_met_by_its_app_in_a_version_that_is_no_lower() {
        let texts = ["a/x>=2.3", "a/x", "a/z"];
        let all = AllWants::new(texts.into_iter());
        let met = |pairs: &[(&str, &str)]| {
            let met = all.met_by(&runs(pairs));
            texts.map(|text| all.answer(&wanted(&[text]), Some(met)).unwrap())
        };
        assert_eq!(met(&[]), [false; 3]);
        assert_eq!(met(&[("a/x", "2.2.9")]), [false, true, false]);
        assert_eq!(met(&[("a/x", "2.3.0")]), [true, true, false]);
        assert_eq!(met(&[("a/x", "2.10"), ("a/z", "0")]), [true; 3]);
        assert_eq!(met(&[("a/x", "new")]), [false, true, false]);
        assert_eq!(met(&[("a/X", "3"), ("b/x", "3")]), [false; 3]);
        assert_eq!(
            all.answer(&wanted(&["a/x"]), Some(MetWants::NONE)),
            Some(false)
        );
        assert_eq!(
            all.answer(&wanted(&["a/x"]), Some(MetWants::AT_BEST)),
            Some(true)
        );
        // What no row of the slice wants is met by nobody, whatever runs.
        let met = all.met_by(&runs(&[("a/w", "1")]));
        assert_eq!(all.answer(&wanted(&["a/w"]), Some(met)), Some(false));
    }

    #[test]
    fn more_wants_than_fit_are_never_met() {
        let texts: Vec<String> = (0..=MAX_RUNS).map(|n| format!("a/x{n:03}")).collect();
        let all = AllWants::new(texts.iter().map(String::as_str));
        let running: BTreeMap<String, String> = texts
            .iter()
            .map(|app| (app.clone(), "1".to_owned()))
            .collect();
        let met = all.met_by(&running);
        let answers: Vec<_> = texts
            .iter()
            .map(|text| all.answer(std::slice::from_ref(text), Some(met)))
            .collect();
        assert_eq!(answers[..MAX_RUNS], [Some(true); MAX_RUNS]);
        assert_eq!(answers[MAX_RUNS], Some(false));
    }
}
