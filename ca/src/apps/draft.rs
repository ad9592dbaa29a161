//! A change of the repository before it is in force: what stood, what comes, signed for online, judged, written.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_apps::author::Pin;
use edgeward_apps::image::{Image, StatedRoot};
use edgeward_apps::{Digest, ImageFloors, PublisherKeys, PublisherName, Refresh};
use edgeward_audit::Event;
use edgeward_audit::event::Actor;
use edgeward_identity::Timestamp;

use super::intake::{Named, Taken};
use super::online::{self, After, Before, Signed};
use super::refusal::NotTaken;
use super::repository::Repository;
use crate::store::apps::{NewRole, ReleaseRow, RoleRow};

/// How many files of a role stay when newer ones came: a node in the middle of a refresh still finds what it was told.
const KEPT: u32 = 16;
pub(super) const ROOT: &str = "root";
pub(super) const IMAGE: &str = "targets";
pub(super) const SNAPSHOT: &str = "snapshot";
pub(super) const TIMESTAMP: &str = "timestamp";

/// What was in force when the upload came.
pub(super) struct Base {
    changes: u64,
    pub(super) roles: BTreeMap<String, RoleRow>,
    pub(super) floors: ImageFloors,
    pub(super) root: Option<Vec<u8>>,
}

/// One file that comes into force.
pub(super) struct Put {
    role: String,
    version: u64,
    expires: Timestamp,
    bytes: Vec<u8>,
}

/// What comes into force together, or not at all.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) put: Vec<Put>,
    pub(super) gone: Vec<PublisherName>,
    pub(super) releases: Vec<ReleaseRow>,
    pub(super) withdrawn: Vec<Named>,
}

impl Repository {
    pub(super) async fn base(&self) -> Result<Base, NotTaken> {
        self.look().await?;
        let known = self.releases();
        let root = match known.roles.get(ROOT) {
            Some(role) => self.store.apps_metadata(&role.name).await?,
            None => None,
        };
        Ok(Base {
            changes: known.changes,
            roles: known.roles.clone(),
            floors: known.floors.clone(),
            root,
        })
    }

    /// Snapshot and timestamp over what will be in force; nothing while there is no image role.
    pub(super) fn sign(
        &self,
        base: &Base,
        draft: &mut Draft,
        is_changed: bool,
        now: Timestamp,
    ) -> Result<(), NotTaken> {
        let pins = pins(base, draft);
        if !pins.contains_key(IMAGE) {
            return Ok(());
        }
        let ttl = self.config.timestamp_ttl;
        let root = draft.file_of(ROOT).or(base.root.as_deref());
        let root = StatedRoot::read(root.ok_or(NotTaken::Before(ROOT))?)?;
        let key = self.online_signer(&root)?;
        let After {
            snapshot,
            timestamp,
        } = online::sign(key.as_ref(), &pins, is_changed, &base.online(), ttl, now)?;
        if let Some(made) = snapshot {
            draft.put(SNAPSHOT, made.version, made.expires, made.bytes);
        }
        draft.put(
            TIMESTAMP,
            timestamp.version,
            timestamp.expires,
            timestamp.bytes,
        );
        Ok(())
    }

    /// What a node says of the repository as it would be.
    pub(super) async fn judge(
        &self,
        base: &Base,
        draft: &Draft,
        publishers: Vec<(PublisherName, PublisherKeys)>,
        now: Timestamp,
    ) -> Result<Image, NotTaken> {
        let held = match draft.file_of(ROOT) {
            Some(root) => root,
            None => base.root.as_deref().ok_or(NotTaken::Before(ROOT))?,
        };
        let mut refresh = Refresh::new(held, base.floors.clone(), publishers, now)?;
        while let Some(wanted) = refresh.wanted()? {
            let stored;
            let bytes = match draft.file(&wanted.name) {
                Some(bytes) => Some(bytes),
                None => {
                    stored = self.store.apps_metadata(&wanted.name).await?;
                    stored.as_deref()
                }
            };
            refresh.give(bytes)?;
        }
        Ok(refresh.finish()?)
    }

