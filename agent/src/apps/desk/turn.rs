//! One turn of the desk: what takes away first, then what runs, then what is still to be fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgeward_apps::director::Director;
use edgeward_apps::{AppName, AppRules, Digest, Manifest, Mode};
use edgeward_audit::EventKind;
use futures::future::join_all;
use tokio::time::Instant;

use super::{
    Desk, FIRST_RETRY, Facts, Happened, Here, Lost, MAX_TOLD, Note, Plan, State, ToRun, Told,
};

impl Desk {
    pub(super) async fn turn(&mut self) {
        let director = self.director();
        let rules = self.rules();
        let facts = Facts {
            here: &self.here,
            director: director.as_deref(),
            rules: rules.as_ref().map(|(_, rules)| rules.as_ref()),
            granting: self.granting(),
            now: self.setup.view.clock.now(),
        };
        let plan = facts.plan();
        self.held.clone_from(&plan.held);
        let number = director.as_ref().map_or(0, |director| director.number());
        self.lose(
            &plan,
            rules.as_ref().map(|(_, rules)| rules.as_ref()),
            number,
        )
        .await;
        for told in &plan.would_deny {
            self.tell(EventKind::AppWouldDeny, told);
        }
        let mode = rules
            .as_ref()
            .map_or(Mode::Enforce, |(_, rules)| rules.mode);
        if self.write_book(mode, &[]).await {
            self.run_those(&plan, director.as_deref()).await;
            // Only now is what an agent before this one left being ended, if it is.
            self.acts_on(number);
        }
        self.notes.retain(|app, _| plan.fetch.contains(app));
        if let (Some(director), Some((policy, rules))) = (director, rules) {
            self.remove_strays(&director).await;
            self.fetch(&plan, director, policy, rules);
        }
    }

    /// What is revoked ends before anything else happens, and is recorded after.
    async fn lose(&mut self, plan: &Plan, rules: Option<&AppRules>, number: u64) {
        if plan.lose.is_empty() {
            self.acts_on(number);
            return;
        }
        let of = |lost: &Lost| {
            self.here
                .iter()
                .find(|here| here.digest == lost.digest)
                .cloned()
        };
        let losing: Vec<(Here, Lost)> = plan
            .lose
            .iter()
            .filter_map(|lost| Some((of(lost)?, lost.clone())))
            .collect();
        let operations = self.setup.operations.clone();
        self.sure &= operations.ending().is_some();
        let ends = losing
            .iter()
            .filter(|(here, _)| here.current)
            .map(|(here, lost)| {
                let (operations, app) = (operations.clone(), here.manifest.app.clone());
                let why = lost.told.code;
                async move {
                    let ended = operations.end(&app, why).await;
                    ended.map_err(|refused| (app, refused))
                }
            });
        // Told at once and waited for later: whoever does not end must not keep its files in the guard's book.
        let ends = join_all(ends.collect::<Vec<_>>());
        let gone: BTreeSet<Digest> = losing.iter().map(|(here, _)| here.digest).collect();
        self.here.retain(|here| !gone.contains(&here.digest));
        let mode = rules.map_or(Mode::Enforce, |rules| rules.mode);
        let (ended, _) = tokio::join!(ends, self.write_book(mode, &[]));
        for (app, refused) in ended.into_iter().filter_map(Result::err) {
            tracing::error!(%app, %refused, "an application does not end");
        }
        let lost = losing.iter().map(|(here, _)| here.manifest.app.clone());
        self.unended.extend(lost);
        self.acts_on(number);
        // Whoever revoked it waits for that; what follows takes a TPM's and a disk's time.
        self.show();
        for (here, lost) in losing {
            self.gone(here, &lost).await;
        }
        self.reload().await;
    }

    /// Nothing runs any more that this word of the director does not let run, unless it did not end; which nobody can say
    /// while there is no guard.
    fn acts_on(&mut self, number: u64) {
        let Some(ending) = self.setup.operations.ending() else {
            self.sure = false;
            return;
        };
        if !std::mem::replace(&mut self.sure, true) {
            // What the guard found, and nobody wants.
            self.unended.extend(ending.iter().cloned());
        }
        // One that is there again is another release.
        self.unended.retain(|app| ending.contains(app));
        if self.unended.is_empty() {
            self.acted_on = number;
        }
    }

    async fn gone(&mut self, here: Here, lost: &Lost) {
        if lost.revoked {
            let revoked = self.event(EventKind::AppRevoked, &lost.told.app);
            let revoked = with(revoked, &lost.told, here.digest);
            self.setup.recorder.record_after(revoked);
            let operations = &self.setup.operations;
            operations
                .measure(Happened::Revoked, &here.manifest, here.digest)
                .await;
        }
        let app = here.manifest.app.clone();
        let forgotten = self.setup.floors.change(false, |taken| {
            if let Some(known) = taken.admitted.get_mut(&app) {
                known.retain(|digest| *digest != here.digest);
            }
            taken.admitted.retain(|_, known| !known.is_empty());
        });
        if let Err(error) = forgotten.await {
            tracing::error!(%app, %error, "a release that was removed is still known as admitted");
        }
        let installer = self.setup.installer.clone();
        let digest = here.digest;
        let removed = tokio::task::spawn_blocking(move || {
            let installed = installer.installed();
            match installed
                .iter()
                .find(|installed| installed.digest == digest)
            {
                Some(installed) => installer.remove(installed),
                None => Ok(()),
            }
        });
        match removed.await {
            Ok(Ok(())) => {
                let removed = self.event(EventKind::AppRemoved, &lost.told.app);
                self.setup
                    .recorder
                    .record_after(with(removed, &lost.told, digest));
            }
            Ok(Err(error)) => tracing::error!(%app, %error, "a release cannot be removed"),
            Err(error) => tracing::error!(%app, %error, "removing a release ended early"),
        }
    }

