//! This machine, taken for one agent: state folder locked, root open, boot known.

use std::path::PathBuf;
use std::sync::Arc;

use edgeward_identity::{Clock, SystemClock};

use crate::boot::{Boot, BootError};
use crate::config::{Config, TpmConfig};
use crate::root::{Root, RootError, SoftwareRoot, TpmRoot};
use crate::state::{FolderLock, LockError};
use crate::tpm::{Tpm, TpmError};

/// The run folder holds the boot key, which has a mode of its own, and the sockets: one of them is for everybody.
const RUN_FOLDER_MODE: u32 = 0o711;

/// What enrolment and the agent both start from. While it lives, nobody else has state folder and TPM.
pub struct Machine {
    pub root: Arc<dyn Root>,
    pub boot: Boot,
    pub clock: Arc<dyn Clock>,
    /// Dropped last.
    pub lock: FolderLock,
}

/// The machine cannot be taken. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error("run folder {}: {source}", path.display())]
    RunFolder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Takes the machine.
pub async fn take(config: &Config) -> Result<Machine, NotTaken> {
    let lock = FolderLock::take(&config.state_dir)?;
    let root: Arc<dyn Root> = match &config.tpm {
        Some(tpm) => Arc::new(open_tpm(tpm, true).await?),
        None => Arc::new(SoftwareRoot::new(&config.state_dir)),
    };
    make_run_folder(config)?;
    let counts = root.tpm_clock().await?.map(Into::into);
    let boot = Boot::begin(&config.run_dir, counts)?;
    Ok(Machine {
        root,
        boot,
        clock: Arc::new(SystemClock),
        lock,
    })
}

/// Opens the TPM. Only the `owner`, who holds the folder's lock, flushes what an aborted process left in it.
pub async fn open_tpm(tpm: &TpmConfig, owner: bool) -> Result<TpmRoot, RootError> {
    let place = match owner {
        true => tpm.place.clone().owned(),
        false => tpm.place.clone(),
    };
    // Opening waits for the device.
    let opened = tokio::task::spawn_blocking(move || Tpm::open(place))
        .await
        .map_err(|_| TpmError::Ended)??;
    TpmRoot::open(opened, tpm.ek).await
}

fn make_run_folder(config: &Config) -> Result<(), NotTaken> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(RUN_FOLDER_MODE)
        .create(&config.run_dir)
        .map_err(|source| NotTaken::RunFolder {
            path: config.run_dir.clone(),
            source,
        })
}
