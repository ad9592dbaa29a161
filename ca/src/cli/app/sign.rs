//! `edgeward app sign`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use edgeward_apps::author::Envelope;
use edgeward_apps::image::MAX_TARGETS_BYTES;
use edgeward_apps::manifest::{Entry, EntryPoint, Resources};
use edgeward_apps::{AppName, AppPath, Digest, Manifest, PublisherName, Version};
use edgeward_runtime::config::{Twins, load_with};
use serde::Deserialize;

use super::super::ceremony::{Authorities, IMAGE, newest_signed, unsound};
use super::super::publisher::{add_signatures, draft, end_after};
use super::super::repo::Repo;
use super::super::signing::SIGNER_HELP;
use super::super::{Failure, Session};
use super::input::{self, Content, ImageSignatures};

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward app sign ./collector --manifest app.toml --repo repo --signer acme-1.key
  edgeward app sign collector.tar.gz --manifest app.toml --repo repo --signer tpm:acme-3.tpm
  edgeward app sign ./layout --manifest app.toml --repo repo --signer acme-1.key --bundle collector.sigstore.json
  edgeward app sign --add acme/collector@2.3.1 --repo repo --signer 'pkcs11:token=hsm;object=acme-2?...'
  edgeward app sign --renew acme --repo repo --signer acme-1.key
  edgeward app sign --withdraw acme/collector@2.3.0 --repo repo --signer acme-1.key

app.toml:
  app = \"acme/collector\"
  version = \"2.3.1\"
  identity = \"line3/collector\"            # the workload identity that it wants; policy decides
  writable = [\"data\"]                     # folders outside of its own tree that it may write to
  host_libraries = false                  # whether it needs the machine's own loader and libraries
  [entry]
  path = \"bin/collector\"                  # no script: name the interpreter, and the script in args
  args = [\"--config\", \"etc/c.toml\"]
  env = { COLLECTOR_LOG = \"info\" }
  [resources]
  memory_bytes = 67108864
  cpu_percent = 50
  tasks = 64

The folder must have the image role (edgeward publisher fetch), which names the publisher's keys. A release never
changes: the same files under the same version are the same release, others need another version.";

/// What a script begins with: no kernel starts one without opening its interpreter by path.
const SCRIPT: &[u8] = b"#!";

/// `edgeward app sign`.
#[derive(Debug, Args)]
pub struct Sign {
    /// A folder, a tar archive (plain or in gzip), or a folder with an OCI image layout
    #[arg(requires = "manifest", required_unless_present_any = ["add", "renew", "withdraw"])]
    input: Option<PathBuf>,
    /// What the app is, and how it is started
    #[arg(long, value_name = "APP.TOML", requires = "input")]
    manifest: Option<PathBuf>,
    /// The folder of the repository; what is made goes there
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,
    #[arg(long = "signer", value_name = "KEY", required = true, help = SIGNER_HELP)]
    signers: Vec<String>,
    /// Add a signature to a release that another holder of a key made; all of its content must be here
    #[arg(long, value_name = "NAME@VERSION", conflicts_with_all = ["input", "renew", "withdraw"])]
    add: Option<Named>,
    /// Sign a publisher's releases again, for longer or with its new keys
    #[arg(long, value_name = "PUBLISHER", conflicts_with_all = ["input", "withdraw"])]
    renew: Option<PublisherName>,
    /// Take a release out of what the publisher signs
    #[arg(long, value_name = "NAME@VERSION", conflicts_with = "input")]
    withdraw: Option<Named>,
    /// How long the publisher's signatures hold; nodes install nothing under what has expired
    #[arg(long, default_value = "180d", value_name = "TIME", value_parser = humantime::parse_duration)]
    expires: Duration,
    /// Which image of a layout, as OCI calls the kinds of machines; this machine's if absent
    #[arg(long, value_name = "amd64|arm64|…")]
    architecture: Option<String>,
    /// A sigstore bundle over the image (cosign sign --bundle); it travels with the app
    #[arg(long = "bundle", value_name = "FILE")]
    bundles: Vec<PathBuf>,
    /// What cosign signed (cosign sign --output-payload); with --payload-signature
    #[arg(long = "payload", value_name = "FILE", requires = "payload_signatures")]
    payloads: Vec<PathBuf>,
    /// The signature over it (cosign sign --output-signature), in the same order
    #[arg(long = "payload-signature", value_name = "FILE", requires = "payloads")]
    payload_signatures: Vec<PathBuf>,
}

/// `publisher/name@version`.
#[derive(Clone, Debug)]
pub struct Named {
    pub(super) app: AppName,
    pub(super) version: Version,
}

/// `app.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AppToml {
    app: AppName,
    version: Version,
    entry: EntryPoint,
    #[serde(default)]
    resources: Resources,
    #[serde(default)]
    identity: Option<String>,
    #[serde(default)]
    writable: Vec<AppPath>,
    #[serde(default)]
    host_libraries: bool,
}

type Releases = BTreeMap<String, (u64, Digest)>;

impl std::str::FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (app, version) = text
            .split_once('@')
            .ok_or("a release is named publisher/name@version")?;
        let app = app.parse().map_err(|why| format!("{why}"))?;
        let version = version.parse().map_err(|why| format!("{why}"))?;
        Ok(Self { app, version })
    }
}