    pub(super) async fn commit(
        &self,
        base: &Base,
        draft: Draft,
        by: &Actor,
        events: Vec<Event>,
        now: Timestamp,
    ) -> Result<(), NotTaken> {
        let by = by.to_string();
        let mut tx = self.store.begin("apps.change").await?;
        if tx.apps_changes().await? != base.changes {
            return Err(NotTaken::Busy);
        }
        for put in &draft.put {
            let name = put.name();
            let file = NewRole {
                name: &name,
                role: &put.role,
                version: put.version,
                expires: put.expires,
                bytes: &put.bytes,
            };
            tx.put_apps_metadata(&file, now, &by).await?;
            if put.role != ROOT {
                tx.prune_apps_role(&put.role, KEPT).await?;
            }
        }
        for publisher in &draft.gone {
            tx.end_apps_role(publisher.as_str()).await?;
            tx.withdraw_apps_publisher(publisher, now).await?;
        }
        for row in &draft.releases {
            tx.put_apps_release(row).await?;
        }
        for gone in &draft.withdrawn {
            tx.withdraw_apps_release(&gone.app, &gone.version, now)
                .await?;
        }
        tx.set_apps_floors(&base.floors).await?;
        tx.apps_changed().await?;
        for event in events {
            self.audit.record_in(&mut tx, event).await?;
        }
        tx.commit().await?;
        self.look().await?;
        Ok(())
    }
}

impl Base {
    fn online(&self) -> Before {
        let of = |role: &str| {
            let row = self.roles.get(role)?;
            Some(Signed {
                pin: pin_of(row),
                expires: row.expires,
            })
        };
        Before {
            snapshot: of(SNAPSHOT),
            timestamp: of(TIMESTAMP),
        }
    }

    /// Those with releases in force.
    pub(super) fn publishers(&self) -> impl Iterator<Item = PublisherName> + '_ {
        self.roles.keys().filter_map(|role| role.parse().ok())
    }

    pub(super) fn is_due(&self, ttl: std::time::Duration, now: Timestamp) -> bool {
        self.roles.contains_key(IMAGE) && online::is_due(&self.online(), ttl, now)
    }
}

impl Put {
    /// As consistent snapshots name it.
    fn name(&self) -> String {
        match self.role.as_str() {
            TIMESTAMP => "timestamp.json".to_owned(),
            role => format!("{}.{role}.json", self.version),
        }
    }
}

impl Draft {
    pub(super) fn put(&mut self, role: &str, version: u64, expires: Timestamp, bytes: Vec<u8>) {
        self.put.push(Put {
            role: role.to_owned(),
            version,
            expires,
            bytes,
        });
    }

    fn file(&self, name: &str) -> Option<&[u8]> {
        let put = self.put.iter().find(|put| put.name() == name)?;
        Some(&put.bytes)
    }

    fn file_of(&self, role: &str) -> Option<&[u8]> {
        let put = self.put.iter().find(|put| put.role == role)?;
        Some(&put.bytes)
    }
}

/// What a snapshot names: the image role, and every publisher's file.
pub(super) fn pins(base: &Base, draft: &Draft) -> BTreeMap<String, Pin> {
    let gone: BTreeSet<&str> = draft.gone.iter().map(PublisherName::as_str).collect();
    let named = |role: &str| !matches!(role, ROOT | SNAPSHOT | TIMESTAMP);
    let mut pins: BTreeMap<String, Pin> = base
        .roles
        .values()
        .filter(|row| named(&row.role) && !gone.contains(row.role.as_str()))
        .map(|row| (row.role.clone(), pin_of(row)))
        .collect();
    let put = draft.put.iter().filter(|put| named(&put.role));
    pins.extend(put.map(|put| (put.role.clone(), Pin::of(put.version, &put.bytes))));
    pins
}

fn pin_of(row: &RoleRow) -> Pin {
    Pin {
        version: row.version,
        length: row.length,
        digest: row.sha256,
    }
}

/// The file in force, if it is this one. Another one under its version is refused.
pub(super) fn same(
    base: &Base,
    role: &str,
    version: u64,
    bytes: &[u8],
) -> Result<Option<Taken>, NotTaken> {
    let Some(row) = base.roles.get(role).filter(|row| row.version == version) else {
        return Ok(None);
    };
    match row.sha256 == Digest::of(bytes) {
        true => Ok(Some(Taken {
            version,
            expires: row.expires,
            no_longer_hold: Vec::new(),
        })),
        false => Err(NotTaken::SameVersion {
            role: role.to_owned(),
            version,
        }),
    }
}
