//! Checking exports and proofs without a cloud.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::cosignature::WitnessKey;
use edgeward_audit::log_proof::{LogProof, MAX_LOG_PROOF_BYTES};
use edgeward_audit::note::{MAX_NOTE_BYTES, NoteVerifier};
use edgeward_audit::proven::{MAX_LINE_BYTES, Verified, Verifier};
use edgeward_audit::record::{MAX_RECORD_BYTES, SealedRecord};
use edgeward_audit::tlog_policy::{Accepted, MAX_POLICY_BYTES, TlogPolicy};

use edgeward_identity::Timestamp;

use super::super::{Failure, Session};
use super::segment;
use crate::when;

/// Longest key in a file, in bytes.
const MAX_KEY_BYTES: u64 = 4096;
/// How a proof begins, and no export.
const PROOF_START: &[u8] = b"c2sp.org/tlog-proof@";

/// `edgeward audit verify`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// An export of `edgeward audit export`, a .tlog-proof, or an archived segment; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The log's public key (<name>+<id>+<key>), or a file that holds it
    #[arg(long, value_name = "KEY|FILE")]
    log_key: Option<String>,
    /// A checkpoint of the log that came another way: the file's must be the same
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// A policy (C2SP tlog-policy): its logs are trusted, and its quorum of witnesses must have cosigned the checkpoint
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The record that a proof is for, if it is not in the proof
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

pub(super) fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let key = arguments.log_key.as_deref().map(read_key).transpose()?;
    let policy = arguments.policy.as_deref().map(read_policy).transpose()?;
    let mut input: Box<dyn BufRead> = match arguments.file.as_os_str() == "-" {
        true => Box::new(BufReader::new(std::io::stdin())),
        false => {
            let file = File::open(&arguments.file).map_err(Failure::file(&arguments.file))?;
            Box::new(BufReader::new(file))
        }
    };
    let start = input.fill_buf().map_err(Failure::file(&arguments.file))?;
    if start.starts_with(PROOF_START) {
        return proof(session, arguments, input, key.as_ref(), policy.as_ref());
    }
    if start.starts_with(segment::START) {
        let path = &arguments.file;
        let (checkpoint, key) =
            segment::verify(session, path, input, (key.as_ref(), policy.as_ref()))?;
        return match &arguments.checkpoint {
            Some(path) => same_checkpoint(path, &checkpoint, &key),
            None => Ok(()),
        };
    }
    let verified = export(input, key.as_ref(), &arguments.file)?;
    let accepted = accepted(
        policy.as_ref(),
        &verified.note,
        key.as_ref(),
        &arguments.file,
    )?;
    if let Some(accepted) = &accepted
        && *accepted.log() != verified.log_key
    {
        return Err(Failure::Unsound(format!(
            "{}: another key than the export names is the log's by the policy: {}",
            arguments.file.display(),
            accepted.log()
        )));
    }
    if let Some(path) = &arguments.checkpoint {
        same_checkpoint(path, &verified.checkpoint, &verified.log_key)?;
    }
    let trusted = key.is_some() || accepted.is_some();
    tell(session, &verified, trusted, accepted.as_ref());
    Ok(())
}

/// Holds a checkpoint to a policy, if there is one.
pub(super) fn accepted(
    policy: Option<&TlogPolicy>,
    note: &str,
    key: Option<&NoteVerifier>,
    path: &Path,
) -> Result<Option<Accepted>, Failure> {
    let accepted = policy.map(|policy| policy.accept(note.as_bytes(), key));
    accepted.transpose().map_err(|error| {
        Failure::Unsound(format!("{}: {error} ({})", path.display(), error.code()))
    })
}

/// Who cosigned, of those whom the policy names; null without a policy.
fn witnesses(accepted: Option<&Accepted>) -> serde_json::Value {
    accepted.map_or(serde_json::Value::Null, |accepted| {
        let witness = |(key, time): &(WitnessKey, Timestamp)| {
            serde_json::json!({ "name": key.name(), "time": when::format(*time) })
        };
        accepted.witnesses().iter().map(witness).collect()
    })
}

