use proptest::prelude::*;

use super::checksum::{Sum, pseudo_header};
use super::coalesce::{Coalescer, Joins, MAX_HEADERS_BYTES};
use super::split::{Splitter, TAIL_BYTES};
use super::*;

/// A TCP or UDP flow to make packets of.
#[derive(Clone, Copy, Debug)]
struct Flow {
    ipv4: bool,
    protocol: u8,
    port: u16,
    options: usize,
}

fn flow() -> impl Strategy<Value = Flow> {
    (
        any::<bool>(),
        any::<bool>(),
        0u16..3,
        prop_oneof![Just(0usize), Just(12), Just(40)],
    )
        .prop_map(|(ipv4, tcp, port, options)| Flow {
            ipv4,
            protocol: if tcp { TCP } else { UDP },
            port: 1000 + port,
            options: if tcp { options } else { 0 },
        })
}

impl Flow {
    fn network(&self) -> usize {
        if self.ipv4 { 20 } else { 40 }
    }

    fn headers(&self) -> usize {
        self.network()
            + if self.protocol == TCP {
                20 + self.options
            } else {
                8
            }
    }

    fn packet(&self, sequence: u32, id: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = self.headers() + payload.len();
        let mut packet = vec![0; self.headers()];
        if self.ipv4 {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            packet[6] = 0x40;
            packet[8] = 64;
            packet[9] = self.protocol;
            packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
            let sum = Sum::default().with(&packet[..20]).finish();
            packet[10..12].copy_from_slice(&sum);
        } else {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&u16::try_from(length - 40).unwrap().to_be_bytes());
            packet[6] = self.protocol;
            packet[7] = 64;
            packet[8] = 0xfd;
            packet[23] = 1;
            packet[24] = 0xfd;
            packet[39] = 2;
        }
        let at = self.network();
        packet[at..at + 2].copy_from_slice(&self.port.to_be_bytes());
        packet[at + 2..at + 4].copy_from_slice(&443u16.to_be_bytes());
        if self.protocol == TCP {
            packet[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
            packet[at + 11] = 9;
            packet[at + 12] = u8::try_from((20 + self.options) / 4 * 16).unwrap();
            packet[at + 13] = flags;
            packet[at + 14] = 1;
            packet[at + 20..].fill(1);
        } else {
            packet[at + 4..at + 6]
                .copy_from_slice(&u16::try_from(length - at).unwrap().to_be_bytes());
        }
        packet.extend_from_slice(payload);
        finish(&mut packet, at, self.protocol);
        packet
    }
}

fn csum_offset(protocol: u8) -> usize {
    if protocol == TCP {
        TCP_CSUM_OFFSET
    } else {
        UDP_CSUM_OFFSET
    }
}

fn addresses(packet: &[u8]) -> &[u8] {
    if packet[0] >> 4 == 4 {
        &packet[12..20]
    } else {
        &packet[8..40]
    }
}

fn finish(packet: &mut [u8], at: usize, protocol: u8) {
    let field = at + csum_offset(protocol);
    packet[field..field + 2].fill(0);
    let sum = pseudo_header(addresses(packet), protocol, packet.len() - at).with(&packet[at..]);
    packet[field..field + 2].copy_from_slice(&split::checksum_field(sum, protocol));
}

fn assert_valid(packet: &[u8]) {
    let (at, protocol) = if packet[0] >> 4 == 4 {
        (20, packet[9])
    } else {
        (40, packet[6])
    };
    if at == 20 {
        assert!(
            Sum::default().with(&packet[..20]).is_valid(),
            "IPv4 header checksum"
        );
        assert_eq!(
            usize::from(u16::from_be_bytes([packet[2], packet[3]])),
            packet.len()
        );
    } else {
        assert_eq!(
            usize::from(u16::from_be_bytes([packet[4], packet[5]])) + 40,
            packet.len()
        );
    }
    let sum = pseudo_header(addresses(packet), protocol, packet.len() - at).with(&packet[at..]);
    assert!(sum.is_valid(), "transport checksum");
}

