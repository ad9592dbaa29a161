//! Metadata on its way from signer to signer: by whose word it needs signatures, who signed, who is missing, and what
//! it changes. Nobody should sign what they were not shown.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_apps::PublisherName;
use edgeward_apps::author::{Envelope, Kind, Signers, Tally, Unauthored};
use edgeward_apps::image::KeyText;
use edgeward_identity::{Clock, SystemClock};
use edgeward_runtime::screen::Table;
use serde::Serialize;

use super::repo::Repo;
use super::signing::SigningKey;
use super::{Failure, Session};
use crate::when;

pub(super) const ROOT: &str = "root";
pub(super) const IMAGE: &str = "targets";

/// Under whose word a role's signatures count. All must be content.
pub(super) struct Authorities(Vec<(String, Signers)>);

/// Where metadata stands on its way.
#[derive(Debug, Serialize)]
pub(super) struct Standing {
    pub(super) role: String,
    pub(super) version: u64,
    pub(super) expires: String,
    /// What it says that the version before it does not, and the other way round.
    pub(super) added: BTreeSet<String>,
    pub(super) removed: BTreeSet<String>,
    pub(super) authorities: Vec<Standpoint>,
    pub(super) complete: bool,
}

/// Signatures as one authority counts them.
#[derive(Debug, Serialize)]
pub(super) struct Standpoint {
    pub(super) by: String,
    pub(super) threshold: usize,
    pub(super) signed: BTreeSet<KeyText>,
    pub(super) missing: BTreeSet<KeyText>,
    /// Key ids whose signatures do not count.
    pub(super) others: Vec<String>,
}

impl Authorities {
    pub(super) fn of(
        repo: &Repo,
        role: &str,
        version: u64,
        envelope: &Envelope,
    ) -> Result<Self, Failure> {
        let named = |signers: Option<&Signers>, by: String| match signers {
            Some(signers) => Ok((by, signers.clone())),
            None => Err(Failure::Unsound(format!("{by} names no role {role}"))),
        };
        let found = match role {
            ROOT => {
                let own = envelope.top_roles().map_err(unsound)?;
                let mut found = vec![named(own.get(ROOT), format!("root {version}"))?];
                if let Some(before) = version.checked_sub(1).filter(|before| *before > 0) {
                    let roles = repo.read(ROOT, before)?.top_roles().map_err(unsound)?;
                    found.push(named(roles.get(ROOT), format!("root {before}"))?);
                }
                found
            }
            IMAGE => {
                let (number, root) = newest_signed(repo, ROOT)?;
                let roles = root.top_roles().map_err(unsound)?;
                vec![named(roles.get(IMAGE), format!("root {number}"))?]
            }
            publisher => {
                let name: PublisherName = publisher
                    .parse()
                    .map_err(|why| Failure::Usage(format!("{publisher}: {why}")))?;
                let (number, image) = newest_signed(repo, IMAGE)?;
                let publishers = image.publishers().map_err(unsound)?;
                vec![named(
                    publishers.get(&name),
                    format!("image role {number}"),
                )?]
            }
        };
        Ok(Self(found))
    }

    fn tallies(&self, envelope: &Envelope) -> Result<Vec<(&str, Tally)>, Failure> {
        self.0
            .iter()
            .map(|(by, signers)| Ok((by.as_str(), envelope.tally(signers).map_err(unsound)?)))
            .collect()
    }

    /// Whether signatures are there that do not count: of keys that were a publisher's once.
    pub(super) fn see_strangers(&self, envelope: &Envelope) -> Result<bool, Failure> {
        let tallies = self.tallies(envelope)?;
        Ok(tallies.iter().any(|(_, tally)| !tally.others.is_empty()))
    }

    /// Whether it may go to the cloud: enough signatures, which still hold. Else what is missing is shown.
    pub(super) fn demand(
        &self,
        session: &Session,
        (repo, role): (&Repo, &str),
        envelope: &Envelope,
        path: &std::path::Path,
    ) -> Result<(), Failure> {
        if !self.are_content(envelope)? {
            self.standing(repo, role, envelope)?.show(session, path);
            return Err(Failure::Unsound(format!(
                "{}: signatures are missing",
                path.display()
            )));
        }
        let end = envelope.expires().map_err(unsound)?;
        if end <= SystemClock.now() {
            let again = match role {
                ROOT => "edgeward publisher root renew".to_owned(),
                IMAGE => "edgeward publisher renew".to_owned(),
                publisher => format!("edgeward app sign --renew {publisher}"),
            };
            return Err(Failure::Unsound(format!(
                "{}: has expired, at {}: sign it anew: {again}",
                path.display(),
                when::format(end)
            )));
        }
        Ok(())
    }

    pub(super) fn are_content(&self, envelope: &Envelope) -> Result<bool, Failure> {
        let tallies = self.tallies(envelope)?;
        Ok(tallies.iter().all(|(_, tally)| tally.is_complete()))
    }

