//! An export that proves itself: JSON lines that whoever has the log's public key checks offline.
//!
//! ```text
//! {"export":{"format":"edgeward-audit/1","origin":…,"log_key":…,"checkpoint":<signed note>,"filter":…}}
//! {"event":{"index":7,"record":<the record, byte by byte>,"proof":[<hash in base64>,…]}}      as many as there are
//! {"end":{"events":1}}
//! ```
//!
//! Every record is proven to be in the log of that one checkpoint, in the log's order, and to fit its
//! neighbours in its journal where they are in the export, too. An export that was cut has no end. What a filter left out cannot be
//! seen in an export; whether its places are without a gap can.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::digest::Digest;
use crate::merkle::{self, MAX_PROOF_HASHES, ProofError};
use crate::note::{MAX_NOTE_BYTES, NoteMalformed, NoteVerifier};
use crate::record::{MAX_RECORD_BYTES, RecordError, SealedRecord};

mod journals;

use journals::{Broken, Journals};

/// What the first line calls itself.
pub const FORMAT: &str = "edgeward-audit/1";
/// Longest line, in bytes: a note or a record, escaped, and room for the rest.
pub const MAX_LINE_BYTES: usize = 2 * MAX_NOTE_BYTES + 2 * MAX_RECORD_BYTES + 64 * 1024;
/// Pieces of journals that are followed at a time; of further journals only the proofs are checked.
pub const MAX_RUNS: usize = 1_000_000;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Line {
    Export(Header),
    Event(Proven),
    End(End),
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub format: String,
    /// The log's name.
    pub origin: String,
    /// Its public key, as signed notes write keys.
    pub log_key: String,
    /// Its signed checkpoint, byte by byte.
    pub checkpoint: String,
    /// What was asked for, for people. Nobody vouches for it.
    pub filter: String,
}

/// A record and the proof that it is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proven {
    pub index: u64,
    /// The record as its keeper wrote it.
    pub record: String,
    /// From the leaf's sibling to the root's child, in base64.
    pub proof: Vec<String>,
}

/// The last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    pub events: u64,
}

/// Checks an export line by line.
#[derive(Debug)]
pub struct Verifier {
    checkpoint: Checkpoint,
    note: String,
    log_key: NoteVerifier,
    first: Option<u64>,
    last: Option<u64>,
    events: u64,
    links: u64,
    journals: Journals,
    ended: bool,
}

/// What was found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub checkpoint: Checkpoint,
    /// The checkpoint as it stands in the export.
    pub note: String,
    pub log_key: NoteVerifier,
    pub events: u64,
    /// The first and the last place; none if there are no events.
    pub range: Option<(u64, u64)>,
    /// Pairs of neighbours in a journal that are both in the export, and of which the later names the earlier.
    pub links: u64,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    #[error("line is longer than the limit in bytes: {MAX_LINE_BYTES}")]
    TooLong,
    #[error("line is none of an export: {0}")]
    Line(#[source] serde_json::Error),
    #[error("export has another format than {FORMAT}: {0}")]
    Format(String),
    #[error("first line is not that of an export, or comes twice")]
    Beginning,
    #[error("log key of the export is malformed: {0}")]
    Key(#[from] NoteMalformed),
    #[error("export names another log key than the one that is trusted: {0}")]
    OtherKey(String),
    #[error("checkpoint is not accepted: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("event {index} does not stand behind event {last}")]
    Order { index: u64, last: u64 },
    #[error("record of event {index} is malformed: {source}")]
    Record {
        index: u64,
        #[source]
        source: RecordError,
    },
    #[error("proof of event {0} is not of hashes in base64, at most {MAX_PROOF_HASHES}")]
    Hashes(u64),
    #[error("event {index} is not in the log: {source}")]
    NotIncluded {
        index: u64,
        #[source]
        source: ProofError,
    },
    #[error("event {0} does not continue its journal: the log holds two histories")]
    Chain(u64),
    #[error("export says that it has {stated} events, but has {found}")]
    Count { stated: u64, found: u64 },
    #[error("export has no end: it was cut")]
    Cut,
    #[error("export goes on behind its end")]
    BehindEnd,
}

impl Line {
    pub fn parse(bytes: &[u8]) -> Result<Self, Unproven> {
        if bytes.len() > MAX_LINE_BYTES {
            return Err(Unproven::TooLong);
        }
        serde_json::from_slice(bytes).map_err(Unproven::Line)
    }

    /// The line without its end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a line is made of strings and numbers")
    }
}

