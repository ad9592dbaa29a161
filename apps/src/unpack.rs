//! Archives and layers of images read into a tree, with a limit on everything: for whoever makes a manifest of them,
//! and for the node that compares what came out with the manifest that was signed.
//!
//! Nothing is written here. Contents go to a [`Sink`] in pieces, after the path was judged.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::ops::Bound;

use crate::digest::{Digest, Hasher};
use crate::manifest::{MAX_APP_BYTES, MAX_ENTRIES};
use crate::path::{AppPath, PathError};

mod bounded;
mod header;

use bounded::Bounded;
use header::{Headers, Next};

/// Most members of one archive, folders and records that only describe others among them.
pub const MAX_MEMBERS: usize = 4 * MAX_ENTRIES;
/// Most bytes that one archive may unpack to, its own headers among them.
pub const MAX_UNPACKED_BYTES: u64 = MAX_APP_BYTES + MAX_MEMBERS as u64 * 1_024;
/// Most layers of one image.
pub const MAX_LAYERS: usize = 128;
/// How much content is handed on at once, in bytes.
const BLOCK_BYTES: usize = 64 * 1024;
/// What marks a name as removed in a layer (OCI image spec 1.1, layer).
const WHITEOUT: &str = ".wh.";
/// What marks a folder whose lower content is removed.
const OPAQUE: &str = ".wh..wh..opq";
/// What a gzip stream begins with (RFC 1952, 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Where contents go.
pub trait Sink {
    /// A file begins; whatever stood at the path is replaced.
    fn begin(&mut self, path: &AppPath) -> io::Result<()>;
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// The file at `path` is again what `first` is.
    fn same(&mut self, path: &AppPath, first: &AppPath) -> io::Result<()>;
    /// The path, and everything below it, is gone.
    fn remove(&mut self, path: &AppPath) -> io::Result<()>;
}

/// Keeps nothing: for whoever only wants to know.
#[derive(Debug, Default)]
pub struct Discard;

/// What an archive, or layer upon layer, comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<AppPath, Node>,
    layers: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Folder,
    File {
        digest: Digest,
        size: u64,
        executable: bool,
    },
    Link(String),
}

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("archive does not read: {0}")]
    Read(#[source] io::Error),
    #[error("content cannot be kept: {0}")]
    Sink(#[source] io::Error),
    #[error("archive unpacks to more than the limit in bytes: {0}")]
    TooLarge(u64),
    #[error("archive has more members than the limit: {MAX_MEMBERS}")]
    Members,
    #[error("more entries than the limit: {MAX_ENTRIES}")]
    Entries,
    #[error("more layers than the limit: {MAX_LAYERS}")]
    Layers,
    #[error(
        "a member's extended header is longer than the limit, or stands there twice, or does not read"
    )]
    Extended,
    #[error("member {0:?}: {1}")]
    Path(String, #[source] PathError),
    #[error("member {0}: neither file, folder nor link")]
    Kind(AppPath),
    #[error("member {0} stands there twice")]
    Twice(AppPath),
    #[error("member {0} lies below what is no folder")]
    NotAFolder(AppPath),
    #[error("member {0} is the same file as one that is not there")]
    Dangling(AppPath),
    #[error("archive is compressed in a way that is not read: only gzip is")]
    Compression,
    #[error("archive ends in the middle")]
    Torn,
}

impl Sink for Discard {
    fn begin(&mut self, _: &AppPath) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn same(&mut self, _: &AppPath, _: &AppPath) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, _: &AppPath) -> io::Result<()> {
        Ok(())
    }
}

impl Tree {
    pub fn nodes(&self) -> &BTreeMap<AppPath, Node> {
        &self.nodes
    }

