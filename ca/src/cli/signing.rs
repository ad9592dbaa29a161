//! Keys that sign metadata: in a file, in a PKCS#11 token, in a TPM. They stay where they are.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use edgeward_apps::image::KeyText;
use edgeward_identity::{Secret, Signer, SoftwareKey};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::Deserialize;

use super::Failure;
use super::context::read_private;
use super::repo::read_bounded;
use crate::keys::pkcs11::{Token, TokenUri};

/// Longest file with a public key, in bytes.
const MAX_KEY_BYTES: u64 = 16 * 1024;
/// The program that can talk to a TPM: only it links the library for that.
const TPM_PROGRAM: &str = "edgeward-agent";

/// Names a key that may be asked to sign.
pub(super) const SIGNER_HELP: &str = "a file with a private key (PKCS#8 PEM, mode 0600), \
    pkcs11:token=LABEL;object=KEY?module-path=FILE&pin-source=file:FILE, or tpm:FILE";

/// A key that may only be asked to sign.
pub(super) enum SigningKey {
    P256(Arc<dyn Signer>),
    Ed25519(Box<Ed25519KeyPair>),
    Tpm { file: PathBuf, public: KeyText },
}

/// What the program that talks to the TPM answers.
#[derive(Deserialize)]
struct TpmAnswer {
    key: String,
    #[serde(default)]
    signature: String,
}

impl SigningKey {
    pub(super) fn open(text: &str) -> Result<Self, Failure> {
        if text.starts_with("pkcs11:") {
            return token_key(text);
        }
        if let Some(file) = text.strip_prefix("tpm:") {
            let answer = ask_tpm("show", Path::new(file), None)?;
            let public = answer.key.parse().map_err(|_| no_tpm_answer())?;
            let file = file.into();
            return Ok(Self::Tpm { file, public });
        }
        Self::from_file(Path::new(text))
    }

    pub(super) fn public(&self) -> Result<KeyText, Failure> {
        match self {
            Self::P256(key) => Ok(KeyText::p256(*key.public_key())),
            Self::Ed25519(pair) => {
                let bytes = pair.public_key().as_ref().try_into();
                bytes.map(KeyText::ed25519).map_err(|_| wrong_signature())
            }
            Self::Tpm { public, .. } => Ok(public.clone()),
        }
    }

    /// Signs, and looks whether the signature is what verifiers take: a token or TPM may have changed its mind.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let signature = match self {
            Self::P256(key) => key.sign(message)?,
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Tpm { file, .. } => {
                let answer = ask_tpm("sign", file, Some(message))?;
                hex::decode(answer.signature).map_err(|_| no_tpm_answer())?
            }
        };
        match self.public()?.verify(message, &signature) {
            Ok(()) => Ok(signature),
            Err(_) => Err(wrong_signature()),
        }
    }

    fn from_file(path: &Path) -> Result<Self, Failure> {
        let wrong = || Failure::Content {
            path: path.to_owned(),
            wanted: "a private key of p-256 or ed25519 in pkcs#8 pem",
        };
        let text = match read_private(path) {
            // Its mode is not what is wrong with it.
            Err(Failure::Exposed(_)) if public_key_in(path).is_ok() => {
                return Err(Failure::Content {
                    path: path.to_owned(),
                    wanted: "a private key, but a public one: name the file whose public half it is",
                });
            }
            read => read?,
        };
        let document = pem::parse(text.expose()).map_err(|_| wrong())?;
        if document.tag() != "PRIVATE KEY" {
            return Err(wrong());
        }
        let key = Secret::new(document.into_contents());
        // Keys that other tools made come without their public half.
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.expose()) {
            return Ok(Self::Ed25519(Box::new(pair)));
        }
        let key = SoftwareKey::from_pkcs8(key).map_err(|_| wrong())?;
        Ok(Self::P256(Arc::new(key)))
    }
}

/// A public key: its text, a file with it, or the one that a token or TPM has.
pub(super) fn public_key(text: &str) -> Result<KeyText, Failure> {
    if text.starts_with("pkcs11:") || text.starts_with("tpm:") {
        return SigningKey::open(text)?.public();
    }
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    if ["ed25519:", "ecdsa-p256:"]
        .iter()
        .any(|kind| text.starts_with(kind))
    {
        return Err(Failure::Usage(format!(
            "not a public key: {text}: write ed25519: and 64 hex digits, or ecdsa-p256: and 130"
        )));
    }
    public_key_in(Path::new(text))
}

