//! The Internet checksum (RFC 1071), wide enough for the compiler to use vector instructions.

/// Bytes added side by side: four vectors of the narrowest x86-64 and aarch64.
const BLOCK_BYTES: usize = 64;

/// Unfolded sum of 16-bit words in the machine's byte order; partial sums may be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes. Every part but the last must have even length.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        let mut lanes = [0u64; BLOCK_BYTES / 8];
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
                let word = u64::from_ne_bytes(*word);
                // A sum of 32-bit words folds to the same 16 bits, and 2^31 pairs of them fit into 64 bits. Checked
                // additions would keep the compiler from using vectors.
                *lane = lane.wrapping_add((word & 0xffff_ffff).wrapping_add(word >> 32));
            }
        }
        let mut sum = lanes.iter().fold(self.0, |sum, lane| sum + lane);
        let (words, rest) = rest.as_chunks::<4>();
        sum = words.iter().fold(sum, |sum, word| {
            sum.wrapping_add(u64::from(u32::from_ne_bytes(*word)))
        });
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        sum += u64::from(u32::from_ne_bytes(last));
        // Keeps room for further parts.
        Self((sum & 0xffff_ffff) + (sum >> 32))
    }

    /// Adds a number as it would stand in the packet, in network order.
    #[must_use]
    pub fn with_u16(self, number: u16) -> Self {
        Self(self.0 + u64::from(u16::from_ne_bytes(number.to_be_bytes())))
    }

    /// The folded sum as the packet holds it before it is completed.
    pub fn fold(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap_or(u16::MAX).to_ne_bytes()
    }

    /// The checksum: the folded sum, inverted.
    pub fn finish(self) -> [u8; 2] {
        self.fold().map(|byte| !byte)
    }

    /// Whether bytes that include their checksum add up.
    pub fn is_valid(self) -> bool {
        self.fold() == [0xff, 0xff]
    }
}

/// Sum over the pseudo-header of TCP and UDP (RFC 9293, section 3.1; RFC 8200, section 8.1), from an IP header
/// without extension or option in between. `length` counts the transport header and its payload.
pub fn pseudo_header(addresses: &[u8], protocol: u8, length: usize) -> Sum {
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    Sum::default()
        .with(addresses)
        .with_u16(protocol.into())
        .with_u16(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, section 4.1, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071_adds_up() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().with(&bytes).fold(), [0xdd, 0xf2]);
    }

    proptest! {
        #[test]
        fn the_wide_sum_agrees_with_the_narrow_one(bytes in proptest::collection::vec(any::<u8>(), 0..3000), at in 0usize..1500) {
            let at = (at * 2).min(bytes.len() & !1);
            let (head, tail) = bytes.split_at(at);
            let sum = Sum::default().with(head).with(tail);
            prop_assert_eq!(u16::from_be_bytes(sum.finish()), reference(&bytes));
        }

        #[test]
        fn a_packet_with_its_checksum_is_valid(bytes in proptest::collection::vec(any::<u8>(), 2..300), flip in any::<usize>()) {
            let mut bytes = bytes;
            bytes[0] = 0;
            bytes[1] = 0;
            let sum = Sum::default().with(&bytes).finish();
            bytes[..2].copy_from_slice(&sum);
            prop_assert!(Sum::default().with(&bytes).is_valid());
            let at = flip % bytes.len();
            bytes[at] ^= 0x10;
            prop_assert!(!Sum::default().with(&bytes).is_valid());
        }
    }
}
