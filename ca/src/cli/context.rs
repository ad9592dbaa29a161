//! Contexts: which cloud, and as whom. A folder with `context.toml`, a trust bundle, and a certificate with its key.
//!
//! `edgeward serve` writes the first one to `<data_dir>/admin`; `edgeward operator add` writes one for each operator.
//! `edgeward context add` copies such a folder to `~/.config/edgeward/contexts/<name>`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use edgeward_identity::{Secret, SoftwareKey, SpiffeId, Svid, TrustBundle, TrustDomain};
use edgeward_runtime::screen::Table;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::{Failure, Session};

mod files;

pub(super) use files::read_private;
use files::{make_folder, read_bounded, write_private};

/// Where `edgeward serve` leaves the first operator's context by default: used where no other is chosen.
const LOCAL_ADMIN: &str = "/var/lib/edgeward/admin";
const FILE: &str = "context.toml";
const CURRENT: &str = "current";

/// `context.toml`. Paths are relative to the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// `host:port`, tried in order.
    addresses: Vec<String>,
    trust_domain: TrustDomain,
    /// SPIFFE trust bundle.
    bundle: PathBuf,
    /// PEM, leaf first.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<PathBuf>,
    /// PKCS#8 in PEM, mode 0600.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    /// A file with an API key, mode 0600; instead of certificate and key.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<PathBuf>,
}

/// A context, read.
#[derive(Debug)]
pub struct Context {
    pub addresses: Vec<String>,
    pub bundle: TrustBundle,
    pub credential: Credential,
}

/// As whom.
#[derive(Debug)]
pub enum Credential {
    Certificate(Box<Svid>),
    ApiKey(Secret<String>),
}

/// What a new context holds.
#[derive(Debug)]
pub struct NewContext<'a> {
    pub addresses: &'a [String],
    pub trust_domain: &'a TrustDomain,
    /// SPIFFE trust bundle in JSON.
    pub bundle: &'a [u8],
    /// PEM, leaf first.
    pub certificates: &'a str,
    pub key: &'a SoftwareKey,
}

/// `edgeward context`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take over a context folder, and choose it
    #[command(after_help = "\
Examples:
  edgeward context add /var/lib/edgeward/admin              on the cloud's machine, as root
  edgeward context add ./li-edgeward --name plant           what `edgeward operator add li` wrote")]
    Add {
        /// The folder with context.toml
        dir: PathBuf,
        /// What to call it here; the trust domain's name if absent
        #[arg(long)]
        name: Option<String>,
    },
    /// List contexts
    List,
    /// Choose a context
    Use { name: String },
}

/// Reads the chosen context: a folder if it has a slash or is one, else a name.
pub fn load(chosen: Option<&str>) -> Result<Context, Failure> {
    let folder = match chosen {
        Some(chosen) if chosen.contains('/') => PathBuf::from(chosen),
        Some(name) => named(name)?,
        None => match current()? {
            Some(name) => named(&name)?,
            None if Path::new(LOCAL_ADMIN).join(FILE).exists() => PathBuf::from(LOCAL_ADMIN),
            None => return Err(Failure::NoContext),
        },
    };
    read(&folder)
}

/// Writes a context folder: the key with mode 0600, the folder itself with 0700.
pub fn write(folder: &Path, new: &NewContext<'_>) -> Result<(), Failure> {
    let file = File {
        addresses: new.addresses.to_vec(),
        trust_domain: new.trust_domain.clone(),
        bundle: "bundle.json".into(),
        certificate: Some("operator.crt".into()),
        key: Some("operator.key".into()),
        api_key: None,
    };
    let text = toml::to_string(&file).map_err(|error| bad(folder, &error.to_string()))?;
    make_folder(folder)?;
    let key = pem::encode(&pem::Pem::new(
        "PRIVATE KEY",
        new.key.pkcs8().expose().clone(),
    ));
    let key = Secret::new(key);
    write_private(&folder.join("operator.key"), key.expose().as_bytes())?;
    write_private(&folder.join("operator.crt"), new.certificates.as_bytes())?;
    write_private(&folder.join("bundle.json"), new.bundle)?;
    // Last, so that a folder with a context.toml is whole.
    write_private(&folder.join(FILE), text.as_bytes())
}

/// Reads the API key in a file that only its owner may read.
pub(super) fn read_api_key(path: &Path) -> Result<Secret<String>, Failure> {
    let text = read_private(path)?;
    Ok(Secret::new(text.expose().trim().to_owned()))
}

pub(super) fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Add { dir, name } => add(session, &dir, name),
        Command::List => list(session),
        Command::Use { name } => {
            read(&named(&name)?)?;
            choose(&name)?;
            session.screen.note(&format!("context {name} is chosen"));
            Ok(())
        }
    }
}

