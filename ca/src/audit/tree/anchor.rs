//! The newest checkpoint in a file beside the database: a database that went back is noticed by it.

use std::path::{Path, PathBuf};

use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::note::NoteVerifier;

use super::head::Halt;
use crate::keys::files::{self, FileFault};

const NAME: &str = "log-checkpoint";

/// The file, and what it says.
#[derive(Debug)]
pub(super) struct Anchor {
    path: PathBuf,
    checkpoint: Option<Checkpoint>,
}

impl Anchor {
    /// Reads the file in the cloud's data folder. One that is there must be readable: it is what the database is held to.
    pub(super) fn open(data: &Path, origin: &str, verifier: &NoteVerifier) -> Result<Self, Halt> {
        let path = data.join(NAME);
        let unreadable =
            |why: &dyn std::fmt::Display| Halt::Anchor(format!("{}: {why}", path.display()));
        let checkpoint = match files::exists(&path) {
            Ok(false) => None,
            Ok(true) => {
                let bytes = files::read(&path).map_err(|fault| unreadable(&fault))?;
                let opened = Checkpoint::open(&bytes, origin, verifier);
                Some(opened.map_err(|error| unreadable(&error))?)
            }
            Err(fault) => return Err(unreadable(&fault)),
        };
        Ok(Self { path, checkpoint })
    }

    pub(super) fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// Remembers a newer one: on disk when this returns.
    pub(super) async fn move_to(
        &mut self,
        checkpoint: Checkpoint,
        note: &str,
    ) -> Result<(), FileFault> {
        let (path, bytes) = (self.path.clone(), note.as_bytes().to_vec());
        tokio::task::spawn_blocking(move || files::write_public(&path, &bytes))
            .await
            .map_err(|error| FileFault::Io {
                path: self.path.clone(),
                source: std::io::Error::other(error),
            })??;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }
}
