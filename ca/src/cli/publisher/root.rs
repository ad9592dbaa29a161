//! `edgeward publisher root`: the offline ceremony.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use edgeward_apps::author::{Envelope, RoleKey, Signers};
use edgeward_apps::image::KeyText;

use super::super::ceremony::{IMAGE, ROOT, unsound};
use super::super::repo::Repo;
use super::super::signing::public_key;
use super::super::{Failure, Session};
use super::{Place, draft, end_after, put, repo_of};

/// Roles that the cloud's own key signs.
const ONLINE: [&str; 2] = ["snapshot", "timestamp"];

/// `edgeward publisher root`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the first root
    #[command(after_help = "\
Examples:
  edgeward publisher root init --repo repo --key ops-1.pub --key ops-2.pub --key ops-3.pub --threshold 2 \\
      --online \"$(edgeward publisher online-key)\"
  edgeward publisher sign repo/image/metadata/1.root.json --signer ops-1.key
  edgeward publisher sign repo/image/metadata/1.root.json --signer ops-2.key     perhaps on another machine

Then pin it: [apps_root] sha256 in the policy, or [apps] root in agent.toml.")]
    Init(Init),
    /// Let a further key sign
    AddKey(Keys),
    /// Let a key sign no more
    RemoveKey(Keys),
    /// The same again, for longer, with another threshold or another key of the cloud
    #[command(after_help = "\
Examples:
  edgeward publisher root renew --repo repo
  edgeward publisher root renew --repo repo --online \"$(edgeward publisher online-key --next)\"

Nodes install nothing once the root has expired: renew it well before.")]
    Renew(Renew),
}

/// `edgeward publisher root init`.
#[derive(Debug, Args)]
pub struct Init {
    /// A public key that signs the root; once for each
    #[arg(long = "key", required = true, value_name = "KEY")]
    keys: Vec<String>,
    /// How many of them must sign
    #[arg(long, value_name = "COUNT")]
    threshold: usize,
    /// A public key that signs the image role; those of the root if absent
    #[arg(long = "image-key", value_name = "KEY", requires = "image_threshold")]
    image_keys: Vec<String>,
    /// How many of these must sign
    #[arg(long, value_name = "COUNT", requires = "image_keys")]
    image_threshold: Option<usize>,
    /// The cloud's key: edgeward publisher online-key prints it
    #[arg(long, value_name = "KEY")]
    online: String,
    #[command(flatten)]
    place: Place,
}

/// `edgeward publisher root add-key|remove-key`.
#[derive(Debug, Args)]
pub struct Keys {
    /// Public keys
    #[arg(required = true)]
    keys: Vec<String>,
    /// Whose key it is
    #[arg(long, value_enum, default_value_t = Which::Both)]
    role: Which,
    /// How many must sign from then on
    #[arg(long, value_name = "COUNT")]
    threshold: Option<usize>,
    #[command(flatten)]
    place: Place,
}

/// `edgeward publisher root renew`.
#[derive(Debug, Args)]
pub struct Renew {
    /// For which role the threshold is
    #[arg(long, value_enum, default_value_t = Which::Both)]
    role: Which,
    /// How many must sign from then on
    #[arg(long, value_name = "COUNT")]
    threshold: Option<usize>,
    /// The cloud's key
    #[arg(long, value_name = "KEY")]
    online: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Roles whose keys operators hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Which {
    /// The root, which says who signs everything else
    Root,
    /// The image role, which says who publishes
    Image,
    /// Both
    Both,
}

type Roles = BTreeMap<&'static str, Signers>;

impl Which {
    fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Root => &[ROOT],
            Self::Image => &[IMAGE],
            Self::Both => &[ROOT, IMAGE],
        }
    }
}

pub(super) fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(init) => first(session, &init),
        Command::AddKey(keys) => revise(session, &keys.place, |roles| {
            let new = all(&keys.keys)?;
            for role in keys.role.roles() {
                let signers = of(roles, role)?;
                let fresh = new.iter().filter(|key| !names(signers, key));
                let fresh: Vec<RoleKey> = fresh.cloned().collect();
                if fresh.is_empty() {
                    return Err(Failure::Usage(format!("{role} has these keys already")));
                }
                signers.keys.extend(fresh);
                signers.threshold = keys.threshold.unwrap_or(signers.threshold);
            }
            Ok(())
        }),
        Command::RemoveKey(keys) => revise(session, &keys.place, |roles| {
            let gone = all(&keys.keys)?;
            for role in keys.role.roles() {
                let signers = of(roles, role)?;
                let before = signers.keys.len();
                let stays = |own: &RoleKey| !gone.iter().any(|key| key.text() == own.text());
                signers.keys.retain(stays);
                if signers.keys.len() == before {
                    return Err(Failure::Usage(format!("{role} has none of these keys")));
                }
                signers.threshold = keys.threshold.unwrap_or(signers.threshold);
            }
            Ok(())
        }),
        Command::Renew(renew) => revise(session, &renew.place, |roles| {
            if let Some(threshold) = renew.threshold {
                for role in renew.role.roles() {
                    of(roles, role)?.threshold = threshold;
                }
            }
            if let Some(online) = &renew.online {
                let signers = signers(std::slice::from_ref(online), 1)?;
                roles.extend(ONLINE.map(|role| (role, signers.clone())));
            }
            Ok(())
        }),
    }
}