pub(super) fn run(session: &Session, arguments: &Sign) -> Result<(), Failure> {
    let repo = Repo::new(&arguments.repo);
    if let Some(named) = &arguments.add {
        return add(session, &repo, named, &arguments.signers);
    }
    if let Some(publisher) = &arguments.renew {
        return change(session, &repo, publisher, arguments, |_| Ok(Change::Made));
    }
    if let Some(named) = &arguments.withdraw {
        let path = named.app.target(&named.version);
        return change(
            session,
            &repo,
            named.app.publisher(),
            arguments,
            |releases| match releases.remove(&path) {
                Some(_) => Ok(Change::Made),
                None => Err(Failure::Usage(format!("{path} is not signed for"))),
            },
        );
    }
    let (Some(input), Some(manifest)) = (&arguments.input, &arguments.manifest) else {
        return Err(Failure::Usage("sign what?".to_owned()));
    };
    // Before gigabytes are read, or written to a folder whose name is a slip.
    newest_signed(&repo, IMAGE)?;
    let bytes = made(arguments, &repo, input, manifest)?;
    release(session, &repo, arguments, &bytes)
}

/// The manifest of what is given, whose content is in the folder's chunks then.
fn made(
    arguments: &Sign,
    repo: &Repo,
    input: &Path,
    toml: &Path,
) -> Result<(Vec<u8>, Manifest), Failure> {
    let wrong =
        |why: &dyn std::fmt::Display| Failure::Unsound(format!("{}: {why}", toml.display()));
    let none = Twins {
        prefix: "",
        except: &[],
    };
    let about: AppToml = load_with(toml, none, std::iter::empty())
        .map_err(|why| Failure::Unsound(why.to_string()))?;
    let architecture = arguments
        .architecture
        .as_deref()
        .unwrap_or(own_architecture());
    let Content { entries, image } =
        input::read(input, architecture, &arguments.image_signatures()?, repo)?;
    check_entry(&about.entry.path, &entries, repo).map_err(|why| wrong(&why))?;
    let mut manifest =
        Manifest::new(about.app, about.version, about.entry, entries).map_err(|why| wrong(&why))?;
    manifest.resources = about.resources;
    manifest.identity = about.identity;
    manifest.writable = about.writable;
    manifest.host_libraries = about.host_libraries;
    manifest.image = image;
    let bytes = manifest.to_json().map_err(|why| wrong(&why))?;
    Ok((bytes, manifest))
}

/// The launcher refuses scripts: said here, before anybody signs one.
fn check_entry(
    path: &AppPath,
    entries: &BTreeMap<AppPath, Entry>,
    repo: &Repo,
) -> Result<(), Failure> {
    let Some(Entry::File(file)) = entries.get(path) else {
        return Ok(());
    };
    let first = match file.chunks.first() {
        Some(chunk) => repo.chunk(chunk)?,
        None => Vec::new(),
    };
    match first.starts_with(SCRIPT) {
        true => Err(Failure::Unsound(format!(
            "entry {path} is a script: name its interpreter as the entry, and the script in args"
        ))),
        false => Ok(()),
    }
}

fn release(
    session: &Session,
    repo: &Repo,
    arguments: &Sign,
    (bytes, manifest): &(Vec<u8>, Manifest),
) -> Result<(), Failure> {
    let (app, version) = (&manifest.app, &manifest.version);
    let path = app.target(version);
    let pin = (bytes.len() as u64, Digest::of(bytes));
    let earlier = signed_before(repo, app.publisher())?;
    change(session, repo, app.publisher(), arguments, |releases| {
        if earlier.get(&path).is_some_and(|before| *before != pin) {
            return Err(Failure::Unsound(format!(
                "{path} was signed for with other files: a release never changes, give this one another version"
            )));
        }
        // 2.3 and 2.3.0 are the same to whoever compares versions, and would be two releases.
        let same = |other: &&String| {
            let number = other.strip_prefix(&format!("{app}/")).map(str::parse);
            matches!(number, Some(Ok(number)) if *version == number) && **other != path
        };
        if let Some(other) = releases.keys().find(same) {
            return Err(Failure::Unsound(format!(
                "{path} is the same version as {other}"
            )));
        }
        repo.write_manifest(app, version, bytes)?;
        match releases.insert(path.clone(), pin) {
            Some(before) if before == pin => Ok(Change::Nothing),
            _ => Ok(Change::Made),
        }
    })?;
    session.screen.note(&format!(
        "{app}@{version} sha256:{}: {} entries, {} bytes, {} chunks",
        pin.1,
        manifest.entries().len(),
        manifest.size(),
        manifest.chunks().count()
    ));
    Ok(())
}

