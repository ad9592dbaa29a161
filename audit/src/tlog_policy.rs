//! Policies for readers of logs (C2SP tlog-policy): which logs count, which witnesses, and how many of them.
//!
//! ```text
//! log <key> [<url>]
//! witness <name> <key> [<url>]
//! group <name> all|any|<k> <member> …
//! quorum <witness or group>|none
//! ```
//!
//! Keys are Ed25519 (types 1 and 4). A policy that names a key of another type is refused as a whole: a witness that cannot
//! be checked here would silently weaken or block what its owner meant.

use std::collections::BTreeMap;

use edgeward_identity::Timestamp;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::cosignature::WitnessKey;
use crate::note::{Note, NoteMalformed, NoteUnverified, NoteVerifier};

/// Longest policy, in bytes.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;
/// Most logs, witnesses and groups of a policy, each.
pub const MAX_ENTRIES: usize = 64;
/// Longest line, in bytes.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// The name of the quorum that needs nobody.
const NOBODY: &[u8] = b"none";

/// A checked policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogPolicy {
    logs: Vec<NoteVerifier>,
    /// Witnesses and groups in their order: members stand before their groups.
    named: Vec<Named>,
    /// Which of [`TlogPolicy::named`] must have witnessed; none: nobody.
    quorum: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    name: Vec<u8>,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Witness(WitnessKey),
    Group { least: usize, members: Vec<usize> },
}

/// A checkpoint that a policy accepts. Only [`TlogPolicy::accept`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    checkpoint: Checkpoint,
    log: NoteVerifier,
    witnesses: Vec<(WitnessKey, Timestamp)>,
}

/// The text is no policy: its writer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlogPolicyMalformed {
    #[error("policy is longer than the limit in bytes: {MAX_POLICY_BYTES}")]
    TooLong,
    #[error("policy holds a control character other than tab and line feed")]
    Character,
    #[error("the last line has no end: the policy may have been cut")]
    Cut,
    #[error("line {line}: {what}")]
    Line { line: usize, what: LineFault },
    #[error("no quorum line")]
    NoQuorum,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    #[error("longer than the limit in bytes: {MAX_LINE_BYTES}")]
    TooLong,
    #[error("neither log, witness, group nor quorum with what belongs to it")]
    Unknown,
    #[error("key is malformed, or of another type than ed25519 for logs (1) or witnesses (4): {0}")]
    Key(NoteMalformed),
    #[error("key was given before")]
    KeyTwice,
    #[error("name was given before, or is none")]
    NameTwice,
    #[error("name is not defined above")]
    NoSuchName,
    #[error("member is in a group already")]
    MemberTwice,
    #[error("neither all, any nor a number from 1 to the number of members")]
    Threshold,
    #[error("a second quorum")]
    QuorumTwice,
    #[error("more entries than the limit: {MAX_ENTRIES}")]
    TooMany,
}

/// Why a policy does not accept a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    #[error("checkpoint is not accepted: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("checkpoint is of a log that the policy does not name: {0}")]
    OtherLog(String),
    #[error("a cosignature in the name of a witness does not verify: {0}")]
    Cosignature(String),
    #[error("too few of the witnesses cosigned: {}", listed(.0))]
    Quorum(Vec<String>),
}

impl TlogPolicy {
    pub fn parse(bytes: &[u8]) -> Result<Self, TlogPolicyMalformed> {
        if bytes.len() > MAX_POLICY_BYTES {
            return Err(TlogPolicyMalformed::TooLong);
        }
        if bytes
            .iter()
            .any(|b| !matches!(b, b'\t' | b'\n' | 0x20..=0x7e | 0x80..))
        {
            return Err(TlogPolicyMalformed::Character);
        }
        let text = bytes.strip_suffix(b"\n").ok_or(TlogPolicyMalformed::Cut)?;
        let mut reader = Reader::default();
        for (number, line) in (1..).zip(text.split(|b| *b == b'\n')) {
            reader
                .line(line)
                .map_err(|what| TlogPolicyMalformed::Line { line: number, what })?;
        }
        Ok(Self {
            quorum: reader.quorum.ok_or(TlogPolicyMalformed::NoQuorum)?,
            logs: reader.logs,
            named: reader.named,
        })
    }

