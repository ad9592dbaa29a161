//! What the repository needs now and then: what another cloud changed is read, timestamps are signed before they end,
//! content that nobody names goes, and whoever holds offline keys is told in time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use edgeward_apps::image::StatedRoot;
use edgeward_apps::{Digest, Manifest, PublisherName};
use edgeward_audit::event::Actor;
use edgeward_identity::Timestamp;
use tokio_util::sync::CancellationToken;

use super::draft::{Draft, IMAGE, ROOT, SNAPSHOT, TIMESTAMP};
use super::refusal::NotTaken;
use super::repository::{Repository, Usage};
use super::shelf::{Kind, Shelf};

/// How often another cloud's changes are looked for, and whether a timestamp is due.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often content is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(6 * 3600);
/// How often it is said that an offline role ends.
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);
/// How long before its end an offline role has to be signed anew, by when it is said more urgently each time.
const WARN_BEFORE: [Duration; 3] = [
    Duration::from_secs(60 * 86_400),
    Duration::from_secs(30 * 86_400),
    Duration::from_secs(7 * 86_400),
];

/// An offline role that ends soon, or has ended: then nodes install nothing of what rests on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// `root`, `targets` or a publisher.
    pub role: String,
    pub expires: Timestamp,
    /// 1: within 60 days, 2: within 30, 3: within 7, 4: it has ended.
    pub urgency: u8,
}

