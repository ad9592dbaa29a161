//! Numbers and texts in bytes: LEB128 as in WebAssembly, never longer than it must be.

use super::BlockError;

/// Seven bits of a number in each byte; the eighth says that more follow.
const MORE: u8 = 0x80;

pub(super) fn put_number(to: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return to.push(low & !MORE);
        }
        to.push(low | MORE);
    }
}

pub(super) fn put_length(to: &mut Vec<u8>, length: usize) {
    put_number(to, u64::try_from(length).unwrap_or(u64::MAX));
}

/// The way from `from` to `to`, near ones in few bytes whatever their direction.
pub(super) fn put_step(bytes: &mut Vec<u8>, from: u64, to: u64) {
    let step = to.wrapping_sub(from).cast_signed();
    put_number(bytes, ((step << 1) ^ (step >> 63)).cast_unsigned());
}

/// What is left to be read.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, BlockError> {
        let (first, rest) = self.0.split_first().ok_or(BlockError::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], BlockError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(BlockError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], BlockError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(BlockError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn number(&mut self) -> Result<u64, BlockError> {
        let mut number = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & !MORE);
            let placed = bits << shift;
            if placed >> shift != bits {
                return Err(BlockError::Range);
            }
            number |= placed;
            if byte & MORE == 0 {
                // One number, one text.
                return match byte == 0 && shift > 0 {
                    true => Err(BlockError::Range),
                    false => Ok(number),
                };
            }
        }
        Err(BlockError::Range)
    }

    /// A number up to `limit`.
    pub(super) fn length(&mut self, limit: usize) -> Result<usize, BlockError> {
        match usize::try_from(self.number()?) {
            Ok(length) if length <= limit => Ok(length),
            Ok(_) | Err(_) => Err(BlockError::Range),
        }
    }

    /// Undoes [`put_step`].
    pub(super) fn step(&mut self, from: u64) -> Result<u64, BlockError> {
        let step = self.number()?;
        let step = (step >> 1) ^ (step & 1).wrapping_neg();
        Ok(from.wrapping_add(step))
    }

    pub(super) fn end(self) -> Result<(), BlockError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(BlockError::Trailing(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_that_are_too_large_or_longer_than_they_must_be_are_refused() {
        let mut large = vec![0xff; 9];
        large.push(2);
        for bad in [&[0x80, 0][..], &[0xff, 0x80, 0], &large, &[0x80; 11]] {
            assert!(
                matches!(Bytes(bad).number(), Err(BlockError::Range)),
                "{bad:?}"
            );
        }
        assert!(matches!(Bytes(&[0x80]).number(), Err(BlockError::Short)));
        assert!(matches!(Bytes(&[9]).length(8), Err(BlockError::Range)));
    }

    proptest! {
        #[test]
        fn numbers_and_steps_come_back(number: u64, from: u64) {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            put_step(&mut bytes, from, number);
            let mut read = Bytes(&bytes);
            prop_assert_eq!(read.number().unwrap(), number);
            prop_assert_eq!(read.step(from).unwrap(), number);
            prop_assert!(read.end().is_ok());
        }
    }
}
