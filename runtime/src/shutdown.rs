//! Ending well: one token that everything watches, one set of tasks that must all end within a deadline.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long tasks may take to end after shutdown began.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// The long-lived tasks of a process. One that ends by itself, whether well or badly, ends the process.
#[derive(Debug)]
pub struct Tasks {
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
    token: CancellationToken,
}

/// Why the process ended otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("task {task} failed: {error:#}")]
    Failed {
        task: &'static str,
        error: anyhow::Error,
    },
    #[error("task {task} ended before shutdown")]
    Early { task: &'static str },
    #[error("a task panicked")]
    Panicked,
    #[error("tasks did not end within the deadline in seconds: {}", DRAIN_DEADLINE.as_secs())]
    Deadline,
}

impl Tasks {
    pub fn new(token: CancellationToken) -> Self {
        Self {
            set: JoinSet::new(),
            token,
        }
    }

    /// The token that tells every task to end.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.set.spawn(async move { (name, task.await) });
    }

    /// Waits for the first task to end or for the token, then gives the others [`DRAIN_DEADLINE`].
    pub async fn run(mut self) -> Result<(), Ended> {
        let first = tokio::select! {
            () = self.token.cancelled() => Ok(()),
            Some(ended) = self.set.join_next() => self.judge(ended),
        };
        self.token.cancel();
        let drained = tokio::time::timeout(DRAIN_DEADLINE, self.drain()).await;
        first?;
        match drained {
            Ok(result) => result,
            Err(_) => Err(Ended::Deadline),
        }
    }

    async fn drain(&mut self) -> Result<(), Ended> {
        let mut result = Ok(());
        while let Some(ended) = self.set.join_next().await {
            let judged = self.judge(ended);
            if result.is_ok() {
                result = judged;
            }
        }
        result
    }

    fn judge(
        &self,
        ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>,
    ) -> Result<(), Ended> {
        match ended {
            Ok((_, Ok(()))) if self.token.is_cancelled() => Ok(()),
            Ok((task, Ok(()))) => Err(Ended::Early { task }),
            Ok((task, Err(error))) => Err(Ended::Failed { task, error }),
            Err(error) if error.is_cancelled() => Ok(()),
            Err(_) => Err(Ended::Panicked),
        }
    }
}

/// A token that SIGTERM and SIGINT cancel. A second signal ends the process at once with code 1.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if cancelled.is_cancelled() {
                std::process::exit(i32::from(crate::exit::FAILED));
            }
            tracing::info!("shutting down; a second signal ends at once");
            cancelled.cancel();
        }
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_early_ends_the_process() {
        let mut tasks = Tasks::new(CancellationToken::new());
        let token = tasks.token().clone();
        tasks.spawn("waits", async move {
            token.cancelled().await;
            Ok(())
        });
        tasks.spawn("short", async { Ok(()) });
        assert!(matches!(
            tasks.run().await,
            Err(Ended::Early { task: "short" })
        ));
    }

    #[tokio::test]
    async fn cancelling_ends_every_task_well() {
        let mut tasks = Tasks::new(CancellationToken::new());
        let token = tasks.token().clone();
        let watched = token.clone();
        tasks.spawn("waits", async move {
            watched.cancelled().await;
            Ok(())
        });
        token.cancel();
        assert!(tasks.run().await.is_ok());
    }
}
