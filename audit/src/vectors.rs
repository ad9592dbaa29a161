//! Where the tests find the public test vectors, and a mutator for what parsers must survive.

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

/// Calls `check` with the bytes cut at every length and with every byte changed in three ways.
pub(crate) fn mutations(bytes: &[u8], mut check: impl FnMut(&[u8])) {
    for length in 0..bytes.len() {
        check(&bytes[..length]);
    }
    let mut changed = bytes.to_vec();
    for at in 0..bytes.len() {
        for value in [bytes[at] ^ 1, bytes[at] ^ 0x80, 0xff] {
            if value != bytes[at] {
                changed[at] = value;
                check(&changed);
            }
        }
        changed[at] = bytes[at];
    }
    changed.push(0);
    check(&changed);
}
