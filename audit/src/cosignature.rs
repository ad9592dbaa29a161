//! Cosignatures (C2SP tlog-cosignature, Ed25519): a witness's word that a checkpoint's tree is the largest consistent one
//! it has seen of that log, and when that was.

use std::fmt;

use edgeward_identity::{Secret, Timestamp};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};

use crate::note::{
    ED25519_KEY_BYTES, Note, NoteMalformed, NoteSignature, NoteUnverified, key_id, open_pair,
    parse_key, written_key,
};

/// Signature type of timestamped Ed25519 cosignatures.
const COSIGNATURE_TYPE: u8 = 4;
const TIME_BYTES: usize = 8;
const SIGNATURE_BYTES: usize = 64;
/// Largest time, in seconds: the specification's.
const MAX_SECONDS: u64 = i64::MAX.unsigned_abs();

/// A witness's public key as `<name>+<key id>+<key>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WitnessKey {
    name: String,
    key: [u8; ED25519_KEY_BYTES],
}

/// A witness's private key. Never that of a log: what a witness signs names no witness.
pub struct Cosigner {
    key: WitnessKey,
    pair: Ed25519KeyPair,
}

/// A cosignature that was verified over a note. Only [`WitnessKey::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    line: NoteSignature,
    time: Timestamp,
}

impl WitnessKey {
    /// Reads a verifier key of type 4.
    pub fn parse(text: &str) -> Result<Self, NoteMalformed> {
        let (name, key) = parse_key(text, COSIGNATURE_TYPE)?;
        Ok(Self { name, key })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bare public key.
    pub fn key(&self) -> &[u8; ED25519_KEY_BYTES] {
        &self.key
    }

    /// Start of SHA-256 over name, line feed, type and key.
    pub fn key_id(&self) -> [u8; 4] {
        key_id(&self.name, COSIGNATURE_TYPE, &self.key)
    }

    /// This witness's cosignature under the note, the newest where it gave several. Every line that names the key must
    /// be good. Whether its time is in the future is for whoever knows the time.
    pub fn verify(&self, note: &Note) -> Result<Cosignature, NoteUnverified> {
        let mut newest: Result<Cosignature, _> = Err(NoteUnverified::Missing);
        for line in note.lines_of(&self.name, self.key_id()) {
            let time = self.verify_line(note.unverified_text(), line)?;
            if newest.as_ref().map_or(true, |known| known.time < time) {
                let line = line.clone();
                newest = Ok(Cosignature { line, time });
            }
        }
        newest
    }

    fn verify_line(&self, text: &str, line: &NoteSignature) -> Result<Timestamp, NoteUnverified> {
        let (time, signature) = line
            .signature
            .split_first_chunk::<TIME_BYTES>()
            .filter(|(_, signature)| signature.len() == SIGNATURE_BYTES)
            .ok_or(NoteUnverified::Signature)?;
        let seconds = u64::from_be_bytes(*time);
        if seconds == 0 || seconds > MAX_SECONDS {
            return Err(NoteUnverified::Signature);
        }
        UnparsedPublicKey::new(&ED25519, &self.key)
            .verify(message(seconds, text).as_bytes(), signature)
            .map_err(|_| NoteUnverified::Signature)?;
        Ok(Timestamp::from_millis(seconds.saturating_mul(1000)))
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written_key(&self.name, COSIGNATURE_TYPE, &self.key))
    }
}

impl Cosigner {
    pub fn new(name: &str, pkcs8: &Secret<Vec<u8>>) -> Result<Self, NoteMalformed> {
        let (pair, key) = open_pair(name, pkcs8)?;
        let name = name.to_owned();
        Ok(Self {
            key: WitnessKey { name, key },
            pair,
        })
    }

    pub fn key(&self) -> &WitnessKey {
        &self.key
    }

    /// Cosigns the text of a checkpoint. Only for one whose tree continues the one that was cosigned last
    /// ([`crate::witness::Continued`]), and when that is remembered.
    pub(crate) fn cosign(&self, text: &str, now: Timestamp) -> NoteSignature {
        let seconds = now.secs().clamp(1, MAX_SECONDS);
        let signed = self.pair.sign(message(seconds, text).as_bytes());
        NoteSignature {
            name: self.key.name.clone(),
            key_id: self.key.key_id(),
            signature: [seconds.to_be_bytes().as_slice(), signed.as_ref()].concat(),
        }
    }
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cosigner({})", self.key)
    }
}

impl Cosignature {
    /// The line under the note.
    pub fn line(&self) -> &NoteSignature {
        &self.line
    }

    /// When the witness gave it, by its own clock.
    pub fn time(&self) -> Timestamp {
        self.time
    }
}

/// What is signed: a header that no other signature has, the time, the whole text of the note.
fn message(seconds: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

#[cfg(test)]
mod tests;
