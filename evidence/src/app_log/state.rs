//! How far a node's log was followed, and what runs there by it.

use std::collections::BTreeMap;

use super::record::{App, Event, Happened, is_full_name, is_version};
use super::{BadLog, PcrValue, extended, read_records};

/// What runs, by `publisher/name`: the version of each.
pub type Runs = BTreeMap<String, String>;

/// Whether all of it are names and versions: who reads a result need not trust its maker for that.
pub fn is_runs(runs: &Runs) -> bool {
    runs.iter()
        .all(|(name, version)| is_full_name(name) && is_version(version))
}

/// Most applications that run at once in what is followed.
const MAX_RUNNING: usize = 1_024;

/// A log of one boot as far as it was followed. An honest one only ever grows from here, until the machine reboots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppState {
    pcr: u32,
    start: PcrValue,
    value: PcrValue,
    records: usize,
    running: BTreeMap<String, App>,
    level: Option<String>,
    denied: usize,
    silent: bool,
}

impl AppState {
    /// Before the first record: `start` is what the boot left in the PCR.
    pub fn new(pcr: u32, start: PcrValue) -> Self {
        Self {
            pcr,
            start,
            value: start,
            records: 0,
            running: BTreeMap::new(),
            level: None,
            denied: 0,
            silent: false,
        }
    }

    /// Follows records from number `first` on, as far as the quoted value; what stands behind it is left for the next
    /// time. `first` may lie before what is known: such records are passed over.
    pub fn follow(&self, first: u64, bytes: &[u8], quoted: &[u8]) -> Result<Self, BadLog> {
        let first = usize::try_from(first).map_err(|_| BadLog::TooMany)?;
        if first > self.records {
            return Err(BadLog::Number(first));
        }
        let mut state = self.clone();
        let events = read_records(bytes, first, self.pcr)?;
        for event in events.iter().skip(self.records - first) {
            if state.reached(quoted) {
                break;
            }
            state.step(event);
        }
        Ok(state)
    }

    /// One record further.
    pub fn step(&mut self, event: &Event) {
        self.value = extended(&self.value, event);
        self.records += 1;
        self.level = Some(event.level.clone());
        match &event.happened {
            Happened::Started(app) => {
                let name = app.full_name();
                let room = self.running.len() < MAX_RUNNING || self.running.contains_key(&name);
                if room {
                    self.running.insert(name, app.clone());
                } else {
                    self.silent = true;
                }
            }
            Happened::Stopped(app) | Happened::Revoked(app) => {
                let name = app.full_name();
                if self
                    .running
                    .get(&name)
                    .is_some_and(|known| known.digest == app.digest)
                {
                    self.running.remove(&name);
                }
            }
            Happened::Denied { .. } => self.denied += 1,
            Happened::Overflow => self.silent = true,
            Happened::Installed(_) | Happened::LevelChanged { .. } | Happened::DenialsFull => {}
        }
    }

    pub fn pcr(&self) -> u32 {
        self.pcr
    }

    /// What the boot left in the PCR.
    pub fn start(&self) -> &PcrValue {
        &self.start
    }

    /// What the PCR holds after these records.
    pub fn value(&self) -> &PcrValue {
        &self.value
    }

    /// How many records were followed.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Whether the records lead to what was quoted.
    pub fn reached(&self, quoted: &[u8]) -> bool {
        self.value == quoted
    }

    /// The level under which the last thing happened; `None` while nothing has.
    pub fn level(&self) -> Option<&str> {
        self.level.as_deref()
    }

    /// How many files were denied.
    pub fn denied(&self) -> usize {
        self.denied
    }

    /// Whether this very release of an application runs.
    pub fn is_running(&self, app: &App) -> bool {
        self.running.get(&app.full_name()) == Some(app)
    }

    pub fn running(&self) -> impl Iterator<Item = &App> {
        self.running.values()
    }

    /// What runs; `None` where the log fell silent, so that nobody can say.
    pub fn runs(&self) -> Option<Runs> {
        let runs = self.running.iter();
        (!self.silent).then(|| {
            runs.map(|(name, app)| (name.clone(), app.version.clone()))
                .collect()
        })
    }
}
