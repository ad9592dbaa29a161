//! The log and how it stands to its PCR: pure but for the three functions at the end, which keep its file.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use edgeward_evidence::app_log::{
    App, AppLog, AppState, Event, Happened, MAX_LOG_BYTES, MAX_RECORDS, PcrValue, Standing,
};

use super::{NotMeasured, Proof};

/// Most denials of one boot that are measured: files are made faster than a TPM is extended, and what runs must have
/// room, too.
pub(super) const MAX_DENIALS: usize = 256;
const FILE_MODE: u32 = 0o600;

/// One log.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pcr: Option<u8>,
    log: AppLog,
    state: Option<AppState>,
    stands: Stands,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stands {
    /// A record may be in the file and not in the TPM.
    #[default]
    Open,
    Whole,
    /// Nothing is provable in this boot.
    Lost,
}

/// A record on its way: into the file, then into the TPM.
pub(super) struct Step {
    pub(super) pcr: u8,
    pub(super) bytes: Vec<u8>,
    pub(super) value: PcrValue,
}

impl Ledger {
    pub(super) fn new(pcr: Option<u8>) -> Self {
        Self {
            pcr,
            ..Self::default()
        }
    }

    pub(super) fn pcr(&self) -> Option<u8> {
        self.pcr
    }

    pub(super) fn is_settled(&self) -> bool {
        self.stands != Stands::Open
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &App> {
        self.state.iter().flat_map(AppState::running)
    }

    pub(super) fn level(&self) -> Option<&str> {
        self.state.as_ref()?.level()
    }

    /// There is no TPM.
    pub(super) fn give_up(&mut self) {
        self.stands = Stands::Lost;
    }

    pub(super) fn proof(&self) -> Proof {
        match (self.pcr, self.stands, self.is_silent()) {
            (Some(_), Stands::Whole, false) => Proof::Known,
            _ => Proof::None,
        }
    }

    /// Of a record that was just made: it may be the one that says that there are no more.
    pub(super) fn proof_of(&self, happened: &Happened) -> Proof {
        match self.log.events().last() {
            Some(last) if last.happened == *happened => Proof::Measured,
            _ => Proof::None,
        }
    }

    /// Holds what is in the file against the PCR, which the boot left as `left`. `Some`: the last record is to be
    /// extended by this, and then concluded.
    pub(super) fn settle(
        &mut self,
        file: &[u8],
        left: Option<PcrValue>,
        now: &PcrValue,
    ) -> Option<PcrValue> {
        let pcr = u32::from(self.pcr?);
        let log = AppLog::salvage(file, pcr);
        let start = left.unwrap_or_default();
        // A boot log that nobody believes says nothing.
        for start in [start, PcrValue::default()] {
            // Nothing was measured since the boot: whatever is in the file is of another one.
            if start == *now {
                self.go_on(AppLog::default(), AppState::new(pcr, start), Stands::Whole);
                return None;
            }
            let (missing, stands) = match log.standing(start, now) {
                Standing::Broken => continue,
                Standing::Whole => (None, Stands::Whole),
                Standing::LastMissing(value) => (Some(value), Stands::Open),
            };
            let mut state = AppState::new(pcr, start);
            let measured = log.events().len() - usize::from(missing.is_some());
            for event in log.events().iter().take(measured) {
                state.step(event);
            }
            self.go_on(log, state, stands);
            return missing;
        }
        let records = log.events().len();
        tracing::error!(
            pcr,
            records,
            "somebody else extended the pcr of applications: nothing proves what runs before the next boot"
        );
        self.go_on(log, AppState::new(pcr, start), Stands::Lost);
        None
    }

    fn go_on(&mut self, log: AppLog, state: AppState, stands: Stands) {
        self.log = log;
        self.state = Some(state);
        self.stands = stands;
    }

    /// What the file should hold, if it does not.
    pub(super) fn kept(&self, file: &[u8]) -> Option<Vec<u8>> {
        (self.log.bytes() != file).then(|| self.log.bytes().to_vec())
    }

    /// The record for what happens, if it takes one. Until [`Ledger::conclude`] it is open whether the TPM has it.
    pub(super) fn begin(
        &mut self,
        happened: &Happened,
        level: &str,
    ) -> Result<Option<Step>, NotMeasured> {
        let (Some(pcr), Stands::Whole, false) = (self.pcr, self.stands, self.is_silent()) else {
            return Ok(None);
        };
        let Some(happened) = self.worth_telling(happened) else {
            return Ok(None);
        };
        let event = Event {
            happened,
            level: level.to_owned(),
        };
        let appended = self.log.append(u32::from(pcr), &event);
        let (bytes, value) = appended.map_err(|_| NotMeasured::Record)?;
        self.stands = Stands::Open;
        Ok(Some(Step { pcr, bytes, value }))
    }

    /// The TPM has taken the last record.
    pub(super) fn conclude(&mut self) {
        if let (Some(state), Some(last)) = (&mut self.state, self.log.events().last()) {
            state.step(last);
        }
        self.stands = Stands::Whole;
    }

    /// Number of the newest record that changed what runs, from 1 on; 0: there is none.
    pub(super) fn newest_change(&self) -> u64 {
        let changes = |event: &Event| match event.happened {
            Happened::Started(_)
            | Happened::Stopped(_)
            | Happened::Revoked(_)
            // From here on nobody knows.
            | Happened::Overflow => true,
            Happened::Installed(_)
            | Happened::Denied { .. }
            | Happened::DenialsFull
            | Happened::LevelChanged { .. } => false,
        };
        let newest = self.log.events().iter().rposition(changes);
        newest.map_or(0, |place| u64::try_from(place + 1).unwrap_or(u64::MAX))
    }

    /// Records from number `known` on, up to where the PCR was quoted.
    pub(super) fn part(&self, known: usize, quoted: &[u8]) -> (u64, Vec<u8>) {
        let (Some(state), Ok(quoted)) = (&self.state, quoted.try_into()) else {
            return (0, Vec::new());
        };
        // A cloud that knows more than there is speaks of another log.
        let first = match known <= self.log.events().len() {
            true => known,
            false => 0,
        };
        let part = self.log.part(first, *state.start(), &quoted);
        (u64::try_from(first).unwrap_or(0), part.to_vec())
    }

    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("apps-pcr{}.log", self.pcr.unwrap_or_default()))
    }

    fn is_silent(&self) -> bool {
        let last = self.log.events().last();
        last.is_some_and(|event| event.happened == Happened::Overflow)
    }

    fn worth_telling(&self, happened: &Happened) -> Option<Happened> {
        let told = |wanted: &Happened| {
            let mut events = self.log.events().iter();
            events.any(|event| event.happened == *wanted)
        };
        let state = self.state.as_ref()?;
        let new = match happened {
            Happened::Started(app) => !state.is_running(app),
            Happened::Stopped(app) => state.is_running(app),
            Happened::Installed(_) | Happened::Denied { .. } | Happened::DenialsFull => {
                !told(happened)
            }
            // It may have been allowed again in between.
            Happened::Revoked(app) => state.is_running(app) || !told(happened),
            Happened::LevelChanged { .. } | Happened::Overflow => true,
        };
        let full = self.log.events().len() + 1 >= MAX_RECORDS;
        match happened {
            _ if !new => None,
            _ if full => Some(Happened::Overflow),
            Happened::Denied { .. } if state.denied() >= MAX_DENIALS => {
                (!told(&Happened::DenialsFull)).then_some(Happened::DenialsFull)
            }
            _ => Some(happened.clone()),
        }
    }
}

/// Appends to the file and flushes it: a power cut takes the PCR with it, a crash does not.
pub(super) fn append(path: &Path, bytes: &[u8]) -> Result<(), NotMeasured> {
    let open = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(FILE_MODE)
        .open(path);
    let written = open.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_data()
    });
    written.map_err(|source| failed(path, source))
}

/// All of the file; nothing where there is none.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, NotMeasured> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(|source| failed(path, source))?,
    };
    let limit = u64::try_from(MAX_LOG_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| failed(path, source))?;
    Ok(bytes)
}

/// Puts another content in the place of the file's.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), NotMeasured> {
    let staged = path.with_extension("new");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&staged)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()
        });
    written
        .and_then(|()| std::fs::rename(&staged, path))
        .map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> NotMeasured {
    NotMeasured::File {
        path: path.to_owned(),
        source,
    }
}