/// What goes to the device for a batch: frames.
fn coalesce(coalescer: &mut Coalescer, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let arena = packets.concat();
    let mut at = 0;
    coalescer.clear();
    for packet in packets {
        coalescer.push(&arena, at..at + packet.len());
        at += packet.len();
    }
    coalescer
        .groups()
        .iter()
        .map(|group| {
            let mut headers = [0; HEADER_BYTES + MAX_HEADERS_BYTES];
            match coalescer.headers(&arena, group, &mut headers) {
                Some(length) => {
                    let mut frame = headers[..length].to_vec();
                    coalescer
                        .payloads(&arena, group)
                        .for_each(|payload| frame.extend_from_slice(payload));
                    frame
                }
                None => {
                    let mut frame = vec![0; HEADER_BYTES];
                    frame.extend_from_slice(&arena[group.first()]);
                    frame
                }
            }
        })
        .collect()
}

/// The packets that a frame stands for.
fn split(frame: &[u8], pad: usize) -> Result<Vec<Vec<u8>>, BadFrame> {
    let header = VnetHeader::parse(frame)?;
    let mut buffer = frame[HEADER_BYTES..].to_vec();
    buffer.extend_from_slice(&[0xee; TAIL_BYTES]);
    let mut splitter = Splitter::new(header, &mut buffer)?;
    let mut packets = Vec::new();
    let expected = splitter.remaining();
    while let Some(segment) = splitter.next_segment(|length| length.next_multiple_of(pad)) {
        assert_eq!(segment.len() % pad, 0);
        let length = if segment[0] >> 4 == 4 {
            usize::from(u16::from_be_bytes([segment[2], segment[3]]))
        } else {
            usize::from(u16::from_be_bytes([segment[4], segment[5]])) + 40
        };
        assert!(
            segment.len() - length < pad && segment[length..].iter().all(|byte| *byte == 0),
            "padding"
        );
        packets.push(segment[..length].to_vec());
    }
    assert_eq!(packets.len(), expected);
    Ok(packets)
}

fn payload(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed))
        .collect()
}

/// Consecutive segments of `size` bytes, the last one of `tail` bytes.
fn train(flow: Flow, count: usize, size: usize, tail: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| {
            let last = number + 1 == count;
            let length = if last { tail } else { size };
            let sequence = 0xffff_ff00u32.wrapping_add(u32::try_from(number * size).unwrap());
            let flags = if last { ACK | PSH } else { ACK };
            flow.packet(
                sequence,
                u16::try_from(number).unwrap(),
                flags,
                &payload(length, number as u8),
            )
        })
        .collect()
}

const TCP4: Flow = Flow {
    ipv4: true,
    protocol: TCP,
    port: 1000,
    options: 12,
};

#[test]
fn what_segmentation_could_not_have_made_is_not_joined() {
    let base = train(TCP4, 3, 500, 500);
    let change = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut packets = base.clone();
        edit(&mut packets[1]);
        let valid = packets[1].len();
        packets[1][10..12].fill(0);
        let sum = Sum::default().with(&packets[1][..20]).finish();
        packets[1][10..12].copy_from_slice(&sum);
        assert_eq!(valid, packets[1].len());
        finish(&mut packets[1], 20, TCP);
        let frames = coalesce(&mut Coalescer::new(Joins::ALL), &packets);
        let untouched: Vec<&[u8]> = frames.iter().map(|frame| &frame[HEADER_BYTES..]).collect();
        assert_eq!(
            untouched,
            packets.iter().map(Vec::as_slice).collect::<Vec<_>>()
        );
    };
    assert_eq!(
        coalesce(&mut Coalescer::new(Joins::ALL), &base).len(),
        1,
        "the base is joined"
    );
    change(&|packet| packet[1] = 1); // type of service
    change(&|packet| packet[8] = 63); // time to live
    change(&|packet| packet[6] = 0x60); // more fragments
    change(&|packet| packet[20 + 5] ^= 1); // sequence
    change(&|packet| packet[20 + 11] ^= 1); // acknowledgement
    change(&|packet| packet[20 + 15] ^= 1); // window
    change(&|packet| packet[20 + 21] ^= 2); // options
    for flags in [
        ACK | FIN,
        ACK | 0x02,
        ACK | 0x04,
        ACK | 0x20,
        ACK | 0x40,
        ACK | CWR,
        0,
    ] {
        change(&|packet| packet[20 + 13] = flags);
    }
    change(&|packet| packet[20 + 12] |= 1); // accurate ECN
}