    /// Puts a tar archive, plain or in gzip, over what is there: a layer of an image, or the only one.
    pub fn add(&mut self, mut archive: impl Read, sink: &mut dyn Sink) -> Result<(), Refused> {
        self.layers = self.layers.saturating_add(1);
        if self.layers > MAX_LAYERS {
            return Err(Refused::Layers);
        }
        let mut begin = [0; 2];
        let got = read_some(&mut archive, &mut begin).map_err(Refused::Read)?;
        let begun = begin.get(..got).unwrap_or_default();
        let whole = begun.chain(archive);
        if begun == GZIP {
            let plain = flate2::read::MultiGzDecoder::new(whole);
            self.add_tar(Bounded::new(plain, MAX_UNPACKED_BYTES), sink)
        } else if begun == [0x28, 0xb5] || begun == [0x42, 0x5a] || begun == [0xfd, 0x37] {
            Err(Refused::Compression)
        } else {
            self.add_tar(Bounded::new(whole, MAX_UNPACKED_BYTES), sink)
        }
    }

    fn add_tar<R: Read>(
        &mut self,
        archive: Bounded<R>,
        sink: &mut dyn Sink,
    ) -> Result<(), Refused> {
        let mut headers = Headers::new(archive);
        // What this layer itself brings: a whiteout of its own concerns only what lies below.
        let mut own = BTreeSet::new();
        for _ in 0..MAX_MEMBERS {
            let Some(next) = headers.next()? else {
                return Ok(());
            };
            self.member(next, &mut headers, &mut own, sink)?;
            headers.skip_rest()?;
            if self.nodes.len() > MAX_ENTRIES {
                return Err(Refused::Entries);
            }
        }
        Err(Refused::Members)
    }