fn public_key_in(path: &Path) -> Result<KeyText, Failure> {
    let wrong = |wanted| Failure::Content {
        path: path.to_owned(),
        wanted,
    };
    let bytes = read_bounded(path, MAX_KEY_BYTES)?;
    let bytes = String::from_utf8(bytes).map_err(|_| wrong("a public key"))?;
    if let Ok(key) = bytes.trim().parse() {
        return Ok(key);
    }
    let document = pem::parse(&bytes).map_err(|_| wrong("a public key"))?;
    match document.tag() {
        "PUBLIC KEY" => KeyText::from_spki_der(document.contents())
            .map_err(|_| wrong("a public key of p-256 or ed25519")),
        "PRIVATE KEY" => Err(wrong(
            "a public key, but a private one: edgeward publisher key FILE prints its public half",
        )),
        _ => Err(wrong("a public key")),
    }
}

fn token_key(text: &str) -> Result<SigningKey, Failure> {
    let uri: TokenUri = text
        .parse()
        .map_err(|why| Failure::Usage(format!("{text}: {why}")))?;
    let fault = |why: crate::keys::pkcs11::TokenFault| Failure::Unsound(why.to_string());
    let token = Token::open(&uri).map_err(fault)?;
    // RFC 7512: object is what the key is called.
    let key = token.key_called(&uri.object).map_err(fault)?;
    Ok(SigningKey::P256(key))
}

fn ask_tpm(what: &str, file: &Path, message: Option<&[u8]>) -> Result<TpmAnswer, Failure> {
    // Beside this program first: what stands in PATH may be of another version.
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name(TPM_PROGRAM))
        .filter(|beside| beside.is_file());
    let program = beside.unwrap_or_else(|| TPM_PROGRAM.into());
    let failed = |why: &dyn std::fmt::Display| {
        Failure::Unsound(format!("{} tpm-key {what}: {why}", program.display()))
    };
    let mut child = Command::new(&program)
        .args(["-o", "json", "tpm-key", what])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|why| failed(&why))?;
    if let Some(mut input) = child.stdin.take() {
        // It reads all before it answers; where it does not, its own words say why.
        let _ = input.write_all(message.unwrap_or_default());
    }
    let done = child.wait_with_output().map_err(|why| failed(&why))?;
    if !done.status.success() {
        return Err(failed(&String::from_utf8_lossy(&done.stderr).trim()));
    }
    serde_json::from_slice(&done.stdout).map_err(|_| no_tpm_answer())
}

fn no_tpm_answer() -> Failure {
    Failure::Unsound(format!("{TPM_PROGRAM}: an answer that is not understood"))
}

fn wrong_signature() -> Failure {
    Failure::Unsound("the key gave a signature that does not verify".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn stored(folder: &Path, name: &str, tag: &str, der: &[u8]) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, pem::encode(&pem::Pem::new(tag, der))).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    #[test]
    fn keys_that_others_read_that_are_torn_or_of_another_kind_do_not_sign() {
        let folder = tempfile::tempdir().unwrap();
        let key = SoftwareKey::generate().unwrap();
        let path = stored(folder.path(), "a.key", "PRIVATE KEY", key.pkcs8().expose());
        let text = path.to_str().unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(SigningKey::open(text), Err(Failure::Exposed(_))));
        for (tag, der) in [
            ("PRIVATE KEY", &b"torn"[..]),
            ("EC PRIVATE KEY", key.pkcs8().expose()),
        ] {
            let path = stored(folder.path(), "b.key", tag, der);
            let opened = SigningKey::open(path.to_str().unwrap());
            assert!(matches!(opened, Err(Failure::Content { .. })), "{tag}");
        }
        for wrong in [
            "pkcs11:token=x",
            "ed25519:00",
            "ecdsa-p256:04",
            "/nonexistent",
        ] {
            assert!(public_key(wrong).is_err(), "{wrong}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        // Nobody puts a public key where a private one is meant without being told, nor the other way round.
        let public = folder.path().join("a.pub");
        std::fs::write(&public, KeyText::p256(*key.public_key()).to_string()).unwrap();
        let told = SigningKey::open(public.to_str().unwrap());
        let told = told.map(drop).unwrap_err().to_string();
        assert!(told.contains("but a public one"), "{told}");
        let told = public_key(text).unwrap_err().to_string();
        assert!(told.contains("private"), "{told}");
        let signer = SigningKey::open(text).unwrap();
        assert_eq!(signer.public().unwrap(), KeyText::p256(*key.public_key()));
        let signature = signer.sign(b"message").unwrap();
        key.public_key().verify(b"message", &signature).unwrap();
    }

    #[test]
    fn a_public_key_is_the_same_in_each_of_its_spellings() {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyText::p256(*SoftwareKey::generate().unwrap().public_key());
        let pem = stored(folder.path(), "a.pub", "PUBLIC KEY", &key.spki_der());
        let text = folder.path().join("a.txt");
        std::fs::write(&text, format!("{key}\n")).unwrap();
        for spelling in [
            key.to_string(),
            pem.display().to_string(),
            text.display().to_string(),
        ] {
            assert_eq!(public_key(&spelling).unwrap(), key, "{spelling}");
        }
    }
}
