//! Compression: the plain length, then one Zstandard frame (RFC 8878).

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use super::BlockError;
use super::bytes::{Bytes, put_length};

/// The library's own default; what it saves and costs: `audit/examples/blocks.rs`.
const LEVEL: i32 = 3;

// A context is half a megabyte of tables; made anew for each part, that is most of the time a part takes.
thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Appends `plain`, compressed.
pub(super) fn put_squeezed(to: &mut Vec<u8>, plain: &[u8]) -> Result<(), BlockError> {
    put_length(to, plain.len());
    let squeezed = COMPRESSOR
        .with_borrow_mut(|kept| {
            let mut compressor = match kept.take() {
                Some(compressor) => compressor,
                None => Compressor::new(LEVEL)?,
            };
            let squeezed = compressor.compress(plain);
            *kept = Some(compressor);
            squeezed
        })
        .map_err(BlockError::Compress)?;
    to.extend_from_slice(&squeezed);
    Ok(())
}

/// Reads all that is left as what [`put_squeezed`] wrote, of at most `limit` plain bytes.
pub(super) fn unsqueeze(mut bytes: Bytes<'_>, limit: usize) -> Result<Vec<u8>, BlockError> {
    let length = bytes
        .length(limit)
        .map_err(|_| BlockError::TooLarge(limit))?;
    // Never more than the length that was just checked; a frame that holds more is refused by the library.
    let mut plain = Vec::with_capacity(length);
    DECOMPRESSOR
        .with_borrow_mut(|kept| {
            let mut decompressor = match kept.take() {
                Some(decompressor) => decompressor,
                None => Decompressor::new()?,
            };
            let read = decompressor.decompress_to_buffer(bytes.0, &mut plain);
            *kept = Some(decompressor);
            read
        })
        .map_err(BlockError::Decompress)?;
    match plain.len() == length {
        true => Ok(plain),
        false => Err(BlockError::Short),
    }
}