    /// The logs it names.
    pub fn logs(&self) -> &[NoteVerifier] {
        &self.logs
    }

    /// Checks a signed checkpoint: a log of the policy must have signed it (`also`: one that the reader knows otherwise),
    /// and the quorum of witnesses must have cosigned it.
    pub fn accept(
        &self,
        note: &[u8],
        also: Option<&NoteVerifier>,
    ) -> Result<Accepted, NotAccepted> {
        let note = Note::parse(note).map_err(CheckpointError::from)?;
        let checkpoint = Checkpoint::parse_text(note.unverified_text())?;
        let mut of_origin = self
            .logs
            .iter()
            .chain(also)
            .filter(|log| log.name() == checkpoint.origin)
            .peekable();
        if of_origin.peek().is_none() {
            return Err(NotAccepted::OtherLog(checkpoint.origin));
        }
        let mut signed = Err(NoteUnverified::Missing);
        for log in of_origin {
            match note.open(log) {
                Ok(_) => signed = Ok(log.clone()),
                Err(NoteUnverified::Missing) => {}
                Err(wrong @ NoteUnverified::Signature) => {
                    return Err(CheckpointError::from(wrong).into());
                }
            }
        }
        let log = signed.map_err(CheckpointError::from)?;
        let (witnessed, witnesses) = self.witnessed(&note)?;
        let is_enough = self
            .quorum
            .is_none_or(|quorum| witnessed.get(quorum).copied().unwrap_or(false));
        if !is_enough {
            let names = witnesses.iter().map(|(key, _)| key.name().to_owned());
            return Err(NotAccepted::Quorum(names.collect()));
        }
        Ok(Accepted {
            checkpoint,
            log,
            witnesses,
        })
    }

    /// Which of the named have witnessed the note, and the witnesses among them.
    #[allow(clippy::type_complexity, reason = "two lists that are made together")]
    fn witnessed(
        &self,
        note: &Note,
    ) -> Result<(Vec<bool>, Vec<(WitnessKey, Timestamp)>), NotAccepted> {
        let mut witnessed = Vec::with_capacity(self.named.len());
        let mut witnesses = Vec::new();
        for named in &self.named {
            let has = match &named.what {
                What::Witness(key) => match key.verify(note) {
                    Ok(cosignature) => {
                        witnesses.push((key.clone(), cosignature.time()));
                        true
                    }
                    Err(NoteUnverified::Missing) => false,
                    Err(NoteUnverified::Signature) => {
                        return Err(NotAccepted::Cosignature(key.name().to_owned()));
                    }
                },
                What::Group { least, members } => {
                    let have = members.iter().filter(|member| {
                        // Members stand before their groups.
                        witnessed.get(**member).copied().unwrap_or(false)
                    });
                    have.count() >= *least
                }
            };
            witnessed.push(has);
        }
        Ok((witnessed, witnesses))
    }
}

impl Accepted {
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The key of the log that signed it.
    pub fn log(&self) -> &NoteVerifier {
        &self.log
    }

    /// The policy's witnesses that cosigned it, and when.
    pub fn witnesses(&self) -> &[(WitnessKey, Timestamp)] {
        &self.witnesses
    }
}