impl Repository {
    /// Runs until `stop`. What fails is tried again at the next turn, and said each time.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let (mut swept, mut warned): (Option<Timestamp>, Option<Timestamp>) = (None, None);
        loop {
            let now = self.clock.now();
            if let Err(error) = self.look().await {
                tracing::error!(%error, "the repository of applications cannot be read");
            }
            if let Err(error) = self.renew(now).await {
                tracing::error!(%error, code = error.code(), "timestamp of the repository of applications cannot be renewed");
            }
            if swept.is_none_or(|at| now.since(at) >= SWEEP_EVERY) {
                swept = Some(now);
                if let Err(error) = self.sweep().await {
                    tracing::error!(%error, "content of applications cannot be swept");
                }
            }
            self.gauge();
            if warned.is_none_or(|at| now.since(at) >= WARN_EVERY) {
                warned = Some(now);
                for ending in self.endings(now) {
                    let days = ending.expires.since(now).as_secs() / 86_400;
                    tracing::warn!(role = ending.role, expires = %ending.expires, days,
                        "offline role of the repository of applications ends: sign it anew");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// A new timestamp, if one is due, and a new snapshot with it where that has not long to go. Whether there is one.
    pub async fn renew(&self, now: Timestamp) -> Result<bool, NotTaken> {
        let _turn = self.turn.lock().await;
        let mut base = self.base().await?;
        if !base.is_due(self.config.timestamp_ttl, now) {
            return Ok(false);
        }
        let mut draft = Draft::default();
        self.sign(&base, &mut draft, false, now)?;
        // What no node would take is not put in the place of what some still may.
        let image = self.judge(&base, &draft, Vec::new(), now).await?;
        base.floors = image.floors().clone();
        match self
            .commit(&base, draft, &Actor::Cloud, Vec::new(), now)
            .await
        {
            // Another cloud was faster.
            Err(NotTaken::Busy) => return Ok(false),
            done => done?,
        }
        if let Some(root) = &base.root {
            self.settle_online_key(&StatedRoot::read(root)?);
        }
        Ok(true)
    }

    /// Removes content that no release names, and counts what is there.
    pub async fn sweep(&self) -> Result<(), NotTaken> {
        let _turn = self.turn.lock().await;
        let rows = self.store.apps_releases().await?;
        let named: Vec<(PublisherName, Digest)> = rows
            .into_iter()
            .filter(|row| row.withdrawn.is_none())
            .map(|row| (row.app.publisher().clone(), row.digest))
            .collect();
        let usage = self.on_shelf(move |shelf| swept(shelf, &named)).await?;
        *self.usage.lock() = usage;
        Ok(())
    }

    /// Offline roles that somebody should sign anew, the most urgent first.
    pub fn endings(&self, now: Timestamp) -> Vec<Ending> {
        let releases = self.releases();
        let offline = releases
            .roles
            .values()
            .filter(|role| !matches!(role.role.as_str(), SNAPSHOT | TIMESTAMP));
        let mut endings: Vec<Ending> = offline
            .filter_map(|role| {
                let urgency = urgency(role.expires, now)?;
                Some(Ending {
                    role: role.role.clone(),
                    expires: role.expires,
                    urgency,
                })
            })
            .collect();
        endings.sort_by_key(|ending| (std::cmp::Reverse(ending.urgency), ending.expires));
        endings
    }

    /// When each role ends (publishers: the one that ends first), and what content takes.
    fn gauge(&self) {
        let releases = self.releases();
        let mut publishers: Option<Timestamp> = None;
        for role in releases.roles.values() {
            let gauge = |name: &'static str, end: Timestamp| {
                metrics::gauge!("edgeward_apps_role_not_after_seconds", "role" => name)
                    .set(whole(end.secs()));
            };
            match role.role.as_str() {
                ROOT => gauge("root", role.expires),
                IMAGE => gauge("targets", role.expires),
                SNAPSHOT => gauge("snapshot", role.expires),
                TIMESTAMP => gauge("timestamp", role.expires),
                _ => {
                    let first = publishers.map_or(role.expires, |end| end.min(role.expires));
                    publishers = Some(first);
                    gauge("publisher", first);
                }
            }
        }
        let count: usize = releases.apps.values().map(BTreeMap::len).sum();
        metrics::gauge!("edgeward_apps_releases").set(whole(count as u64));
        metrics::gauge!("edgeward_apps_stored_bytes").set(whole(self.usage.lock().total));
    }
}

fn urgency(expires: Timestamp, now: Timestamp) -> Option<u8> {
    let left = expires.since(now);
    let passed = WARN_BEFORE.iter().filter(|before| left <= **before).count();
    let ended = usize::from(now >= expires);
    u8::try_from(passed.saturating_add(ended))
        .ok()
        .filter(|urgency| *urgency > 0)
}

/// What each publisher's releases hold. A chunk that several have counts for the first of them.
fn swept(shelf: &Shelf, named: &[(PublisherName, Digest)]) -> Result<Usage, NotTaken> {
    let mut usage = Usage::default();
    let (mut chunks, mut manifests) = (BTreeSet::new(), BTreeSet::new());
    for (publisher, digest) in named {
        if !manifests.insert(*digest) {
            continue;
        }
        let own = usage.publishers.entry(publisher.clone()).or_default();
        let Some(bytes) = shelf.read(Kind::Manifest, digest)? else {
            tracing::error!(manifest = %digest, %publisher, "manifest of a release is gone: publish it again");
            continue;
        };
        *own = own.saturating_add(bytes.len() as u64);
        let manifest = Manifest::parse(&bytes).map_err(NotTaken::Manifest)?;
        for chunk in manifest.chunks() {
            if chunks.insert(chunk.digest) {
                *own = own.saturating_add(u64::from(chunk.size));
            }
        }
    }
    for (kind, kept) in [(Kind::Chunk, &chunks), (Kind::Manifest, &manifests)] {
        let swept = shelf.sweep(kind, kept)?;
        usage.total = usage.total.saturating_add(swept.bytes);
        if swept.removed > 0 {
            tracing::info!(
                removed = swept.removed,
                ?kind,
                "content that no release names was removed"
            );
        }
    }
    shelf.sweep_parts()?;
    Ok(usage)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "seconds since 1970, counts and bytes on a disk are far below 2^52"
)]
fn whole(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_of_at_sixty_thirty_and_seven_days_and_after_it() {
        let now = Timestamp::from_secs(1_800_000_000);
        let days = |days: u64| now.plus(Duration::from_secs(days * 86_400));
        assert_eq!(urgency(days(61), now), None);
        assert_eq!(urgency(days(60), now), Some(1));
        assert_eq!(urgency(days(30), now), Some(2));
        assert_eq!(urgency(days(6), now), Some(3));
        assert_eq!(urgency(now, now), Some(4));
    }
}
