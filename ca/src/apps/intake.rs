//! An upload of metadata: judged as a node would judge the repository with it, then in force at once and logged, or
//! refused. Nobody's word is taken for more than its signatures say; whoever uploads only carries.

use std::collections::BTreeMap;

use edgeward_apps::image::{StatedImage, StatedManifest, StatedReleases, StatedRoot};
use edgeward_apps::{AppName, Digest, Manifest, PublisherKeys, PublisherName, Refresh, Version};
use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_identity::Timestamp;

use super::draft::{Base, Draft, IMAGE, ROOT, pins, same};
use super::refusal::{MAX_NAMED, NotTaken};
use super::repository::Repository;
use super::shelf::{Kind, Shelf};
use crate::store::apps::ReleaseRow;

/// A root or an image role that is in force now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub version: u64,
    pub expires: Timestamp,
    /// What has to be signed anew before nodes take it again: `targets`, or publishers.
    pub no_longer_hold: Vec<String>,
}

/// A publisher's releases that are in force now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenReleases {
    pub version: u64,
    pub expires: Timestamp,
    pub published: Vec<Named>,
    pub withdrawn: Vec<Named>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub app: AppName,
    pub version: Version,
    pub digest: Digest,
}

impl Repository {
    /// A root: the first one, or the one after that in force.
    pub async fn take_root(&self, bytes: Vec<u8>, by: &Actor) -> Result<Taken, NotTaken> {
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        let stated = StatedRoot::read(&bytes)?;
        let mut base = self.base().await?;
        if let Some(same) = same(&base, ROOT, stated.version, &bytes)? {
            return Ok(same);
        }
        let floors = std::mem::take(&mut base.floors);
        let mut refresh = match &base.root {
            Some(held) => {
                let mut refresh = Refresh::new(held, floors, Vec::new(), now)?;
                refresh.give(Some(&bytes))?;
                refresh
            }
            None => Refresh::new(&bytes, floors, Vec::new(), now)?,
        };
        // Ends the chain here: it must be good today, and of the kind that nodes want.
        refresh.give(None)?;
        base.floors = refresh.floors().clone();
        self.online_signer(&stated)?;
        let digest = Digest::of(&bytes);
        let mut draft = Draft::default();
        draft.put(ROOT, stated.version, stated.expires, bytes);
        self.sign(&base, &mut draft, true, now)?;
        let no_longer_hold = self.what_fails(&mut base, &draft, None, now).await?;
        let event = changed(by, ROOT, stated.version, digest, now);
        self.commit(&base, draft, by, vec![event], now).await?;
        self.settle_online_key(&stated);
        Ok(Taken {
            version: stated.version,
            expires: stated.expires,
            no_longer_hold,
        })
    }

    /// The image role: which publishers there are, and by which keys.
    pub async fn take_image(&self, bytes: Vec<u8>, by: &Actor) -> Result<Taken, NotTaken> {
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        let stated = StatedImage::read(&bytes)?;
        let mut base = self.base().await?;
        if base.root.is_none() {
            return Err(NotTaken::Before(ROOT));
        }
        if let Some(same) = same(&base, IMAGE, stated.version, &bytes)? {
            return Ok(same);
        }
        let digest = Digest::of(&bytes);
        let mut draft = Draft {
            gone: base
                .publishers()
                .filter(|publisher| !stated.publishers.contains_key(publisher))
                .collect(),
            ..Draft::default()
        };
        draft.put(IMAGE, stated.version, stated.expires, bytes);
        self.sign(&base, &mut draft, true, now)?;
        let image = self.judge(&base, &draft, Vec::new(), now).await?;
        base.floors = image.floors().clone();
        let no_longer_hold = self
            .what_fails(&mut base, &draft, Some(&stated), now)
            .await?;
        let before = self.releases();
        let (now_named, named) = (&stated.publishers, &before.publishers);
        let differ = now_named
            .keys()
            .filter(|name| named.get(*name) != now_named.get(*name));
        let removed = named.keys().filter(|name| !now_named.contains_key(*name));
        let event = changed(by, IMAGE, stated.version, digest, now)
            .detail("publishers", joined(differ))
            .detail("removed", joined(removed));
        self.commit(&base, draft, by, vec![event], now).await?;
        Ok(Taken {
            version: stated.version,
            expires: stated.expires,
            no_longer_hold,
        })
    }

