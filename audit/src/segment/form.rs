//! The bytes of a segment.

use super::{
    BLOCK_LEAVES, DIGEST_BYTES, Digest, MAX_NOTE_BYTES, MAX_ORIGIN_BYTES, MAX_PARTS,
    MAX_PROOF_HASHES, MAX_SEALED_BODIES, MAX_SEALED_COLUMNS, MAX_SEGMENT_BYTES, Places, Segment,
    SegmentBlock, SegmentError, SegmentPart, level_of,
};

const MAGIC: &[u8] = b"edgeward audit segment v1\n";
/// Longest set of places.
const MAX_PLACES_BYTES: usize = 32;

pub(super) fn write(segment: &Segment) -> Result<Vec<u8>, SegmentError> {
    level_of(segment.first, segment.leaves())?;
    if segment.blocks.len() as u64 * BLOCK_LEAVES != segment.leaves() {
        return Err(SegmentError::Bounds("number of blocks"));
    }
    let mut bytes = MAGIC.to_vec();
    put::<2>(
        &mut bytes,
        segment.origin.as_bytes(),
        MAX_ORIGIN_BYTES,
        "origin",
    )?;
    bytes.extend_from_slice(&segment.first.to_be_bytes());
    bytes.push(small(segment.blocks.len(), "number of blocks")?);
    put::<4>(
        &mut bytes,
        segment.checkpoint.as_bytes(),
        MAX_NOTE_BYTES,
        "checkpoint",
    )?;
    if segment.proof.len() > MAX_PROOF_HASHES {
        return Err(SegmentError::Bounds("proof"));
    }
    bytes.push(small(segment.proof.len(), "proof")?);
    for hash in segment.proof.iter().chain(&segment.entries) {
        bytes.extend_from_slice(hash.as_bytes());
    }
    for (number, block) in (segment.first / BLOCK_LEAVES..).zip(&segment.blocks) {
        put_block(&mut bytes, number, block)?;
    }
    let sum = Digest::of(&[&bytes]);
    bytes.extend_from_slice(sum.as_bytes());
    match bytes.len() <= MAX_SEGMENT_BYTES {
        true => Ok(bytes),
        false => Err(SegmentError::TooLong),
    }
}

fn put_block(bytes: &mut Vec<u8>, number: u64, block: &SegmentBlock) -> Result<(), SegmentError> {
    check_places(number, &block.parts)?;
    bytes.extend_from_slice(&block.earliest.to_be_bytes());
    bytes.extend_from_slice(&block.latest.to_be_bytes());
    let parts = u16::try_from(block.parts.len()).map_err(|_| SegmentError::Bounds("parts"))?;
    bytes.extend_from_slice(&parts.to_be_bytes());
    for part in &block.parts {
        bytes.extend_from_slice(&part.site_key.to_be_bytes());
        put::<1>(bytes, &part.places.to_bytes(), MAX_PLACES_BYTES, "places")?;
        put::<4>(bytes, &part.columns, MAX_SEALED_COLUMNS, "columns")?;
        put::<4>(bytes, &part.bodies, MAX_SEALED_BODIES, "bodies")?;
    }
    Ok(())
}

pub(super) fn parse(bytes: &[u8]) -> Result<Segment, SegmentError> {
    if bytes.len() > MAX_SEGMENT_BYTES {
        return Err(SegmentError::TooLong);
    }
    let (whole, sum) = bytes
        .split_last_chunk::<DIGEST_BYTES>()
        .ok_or(SegmentError::Format)?;
    let rest = whole.strip_prefix(MAGIC).ok_or(SegmentError::Format)?;
    if Digest::of(&[whole]).as_bytes() != sum {
        return Err(SegmentError::Sum);
    }
    let mut reader = Reader(rest);
    let origin = reader.text::<2>(MAX_ORIGIN_BYTES, "origin")?;
    let first = u64::from_be_bytes(reader.array()?);
    let [blocks] = reader.array()?;
    level_of(first, u64::from(blocks) * BLOCK_LEAVES)?;
    let checkpoint = reader.text::<4>(MAX_NOTE_BYTES, "checkpoint")?;
    let [hashes] = reader.array()?;
    if usize::from(hashes) > MAX_PROOF_HASHES {
        return Err(SegmentError::Bounds("proof"));
    }
    let proof = reader.digests(usize::from(hashes))?;
    let leaves = usize::from(blocks) * usize::try_from(BLOCK_LEAVES).unwrap_or(0);
    let entries = reader.digests(leaves)?;
    let from = first / BLOCK_LEAVES;
    let blocks = (from..from + u64::from(blocks))
        .map(|number| reader.block(number))
        .collect::<Result<_, _>>()?;
    match reader.0.is_empty() {
        true => Ok(Segment {
            origin,
            first,
            checkpoint,
            proof,
            entries,
            blocks,
        }),
        false => Err(SegmentError::Length),
    }
}