    /// Lets a key sign, if it is one whose signature counts.
    pub(super) fn sign(
        &self,
        envelope: &mut Envelope,
        key: &SigningKey,
    ) -> Result<KeyText, Failure> {
        let public = key.public()?;
        let known = |signers: &Signers| signers.keys.iter().any(|own| *own.text() == public);
        if !self.0.iter().any(|(_, signers)| known(signers)) {
            let by: Vec<&str> = self.0.iter().map(|(by, _)| by.as_str()).collect();
            return Err(Failure::Unsound(format!(
                "{public} is not a key that {} names: its signature would not count",
                by.join(" or ")
            )));
        }
        let signature = key.sign(&envelope.to_sign().map_err(unsound)?)?;
        for (_, signers) in self.0.iter().filter(|(_, signers)| known(signers)) {
            envelope
                .add_checked(signers, &public, &signature)
                .map_err(unsound)?;
        }
        Ok(public)
    }

    pub(super) fn standing(
        &self,
        repo: &Repo,
        role: &str,
        envelope: &Envelope,
    ) -> Result<Standing, Failure> {
        let version = envelope.version().map_err(unsound)?;
        let before = repo.versions(role)?.range(..version).last().copied();
        let before = before.map(|before| repo.read(role, before)).transpose()?;
        let facts = facts(envelope)?;
        let earlier = before
            .as_ref()
            .map_or_else(|| Ok(BTreeSet::new()), self::facts)?;
        let tallies = self.tallies(envelope)?;
        let complete = tallies.iter().all(|(_, tally)| tally.is_complete());
        let standpoint = |(by, tally): (&str, Tally)| Standpoint {
            by: by.to_owned(),
            threshold: tally.threshold,
            signed: tally.signed,
            missing: tally.missing,
            others: tally.others,
        };
        Ok(Standing {
            role: role.to_owned(),
            version,
            expires: when::format(envelope.expires().map_err(unsound)?),
            added: facts.difference(&earlier).cloned().collect(),
            removed: earlier.difference(&facts).cloned().collect(),
            complete,
            authorities: tallies.into_iter().map(standpoint).collect(),
        })
    }
}

impl Standing {
    pub(super) fn show(&self, session: &Session, path: &std::path::Path) {
        let screen = &session.screen;
        screen.tabulate(self, |standing| {
            let mut table = Table::new(&["FILE", "BY", "NEEDS", "SIGNED", "MISSING", "EXPIRES"]);
            for own in &standing.authorities {
                table.row([
                    path.display().to_string(),
                    own.by.clone(),
                    own.threshold.to_string(),
                    own.signed.len().to_string(),
                    own.threshold.saturating_sub(own.signed.len()).to_string(),
                    standing.expires.clone(),
                ]);
            }
            table
        });
        if session.wants_json() {
            return;
        }
        for (sign, facts) in [('+', &self.added), ('-', &self.removed)] {
            facts
                .iter()
                .for_each(|fact| screen.told(&format!("  {sign} {fact}")));
        }
        for own in self
            .authorities
            .iter()
            .filter(|own| own.signed.len() < own.threshold)
        {
            let keys: Vec<String> = own.missing.iter().map(KeyText::to_string).collect();
            let wanting = own.threshold.saturating_sub(own.signed.len());
            screen.note(&format!(
                "{} asks for {wanting} more of: {}",
                own.by,
                keys.join(" ")
            ));
        }
    }
}

/// The newest metadata that was signed to its end: a draft gives nobody a say yet. Where all is still a draft, the newest
/// of them, so that a ceremony may go in any order.
pub(super) fn newest_signed(repo: &Repo, role: &str) -> Result<(u64, Envelope), Failure> {
    for version in repo.versions(role)?.into_iter().rev() {
        let envelope = repo.read(role, version)?;
        let authorities = Authorities::of(repo, role, version, &envelope);
        if authorities.is_ok_and(|own| own.are_content(&envelope).unwrap_or(false)) {
            return Ok((version, envelope));
        }
    }
    repo.newest(role)?.ok_or_else(|| {
        let folder = repo.metadata_folder();
        Failure::Unsound(format!(
            "{}: no {role} metadata there, which says whose signatures count: edgeward publisher fetch",
            folder.display()
        ))
    })
}

/// What metadata says, in lines that can be compared.
fn facts(envelope: &Envelope) -> Result<BTreeSet<String>, Failure> {
    let mut facts = BTreeSet::new();
    let mut role = |name: &str, signers: &Signers| {
        facts.insert(format!("{name}: {} must sign", signers.threshold));
        for key in &signers.keys {
            facts.insert(format!("{name}: key {}", key.text()));
        }
    };
    match envelope.kind().map_err(unsound)? {
        Kind::Root => {
            let roles = envelope.top_roles().map_err(unsound)?;
            roles.iter().for_each(|(name, signers)| role(name, signers));
        }
        Kind::Targets => {
            let publishers = envelope.publishers().map_err(unsound)?;
            let named = publishers.iter();
            named.for_each(|(name, signers)| role(&format!("publisher {name}"), signers));
            let releases: BTreeMap<_, _> = envelope.manifests().map_err(unsound)?;
            facts.extend(
                releases
                    .iter()
                    .map(|(path, (_, digest))| format!("release {path} sha256:{digest}")),
            );
        }
        Kind::Snapshot | Kind::Timestamp => {
            return Err(Failure::Usage(
                "snapshot and timestamp are the cloud's to sign".to_owned(),
            ));
        }
    }
    Ok(facts)
}

pub(super) fn unsound(why: Unauthored) -> Failure {
    Failure::Unsound(why.to_string())
}
