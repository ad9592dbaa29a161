//! What rules would have found in an export: no cloud, nothing said, nobody cut off.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use edgeward_audit::proven::{Line, MAX_LINE_BYTES, Verifier};
use edgeward_audit::record::SealedRecord;
use edgeward_identity::Timestamp;
use edgeward_runtime::screen::Table;
use serde::Serialize;

use crate::alerts::engine::{Engine, Hit, Seen};
use crate::alerts::{Rules, load_file};
use crate::cli::screen::or_dash;
use crate::cli::{Failure, Session};
use crate::when::When;

/// Most alerts that are kept apart: more of them are one line.
const MAX_FOUND: usize = 1000;
/// What stands for those.
const OTHERS: &str = "(others)";

/// What a rule would have found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Found {
    rule: String,
    about: String,
    severity: String,
    first: When,
    last: When,
    /// How often it held.
    hits: u64,
    /// Index in the log of the event at which it held first; none: one that did not come.
    first_event: Option<u64>,
    what: String,
    /// Whom it would have cut off, had this been the cloud.
    quarantines: bool,
}

pub(super) fn run(session: &Session, rules: &Path, export: &Path) -> Result<(), Failure> {
    let mut read = Rules::default();
    load_file(&mut read, rules).map_err(|error| Failure::Usage(error.to_string()))?;
    let (found, events) = match export.as_os_str() == "-" {
        true => try_over(&read, BufReader::new(std::io::stdin()), export)?,
        false => {
            let file = File::open(export).map_err(Failure::file(export))?;
            try_over(&read, BufReader::new(file), export)?
        }
    };
    session.screen.tabulate(&found, |found| table(found));
    session.screen.note(&format!(
        "{} rules over {events} events: {} would have been raised",
        read.len(),
        found.len()
    ));
    Ok(())
}

/// Checks the export while it reads, line by line: rules are not judged by events that nobody recorded.
fn try_over(
    rules: &Rules,
    mut input: impl BufRead,
    path: &Path,
) -> Result<(Vec<Found>, u64), Failure> {
    let mut verifier: Option<Verifier> = None;
    let mut trial = Trial::new(rules);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let most = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX) + 2;
        let read = std::io::Read::take(&mut input, most)
            .read_until(b'\n', &mut line)
            .map_err(Failure::file(path))?;
        if read == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::Unsound(format!("{}, line {number}: {error}", path.display()))
        };
        match &mut verifier {
            None => verifier = Some(Verifier::begin(text, None).map_err(|error| wrong(&error))?),
            Some(verifier) => {
                verifier.line(text).map_err(|error| wrong(&error))?;
                if let Line::Event(event) = Line::parse(text).map_err(|error| wrong(&error))? {
                    let record = SealedRecord::parse(event.record.as_bytes())
                        .map_err(|error| wrong(&error))?;
                    trial.observe(event.index, &record);
                }
            }
        }
    }
    let unsound =
        |error: &dyn std::fmt::Display| Failure::Unsound(format!("{}: {error}", path.display()));
    let verified = verifier
        .ok_or_else(|| unsound(&"is empty"))?
        .finish()
        .map_err(|error| unsound(&error))?;
    Ok((trial.finish(), verified.events))
}

/// The rules, and what they found.
struct Trial<'a> {
    rules: &'a Rules,
    engine: Option<Engine>,
    /// The latest time that any event had: the cloud's time never goes back.
    now: Timestamp,
    found: BTreeMap<(String, String), Found>,
}

impl<'a> Trial<'a> {
    fn new(rules: &'a Rules) -> Self {
        Self {
            rules,
            engine: None,
            now: Timestamp::default(),
            found: BTreeMap::new(),
        }
    }

    fn observe(&mut self, index: u64, record: &SealedRecord) {
        let event = record.event();
        self.now = self.now.max(event.time);
        let now = self.now;
        let engine = self
            .engine
            .get_or_insert_with(|| Engine::new(self.rules, now));
        let mut hits = engine.turn(now);
        hits.extend(engine.observe(Seen {
            leaf: index,
            at: now,
            keeper: &record.record().node,
            event,
        }));
        self.keep(hits);
    }

