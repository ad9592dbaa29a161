//! What an application has of its node while it runs: an identity, a way out, a place in what the TPM measures.
//!
//! Given before it runs, in the order in which nothing is had that was not measured; taken the other way round, the
//! network first.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use edgeward_apps::name::AppName;
use edgeward_evidence::app_log::{App, Happened};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::egress::{Egress, NoEgress};
use super::hierarchy::{NoPlace, Place};
use super::launch::Running;
use super::measure::{Measure, NotMeasured, pcr_of};
use super::records::Noticed;
use super::runs::{NotGranted, Rights};
use crate::view::NodeView;
use crate::workload::selectors::{AppFacts, Launched};

/// Gives and takes.
pub struct AppRights {
    view: NodeView,
    measure: Measure,
    egress: Egress,
    launched: watch::Sender<Arc<Vec<Launched>>>,
    /// As what each was measured last.
    measured: Mutex<BTreeMap<AppName, App>>,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("measurement: {0}")]
    Measure(#[from] NotMeasured),
    #[error("egress: {0}")]
    Egress(#[from] NoEgress),
    #[error("identity: {0}")]
    Place(#[from] NoPlace),
}

impl AppRights {
    /// `launched` is what the Workload API knows applications by.
    pub fn new(
        view: NodeView,
        measure: Measure,
        egress: Egress,
        launched: watch::Sender<Arc<Vec<Launched>>>,
    ) -> Self {
        Self {
            view,
            measure,
            egress,
            launched,
            measured: Mutex::default(),
        }
    }

    /// Follows the policy: what an application may reach may change while it runs.
    pub async fn run(self: Arc<Self>, token: CancellationToken) -> anyhow::Result<()> {
        let mut slice = self.view.slice.clone();
        loop {
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                changed = slice.changed() => if changed.is_err() { return Ok(()) },
            }
            if let Err(error) = self.egress.renew().await {
                tracing::error!(%error, "the table of applications is not as policy says");
            }
        }
    }

    async fn give(&self, running: &Running) -> Result<(), Refused> {
        let group = Place::of(&running.cgroup)?;
        // The policy may name a PCR that nobody has looked at yet.
        let pcr = pcr_of(&self.view.slice.borrow());
        self.measure.set_pcr(pcr).await?;
        self.egress
            .admit(&running.app, running.cgroup.clone())
            .await?;
        let app = measured_as(running);
        if let Err(error) = self.measure.record(Happened::Started(app.clone())).await {
            self.take(&running.app).await;
            return Err(error.into());
        }
        self.measured.lock().insert(running.app.clone(), app);
        self.launched.send_modify(|launched| {
            let launched = Arc::make_mut(launched);
            launched.retain(|known| known.facts.name != running.app.to_string());
            launched.push(Launched {
                cgroup: group.path,
                uid: running.uid,
                facts: AppFacts {
                    name: running.app.to_string(),
                    files: running.files.clone(),
                },
            });
        });
        Ok(())
    }

    async fn take(&self, app: &AppName) {
        self.launched.send_if_modified(|launched| {
            let name = app.to_string();
            let has = launched.iter().any(|known| known.facts.name == name);
            if has {
                Arc::make_mut(launched).retain(|known| known.facts.name != name);
            }
            has
        });
        if let Err(error) = self.egress.withdraw(app).await {
            // It is stopped next, whatever the kernel says of its packets.
            tracing::error!(%app, %error, "an application is not cut off");
            metrics::counter!("edgeward_apps_not_cut_total").increment(1);
        }
    }
}

#[async_trait]
impl Rights for AppRights {
    async fn grant(&self, running: &Running) -> Result<(), NotGranted> {
        let given = self.give(running).await;
        given.map_err(|refused| NotGranted(refused.to_string()))
    }

    async fn withdraw(&self, app: &AppName) {
        self.take(app).await;
    }

    async fn ended(&self, app: &AppName, lasting: bool) {
        self.take(app).await;
        if !lasting {
            return;
        }
        let measured = self.measured.lock().remove(app);
        if let Some(measured) = measured
            && let Err(error) = self.measure.record(Happened::Stopped(measured)).await
        {
            tracing::warn!(%app, %error, "that an application ended is not measured");
        }
    }
}

#[async_trait]
impl Noticed for Measure {
    async fn level(&self, word: &'static str) {
        if let Err(error) = self.set_level(word).await {
            tracing::warn!(word, %error, "a change of the control of applications is not measured");
        }
    }

    async fn denied(&self, digest: &str) {
        let denied = Happened::Denied {
            digest: digest.to_owned(),
        };
        if let Err(error) = self.record(denied).await {
            tracing::warn!(digest, %error, "a denial is not measured");
        }
    }
}

/// An application as the log names it.
pub fn measured_as(running: &Running) -> App {
    App {
        publisher: running.app.publisher().as_str().to_owned(),
        name: running.app.name().to_owned(),
        version: running.version.to_string(),
        digest: running.manifest.to_string(),
    }
}

#[cfg(test)]
mod tests;
