//! An image that travels inside an app: below `oci/` lie the blobs that make it and the signatures over it, and what
//! they unpack to is the rest of the app. Whoever installs the app can so hold it against the keys that signed the
//! image, with nothing but the app at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use super::{Blob, ImageManifest, MAX_DOCUMENT_BYTES, NotAnImage};
use crate::cosign::{self, MAX_BUNDLE_BYTES, MAX_SIGNATURES, Signature, Unsigned};
use crate::digest::Digest;
use crate::image::PublisherKeys;
use crate::manifest::{Entry, Manifest};
use crate::path::AppPath;
use crate::unpack::{Discard, Node, Refused, Tree};

/// What an image and its signatures lie below, in the app that is made of it.
pub const FOLDER: &str = "oci";
const SIGNATURES: &str = "oci/signatures/";
const BUNDLE: &str = ".bundle";
const PAYLOAD: &str = ".payload";
const SIGNATURE: &str = ".signature";

/// Why an app does not count as the signed image that it says it is.
#[derive(Debug, thiserror::Error)]
pub enum NotCarried {
    #[error("the app is of no image, and the policy asks for a signed one")]
    NoImage,
    #[error("the app does not carry {0}")]
    Missing(String),
    #[error("{path} cannot be read: {source}")]
    Read {
        path: AppPath,
        #[source]
        source: io::Error,
    },
    #[error("{0} is longer than the limit")]
    TooLong(AppPath),
    #[error("{0} is no part of the image, and none of its signatures")]
    Stray(AppPath),
    #[error(transparent)]
    Image(#[from] NotAnImage),
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    #[error("layer {0}: {1}")]
    Layer(Digest, #[source] Refused),
    #[error("{0} is not what the image has there")]
    Different(AppPath),
}

/// Opens a file of the app whose content was held against the manifest before.
pub type Open<'o> = &'o mut dyn FnMut(&AppPath) -> io::Result<Box<dyn Read>>;

/// Where a blob lies in the app.
pub fn blob_path(digest: Digest) -> String {
    format!("{FOLDER}/blobs/sha256/{digest}")
}

/// Where the bundle with this number lies.
pub fn bundle_path(number: usize) -> String {
    format!("{SIGNATURES}{number}{BUNDLE}")
}

/// Where a payload and its signature lie.
pub fn payload_paths(number: usize) -> [String; 2] {
    [PAYLOAD, SIGNATURE].map(|end| format!("{SIGNATURES}{number}{end}"))
}

/// Whether enough of the policy's keys signed the image, and the app is that image.
pub fn check(app: &Manifest, open: Open<'_>, policy: &PublisherKeys) -> Result<(), NotCarried> {
    let image = app.image.ok_or(NotCarried::NoImage)?;
    let manifest = document(app, open, &blob_path(image))?;
    if Digest::of(&manifest) != image {
        return Err(NotAnImage::Blob(Digest::of(&manifest)).into());
    }
    let kept = signatures(app, open)?;
    cosign::check(&manifest, &kept.listed()?, policy)?;
    let layers = ImageManifest::parse(&manifest)?.layers;
    nothing_more(app, image, &layers)?;
    compare(app, &unpacked(app, open, &layers)?)
}

/// What the image's keys did not sign has no place beside it either: it could be started all the same.
fn nothing_more(app: &Manifest, image: Digest, layers: &[Blob]) -> Result<(), NotCarried> {
    let named = layers.iter().map(|layer| layer.digest);
    let blobs: BTreeSet<String> = named.chain([image]).map(blob_path).collect();
    let own = format!("{FOLDER}/");
    for (path, entry) in app.entries() {
        let text = path.as_str();
        let stray = match entry {
            Entry::File(file) => {
                file.executable || !(blobs.contains(text) || text.starts_with(SIGNATURES))
            }
            Entry::Link(_) => true,
        };
        if text.starts_with(&own) && stray {
            return Err(NotCarried::Stray(path.clone()));
        }
    }
    Ok(())
}

/// The tree that an image's layers make.
fn unpacked(app: &Manifest, open: Open<'_>, layers: &[Blob]) -> Result<Tree, NotCarried> {
    let mut tree = Tree::default();
    for layer in layers {
        let text = blob_path(layer.digest);
        let (path, file) = carried(app, &text)?;
        if file.digest != layer.digest || file.size != layer.size {
            return Err(NotAnImage::Blob(file.digest).into());
        }
        let content = read_from(open, &path)?;
        tree.add(content, &mut Discard)
            .map_err(|why| NotCarried::Layer(layer.digest, why))?;
    }
    Ok(tree)
}

/// Whether the app has what the tree has, and beyond it only the image itself.
fn compare(app: &Manifest, tree: &Tree) -> Result<(), NotCarried> {
    let own = format!("{FOLDER}/");
    let is_own = |path: &AppPath| path.as_str().starts_with(&own);
    for (path, node) in tree.nodes() {
        let same = match (node, app.entries().get(path)) {
            (Node::Folder, entry) => entry.is_none() && path.as_str() != FOLDER,
            (Node::Link(target), Some(Entry::Link(found))) => target == found,
            (
                Node::File {
                    digest,
                    size,
                    executable,
                },
                Some(Entry::File(found)),
            ) => (*digest, *size, *executable) == (found.digest, found.size, found.executable),
            _ => false,
        };
        if !same || is_own(path) {
            return Err(NotCarried::Different(path.clone()));
        }
    }
    let mut others = app.entries().keys().filter(|path| !is_own(path));
    match others.find(|path| !tree.nodes().contains_key(*path)) {
        Some(more) => Err(NotCarried::Different(more.clone())),
        None => Ok(()),
    }
}

/// Signatures by their numbers, as the app carries them.
#[derive(Default)]
struct Kept(BTreeMap<String, Parts>);

#[derive(Default)]
struct Parts {
    bundle: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    signature: Option<Vec<u8>>,
}

impl Kept {
    fn listed(&self) -> Result<Vec<Signature<'_>>, NotCarried> {
        let mut listed = Vec::new();
        for (number, parts) in &self.0 {
            listed.extend(parts.bundle.as_deref().map(Signature::Bundle));
            match (&parts.payload, &parts.signature) {
                (Some(payload), Some(signature)) => {
                    listed.push(Signature::Simple { payload, signature });
                }
                (None, None) => {}
                _ => {
                    let both = format!("{SIGNATURES}{number}{PAYLOAD} and {SIGNATURE}");
                    return Err(NotCarried::Missing(both));
                }
            }
        }
        Ok(listed)
    }
}

fn signatures(app: &Manifest, open: Open<'_>) -> Result<Kept, NotCarried> {
    let mut kept = Kept::default();
    for path in app.entries().keys() {
        let Some(name) = path.as_str().strip_prefix(SIGNATURES) else {
            continue;
        };
        let mut take = |number: &str, part: fn(&mut Parts) -> &mut Option<Vec<u8>>| {
            let bytes = document(app, open, path.as_str())?;
            *part(kept.0.entry(number.to_owned()).or_default()) = Some(bytes);
            Ok::<_, NotCarried>(())
        };
        if let Some(number) = name.strip_suffix(BUNDLE) {
            take(number, |parts| &mut parts.bundle)?;
        } else if let Some(number) = name.strip_suffix(PAYLOAD) {
            take(number, |parts| &mut parts.payload)?;
        } else if let Some(number) = name.strip_suffix(SIGNATURE) {
            take(number, |parts| &mut parts.signature)?;
        } else {
            return Err(NotCarried::Stray(path.clone()));
        }
        if kept.0.len() > MAX_SIGNATURES {
            return Err(Unsigned::TooMany.into());
        }
    }
    Ok(kept)
}

fn carried<'a>(
    app: &'a Manifest,
    text: &str,
) -> Result<(AppPath, &'a crate::manifest::File), NotCarried> {
    let missing = || NotCarried::Missing(text.to_owned());
    let path: AppPath = text.parse().map_err(|_| missing())?;
    let file = app.file(&path).ok_or_else(missing)?;
    Ok((path, file))
}

/// A short file, whole.
fn document(app: &Manifest, open: Open<'_>, text: &str) -> Result<Vec<u8>, NotCarried> {
    let (path, file) = carried(app, text)?;
    let limit = MAX_DOCUMENT_BYTES.max(MAX_BUNDLE_BYTES);
    if file.size > limit {
        return Err(NotCarried::TooLong(path));
    }
    let mut bytes = Vec::new();
    let read = read_from(open, &path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes);
    match read {
        Ok(_) if bytes.len() as u64 == file.size => Ok(bytes),
        Ok(_) => Err(NotCarried::TooLong(path)),
        Err(source) => Err(NotCarried::Read { path, source }),
    }
}

fn read_from(open: Open<'_>, path: &AppPath) -> Result<Box<dyn Read>, NotCarried> {
    open(path).map_err(|source| NotCarried::Read {
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests;
