//! Which TPMs are believed to be TPMs: certificates of their makers and single EKs, from a folder and from operators.
//!
//! Two sources are read as one: the folder `ek_roots` of the configuration (`ek/folder.rs`) and what operators put into the
//! store with `edgeward ek-roots` ([`crate::store::eks`]). A certificate that the built-in list ([`pins`]) knows has the
//! tier written there; any other one has the tier that its folder or its operator says. Either way it is this very
//! certificate that is trusted, so a pinned intermediate ends a path as a root does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_evidence::ek::roots::certificates_of;
use edgeward_evidence::ek::{EkFile, EkLists, Terms};
use edgeward_evidence::{Digest, EkRoots};
use edgeward_identity::{Tier, Timestamp};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::store::eks::{EkCertificate, EkList};
use crate::store::{Store, StoreError};

mod folder;
mod import;
pub mod pins;

pub use folder::RootsFault;
pub use import::{NotImported, Wanted, import};

use folder::{OnDisk, Seen};

/// How often folder and store are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Longest subject shown, in characters.
const MAX_SUBJECT_CHARS: usize = 256;

/// The trust store in force, read again when either source changes.
pub struct EkTrust {
    folder: PathBuf,
    store: Store,
    current: Arc<ArcSwap<EkRoots>>,
    known: ArcSwap<Vec<Known>>,
    seen: Mutex<Option<(Vec<Seen>, u64)>>,
}

/// A certificate of the trust store as operators are shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// SHA-256 of the DER.
    pub sha256: Digest,
    pub subject: String,
    pub tier: Tier,
    pub expires: Timestamp,
    pub source: Source,
    pub terms: Terms,
    /// Whether the built-in list knows it.
    pub pinned: bool,
    /// Why it counts for nothing; stable code.
    pub refused: Option<&'static str>,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `<tier>/<file>` in the folder.
    File(String),
    /// Imported by this operator.
    Operator(String),
}

/// Why the trust store cannot be read. The operator's, or the database's.
#[derive(Debug, thiserror::Error)]
pub enum TrustFault {
    #[error(transparent)]
    Folder(#[from] RootsFault),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EkTrust {
    /// A folder that cannot be read stops the start.
    pub async fn load(folder: &Path, store: Store) -> Result<Arc<Self>, TrustFault> {
        let trust = Self {
            folder: folder.to_owned(),
            store,
            current: Arc::default(),
            known: ArcSwap::default(),
            seen: Mutex::default(),
        };
        trust.look().await?;
        Ok(Arc::new(trust))
    }

    /// What enrolments are judged by; always the newest.
    pub fn current(&self) -> Arc<ArcSwap<EkRoots>> {
        self.current.clone()
    }

    pub fn known(&self) -> Arc<Vec<Known>> {
        self.known.load_full()
    }

    /// Looks every [`LOOK_EVERY`] until `stop`. What cannot be read leaves what was there before.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Err(fault) = self.look().await {
                tracing::error!(%fault, "ek trust store cannot be read: the one before stays");
            }
        }
    }

    /// Reads both sources again if either has changed.
    pub async fn look(&self) -> Result<(), TrustFault> {
        let seen = (folder::seen(&self.folder)?, self.store.ek_changes().await?);
        if self.seen.lock().as_ref() == Some(&seen) {
            return Ok(());
        }
        let files = folder::certificates(&self.folder)?;
        let mut lists = folder::lists(&self.folder)?;
        let imported = self.store.ek_certificates().await?;
        for ek in self.store.listed_eks().await? {
            list_of(&mut lists, ek.list).insert(ek.digest);
        }
        let (roots, known) = put_together(&files, &imported, lists);
        for known in known.iter().filter(|known| known.refused.is_some()) {
            tracing::warn!(certificate = %known.sha256, subject = known.subject, code = known.refused,
                "left out of the ek trust store");
        }
        self.current.store(Arc::new(roots));
        self.known.store(Arc::new(known));
        *self.seen.lock() = Some(seen);
        tracing::info!("ek trust store read");
        Ok(())
    }
}

fn list_of(lists: &mut EkLists, list: EkList) -> &mut BTreeSet<Digest> {
    match list {
        EkList::Allowed => &mut lists.listed,
        EkList::Denied => &mut lists.denied,
        EkList::Encoding => &mut lists.sets_in_any_order,
    }
}

fn put_together(
    files: &[OnDisk],
    imported: &[EkCertificate],
    lists: EkLists,
) -> (EkRoots, Vec<Known>) {
    let mut certificates: Vec<(Known, Vec<u8>)> = Vec::new();
    for file in files {
        match certificates_of(&file.bytes) {
            Ok(found) => certificates.extend(found.into_iter().enumerate().map(|(index, der)| {
                let name = match index {
                    0 => file.name.clone(),
                    later => format!("{}#{}", file.name, later + 1),
                };
                let known = describe(&der, file.tier, Source::File(name), Terms::default());
                (known, der)
            })),
            Err(refused) => {
                tracing::warn!(file = file.name, %refused, "left out of the ek trust store");
            }
        }
    }
    certificates.extend(imported.iter().map(|row| {
        let source = Source::Operator(row.added_by.clone());
        let terms = Terms {
            anchor: true,
            sets_in_any_order: row.sets_in_any_order,
            after_its_end: row.after_its_end,
        };
        (describe(&row.der, row.tier, source, terms), row.der.clone())
    }));
    let names: Vec<String> = certificates
        .iter()
        .map(|(known, _)| match &known.source {
            Source::File(name) => name.clone(),
            Source::Operator(_) => format!("imported/{}", known.sha256),
        })
        .collect();
    let pinned: Vec<EkFile<'_>> = certificates
        .iter()
        .zip(&names)
        .map(|((known, der), name)| EkFile {
            tier: known.tier,
            name,
            bytes: der,
            terms: known.terms,
        })
        .collect();
    let (roots, refused) = EkRoots::load(&pinned, lists);
    let mut refused = refused.into_iter().peekable();
    // Refusals come in the order of the certificates, under their names.
    let mut known = Vec::with_capacity(names.len());
    for ((about, _), name) in certificates.iter().zip(&names) {
        known.push(Known {
            refused: refused
                .next_if(|refused| refused.name == *name)
                .map(|refused| refused.code()),
            ..about.clone()
        });
    }
    (roots, known)
}

/// The subject for people: bounded, and free of control characters.
pub(crate) fn subject_of(der: &[u8]) -> String {
    x509_parser::parse_x509_certificate(der).map_or_else(
        |_| String::new(),
        |(_, parsed)| {
            let subject = parsed.subject().to_string();
            let printable = subject.chars().filter(|c| !c.is_control());
            printable.take(MAX_SUBJECT_CHARS).collect()
        },
    )
}

/// What a certificate in a file or row says of itself, and the terms that the built-in list gives it.
fn describe(der: &[u8], tier: Tier, source: Source, terms: Terms) -> Known {
    let sha256 = Digest::of(der);
    let pin = pins::Pins::built_in().of(&sha256);
    let expires = x509_parser::parse_x509_certificate(der)
        .map_or(0, |(_, parsed)| parsed.validity().not_after.timestamp());
    Known {
        sha256,
        subject: subject_of(der),
        tier,
        expires: Timestamp::from_secs(u64::try_from(expires).unwrap_or(0)),
        source,
        terms: Terms {
            anchor: terms.anchor || pin.is_some(),
            sets_in_any_order: terms.sets_in_any_order
                || pin.is_some_and(|pin| pin.sets_in_any_order),
            ..terms
        },
        pinned: pin.is_some(),
        refused: None,
    }
}

#[cfg(test)]
mod tests;