    /// A publisher's releases. `policy` is what the policy in force says of its keys; where it says nothing, the image
    /// role's word is enough to be published, and no node will take it yet.
    pub async fn take_releases(
        &self,
        publisher: &PublisherName,
        bytes: Vec<u8>,
        policy: Option<PublisherKeys>,
        by: &Actor,
    ) -> Result<TakenReleases, NotTaken> {
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        let stated = StatedReleases::read(publisher, &bytes)?;
        let mut base = self.base().await?;
        if !base.roles.contains_key(IMAGE) {
            return Err(NotTaken::Before("image role"));
        }
        let known = self.releases();
        let own = known.publishers.get(publisher);
        let own = own.ok_or_else(|| NotTaken::UnknownPublisher(publisher.clone()))?;
        if let Some(same) = same(&base, publisher.as_str(), stated.version, &bytes)? {
            return Ok(TakenReleases {
                version: same.version,
                expires: same.expires,
                published: Vec::new(),
                withdrawn: Vec::new(),
            });
        }
        let (published, withdrawn) = self.compare(publisher, &stated, by, now).await?;
        let mut draft = Draft {
            releases: published,
            withdrawn,
            ..Draft::default()
        };
        draft.put(publisher.as_str(), stated.version, stated.expires, bytes);
        self.sign(&base, &mut draft, true, now)?;
        let asked = vec![(publisher.clone(), policy.unwrap_or_else(|| own.clone()))];
        let image = self.judge(&base, &draft, asked, now).await?;
        base.floors = image.floors().clone();
        if let Some(why) = image.into_refused().remove(publisher) {
            return Err(NotTaken::Refused(why));
        }
        let published: Vec<Named> = draft.releases.iter().map(named).collect();
        let withdrawn = draft.withdrawn.clone();
        let events = events_of(&stated, &published, &withdrawn, by, now);
        self.commit(&base, draft, by, events, now).await?;
        Ok(TakenReleases {
            version: stated.version,
            expires: stated.expires,
            published,
            withdrawn,
        })
    }

    /// Which roles nodes will not take until they are signed anew. That stops nobody who takes stolen keys away.
    async fn what_fails(
        &self,
        base: &mut Base,
        draft: &Draft,
        image: Option<&StatedImage>,
        now: Timestamp,
    ) -> Result<Vec<String>, NotTaken> {
        let known = self.releases();
        let publishers = image.map_or(&known.publishers, |image| &image.publishers);
        let mut fail = Vec::new();
        for (publisher, keys) in publishers {
            if !base.roles.contains_key(publisher.as_str()) {
                continue;
            }
            let asked = vec![(publisher.clone(), keys.clone())];
            match self.judge(base, draft, asked, now).await {
                Ok(image) if image.refused().is_empty() => base.floors = image.floors().clone(),
                Ok(_) => fail.push(publisher.to_string()),
                Err(NotTaken::Refused(_)) => return Ok(vec![IMAGE.to_owned()]),
                Err(other) => return Err(other),
            }
        }
        if publishers.is_empty() && pins(base, draft).contains_key(IMAGE) {
            match self.judge(base, draft, Vec::new(), now).await {
                Ok(image) => base.floors = image.floors().clone(),
                Err(NotTaken::Refused(_)) => fail.push(IMAGE.to_owned()),
                Err(other) => return Err(other),
            }
        }
        Ok(fail)
    }

