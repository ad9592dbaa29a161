//! Writes down instructions of the kernel's machine for programs (RFC 9669).

use std::collections::BTreeMap;

use super::call::INSTRUCTION_BYTES;

/// A register: 0 is what a call gives, 1 to 5 are what it takes, 6 to 9 outlive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum R {
    R0,
    R1,
    R2,
    R3,
    R4,
    R6 = 6,
    R7,
    R8,
    R9,
    /// The end of the stack.
    Stack,
}

/// How much is read or written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Width {
    Half,
    Word,
    Double,
}

/// A program that does not hold together: ours to find out, before the kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCode {
    #[error("program jumps to {0}, which it does not have")]
    NoPlace(&'static str),
    #[error("program jumps too far")]
    TooFar,
}

#[derive(Debug, Default)]
pub(super) struct Code {
    instructions: Vec<[u8; INSTRUCTION_BYTES]>,
    places: BTreeMap<&'static str, usize>,
    jumps: Vec<(usize, &'static str)>,
}

impl Code {
    fn add(&mut self, code: u8, to: R, from: u8, offset: i16, number: i32) -> &mut Self {
        let [o0, o1] = offset.to_ne_bytes();
        let [n0, n1, n2, n3] = number.to_ne_bytes();
        let registers = from << 4 | to as u8;
        self.instructions
            .push([code, registers, o0, o1, n0, n1, n2, n3]);
        self
    }

    pub(super) fn read(&mut self, width: Width, to: R, from: R, offset: i16) -> &mut Self {
        let code = match width {
            Width::Half => 0x69,
            Width::Word => 0x61,
            Width::Double => 0x79,
        };
        self.add(code, to, from as u8, offset, 0)
    }

    pub(super) fn write(&mut self, to: R, offset: i16, from: R) -> &mut Self {
        self.add(0x7b, to, from as u8, offset, 0)
    }

    pub(super) fn write_word(&mut self, to: R, offset: i16, number: i32) -> &mut Self {
        self.add(0x62, to, 0, offset, number)
    }

    /// Adds to what lies there, at once for all processors.
    pub(super) fn count(&mut self, to: R, from: R) -> &mut Self {
        self.add(0xdb, to, from as u8, 0, 0)
    }

    pub(super) fn copy(&mut self, to: R, from: R) -> &mut Self {
        self.add(0xbf, to, from as u8, 0, 0)
    }

    pub(super) fn set(&mut self, to: R, number: i32) -> &mut Self {
        self.add(0xb7, to, 0, 0, number)
    }

    pub(super) fn and(&mut self, to: R, number: i32) -> &mut Self {
        self.add(0x57, to, 0, 0, number)
    }

    pub(super) fn shift_right(&mut self, to: R, bits: i32) -> &mut Self {
        self.add(0x77, to, 0, 0, bits)
    }

    pub(super) fn add_to(&mut self, to: R, number: i32) -> &mut Self {
        self.add(0x07, to, 0, 0, number)
    }

    /// An address on the stack.
    pub(super) fn stack(&mut self, to: R, offset: i32) -> &mut Self {
        self.copy(to, R::Stack).add_to(to, offset)
    }

    pub(super) fn map(&mut self, to: R, fd: i32) -> &mut Self {
        const OF_A_DESCRIPTOR: u8 = 1;
        self.add(0x18, to, OF_A_DESCRIPTOR, 0, fd)
            .add(0, R::R0, 0, 0, 0)
    }

    /// One of the kernel's numbered helpers.
    pub(super) fn help(&mut self, number: i32) -> &mut Self {
        self.add(0x85, R::R0, 0, 0, number)
    }

    /// One of the kernel's own functions.
    pub(super) fn call(&mut self, function: u32) -> &mut Self {
        const OF_THE_KERNEL: u8 = 2;
        self.add(0x85, R::R0, OF_THE_KERNEL, 0, function.cast_signed())
    }

    pub(super) fn exit(&mut self) -> &mut Self {
        self.add(0x95, R::R0, 0, 0, 0)
    }

    pub(super) fn place(&mut self, name: &'static str) -> &mut Self {
        self.places.insert(name, self.instructions.len());
        self
    }

    pub(super) fn jump(&mut self, place: &'static str) -> &mut Self {
        self.jump_by(0x05, R::R0, 0, place)
    }

    pub(super) fn if_is(&mut self, what: R, number: i32, place: &'static str) -> &mut Self {
        self.jump_by(0x15, what, number, place)
    }

    /// Compares without signs; the number's own sign fills its upper half.
    pub(super) fn if_not_above(&mut self, what: R, number: i32, place: &'static str) -> &mut Self {
        self.jump_by(0xb5, what, number, place)
    }

    /// Looks at the lower half of the register.
    pub(super) fn if_half_is_not(
        &mut self,
        what: R,
        number: i32,
        place: &'static str,
    ) -> &mut Self {
        self.jump_by(0x56, what, number, place)
    }

    pub(super) fn if_registers_differ(
        &mut self,
        one: R,
        other: R,
        place: &'static str,
    ) -> &mut Self {
        self.jumps.push((self.instructions.len(), place));
        self.add(0x5d, one, other as u8, 0, 0)
    }

    fn jump_by(&mut self, code: u8, what: R, number: i32, place: &'static str) -> &mut Self {
        self.jumps.push((self.instructions.len(), place));
        self.add(code, what, 0, 0, number)
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>, BadCode> {
        for (from, name) in self.jumps {
            let to = self.places.get(name).ok_or(BadCode::NoPlace(name))?;
            // Counted from the instruction after the jump.
            let far = to
                .checked_sub(from + 1)
                .and_then(|far| i16::try_from(far).ok());
            let [low, high] = far.ok_or(BadCode::TooFar)?.to_ne_bytes();
            if let Some([_, _, first, second, ..]) = self.instructions.get_mut(from) {
                (*first, *second) = (low, high);
            }
        }
        Ok(self.instructions.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_lead_forward_to_places_that_are_there() {
        let mut code = Code::default();
        code.if_is(R::R1, 7, "end")
            .set(R::R0, -1)
            .place("end")
            .exit();
        let bytes = code.finish().unwrap();
        assert_eq!(bytes[..8], [0x15, 1, 1, 0, 7, 0, 0, 0]);
        assert_eq!(bytes[8..16], [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(bytes[16..], [0x95, 0, 0, 0, 0, 0, 0, 0]);
        let mut code = Code::default();
        code.jump("nowhere");
        assert_eq!(code.finish(), Err(BadCode::NoPlace("nowhere")));
        // Backwards would be a loop.
        let mut code = Code::default();
        code.place("start").jump("start");
        assert_eq!(code.finish(), Err(BadCode::TooFar));
    }
}
