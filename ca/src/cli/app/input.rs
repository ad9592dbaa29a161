//! What a release is made of: a folder, a tar archive, or an OCI image layout. Contents go into the repository's
//! chunks as they are read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use edgeward_apps::chunk::cut_stream;
use edgeward_apps::digest::Hasher;
use edgeward_apps::manifest::{Entry, MAX_APP_BYTES, MAX_ENTRIES};
use edgeward_apps::oci::{self, Blob, ImageManifest, MAX_DOCUMENT_BYTES, Named, carried};
use edgeward_apps::unpack::{Node, Tree};
use edgeward_apps::{AppPath, Digest};

use super::super::Failure;
use super::super::repo::{Repo, read_bounded};
use super::spool::Spool;

/// Deepest nesting of indexes in an image layout.
const MAX_INDEXES: usize = 4;
/// Any of them makes a file one that may be started.
const EXECUTABLE: u32 = 0o111;
/// What shows that a folder is an image layout (OCI image layout 1.1).
const LAYOUT: &str = "oci-layout";

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) entries: BTreeMap<AppPath, Entry>,
    /// The image, if it was one.
    pub(super) image: Option<Digest>,
}

/// Signatures of an image, which travel with it.
#[derive(Debug, Default)]
pub(super) struct ImageSignatures {
    pub(super) bundles: Vec<PathBuf>,
    /// Payloads, and what was signed over each.
    pub(super) payloads: Vec<(PathBuf, PathBuf)>,
}

/// Reads `input` for a kind of machine.
pub(super) fn read(
    input: &Path,
    architecture: &str,
    signatures: &ImageSignatures,
    repo: &Repo,
) -> Result<Content, Failure> {
    let about = fs::metadata(input).map_err(Failure::file(input))?;
    let is_image = about.is_dir() && input.join(LAYOUT).exists();
    let signed = !signatures.bundles.is_empty() || !signatures.payloads.is_empty();
    if signed && !is_image {
        return Err(Failure::Usage(format!(
            "{}: is no OCI image layout, so it has no signatures of one",
            input.display()
        )));
    }
    if is_image {
        return image(input, architecture, signatures, repo);
    }
    let entries = match about.is_dir() {
        true => folder(input, repo)?,
        false => {
            let mut spool = Spool::new(repo)?;
            let tree = unpack(input, Tree::default(), &mut spool)?;
            entries_of(&tree, &mut spool, repo)?
        }
    };
    Ok(Content {
        entries,
        image: None,
    })
}

fn folder(top: &Path, repo: &Repo) -> Result<BTreeMap<AppPath, Entry>, Failure> {
    let mut entries = BTreeMap::new();
    let mut left = MAX_APP_BYTES;
    let mut folders = vec![(top.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for found in fs::read_dir(&folder).map_err(Failure::file(&folder))? {
            let path = found.map_err(Failure::file(&folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| wrong(&path, &"its name is not text"))?;
            let at: AppPath = format!("{prefix}{name}")
                .parse()
                .map_err(|why| wrong(&path, &why))?;
            let about = fs::symlink_metadata(&path).map_err(Failure::file(&path))?;
            let kind = about.file_type();
            if kind.is_dir() {
                folders.push((path, format!("{at}/")));
                continue;
            }
            let entry = if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(Failure::file(&path))?;
                let target = target.to_str().map(str::to_owned);
                Entry::Link(target.ok_or_else(|| wrong(&path, &"its target is not text"))?)
            } else if kind.is_file() {
                let size = about.len();
                left = left
                    .checked_sub(size)
                    .ok_or_else(|| wrong(top, &"larger than an app may be"))?;
                let executable = about.permissions().mode() & EXECUTABLE != 0;
                let content = File::open(&path).map_err(Failure::file(&path))?;
                cut(content, executable, &path, repo)?
            } else {
                return Err(wrong(&path, &"neither file, folder nor link"));
            };
            entries.insert(at, entry);
            if entries.len() > MAX_ENTRIES {
                return Err(wrong(top, &format_args!("more than {MAX_ENTRIES} entries")));
            }
        }
    }
    Ok(entries)
}

fn image(
    layout: &Path,
    architecture: &str,
    signatures: &ImageSignatures,
    repo: &Repo,
) -> Result<Content, Failure> {
    let refused = |why: oci::NotAnImage| wrong(layout, &why);
    let named = read_bounded(&layout.join(LAYOUT), MAX_DOCUMENT_BYTES)?;
    oci::check_layout(&named).map_err(refused)?;
    let mut index = read_bounded(&layout.join("index.json"), MAX_DOCUMENT_BYTES)?;
    let mut chosen = None;
    for _ in 0..MAX_INDEXES {
        match oci::choose(&index, architecture).map_err(refused)? {
            Named::Index(blob) => index = read_blob(layout, &blob)?,
            Named::Image(blob) => {
                chosen = Some(blob);
                break;
            }
        }
    }
    let chosen = chosen.ok_or_else(|| wrong(layout, &"indexes within indexes"))?;
    let manifest = read_blob(layout, &chosen)?;
    let layers = ImageManifest::parse(&manifest).map_err(refused)?.layers;
    let mut spool = Spool::new(repo)?;
    let mut tree = Tree::default();
    for layer in &layers {
        check_layer(&layout.join(layer.path()), layer)?;
        tree = unpack(&layout.join(layer.path()), tree, &mut spool)?;
    }
    let mut entries = entries_of(&tree, &mut spool, repo)?;
    if let Some(taken) = entries
        .keys()
        .find(|path| path.parts().next() == Some(carried::FOLDER))
    {
        return Err(wrong(
            layout,
            &format_args!("{taken}: the place of the image itself"),
        ));
    }
    if !signatures.bundles.is_empty() || !signatures.payloads.is_empty() {
        for blob in layers.iter().chain([&chosen]) {
            let found = carry(
                &layout.join(blob.path()),
                &carried::blob_path(blob.digest),
                repo,
            )?;
            if !matches!(&found.1, Entry::File(file) if (file.digest, file.size) == (blob.digest, blob.size))
            {
                return Err(wrong(layout, &oci::NotAnImage::Blob(blob.digest)));
            }
            entries.extend([found]);
        }
        entries.extend(signature_entries(signatures, repo)?);
    }
    Ok(Content {
        entries,
        image: Some(chosen.digest),
    })
}

fn signature_entries(
    signatures: &ImageSignatures,
    repo: &Repo,
) -> Result<Vec<(AppPath, Entry)>, Failure> {
    let mut entries = Vec::new();
    for (number, bundle) in signatures.bundles.iter().enumerate() {
        entries.push(carry(bundle, &carried::bundle_path(number), repo)?);
    }
    for (number, (payload, signature)) in signatures.payloads.iter().enumerate() {
        let [payload_path, signature_path] =
            carried::payload_paths(number.saturating_add(signatures.bundles.len()));
        entries.push(carry(payload, &payload_path, repo)?);
        // cosign writes it in base64; what travels is what is verified.
        let text = read_bounded(signature, MAX_DOCUMENT_BYTES)?;
        use base64::Engine as _;
        let bytes = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| {
                base64::engine::general_purpose::STANDARD
                    .decode(text.trim())
                    .ok()
            })
            .unwrap_or(text);
        let at = signature_path
            .parse()
            .map_err(|why| wrong(signature, &why))?;
        entries.push((at, cut(bytes.as_slice(), false, signature, repo)?));
    }
    Ok(entries)
}

