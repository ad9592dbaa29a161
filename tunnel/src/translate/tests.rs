use proptest::prelude::*;

use super::*;

const CLIENT_V6: &str = "fd00:aa::5";
const CLIENT_V4: &str = "100.64.0.5";
const OWN_V6: &str = "fd00:aa::1";
const OWN_V4: &str = "100.64.0.1";
const HEAD: usize = HEADROOM_BYTES;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn all(seen: &str, real: &str) -> Translations {
    let networks = [Network {
        seen: seen.parse().unwrap(),
        real: real.parse().unwrap(),
    }];
    let people = [(CLIENT_V6, CLIENT_V4), (OWN_V6, OWN_V4)];
    let people = people.map(|(v6, v4)| (v6.parse().unwrap(), v4.parse().unwrap()));
    Translations::new(networks, people).unwrap()
}

fn cross() -> Translations {
    all("fd7a:1::c0a8:100/120", "192.168.1.0/24")
}

/// The sum of RFC 1071, written again and slowly.
fn slow_sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            total += u32::from(pair[0]) * 256 + u32::from(low);
            total = (total & 0xffff) + (total >> 16);
        }
    }
    total as u16
}

fn pseudo_of(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, protocol]);
    bytes
}

/// A packet with every checksum right.
fn packet(source: &str, destination: &str, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let (source, destination) = (ip(source), ip(destination));
    let mut transport = transport.to_vec();
    let at = match protocol {
        6 => 16,
        17 => 6,
        _ => 2,
    };
    transport[at..at + 2].fill(0);
    let pseudo = pseudo_of(source, destination, protocol, transport.len());
    let field = match (protocol, source) {
        (1, _) => !slow_sum(&[&transport]),
        _ => !slow_sum(&[&pseudo, &transport]),
    };
    let field = if protocol == 17 && field == 0 {
        0xffff
    } else {
        field
    };
    transport[at..at + 2].copy_from_slice(&field.to_be_bytes());
    let mut bytes = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = (20 + transport.len()) as u16;
            bytes.extend([0x45, 0x28]);
            bytes.extend(total.to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, 63, protocol, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            let header = !slow_sum(&[&bytes]);
            bytes[10..12].copy_from_slice(&header.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes.extend([0x62, 0x80, 0, 0]);
            bytes.extend((transport.len() as u16).to_be_bytes());
            bytes.extend([protocol, 63]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        _ => panic!("two families"),
    }
    bytes.extend(transport);
    bytes
}

/// Whether lengths and checksums hold.
fn is_sound(bytes: &[u8]) -> bool {
    let (source, destination) = parse::addresses(bytes).unwrap();
    let (at, protocol, length) = match source {
        IpAddr::V4(_) => (
            20,
            bytes[9],
            usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
        ),
        IpAddr::V6(_) => (
            40,
            bytes[6],
            40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]])),
        ),
    };
    let transport = &bytes[at..];
    let pseudo = pseudo_of(source, destination, protocol, transport.len());
    let header = source.is_ipv6() || slow_sum(&[&bytes[..20]]) == 0xffff;
    let whole = match protocol {
        1 => slow_sum(&[transport]),
        _ => slow_sum(&[&pseudo, transport]),
    };
    header && whole == 0xffff && length == bytes.len()
}

fn run(
    packet: &[u8],
    act: impl Fn(&mut [u8], Range<usize>) -> Result<Translated, Refused>,
) -> Result<Option<Vec<u8>>, Refused> {
    let mut buffer = vec![0xee; HEAD];
    buffer.extend(packet);
    let end = buffer.len();
    Ok(match act(&mut buffer, HEAD..end)? {
        Translated::Untouched => {
            assert_eq!(&buffer[HEAD..], packet);
            None
        }
        Translated::At(range) => Some(buffer[range].to_vec()),
    })
}

fn inward(all: &Translations, packet: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
    run(packet, |buffer, at| all.inward(buffer, at))
}

fn outward(all: &Translations, packet: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
    run(packet, |buffer, at| {
        all.outward(buffer, at, Checksum::Complete)
    })
}

fn tcp(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0,
    ];
    bytes.extend(payload);
    bytes
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x9c, 0x40, 0, 53];
    bytes.extend(((8 + payload.len()) as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

fn echo(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 7];
    bytes.extend(payload);
    bytes
}

fn error(kind: u8, code: u8, rest: u32, quoted: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest.to_be_bytes());
    bytes.extend(quoted);
    bytes
}

