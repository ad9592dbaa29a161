//! Datagrams of the port on their way to who wants them: WireGuard to the node, reach messages and STUN to whoever
//! drives reach, relayed ones unpacked or sent on, the rest to QUIC.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use edgeward_identity::BootTime;
use quinn_udp::RecvMeta;

use super::Shared;
use super::demux::{Class, DatagramSink, Ecn, Transmit};
use crate::node::{Endpoint, Inbound};
use crate::reach::message::{RELAYED_HEADER_BYTES, RouteId, relayed};
use crate::reach::{is_detour, relay};

/// Where a run of datagrams came from, and how they lie in the buffer.
#[derive(Clone, Copy)]
struct Run {
    from: Endpoint,
    ecn: Option<Ecn>,
    stride: usize,
    /// Through a relay: what is inside cannot be relayed again.
    unpacked: bool,
}

/// Sorts what one receive call brought. Relayed datagrams are unpacked in place.
pub(super) fn sort(
    shared: &Shared,
    quic: &DatagramSink,
    meta: &RecvMeta,
    bytes: &mut [u8],
    now: BootTime,
    batch: &mut Inbound,
) {
    // A network that lets such an address through lets everybody be everybody.
    if is_detour(&meta.addr) {
        shared.reach.count_spoofed(1);
        return;
    }
    let run = Run {
        from: Endpoint {
            remote: meta.addr,
            local_ip: meta.dst_ip,
        },
        ecn: meta.ecn.map(Ecn::from),
        stride: meta.stride.max(1),
        unpacked: false,
    };
    sort_run(shared, quic, run, bytes, now, batch);
}

/// Sorts datagrams that a channel brought, as if they had come from `from`.
pub(super) fn sort_injected(
    shared: &Shared,
    quic: &DatagramSink,
    from: SocketAddr,
    bytes: &mut [u8],
    now: BootTime,
    batch: &mut Inbound,
) {
    let run = Run {
        from: Endpoint {
            remote: from,
            local_ip: None,
        },
        ecn: None,
        stride: bytes.len().max(1),
        unpacked: true,
    };
    sort_run(shared, quic, run, bytes, now, batch);
}

fn sort_run(
    shared: &Shared,
    quic: &DatagramSink,
    run: Run,
    bytes: &mut [u8],
    now: BootTime,
    batch: &mut Inbound,
) {
    let mut rest = bytes;
    while let Some(first) = rest
        .get(..run.stride.min(rest.len()))
        .filter(|first| !first.is_empty())
    {
        let class = Class::of(first);
        let route = match class {
            Class::Relayed => relayed(first).map(|(route, _)| route),
            _ => None,
        };
        // Only these two are worth taking together.
        let together = match class {
            Class::WireGuard => count_while(rest, run.stride, |datagram| {
                Class::of(datagram) == Class::WireGuard
            }),
            Class::Relayed if route.is_some() => count_while(rest, run.stride, |datagram| {
                relayed(datagram).map(|(other, _)| other) == route
            }),
            _ => 1,
        };
        let length = together.saturating_mul(run.stride).min(rest.len());
        let (these, after) = std::mem::take(&mut rest).split_at_mut(length);
        rest = after;
        match (class, route) {
            (Class::WireGuard, _) => {
                let node = &shared.node;
                node.receive(run.from, these, run.stride, now, batch);
            }
            (Class::Relayed, Some(route)) if !run.unpacked => {
                take_relayed(shared, quic, run, route, these, now, batch);
            }
            (Class::Relayed, _) => shared.reach.count_misrouted(together as u64),
            (Class::Reach, _) => shared.reach.offer(run.from, these),
            (Class::Stun, _) if run.unpacked => {}
            (Class::Stun, _) => shared.reach.offer_stun(run.from, these),
            (Class::Quic, _) => {
                if !quic.offer(run.from.remote, run.from.local_ip, run.ecn, these) {
                    shared.quic_dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// A run of datagrams of one route: ours, or somebody's whom this node carries for.
fn take_relayed(
    shared: &Shared,
    quic: &DatagramSink,
    run: Run,
    route: RouteId,
    bytes: &mut [u8],
    now: BootTime,
    batch: &mut Inbound,
) {
    let detours = shared.port.detours();
    if let Some(address) = detours.comes_from(route, run.from.remote) {
        let length = unpack(bytes, run.stride);
        let inner = Run {
            from: Endpoint {
                remote: address,
                local_ip: None,
            },
            stride: run.stride.saturating_sub(RELAYED_HEADER_BYTES).max(1),
            unpacked: true,
            ..run
        };
        let bytes = bytes.get_mut(..length).unwrap_or_default();
        return sort_run(shared, quic, inner, bytes, now, batch);
    }
    let datagrams = bytes.len().div_ceil(run.stride);
    let carry = {
        let mut relays = shared.reach.relays().lock();
        relays.carry(route, run.from.remote, datagrams, bytes.len(), now)
    };
    if let Some(carry) = carry {
        send_on(shared, run, carry, bytes);
    }
}

/// The whole run leaves as it came, in one send.
fn send_on(shared: &Shared, run: Run, carry: relay::Carry, bytes: &[u8]) {
    let length = carry.datagrams.saturating_mul(run.stride).min(bytes.len());
    // A relay has no queue: what its port does not take now is lost, as at any full router.
    let sent = shared.port.try_send(&Transmit {
        to: carry.to.remote,
        local_ip: carry.to.local_ip,
        ecn: run.ecn,
        segment_size: Some(run.stride),
        bytes: bytes.get(..length).unwrap_or_default(),
    });
    if let Err(error) = sent {
        shared.reach.count_not_carried(carry.datagrams as u64);
        tracing::debug!(%error, to = %carry.to.remote, "relayed datagrams not sent");
    }
}

/// Cuts the header out of every datagram and moves the rest together; returns the new length.
pub(super) fn unpack(bytes: &mut [u8], stride: usize) -> usize {
    let (mut start, mut length) = (0, 0);
    while start < bytes.len() {
        let end = start.saturating_add(stride).min(bytes.len());
        let inner = (start + RELAYED_HEADER_BYTES).min(end);
        bytes.copy_within(inner..end, length);
        length += end - inner;
        start = end;
    }
    length
}

fn count_while(bytes: &[u8], stride: usize, is: impl Fn(&[u8]) -> bool) -> usize {
    bytes
        .chunks(stride)
        .take_while(|datagram| is(datagram))
        .count()
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::message::relayed_header;

    #[test]
    fn headers_are_cut_out_in_place() {
        let header = relayed_header(RouteId(3));
        let mut bytes = Vec::new();
        for (mark, length) in [(1u8, 50), (2, 50), (3, 20)] {
            bytes.extend_from_slice(&header);
            bytes.extend(vec![mark; length]);
        }
        let length = unpack(&mut bytes, 62);
        let whole: Vec<u8> = [vec![1u8; 50], vec![2; 50], vec![3; 20]].concat();
        assert_eq!(bytes[..length], whole);
        assert_eq!(unpack(&mut [0; 5], 5), 0);
        assert_eq!(unpack(&mut [], 1), 0);
    }
}
