//! `edgeward audit segment`: archived pieces of the log, offline.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use edgeward_audit::block::{BLOCK_LEAVES, Bodies};
use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::note::NoteVerifier;
use edgeward_audit::record::SealedRecord;
use edgeward_audit::segment::{MAX_SEGMENT_BYTES, Segment, SegmentPart};
use edgeward_audit::tlog_policy::TlogPolicy;
use serde_json::json;

use super::super::{Failure, Session};
use crate::keys::sites::{SiteKeyId, SiteKeys, Unopened};
use crate::store::audit::Sealed;

/// `edgeward audit segment`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the records of a segment; needs the keys of its sites, so it is done where the cloud keeps them
    #[command(after_help = "\
Examples:
  edgeward audit segment show 0000000000016384.segment --keys /var/lib/edgeward/keys/sites

One record a line, as it was written. Records of erased sites are left out, and counted.")]
    Show(#[command(flatten)] Show),
    /// Write the proof that one event of a segment is in the log (a .tlog-proof, C2SP); needs no key
    Prove(#[command(flatten)] Prove),
}

#[derive(Debug, Args)]
pub struct Show {
    /// A segment of the archive
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The folder of the sites' keys
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// Only this event
    #[arg(long)]
    index: Option<u64>,
}

#[derive(Debug, Args)]
pub struct Prove {
    /// A segment of the archive
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The event's place in the log
    #[arg(value_name = "INDEX")]
    index: u64,
    /// Write it to this file; to standard output if absent
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How a segment begins.
pub(super) const START: &[u8] = b"edgeward audit segment ";

pub(super) fn run(session: &Session, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Show(show) => self::show(session, show),
        Command::Prove(prove) => self::prove(session, prove),
    }
}

/// Checks a segment without a cloud and without any key of a site.
pub(super) fn verify(
    session: &Session,
    path: &Path,
    input: impl Read,
    (key, policy): (Option<&NoteVerifier>, Option<&TlogPolicy>),
) -> Result<(Checkpoint, NoteVerifier), Failure> {
    let segment = parse(path, input)?;
    let accepted = super::verify::accepted(policy, &segment.checkpoint, key, path)?;
    let key = key.or(accepted.as_ref().map(|accepted| accepted.log()));
    let key = key.ok_or_else(|| {
        Failure::Usage(
            "a segment does not hold the log's key: give --log-key or --policy".to_owned(),
        )
    })?;
    let verified = segment
        .verify(key.name(), key)
        .map_err(|error| unsound(path, &format!("{error} ({})", error.code())))?;
    let answer = json!({
        "first": verified.first,
        "last": verified.end - 1,
        "sealed": verified.sealed,
        "origin": verified.checkpoint.origin,
        "size": verified.checkpoint.size,
        "root": verified.checkpoint.root.to_string(),
    });
    session.screen.answer(&answer, |_| {
        format!(
            "good: events {} to {} of {}, {} of them with their sealed record\nlog: {} events, root {}",
            verified.first,
            verified.end - 1,
            verified.checkpoint.origin,
            verified.sealed,
            verified.checkpoint.size,
            verified.checkpoint.root
        )
    });
    Ok((verified.checkpoint, key.clone()))
}

fn show(session: &Session, arguments: &Show) -> Result<(), Failure> {
    let segment = open(&arguments.file)?;
    let keys = SiteKeys::open_existing(&arguments.keys)
        .map_err(|fault| Failure::Unsound(fault.to_string()))?;
    let (mut shown, mut erased) = (0_u64, 0_u64);
    for number in 0..segment.blocks.len() {
        let block = records_of(&arguments.file, &segment, number, &keys)?;
        erased += block.erased;
        for (index, record) in &block.records {
            if arguments.index.is_none_or(|wanted| wanted == *index) {
                session.screen.line(&String::from_utf8_lossy(record));
                shown += 1;
            }
        }
    }
    session.screen.note(&format!(
        "{shown} records; {erased} events of this segment are erased"
    ));
    match arguments.index {
        Some(index) if shown == 0 => Err(Failure::NoAnswer(format!(
            "event {index} is erased, or not in this segment"
        ))),
        _ => Ok(()),
    }
}

/// What can be read of a block.
#[derive(Debug, Default)]
struct Readable {
    records: BTreeMap<u64, Vec<u8>>,
    erased: u64,
}

/// The records of one block of a segment, each held to its entry.
fn records_of(
    path: &Path,
    segment: &Segment,
    number: usize,
    keys: &SiteKeys,
) -> Result<Readable, Failure> {
    let mut found = Readable::default();
    let block = segment.first / BLOCK_LEAVES + number as u64;
    let parts = segment.blocks.get(number).map(|block| &block.parts);
    for part in parts.into_iter().flatten() {
        let Some(bodies) = open_part(path, keys, block, part)? else {
            found.erased += part.places.count() as u64;
            continue;
        };
        for (number, place) in part.places.iter().enumerate() {
            let index = block * BLOCK_LEAVES + u64::from(place);
            let record = bodies.record(number);
            let record = record.ok_or_else(|| unsound(path, &"records are missing"))?;
            is_the_entry(path, segment, index, record)?;
            found.records.insert(index, record.to_vec());
        }
    }
    Ok(found)
}

/// The records of a part; none if they are erased.
fn open_part(
    path: &Path,
    keys: &SiteKeys,
    block: u64,
    part: &SegmentPart,
) -> Result<Option<Bodies>, Failure> {
    if part.bodies.is_empty() {
        return Ok(None);
    }
    let id = SiteKeyId::from_number(part.site_key)
        .ok_or_else(|| unsound(path, &"the id of a key is none"))?;
    let context = Sealed::Bodies(block).context();
    let plain = match keys.open_sealed(id, &context, &part.bodies) {
        Ok(plain) => plain,
        Err(Unopened::Erased) => return Ok(None),
        Err(Unopened::NoKey) => {
            return Err(Failure::NoAnswer(format!(
                "key {id} is not in the folder, and has no tombstone there: it is another cloud's, or lost"
            )));
        }
        Err(Unopened::Damaged) => return Err(unsound(path, &"records are not what was sealed")),
    };
    let bodies = Bodies::parse(&plain).map_err(|error| unsound(path, &error))?;
    match bodies.len() == part.places.count() {
        true => Ok(Some(bodies)),
        false => Err(unsound(path, &"not as many records as places")),
    }
}

fn is_the_entry(path: &Path, segment: &Segment, index: u64, record: &[u8]) -> Result<(), Failure> {
    let sealed = SealedRecord::parse(record).map_err(|error| unsound(path, &error))?;
    match segment.entry(index) {
        Ok(entry) if entry == sealed.hash() => Ok(()),
        _ => Err(unsound(
            path,
            &format!("the record of event {index} is not the log's"),
        )),
    }
}

fn prove(session: &Session, arguments: &Prove) -> Result<(), Failure> {
    let segment = open(&arguments.file)?;
    segment
        .proves_itself()
        .map_err(|error| unsound(&arguments.file, &error))?;
    let proof = segment
        .proof_of(arguments.index)
        .map_err(|error| unsound(&arguments.file, &error))?;
    match &arguments.out {
        Some(path) => std::fs::write(path, proof.to_string()).map_err(Failure::file(path)),
        None => {
            session.screen.line(proof.to_string().trim_end());
            Ok(())
        }
    }
}

fn open(path: &Path) -> Result<Segment, Failure> {
    let file = File::open(path).map_err(Failure::file(path))?;
    parse(path, file)
}

fn parse(path: &Path, input: impl Read) -> Result<Segment, Failure> {
    let bytes = super::verify::bounded(input, MAX_SEGMENT_BYTES, path)?;
    Segment::parse(&bytes).map_err(|error| unsound(path, &format!("{error} ({})", error.code())))
}

fn unsound(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::Unsound(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