    /// What a publisher's file releases and withdraws. Every new release must be here, whole.
    async fn compare(
        &self,
        publisher: &PublisherName,
        stated: &StatedReleases,
        by: &Actor,
        now: Timestamp,
    ) -> Result<(Vec<ReleaseRow>, Vec<Named>), NotTaken> {
        check_equal(stated)?;
        let rows = self.store.apps_releases().await?;
        let known: BTreeMap<(AppName, String), ReleaseRow> = rows
            .into_iter()
            .filter(|row| row.app.publisher() == publisher)
            .map(|row| ((row.app.clone(), row.version.to_string()), row))
            .collect();
        let mut fresh = Vec::new();
        for (of, manifest) in &stated.releases {
            match known.get(of) {
                Some(row) if row.digest != manifest.digest || row.length != manifest.length => {
                    return Err(NotTaken::Changed {
                        app: row.app.clone(),
                        version: row.version.clone(),
                    });
                }
                Some(row) if row.withdrawn.is_none() => {}
                _ => fresh.push((of.0.clone(), manifest.clone())),
            }
        }
        let withdrawn = known
            .iter()
            .filter(|(of, row)| row.withdrawn.is_none() && !stated.releases.contains_key(*of))
            .map(|(_, row)| named(row))
            .collect();
        let by = by.to_string();
        let fresh = self
            .on_shelf(move |shelf| {
                let rows = fresh.into_iter();
                rows.map(|(app, manifest)| complete(shelf, app, &manifest, &by, now))
                    .collect::<Result<Vec<_>, _>>()
            })
            .await?;
        Ok((fresh, withdrawn))
    }
}

/// A node compares versions by their numbers: of two equal ones it could not say which is newer.
fn check_equal(stated: &StatedReleases) -> Result<(), NotTaken> {
    let mut seen: BTreeMap<(&AppName, &Version), &str> = BTreeMap::new();
    for ((app, text), manifest) in &stated.releases {
        if let Some(other) = seen.insert((app, &manifest.version), text) {
            return Err(NotTaken::Equal {
                app: app.clone(),
                version: text.clone(),
                other: other.to_owned(),
            });
        }
    }
    Ok(())
}

/// The row of a release whose manifest and content are here.
fn complete(
    shelf: &Shelf,
    app: AppName,
    stated: &StatedManifest,
    by: &str,
    now: Timestamp,
) -> Result<ReleaseRow, NotTaken> {
    let version = stated.version.clone();
    let incomplete = |app: AppName, version, missing: Vec<Digest>| NotTaken::Incomplete {
        app,
        version,
        count: missing.len(),
        missing: missing.into_iter().take(MAX_NAMED).collect(),
    };
    let Some(bytes) = shelf.read(Kind::Manifest, &stated.digest)? else {
        return Err(incomplete(app, version, vec![stated.digest]));
    };
    let manifest = Manifest::parse(&bytes).map_err(NotTaken::Manifest)?;
    let is_that = manifest.app == app && manifest.version.to_string() == version.to_string();
    if !is_that || bytes.len() as u64 != stated.length {
        return Err(NotTaken::OtherRelease { app, version });
    }
    let mut missing = Vec::new();
    for chunk in manifest.chunks() {
        if shelf.find(Kind::Chunk, &chunk.digest)? != Some(u64::from(chunk.size)) {
            missing.push(chunk.digest);
        }
    }
    if !missing.is_empty() {
        return Err(incomplete(app, version, missing));
    }
    Ok(ReleaseRow {
        app,
        version,
        digest: stated.digest,
        length: stated.length,
        size: manifest.size(),
        published: now,
        published_by: by.to_owned(),
        withdrawn: None,
    })
}

fn named(row: &ReleaseRow) -> Named {
    Named {
        app: row.app.clone(),
        version: row.version.clone(),
        digest: row.digest,
    }
}

fn joined<'n>(names: impl Iterator<Item = &'n PublisherName>) -> String {
    let names: Vec<&str> = names.map(PublisherName::as_str).collect();
    names.join(" ")
}

fn changed(by: &Actor, role: &str, version: u64, digest: Digest, now: Timestamp) -> Event {
    Event::new(now, by.clone(), EventKind::PublisherChanged)
        .allowed()
        .detail("role", role)
        .detail("version", version)
        .detail("digest", digest)
}

/// One for each release; one that names what is withdrawn.
fn events_of(
    stated: &StatedReleases,
    published: &[Named],
    withdrawn: &[Named],
    by: &Actor,
    now: Timestamp,
) -> Vec<Event> {
    let event = |what: &Named| {
        Event::new(now, by.clone(), EventKind::AppPublished)
            .allowed()
            .detail("app", &what.app)
            .detail("version", &what.version)
            .detail("digest", what.digest)
            .detail("metadata", stated.version)
    };
    let mut events: Vec<Event> = published.iter().map(event).collect();
    events.extend(
        withdrawn
            .iter()
            .map(|gone| event(gone).detail("withdrawn", true)),
    );
    events
}
