//! Digest lists beside the policy: one `algorithm:hex` a line, then the path where it matters; `#` begins a comment.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{path_fits, whole};
use crate::diagnostic::{Code, Diagnostics, suggest};
use crate::digests::{DigestList, FileHash, ListedDigest};
use crate::source::{
    MAX_LIST_FILE_BYTES, MAX_LISTS_BYTES, MAX_PATH_BYTES, Place, Placed, SourceFile,
};

/// Longest path in a list, in bytes (`PATH_MAX` of Linux).
const MAX_FILE_PATH_BYTES: usize = 4096;

/// The lists of a policy by their paths.
#[derive(Default)]
pub(crate) struct Lists {
    by_path: BTreeMap<String, List>,
}

struct List {
    file: usize,
    /// `None`: unreadable, and its errors stand.
    digests: Option<Arc<DigestList>>,
    used: bool,
}

/// Reads every list within the limits. Files of a wrong path have their error already.
pub(crate) fn parse(files: &[SourceFile], found: &mut Diagnostics<'_>) -> Lists {
    let mut lists = Lists::default();
    let mut total = 0_usize;
    for (index, file) in files.iter().enumerate() {
        if !file.is_list() || !path_fits(&file.path) || lists.by_path.contains_key(&file.path) {
            continue;
        }
        total = total.saturating_add(file.text.len());
        let digests = if file.text.len() > MAX_LIST_FILE_BYTES || total > MAX_LISTS_BYTES {
            let message = format!(
                "list larger than the limit in bytes: {MAX_LIST_FILE_BYTES} each, {MAX_LISTS_BYTES} in all"
            );
            found.error(whole(index), Code::TooMuch, message);
            None
        } else {
            read(index, &file.text, found).map(Arc::new)
        };
        let list = List {
            file: index,
            digests,
            used: false,
        };
        lists.by_path.insert(file.path.clone(), list);
    }
    lists
}

impl Lists {
    pub(crate) fn len(&self) -> usize {
        self.by_path.len()
    }

    /// The list that a profile names: relative to its own file, else to the policy's directory.
    pub(crate) fn require(
        &mut self,
        directory: &str,
        name: &Placed<String>,
        found: &mut Diagnostics<'_>,
    ) -> Option<Arc<DigestList>> {
        if !path_fits(&name.value) {
            found.error_with_help(
                name.at,
                Code::BadValue,
                format!("not a path within the policy's directory: {:?}", name.value),
                format!(
                    "relative to this file or to the policy's directory, at most {MAX_PATH_BYTES} bytes, no `.` or `..` parts"
                ),
            );
            return None;
        }
        let near = match directory {
            "" => name.value.clone(),
            directory => format!("{directory}/{}", name.value),
        };
        let path = match self.by_path.contains_key(&near) {
            true => near,
            false => name.value.clone(),
        };
        let Some(list) = self.by_path.get_mut(&path) else {
            found.error_with_help(
                name.at,
                Code::UnknownName,
                format!("list {:?} is not beside the policy", name.value),
                match SourceFile::is_list_path(&name.value) {
                    true => suggest(&name.value, self.by_path.keys().map(String::as_str)),
                    false => "the name of a list ends in .allow or .deny".to_owned(),
                },
            );
            return None;
        };
        list.used = true;
        list.digests.clone()
    }

    /// Lists that no profile names promise what nothing keeps.
    pub(crate) fn refuse_unused(&self, found: &mut Diagnostics<'_>) {
        for list in self.by_path.values().filter(|list| !list.used) {
            found.error_with_help(
                whole(list.file),
                Code::Unused,
                "no profile names this list",
                "name it: ima = { allow = \"…\" }, or take it out",
            );
        }
    }
}

fn read(file: usize, text: &str, found: &mut Diagnostics<'_>) -> Option<DigestList> {
    let before = found.count();
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match read_line(line) {
            Ok(entry) => entries.push(entry),
            Err(bad) => {
                let at = Place {
                    file,
                    line: index + 1,
                    column: line.get(..bad.offset).unwrap_or("").chars().count() + 1,
                };
                found.error_with_help(at, Code::BadValue, bad.message, bad.help);
            }
        }
        // The rest of a file that is no list at all adds nothing.
        if found.is_full() {
            return None;
        }
    }
    if found.count() > before {
        return None;
    }
    if entries.is_empty() {
        found.error_with_help(
            whole(file),
            Code::ChecksNothing,
            "list holds no digest",
            "write \"sha256:\" and 64 hex digits a line, then the path where it matters",
        );
        return None;
    }
    Some(DigestList::new(entries))
}

struct BadLine {
    /// Where in the line, in bytes.
    offset: usize,
    message: String,
    help: String,
}

fn read_line(line: &str) -> Result<ListedDigest, BadLine> {
    let bad = |offset, message: String, help: String| BadLine {
        offset,
        message,
        help,
    };
    let (value, path) = match line.split_once(' ') {
        Some((value, path)) => (value, Some(path)),
        None => (line, None),
    };
    let Some((word, digits)) = value.split_once(':') else {
        return Err(bad(
            0,
            format!("not a digest: {:?}", shown(value)),
            "write algorithm:hex, then the path where it matters".to_owned(),
        ));
    };
    let Some(hash) = FileHash::ALL.into_iter().find(|hash| hash.as_str() == word) else {
        return Err(bad(
            0,
            format!("algorithm is unknown or too weak: {:?}", shown(word)),
            suggest(&shown(word), FileHash::ALL.map(FileHash::as_str)),
        ));
    };
    let digest = hex::decode(digits)
        .ok()
        .filter(|digest| digest.len() == hash.digest_bytes());
    let Some(digest) = digest else {
        return Err(bad(
            word.len() + 1,
            format!("not a {word} digest: {:?}", shown(digits)),
            format!("{} hex digits", hash.digest_bytes() * 2),
        ));
    };
    if let Some(path) = path
        && (path.trim() != path
            || path.is_empty()
            || path.len() > MAX_FILE_PATH_BYTES
            || path.chars().any(char::is_control))
    {
        return Err(bad(
            value.len() + 1,
            format!("path does not fit: {:?}", shown(path)),
            format!(
                "one space, then the path as IMA lists it: at most {MAX_FILE_PATH_BYTES} bytes, no control characters, no space around it"
            ),
        ));
    }
    Ok(ListedDigest {
        hash,
        digest: digest.into(),
        path: path.map(Box::from),
    })
}

/// As much of a value as an error may repeat.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
