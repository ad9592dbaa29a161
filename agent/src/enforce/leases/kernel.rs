//! `nft`, called with text on its standard input.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Change, MAX_CHANGES, apply, make_table, remove_table, replace};
use crate::enforce::DeviceName;

/// The command; found by the search path.
const NFT: &str = "nft";
/// One transaction must end within this time.
const DEADLINE: Duration = Duration::from_secs(5);
/// Most of what `nft` complained of that is shown, in characters.
const MAX_COMPLAINT_CHARS: usize = 300;

/// The lease sets of one device in this network namespace.
#[derive(Clone, Debug)]
pub struct KernelLeases {
    device: DeviceName,
}

/// A transaction did not take place. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum NftFailed {
    #[error("nft cannot be run: {0}")]
    Run(#[source] std::io::Error),
    #[error("nft did not end within the limit in seconds: {}", DEADLINE.as_secs())]
    Deadline,
    #[error("nft refused: {0}")]
    Refused(String),
}

impl KernelLeases {
    /// Replaces the table by an empty one: nothing passes the device.
    pub async fn make(device: DeviceName) -> Result<Self, NftFailed> {
        run(&make_table(&device)).await?;
        Ok(Self { device })
    }

    /// Goes on with the table that the program before this one left, if it is as this one makes it. Nobody who has a
    /// lease is without it for a moment, and nobody else has one.
    pub async fn adopt(
        device: DeviceName,
        leases: &[Change],
        is_ours: bool,
    ) -> Result<Self, NftFailed> {
        let leases = replace(&device, leases);
        let made = || format!("{}{leases}", make_table(&device));
        let done = match is_ours {
            true => run(&leases).await,
            false => run(&made()).await,
        };
        if let Err(NftFailed::Refused(why)) = &done {
            tracing::warn!(why, "lease sets are made anew");
            run(&made()).await?;
        } else {
            done?;
        }
        Ok(Self { device })
    }

    /// All changes or none of each [`MAX_CHANGES`].
    pub async fn apply(&self, changes: &[Change]) -> Result<(), NftFailed> {
        for part in changes.chunks(MAX_CHANGES) {
            run(&apply(&self.device, part)).await?;
        }
        Ok(())
    }

    pub async fn remove(&self) -> Result<(), NftFailed> {
        run(&remove_table(&self.device)).await
    }
}

/// One transaction.
pub(crate) async fn run(text: &str) -> Result<(), NftFailed> {
    call(&["-f", "-"], text).await.map(|_| ())
}

/// One set as JSON.
pub(in crate::enforce) async fn list_set(table: &str, set: &str) -> Result<Vec<u8>, NftFailed> {
    call(&["-j", "list", "set", "inet", table, set], "").await
}

async fn call(arguments: &[&str], text: &str) -> Result<Vec<u8>, NftFailed> {
    let work = async {
        let mut child = Command::new(NFT)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(NftFailed::Run)?;
        if let Some(mut input) = child.stdin.take() {
            // A write that fails means that nft has ended: its complaint says more.
            let _ended = input.write_all(text.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(NftFailed::Run)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(NftFailed::Refused(
            complaint.trim().chars().take(MAX_COMPLAINT_CHARS).collect(),
        ))
    };
    tokio::time::timeout(DEADLINE, work)
        .await
        .map_err(|_| NftFailed::Deadline)?
}