#[test]
fn a_wrong_checksum_is_not_hidden_by_joining() {
    for position in [11, 20 + 16, 600] {
        let mut packets = train(TCP4, 3, 600, 600);
        packets[1][position] ^= 0x01;
        let frames = coalesce(&mut Coalescer::new(Joins::ALL), &packets);
        assert!(
            frames
                .iter()
                .any(|frame| frame[HEADER_BYTES..] == packets[1]),
            "passed on as it came"
        );
    }
}

#[test]
fn other_flows_in_between_do_not_hinder_and_are_not_mixed() {
    let (a, b) = (
        train(TCP4, 4, 500, 500),
        train(Flow { port: 2000, ..TCP4 }, 4, 700, 300),
    );
    let mixed: Vec<Vec<u8>> = a
        .iter()
        .zip(&b)
        .flat_map(|(a, b)| [a.clone(), b.clone()])
        .collect();
    let frames = coalesce(&mut Coalescer::new(Joins::ALL), &mixed);
    assert_eq!(frames.len(), 2);
    assert_eq!(split(&frames[0], 1).unwrap().len(), 4);
    assert_eq!(split(&frames[1], 1).unwrap().len(), 4);
}

#[test]
fn nothing_overtakes_a_packet_that_cannot_be_joined() {
    let mut packets = train(TCP4, 4, 500, 500);
    packets[1] = TCP4.packet(
        0xffff_ff00u32.wrapping_add(500),
        1,
        ACK | 0x20,
        &payload(500, 1),
    );
    let frames = coalesce(&mut Coalescer::new(Joins::ALL), &packets);
    assert_eq!(frames.len(), 3);
    assert_eq!(frames[1][HEADER_BYTES..], packets[1]);
}

#[test]
fn switched_off_means_untouched() {
    let packets = train(TCP4, 5, 500, 500);
    let mut coalescer = Coalescer::new(Joins::ALL);
    coalescer.allow(Joins::default());
    assert_eq!(coalesce(&mut coalescer, &packets).len(), 5);
    let udp = train(
        Flow {
            protocol: UDP,
            options: 0,
            ..TCP4
        },
        5,
        500,
        500,
    );
    assert_eq!(
        coalesce(
            &mut Coalescer::new(Joins {
                udp: false,
                ..Joins::ALL
            }),
            &udp
        )
        .len(),
        5
    );
    assert_eq!(coalesce(&mut Coalescer::new(Joins::ALL), &udp).len(), 1);
}

#[test]
fn what_was_joined_can_still_be_written_one_by_one() {
    let packets = train(TCP4, 5, 500, 300);
    let arena = packets.concat();
    let mut coalescer = Coalescer::new(Joins::ALL);
    let mut at = 0;
    for packet in &packets {
        coalescer.push(&arena, at..at + packet.len());
        at += packet.len();
    }
    let [group] = coalescer.groups() else {
        panic!("one group");
    };
    assert_eq!(group.kind(), Gso::Tcp4);
    let single: Vec<&[u8]> = coalescer.packets(&arena, group).collect();
    assert_eq!(single, packets);
}

