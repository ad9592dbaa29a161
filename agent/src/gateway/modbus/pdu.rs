//! What a request asks for: its function, and the data addresses that it touches ("Modbus Application Protocol
//! Specification V1.1b3", section 6).

use edgeward_policy::l7::modbus::Request;

use super::exception::Exception;

/// The bit that marks an answer as an exception (section 7).
pub const EXCEPTION_BIT: u8 = 0x80;
/// Registers that reading a FIFO queue may touch after its pointer (section 6.18).
const MAX_FIFO_REGISTERS: u16 = 31;
/// Reference type of every file record, and the highest record number (sections 6.14, 6.15).
const FILE_REFERENCE: u8 = 6;
const MAX_RECORD: u16 = 0x270f;

/// What a request cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPdu {
    /// Its bytes contradict themselves: nobody knows what a server would make of them.
    #[error("request of function {function} is malformed: {why}")]
    Malformed { function: u8, why: &'static str },
    /// It says plainly what no server may do; it is answered, never forwarded.
    #[error("request asks for what is out of bounds")]
    Illegal(Exception),
}

impl BadPdu {
    /// A stable word for the records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Malformed { why, .. } => why,
            Self::Illegal(_) => "bounds",
        }
    }
}

/// Reads the PDU of a request. `unit` is that of its frame.
pub fn parse(unit: u8, pdu: &[u8]) -> Result<Request, BadPdu> {
    let (function, data) = match pdu.split_first() {
        Some((function, data)) => (*function, data),
        None => (0, pdu),
    };
    let malformed = |why| BadPdu::Malformed { function, why };
    let reader = Data { function, data };
    let addresses = match function {
        0 => return Err(malformed("function")),
        EXCEPTION_BIT.. => return Err(malformed("function")),
        1 | 2 => Some(twice(reader.read_range(2000)?)),
        3 | 4 => Some(twice(reader.read_range(125)?)),
        5 => Some(twice(reader.write_coil()?)),
        6 => {
            let [address, _] = reader.words::<4, 2>()?;
            Some(twice((address, address)))
        }
        7 | 11 | 12 | 17 => {
            reader.nothing()?;
            None
        }
        8 => {
            reader.diagnostics()?;
            None
        }
        15 => Some(twice(reader.write_many(0x7b0, |coils| coils.div_ceil(8))?)),
        16 => Some(twice(reader.write_many(0x7b, |registers| registers * 2)?)),
        20 => {
            reader.read_files()?;
            None
        }
        21 => {
            reader.write_files()?;
            None
        }
        22 => {
            let [address, _, _] = reader.words::<6, 3>()?;
            Some(twice((address, address)))
        }
        23 => Some(reader.read_and_write()?),
        24 => {
            let [pointer] = reader.words::<2, 1>()?;
            Some(twice((pointer, pointer.saturating_add(MAX_FIFO_REGISTERS))))
        }
        43 => {
            reader.encapsulated()?;
            None
        }
        // Of a function that the standard does not have, only the code is known.
        _ => None,
    };
    Ok(Request {
        function,
        unit,
        addresses,
    })
}

/// What follows the function code.
#[derive(Clone, Copy)]
struct Data<'a> {
    function: u8,
    data: &'a [u8],
}

impl<'a> Data<'a> {
    fn malformed(self, why: &'static str) -> BadPdu {
        BadPdu::Malformed {
            function: self.function,
            why,
        }
    }

    fn nothing(self) -> Result<(), BadPdu> {
        match self.data.is_empty() {
            true => Ok(()),
            false => Err(self.malformed("length")),
        }
    }

    /// Exactly so many numbers of 16 bits, and nothing more.
    fn words<const BYTES: usize, const WORDS: usize>(self) -> Result<[u16; WORDS], BadPdu> {
        let bytes: &[u8; BYTES] = self.data.try_into().map_err(|_| self.malformed("length"))?;
        let mut words = bytes.chunks_exact(2).map(word);
        Ok(std::array::from_fn(|_| words.next().unwrap_or_default()))
    }

    /// The first bytes, and the rest.
    fn split<const BYTES: usize>(self) -> Result<(&'a [u8; BYTES], &'a [u8]), BadPdu> {
        self.data
            .split_first_chunk()
            .ok_or_else(|| self.malformed("length"))
    }

    fn read_range(self, most: u16) -> Result<(u16, u16), BadPdu> {
        let [address, quantity] = self.words::<4, 2>()?;
        range(address, quantity, most)
    }

    fn write_coil(self) -> Result<(u16, u16), BadPdu> {
        let [address, value] = self.words::<4, 2>()?;
        match value {
            0 | 0xff00 => Ok((address, address)),
            _ => Err(BadPdu::Illegal(Exception::IllegalValue)),
        }
    }

