//! Content of what was admitted: fetched chunk by chunk from whoever has it, and unpacked where it lies unused.

use edgeward_apps::manifest::Chunk;
use edgeward_apps::oci::carried;
use edgeward_apps::{Digest, Manifest};
use tokio::sync::mpsc;

use super::super::super::fetch::{MAX_CHUNKS_UNDER_WAY, NotFetched, Source};
use super::super::super::stage::NotStaged;
use super::{Job, Prepared, Ready, Wanted};

/// How often content that is still missing is asked for again within one job.
const MAX_ROUNDS: usize = 3;

/// Why a release does not lie whole on the volume.
enum NotReady {
    Staged(NotStaged),
    Image(carried::NotCarried),
}

impl Job {
    /// Fetches what is not here. Each chunk is checked and kept by itself: what was fetched once is not fetched again.
    pub(super) async fn content(
        &self,
        wanted: Vec<Wanted>,
        prepared: &mut Prepared,
    ) -> Vec<Wanted> {
        // Nothing may be known yet, after a start: what was fetched before it is still of use.
        if wanted.is_empty() {
            return wanted;
        }
        let manifests: Vec<Manifest> = wanted
            .iter()
            .map(|wanted| wanted.release.manifest().clone())
            .collect();
        let installer = self.installer.clone();
        let noted = tokio::task::spawn_blocking(move || {
            installer.want(&manifests.iter().collect::<Vec<_>>())
        });
        if let Ok(Err(error)) = noted.await {
            tracing::error!(%error, "content of applications cannot be kept");
        }
        let mut whole = Vec::new();
        for one in wanted {
            match self.content_of(one.release.manifest()).await {
                Ok(()) => whole.push(one),
                Err((code, reason)) => {
                    let app = &one.release.manifest().app;
                    prepared.missed.push(self.told(app, code, reason));
                }
            }
        }
        whole
    }

    async fn content_of(&self, manifest: &Manifest) -> Result<(), (&'static str, String)> {
        let mut why = "no source has all of its content".to_owned();
        for _ in 0..MAX_ROUNDS {
            for source in &self.sources {
                let missing = self.missing(manifest).await?;
                self.tell_progress(manifest, &missing);
                if missing.is_empty() {
                    return Ok(());
                }
                if let Err(error) = self.fetch(source.as_ref(), &missing).await {
                    tracing::debug!(source = %source.name(), %error, "not all content");
                    why = format!("{}: {error}", source.name());
                }
            }
        }
        let missing = self.missing(manifest).await?;
        self.tell_progress(manifest, &missing);
        match missing.is_empty() {
            true => Ok(()),
            false => Err(("apps-unreachable", why)),
        }
    }

    async fn missing(&self, manifest: &Manifest) -> Result<Vec<Chunk>, (&'static str, String)> {
        let (installer, manifest) = (self.installer.clone(), manifest.clone());
        let missing = tokio::task::spawn_blocking(move || installer.missing(&manifest));
        match missing.await {
            Ok(Ok(missing)) => Ok(missing),
            Ok(Err(error)) => Err(("apps-full", error.to_string())),
            Err(error) => Err(("apps-disk", error.to_string())),
        }
    }

    async fn fetch(&self, source: &dyn Source, missing: &[Chunk]) -> Result<(), NotFetched> {
        let (take, mut taken) = mpsc::channel::<(Digest, Vec<u8>)>(MAX_CHUNKS_UNDER_WAY);
        let installer = self.installer.clone();
        let keep = tokio::task::spawn_blocking(move || {
            while let Some((digest, bytes)) = taken.blocking_recv() {
                metrics::counter!("edgeward_apps_bytes_fetched_total")
                    .increment(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                // A source that gives other bytes is not heard further.
                installer
                    .put(digest, &bytes)
                    .map_err(|error| NotFetched::Refused(error.to_string()))?;
            }
            Ok(())
        });
        let fetched = source.chunks(missing, take).await;
        match keep.await {
            Ok(Err(refused)) => Err(refused),
            Ok(Ok(())) => fetched,
            Err(_) => Err(NotFetched::Over),
        }
    }

    pub(super) async fn stage(&self, wanted: Wanted, prepared: &mut Prepared) {
        let Wanted {
            release,
            bytes,
            words,
        } = wanted;
        let app = release.manifest().app.clone();
        let installer = self.installer.clone();
        let keys = self.rules.cosign.get(app.publisher()).cloned();
        let staged = tokio::task::spawn_blocking(move || {
            let staged = installer
                .stage(&release, &bytes)
                .map_err(NotReady::Staged)?;
            if let Some(keys) = keys {
                let mut open = |path: &edgeward_apps::AppPath| installer.open_staged(&staged, path);
                carried::check(release.manifest(), &mut open, &keys).map_err(NotReady::Image)?;
            }
            Ok((release, staged))
        });
        match staged.await {
            Ok(Ok((release, staged))) => prepared.ready.push(Ready {
                release,
                staged,
                words,
            }),
            Ok(Err(NotReady::Image(refused))) => {
                let told = self.told(&app, "app-image-unsigned", refused.to_string());
                prepared.refused.push(told);
            }
            Ok(Err(NotReady::Staged(error))) => {
                let told = self.told(&app, error.code(), error.to_string());
                prepared.missed.push(told);
            }
            Err(error) => {
                let told = self.told(&app, "apps-disk", error.to_string());
                prepared.missed.push(told);
            }
        }
    }

    fn tell_progress(&self, manifest: &Manifest, missing: &[Chunk]) {
        let sum = |chunks: &mut dyn Iterator<Item = Chunk>| -> u64 {
            chunks.map(|chunk| u64::from(chunk.size)).sum()
        };
        let all = sum(&mut manifest.chunks());
        let left = sum(&mut missing.iter().copied());
        let progress = (all.saturating_sub(left), all);
        self.progress.send_modify(|told| {
            told.insert(manifest.app.clone(), progress);
        });
    }
}