impl Proven {
    pub fn new(index: u64, record: String, proof: &[Digest]) -> Self {
        Self {
            index,
            record,
            proof: proof
                .iter()
                .map(|hash| BASE64_STANDARD.encode(hash.as_bytes()))
                .collect(),
        }
    }

    fn hashes(&self) -> Option<Vec<Digest>> {
        if self.proof.len() > MAX_PROOF_HASHES {
            return None;
        }
        self.proof
            .iter()
            .map(|text| {
                let bytes = BASE64_STANDARD.decode(text).ok()?;
                Digest::try_from(bytes.as_slice()).ok()
            })
            .collect()
    }
}

impl Verifier {
    /// Reads the first line. Without `trusted` the export's own key is used: then everything hangs on whether that is
    /// the log's, which only the reader can know.
    pub fn begin(line: &[u8], trusted: Option<&NoteVerifier>) -> Result<Self, Unproven> {
        let Line::Export(header) = Line::parse(line)? else {
            return Err(Unproven::Beginning);
        };
        if header.format != FORMAT {
            return Err(Unproven::Format(header.format.chars().take(64).collect()));
        }
        let log_key = NoteVerifier::parse(&header.log_key)?;
        if trusted.is_some_and(|trusted| *trusted != log_key) {
            return Err(Unproven::OtherKey(log_key.to_string()));
        }
        let checkpoint = Checkpoint::open(header.checkpoint.as_bytes(), &header.origin, &log_key)?;
        Ok(Self {
            checkpoint,
            note: header.checkpoint,
            log_key,
            first: None,
            last: None,
            events: 0,
            links: 0,
            journals: Journals::default(),
            ended: false,
        })
    }

    /// Reads the next line.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Unproven> {
        if self.ended {
            return Err(Unproven::BehindEnd);
        }
        match Line::parse(line)? {
            Line::Export(_) => Err(Unproven::Beginning),
            Line::Event(event) => self.event(&event),
            Line::End(end) if end.events == self.events => {
                self.ended = true;
                Ok(())
            }
            Line::End(end) => Err(Unproven::Count {
                stated: end.events,
                found: self.events,
            }),
        }
    }

    /// After the last line.
    pub fn finish(self) -> Result<Verified, Unproven> {
        if !self.ended {
            return Err(Unproven::Cut);
        }
        Ok(Verified {
            checkpoint: self.checkpoint,
            note: self.note,
            log_key: self.log_key,
            events: self.events,
            range: self.first.zip(self.last),
            links: self.links,
        })
    }

    fn event(&mut self, event: &Proven) -> Result<(), Unproven> {
        let index = event.index;
        if let Some(last) = self.last.filter(|last| index <= *last) {
            return Err(Unproven::Order { index, last });
        }
        let sealed = SealedRecord::parse(event.record.as_bytes())
            .map_err(|source| Unproven::Record { index, source })?;
        let hashes = event.hashes().ok_or(Unproven::Hashes(index))?;
        merkle::verify_inclusion(
            &merkle::leaf_hash(sealed.hash().as_bytes()),
            index,
            self.checkpoint.size,
            &hashes,
            &self.checkpoint.root,
        )
        .map_err(|source| Unproven::NotIncluded { index, source })?;
        self.links += self
            .journals
            .add(&sealed, MAX_RUNS)
            .map_err(|Broken| Unproven::Chain(index))?;
        self.first.get_or_insert(index);
        self.last = Some(index);
        self.events += 1;
        Ok(())
    }
}

impl Verified {
    /// Whether every place from the first to the last is there.
    pub fn is_without_gap(&self) -> bool {
        self.range
            .is_some_and(|(first, last)| last - first + 1 == self.events)
    }
}

impl Unproven {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong | Self::Line(_) | Self::Format(_) | Self::Beginning | Self::BehindEnd => {
                "export_malformed"
            }
            Self::Key(_) | Self::OtherKey(_) => "export_key",
            Self::Checkpoint(_) => "export_checkpoint",
            Self::Order { .. } => "export_order",
            Self::Record { .. } => "export_record",
            Self::Hashes(_) | Self::NotIncluded { .. } => "export_not_included",
            Self::Chain(_) => "export_chain",
            Self::Count { .. } | Self::Cut => "export_cut",
        }
    }
}

#[cfg(test)]
mod tests;