#[test]
fn only_the_kind_that_was_refused_is_not_joined() {
    let six = Flow {
        ipv4: false,
        ..TCP4
    };
    let joins = Joins {
        tcp4: false,
        ..Joins::ALL
    };
    let mut coalescer = Coalescer::new(joins);
    assert_eq!(coalesce(&mut coalescer, &train(TCP4, 5, 500, 500)).len(), 5);
    assert_eq!(coalesce(&mut coalescer, &train(six, 5, 500, 500)).len(), 1);
}

#[test]
fn a_look_at_the_first_segment_changes_nothing() {
    let packets = train(TCP4, 3, 500, 500);
    let frames = coalesce(&mut Coalescer::new(Joins::ALL), &packets);
    let frame = &frames[0];
    let mut buffer = frame[HEADER_BYTES..].to_vec();
    buffer.extend_from_slice(&[0; TAIL_BYTES]);
    let mut splitter = Splitter::new(VnetHeader::parse(frame).unwrap(), &mut buffer).unwrap();
    assert_eq!(splitter.peek().unwrap(), packets[0]);
    for packet in &packets {
        assert_eq!(splitter.next_segment(|length| length).unwrap(), packet);
        assert!(splitter.peek().is_none());
    }
}

#[test]
fn a_checksum_left_to_the_device_is_completed() {
    for ipv4 in [true, false] {
        for protocol in [TCP, UDP] {
            let flow = Flow {
                ipv4,
                protocol,
                options: 0,
                ..TCP4
            };
            let expected = flow.packet(5, 0, ACK, &payload(333, 1));
            let at = flow.network();
            let mut frame = VnetHeader {
                flags: NEEDS_CSUM,
                csum_start: u16::try_from(at).unwrap(),
                csum_offset: u16::try_from(csum_offset(protocol)).unwrap(),
                ..VnetHeader::default()
            }
            .to_bytes()
            .to_vec();
            let mut partial = expected.clone();
            let pseudo = pseudo_header(addresses(&partial), protocol, partial.len() - at).fold();
            let field = at + csum_offset(protocol);
            partial[field..field + 2].copy_from_slice(&pseudo);
            frame.extend_from_slice(&partial);
            assert_eq!(split(&frame, 16).unwrap(), [expected]);
        }
    }
}

#[test]
fn headers_that_disagree_are_refused() {
    let packet = TCP4.packet(1, 0, ACK, &payload(3000, 1));
    let good = VnetHeader {
        flags: NEEDS_CSUM,
        gso: Gso::Tcp4,
        header_length: 52,
        gso_size: 1000,
        csum_start: 20,
        csum_offset: 16,
    };
    let cut = |header: VnetHeader, packet: &[u8]| {
        let mut frame = header.to_bytes().to_vec();
        frame.extend_from_slice(packet);
        split(&frame, 1)
    };
    assert_eq!(cut(good, &packet).unwrap().len(), 3);
    assert_eq!(
        cut(
            VnetHeader {
                gso_size: 0,
                ..good
            },
            &packet
        ),
        Err(BadFrame::Disagrees)
    );
    assert_eq!(
        cut(
            VnetHeader {
                csum_start: 24,
                ..good
            },
            &packet
        ),
        Err(BadFrame::Disagrees)
    );
    assert_eq!(
        cut(
            VnetHeader {
                gso: Gso::Tcp6,
                ..good
            },
            &packet
        ),
        Err(BadFrame::Disagrees)
    );
    assert_eq!(cut(good, &packet[..40]), Err(BadFrame::Short));
    assert_eq!(cut(good, &[]), Err(BadFrame::Short));
    assert_eq!(VnetHeader::parse(&[0; 9]), Err(BadFrame::Short));
    assert_eq!(
        VnetHeader::parse(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]),
        Err(BadFrame::Kind(3))
    );
}