    /// Whether the guard holds the files of all that is here, and of `coming`.
    pub(super) async fn write_book(&mut self, mode: Mode, coming: &[Arc<Manifest>]) -> bool {
        let mut releases: Vec<Arc<Manifest>> = self.manifests().cloned().collect();
        releases.extend(coming.iter().cloned());
        let files: BTreeSet<Digest> = releases
            .iter()
            .flat_map(|manifest| manifest.entries().values())
            .filter_map(|entry| match entry {
                edgeward_apps::manifest::Entry::File(file) => Some(file.digest),
                edgeward_apps::manifest::Entry::Link(_) => None,
            })
            .collect();
        if self.book.as_ref() == Some(&(mode, files.clone())) {
            return true;
        }
        match self.setup.operations.book(mode, &releases).await {
            Ok(()) => {
                self.book = Some((mode, files));
                self.book_again = None;
                true
            }
            Err(why) => {
                tracing::warn!(%why, "the guard does not hold the files of applications");
                self.book = None;
                self.book_again = Some(Instant::now() + FIRST_RETRY);
                false
            }
        }
    }

    async fn run_those(&mut self, plan: &Plan, director: Option<&Director>) {
        let taken = self.setup.floors.now().await;
        let mut wanted = BTreeMap::new();
        for (app, digest) in &plan.run {
            let here = self.here.iter().find(|here| here.digest == *digest);
            // An admitted app has its user: both are stored in one go.
            if let (Some(here), Some(uid), Some(director)) = (here, taken.uids.get(app), director) {
                let to_run = ToRun {
                    manifest: here.manifest.clone(),
                    digest: here.digest,
                    tree: here.tree.clone(),
                    until: director.expires(),
                    uid: *uid,
                };
                wanted.insert(app.clone(), to_run);
            }
        }
        self.setup.operations.want(wanted).await;
    }

    /// What nobody admitted here, and nobody wants: left by a state that was lost.
    async fn remove_strays(&mut self, director: &Director) {
        if !self.granting() || self.strays.is_empty() || self.job.is_some() {
            return;
        }
        let wanted: BTreeSet<Digest> = director
            .orders()
            .apps
            .values()
            .map(|assigned| assigned.digest)
            .collect();
        let strays = std::mem::take(&mut self.strays);
        let (kept, gone): (Vec<_>, Vec<_>) = strays
            .into_iter()
            .partition(|stray| wanted.contains(&stray.digest));
        self.strays = kept;
        let installer = self.setup.installer.clone();
        let removed = tokio::task::spawn_blocking(move || {
            for stray in gone {
                tracing::warn!(app = %stray.app, version = %stray.version, "removing a release that this node's state does not know");
                if let Err(error) = installer.remove(&stray) {
                    tracing::error!(app = %stray.app, %error, "a release cannot be removed");
                }
            }
        });
        if let Err(error) = removed.await {
            tracing::error!(%error, "removing releases ended early");
        }
    }

    fn fetch(&mut self, plan: &Plan, director: Arc<Director>, policy: u64, rules: Arc<AppRules>) {
        let due = self.retry.is_none_or(|retry| retry <= Instant::now());
        if plan.fetch.is_empty() || self.job.is_some() || !due {
            return;
        }
        self.job_for = (director.number(), policy);
        let job = self.job(director, policy, rules, plan.fetch.clone());
        self.job = Some(tokio::spawn(job.prepare()));
    }

    /// Once for each release and reason: a refusal that lasts is one event.
    pub(super) fn tell(&mut self, kind: EventKind, told: &Told) {
        let key = (told.app.clone(), told.version.clone(), told.code.to_owned());
        if self.told.contains(&key) {
            return;
        }
        self.told.push_back(key);
        if self.told.len() > MAX_TOLD {
            self.told.pop_front();
        }
        metrics::counter!("edgeward_apps_refused_total", "code" => told.code).increment(1);
        tracing::warn!(app = %told.app, version = %told.version, code = told.code, reason = %told.reason, "application refused");
        let event = self
            .event(kind, &told.app)
            .denied(told.code)
            .detail("version", &told.version)
            .detail("reason", &told.reason);
        self.setup.recorder.record_after(event);
    }

    pub(super) fn note(&mut self, app: &AppName, state: State, code: &str, reason: String) {
        let note = Note {
            state,
            code: code.to_owned(),
            reason,
        };
        self.notes.insert(app.clone(), note);
    }
}

fn with(event: edgeward_audit::Event, told: &Told, digest: Digest) -> edgeward_audit::Event {
    event
        .code(told.code)
        .detail("version", &told.version)
        .detail("digest", digest)
        .detail("reason", &told.reason)
}
