//! Networks behind this node that the overlay knows by other addresses: packets are rewritten between the device and the
//! filter, which sees the overlay's. Without such a network nothing is done and nothing is left free.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use super::Tunnel;
use super::offload::{Gso, NEEDS_CSUM, VnetHeader};
use crate::translate::{Checksum, HEADROOM_BYTES, Refused, Translated, Translations};

/// What is in force, and what it refused.
#[derive(Default)]
pub(super) struct Translating {
    all: ArcSwapOption<Translations>,
    refused: AtomicU64,
}

impl Translating {
    /// For one batch.
    pub(super) fn load(&self) -> Option<Arc<Translations>> {
        self.all.load_full()
    }

    /// Bytes to leave free before each packet from the device.
    pub(super) fn headroom(&self) -> usize {
        match self.all.load().is_some() {
            true => HEADROOM_BYTES,
            false => 0,
        }
    }

    /// A frame of the device. `false`: it goes nowhere.
    pub(super) fn outward(
        &self,
        all: &Translations,
        arena: &mut [u8],
        packet: &mut Range<usize>,
        header: &mut VnetHeader,
    ) -> bool {
        let checksum = match header.flags & NEEDS_CSUM {
            0 => Checksum::Complete,
            _ => Checksum::Partial,
        };
        let was = version(arena, packet);
        match all.outward(arena, packet.clone(), checksum) {
            Ok(Translated::Untouched) => true,
            Ok(Translated::At(at)) => {
                let grown = packet.start.saturating_sub(at.start);
                *packet = at;
                if was != version(arena, packet) {
                    *header = header_of_v6(*header, grown);
                }
                true
            }
            Err(refused) => self.count(refused),
        }
    }

    /// A packet from a peer that passed the filter. `None`: it goes nowhere.
    pub(super) fn inward(
        &self,
        all: &Translations,
        arena: &mut [u8],
        packet: Range<usize>,
    ) -> Option<Range<usize>> {
        match all.inward(arena, packet.clone()) {
            Ok(Translated::Untouched) => Some(packet),
            Ok(Translated::At(at)) => Some(at),
            Err(refused) => self.count(refused).then_some(packet),
        }
    }

    fn count(&self, refused: Refused) -> bool {
        self.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%refused, "packet of a network behind this node dropped");
        false
    }
}

fn version(arena: &[u8], packet: &Range<usize>) -> Option<u8> {
    arena.get(packet.start).map(|first| first >> 4)
}

/// What the device said of a packet of IPv4, of the same packet in IPv6.
fn header_of_v6(header: VnetHeader, grown: usize) -> VnetHeader {
    let grown = u16::try_from(grown).unwrap_or_default();
    let longer = |field: u16| match field {
        0 => 0,
        field => field.saturating_add(grown),
    };
    VnetHeader {
        gso: match header.gso {
            Gso::Tcp4 => Gso::Tcp6,
            other => other,
        },
        header_length: longer(header.header_length),
        csum_start: longer(header.csum_start),
        ..header
    }
}

impl Tunnel {
    /// From the next batch on packets are rewritten so.
    pub fn set_translations(&self, all: Option<Translations>) {
        self.shared.translating.all.store(all.map(Arc::new));
    }

    /// Packets of networks behind this node that could not be rewritten.
    pub fn untranslated(&self) -> u64 {
        self.shared.translating.refused.load(Ordering::Relaxed)
    }
}