    fn member<R: Read>(
        &mut self,
        next: Next,
        headers: &mut Headers<R>,
        own: &mut BTreeSet<AppPath>,
        sink: &mut dyn Sink,
    ) -> Result<(), Refused> {
        let Some(path) = plain_path(&next.path)? else {
            return Ok(());
        };
        if self.whiteout(&path, own, sink)? {
            return Ok(());
        }
        if path.above().any(|above| self.is_other(above)) {
            return Err(Refused::NotAFolder(path));
        }
        if !own.insert(path.clone()) && next.kind != header::Kind::Folder {
            return Err(Refused::Twice(path));
        }
        self.fill_above(&path)?;
        let node = match next.kind {
            header::Kind::Folder => {
                if matches!(
                    self.nodes.get(&path),
                    Some(Node::File { .. } | Node::Link(_))
                ) {
                    self.remove(&path, own, sink)?;
                }
                Node::Folder
            }
            header::Kind::Link => {
                path.link(&next.link)
                    .map_err(|why| Refused::Path(next.link.clone(), why))?;
                self.remove(&path, own, sink)?;
                Node::Link(next.link)
            }
            header::Kind::Same => {
                let first =
                    plain_path(&next.link)?.ok_or_else(|| Refused::Dangling(path.clone()))?;
                let Some(node @ Node::File { .. }) = self.nodes.get(&first).cloned() else {
                    return Err(Refused::Dangling(path));
                };
                if first != path {
                    self.remove(&path, own, sink)?;
                    sink.same(&path, &first).map_err(Refused::Sink)?;
                }
                node
            }
            header::Kind::File { executable } => {
                self.remove(&path, own, sink)?;
                sink.begin(&path).map_err(Refused::Sink)?;
                let (digest, size) = headers.content(sink)?;
                Node::File {
                    digest,
                    size,
                    executable,
                }
            }
            header::Kind::Other => return Err(Refused::Kind(path)),
        };
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Whether the member says that something is gone, and was obeyed.
    fn whiteout(
        &mut self,
        path: &AppPath,
        own: &BTreeSet<AppPath>,
        sink: &mut dyn Sink,
    ) -> Result<bool, Refused> {
        let (above, name) = path
            .as_str()
            .rsplit_once('/')
            .unwrap_or(("", path.as_str()));
        let Some(gone) = name.strip_prefix(WHITEOUT) else {
            return Ok(false);
        };
        let below = match (name == OPAQUE, above) {
            (true, "") => String::new(),
            (true, above) => format!("{above}/"),
            (false, "") => gone.to_owned(),
            (false, above) => format!("{above}/{gone}"),
        };
        let lower: Vec<AppPath> = match name == OPAQUE {
            true => self.below(&below).cloned().collect(),
            false => {
                let begin = format!("{below}/");
                let itself = self.nodes.get_key_value(below.as_str()).map(|(at, _)| at);
                itself
                    .into_iter()
                    .chain(self.below(&begin))
                    .cloned()
                    .collect()
            }
        };
        for at in lower {
            // What this layer itself brings stays, and so does a folder that it puts something into.
            if own.contains(&at) || begins_with(own, &format!("{at}/")) {
                continue;
            }
            self.nodes.remove(&at);
            sink.remove(&at).map_err(Refused::Sink)?;
        }
        Ok(true)
    }

    fn remove(
        &mut self,
        path: &AppPath,
        own: &BTreeSet<AppPath>,
        sink: &mut dyn Sink,
    ) -> Result<(), Refused> {
        let begin = format!("{path}/");
        if begins_with(own, &begin) {
            return Err(Refused::Twice(path.clone()));
        }
        let lower: Vec<AppPath> = self.below(&begin).cloned().collect();
        lower.iter().for_each(|at| drop(self.nodes.remove(at)));
        match self.nodes.remove(path).is_none() && lower.is_empty() {
            true => Ok(()),
            false => sink.remove(path).map_err(Refused::Sink),
        }
    }

    fn below<'t>(&'t self, begin: &'t str) -> impl Iterator<Item = &'t AppPath> {
        self.nodes
            .range::<str, _>((Bound::Included(begin), Bound::Unbounded))
            .map(|(at, _)| at)
            .take_while(move |at| at.as_str().starts_with(begin))
    }

    fn is_other(&self, path: &str) -> bool {
        matches!(
            self.nodes.get(path),
            Some(Node::File { .. } | Node::Link(_))
        )
    }

    fn fill_above(&mut self, path: &AppPath) -> Result<(), Refused> {
        for above in path.above() {
            let above: AppPath = above
                .parse()
                .map_err(|why| Refused::Path(above.to_owned(), why))?;
            self.nodes.entry(above).or_insert(Node::Folder);
        }
        Ok(())
    }
}

fn begins_with(paths: &BTreeSet<AppPath>, begin: &str) -> bool {
    paths
        .range::<str, _>((Bound::Included(begin), Bound::Unbounded))
        .next()
        .is_some_and(|at| at.as_str().starts_with(begin))
}

/// The path of a member, without the `./` in front and the `/` behind that tar writes. `None`: the top folder.
fn plain_path(text: &str) -> Result<Option<AppPath>, Refused> {
    let mut plain = text;
    while let Some(rest) = plain.strip_prefix("./") {
        plain = rest;
    }
    plain = plain.strip_suffix('/').unwrap_or(plain);
    match plain {
        "" | "." if !text.starts_with('/') => Ok(None),
        plain => plain
            .parse()
            .map(Some)
            .map_err(|why| Refused::Path(text.to_owned(), why)),
    }
}

fn read_some(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = into.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

fn copy(from: &mut impl Read, size: u64, sink: &mut dyn Sink) -> Result<(Digest, u64), Refused> {
    let mut hasher = Hasher::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left)
            .unwrap_or(BLOCK_BYTES)
            .min(BLOCK_BYTES);
        let room = block.get_mut(..part).unwrap_or_default();
        let got = read_some(from, room).map_err(bounded::refusal)?;
        if got == 0 {
            return Err(Refused::Torn);
        }
        let bytes = block.get(..got).unwrap_or_default();
        hasher.update(bytes);
        sink.write(bytes).map_err(Refused::Sink)?;
        left -= got as u64;
    }
    Ok((hasher.finish(), size))
}

#[cfg(test)]
mod tests;
