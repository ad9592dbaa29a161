//! Signed notes (C2SP signed-note): a text and signatures under it, with Ed25519 keys.
//!
//! The log's key is the one Ed25519 key of the system: every reader of tlog-tiles verifies Ed25519.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use edgeward_identity::Secret;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::digest::Digest;

/// Longest note, in bytes.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;
/// Most signatures of a note (witnesses add theirs).
pub const MAX_NOTE_SIGNATURES: usize = 32;
/// Longest key name, in bytes.
pub const MAX_KEY_NAME_BYTES: usize = 255;

/// Signature type of plain Ed25519.
const ED25519_TYPE: u8 = 1;
const ED25519_KEY_BYTES: usize = 32;
const SIGNATURE_MARK: &str = "\u{2014} ";

/// A text with signatures, none of them verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One line under a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    pub name: String,
    pub key_id: [u8; 4],
    pub signature: Vec<u8>,
}

/// A public key as `<name>+<key id>+<key>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteVerifier {
    name: String,
    key: [u8; ED25519_KEY_BYTES],
}

/// A private key for notes.
pub struct NoteSigner {
    verifier: NoteVerifier,
    pair: Ed25519KeyPair,
}

/// The bytes are no note, or no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteMalformed {
    #[error("note is longer than the limit in bytes: {MAX_NOTE_BYTES}")]
    TooLong,
    #[error("note is not utf-8 text without control characters")]
    Text,
    #[error("note has no signatures under a blank line")]
    NoSignatures,
    #[error("note has more signatures than the limit: {MAX_NOTE_SIGNATURES}")]
    TooManySignatures,
    #[error("signature line is malformed")]
    SignatureLine,
    #[error("key name is empty, too long or holds a space or plus sign")]
    KeyName,
    #[error("verifier key is malformed")]
    Key,
    #[error("private key is malformed")]
    PrivateKey,
}

/// The note is not signed by this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteUnverified {
    #[error("note has no signature of this key")]
    Missing,
    #[error("signature of this key does not verify")]
    Signature,
}

impl Note {
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteMalformed> {
        if bytes.len() > MAX_NOTE_BYTES {
            return Err(NoteMalformed::TooLong);
        }
        let whole = str::from_utf8(bytes).map_err(|_| NoteMalformed::Text)?;
        if whole.chars().any(|c| c.is_control() && c != '\n') {
            return Err(NoteMalformed::Text);
        }
        // The last blank line: the text itself may have some.
        let (text, lines) = whole
            .rsplit_once("\n\n")
            .ok_or(NoteMalformed::NoSignatures)?;
        let lines = lines
            .strip_suffix('\n')
            .ok_or(NoteMalformed::SignatureLine)?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() >= MAX_NOTE_SIGNATURES {
                return Err(NoteMalformed::TooManySignatures);
            }
            signatures.push(parse_signature(line)?);
        }
        Ok(Self {
            text: format!("{text}\n"),
            signatures,
        })
    }

    /// Signs a text, which must end with a line feed.
    pub fn sign(text: &str, signer: &NoteSigner) -> Result<Self, NoteMalformed> {
        if !text.ends_with('\n') || text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(NoteMalformed::Text);
        }
        let signature = NoteSignature {
            name: signer.verifier.name.clone(),
            key_id: signer.verifier.key_id(),
            signature: signer.pair.sign(text.as_bytes()).as_ref().to_vec(),
        };
        Ok(Self {
            text: text.to_owned(),
            signatures: vec![signature],
        })
    }

    /// The text, if the key signed it.
    pub fn open(&self, verifier: &NoteVerifier) -> Result<&str, NoteUnverified> {
        let key_id = verifier.key_id();
        let signature = self
            .signatures
            .iter()
            .find(|signature| signature.name == verifier.name && signature.key_id == key_id)
            .ok_or(NoteUnverified::Missing)?;
        UnparsedPublicKey::new(&ED25519, &verifier.key)
            .verify(self.text.as_bytes(), &signature.signature)
            .map_err(|_| NoteUnverified::Signature)?;
        Ok(&self.text)
    }

    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for line in &self.signatures {
            let bytes = [line.key_id.as_slice(), line.signature.as_slice()].concat();
            writeln!(
                f,
                "{SIGNATURE_MARK}{} {}",
                line.name,
                BASE64_STANDARD.encode(bytes)
            )?;
        }
        Ok(())
    }
}

