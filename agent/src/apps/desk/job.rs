//! From the director's word to releases that lie whole and unused on the volume: what takes time, beside the desk.
//!
//! Every step judges what it was given, whoever gave it; what was verified of the repository is stored before anything
//! rests on it. Nothing here brings a release into use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgeward_apps::director::{Agreed, Disagreed};
use edgeward_apps::image::ImageRefused;
use edgeward_apps::{
    AppFloors, AppName, AppRules, Director, Image, Installable, NotAdmitted, admit,
};
use edgeward_identity::Clock;
use tokio::sync::watch;

use super::super::fetch::{NotRefreshed, Source, pinned_root, refresh};
use super::super::floors::Floors;
use super::super::installer::Installer;
use super::super::receipt::Words;
use super::super::stage::Staged;
use super::Told;

mod content;

pub(super) struct Job {
    pub(super) director: Arc<Director>,
    pub(super) policy: u64,
    pub(super) rules: Arc<AppRules>,
    pub(super) wants: BTreeSet<AppName>,
    pub(super) sources: Vec<Arc<dyn Source>>,
    pub(super) floors: Arc<Floors>,
    pub(super) installer: Arc<Installer>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) first_root: Option<Vec<u8>>,
    pub(super) progress: Arc<watch::Sender<BTreeMap<AppName, (u64, u64)>>>,
}

/// What came of a job.
#[derive(Default)]
pub(super) struct Prepared {
    pub(super) ready: Vec<Ready>,
    /// The same would be refused again, as things are.
    pub(super) refused: Vec<Told>,
    /// Nothing speaks against it, and it is not here.
    pub(super) missed: Vec<Told>,
}

/// A release that lies whole on the volume.
pub(super) struct Ready {
    pub(super) release: Installable,
    pub(super) staged: Staged,
    pub(super) words: Words,
}

/// A release that both sides name, and under which words.
struct Named {
    agreed: Agreed,
    words: Words,
}

/// A release that may be installed, once its content is here.
struct Wanted {
    release: Installable,
    bytes: Vec<u8>,
    words: Words,
}

impl Job {
    pub(super) async fn prepare(self) -> Prepared {
        let mut prepared = Prepared::default();
        let joined = self.floors.now().await.joined_with(self.director.orders());
        let kept = self.floors.change(false, |taken| *taken = joined).await;
        if let Err(error) = kept {
            self.miss_all(
                &self.wants,
                "state-unwritable",
                &error.to_string(),
                &mut prepared,
            );
            return prepared;
        }
        let named = self.name(&mut prepared).await;
        let admitted = self.admit(named, &mut prepared).await;
        let whole = self.content(admitted, &mut prepared).await;
        for wanted in whole {
            self.stage(wanted, &mut prepared).await;
        }
        prepared
    }

    /// Asks one source after the other until both sides agree on everything that is wanted.
    async fn name(&self, prepared: &mut Prepared) -> BTreeMap<AppName, Named> {
        let mut named = BTreeMap::new();
        let mut why: BTreeMap<AppName, Told> = BTreeMap::new();
        let mut refused = BTreeSet::new();
        for source in &self.sources {
            let left: Vec<AppName> = self
                .wants
                .iter()
                .filter(|app| !named.contains_key(*app))
                .cloned()
                .collect();
            if left.is_empty() {
                break;
            }
            match self.image_of(source.as_ref()).await {
                Ok((image, words)) => {
                    for app in left {
                        match self.director.agree(&image, &app, self.clock.now()) {
                            Ok(agreed) => {
                                let words = words_for(&words, &image, &app);
                                named.insert(app, Named { agreed, words });
                            }
                            Err(disagreed) => {
                                let reason = reason_of(&disagreed, &image, &app);
                                let reason = format!("{}: {reason}", source.name());
                                refused.insert(app.clone());
                                why.insert(app.clone(), self.told(&app, "app-unproven", reason));
                            }
                        }
                    }
                }
                Err((code, reason, is_refusal)) => {
                    tracing::warn!(source = %source.name(), code, %reason, "no use of this source for applications");
                    for app in left {
                        // That a source is away must not hide that another one was refused.
                        if is_refusal {
                            refused.insert(app.clone());
                        } else if refused.contains(&app) {
                            continue;
                        }
                        let reason = format!("{}: {reason}", source.name());
                        why.insert(app.clone(), self.told(&app, code, reason));
                    }
                }
            }
        }
        for app in self.wants.iter().filter(|app| !named.contains_key(*app)) {
            let told = why.remove(app).unwrap_or_else(|| {
                self.told(app, "apps-no-source", "there is nowhere to ask".to_owned())
            });
            match refused.contains(app) {
                true => prepared.refused.push(told),
                false => prepared.missed.push(told),
            }
        }
        named
    }

    /// The repository as a source gives it. Whatever was verified of it is stored before it is used.
    async fn image_of(
        &self,
        source: &dyn Source,
    ) -> Result<(Image, Words), (&'static str, String, bool)> {
        let taken = self.floors.now().await;
        let root = match taken.root.0.is_empty() {
            false => taken.root.0.clone(),
            true => self.root_from(source).await?,
        };
        let publishers = edgeward_apps::admit::publishers(&self.director, &self.rules);
        let now = self.clock.now();
        let refreshed = refresh(source, &root, &taken.image, publishers, now).await;
        let kept = self.floors.change(false, |taken| {
            taken.root = refreshed.root.into();
            taken.image = refreshed.floors;
        });
        kept.await
            .map_err(|error| ("state-unwritable", error.to_string(), false))?;
        match refreshed.image {
            Ok(image) => {
                let words = self.words(&image);
                Ok((image, words))
            }
            Err(NotRefreshed::Fetched(error)) => {
                Err(("apps-unreachable", error.to_string(), false))
            }
            Err(NotRefreshed::Refused(refused)) => {
                Err((code_of(&refused), refused.to_string(), true))
            }
        }
    }

