//! Events with proofs, for whoever checks them offline. Proofs are made here, from the log's tiles, all under one
//! checkpoint: what the cloud says is checked while it is written.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::merkle::inclusion_proof;
use edgeward_audit::note::NoteVerifier;
use edgeward_audit::proven::{End, FORMAT, Header, Line as Written, Proven, Unproven, Verifier};
use edgeward_audit::tiles::{Row, Tile, TileNodes, tiles_of_inclusion};
use serde::Deserialize;

use super::super::client::{Line, encode};
use super::super::{Failure, Session};
use super::{EVENTS, Filter, path_of};
use crate::api::views::EventPage;

/// Events asked for in one page.
const PAGE: u64 = 1000;
/// Most tiles kept: 8 KiB each. Events come in the log's order, so few are needed twice.
const MAX_TILES: usize = 1024;

/// `edgeward audit export`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    filter: Filter,
    /// Not before this time; from the first event if absent
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    from: Option<String>,
    /// Before this time
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    to: Option<String>,
    /// Write to this file; to standard output if absent
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The log's public key, as it is known here; as the cloud names it if absent
    #[arg(long, value_name = "KEY|FILE")]
    log_key: Option<String>,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let from = arguments.from.as_deref();
    let asked = path_of(EVENTS, &arguments.filter, from, arguments.to.as_deref())?;
    let client = session.client()?;
    let mut log = Log::open(Line::new(&client), arguments.log_key.as_deref()).await?;
    let mut out = Out::open(arguments.out.as_deref())?;
    let filter = asked.split_once('?').map_or("", |(_, query)| query);
    let header = Written::Export(Header {
        format: FORMAT.to_owned(),
        origin: log.checkpoint.origin.clone(),
        log_key: log.key.to_string(),
        checkpoint: log.note.clone(),
        filter: filter.to_owned(),
    });
    let first = header.to_json();
    // What is written is checked as whoever gets it will.
    let mut verifier = Verifier::begin(first.as_bytes(), Some(&log.key)).map_err(unproven)?;
    out.line(&first)?;
    let mut events = 0;
    let mut cursor: Option<String> = None;
    'pages: loop {
        let mut path = format!("{asked}&limit={PAGE}&records=true");
        if let Some(cursor) = &cursor {
            path.push_str(&format!("&cursor={}", encode(cursor)));
        }
        let page: EventPage = log.line.get_json(&path).await?;
        for event in page.items {
            // What came after the checkpoint is for the next export.
            if event.index >= log.checkpoint.size {
                break 'pages;
            }
            let record = event.record.ok_or_else(|| {
                Failure::Answer("an event came without its record: update the cloud".to_owned())
            })?;
            let proof = log.prove(event.index).await?;
            let line = Written::Event(Proven::new(event.index, record, &proof)).to_json();
            verifier.line(line.as_bytes()).map_err(unproven)?;
            out.line(&line)?;
            events += 1;
        }
        cursor = page.cursor;
        if !page.more || cursor.is_none() {
            break;
        }
    }
    let last = Written::End(End { events }).to_json();
    verifier.line(last.as_bytes()).map_err(unproven)?;
    out.line(&last)?;
    out.close()?;
    session.screen.note(&format!(
        "{events} events, proven under a checkpoint of {} signed by {}",
        log.checkpoint.size, log.key
    ));
    Ok(())
}

/// How the cloud names the log and its key.
#[derive(Deserialize)]
struct LogName {
    origin: String,
    verifier: String,
}

/// The log's tree, as far as proofs need it.
struct Log<'c> {
    line: Line<'c>,
    key: NoteVerifier,
    note: String,
    checkpoint: Checkpoint,
    tiles: TileNodes,
    held: usize,
}

impl<'c> Log<'c> {
    async fn open(mut line: Line<'c>, key: Option<&str>) -> Result<Self, Failure> {
        let named: LogName = line.get_json("/api/v1/audit/log/key").await?;
        let key = match key {
            Some(text) => super::verify::read_key(text)?,
            None => NoteVerifier::parse(&named.verifier)
                .map_err(|error| Failure::Answer(error.to_string()))?,
        };
        let note = line
            .get("/api/v1/audit/log/checkpoint?cosigned=true")
            .await?;
        let checkpoint = Checkpoint::open(&note, &named.origin, &key)
            .map_err(|error| Failure::Unsound(format!("the log's checkpoint: {error}")))?;
        let note = String::from_utf8(note.into())
            .map_err(|_| Failure::Answer("the checkpoint is no text".to_owned()))?;
        Ok(Self {
            line,
            key,
            note,
            checkpoint,
            tiles: TileNodes::new(),
            held: 0,
        })
    }

    async fn prove(&mut self, index: u64) -> Result<Vec<edgeward_audit::Digest>, Failure> {
        let size = self.checkpoint.size;
        let wrong = |error: &dyn std::fmt::Display| Failure::Unsound(format!("the log: {error}"));
        let wanted = tiles_of_inclusion(index, size).map_err(|error| wrong(&error))?;
        if self.held > MAX_TILES {
            self.tiles = TileNodes::new();
            self.held = 0;
        }
        for (level, number) in wanted {
            if self.tiles.get((level, number)).is_some() {
                continue;
            }
            let tile = Tile::in_tree(Row::Level(level), number, size)
                .ok_or_else(|| wrong(&"a proof needs a tile that the tree does not have"))?;
            let bytes = self.line.get(&format!("/api/v1/audit/log/{tile}")).await?;
            let hashes = tile.parse_hashes(&bytes).map_err(|error| wrong(&error))?;
            self.tiles.insert((level, number), hashes);
            self.held += 1;
        }
        inclusion_proof(&self.tiles, index, size).map_err(|error| wrong(&error))
    }
}

/// Where an export goes: a file that appears when it is whole, or standard output.
enum Out {
    File {
        path: PathBuf,
        partial: PathBuf,
        file: BufWriter<File>,
    },
    Standard(BufWriter<std::io::Stdout>),
}

impl Out {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self::Standard(BufWriter::new(std::io::stdout())));
        };
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        let partial = PathBuf::from(name);
        let file = File::create(&partial).map_err(Failure::file(&partial))?;
        Ok(Self::File {
            path: path.to_owned(),
            partial,
            file: BufWriter::new(file),
        })
    }

    fn line(&mut self, text: &str) -> Result<(), Failure> {
        match self {
            Self::File { partial, file, .. } => {
                writeln!(file, "{text}").map_err(Failure::file(partial.clone()))
            }
            Self::Standard(out) => writeln!(out, "{text}").map_err(Failure::file("-")),
        }
    }

    fn close(self) -> Result<(), Failure> {
        match self {
            Self::File {
                path,
                partial,
                mut file,
            } => file
                .flush()
                .and_then(|()| file.get_ref().sync_all())
                .and_then(|()| std::fs::rename(&partial, &path))
                .map_err(Failure::file(path)),
            Self::Standard(mut out) => out.flush().map_err(Failure::file("-")),
        }
    }
}

fn unproven(error: Unproven) -> Failure {
    Failure::Unsound(format!(
        "what the cloud gave is not what its checkpoint says: {error} ({})",
        error.code()
    ))
}
