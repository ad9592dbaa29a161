//! The files and the code that people carry.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use edgeward_identity::Secret;
use edgeward_wire::break_glass::{Code, MAX_CODE_TEXT_BYTES, Mistyped};

use super::CodeArgs;
use crate::cli::{Failure, Session};

/// Reads at most so many bytes; more is an error.
pub(super) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let file = std::fs::File::open(path).map_err(Failure::file(path))?;
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(Failure::file(path))?;
    match bytes.len() <= limit {
        true => Ok(bytes),
        false => Err(Failure::Content {
            path: path.to_owned(),
            wanted: "of a reasonable size",
        }),
    }
}

/// Writes a new file that only its owner may read; one that is there is left alone.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(Failure::file(path))
}

pub(super) fn code(session: &Session, given: &CodeArgs) -> Result<Code, Failure> {
    let text = match (&given.code, &given.code_file) {
        (Some(code), _) => Secret::new(code.clone()),
        (None, Some(path)) => {
            let bytes = read(path, MAX_CODE_TEXT_BYTES)?;
            Secret::new(String::from_utf8_lossy(&bytes).into_owned())
        }
        (None, None) => {
            session.screen.note("the code of the envelope:");
            Secret::new(line()?)
        }
    };
    Code::parse(text.expose().trim()).map_err(|error: Mistyped| Failure::Usage(error.to_string()))
}

/// One line from whoever types.
pub(super) fn line() -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(Failure::file(Path::new("standard input")))?;
    Ok(line.trim().to_owned())
}
