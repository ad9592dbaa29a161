//! The one way into use: recorded, remembered under a new epoch, known to the guard, and only then activated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use edgeward_apps::{Digest, Manifest};
use edgeward_audit::{Event, EventKind};
use tokio::time::Instant;

use super::super::activate::NotActivated;
use super::super::floors::{NotKept, Taken};
use super::super::receipt::Receipt;
use super::job::{Prepared, Ready};
use super::{Desk, FIRST_RETRY, Happened, State, Told};

impl Desk {
    /// What a job brought, unless something else was said meanwhile: then the next job finds most of it here.
    pub(super) async fn take(&mut self, prepared: Prepared) {
        self.progress_to.send_modify(BTreeMap::clear);
        let director = self.director().map_or(0, |director| director.number());
        let policy = self.rules().map_or(0, |(number, _)| number);
        if self.job_for != (director, policy) || !self.granting() {
            return;
        }
        self.notes.clear();
        let failed = !prepared.missed.is_empty() || !prepared.refused.is_empty();
        for told in prepared.refused {
            self.tell(EventKind::AppRefused, &told);
            self.note(&told.app, State::Refused, told.code, told.reason);
        }
        for told in prepared.missed {
            tracing::warn!(app = %told.app, code = told.code, reason = %told.reason, "application is not here yet");
            self.note(&told.app, State::Failed, told.code, told.reason);
        }
        if let Some(wait) = self.paced(&prepared.ready) {
            self.retry = Some(Instant::now() + wait);
            return;
        }
        let installed = self.install(prepared.ready).await;
        match failed || !installed {
            // Also what was refused: a repository that is mended says nothing by itself.
            true => self.later(),
            false => self.wait = FIRST_RETRY,
        }
        self.reload().await;
    }

    /// How long what is ready has to wait for the TPM's counter, which raises once for all of it. It lies whole on the
    /// volume until then, and is judged once more.
    fn paced(&mut self, ready: &[Ready]) -> Option<Duration> {
        if ready.is_empty() {
            return None;
        }
        let wait = self.wear.take(self.setup.view.clock.boottime()).err()?;
        for one in ready {
            let app = one.release.manifest().app.clone();
            let reason = format!(
                "releases follow each other too fast for the TPM's counter: {} s more",
                wait.as_secs()
            );
            self.note(&app, State::Waiting, "apps-paced", reason);
        }
        Some(wait)
    }

    /// Whether all of it is in use.
    async fn install(&mut self, ready: Vec<Ready>) -> bool {
        let mut recorded = Vec::new();
        let mut all = true;
        for one in ready {
            match self.setup.recorder.record(self.installing(&one)).await {
                Ok(()) => recorded.push(one),
                Err(error) => {
                    all = false;
                    self.fail(&one, "journal", error.to_string());
                }
            }
        }
        if recorded.is_empty() {
            return all;
        }
        if let Err(error) = self.remember(&recorded).await {
            for one in &recorded {
                self.fail(one, "state-unwritable", error.to_string());
            }
            return false;
        }
        let mode = self
            .rules()
            .map_or_else(Default::default, |(_, rules)| rules.mode);
        let coming: Vec<Arc<Manifest>> = recorded
            .iter()
            .map(|one| Arc::new(one.release.manifest().clone()))
            .collect();
        if !self.write_book(mode, &coming).await {
            for one in &recorded {
                let reason = "the guard does not hold its files".to_owned();
                self.fail(one, "guard-away", reason);
            }
            return false;
        }
        for one in recorded {
            all &= self.activate(one).await;
        }
        all
    }

    /// Floors, users and what may be in use, stored as a new epoch of the TPM: once for all that comes together.
    async fn remember(&self, ready: &[Ready]) -> Result<Taken, NotKept> {
        let uids = self.setup.uids.clone();
        let change = |taken: &mut Taken| {
            for one in ready {
                let app = &one.release.manifest().app;
                let floors = one.release.floors();
                taken.apps.director = taken.apps.director.max(floors.director);
                if let Some(floor) = floors.apps.get(app) {
                    taken.apps.apps.insert(app.clone(), floor.clone());
                }
                let current = self
                    .here
                    .iter()
                    .find(|here| here.current && here.manifest.app == *app);
                let known = taken.admitted.entry(app.clone()).or_default();
                *known = std::iter::once(one.release.digest())
                    .chain(current.map(|here| here.digest))
                    .collect();
                known.dedup();
                if !taken.uids.contains_key(app) {
                    let used: Vec<u32> = taken.uids.values().copied().collect();
                    if let Some(free) = uids.clone().find(|uid| !used.contains(uid)) {
                        taken.uids.insert(app.clone(), free);
                    }
                }
            }
        };
        self.setup.floors.change(true, change).await
    }

    async fn activate(&mut self, ready: Ready) -> bool {
        let Ready {
            release,
            staged,
            words,
        } = ready;
        let installer = self.setup.installer.clone();
        let now = self.setup.view.clock.now();
        let activated =
            tokio::task::spawn_blocking(move || installer.activate(&staged, words, now)).await;
        let app = release.manifest().app.clone();
        let receipt = match activated {
            Ok(Ok(receipt)) => receipt,
            Ok(Err(error)) => {
                let code = match &error {
                    NotActivated::Full => "apps-full",
                    _ => "apps-disk",
                };
                self.note(&app, State::Failed, code, error.to_string());
                return false;
            }
            Err(error) => {
                self.note(&app, State::Failed, "apps-disk", error.to_string());
                return false;
            }
        };
        tracing::info!(%app, version = %receipt.version, digest = %receipt.manifest, "application installed");
        metrics::counter!("edgeward_apps_installed_total").increment(1);
        self.setup.recorder.record_after(self.installed(&receipt));
        let operations = &self.setup.operations;
        operations
            .measure(Happened::Installed, release.manifest(), release.digest())
            .await;
        if let Some(refused) = release.would_deny() {
            let told = Told {
                app,
                version: receipt.version.to_string(),
                code: refused.code(),
                reason: refused.to_string(),
            };
            self.tell(EventKind::AppWouldDeny, &told);
        }
        true
    }

    fn installing(&self, ready: &Ready) -> Event {
        let manifest = ready.release.manifest();
        self.event(EventKind::AppInstalling, &manifest.app)
            .allowed()
            .detail("version", &manifest.version)
            .detail("digest", ready.release.digest())
            .detail("director", ready.words.director)
            .detail("policy", ready.words.policy)
    }

    /// The receipt itself may be longer than a record: its digest binds it.
    fn installed(&self, receipt: &Receipt) -> Event {
        let words = &receipt.words;
        let event = self
            .event(EventKind::AppInstalled, &receipt.app)
            .detail("version", &receipt.version)
            .detail("digest", receipt.manifest)
            .detail("files", receipt.files.len())
            .detail(
                "bytes",
                receipt.files.values().map(|file| file.size).sum::<u64>(),
            )
            .detail("root", words.root)
            .detail("timestamp", words.timestamp)
            .detail("snapshot", words.snapshot)
            .detail("targets", words.targets)
            .detail("publisher", words.publisher)
            .detail("director", words.director)
            .detail("policy", words.policy);
        let digest = |digest: Option<Digest>| digest.map_or_else(String::new, |it| it.to_string());
        event
            .detail("receipt", digest(receipt.digest().ok()))
            .detail("previous", digest(receipt.previous))
    }

    fn fail(&mut self, ready: &Ready, code: &'static str, reason: String) {
        let app = ready.release.manifest().app.clone();
        tracing::error!(%app, code, %reason, "application is not installed");
        self.note(&app, State::Failed, code, reason);
    }
}
