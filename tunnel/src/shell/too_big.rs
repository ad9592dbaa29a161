//! Packets that are too big for the path to their peer are answered as a router would (RFC 1191, RFC 8201), so that
//! TCP and whoever else measures its path sends smaller ones.
//!
//! What may be fragmented, and what is beyond the budget of answers, is sent as it is: the system then fragments the
//! datagram around it. Nothing is lost silently.

use std::time::Duration;

use edgeward_identity::BootTime;

use super::Shared;
use super::offload::checksum::{Sum, pseudo_header};
use super::offload::split::Splitter;
use crate::node::PeerHandle;

/// Longest answer, in bytes: what every IPv6 host must take.
pub const MAX_ANSWER_BYTES: usize = 1280;
/// Longest ICMPv4 error, in bytes (RFC 1812 4.3.2.3).
const MAX_ICMPV4_BYTES: usize = 576;
/// No IPv6 path is said to be narrower (RFC 8200 5).
const MIN_IPV6_MTU: usize = 1280;
/// No IPv4 path is said to be narrower, so that nobody can starve a flow.
const MIN_IPV4_MTU: usize = 576;
/// Answers in a row.
const BURST: u32 = 32;
/// One more answer each time this has passed.
const EVERY: Duration = Duration::from_millis(10);

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const ICMP_HEADER_BYTES: usize = 8;

/// Answers of one thread that wait to be written to the device, and the budget for more.
pub(super) struct Answers {
    waiting: Vec<Vec<u8>>,
    budget: u32,
    refilled: BootTime,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            budget: BURST,
            refilled: BootTime::default(),
        }
    }
}

impl Answers {
    /// Takes a frame whose segments are too big for `peer`; `false` if it is to be sent all the same.
    pub(super) fn too_big(
        &mut self,
        segments: &mut Splitter<'_>,
        peer: &PeerHandle,
        now: BootTime,
    ) -> bool {
        let largest = peer.largest_packet(now);
        if !self.may_answer(now) {
            return false;
        }
        let mut answer = vec![0; MAX_ANSWER_BYTES];
        let length = segments
            .peek()
            .and_then(|first| answer_to(first, largest, &mut answer));
        let Some(length) = length else { return false };
        answer.truncate(length);
        self.budget -= 1;
        self.waiting.push(answer);
        true
    }

    /// Writes the answers. No lock may be held.
    pub(super) fn write(&mut self, shared: &Shared) {
        for mut answer in self.waiting.drain(..) {
            let whole = 0..answer.len();
            let at = match shared.translating.load() {
                // A host behind this node must see its own packet quoted.
                Some(all) => shared.translating.inward(&all, &mut answer, whole),
                None => Some(whole),
            };
            let Some(answer) = at.and_then(|at| answer.get(at)) else {
                continue;
            };
            let written = shared.device.write_packet(answer);
            if let Err(error) = written {
                tracing::debug!(%error, "answer to a packet that is too big not written");
            }
        }
    }

    fn may_answer(&mut self, now: BootTime) -> bool {
        let gained = now.since(self.refilled).as_nanos() / EVERY.as_nanos();
        if gained > 0 {
            self.budget = BURST.min(
                self.budget
                    .saturating_add(u32::try_from(gained).unwrap_or(BURST)),
            );
            self.refilled = now;
        }
        self.budget > 0
    }
}

/// Writes the ICMP error that says "at most `largest` bytes" about `packet` into `out`; its length. `None` if the
/// packet may be fragmented, must not be answered, or is not too big at all.
pub fn answer_to(packet: &[u8], largest: usize, out: &mut [u8]) -> Option<usize> {
    match packet.first()? >> 4 {
        4 => answer_v4(packet, largest.max(MIN_IPV4_MTU), out),
        6 => answer_v6(packet, largest.max(MIN_IPV6_MTU), out),
        _ => None,
    }
}