#[test]
fn fragments_options_other_protocols_and_broken_lengths_are_refused() {
    let all = cross();
    let seen = "fd7a:1::c0a8:111";
    let good = packet(CLIENT_V6, seen, 6, &tcp(b"x"));
    assert!(inward(&all, &good).is_ok());
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        inward(&all, &bytes)
    };
    assert_eq!(with(&|bytes| bytes[6] = 44), Err(Refused::Fragment));
    for extension in [0, 43, 51, 60] {
        assert_eq!(with(&|bytes| bytes[6] = extension), Err(Refused::Options));
    }
    for other in [1, 2, 41, 47, 132] {
        assert_eq!(with(&|bytes| bytes[6] = other), Err(Refused::Protocol));
    }
    assert_eq!(with(&|bytes| bytes.push(0)), Err(Refused::Short));
    assert_eq!(with(&|bytes| bytes.truncate(50)), Err(Refused::Short));
    assert_eq!(with(&|bytes| bytes[5] = 4), Err(Refused::Short));

    let good = packet("192.168.1.17", CLIENT_V4, 6, &tcp(b"x"));
    assert!(outward(&all, &good).is_ok());
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        outward(&all, &bytes)
    };
    assert_eq!(with(&|bytes| bytes[0] = 0x46), Err(Refused::Options));
    assert_eq!(with(&|bytes| bytes[6] = 0x20), Err(Refused::Fragment));
    assert_eq!(with(&|bytes| bytes[7] = 1), Err(Refused::Fragment));
    assert_eq!(with(&|bytes| bytes[9] = 47), Err(Refused::Protocol));
    assert_eq!(with(&|bytes| bytes[9] = 58), Err(Refused::Protocol));
    assert_eq!(with(&|bytes| bytes.truncate(30)), Err(Refused::Short));
    for bytes in [&[][..], &[0x45], &[0x60; 39], &[0xff; 60]] {
        assert_eq!(outward(&all, bytes), Err(Refused::Short));
        assert_eq!(inward(&all, bytes), Err(Refused::Short));
    }
    let no_room = all.outward(&mut good.clone(), 0..good.len(), Checksum::Complete);
    assert_eq!(no_room, Err(Refused::Room));
}

#[test]
fn who_has_no_address_of_the_other_family_gets_nothing_across() {
    let all = cross();
    let stranger = packet("fd00:aa::99", "fd7a:1::c0a8:111", 6, &tcp(b"x"));
    assert_eq!(inward(&all, &stranger), Err(Refused::Address));
    let stranger = packet("192.168.1.17", "100.64.0.99", 6, &tcp(b"x"));
    assert_eq!(outward(&all, &stranger), Err(Refused::Address));
}

#[test]
fn what_is_about_no_network_stays_as_it_is() {
    let all = cross();
    for (source, destination) in [
        (CLIENT_V6, "fd7a:1::c0a8:211"),
        (CLIENT_V6, OWN_V6),
        (CLIENT_V4, "192.168.1.17"),
    ] {
        assert_eq!(
            inward(&all, &packet(source, destination, 6, &tcp(b"x"))),
            Ok(None)
        );
    }
    for (source, destination) in [
        ("192.168.2.17", CLIENT_V4),
        (OWN_V4, CLIENT_V4),
        (OWN_V6, CLIENT_V6),
    ] {
        assert_eq!(
            outward(&all, &packet(source, destination, 6, &tcp(b"x"))),
            Ok(None)
        );
    }
    let odd = Network {
        seen: "10.0.0.0/16".parse().unwrap(),
        real: "192.168.1.0/24".parse().unwrap(),
    };
    assert_eq!(Translations::new([odd], []), None);
    let plain = Network {
        seen: odd.real,
        real: odd.real,
    };
    assert_eq!(Translations::new([plain], []), None);
}

#[test]
fn a_damaged_packet_stays_damaged_and_a_damaged_message_goes_nowhere() {
    let all = cross();
    let mut bytes = packet(CLIENT_V6, "fd7a:1::c0a8:111", 6, &tcp(b"payload"));
    let last = bytes.len() - 1;
    bytes[last] ^= 0xff;
    assert!(!is_sound(&inward(&all, &bytes).unwrap().unwrap()));
    let mut bytes = packet(CLIENT_V6, "fd7a:1::c0a8:111", 58, &echo(128, b"payload"));
    bytes[50] ^= 0xff;
    assert_eq!(inward(&all, &bytes), Err(Refused::Checksum));
}