/// What the publisher signed for in any version that was signed to its end.
fn signed_before(repo: &Repo, publisher: &PublisherName) -> Result<Releases, Failure> {
    let role = publisher.as_str();
    let (next, _) = draft(repo, role)?;
    match repo.versions(role)?.range(..next).last() {
        Some(version) => repo.read(role, *version)?.manifests().map_err(unsound),
        None => Ok(Releases::new()),
    }
}

#[derive(PartialEq, Eq)]
enum Change {
    Made,
    /// The newest metadata says so already: it only lacks a signature.
    Nothing,
}

fn change(
    session: &Session,
    repo: &Repo,
    publisher: &PublisherName,
    arguments: &Sign,
    change: impl FnOnce(&mut Releases) -> Result<Change, Failure>,
) -> Result<(), Failure> {
    let role = publisher.as_str();
    let (version, newest) = draft(repo, role)?;
    let mut releases = match &newest {
        Some(newest) => newest.manifests().map_err(unsound)?,
        None => Releases::new(),
    };
    let (version, envelope) = match (change(&mut releases)?, newest) {
        (Change::Nothing, Some(newest)) => (newest.version().map_err(unsound)?, newest),
        _ => {
            let end = end_after(arguments.expires);
            let new = Envelope::releases(version, end, &releases).map_err(unsound)?;
            (version, new)
        }
    };
    sign(session, repo, role, version, envelope, &arguments.signers)
}

/// Another holder's signature: only over a release whose content can be looked at here.
fn add(session: &Session, repo: &Repo, named: &Named, signers: &[String]) -> Result<(), Failure> {
    let role = named.app.publisher().as_str();
    let (version, newest) = repo.newest(role)?.ok_or_else(|| {
        Failure::Unsound(format!(
            "{}: {role} signed nothing there",
            repo.metadata_folder().display()
        ))
    })?;
    let path = named.app.target(&named.version);
    let releases = newest.manifests().map_err(unsound)?;
    let (_, digest) = releases
        .get(&path)
        .ok_or_else(|| Failure::Unsound(format!("{path} is not in version {version} of {role}")))?;
    let (_, manifest) = repo.manifest(&named.app, &named.version, *digest)?;
    for chunk in manifest.chunks() {
        repo.chunk(&chunk)?;
    }
    sign(session, repo, role, version, newest, signers)
}

fn sign(
    session: &Session,
    repo: &Repo,
    role: &str,
    version: u64,
    mut envelope: Envelope,
    signers: &[String],
) -> Result<(), Failure> {
    let authorities = Authorities::of(repo, role, version, &envelope)?;
    add_signatures(&authorities, &mut envelope, signers)?;
    if envelope.to_bytes().len() as u64 > MAX_TARGETS_BYTES {
        return Err(Failure::Unsound(format!(
            "{role}: more releases than fit into {MAX_TARGETS_BYTES} bytes: withdraw old ones (--withdraw)"
        )));
    }
    let path = repo.write(role, version, &envelope)?;
    let standing = authorities.standing(repo, role, &envelope)?;
    standing.show(session, &path);
    if standing.complete {
        session.screen.note(&format!(
            "signed to its end: edgeward app publish --repo {}",
            repo.folder().display()
        ));
    }
    Ok(())
}

impl Sign {
    fn image_signatures(&self) -> Result<ImageSignatures, Failure> {
        if self.payloads.len() != self.payload_signatures.len() {
            return Err(Failure::Usage(
                "as many --payload-signature as --payload".to_owned(),
            ));
        }
        let pairs = self.payloads.iter().cloned();
        Ok(ImageSignatures {
            bundles: self.bundles.clone(),
            payloads: pairs.zip(self.payload_signatures.iter().cloned()).collect(),
        })
    }
}

/// This machine, as OCI calls it.
fn own_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "riscv64" => "riscv64",
        other => other,
    }
}
