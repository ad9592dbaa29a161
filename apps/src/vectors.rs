//! Where the tests find the public test vectors.

use std::path::{Path, PathBuf};

/// The folder of one family of vectors; none, with a word on it, where they are not on this machine.
pub(crate) fn folder(family: &str) -> Option<PathBuf> {
    let root = std::env::var_os("EDGEWARD_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        PathBuf::from,
    );
    let folder = root.join(family);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("vectors not found: skipped");
    None
}