#[test]
fn only_echoes_and_errors_with_a_counterpart_cross() {
    let all = cross();
    for kind in [130, 133, 134, 135, 136, 137, 200] {
        let bytes = packet(CLIENT_V6, "fd7a:1::c0a8:111", 58, &echo(kind, b""));
        assert_eq!(inward(&all, &bytes), Err(Refused::Icmp), "{kind}");
    }
    for kind in [5, 9, 10, 13, 17, 30] {
        let bytes = packet("192.168.1.17", CLIENT_V4, 1, &echo(kind, b""));
        assert_eq!(outward(&all, &bytes), Err(Refused::Icmp), "{kind}");
    }
    let ping = packet(CLIENT_V6, "fd7a:1::c0a8:111", 58, &echo(128, b"ping"));
    let over = inward(&all, &ping).unwrap().unwrap();
    assert_eq!(
        over,
        packet(CLIENT_V4, "192.168.1.17", 1, &echo(8, b"ping"))
    );
    let pong = packet("192.168.1.17", CLIENT_V4, 1, &echo(0, b"ping"));
    let back = outward(&all, &pong).unwrap().unwrap();
    assert_eq!(
        back,
        packet("fd7a:1::c0a8:111", CLIENT_V6, 58, &echo(129, b"ping"))
    );
}

#[test]
fn an_error_crosses_with_the_packet_that_it_quotes() {
    let all = cross();
    // The host, and this node itself, tell the client of a packet that it sent.
    let sent = packet(CLIENT_V4, "192.168.1.17", 6, &tcp(b"0123456789"));
    let as_sent = packet(CLIENT_V6, "fd7a:1::c0a8:111", 6, &tcp(b"0123456789"));
    for (from, seen_from) in [("192.168.1.17", "fd7a:1::c0a8:111"), (OWN_V4, OWN_V6)] {
        let told = packet(from, CLIENT_V4, 1, &error(3, 4, 1400, &sent));
        let over = outward(&all, &told).unwrap().unwrap();
        assert!(is_sound(&over));
        assert_eq!(
            over,
            packet(seen_from, CLIENT_V6, 58, &error(2, 0, 1420, &as_sent))
        );
    }
    // And the client tells the host.
    let reply = packet("fd7a:1::c0a8:111", CLIENT_V6, 17, &udp(b"0123456789"));
    let as_replied = packet("192.168.1.17", CLIENT_V4, 17, &udp(b"0123456789"));
    let told = packet(CLIENT_V6, "fd7a:1::c0a8:111", 58, &error(1, 4, 0, &reply));
    let over = inward(&all, &told).unwrap().unwrap();
    assert!(is_sound(&over));
    assert_eq!(
        over,
        packet(CLIENT_V4, "192.168.1.17", 1, &error(3, 3, 0, &as_replied))
    );
    // A quoted echo, cut short.
    let ping = packet(CLIENT_V4, "192.168.1.17", 1, &echo(8, b"ping"));
    let told = packet("192.168.1.17", CLIENT_V4, 1, &error(3, 1, 0, &ping[..28]));
    assert!(is_sound(&outward(&all, &told).unwrap().unwrap()));
    // One that quotes a fragment or nothing says nothing.
    let nothing = packet("192.168.1.17", CLIENT_V4, 1, &error(3, 1, 0, &[]));
    assert!(outward(&all, &nothing).is_err());
    let long = packet(CLIENT_V4, "192.168.1.17", 6, &tcp(&[7; 1400]));
    let told = packet("192.168.1.17", CLIENT_V4, 1, &error(3, 4, 1400, &long));
    let over = outward(&all, &told).unwrap().unwrap();
    assert!(is_sound(&over) && over.len() <= 1280);
}

#[test]
fn an_error_about_a_network_of_the_same_family_is_rewritten_with_its_quote() {
    let all = all("10.7.3.0/24", "192.168.1.0/24");
    let sent = packet(CLIENT_V4, "192.168.1.17", 6, &tcp(b"0123456789"));
    let as_sent = packet(CLIENT_V4, "10.7.3.17", 6, &tcp(b"0123456789"));
    let told = packet("192.168.1.17", CLIENT_V4, 1, &error(3, 3, 0, &sent));
    let over = outward(&all, &told).unwrap().unwrap();
    assert_eq!(
        over,
        packet("10.7.3.17", CLIENT_V4, 1, &error(3, 3, 0, &as_sent))
    );
    let told = packet(OWN_V4, CLIENT_V4, 1, &error(3, 1, 0, &sent));
    let over = outward(&all, &told).unwrap().unwrap();
    assert_eq!(
        over,
        packet(OWN_V4, CLIENT_V4, 1, &error(3, 1, 0, &as_sent))
    );
}