fn first(session: &Session, init: &Init) -> Result<(), Failure> {
    let repo = repo_of(&init.place.folder.repo);
    let made = |version: u64| {
        Failure::Usage(format!(
            "{} exists: change it with add-key, remove-key or renew",
            repo.metadata_path(ROOT, version).display()
        ))
    };
    if let Some(version) = repo.versions(ROOT)?.last() {
        return Err(made(*version));
    }
    let root = signers(&init.keys, init.threshold)?;
    let image = match init.image_threshold {
        Some(threshold) => signers(&init.image_keys, threshold)?,
        None => root.clone(),
    };
    let online = signers(std::slice::from_ref(&init.online), 1)?;
    let roles = Roles::from([
        (ROOT, root),
        (IMAGE, image),
        ("snapshot", online.clone()),
        ("timestamp", online),
    ]);
    write(session, &repo, 1, &roles, &init.place)
}

/// The root that follows, with what `change` makes of it.
fn revise(
    session: &Session,
    place: &Place,
    change: impl FnOnce(&mut Roles) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let repo = repo_of(&place.folder.repo);
    let (version, newest) = draft(&repo, ROOT)?;
    let newest = newest.ok_or_else(|| {
        Failure::Usage(format!(
            "{}: no root there: edgeward publisher root init, or edgeward publisher fetch",
            repo.metadata_folder().display()
        ))
    })?;
    let mut roles = newest.top_roles().map_err(unsound)?;
    change(&mut roles)?;
    write(session, &repo, version, &roles, place)
}

fn write(
    session: &Session,
    repo: &Repo,
    version: u64,
    roles: &Roles,
    place: &Place,
) -> Result<(), Failure> {
    for (role, signers) in roles {
        checked(role, signers)?;
        let alone = ONLINE.contains(role) || signers.threshold > 1;
        if !alone {
            session.screen.note(&format!(
                "{role}: one key alone signs it; whoever has that key has the fleet"
            ));
        }
    }
    let online = of_ref(roles, ONLINE[0])?;
    for role in [ROOT, IMAGE] {
        let shared = |key: &RoleKey| names(online, key);
        if of_ref(roles, role)?.keys.iter().any(shared) {
            return Err(Failure::Usage(format!(
                "{role}: the cloud's key may not sign what is to hold against the cloud"
            )));
        }
    }
    let envelope = Envelope::root(version, end_after(place.expires), roles).map_err(unsound)?;
    put(session, repo, ROOT, &envelope).map(drop)
}

/// Keys that differ, and a threshold that they can meet.
pub(super) fn checked(role: &str, signers: &Signers) -> Result<(), Failure> {
    let mut seen: Vec<&KeyText> = Vec::new();
    for key in &signers.keys {
        if seen.contains(&key.text()) {
            return Err(Failure::Usage(format!("{role}: key twice: {}", key.text())));
        }
        seen.push(key.text());
    }
    match (1..=signers.keys.len()).contains(&signers.threshold) {
        true => Ok(()),
        false => Err(Failure::Usage(format!(
            "{role}: {} of {} keys cannot sign",
            signers.threshold,
            signers.keys.len()
        ))),
    }
}

pub(super) fn signers(keys: &[String], threshold: usize) -> Result<Signers, Failure> {
    let keys = all(keys)?;
    Ok(Signers { keys, threshold })
}

fn all(keys: &[String]) -> Result<Vec<RoleKey>, Failure> {
    keys.iter()
        .map(|text| RoleKey::of(&public_key(text)?).map_err(unsound))
        .collect()
}

fn names(signers: &Signers, key: &RoleKey) -> bool {
    signers.keys.iter().any(|own| own.text() == key.text())
}

fn of<'r>(roles: &'r mut Roles, role: &str) -> Result<&'r mut Signers, Failure> {
    roles
        .get_mut(role)
        .ok_or_else(|| Failure::Unsound(format!("the root names no role {role}")))
}

fn of_ref<'r>(roles: &'r Roles, role: &str) -> Result<&'r Signers, Failure> {
    roles
        .get(role)
        .ok_or_else(|| Failure::Unsound(format!("the root names no role {role}")))
}
