//! `edgeward-agent tpm-key`: signing keys in this machine's TPM, for a publisher or an operator. `edgeward` asks this
//! program, since only it links the library that talks to a TPM.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use edgeward_identity::PublicKey;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::{Failure, Session};
use crate::root::RootError;
use crate::tpm::kept::{self, KeptKey};
use crate::tpm::{Device, Priority, Tpm, TpmError};

pub(super) const EXAMPLES: &str = "\
Examples:
  edgeward-agent tpm-key make acme-3.tpm                  prints the public half; the file is of use to this TPM only
  edgeward publisher key tpm:acme-3.tpm
  edgeward app sign ./collector --manifest app.toml --repo repo --signer tpm:acme-3.tpm";

/// Longest file of a key, in bytes.
const MAX_KEY_BYTES: u64 = 16 * 1024;
/// Longest message that is signed, in bytes: metadata is shorter.
const MAX_MESSAGE_BYTES: u64 = 8 * 1024 * 1024;

/// `edgeward-agent tpm-key`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Make a key (ECDSA over P-256) and write what the TPM keeps of it to a file that must not exist
    Make { file: PathBuf },
    /// Print the public half
    Show { file: PathBuf },
    /// Sign what comes on standard input
    Sign { file: PathBuf },
}

#[derive(Serialize)]
struct Shown {
    /// As metadata and policy write it.
    key: String,
    /// ASN.1 DER, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    let (key, signature) = match command {
        Command::Make { file } => {
            let made = call(session, kept::make).await?;
            let text = serde_json::to_vec(&made).map_err(|_| Failure::Random)?;
            write_new(&file, &text).map_err(|source| Failure::KeyFile { path: file, source })?;
            (public(&made)?, None)
        }
        Command::Show { file } => (public(&read(&file)?)?, None),
        Command::Sign { file } => {
            let kept = read(&file)?;
            let message = message().map_err(|why| Failure::Usage(why.to_string()))?;
            let mut hash = [0; 32];
            hash.copy_from_slice(digest(&SHA256, &message).as_ref());
            let key = public(&kept)?;
            let signature = call(session, move |device| kept::sign(device, &kept, &hash)).await?;
            if key.verify(&message, &signature).is_err() {
                return Err(RootError::from(TpmError::Answer("a signature of another key")).into());
            }
            (key, Some(hex::encode(signature)))
        }
    };
    let key = format!("ecdsa-p256:{}", hex::encode(key.point()));
    let shown = Shown { key, signature };
    session.screen.answer(&shown, |shown| {
        shown.signature.as_ref().unwrap_or(&shown.key).clone()
    });
    Ok(())
}

async fn call<T: Send + 'static>(
    session: &Session,
    request: impl FnOnce(&mut Device) -> Result<T, TpmError> + Send + 'static,
) -> Result<T, Failure> {
    let tpm = session.config.tpm.as_ref().ok_or(Failure::NoTpm)?;
    super::check::free_tpm(&session.config, tpm)?;
    let tpm = Tpm::open(tpm.place.clone()).map_err(RootError::from)?;
    let answer = tpm.call(Priority::Session, request).await;
    Ok(answer.map_err(RootError::from)?)
}

fn public(key: &KeptKey) -> Result<PublicKey, Failure> {
    Ok(key.public_key().map_err(RootError::from)?)
}

fn read(path: &Path) -> Result<KeptKey, Failure> {
    let fault = |source| Failure::KeyFile {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(fault)?;
    let bytes = bounded(file, MAX_KEY_BYTES).map_err(fault)?;
    serde_json::from_slice(&bytes).map_err(|_| fault(std::io::Error::other("not a key of a tpm")))
}

fn message() -> std::io::Result<Vec<u8>> {
    bounded(std::io::stdin().lock(), MAX_MESSAGE_BYTES)
}

fn bounded(from: impl Read, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(std::io::Error::other(format!("longer than {limit} bytes"))),
        false => Ok(bytes),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
