//! What was sent and what arrived, and the rules that hold whatever happens in between.

use std::collections::BTreeMap;

/// The number of a packet is in it, here.
const NUMBER: std::ops::Range<usize> = 28..36;
const HEADER: usize = 20;

/// Every packet that was handed to a tunnel.
#[derive(Default)]
pub struct Ledger {
    packets: BTreeMap<u64, Entry>,
    last: u64,
}

struct Entry {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
    arrived: bool,
}

impl Ledger {
    /// A packet of `length` bytes between two inner addresses.
    pub fn packet(
        &mut self,
        (from, source): (usize, [u8; 4]),
        (to, destination): (usize, [u8; 4]),
        length: usize,
    ) -> (u64, Vec<u8>) {
        self.last += 1;
        let number = self.last;
        let mut bytes = vec![number as u8; length.max(NUMBER.end)];
        bytes[..HEADER].fill(0);
        bytes[0] = 0x45;
        let total = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        bytes[12..16].copy_from_slice(&source);
        bytes[16..20].copy_from_slice(&destination);
        bytes[NUMBER].copy_from_slice(&number.to_be_bytes());
        let entry = Entry {
            from,
            to,
            bytes: bytes.clone(),
            arrived: false,
        };
        self.packets.insert(number, entry);
        (number, bytes)
    }

    /// A packet came out of the tunnel at `at`, said to be from `from`. Fails the test unless exactly this was
    /// sent by that node to this one, and has not arrived before.
    pub fn arrived(&mut self, at: usize, from: usize, bytes: &[u8]) -> u64 {
        let number = bytes
            .get(NUMBER)
            .map(|number| u64::from_be_bytes(number.try_into().unwrap()))
            .expect("a packet that nobody sent");
        let entry = self
            .packets
            .get_mut(&number)
            .unwrap_or_else(|| panic!("packet {number} was never sent"));
        assert_eq!(entry.bytes, bytes, "packet {number} is not what was sent");
        assert_eq!(entry.from, from, "packet {number} came as somebody else's");
        assert_eq!(entry.to, at, "packet {number} came to the wrong node");
        assert!(!entry.arrived, "packet {number} arrived twice");
        entry.arrived = true;
        number
    }

    pub fn has_arrived(&self, number: u64) -> bool {
        self.packets[&number].arrived
    }

    /// Those that did not arrive.
    pub fn missing(&self) -> Vec<u64> {
        let missing = self.packets.iter().filter(|(_, entry)| !entry.arrived);
        missing.map(|(number, _)| *number).collect()
    }

    pub fn sent(&self) -> usize {
        self.packets.len()
    }
}