fn read_blob(layout: &Path, blob: &Blob) -> Result<Vec<u8>, Failure> {
    let path = layout.join(blob.path());
    let bytes = read_bounded(&path, MAX_DOCUMENT_BYTES)?;
    blob.check(&bytes).map_err(|why| wrong(&path, &why))?;
    Ok(bytes)
}

/// Layers are too long to be held in memory, and are read twice.
fn check_layer(path: &Path, layer: &Blob) -> Result<(), Failure> {
    let mut file = File::open(path).map_err(Failure::file(path))?;
    let (mut hasher, mut size) = (Hasher::new(), 0u64);
    let mut block = vec![0; 64 * 1024];
    loop {
        let got = file.read(&mut block).map_err(Failure::file(path))?;
        let bytes = block.get(..got).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        hasher.update(bytes);
        size = size.saturating_add(got as u64);
    }
    let found = hasher.finish();
    match found == layer.digest && size == layer.size {
        true => Ok(()),
        false => Err(wrong(path, &oci::NotAnImage::Blob(found))),
    }
}

fn carry(file: &Path, at: &str, repo: &Repo) -> Result<(AppPath, Entry), Failure> {
    let at = at.parse().map_err(|why| wrong(file, &why))?;
    let content = File::open(file).map_err(Failure::file(file))?;
    Ok((at, cut(content, false, file, repo)?))
}

fn unpack(archive: &Path, mut tree: Tree, spool: &mut Spool) -> Result<Tree, Failure> {
    let file = File::open(archive).map_err(Failure::file(archive))?;
    tree.add(std::io::BufReader::new(file), spool)
        .map_err(|why| wrong(archive, &why))?;
    Ok(tree)
}

fn entries_of(
    tree: &Tree,
    spool: &mut Spool,
    repo: &Repo,
) -> Result<BTreeMap<AppPath, Entry>, Failure> {
    let mut entries = BTreeMap::new();
    for (path, node) in tree.nodes() {
        let entry = match node {
            Node::Folder => continue,
            Node::Link(target) => Entry::Link(target.clone()),
            Node::File { executable, .. } => {
                let content = spool.content(path)?;
                cut(content, *executable, Path::new(path.as_str()), repo)?
            }
        };
        // What was unpacked and what was cut are the same bytes, or the disk is not to be trusted.
        if let (Node::File { digest, .. }, Entry::File(file)) = (node, &entry)
            && file.digest != *digest
        {
            return Err(Failure::Unsound(format!(
                "{path} changed while it was read"
            )));
        }
        entries.insert(path.clone(), entry);
    }
    Ok(entries)
}

fn cut(content: impl Read, executable: bool, what: &Path, repo: &Repo) -> Result<Entry, Failure> {
    let mut failed = None;
    let file = cut_stream(content, executable, |chunk, bytes| {
        repo.write_chunk(chunk, bytes).map_err(|why| {
            failed = Some(why);
            std::io::Error::other("chunk")
        })
    });
    match (file, failed) {
        (Ok(file), None) => Ok(Entry::File(file)),
        (_, Some(why)) => Err(why),
        (Err(why), None) => Err(Failure::file(what)(why)),
    }
}

fn wrong(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::Unsound(format!("{}: {why}", path.display()))
}
