//! The data path on real devices: two tunnels in network namespaces of their own, whole streams through both.
//!
//! Needs root and `iproute2`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test helpers"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the kernel tells nobody when a path has been learned: looked at in bounded loops"
)]

mod sides;

use std::thread;
use std::time::Duration;

use edgeward_tunnel::node::Refusal;
use edgeward_tunnel::shell::udp::UdpOffload;
use edgeward_tunnel::shell::{Profile, Threads};
use sides::{Choice, Outside, Sides};

/// Bytes of each stream: some dozens of super-packets, through sequence wrap of no one.
const STREAM_BYTES: usize = 8 << 20;
/// Datagrams of the ordered run.
const DATAGRAMS: u32 = 4000;

const ALL: Choice = Choice {
    threads: Threads::One,
    profile: Profile::Balanced,
    tun_offload: true,
    udp: UdpOffload {
        gso: true,
        gro: true,
    },
};

fn carries_everything(choice: Choice) {
    let sides = Sides::joined(choice, Outside::V4);
    sides.stream(false, STREAM_BYTES);
    sides.stream(true, STREAM_BYTES);
    let arrived = sides.ordered_datagrams(DATAGRAMS);
    assert!(
        arrived >= DATAGRAMS / 100 * 99,
        "{choice:?}: {arrived} of {DATAGRAMS} datagrams"
    );
    let counters = sides.counters();
    assert_eq!(counters.send_failures, 0, "{choice:?}");
    assert_eq!(counters.device_errors, 0, "{choice:?}");
}

#[test]
fn one_thread_for_both_directions_carries_everything_in_order() {
    carries_everything(Choice {
        threads: Threads::Shared,
        ..ALL
    });
}

#[test]
fn one_thread_per_direction_carries_everything_in_order() {
    carries_everything(ALL);
}

#[test]
fn two_threads_per_direction_carry_everything_in_order() {
    carries_everything(Choice {
        threads: Threads::Two,
        ..ALL
    });
}

#[test]
fn small_buffers_carry_everything_in_order() {
    for threads in [Threads::Shared, Threads::Two] {
        carries_everything(Choice {
            threads,
            profile: Profile::Small,
            ..ALL
        });
    }
}

#[test]
fn no_offload_is_needed() {
    let off = UdpOffload {
        gso: false,
        gro: false,
    };
    carries_everything(Choice {
        tun_offload: false,
        udp: off,
        ..ALL
    });
    carries_everything(Choice {
        threads: Threads::Two,
        udp: off,
        ..ALL
    });
    carries_everything(Choice {
        tun_offload: false,
        profile: Profile::Throughput,
        ..ALL
    });
}

#[test]
fn ipv6_outside_carries_everything() {
    let sides = Sides::joined(ALL, Outside::V6);
    sides.stream(false, STREAM_BYTES);
    sides.stream(true, STREAM_BYTES);
}

/// A router in between takes 1300 bytes and says so to whoever sends more.
#[test]
fn a_narrow_path_is_learned_and_told_to_those_inside() {
    const NARROW: u16 = 1300;
    for (outside, headers) in [(Outside::V4, 28), (Outside::V6, 48)] {
        let sides = Sides::with_router(ALL, outside, NARROW);
        // Over IPv4 the kernel forbids routers to fragment single datagrams only, and what leaves in one send is many.
        sides.long_datagram();
        // The first stream finds the path narrow and goes on all the same.
        sides.stream(false, STREAM_BYTES);
        let expected = usize::from(NARROW) - headers - 32;
        let told = sides.inner_mtu(Duration::from_secs(10));
        assert_eq!(told, Some(expected), "{outside:?}");
        // IPv6 inside needs 1280: what does not fit leaves in fragments.
        sides.stream(true, STREAM_BYTES);
        assert_eq!(sides.counters().send_failures, 0, "{outside:?}");
    }
}

/// No wire joins the two: everything runs through a third, which knows none of their keys.
#[test]
fn a_relay_carries_everything_and_keeps_account_of_it() {
    for choice in [
        ALL,
        Choice {
            udp: UdpOffload {
                gso: false,
                gro: false,
            },
            ..ALL
        },
    ] {
        let sides = Sides::through_relay(choice);
        sides.stream(false, STREAM_BYTES);
        sides.stream(true, STREAM_BYTES);
        let arrived = sides.ordered_datagrams(DATAGRAMS);
        assert!(arrived >= DATAGRAMS / 100 * 99, "{arrived} of {DATAGRAMS}");
        let (account, refused) = sides.carried();
        assert!(account.bytes > 2 * STREAM_BYTES as u64, "{account:?}");
        assert_eq!((refused.unknown_route, refused.wrong_source), (0, 0));
        sides.strangers_get_nothing_through();
        sides.the_door_stays_shut();
    }
}

