//! What this node runs, measured into its TPM: a log in RAM and the PCR that the node's profiles name, which the cloud
//! replays beside every quote.
//!
//! A record is on disk before the TPM is extended by it, and the TPM was extended before whatever the record allows
//! happens. Who else extends that PCR breaks the proof until the next boot: then nothing is held up here, and the cloud
//! judges.

mod ledger;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use edgeward_evidence::app_log::{App, Happened};
use edgeward_wire::v1;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::logs::LogReader;
use crate::root::{Root, RootError};
use crate::view::{HeldSlice, NodeView};

use ledger::Ledger;

/// Wait before the TPM is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct Measure {
    root: Arc<dyn Root>,
    logs: Arc<LogReader>,
    /// In RAM: it lives as long as the boot does.
    folder: Arc<PathBuf>,
    ledger: Arc<tokio::sync::Mutex<Ledger>>,
    /// None: nobody has looked since the agent began.
    level: Arc<Mutex<Option<String>>>,
    /// [`Ledger::newest_change`] of what the TPM holds.
    newest: watch::Sender<u64>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The TPM holds it.
    Measured,
    /// It says nothing that was not measured before.
    Known,
    /// Nothing proves it: no profile names a PCR, there is no TPM, the log is full, or somebody else extended the PCR.
    None,
}

/// Something was not measured that should have been: it must not happen, and may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum NotMeasured {
    #[error("log of applications cannot be kept in {}: {source}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("tpm did not take a record of the log of applications: {0}")]
    Root(#[from] RootError),
    #[error("record is none that could be read again")]
    Record,
    #[error("keeping the log of applications ended early")]
    Ended,
}

impl NotMeasured {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "apps_log_unwritable",
            Self::Root(_) => "apps_log_tpm",
            Self::Record | Self::Ended => "apps_log_internal",
        }
    }
}

impl Measure {
    /// Nothing is measured before a PCR is named.
    pub fn new(root: Arc<dyn Root>, logs: Arc<LogReader>, folder: PathBuf) -> Self {
        Self {
            root,
            logs,
            folder: Arc::new(folder),
            ledger: Arc::default(),
            level: Arc::default(),
            newest: watch::Sender::default(),
        }
    }

    /// Number of the newest record that changed what runs, once the TPM holds it: from then on evidence proves it.
    pub fn newest_change(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    fn tell_newest(&self, ledger: &Ledger) {
        let newest = match ledger.is_settled() {
            true => ledger.newest_change(),
            false => return,
        };
        self.newest.send_if_modified(|held| {
            let changed = *held != newest;
            *held = newest;
            changed
        });
    }

    /// Follows what the policy says of the PCR.
    pub async fn run(self, view: NodeView, token: CancellationToken) -> anyhow::Result<()> {
        let mut slice = view.slice.clone();
        loop {
            let pcr = pcr_of(&slice.borrow_and_update());
            let wait = match self.set_pcr(pcr).await {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(%error, "applications are not measured yet");
                    Some(RETRY_AFTER)
                }
            };
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                changed = slice.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    /// Where the node's profiles want it. In another PCR than before everything that runs is measured anew.
    pub async fn set_pcr(&self, pcr: Option<u8>) -> Result<(), NotMeasured> {
        let mut ledger = self.ledger.lock().await;
        if ledger.pcr() == pcr {
            return Ok(());
        }
        let running: Vec<App> = ledger.running().cloned().collect();
        *ledger = Ledger::new(pcr);
        drop(ledger);
        self.tell_level().await?;
        for app in running {
            self.record(Happened::Started(app)).await?;
        }
        Ok(())
    }

    /// How applications are controlled from now on. Weaker or stronger, it is measured.
    pub async fn set_level(&self, level: &str) -> Result<(), NotMeasured> {
        *self.level.lock() = Some(level.to_owned());
        self.tell_level().await
    }

    /// As told last: what evidence says of this node.
    pub fn level(&self) -> String {
        self.level.lock().clone().unwrap_or_default()
    }

    /// Measures that something happens. To be awaited before whatever it allows.
    pub async fn record(&self, happened: Happened) -> Result<Proof, NotMeasured> {
        let level = self.level.lock().clone();
        let mut ledger = self.settled().await?;
        let level = level.unwrap_or_else(|| ledger.level().unwrap_or_default().to_owned());
        let Some(step) = ledger.begin(&happened, &level)? else {
            return Ok(ledger.proof());
        };
        let (path, bytes) = (ledger.path(&self.folder), step.bytes);
        let write = tokio::task::spawn_blocking(move || ledger::append(&path, &bytes));
        write.await.map_err(|_| NotMeasured::Ended)??;
        if !self.root.extend(step.pcr, step.value).await? {
            return Ok(Proof::None);
        }
        ledger.conclude();
        self.tell_newest(&ledger);
        metrics::counter!("edgeward_apps_measured_total").increment(1);
        Ok(ledger.proof_of(&happened))
    }

    /// The records that the cloud does not know, up to what was quoted.
    pub async fn part(&self, pcr: u8, known: u64, quoted: &[u8]) -> v1::AppsPart {
        let mut part = v1::AppsPart::default();
        let ledger = match self.settled().await {
            Ok(ledger) => ledger,
            Err(error) => {
                tracing::warn!(%error, "the log of applications cannot be sent to the cloud");
                error.code().clone_into(&mut part.missing);
                return part;
            }
        };
        // The policy that names this PCR is on its way: nothing was measured there yet.
        if ledger.pcr() != Some(pcr) {
            return part;
        }
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        (part.first, part.records) = ledger.part(known, quoted);
        part
    }

    async fn tell_level(&self) -> Result<(), NotMeasured> {
        let ledger = self.settled().await?;
        let from = ledger.level().unwrap_or_default().to_owned();
        drop(ledger);
        let told = self.level.lock().clone();
        if told.is_some_and(|level| level != from) {
            self.record(Happened::LevelChanged { from }).await?;
        }
        Ok(())
    }

    /// The ledger, once it is known how its log and the PCR stand to each other: at the start, and after every record
    /// that was not brought to its end.
    async fn settled(&self) -> Result<tokio::sync::MutexGuard<'_, Ledger>, NotMeasured> {
        let mut ledger = self.ledger.lock().await;
        let Some(pcr) = ledger.pcr().filter(|_| !ledger.is_settled()) else {
            return Ok(ledger);
        };
        let Some(now) = self.root.pcr(pcr).await? else {
            ledger.give_up();
            return Ok(ledger);
        };
        let (path, logs) = (ledger.path(&self.folder), self.logs.clone());
        let read = tokio::task::spawn_blocking(move || {
            let file = ledger::read(&path)?;
            Ok::<_, NotMeasured>((file, logs.left(pcr)))
        });
        let (file, left) = read.await.map_err(|_| NotMeasured::Ended)??;
        if let Some(missing) = ledger.settle(&file, left, &now) {
            self.root.extend(pcr, missing).await?;
            ledger.conclude();
        }
        let (path, kept) = (ledger.path(&self.folder), ledger.kept(&file));
        if let Some(kept) = kept {
            let cut = tokio::task::spawn_blocking(move || ledger::replace(&path, &kept));
            cut.await.map_err(|_| NotMeasured::Ended)??;
        }
        self.tell_newest(&ledger);
        Ok(ledger)
    }
}

/// The PCR that the profiles of this node name. Before there is a policy nothing is said.
pub(crate) fn pcr_of(slice: &Option<Arc<HeldSlice>>) -> Option<u8> {
    slice.as_ref()?.slice.apps_pcr()
}

#[cfg(test)]
mod tests;
