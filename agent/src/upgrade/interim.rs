//! From the first moment of the new program until it knows its node: tunnels at work, and nobody who watches them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;

use super::Left;
use crate::enforce::EnforceConfig;
use crate::enforce::handover::Adopted;
use crate::view::Heard;

/// Longest time without anybody who hears of cuts. Whatever lives on beyond it would not be in doubt for want of a TPM
/// only; the kernel's leases and the tunnels' own end as they would have.
const DEADLINE: Duration = Duration::from_secs(60);

/// Holds the tunnels until enforcement takes them, or ends them.
#[derive(Clone, Default)]
pub struct Interim(Arc<Mutex<Option<Adopted>>>);

impl Interim {
    /// What cannot be taken over is closed, and everything starts anew.
    pub async fn begin(left: Option<Left>, config: &EnforceConfig) -> Self {
        let Some(left) = left else {
            return Self::default();
        };
        let config = config.clone();
        let begun = tokio::task::spawn_blocking(move || {
            let taken = left.take()?;
            let inherited = (taken.device, taken.port);
            Adopted::begin(taken.handed, inherited, &config).context("tunnels")
        });
        let adopted = begun
            .await
            .context("panicked")
            .and_then(|adopted| adopted)
            .inspect_err(|why| tracing::warn!("not taken over, starting anew: {why:#}"))
            .ok();
        let interim = Self(Arc::new(Mutex::new(adopted)));
        let watched = interim.clone();
        tokio::spawn(async move {
            tokio::time::sleep(DEADLINE).await;
            watched.end("the node was not ready in time").await;
        });
        interim
    }

    /// When the program before this one heard the cloud last.
    pub fn heard(&self) -> Option<Heard> {
        self.0.lock().as_ref().and_then(Adopted::heard)
    }

    /// For enforcement.
    pub fn take(&self) -> Option<Adopted> {
        self.0.lock().take()
    }

    /// Ends what is still held.
    pub async fn end(&self, why: &str) {
        if let Some(adopted) = self.take() {
            tracing::warn!(why, "tunnels of the program before this one end");
            // Joins threads: not on a thread of the runtime.
            let _panicked = tokio::task::spawn_blocking(move || drop(adopted)).await;
        }
    }
}
