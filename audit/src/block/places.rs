//! Which of the 256 leaves of a block.

use std::fmt;

use super::BlockError;

const WORDS: usize = 4;
const WORD_BITS: u8 = 64;
/// The first place of each word.
const BASES: [u8; WORDS] = [0, 64, 128, 192];
/// Bytes of the bitmap.
const BITMAP_BYTES: usize = 32;

/// A set of places of one block.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Places([u64; WORDS]);

impl Places {
    pub const NONE: Self = Self([0; WORDS]);
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    pub fn insert(&mut self, place: u8) {
        if let Some(word) = self.0.get_mut(usize::from(place / WORD_BITS)) {
            *word |= 1 << (place % WORD_BITS);
        }
    }

    pub fn contains(&self, place: u8) -> bool {
        self.0
            .get(usize::from(place / WORD_BITS))
            .is_some_and(|word| word >> (place % WORD_BITS) & 1 == 1)
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.with(other, |one, other| one & other)
    }

    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.with(other, |one, other| one | other)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        self.with(other, |one, other| one & !other)
    }

    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// How many, up to 256.
    pub fn count(&self) -> usize {
        self.0
            .iter()
            .map(|word| usize::try_from(word.count_ones()).unwrap_or(0))
            .sum()
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        BASES.into_iter().zip(self.0).flat_map(|(base, word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = u8::try_from(rest.trailing_zeros()).ok()?;
                // Nothing is left where all 64 are zeros.
                rest = rest.checked_sub(1)? & rest;
                Some(base + bit)
            })
        })
    }

    /// Up to 31 places as they are, ascending; more as a bitmap of 32 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.count() < BITMAP_BYTES {
            return self.iter().collect();
        }
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Reads what [`Places::to_bytes`] writes, and nothing else.
    pub fn parse(bytes: &[u8]) -> Result<Self, BlockError> {
        let mut places = Self::NONE;
        if bytes.len() < BITMAP_BYTES {
            if !bytes.is_sorted_by(|one, next| one < next) {
                return Err(BlockError::Places);
            }
            bytes.iter().for_each(|place| places.insert(*place));
            return Ok(places);
        }
        let (words, rest) = bytes.as_chunks::<8>();
        let words: [[u8; 8]; WORDS] = words.try_into().map_err(|_| BlockError::Places)?;
        let places = Self(words.map(u64::from_le_bytes));
        match rest.is_empty() && places.count() >= BITMAP_BYTES {
            true => Ok(places),
            false => Err(BlockError::Places),
        }
    }

    fn with(self, other: Self, each: impl Fn(u64, u64) -> u64) -> Self {
        let mut words = self.0;
        for (word, other) in words.iter_mut().zip(other.0) {
            *word = each(*word, other);
        }
        Self(words)
    }
}

impl FromIterator<u8> for Places {
    fn from_iter<I: IntoIterator<Item = u8>>(places: I) -> Self {
        let mut set = Self::NONE;
        places.into_iter().for_each(|place| set.insert(place));
        set
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_in_another_encoding_are_refused() {
        let bitmap = |few: usize| {
            let mut bytes = vec![0; BITMAP_BYTES];
            bytes.iter_mut().take(few).for_each(|byte| *byte = 1);
            bytes
        };
        let bad = [
            vec![1, 1],
            vec![2, 1],
            bitmap(31),
            vec![0xff; 33],
            vec![0xff; 40],
        ];
        for bytes in bad {
            assert!(
                matches!(Places::parse(&bytes), Err(BlockError::Places)),
                "{bytes:?}"
            );
        }
        assert_eq!(Places::parse(&bitmap(32)).unwrap().count(), 32);
        assert_eq!(Places::parse(&[0xff; 32]).unwrap(), Places::ALL);
        assert!(Places::parse(&[]).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn places_are_the_set_they_were_made_of(
            one: std::collections::BTreeSet<u8>, other: std::collections::BTreeSet<u8>, whole: bool,
        ) {
            let one = if whole { (0..=255).collect() } else { one };
            let (left, right): (Places, Places) = (one.iter().copied().collect(), other.iter().copied().collect());
            prop_assert_eq!(left.iter().collect::<Vec<_>>(), one.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(left.count(), one.len());
            prop_assert_eq!(left.is_empty(), one.is_empty());
            prop_assert_eq!(Places::parse(&left.to_bytes()).unwrap(), left);
            prop_assert!((0..=255).all(|place| left.contains(place) == one.contains(&place)));
            prop_assert_eq!(left.and(right), one.intersection(&other).copied().collect());
            prop_assert_eq!(left.or(right), one.union(&other).copied().collect());
            prop_assert_eq!(left.without(right), one.difference(&other).copied().collect());
        }
    }
}