    async fn root_from(
        &self,
        source: &dyn Source,
    ) -> Result<Vec<u8>, (&'static str, String, bool)> {
        if let Some(root) = &self.first_root {
            return Ok(root.clone());
        }
        let none = || {
            let why =
                "no root of the image repository is known: apps.root, or apps_root in the policy";
            ("apps-no-root", why.to_owned(), false)
        };
        let digest = self.rules.image_root.ok_or_else(none)?;
        match pinned_root(source, digest).await {
            Ok(Some(root)) => Ok(root),
            Ok(None) => Err((
                "apps-no-root",
                format!("has no root with the digest that the policy pins: {digest}"),
                false,
            )),
            Err(error) => Err(("apps-unreachable", error.to_string(), false)),
        }
    }

    /// Fetches manifests and judges them, in order: each raises the floors for those after it.
    async fn admit(&self, named: BTreeMap<AppName, Named>, prepared: &mut Prepared) -> Vec<Wanted> {
        let mut floors: AppFloors = self.floors.now().await.apps;
        let mut admitted = Vec::new();
        for (app, Named { agreed, words }) in named {
            let Some(bytes) = self.manifest(&agreed).await else {
                let reason = "no source has its manifest".to_owned();
                prepared
                    .missed
                    .push(self.told(&app, "apps-unreachable", reason));
                continue;
            };
            let now = self.clock.now();
            match admit(&agreed, &bytes, &self.director, &self.rules, &floors, now) {
                Ok(release) => {
                    floors.clone_from(release.floors());
                    admitted.push(Wanted {
                        release,
                        bytes,
                        words,
                    });
                }
                Err(refused) => prepared.refused.push(self.refused(&app, &refused)),
            }
        }
        admitted
    }

    /// The bytes that both sides name, from whoever has them.
    async fn manifest(&self, agreed: &Agreed) -> Option<Vec<u8>> {
        let installer = self.installer.clone();
        let digest = agreed.release().digest;
        let held = tokio::task::spawn_blocking(move || installer.manifest_bytes(&digest).ok());
        if let Ok(Some(bytes)) = held.await {
            return Some(bytes);
        }
        for source in &self.sources {
            match source.manifest(agreed.release()).await {
                Ok(Some(bytes)) if agreed.manifest(&bytes).is_ok() => return Some(bytes),
                Ok(Some(_)) => {
                    tracing::warn!(source = %source.name(), app = %agreed.release().app, "not the manifest that was signed")
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(source = %source.name(), %error, "no manifest"),
            }
        }
        None
    }

    fn words(&self, image: &Image) -> Words {
        let role = |role: &str| {
            let floor = image.floors().roles.get(role);
            floor.map_or(0, |floor| floor.version)
        };
        Words {
            root: image.floors().root,
            timestamp: role("timestamp"),
            snapshot: role("snapshot"),
            targets: role("targets"),
            publisher: 0,
            director: self.director.number(),
            policy: self.policy,
        }
    }

    fn miss_all(
        &self,
        apps: &BTreeSet<AppName>,
        code: &'static str,
        reason: &str,
        prepared: &mut Prepared,
    ) {
        let told = apps
            .iter()
            .map(|app| self.told(app, code, reason.to_owned()));
        prepared.missed.extend(told);
    }

    fn refused(&self, app: &AppName, refused: &NotAdmitted) -> Told {
        self.told(app, refused.code(), refused.to_string())
    }

    fn told(&self, app: &AppName, code: &'static str, reason: String) -> Told {
        let assigned = self.director.orders().apps.get(app);
        Told {
            app: app.clone(),
            version: assigned
                .map(|assigned| assigned.version.to_string())
                .unwrap_or_default(),
            code,
            reason,
        }
    }
}

fn words_for(words: &Words, image: &Image, app: &AppName) -> Words {
    let floor = image.floors().roles.get(app.publisher().as_str());
    Words {
        publisher: floor.map_or(0, |floor| floor.version),
        ..*words
    }
}

/// What is wrong with a publisher's metadata says more than that it does not hold.
fn reason_of(disagreed: &Disagreed, image: &Image, app: &AppName) -> String {
    match (disagreed, image.refused().get(app.publisher())) {
        (Disagreed::Image(ImageRefused::Publisher(_)), Some(why)) => {
            format!("{disagreed}: {why}")
        }
        _ => disagreed.to_string(),
    }
}

/// Stable.
fn code_of(refused: &ImageRefused) -> &'static str {
    match refused {
        ImageRefused::Rollback { .. } => "metadata-rollback",
        ImageRefused::Ambiguous { .. } => "metadata-malformed",
        ImageRefused::Unverified {
            source: edgeward_apps::image::MetadataError::Expired { .. },
            ..
        }
        | ImageRefused::Expired => "metadata-expired",
        ImageRefused::Missing(_) => "metadata-missing",
        _ => "metadata-unproven",
    }
}