    fn keep(&mut self, hits: Vec<Hit>) {
        for hit in hits.into_iter().filter(|hit| !hit.over) {
            let Some(rule) = self.rules.get(&hit.rule) else {
                continue;
            };
            let mut key = (hit.rule.clone(), hit.key.clone());
            if self.found.len() >= MAX_FOUND && !self.found.contains_key(&key) {
                OTHERS.clone_into(&mut key.1);
            }
            let about = key.1.clone();
            let found = self.found.entry(key).or_insert_with(|| Found {
                rule: hit.rule.clone(),
                about,
                severity: rule.severity.to_string(),
                first: hit.at.into(),
                last: hit.at.into(),
                hits: 0,
                first_event: hit.leaf,
                what: hit.what.clone(),
                quarantines: false,
            });
            found.hits = found.hits.saturating_add(hit.times);
            found.last = hit.at.into();
            found.quarantines |= rule.quarantine && hit.fact.is_some();
        }
    }

    /// What did not come by the time of the last event is missing.
    fn finish(mut self) -> Vec<Found> {
        let hits = self
            .engine
            .as_mut()
            .map(|engine| engine.turn(self.now))
            .unwrap_or_default();
        self.keep(hits);
        let mut found: Vec<Found> = self.found.into_values().collect();
        found.sort_by_key(|found| found.first.0);
        found
    }
}

fn table(found: &[Found]) -> Table {
    let mut table = Table::new(&[
        "FIRST",
        "SEVERITY",
        "RULE",
        "ABOUT",
        "HITS",
        "LAST",
        "EVENT",
        "WHAT",
        "QUARANTINE",
    ]);
    for alert in found {
        table.row([
            alert.first.to_string(),
            alert.severity.clone(),
            alert.rule.clone(),
            or_dash(Some(alert.about.clone()).filter(|about| !about.is_empty())),
            alert.hits.to_string(),
            alert.last.to_string(),
            or_dash(alert.first_event.map(|index| index.to_string())),
            alert.what.clone(),
            if alert.quarantines { "would" } else { "-" }.to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use edgeward_audit::event::{Actor, Event, EventKind};
    use edgeward_audit::record::{BootId, BootOpened, Chain, Salt};
    use edgeward_identity::{Kind, SpiffeId, TrustDomain};

    use super::*;

    fn record(kind: EventKind, secs: u64) -> SealedRecord {
        let domain = TrustDomain::new("plant.example").unwrap();
        let cloud = SpiffeId::new(&domain, Kind::Cloud, "c").unwrap();
        let mut chain = Chain::new(cloud, BootId::from_bytes([1; 16]));
        let salt = Salt::from_bytes([7; 16]);
        let time = Timestamp::from_secs(secs);
        let opened = BootOpened {
            previous: None,
            reset_count: None,
            restart_count: None,
        };
        let opening = Event::new(time, Actor::Cloud, EventKind::JournalOpened);
        let opening = chain.seal_opening(opened, opening, salt).unwrap();
        chain.advance(&opening).unwrap();
        chain
            .seal(Event::new(time, Actor::Cloud, kind), salt)
            .unwrap()
    }

    #[test]
    fn rules_are_tried_by_the_clocks_of_those_who_recorded_and_never_backwards() {
        let mut rules = Rules::default();
        rules
            .read(
                "[alert.many]\nseverity = 'minor'\nsummary = 's'\nwithin = '10s'\n\
                 threshold = { type = ['token.refused'], count = 3 }\n",
            )
            .unwrap();
        let tried = |times: &[u64]| {
            let mut trial = Trial::new(&rules);
            for (index, secs) in (0..).zip(times) {
                trial.observe(index, &record(EventKind::TokenRefused, *secs));
            }
            trial.finish()
        };
        assert!(tried(&[]).is_empty());
        assert!(tried(&[100, 200, 300]).is_empty());
        let found = tried(&[100, 101, 102, 500]);
        assert_eq!((found.len(), found[0].first_event), (1, Some(2)));
        assert_eq!(found[0].first.0, Timestamp::from_secs(102));
        // A clock that went back spreads nothing out.
        assert_eq!(tried(&[100, 1, 2]).len(), 1);
    }

    #[test]
    fn what_is_no_export_is_refused_with_its_line() {
        let rules = Rules::default();
        let refused = try_over(&rules, &b""[..], Path::new("x")).unwrap_err();
        assert!(matches!(refused, Failure::Unsound(why) if why.contains("empty")));
        let refused = try_over(&rules, &b"{}\n"[..], Path::new("x")).unwrap_err();
        assert!(matches!(refused, Failure::Unsound(why) if why.contains("line 1")));
    }
}
