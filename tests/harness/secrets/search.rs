//! Looks for many secrets at once.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use anyhow::Context;

use super::{Secret, forms};

/// So many bytes of a secret on end give it away.
pub(super) const STRETCH: usize = 16;
/// A stretch begins every so many bytes.
const STEP: usize = 8;
/// How much of a file is looked through at once, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// A secret where none may be. Never shows the secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leak {
    pub place: String,
    pub secret: String,
}

pub(super) struct Search {
    automaton: AhoCorasick,
    /// Whose stretch a pattern is.
    of_pattern: Vec<usize>,
    secrets: Vec<Secret>,
    longest: usize,
}

impl Search {
    pub(super) fn new(secrets: &[Secret]) -> anyhow::Result<Self> {
        let (mut patterns, mut of_pattern) = (Vec::new(), Vec::new());
        for (number, secret) in secrets.iter().enumerate() {
            anyhow::ensure!(
                secret.bytes.len() >= STRETCH,
                "{} is too short to be looked for",
                secret.name
            );
            for stretch in stretches(&secret.bytes) {
                for form in forms::all(stretch) {
                    patterns.push(form);
                    of_pattern.push(number);
                }
            }
        }
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(1);
        Ok(Self {
            automaton: AhoCorasick::new(&patterns)?,
            of_pattern,
            secrets: secrets.to_vec(),
            longest,
        })
    }

    pub(super) fn text(&self, name: &str, bytes: &[u8]) -> BTreeSet<Leak> {
        self.found(bytes)
            .into_iter()
            .map(|number| self.leak(name, number))
            .collect()
    }

    /// Looks through a file unless it is gone again; `left` are bytes that may still be read.
    pub(super) fn file(&self, path: &Path, left: &mut u64) -> anyhow::Result<BTreeSet<Leak>> {
        let name = path.display().to_string();
        let mut file = match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(BTreeSet::new());
            }
            opened => opened.with_context(|| name.clone())?,
        };
        let mut found = BTreeSet::new();
        let mut piece: Vec<u8> = Vec::new();
        loop {
            // What may be the front of a secret is looked at again with what follows.
            let kept = piece.len().min(self.longest);
            piece.drain(..piece.len() - kept);
            let limit = u64::try_from(PIECE_BYTES)?;
            let read = (&mut file).take(limit).read_to_end(&mut piece)?;
            if read == 0 {
                break;
            }
            *left = left
                .checked_sub(u64::try_from(read)?)
                .with_context(|| format!("too much was written: {name} was not looked through"))?;
            found.extend(self.found(&piece));
        }
        let own: &PathBuf = &path.to_owned();
        Ok(found
            .into_iter()
            .filter(|number| !self.secrets[*number].holders.contains(own))
            .map(|number| self.leak(&name, number))
            .collect())
    }

    fn found(&self, bytes: &[u8]) -> BTreeSet<usize> {
        self.automaton
            .find_overlapping_iter(bytes)
            .map(|found| self.of_pattern[found.pattern().as_usize()])
            .collect()
    }

    fn leak(&self, place: &str, number: usize) -> Leak {
        Leak {
            place: place.to_owned(),
            secret: self.secrets[number].name.clone(),
        }
    }
}

/// Overlapping stretches that leave out nothing.
fn stretches(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let last = bytes.len().saturating_sub(STRETCH);
    (0..last)
        .step_by(STEP)
        .chain([last])
        .filter_map(move |from| bytes.get(from..from + STRETCH))
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} holds {}", self.place, self.secret)
    }
}
