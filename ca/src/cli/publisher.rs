//! `edgeward publisher`: who may publish applications. The root and the image role are signed offline by operators'
//! keys, a few of many; the cloud only carries what they signed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use edgeward_apps::PublisherName;
use edgeward_apps::author::Envelope;
use edgeward_identity::{Clock, SystemClock, Timestamp};

use super::ceremony::{Authorities, IMAGE, ROOT, unsound};
use super::repo::Repo;
use super::signing::{SIGNER_HELP, SigningKey};
use super::{Failure, Session};

mod cloud;
mod image;
mod key;
mod root;

pub(super) use cloud::{asked, metadata};

/// `edgeward publisher`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key, or print the public half of one; needs no cloud
    #[command(after_help = "\
Examples:
  edgeward publisher key --new acme-1.key                     ed25519, mode 0600; prints the public half
  edgeward publisher key 'pkcs11:token=hsm;object=acme-2?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/root/pin'
  edgeward-agent tpm-key make acme-3.tpm && edgeward publisher key tpm:acme-3.tpm")]
    Key(key::Key),
    /// The root of the image repository: who signs what; needs no cloud
    #[command(subcommand)]
    Root(root::Command),
    /// Let a publisher sign releases: makes a new image role, to be signed offline
    #[command(after_help = "\
Examples:
  edgeward publisher add acme --key acme-1.pub --key acme-2.pub --key acme-3.pub --threshold 2 --repo repo
  edgeward publisher sign repo/image/metadata/2.targets.json --signer ops-1.key
  edgeward publisher submit repo/image/metadata/2.targets.json

Nodes take releases only of publishers that the policy names too, with the same keys ([publisher.acme]).")]
    Add(Change),
    /// Give a publisher other keys, or another threshold
    #[command(after_help = "\
Examples:
  edgeward publisher rotate acme --key acme-2.pub --key acme-4.pub --threshold 2 --repo repo

What the old keys signed counts no more: the publisher signs its releases again (edgeward app sign --renew acme).")]
    Rotate(Change),
    /// Take a publisher's releases out of the repository
    Remove {
        name: PublisherName,
        #[command(flatten)]
        place: Place,
    },
    /// The image role again, for longer: to be signed offline
    #[command(after_help = "\
Examples:
  edgeward publisher renew --repo repo
  edgeward publisher sign repo/image/metadata/3.targets.json --signer ops-1.key
  edgeward publisher submit repo/image/metadata/3.targets.json

Nodes install nothing once the image role has expired. The root has a renewal of its own (edgeward publisher root renew),
what publishers signed another (edgeward app sign --renew).")]
    Renew {
        #[command(flatten)]
        place: Place,
    },
    /// List publishers: of the cloud, or of a folder
    #[command(after_help = "\
Examples:
  edgeward publisher list
  edgeward publisher list --repo repo                         what the newest image role there says; needs no cloud")]
    List {
        /// The folder, instead of the cloud
        #[arg(long, value_name = "DIR")]
        repo: Option<PathBuf>,
    },
    /// Add one signature to a root, an image role or a publisher's releases; needs no cloud
    #[command(after_help = "\
Examples:
  edgeward publisher sign repo/image/metadata/2.targets.json --signer ops-1.key
  edgeward publisher sign repo/image/metadata/2.root.json --signer ops-1.key --signer 'pkcs11:token=hsm;object=ops-2?...'
  edgeward publisher sign repo/image/metadata/2.root.json          only say what it changes and who is missing

Shows what the file changes against the version before it, signs, and says who is still missing. A key whose signature
would not count is refused.")]
    Sign(Sign),
    /// Give the cloud roots and image roles that are signed
    #[command(after_help = "\
Examples:
  edgeward publisher submit repo/image/metadata/{1,2}.root.json repo/image/metadata/1.targets.json

The cloud takes a root only as the next of the one that it has, signed under both, and nothing that goes back.")]
    Submit {
        /// In the order in which they follow each other
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Take roots, image role and releases as the cloud has them into a folder, to build upon
    Fetch {
        #[command(flatten)]
        place: Folder,
    },
    /// Print the key with which the cloud signs snapshot and timestamp: what the root names
    #[command(after_help = "\
Examples:
  edgeward publisher online-key
  edgeward publisher root renew --repo repo --online \"$(edgeward publisher online-key --next)\"

The next key signs from the moment on that the cloud has a root which names it; the one before is removed then.")]
    OnlineKey {
        /// Make the key that follows, and print it; the one that waits for its root, if there is one
        #[arg(long)]
        next: bool,
    },
}

/// Where metadata is made.
#[derive(Clone, Debug, Args)]
pub struct Folder {
    /// The folder of the repository, as edgeward app sign and edgeward publisher root init make it
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,
}

