//! Signed notes (C2SP signed-note): a text and signatures under it, with Ed25519 keys.
//!
//! Every reader of tlog-tiles verifies Ed25519: the log signs with it, and so does a witness ([`crate::cosignature`]).

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
pub(crate) const ED25519_KEY_BYTES: usize = 32;
/// Longest verifier key, in bytes: a name, a key id, a type and a key.
pub(crate) const MAX_VERIFIER_BYTES: usize = MAX_KEY_NAME_BYTES + 64;
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

    /// The text, if the key signed it. Every line that names the key must be good.
    pub fn open(&self, verifier: &NoteVerifier) -> Result<&str, NoteUnverified> {
        let mut found = Err(NoteUnverified::Missing);
        for line in self.lines_of(&verifier.name, verifier.key_id()) {
            UnparsedPublicKey::new(&ED25519, &verifier.key)
                .verify(self.text.as_bytes(), &line.signature)
                .map_err(|_| NoteUnverified::Signature)?;
            found = Ok(self.text.as_str());
        }
        found
    }

    /// The text, which nobody may have signed.
    pub fn unverified_text(&self) -> &str {
        &self.text
    }

    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Lines that name this key.
    pub(crate) fn lines_of(&self, name: &str, id: [u8; 4]) -> impl Iterator<Item = &NoteSignature> {
        self.signatures
            .iter()
            .filter(move |line| line.name == name && line.key_id == id)
    }

    /// The same text under these lines alone: what somebody answered who was asked to sign it.
    pub fn with_lines(&self, lines: &[u8]) -> Result<Self, NoteMalformed> {
        Self::parse(&[self.text.as_bytes(), b"\n", lines].concat())
    }

    /// Adds a line; one that stands there already is not added twice.
    pub fn add(&mut self, line: NoteSignature) -> Result<(), NoteMalformed> {
        if self.signatures.contains(&line) {
            return Ok(());
        }
        if self.signatures.len() >= MAX_NOTE_SIGNATURES {
            return Err(NoteMalformed::TooManySignatures);
        }
        self.signatures.push(line);
        Ok(())
    }
}

impl NoteSignature {
    /// Reads a line without its end.
    pub fn parse(line: &str) -> Result<Self, NoteMalformed> {
        parse_signature(line)
    }
}

/// The line, without its end.
impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.key_id.as_slice(), self.signature.as_slice()].concat();
        let encoded = BASE64_STANDARD.encode(bytes);
        write!(f, "{SIGNATURE_MARK}{} {encoded}", self.name)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for line in &self.signatures {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl NoteVerifier {
    /// Reads `<name>+<key id in hex>+<base64 of type and key>`.
    pub fn parse(text: &str) -> Result<Self, NoteMalformed> {
        let (name, key) = parse_key(text, ED25519_TYPE)?;
        Ok(Self { name, key })
    }

    /// The bare public key.
    pub fn key(&self) -> &[u8; ED25519_KEY_BYTES] {
        &self.key
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Start of SHA-256 over name, line feed, type and key.
    pub fn key_id(&self) -> [u8; 4] {
        key_id(&self.name, ED25519_TYPE, &self.key)
    }
}

impl fmt::Display for NoteVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written_key(&self.name, ED25519_TYPE, &self.key))
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
        let (pair, key) = open_pair(name, pkcs8)?;
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

/// Opens a private key for this name.
pub(crate) fn open_pair(
    name: &str,
    pkcs8: &Secret<Vec<u8>>,
) -> Result<(Ed25519KeyPair, [u8; ED25519_KEY_BYTES]), NoteMalformed> {
    check_name(name)?;
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.expose()).map_err(|_| NoteMalformed::PrivateKey)?;
    let key = pair.public_key().as_ref().try_into();
    let key = key.map_err(|_| NoteMalformed::PrivateKey)?;
    Ok((pair, key))
}

/// Reads a verifier key of this type.
pub(crate) fn parse_key(
    text: &str,
    kind: u8,
) -> Result<(String, [u8; ED25519_KEY_BYTES]), NoteMalformed> {
    if text.len() > MAX_VERIFIER_BYTES {
        return Err(NoteMalformed::Key);
    }
    let (name, rest) = text.split_once('+').ok_or(NoteMalformed::Key)?;
    let (id, key) = rest.split_once('+').ok_or(NoteMalformed::Key)?;
    check_name(name)?;
    let key = BASE64_STANDARD
        .decode(key)
        .map_err(|_| NoteMalformed::Key)?;
    let key = match key.split_first() {
        Some((found, key)) if *found == kind => key.try_into().map_err(|_| NoteMalformed::Key)?,
        Some(_) | None => return Err(NoteMalformed::Key),
    };
    match hex::encode(key_id(name, kind, &key)) == id {
        true => Ok((name.to_owned(), key)),
        false => Err(NoteMalformed::Key),
    }
}

pub(crate) fn written_key(name: &str, kind: u8, key: &[u8; ED25519_KEY_BYTES]) -> String {
    let id = hex::encode(key_id(name, kind, key));
    let key = BASE64_STANDARD.encode([[kind].as_slice(), key].concat());
    format!("{name}+{id}+{key}")
}

pub(crate) fn key_id(name: &str, kind: u8, key: &[u8; ED25519_KEY_BYTES]) -> [u8; 4] {
    let digest = Digest::of(&[name.as_bytes(), b"\n", &[kind], key]);
    let [a, b, c, d, ..] = *digest.as_bytes();
    [a, b, c, d]
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
