//! A slice as what is new against the one that its node holds; on metered links, a result too. Compression and nothing else:
//! what comes out is the exact bytes of a signed object, which is then judged as if it had come whole. Pure.

use std::collections::HashMap;

use ring::digest::{SHA256, digest};

use crate::limits::MAX_MESSAGE_BYTES;
use crate::v1::slice_op::{Copy, Op};
use crate::v1::{SliceDelta, SliceOp};

/// Most steps in one delta.
pub const MAX_OPS: usize = 4096;
/// Bytes of a stretch by which the same text is found again. Shorter matches cost more to name than to send.
const BLOCK: usize = 24;
/// Most places at which one stretch is looked for: rows of one slice resemble each other.
const MAX_PLACES: usize = 8;
/// A delta that saves less than this part of the whole is not worth a second way in.
const WORTH: usize = 2;

/// What the sender knows of the object that the receiver holds: all of it, or the part that it can make again.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// SHA-256 of the whole object.
    pub digest: [u8; 32],
    /// Where `bytes` begin in the object.
    pub at: usize,
    pub bytes: &'a [u8],
}

/// Why a delta is of no use here. Whoever asks gets the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotApplied {
    #[error("made against another slice than the one held")]
    Base,
    #[error("more steps than {MAX_OPS}")]
    Steps,
    #[error("copies from outside of what is held")]
    Range,
    #[error("result is larger than {MAX_MESSAGE_BYTES} bytes")]
    TooLarge,
    #[error("result is not what the sender meant")]
    Target,
    #[error("a step that says nothing")]
    Empty,
}

impl NotApplied {
    /// Stable reason code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Base => "delta_base",
            Self::Steps | Self::Range | Self::TooLarge | Self::Empty => "delta_malformed",
            Self::Target => "delta_target",
        }
    }
}

/// What turns the base into `target`; `None` where the whole is hardly more.
pub fn make(base: Base<'_>, target: &[u8]) -> Option<SliceDelta> {
    let mut maker = Maker::new(base, target);
    while maker.step() {}
    maker.literal_to(target.len());
    let delta = SliceDelta {
        base: base.digest.to_vec(),
        target: digest(&SHA256, target).as_ref().to_vec(),
        ops: maker.ops,
    };
    let worth = prost::Message::encoded_len(&delta).saturating_mul(WORTH) <= target.len();
    (worth && delta.ops.len() <= MAX_OPS).then_some(delta)
}

/// The object that the sender meant, byte for byte.
pub fn apply(delta: &SliceDelta, held: &[u8]) -> Result<Vec<u8>, NotApplied> {
    if digest(&SHA256, held).as_ref() != delta.base {
        return Err(NotApplied::Base);
    }
    if delta.ops.len() > MAX_OPS {
        return Err(NotApplied::Steps);
    }
    let mut result = Vec::new();
    for step in &delta.ops {
        let part = match &step.op {
            None => return Err(NotApplied::Empty),
            Some(Op::Literal(bytes)) => bytes.as_slice(),
            Some(Op::Copy(copy)) => part_of(held, copy)?,
        };
        if part.is_empty() {
            return Err(NotApplied::Empty);
        }
        if result.len().saturating_add(part.len()) > MAX_MESSAGE_BYTES {
            return Err(NotApplied::TooLarge);
        }
        result.extend_from_slice(part);
    }
    match digest(&SHA256, &result).as_ref() == delta.target {
        true => Ok(result),
        false => Err(NotApplied::Target),
    }
}

fn part_of<'a>(held: &'a [u8], copy: &Copy) -> Result<&'a [u8], NotApplied> {
    let from = usize::try_from(copy.offset).map_err(|_| NotApplied::Range)?;
    let length = usize::try_from(copy.length).map_err(|_| NotApplied::Range)?;
    let to = from.checked_add(length).ok_or(NotApplied::Range)?;
    held.get(from..to).ok_or(NotApplied::Range)
}

struct Maker<'a> {
    base: Base<'a>,
    target: &'a [u8],
    /// Where each stretch stands in the base.
    places: HashMap<&'a [u8], Vec<usize>>,
    ops: Vec<SliceOp>,
    /// Up to here of the target there are steps.
    done: usize,
    /// Up to here of the target was looked.
    seen: usize,
    /// Where the last copy from the base ended.
    resume: usize,
}

impl<'a> Maker<'a> {
    fn new(base: Base<'a>, target: &'a [u8]) -> Self {
        let mut places: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (number, stretch) in base.bytes.chunks_exact(BLOCK).enumerate() {
            let at = places.entry(stretch).or_default();
            if at.len() < MAX_PLACES {
                at.push(number * BLOCK);
            }
        }
        Self {
            base,
            target,
            places,
            ops: Vec::new(),
            done: 0,
            seen: 0,
            resume: 0,
        }
    }

    /// Looks at one place of the target: copies from it on, or goes on by one byte. False at the end.
    fn step(&mut self) -> bool {
        let Some(stretch) = self.target.get(self.seen..self.seen + BLOCK) else {
            return false;
        };
        let found = self
            .places
            .get(stretch)
            .map_or(&[] as &[usize], Vec::as_slice);
        // As if bytes were only changed; as if bytes were only added.
        let changed = self.resume + (self.seen - self.done);
        let places = found.iter().copied().chain([changed, self.resume]);
        let longest = places
            .map(|place| (self.length(place), place))
            .filter(|(length, _)| *length >= BLOCK)
            .max_by_key(|(length, _)| *length);
        match longest {
            Some((length, place)) => self.copy(place, length),
            None => self.seen += 1,
        }
        self.ops.len() <= MAX_OPS
    }

    /// How many bytes from `seen` on are those of the base from `place` on.
    fn length(&self, place: usize) -> usize {
        let (Some(one), Some(other)) = (self.target.get(self.seen..), self.base.bytes.get(place..))
        else {
            return 0;
        };
        one.iter()
            .zip(other)
            .take_while(|(one, other)| one == other)
            .count()
    }

    fn copy(&mut self, mut place: usize, mut length: usize) {
        let mut from = self.seen;
        // A stretch is found at its boundaries: what is the same before it belongs to the copy.
        while from > self.done
            && place > 0
            && self.target.get(from - 1) == self.base.bytes.get(place - 1)
        {
            (from, place, length) = (from - 1, place - 1, length + 1);
        }
        self.literal_to(from);
        self.ops.push(SliceOp {
            op: Some(Op::Copy(Copy {
                offset: u32::try_from(self.base.at + place).unwrap_or(u32::MAX),
                length: u32::try_from(length).unwrap_or(u32::MAX),
            })),
        });
        self.done = from + length;
        self.seen = self.done;
        self.resume = place + length;
    }

    fn literal_to(&mut self, end: usize) {
        let bytes = self.target.get(self.done..end).unwrap_or_default();
        if !bytes.is_empty() {
            self.ops.push(SliceOp {
                op: Some(Op::Literal(bytes.to_vec())),
            });
        }
        self.done = end;
    }
}

#[cfg(test)]
mod tests;