fn add(session: &Session, dir: &Path, name: Option<String>) -> Result<(), Failure> {
    let context = read(dir)?;
    let file = read_file(dir)?;
    let name = name.unwrap_or_else(|| file.trust_domain.to_string());
    check_name(&name)?;
    let folder = home()?.join("contexts").join(&name);
    make_folder(&folder)?;
    let parts = [
        Some(&file.bundle),
        file.certificate.as_ref(),
        file.key.as_ref(),
        file.api_key.as_ref(),
    ];
    let mut copy = file.clone();
    for part in parts.into_iter().flatten() {
        let leaf = part
            .file_name()
            .ok_or_else(|| bad(dir, "a path in it has no file name"))?;
        let source = dir.join(part);
        let bytes = fs::read(&source).map_err(Failure::file(&source))?;
        write_private(&folder.join(leaf), &Secret::new(bytes).expose()[..])?;
    }
    let leaf = |path: &Option<PathBuf>| {
        path.as_ref()
            .and_then(|path| path.file_name())
            .map(PathBuf::from)
    };
    copy.certificate = leaf(&file.certificate);
    copy.key = leaf(&file.key);
    copy.api_key = leaf(&file.api_key);
    copy.bundle = leaf(&Some(file.bundle)).unwrap_or_default();
    let text = toml::to_string(&copy).map_err(|error| bad(dir, &error.to_string()))?;
    write_private(&folder.join(FILE), text.as_bytes())?;
    choose(&name)?;
    let who = match &context.credential {
        Credential::Certificate(svid) => svid.id().to_string(),
        Credential::ApiKey(_) => "an api key".to_owned(),
    };
    session
        .screen
        .note(&format!("context {name} is chosen: {who}"));
    Ok(())
}

fn list(session: &Session) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Row {
        name: String,
        current: bool,
        addresses: Vec<String>,
        identity: Option<SpiffeId>,
        problem: Option<String>,
    }
    let folder = home()?.join("contexts");
    let mut names: Vec<String> = match fs::read_dir(&folder) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Failure::file(folder)(error)),
    };
    names.sort();
    let chosen = current()?;
    let mut rows = Vec::new();
    for name in names {
        let found = read(&folder.join(&name));
        rows.push(Row {
            current: chosen.as_deref() == Some(&name),
            addresses: found
                .as_ref()
                .map(|context| context.addresses.clone())
                .unwrap_or_default(),
            identity: match &found {
                Ok(Context {
                    credential: Credential::Certificate(svid),
                    ..
                }) => Some(svid.id().clone()),
                _ => None,
            },
            problem: found.err().map(|failure| failure.to_string()),
            name,
        });
    }
    session.screen.tabulate(&rows, |rows| {
        let mut table = Table::new(&["CURRENT", "NAME", "CLOUD", "AS"]);
        for row in rows {
            let who = row.identity.as_ref().map(ToString::to_string);
            table.row([
                if row.current { "*" } else { "" }.to_owned(),
                row.name.clone(),
                row.addresses.join(" "),
                row.problem
                    .clone()
                    .or(who)
                    .unwrap_or_else(|| "api key".to_owned()),
            ]);
        }
        table
    });
    Ok(())
}

fn read(folder: &Path) -> Result<Context, Failure> {
    let file = read_file(folder)?;
    let path = folder.join(&file.bundle);
    let json = read_bounded(&path)?;
    let bundle = TrustBundle::from_spiffe_json(file.trust_domain.clone(), &json)?;
    let credential = match (&file.certificate, &file.key, &file.api_key) {
        (Some(certificate), Some(key), None) => {
            let chain = read_chain(&folder.join(certificate))?;
            let key = read_key(&folder.join(key))?;
            Credential::Certificate(Box::new(Svid::new(chain, Arc::new(key))?))
        }
        (None, None, Some(key)) => Credential::ApiKey(read_api_key(&folder.join(key))?),
        _ => return Err(bad(folder, "needs certificate and key, or api_key")),
    };
    if file.addresses.is_empty() {
        return Err(bad(folder, "has no address"));
    }
    Ok(Context {
        addresses: file.addresses,
        bundle,
        credential,
    })
}

fn read_file(folder: &Path) -> Result<File, Failure> {
    let path = folder.join(FILE);
    let bytes = read_bounded(&path)?;
    let text = String::from_utf8(bytes).map_err(|_| bad(folder, "not text"))?;
    toml::from_str(&text).map_err(|error| bad(folder, error.message()))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let bytes = read_bounded(path)?;
    CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Failure::Content {
            path: path.to_owned(),
            wanted: "certificates in pem",
        })
}

fn read_key(path: &Path) -> Result<SoftwareKey, Failure> {
    let text = read_private(path)?;
    let pem = pem::parse(text.expose()).map_err(|_| Failure::Content {
        path: path.to_owned(),
        wanted: "a private key in pem",
    })?;
    Ok(SoftwareKey::from_pkcs8(Secret::new(pem.into_contents()))?)
}

fn home() -> Result<PathBuf, Failure> {
    let from = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    from("XDG_CONFIG_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".config")))
        .map(|config| config.join("edgeward"))
        .ok_or(Failure::NoContext)
}

fn named(name: &str) -> Result<PathBuf, Failure> {
    check_name(name)?;
    let folder = home()?.join("contexts").join(name);
    match folder.join(FILE).exists() {
        true => Ok(folder),
        false => Err(Failure::Context {
            name: name.to_owned(),
            reason: "there is none; edgeward context list shows what there is".to_owned(),
        }),
    }
}

fn check_name(name: &str) -> Result<(), Failure> {
    let good = !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    match good {
        true => Ok(()),
        false => Err(Failure::Usage(format!(
            "not a context's name (A-Z a-z 0-9 . - _): {name}"
        ))),
    }
}

fn current() -> Result<Option<String>, Failure> {
    let path = home()?.join(CURRENT);
    match fs::read_to_string(&path) {
        Ok(name) => Ok(Some(name.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file(path)(error)),
    }
}

fn choose(name: &str) -> Result<(), Failure> {
    let home = home()?;
    make_folder(&home)?;
    write_private(&home.join(CURRENT), name.as_bytes())
}

fn bad(folder: &Path, reason: &str) -> Failure {
    Failure::Context {
        name: folder.display().to_string(),
        reason: reason.to_owned(),
    }
}