/// Bytes that are still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], SegmentError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(SegmentError::Length)?;
        self.0 = rest;
        Ok(*array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], SegmentError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(SegmentError::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Bytes behind their length of `N` bytes.
    fn counted<const N: usize>(
        &mut self,
        most: usize,
        what: &'static str,
    ) -> Result<&'a [u8], SegmentError> {
        let length = self.array::<N>()?.iter().fold(0, |sum: usize, byte| {
            sum.saturating_mul(256).saturating_add(usize::from(*byte))
        });
        if length > most {
            return Err(SegmentError::Bounds(what));
        }
        self.take(length)
    }

    fn text<const N: usize>(
        &mut self,
        most: usize,
        what: &'static str,
    ) -> Result<String, SegmentError> {
        let bytes = self.counted::<N>(most, what)?;
        let text = str::from_utf8(bytes).map_err(|_| SegmentError::Bounds(what))?;
        Ok(text.to_owned())
    }

    fn digests(&mut self, count: usize) -> Result<Vec<Digest>, SegmentError> {
        let (chunks, _) = self.take(count * DIGEST_BYTES)?.as_chunks::<DIGEST_BYTES>();
        Ok(chunks.iter().copied().map(Digest::from_bytes).collect())
    }

    fn block(&mut self, number: u64) -> Result<SegmentBlock, SegmentError> {
        let earliest = i64::from_be_bytes(self.array()?);
        let latest = i64::from_be_bytes(self.array()?);
        let count = usize::from(u16::from_be_bytes(self.array()?));
        if count > MAX_PARTS {
            return Err(SegmentError::Bounds("parts"));
        }
        let mut parts = Vec::with_capacity(count);
        for _ in 0..count {
            let site_key = u64::from_be_bytes(self.array()?);
            let places = self.counted::<1>(MAX_PLACES_BYTES, "places")?;
            let places = Places::parse(places).map_err(|_| SegmentError::Places(number))?;
            parts.push(SegmentPart {
                site_key,
                places,
                columns: self.counted::<4>(MAX_SEALED_COLUMNS, "columns")?.to_vec(),
                bodies: self.counted::<4>(MAX_SEALED_BODIES, "bodies")?.to_vec(),
            });
        }
        check_places(number, &parts)?;
        Ok(SegmentBlock {
            earliest,
            latest,
            parts,
        })
    }
}

/// Every event of a block is in one part, the parts are in the order of their keys, and none is empty.
fn check_places(number: u64, parts: &[SegmentPart]) -> Result<(), SegmentError> {
    let mut seen = Places::NONE;
    let mut last = None;
    for part in parts {
        let twice = !seen.and(part.places).is_empty();
        if part.places.is_empty() || twice || last >= Some(part.site_key) {
            return Err(SegmentError::Places(number));
        }
        seen = seen.or(part.places);
        last = Some(part.site_key);
    }
    match seen == Places::ALL {
        true => Ok(()),
        false => Err(SegmentError::Places(number)),
    }
}

fn put<const N: usize>(
    bytes: &mut Vec<u8>,
    what: &[u8],
    most: usize,
    name: &'static str,
) -> Result<(), SegmentError> {
    if what.len() > most {
        return Err(SegmentError::Bounds(name));
    }
    let length = (what.len() as u64).to_be_bytes();
    let (_, length) = length
        .split_last_chunk::<N>()
        .ok_or(SegmentError::Bounds(name))?;
    bytes.extend_from_slice(length);
    bytes.extend_from_slice(what);
    Ok(())
}

fn small(number: usize, what: &'static str) -> Result<u8, SegmentError> {
    u8::try_from(number).map_err(|_| SegmentError::Bounds(what))
}
