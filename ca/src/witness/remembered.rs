//! What was cosigned last of each log, in a file beside the database: a database that went back is noticed by it, also
//! where the own log stood still meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;

use edgeward_audit::Digest;
use edgeward_audit::merkle::EMPTY_ROOT;
use edgeward_audit::witness::Known;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::keys::files::{self, FileFault};

/// The file of one key. A cloud that shares the database has its own: it may be behind, and is never ahead.
#[derive(Debug)]
pub(super) struct Remembered {
    path: PathBuf,
    logs: Mutex<BTreeMap<String, Tree>>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    size: u64,
    root: Digest,
}

impl Remembered {
    /// Reads the file. Where there is none, the database is believed that once.
    pub(super) fn open(path: PathBuf) -> Result<Self, FileFault> {
        let logs = match files::exists(&path)? {
            false => BTreeMap::new(),
            true => {
                serde_json::from_slice(&files::read(&path)?).map_err(|_| FileFault::Content {
                    path: path.clone(),
                    wanted: "what a witness remembers, in json",
                })?
            }
        };
        let logs = Mutex::new(logs);
        Ok(Self { path, logs })
    }

    /// What was cosigned last of a log. To be asked for before the database is: what that knows then is not less.
    pub(super) async fn of(&self, origin: &str) -> Option<Known> {
        let logs = self.logs.lock().await;
        logs.get(origin).map(|tree| Known {
            size: tree.size,
            root: tree.root,
        })
    }

    /// Remembers what the database remembers already: on disk when this returns, and only then the cosignature may leave.
    pub(super) async fn put(&self, origin: &str, known: Known) -> Result<(), FileFault> {
        let mut logs = self.logs.lock().await;
        // Another one that was committed after this may have come first.
        if logs.get(origin).is_some_and(|tree| tree.size > known.size) {
            return Ok(());
        }
        let Known { size, root } = known;
        let mut next = logs.clone();
        next.insert(origin.to_owned(), Tree { size, root });
        let io = |error: std::io::Error| FileFault::Io {
            path: self.path.clone(),
            source: error,
        };
        let bytes = serde_json::to_vec(&next).map_err(|error| io(error.into()))?;
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || files::write_public(&path, &bytes))
            .await
            .map_err(|error| io(std::io::Error::other(error)))??;
        *logs = next;
        Ok(())
    }
}

/// Whether what the database knows of a log is what was cosigned last, or came after it.
pub(super) fn is_held(cosigned: Option<Known>, known: Option<Known>) -> bool {
    let known = known.unwrap_or(Known {
        size: 0,
        root: EMPTY_ROOT,
    });
    cosigned.is_none_or(|cosigned| known.size > cosigned.size || known == cosigned)
}