proptest! {
    #[test]
    fn cutting_what_was_joined_gives_the_same_packets(
        flow in flow(),
        count in 1usize..45,
        size in 1usize..1400,
        tail in 1usize..1400,
        pad in prop_oneof![Just(1usize), Just(16)],
    ) {
        let packets = train(flow, count, size, tail.min(size));
        let frames = coalesce(&mut Coalescer::new(Joins::ALL), &packets);
        let mut back = Vec::new();
        for frame in &frames {
            back.extend(split(frame, pad).unwrap());
        }
        for packet in &back {
            assert_valid(packet);
        }
        prop_assert_eq!(back, packets);
        prop_assert_eq!(frames.len(), 1);
    }

    /// Any mixture of flows, sizes and flags: per flow the same packets in the same order.
    #[test]
    fn no_flow_is_changed_or_reordered(choices in proptest::collection::vec((flow(), 1usize..600, any::<bool>(), any::<bool>(), 0u8..4), 1..60)) {
        let mut sequences = std::collections::HashMap::new();
        let mut packets = Vec::new();
        for (number, (flow, length, push, gap, odd)) in choices.into_iter().enumerate() {
            let key = (flow.ipv4, flow.protocol, flow.port);
            let sequence: &mut u32 = sequences.entry(key).or_insert(7);
            if gap {
                *sequence = sequence.wrapping_add(3);
            }
            // Often equal lengths, so that joining happens.
            let length = if odd == 0 { length } else { 300 };
            let flags = if odd == 3 && gap { ACK | FIN } else if push && gap { ACK | PSH } else { ACK };
            packets.push(flow.packet(*sequence, number as u16, flags, &payload(length, number as u8)));
            *sequence = sequence.wrapping_add(length as u32);
        }
        let frames = coalesce(&mut Coalescer::new(Joins::ALL), &packets);
        let mut back = Vec::new();
        for frame in &frames {
            back.extend(split(frame, 1).unwrap());
        }
        let by_flow = |packets: &[Vec<u8>]| {
            let mut flows = std::collections::BTreeMap::<Vec<u8>, Vec<Vec<u8>>>::new();
            for packet in packets {
                let (at, protocol) = if packet[0] >> 4 == 4 { (20, packet[9]) } else { (40, packet[6]) };
                let key = [addresses(packet), &packet[at..at + 4], &[protocol]].concat();
                let mut packet = packet.clone();
                if at == 20 {
                    // Segmentation counts identifications on; with don't-fragment set nobody reads them.
                    packet[4..6].fill(0);
                    packet[10..12].fill(0);
                }
                flows.entry(key).or_default().push(packet);
            }
            flows
        };
        for packet in &back {
            assert_valid(packet);
        }
        prop_assert_eq!(by_flow(&back), by_flow(&packets));
    }

    #[test]
    fn no_frame_panics_the_splitter(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0u8..7, version in 0u8..3, size in 0u16..100, start in 0u16..80) {
        let mut bytes = bytes;
        if let Some(header) = bytes.get_mut(..11) {
            header[1] = kind;
            header[4..6].copy_from_slice(&size.to_ne_bytes());
            header[6..8].copy_from_slice(&start.to_ne_bytes());
            header[10] = [0x45, 0x60, 0x4f][usize::from(version)];
        }
        if let Ok(header) = VnetHeader::parse(&bytes) {
            let mut buffer = bytes[HEADER_BYTES..].to_vec();
            buffer.extend_from_slice(&[0; TAIL_BYTES]);
            if let Ok(mut splitter) = Splitter::new(header, &mut buffer) {
                let mut count = 0;
                while splitter.next_segment(|length| length + 3).is_some() {
                    count += 1;
                    prop_assert!(count <= 400);
                }
            }
        }
        let mut coalescer = Coalescer::new(Joins::ALL);
        let at = bytes.len() / 2;
        coalescer.push(&bytes, 0..at);
        coalescer.push(&bytes, at..bytes.len());
        prop_assert!(coalescer.groups().len() <= 2);
    }
}