#[test]
fn udp_without_a_checksum_gets_one_in_ipv6_and_none_in_ipv4() {
    let mut bytes = packet("192.168.1.17", CLIENT_V4, 17, &udp(b"plain"));
    bytes[26..28].fill(0);
    let over = outward(&cross(), &bytes).unwrap().unwrap();
    assert_eq!(
        over,
        packet("fd7a:1::c0a8:111", CLIENT_V6, 17, &udp(b"plain"))
    );
    let over = outward(&all("10.7.3.0/24", "192.168.1.0/24"), &bytes)
        .unwrap()
        .unwrap();
    assert_eq!(&over[26..28], [0, 0]);
}

/// As the kernel hands over a packet whose checksum the device completes.
fn partial(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let (source, destination) = parse::addresses(&bytes).unwrap();
    let (at, protocol) = match source {
        IpAddr::V4(_) => (20, bytes[9]),
        IpAddr::V6(_) => (40, bytes[6]),
    };
    let sum = slow_sum(&[&pseudo_of(source, destination, protocol, bytes.len() - at)]);
    let field = at + if protocol == 6 { 16 } else { 6 };
    bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

const PAIRS: [(&str, &str, &str, &str); 3] = [
    // seen, real, host as seen, host as it is
    (
        "fd7a:1::c0a8:100/120",
        "192.168.1.0/24",
        "fd7a:1::c0a8:1",
        "192.168.1.",
    ),
    ("10.7.3.0/24", "192.168.1.0/24", "10.7.3.", "192.168.1."),
    ("fd7a:2::/120", "fd01::/120", "fd7a:2::", "fd01::"),
];

proptest! {
    #[test]
    fn what_goes_out_is_sound_and_comes_back_as_it_was(
        which in 0usize..3,
        host in 1u8..=254,
        is_tcp: bool,
        payload in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let (seen_net, real_net, seen, real) = PAIRS[which];
        let all = all(seen_net, real_net);
        let real = if real.ends_with(':') { format!("{real}{host:x}") } else { format!("{real}{host}") };
        let seen = if seen.ends_with('.') { format!("{seen}{host}") } else { format!("{seen}{host:02x}") };
        let client_there = if ip(&real).is_ipv4() { CLIENT_V4 } else { CLIENT_V6 };
        let client_here = if ip(&seen).is_ipv4() { CLIENT_V4 } else { CLIENT_V6 };
        let (protocol, transport) = if is_tcp { (6, tcp(&payload)) } else { (17, udp(&payload)) };
        let sent = packet(&real, client_there, protocol, &transport);
        prop_assert!(is_sound(&sent));
        let over = outward(&all, &sent).unwrap().unwrap();
        prop_assert_eq!(&over, &packet(&seen, client_here, protocol, &transport));
        let reply = packet(client_here, &seen, protocol, &transport);
        let back = inward(&all, &reply).unwrap().unwrap();
        prop_assert_eq!(back, packet(client_there, &real, protocol, &transport));
        // The same of a frame whose checksum is only begun.
        let frame = partial(&sent);
        let over = run(&frame, |buffer, at| all.outward(buffer, at, Checksum::Partial)).unwrap().unwrap();
        prop_assert_eq!(over, partial(&packet(&seen, client_here, protocol, &transport)));
    }

    #[test]
    fn whatever_comes_is_refused_or_translated_and_nothing_else_happens(
        which in 0usize..3,
        mut bytes in proptest::collection::vec(any::<u8>(), 0..160),
        shape in 0u8..4,
        protocol in prop_oneof![Just(1u8), Just(6), Just(17), Just(58), any::<u8>()],
    ) {
        let (seen, real, ..) = PAIRS[which];
        let all = all(seen, real);
        let net = if shape % 2 == 0 { seen } else { real };
        let net: IpNet = net.parse().unwrap();
        let length = bytes.len();
        match net.network() {
            IpAddr::V4(v4) if length >= 20 => {
                bytes[..2].copy_from_slice(&[0x45, 0]);
                bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                bytes[6..8].fill(0);
                bytes[9] = protocol;
                bytes[12..16].copy_from_slice(&v4.octets());
                bytes[16..20].copy_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) if length >= 40 => {
                bytes[0] = 0x60;
                bytes[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
                bytes[6] = protocol;
                bytes[8..24].copy_from_slice(&v6.octets());
                bytes[24..40].copy_from_slice(&v6.octets());
            }
            _ => {}
        }
        let _ = inward(&all, &bytes);
        let _ = outward(&all, &bytes);
        let _ = run(&bytes, |buffer, at| all.outward(buffer, at, Checksum::Partial));
    }
}