/// No wire at all: whoever holds the channels passes on what comes out of them.
#[test]
fn a_channel_carries_a_stream() {
    let sides = Sides::through_channels(ALL);
    sides.stream(false, STREAM_BYTES / 8);
    sides.stream(true, STREAM_BYTES / 8);
}

/// Whoever carries the datagrams also says them again, cuts them, lengthens them and turns bits in them.
#[test]
fn a_carrier_that_forges_and_repeats_changes_nothing_of_a_stream() {
    let sides = Sides::through_channels_with(ALL, |datagram, number| {
        let mut mischief = vec![datagram.to_vec()];
        if number % 4 == 0 {
            mischief.push(datagram[..datagram.len() / 2].to_vec());
            mischief.push(datagram[..20].to_vec());
            mischief.push([datagram, &[0; 16]].concat());
            let mut bent = datagram.to_vec();
            let at = number % bent.len();
            bent[at] ^= 1;
            mischief.push(bent);
            // Of a number that is yet to come: the others are repetitions before they are forgeries.
            let mut ahead = datagram.to_vec();
            ahead[12] ^= 1;
            mischief.push(ahead);
        }
        mischief
    });
    sides.stream(false, STREAM_BYTES / 8);
    sides.stream(true, STREAM_BYTES / 8);
    let refused = |refusal| sides.refused(refusal);
    assert!(refused(Refusal::Replayed) > 100, "nothing came twice");
    assert!(refused(Refusal::NotAuthentic) > 100, "nothing was forged");
    assert!(refused(Refusal::Malformed) > 0, "nothing was cut");
    assert_eq!(refused(Refusal::WrongSource), 0);
}

/// Of every length and kind, to the open port, beside a stream.
#[test]
fn what_strangers_send_is_counted_and_disturbs_no_stream() {
    let sides = Sides::joined(ALL, Outside::V4);
    thread::scope(|scope| {
        let stream = scope.spawn(|| sides.stream(false, STREAM_BYTES));
        let sent = sides.strangers_flood(2_000);
        stream.join().unwrap();
        assert!(sent > 10_000, "{sent} datagrams prove nothing");
    });
    for refusal in [Refusal::Malformed, Refusal::WrongMac, Refusal::NoSession] {
        assert!(sides.refused(refusal) > 500, "{refusal:?}");
    }
    sides.stream(true, STREAM_BYTES);
    let counters = sides.counters();
    assert_eq!((counters.send_failures, counters.device_errors), (0, 0));
}

/// The wire neither computes checksums nor cuts nor joins.
#[test]
fn a_wire_without_any_offload_carries_everything() {
    for outside in [Outside::V4, Outside::V6] {
        let sides = Sides::joined(ALL, outside);
        sides.without_offload();
        sides.stream(false, STREAM_BYTES);
        sides.stream(true, STREAM_BYTES);
        let arrived = sides.ordered_datagrams(DATAGRAMS);
        assert!(arrived >= DATAGRAMS / 100 * 99, "{arrived} of {DATAGRAMS}");
        assert_eq!(sides.counters().device_errors, 0);
    }
}

/// One process after the other takes the first side's place in the middle of it, with whole streams both ways.
#[test]
fn a_handover_loses_no_byte_of_a_stream_and_no_datagram() {
    let mut sides = Sides::joined(ALL, Outside::V4);
    for choice in [
        ALL,
        Choice {
            threads: Threads::Two,
            ..ALL
        },
    ] {
        let (arrived, next) = thread::scope(|scope| {
            let datagrams = scope.spawn(|| sides.ordered_datagrams(DATAGRAMS));
            let stream = scope.spawn(|| sides.stream(false, STREAM_BYTES));
            thread::sleep(Duration::from_millis(50));
            let next = sides.take_over(choice);
            stream.join().unwrap();
            (datagrams.join().unwrap(), next)
        });
        sides.is_now(next);
        assert!(arrived >= DATAGRAMS / 2, "{arrived} of {DATAGRAMS}");
        sides.stream(true, STREAM_BYTES);
    }
    // With nothing beside them, counted datagrams all arrive.
    let arrived = thread::scope(|scope| {
        let datagrams = scope.spawn(|| sides.ordered_datagrams(DATAGRAMS));
        thread::sleep(Duration::from_millis(30));
        let next = sides.take_over(ALL);
        let arrived = datagrams.join().unwrap();
        (arrived, next)
    });
    assert_eq!(arrived.0, DATAGRAMS);
    let handshakes = sides.handshakes();
    sides.is_now(arrived.1);
    assert_eq!(sides.handshakes(), handshakes, "the same session went on");
    assert_eq!(sides.counters().send_failures, 0);
}
