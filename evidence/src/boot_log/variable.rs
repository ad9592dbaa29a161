//! `UEFI_VARIABLE_DATA` (PFP, 10.4.2.6): GUID, name and value of an EFI variable that was measured.

use std::fmt;

use super::little::Little;
use super::text::utf16;

/// Longest name of a variable, in UTF-16 units. Those that matter have at most ten.
pub const MAX_VARIABLE_NAME_UNITS: usize = 256;

/// An EFI GUID, in the byte order of memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub [u8; 16]);

/// A variable as an event tells it. Whether the digest covers it is the caller's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EfiVariable<'a> {
    pub guid: Guid,
    pub name: String,
    pub value: &'a [u8],
    /// Bytes after the value: none where the firmware does it right.
    pub trailing: usize,
}

impl EfiVariable<'_> {
    /// Reads the variable at the front of `data`; `None` if its sizes do not fit.
    pub fn parse(data: &[u8]) -> Option<EfiVariable<'_>> {
        let mut reader = Little::new(data);
        let guid = Guid(reader.array()?);
        let (units, bytes) = (reader.size()?, reader.size()?);
        if units > MAX_VARIABLE_NAME_UNITS {
            return None;
        }
        let name = utf16(reader.take(units.checked_mul(2)?)?)?;
        let value = reader.take(bytes)?;
        Some(EfiVariable {
            guid,
            name,
            value,
            trailing: reader.len(),
        })
    }

    /// Whether it is the variable of this vendor and name.
    pub fn is(&self, guid: Guid, name: &str) -> bool {
        self.guid == guid && self.name == name
    }
}

impl Guid {
    /// Vendor of `SecureBoot`, `PK`, `KEK`, `BootOrder` (UEFI, 3.3: `EFI_GLOBAL_VARIABLE`).
    pub const GLOBAL: Self = Self([
        0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b,
        0x8c,
    ]);
    /// Vendor of `db` and `dbx` (UEFI, 32.4.1: `EFI_IMAGE_SECURITY_DATABASE_GUID`).
    pub const IMAGE_SECURITY: Self = Self([
        0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65,
        0x6f,
    ]);
}

impl fmt::Display for Guid {
    /// As in the UEFI specification: the first three fields are little-endian.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, rest @ ..] = self.0;
        let a = u32::from_le_bytes([a0, a1, a2, a3]);
        let (b, c) = (u16::from_le_bytes([b0, b1]), u16::from_le_bytes([c0, c1]));
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d0:02x}{d1:02x}-")?;
        rest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::boot_log::variable_data;

    #[test]
    fn sizes_that_do_not_fit_are_no_variable() {
        let good = variable_data(Guid::GLOBAL, "PK", &[7; 5]);
        for (at, bytes) in [
            (16, [0xff; 8]),
            (24, [0xff; 8]),
            // One unit, one byte too many.
            (16, 6_u64.to_le_bytes()),
            (24, 6_u64.to_le_bytes()),
            (16, (1_u64 << 63).to_le_bytes()),
        ] {
            let mut bad = good.clone();
            bad[at..at + 8].copy_from_slice(&bytes);
            assert_eq!(EfiVariable::parse(&bad), None, "{at} {bytes:?}");
        }
        for cut in 0..good.len() {
            assert_eq!(EfiVariable::parse(&good[..cut]), None, "{cut}");
        }
        let parsed = EfiVariable::parse(&good).unwrap();
        assert!(parsed.is(Guid::GLOBAL, "PK") && parsed.value == [7; 5] && parsed.trailing == 0);
        assert!(!parsed.is(Guid::IMAGE_SECURITY, "PK"));
    }

    #[test]
    fn a_name_that_is_not_utf_16_or_too_long_is_no_variable() {
        let mut lone = variable_data(Guid::GLOBAL, "PK", &[]);
        lone[32..34].copy_from_slice(&0xd800_u16.to_le_bytes());
        assert_eq!(EfiVariable::parse(&lone), None);
        let long = "x".repeat(MAX_VARIABLE_NAME_UNITS + 1);
        let long = variable_data(Guid::GLOBAL, &long, &[]);
        assert_eq!(EfiVariable::parse(&long), None);
    }

    #[test]
    fn guids_are_written_as_in_the_specification() {
        assert_eq!(
            Guid::GLOBAL.to_string(),
            "8be4df61-93ca-11d2-aa0d-00e098032b8c"
        );
        assert_eq!(
            Guid::IMAGE_SECURITY.to_string(),
            "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
        );
    }
}