fn cosigned_by(accepted: Option<&Accepted>) -> String {
    let names = |accepted: &Accepted| {
        let names = accepted.witnesses().iter().map(|(key, _)| key.name());
        names.collect::<Vec<_>>().join(" ")
    };
    accepted.map_or(String::new(), |accepted| {
        format!("\ncosigned by enough for the policy: {}", names(accepted))
    })
}

/// Checks an export line by line; of a wrong one the first wrong line is named.
fn export(
    mut input: impl BufRead,
    key: Option<&NoteVerifier>,
    path: &Path,
) -> Result<Verified, Failure> {
    let mut verifier: Option<Verifier> = None;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        // One byte more than any line has, so that a longer one is seen as such.
        let most = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX) + 2;
        let read = input
            .by_ref()
            .take(most)
            .read_until(b'\n', &mut line)
            .map_err(Failure::file(path))?;
        if read == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let wrong = |error: edgeward_audit::proven::Unproven| {
            Failure::Unsound(format!(
                "{}, line {number}: {error} ({})",
                path.display(),
                error.code()
            ))
        };
        match &mut verifier {
            None => verifier = Some(Verifier::begin(text, key).map_err(wrong)?),
            Some(verifier) => verifier.line(text).map_err(wrong)?,
        }
    }
    let verifier =
        verifier.ok_or_else(|| Failure::Unsound(format!("{}: is empty", path.display())))?;
    verifier.finish().map_err(|error| {
        Failure::Unsound(format!("{}: {error} ({})", path.display(), error.code()))
    })
}

fn tell(session: &Session, verified: &Verified, trusted: bool, accepted: Option<&Accepted>) {
    let answer = serde_json::json!({
        "events": verified.events,
        "first": verified.range.map(|(first, _)| first),
        "last": verified.range.map(|(_, last)| last),
        "without_gap": verified.is_without_gap(),
        "links": verified.links,
        "origin": verified.checkpoint.origin,
        "size": verified.checkpoint.size,
        "root": verified.checkpoint.root.to_string(),
        "log_key": verified.log_key.to_string(),
        "log_key_trusted": trusted,
        "witnesses": witnesses(accepted),
    });
    session.screen.answer(&answer, |_| {
        let range = match verified.range {
            None => "no events".to_owned(),
            Some((first, last)) => format!(
                "{} events, {first} to {last} of the log, {}",
                verified.events,
                match verified.is_without_gap() {
                    true => "all of them",
                    false => "not all of them: a filter chose",
                }
            ),
        };
        format!(
            "good: {range}\nlog: {}, {} events, root {}\nneighbours in their journals: {}{}",
            verified.checkpoint.origin,
            verified.checkpoint.size,
            verified.checkpoint.root,
            verified.links,
            cosigned_by(accepted)
        )
    });
    warn_untrusted(session, &verified.log_key, trusted);
}

fn warn_untrusted(session: &Session, key: &NoteVerifier, trusted: bool) {
    if !trusted {
        session.screen.note(&format!(
            "checked by the file's own key, which is worth something only if it is the log's: {key}"
        ));
    }
}