    /// Address, quantity, number of bytes, bytes.
    fn write_many(self, most: u16, bytes_of: fn(u16) -> u16) -> Result<(u16, u16), BadPdu> {
        let ([a0, a1, q0, q1, count], values) = self.split::<5>()?;
        let quantity = u16::from_be_bytes([*q0, *q1]);
        let touched = range(u16::from_be_bytes([*a0, *a1]), quantity, most);
        if values.len() != usize::from(*count) {
            return Err(self.malformed("count"));
        }
        // Within the bounds the number of bytes follows from the quantity.
        if touched.is_ok() && u16::from(*count) != bytes_of(quantity) {
            return Err(self.malformed("count"));
        }
        touched
    }

    /// Reads one range and writes another (section 6.17).
    fn read_and_write(self) -> Result<[(u16, u16); 2], BadPdu> {
        let ([r0, r1, n0, n1], rest) = self.split::<4>()?;
        let read = range(
            u16::from_be_bytes([*r0, *r1]),
            u16::from_be_bytes([*n0, *n1]),
            125,
        );
        let written = Data { data: rest, ..self }.write_many(0x79, |registers| registers * 2);
        // What is malformed is said before what is out of bounds.
        match (read, written) {
            (_, Err(bad @ BadPdu::Malformed { .. })) => Err(bad),
            (read, written) => Ok([read?, written?]),
        }
    }

    /// A sub-function and numbers of 16 bits (section 6.8).
    fn diagnostics(self) -> Result<(), BadPdu> {
        match self.data.len() {
            length if length >= 4 && length.is_multiple_of(2) => Ok(()),
            _ => Err(self.malformed("length")),
        }
    }

    /// References of seven bytes each (section 6.14).
    fn read_files(self) -> Result<(), BadPdu> {
        let ([count], references) = self.split::<1>()?;
        if references.len() != usize::from(*count)
            || references.is_empty()
            || !references.len().is_multiple_of(7)
        {
            return Err(self.malformed("count"));
        }
        let fits = references.chunks_exact(7).all(|reference| match reference {
            [kind, f0, f1, r0, r1, _, _] => is_record(*kind, [*f0, *f1], [*r0, *r1]),
            _ => false,
        });
        in_bounds(fits)
    }

    /// References of seven bytes, each with its record behind it (section 6.15).
    fn write_files(self) -> Result<(), BadPdu> {
        let ([count], mut rest) = self.split::<1>()?;
        if rest.len() != usize::from(*count) || rest.is_empty() {
            return Err(self.malformed("count"));
        }
        let mut fits = true;
        while !rest.is_empty() {
            let Some(([kind, f0, f1, r0, r1, n0, n1], records)) = rest.split_first_chunk::<7>()
            else {
                return Err(self.malformed("record"));
            };
            fits &= is_record(*kind, [*f0, *f1], [*r0, *r1]);
            let bytes = usize::from(u16::from_be_bytes([*n0, *n1])) * 2;
            rest = records
                .get(bytes..)
                .ok_or_else(|| self.malformed("record"))?;
        }
        in_bounds(fits)
    }

    /// Of the transports only the identification of a device (14) has a form that is known here (section 6.21).
    fn encapsulated(self) -> Result<(), BadPdu> {
        match self.data {
            [] => Err(self.malformed("length")),
            [14, 1..=4, _] => Ok(()),
            [14, _, _] => Err(BadPdu::Illegal(Exception::IllegalValue)),
            [14, ..] => Err(self.malformed("length")),
            _ => Ok(()),
        }
    }
}

fn word(bytes: &[u8]) -> u16 {
    bytes.try_into().map_or(0, u16::from_be_bytes)
}

fn twice(range: (u16, u16)) -> [(u16, u16); 2] {
    [range, range]
}

fn is_record(kind: u8, file: [u8; 2], record: [u8; 2]) -> bool {
    kind == FILE_REFERENCE && file != [0, 0] && u16::from_be_bytes(record) <= MAX_RECORD
}

fn in_bounds(fits: bool) -> Result<(), BadPdu> {
    match fits {
        true => Ok(()),
        false => Err(BadPdu::Illegal(Exception::IllegalAddress)),
    }
}

/// So many addresses from one on; a range past the last address would mean what nobody decided about.
fn range(address: u16, quantity: u16, most: u16) -> Result<(u16, u16), BadPdu> {
    if quantity == 0 || quantity > most {
        return Err(BadPdu::Illegal(Exception::IllegalValue));
    }
    let last = address
        .checked_add(quantity - 1)
        .ok_or(BadPdu::Illegal(Exception::IllegalAddress))?;
    Ok((address, last))
}

#[cfg(test)]
mod tests;