/// Where metadata is made, and how long it holds.
#[derive(Clone, Debug, Args)]
pub struct Place {
    #[command(flatten)]
    folder: Folder,
    /// How long it holds; nodes install nothing under what has expired
    #[arg(long, default_value = "365d", value_name = "TIME", value_parser = humantime::parse_duration)]
    expires: Duration,
}

/// `edgeward publisher add|rotate`.
#[derive(Debug, Args)]
pub struct Change {
    name: PublisherName,
    /// A public key: ed25519:…, ecdsa-p256:…, a file with one, pkcs11:… or tpm:…; once for each
    #[arg(long = "key", required = true, value_name = "KEY")]
    keys: Vec<String>,
    /// How many of them must sign a release
    #[arg(long, value_name = "COUNT")]
    threshold: usize,
    #[command(flatten)]
    place: Place,
}

/// `edgeward publisher sign`.
#[derive(Debug, Args)]
pub struct Sign {
    /// N.root.json, N.targets.json or N.<publisher>.json in DIR/image/metadata
    file: PathBuf,
    #[arg(long = "signer", value_name = "KEY", help = SIGNER_HELP)]
    signers: Vec<String>,
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Key(key) => key::run(session, &key),
        Command::Root(command) => root::run(session, command),
        Command::Add(change) => image::change(session, &change, image::Way::Add),
        Command::Rotate(change) => image::change(session, &change, image::Way::Rotate),
        Command::Remove { name, place } => image::remove(session, &name, &place),
        Command::Renew { place } => image::renew(session, &place),
        Command::List { repo: Some(repo) } => image::list(session, &repo),
        Command::List { repo: None } => cloud::list(session).await,
        Command::Sign(arguments) => sign(session, &arguments),
        Command::Submit { files } => cloud::submit(session, &files).await,
        Command::Fetch { place } => cloud::fetch(session, &place.repo).await,
        Command::OnlineKey { next } => cloud::online_key(session, next).await,
    }
}

fn sign(session: &Session, arguments: &Sign) -> Result<(), Failure> {
    let (repo, role, version) = Repo::of_file(&arguments.file)?;
    let mut envelope = repo.read(&role, version)?;
    let authorities = Authorities::of(&repo, &role, version, &envelope)?;
    add_signatures(&authorities, &mut envelope, &arguments.signers)?;
    if !arguments.signers.is_empty() {
        repo.write(&role, version, &envelope)?;
    }
    let standing = authorities.standing(&repo, &role, &envelope)?;
    standing.show(session, &arguments.file);
    if standing.complete {
        let next = match [ROOT, IMAGE].contains(&role.as_str()) {
            true => format!("edgeward publisher submit {}", arguments.file.display()),
            false => format!("edgeward app publish --repo {}", repo.folder().display()),
        };
        session.screen.note(&format!("signed to its end: {next}"));
    }
    Ok(())
}

/// All or none: a key that is refused leaves the file as it was.
pub(super) fn add_signatures(
    authorities: &Authorities,
    envelope: &mut Envelope,
    signers: &[String],
) -> Result<(), Failure> {
    for signer in signers {
        authorities.sign(envelope, &SigningKey::open(signer)?)?;
    }
    Ok(())
}

/// The version under which a change is made: that of the newest metadata as long as it is not signed to its end, since
/// nobody can have taken it.
pub(super) fn draft(repo: &Repo, role: &str) -> Result<(u64, Option<Envelope>), Failure> {
    let Some((version, newest)) = repo.newest(role)? else {
        return Ok((1, None));
    };
    let authorities = Authorities::of(repo, role, version, &newest)?;
    // What keys signed that count no more may have been signed to its end under them. A root has old keys on it always.
    let taken = authorities.are_content(&newest)?
        || (role != ROOT && authorities.see_strangers(&newest)?);
    let next = match taken {
        true => version.checked_add(1),
        false => Some(version),
    };
    let next =
        next.ok_or_else(|| Failure::Unsound(format!("{role}: no version above {version}")))?;
    Ok((next, Some(newest)))
}

/// Writes a new version, unsigned, and shows what it changes.
fn put(
    session: &Session,
    repo: &Repo,
    role: &str,
    envelope: &Envelope,
) -> Result<PathBuf, Failure> {
    let version = envelope.version().map_err(unsound)?;
    let replaced = repo.versions(role)?.contains(&version);
    let path = repo.write(role, version, envelope)?;
    let authorities = Authorities::of(repo, role, version, envelope)?;
    authorities
        .standing(repo, role, envelope)?
        .show(session, &path);
    if replaced {
        session.screen.note(&format!(
            "version {version} was not signed to its end, and was replaced: whoever signed it signs again"
        ));
    }
    session.screen.note(&format!(
        "to be signed: edgeward publisher sign {} --signer KEY",
        path.display()
    ));
    Ok(path)
}

pub(super) fn end_after(lifetime: Duration) -> Timestamp {
    SystemClock.now().plus(lifetime)
}

fn repo_of(folder: &Path) -> Repo {
    Repo::new(folder)
}