fn proof(
    session: &Session,
    arguments: &Arguments,
    input: impl Read,
    key: Option<&NoteVerifier>,
    policy: Option<&TlogPolicy>,
) -> Result<(), Failure> {
    let path = &arguments.file;
    let bytes = bounded(input, MAX_LOG_PROOF_BYTES, path)?;
    let unsound =
        |error: &dyn std::fmt::Display| Failure::Unsound(format!("{}: {error}", path.display()));
    let proof = LogProof::parse(&bytes).map_err(|error| unsound(&error))?;
    if key.is_none() && policy.is_none() {
        let why = "a proof does not hold the log's key: give --log-key or --policy";
        return Err(Failure::Usage(why.to_owned()));
    }
    let accepted = accepted(policy, &proof.checkpoint, key, path)?;
    let key = match (key, &accepted) {
        (Some(key), _) => key,
        (None, Some(accepted)) => accepted.log(),
        (None, None) => return Err(unsound(&"no key")),
    };
    let record = match &arguments.record {
        Some(path) => {
            let file = File::open(path).map_err(Failure::file(path))?;
            bounded(file, MAX_RECORD_BYTES, path)?
        }
        None => proof.extra.clone().ok_or_else(|| {
            Failure::Usage("the proof does not hold its record: give --record".to_owned())
        })?,
    };
    let sealed = SealedRecord::parse(&record).map_err(|error| unsound(&error))?;
    let checkpoint = proof
        .verify(sealed.hash().as_bytes(), key.name(), key)
        .map_err(|error| unsound(&format!("{error} ({})", error.code())))?;
    if let Some(path) = &arguments.checkpoint {
        same_checkpoint(path, &checkpoint, key)?;
    }
    let event = sealed.event();
    let answer = serde_json::json!({
        "index": proof.index,
        "record": sealed.record(),
        "hash": sealed.hash().to_string(),
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.to_string(),
        "witnesses": witnesses(accepted.as_ref()),
    });
    session.screen.answer(&answer, |_| {
        format!(
            "good: event {} of {}: {} by {}, recorded by {}\nlog: {} events, root {}{}",
            proof.index,
            checkpoint.origin,
            event.kind,
            event.actor,
            sealed.record().node,
            checkpoint.size,
            checkpoint.root,
            cosigned_by(accepted.as_ref())
        )
    });
    Ok(())
}

/// Two checkpoints of one size have one root, or the log shows different people different things.
fn same_checkpoint(path: &Path, found: &Checkpoint, key: &NoteVerifier) -> Result<(), Failure> {
    let file = File::open(path).map_err(Failure::file(path))?;
    let note = bounded(file, MAX_NOTE_BYTES, path)?;
    let other = Checkpoint::open(&note, &found.origin, key)
        .map_err(|error| Failure::Unsound(format!("{}: {error}", path.display())))?;
    if other.size != found.size {
        return Err(Failure::NoAnswer(format!(
            "{}: is of {} events, the file's checkpoint of {}: only those of one size can be compared offline",
            path.display(),
            other.size,
            found.size
        )));
    }
    match other.root == found.root {
        true => Ok(()),
        false => Err(Failure::Unsound(format!(
            "{}: another root for the same size: the log was signed twice, with two contents",
            path.display()
        ))),
    }
}

pub(super) fn bounded(input: impl Read, most: usize, path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX) + 1;
    input
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(Failure::file(path))?;
    match bytes.len() > most {
        true => Err(Failure::Unsound(format!(
            "{}: longer than the limit in bytes: {most}",
            path.display()
        ))),
        false => Ok(bytes),
    }
}

fn read_policy(path: &Path) -> Result<TlogPolicy, Failure> {
    let file = File::open(path).map_err(Failure::file(path))?;
    let bytes = bounded(file, MAX_POLICY_BYTES, path)?;
    TlogPolicy::parse(&bytes)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// A key as it is, or the file that holds it.
pub(super) fn read_key(text: &str) -> Result<NoteVerifier, Failure> {
    if let Ok(key) = NoteVerifier::parse(text) {
        return Ok(key);
    }
    let path = PathBuf::from(text);
    let mut read = String::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_KEY_BYTES).read_to_string(&mut read))
        .map_err(Failure::file(&path))?;
    NoteVerifier::parse(read.trim()).map_err(|_| Failure::Content {
        path,
        wanted: "a log's public key (<name>+<id>+<key>)",
    })
}

#[cfg(test)]
mod tests;