fn answer_v4(packet: &[u8], largest: usize, out: &mut [u8]) -> Option<usize> {
    let header = packet.get(..IPV4_HEADER_BYTES)?;
    let header_bytes = usize::from(*header.first()? & 0x0f) * 4;
    let fragments = u16::from_be_bytes([*header.get(6)?, *header.get(7)?]);
    let (dont_fragment, offset) = (fragments & 0x4000 != 0, fragments & 0x1fff);
    let source: [u8; 4] = header.get(12..16)?.try_into().ok()?;
    let destination: [u8; 4] = header.get(16..20)?.try_into().ok()?;
    // Not about ICMP errors, later fragments, or to nobody (RFC 1122 3.2.2).
    let kind = packet.get(header_bytes).copied();
    let about_error = *header.get(9)? == ICMP && !matches!(kind, Some(0 | 8));
    if packet.len() <= largest
        || !dont_fragment
        || offset != 0
        || about_error
        || !is_one_host(source[0])
        || !is_one_host(destination[0])
    {
        return None;
    }
    let quoted = packet
        .len()
        .min(MAX_ICMPV4_BYTES - IPV4_HEADER_BYTES - ICMP_HEADER_BYTES);
    let length = IPV4_HEADER_BYTES + ICMP_HEADER_BYTES + quoted;
    let answer = out.get_mut(..length)?;
    let (ip, icmp) = answer.split_at_mut_checked(IPV4_HEADER_BYTES)?;
    let mut head = [0; IPV4_HEADER_BYTES];
    head[0] = 0x45;
    head[2..4].copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    head[8] = 64;
    head[9] = ICMP;
    head[12..16].copy_from_slice(&destination);
    head[16..20].copy_from_slice(&source);
    let sum = Sum::default().with(&head).finish();
    head[10..12].copy_from_slice(&sum);
    ip.copy_from_slice(&head);
    let mut first = [0; ICMP_HEADER_BYTES];
    first[0] = 3; // destination unreachable
    first[1] = 4; // fragmentation needed
    first[6..8].copy_from_slice(&u16::try_from(largest).unwrap_or(u16::MAX).to_be_bytes());
    finish(icmp, &first, packet.get(..quoted)?, Sum::default())?;
    Some(length)
}

fn answer_v6(packet: &[u8], largest: usize, out: &mut [u8]) -> Option<usize> {
    let header = packet.get(..IPV6_HEADER_BYTES)?;
    let source: [u8; 16] = header.get(8..24)?.try_into().ok()?;
    let destination: [u8; 16] = header.get(24..40)?.try_into().ok()?;
    // Types below 128 are errors (RFC 4443 2.1).
    let about_error =
        *header.get(6)? == ICMPV6 && packet.get(IPV6_HEADER_BYTES).is_none_or(|kind| *kind < 128);
    if packet.len() <= largest || about_error || source == [0; 16] || source[0] == 0xff {
        return None;
    }
    let quoted = packet
        .len()
        .min(MAX_ANSWER_BYTES - IPV6_HEADER_BYTES - ICMP_HEADER_BYTES);
    let length = IPV6_HEADER_BYTES + ICMP_HEADER_BYTES + quoted;
    let answer = out.get_mut(..length)?;
    let (ip, icmp) = answer.split_at_mut_checked(IPV6_HEADER_BYTES)?;
    let mut head = [0; IPV6_HEADER_BYTES];
    head[0] = 0x60;
    head[4..6].copy_from_slice(&u16::try_from(icmp.len()).ok()?.to_be_bytes());
    head[6] = ICMPV6;
    head[7] = 64;
    head[8..24].copy_from_slice(&destination);
    head[24..40].copy_from_slice(&source);
    let pseudo = pseudo_header(&head[8..40], ICMPV6, icmp.len());
    ip.copy_from_slice(&head);
    let mut first = [0; ICMP_HEADER_BYTES];
    first[0] = 2; // packet too big
    first[4..8].copy_from_slice(&u32::try_from(largest).ok()?.to_be_bytes());
    finish(icmp, &first, packet.get(..quoted)?, pseudo)?;
    Some(length)
}

fn finish(
    icmp: &mut [u8],
    header: &[u8; ICMP_HEADER_BYTES],
    quoted: &[u8],
    pseudo: Sum,
) -> Option<()> {
    let (first, rest) = icmp.split_at_mut_checked(ICMP_HEADER_BYTES)?;
    first.copy_from_slice(header);
    rest.copy_from_slice(quoted);
    let sum = pseudo.with(icmp).finish();
    icmp.get_mut(2..4)?.copy_from_slice(&sum);
    Some(())
}

/// Not "this network", loopback, multicast or reserved.
fn is_one_host(first: u8) -> bool {
    !matches!(first, 0 | 127 | 224..)
}

#[cfg(test)]
mod tests;
