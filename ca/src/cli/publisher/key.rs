//! `edgeward publisher key`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use edgeward_apps::author::public_pem;
use edgeward_apps::image::KeyText;
use edgeward_identity::{Secret, SoftwareKey};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use serde::Serialize;

use super::super::signing::SigningKey;
use super::super::{Failure, Session};

/// `edgeward publisher key`.
#[derive(Debug, Args)]
pub struct Key {
    /// Its public half is printed: a file with a private key, pkcs11:… or tpm:…
    #[arg(required_unless_present = "new")]
    signer: Option<String>,
    /// Make a key in this file, which must not exist
    #[arg(long, value_name = "FILE", conflicts_with = "signer")]
    new: Option<PathBuf>,
    /// Of which kind
    #[arg(long, value_enum, default_value_t = Kind::Ed25519, requires = "new")]
    kind: Kind,
    /// Print the public half as PEM instead of as metadata and policy write it
    #[arg(long)]
    pem: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Ed25519
    Ed25519,
    /// ECDSA over P-256, as tokens and TPMs have it
    EcdsaP256,
}

#[derive(Serialize)]
struct Shown {
    key: KeyText,
    pem: String,
}

pub(super) fn run(session: &Session, arguments: &Key) -> Result<(), Failure> {
    let signer = match (&arguments.new, &arguments.signer) {
        (Some(path), _) => {
            make(path, arguments.kind)?;
            path.to_str()
                .ok_or_else(|| Failure::Usage("the file's name is not text".to_owned()))?
        }
        (None, Some(signer)) => signer,
        (None, None) => return Err(Failure::Usage("which key?".to_owned())),
    };
    let key = SigningKey::open(signer)?.public()?;
    let pem = public_pem(&key);
    session
        .screen
        .answer(&Shown { key, pem }, |shown| match arguments.pem {
            true => shown.pem.clone(),
            false => shown.key.to_string(),
        });
    Ok(())
}

/// Never over a key that is there.
fn make(path: &PathBuf, kind: Kind) -> Result<(), Failure> {
    let key = match kind {
        Kind::EcdsaP256 => SoftwareKey::generate()?.pkcs8().expose().clone(),
        Kind::Ed25519 => Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| edgeward_identity::keys::KeyError::Random)?
            .as_ref()
            .to_vec(),
    };
    let key = Secret::new(key);
    let text = Secret::new(pem::encode(&pem::Pem::new(
        "PRIVATE KEY",
        key.expose().clone(),
    )));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(Failure::file(path))?;
    file.write_all(text.expose().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(Failure::file(path))
}