impl NotAccepted {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Checkpoint(_) => "policy_checkpoint",
            Self::OtherLog(_) => "policy_other_log",
            Self::Cosignature(_) => "policy_cosignature",
            Self::Quorum(_) => "policy_quorum",
        }
    }
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    logs: Vec<NoteVerifier>,
    named: Vec<Named>,
    by_name: BTreeMap<Vec<u8>, usize>,
    members: Vec<usize>,
    witnesses: usize,
    quorum: Option<Option<usize>>,
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), LineFault> {
        if line.len() > MAX_LINE_BYTES {
            return Err(LineFault::TooLong);
        }
        let items: Vec<&[u8]> = line
            .split(|b| matches!(b, b' ' | b'\t'))
            .filter(|item| !item.is_empty())
            .collect();
        match items.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", key] | [b"log", key, _] => self.log(key),
            [b"witness", name, key] | [b"witness", name, key, _] => self.witness(name, key),
            [b"group", name, threshold, members @ ..] => self.group(name, threshold, members),
            [b"quorum", name] => self.set_quorum(name),
            _ => Err(LineFault::Unknown),
        }
    }

    fn log(&mut self, key: &[u8]) -> Result<(), LineFault> {
        if self.logs.len() >= MAX_ENTRIES {
            return Err(LineFault::TooMany);
        }
        let log = NoteVerifier::parse(text(key)?).map_err(LineFault::Key)?;
        if self.logs.iter().any(|other| other.key() == log.key()) {
            return Err(LineFault::KeyTwice);
        }
        self.logs.push(log);
        Ok(())
    }

    fn witness(&mut self, name: &[u8], key: &[u8]) -> Result<(), LineFault> {
        let key = WitnessKey::parse(text(key)?).map_err(LineFault::Key)?;
        let is_known = |named: &Named| match &named.what {
            What::Witness(other) => other.key() == key.key(),
            What::Group { .. } => false,
        };
        if self.named.iter().any(is_known) {
            return Err(LineFault::KeyTwice);
        }
        if self.witnesses >= MAX_ENTRIES {
            return Err(LineFault::TooMany);
        }
        self.witnesses += 1;
        self.define(name, What::Witness(key))
    }

    fn group(&mut self, name: &[u8], threshold: &[u8], members: &[&[u8]]) -> Result<(), LineFault> {
        if self.named.len() - self.witnesses >= MAX_ENTRIES {
            return Err(LineFault::TooMany);
        }
        let mut of_group = Vec::new();
        for member in members {
            let member = *self.by_name.get(*member).ok_or(LineFault::NoSuchName)?;
            // In one group only, so that each witness counts in one way.
            if self.members.contains(&member) {
                return Err(LineFault::MemberTwice);
            }
            self.members.push(member);
            of_group.push(member);
        }
        let least = match threshold {
            b"all" => of_group.len(),
            b"any" => 1,
            number => decimal(number).ok_or(LineFault::Threshold)?,
        };
        if !(1..=of_group.len()).contains(&least) {
            return Err(LineFault::Threshold);
        }
        let members = of_group;
        self.define(name, What::Group { least, members })
    }

    fn define(&mut self, name: &[u8], what: What) -> Result<(), LineFault> {
        if name == NOBODY || self.by_name.contains_key(name) {
            return Err(LineFault::NameTwice);
        }
        self.by_name.insert(name.to_vec(), self.named.len());
        let name = name.to_vec();
        self.named.push(Named { name, what });
        Ok(())
    }

    fn set_quorum(&mut self, name: &[u8]) -> Result<(), LineFault> {
        if self.quorum.is_some() {
            return Err(LineFault::QuorumTwice);
        }
        self.quorum = Some(match name {
            NOBODY => None,
            name => Some(*self.by_name.get(name).ok_or(LineFault::NoSuchName)?),
        });
        Ok(())
    }
}

/// A number without sign or leading zeros.
fn decimal(digits: &[u8]) -> Option<usize> {
    let digits = str::from_utf8(digits).ok()?;
    let number: usize = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

fn text(key: &[u8]) -> Result<&str, LineFault> {
    str::from_utf8(key).map_err(|_| LineFault::Key(NoteMalformed::Text))
}

fn listed(names: &[String]) -> String {
    match names.is_empty() {
        true => "none did".to_owned(),
        false => names.join(" "),
    }
}

#[cfg(test)]
mod tests;