impl NoteVerifier {
    /// Reads `<name>+<key id in hex>+<base64 of type and key>`.
    pub fn parse(text: &str) -> Result<Self, NoteMalformed> {
        if text.len() > MAX_KEY_NAME_BYTES + 64 {
            return Err(NoteMalformed::Key);
        }
        let (name, rest) = text.split_once('+').ok_or(NoteMalformed::Key)?;
        let (key_id, key) = rest.split_once('+').ok_or(NoteMalformed::Key)?;
        check_name(name)?;
        let key = BASE64_STANDARD
            .decode(key)
            .map_err(|_| NoteMalformed::Key)?;
        let key = match key.split_first() {
            Some((&ED25519_TYPE, key)) => key.try_into().map_err(|_| NoteMalformed::Key)?,
            Some(_) | None => return Err(NoteMalformed::Key),
        };
        let verifier = Self {
            name: name.to_owned(),
            key,
        };
        if hex::encode(verifier.key_id()) == key_id {
            Ok(verifier)
        } else {
            Err(NoteMalformed::Key)
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Start of SHA-256 over name, line feed, type and key.
    pub fn key_id(&self) -> [u8; 4] {
        let digest = Digest::of(&[self.name.as_bytes(), b"\n", &[ED25519_TYPE], &self.key]);
        let [a, b, c, d, ..] = *digest.as_bytes();
        [a, b, c, d]
    }
}

impl fmt::Display for NoteVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = BASE64_STANDARD.encode([[ED25519_TYPE].as_slice(), &self.key].concat());
        write!(f, "{}+{}+{key}", self.name, hex::encode(self.key_id()))
    }
}

impl NoteSigner {
    /// A new private key in PKCS#8, to be kept in a file of mode 0600.
    pub fn generate() -> Result<Secret<Vec<u8>>, NoteMalformed> {
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map(|document| Secret::new(document.as_ref().to_vec()))
            .map_err(|_| NoteMalformed::PrivateKey)
    }

    pub fn new(name: &str, pkcs8: &Secret<Vec<u8>>) -> Result<Self, NoteMalformed> {
        check_name(name)?;
        let pair =
            Ed25519KeyPair::from_pkcs8(pkcs8.expose()).map_err(|_| NoteMalformed::PrivateKey)?;
        let key = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| NoteMalformed::PrivateKey)?;
        Ok(Self {
            verifier: NoteVerifier {
                name: name.to_owned(),
                key,
            },
            pair,
        })
    }

    pub fn verifier(&self) -> &NoteVerifier {
        &self.verifier
    }
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteSigner({})", self.verifier)
    }
}

fn parse_signature(line: &str) -> Result<NoteSignature, NoteMalformed> {
    let line = line
        .strip_prefix(SIGNATURE_MARK)
        .ok_or(NoteMalformed::SignatureLine)?;
    let (name, signature) = line.split_once(' ').ok_or(NoteMalformed::SignatureLine)?;
    check_name(name)?;
    let bytes = BASE64_STANDARD
        .decode(signature)
        .map_err(|_| NoteMalformed::SignatureLine)?;
    let (key_id, signature) = bytes
        .split_first_chunk::<4>()
        .ok_or(NoteMalformed::SignatureLine)?;
    if signature.is_empty() {
        return Err(NoteMalformed::SignatureLine);
    }
    Ok(NoteSignature {
        name: name.to_owned(),
        key_id: *key_id,
        signature: signature.to_vec(),
    })
}

fn check_name(name: &str) -> Result<(), NoteMalformed> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.len() > MAX_KEY_NAME_BYTES || name.contains(bad) {
        return Err(NoteMalformed::KeyName);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
