use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::packet::{ACK, FIN, Malformed, RST, SYN};
use super::*;

/// Allows flows to the ports listed, by direction; counts how often it was asked.
#[derive(Default)]
struct Ports {
    open: Mutex<Vec<(Direction, u16)>>,
    valid_until: Mutex<Option<BootTime>>,
    asked: AtomicU64,
}

impl Decide for Ports {
    fn decide(
        &self,
        flow: &FlowKey,
        _peer: PeerId,
        direction: Direction,
        _now: BootTime,
    ) -> FlowVerdict {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let allow = self
            .open
            .lock()
            .contains(&(direction, flow.destination_port));
        FlowVerdict {
            allow,
            rule: if allow {
                "open-ports".into()
            } else {
                "default".into()
            },
            valid_until: self.valid_until.lock().unwrap_or(at(1_000_000)),
        }
    }
}

const PARTY: Party = Party {
    peer: PeerId(1),
    generation: 10,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn at(secs: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(secs))
}

fn after(secs: u64) -> BootTime {
    at(1000 + secs)
}

fn filter(open: &[(Direction, u16)]) -> (Filter, Arc<Ports>) {
    let ports = Arc::new(Ports::default());
    ports.open.lock().extend_from_slice(open);
    (Filter::new(Arc::clone(&ports) as Arc<dyn Decide>), ports)
}

impl Family {
    fn ip(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 0, 0, host).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).into(),
        }
    }

    fn icmp(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 58,
        }
    }

    /// Request, reply, error, other.
    fn icmp_types(self) -> [u8; 4] {
        match self {
            Self::V4 => [8, 0, 3, 5],
            Self::V6 => [128, 129, 1, 134],
        }
    }

    fn packet(self, source: u8, destination: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
        ip(self.ip(source), self.ip(destination), protocol, payload)
    }

    fn tcp(self, source: (u8, u16), destination: (u8, u16), flags: u8) -> Vec<u8> {
        self.packet(
            source.0,
            destination.0,
            6,
            &tcp_header(source.1, destination.1, flags),
        )
    }

    fn udp(self, source: (u8, u16), destination: (u8, u16)) -> Vec<u8> {
        self.packet(
            source.0,
            destination.0,
            17,
            &udp_header(source.1, destination.1),
        )
    }

    fn echo(self, source: u8, destination: u8, kind: u8, id: u16) -> Vec<u8> {
        let [high, low] = id.to_be_bytes();
        self.packet(
            source,
            destination,
            self.icmp(),
            &[kind, 0, 0, 0, high, low, 0, 1],
        )
    }

    fn error(self, source: u8, destination: u8, quoted: &[u8]) -> Vec<u8> {
        let mut payload = vec![self.icmp_types()[2], 1, 0, 0, 0, 0, 0, 0];
        payload.extend_from_slice(quoted);
        self.packet(source, destination, self.icmp(), &payload)
    }

    /// A fragment at `offset` (units of 8 bytes).
    fn fragment(self, protocol: u8, id: u16, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
        match self {
            Self::V4 => {
                let mut packet = self.packet(2, 1, protocol, payload);
                packet[4..6].copy_from_slice(&id.to_be_bytes());
                packet[6..8]
                    .copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
                packet
            }
            Self::V6 => {
                let mut whole = vec![protocol, 0];
                whole.extend_from_slice(&(offset << 3 | u16::from(more)).to_be_bytes());
                whole.extend_from_slice(&u32::from(id).to_be_bytes());
                whole.extend_from_slice(payload);
                self.packet(2, 1, 44, &whole)
            }
        }
    }
}

fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
            let mut packet = vec![
                0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0,
            ];
            packet.extend_from_slice(&source.octets());
            packet.extend_from_slice(&destination.octets());
            packet.extend_from_slice(payload);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
            let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], protocol, 64];
            packet.extend_from_slice(&source.octets());
            packet.extend_from_slice(&destination.octets());
            packet.extend_from_slice(payload);
            packet
        }
        _ => panic!("mixed families"),
    }
}

fn tcp_header(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[..2].copy_from_slice(&source.to_be_bytes());
    header[2..4].copy_from_slice(&destination.to_be_bytes());
    header[12] = 0x50;
    header[13] = flags;
    header
}

fn udp_header(source: u16, destination: u16) -> Vec<u8> {
    let mut header = vec![0; 12];
    header[..2].copy_from_slice(&source.to_be_bytes());
    header[2..4].copy_from_slice(&destination.to_be_bytes());
    header[5] = 12;
    header
}

fn check(
    filter: &Filter,
    packet: &[u8],
    direction: Direction,
    now: BootTime,
) -> Result<(), DropReason> {
    filter.checker(now).check(packet, PARTY, direction)
}

use Direction::{In, Out};

#[test]
fn nothing_passes_by_default_in_either_direction() {
    for family in FAMILIES {
        let (filter, _) = filter(&[]);
        for direction in [In, Out] {
            for packet in [
                family.tcp((2, 1000), (1, 443), SYN),
                family.udp((2, 1000), (1, 443)),
                family.echo(2, 1, family.icmp_types()[0], 7),
                family.packet(2, 1, 47, &[0; 16]),
            ] {
                assert_eq!(
                    check(&filter, &packet, direction, after(0)),
                    Err(DropReason::Denied),
                    "{family:?} {direction:?}"
                );
            }
        }
        assert_eq!(filter.flow_count(), 0);
    }
}

#[test]
fn an_allow_is_for_one_direction_and_one_port() {
    for family in FAMILIES {
        let (filter, _) = filter(&[(In, 443)]);
        assert_eq!(
            check(&filter, &family.tcp((2, 1000), (1, 443), SYN), In, after(0)),
            Ok(())
        );
        assert_eq!(
            check(&filter, &family.tcp((2, 1000), (1, 22), SYN), In, after(0)),
            Err(DropReason::Denied)
        );
        assert_eq!(
            check(
                &filter,
                &family.tcp((1, 1000), (2, 443), SYN),
                Out,
                after(0)
            ),
            Err(DropReason::Denied)
        );
    }
}

#[test]
fn answers_pass_because_their_flow_does() {
    for family in FAMILIES {
        let (filter, ports) = filter(&[(In, 443), (Out, 53), (In, 0)]);
        for (packet, direction) in [
            (family.tcp((2, 1000), (1, 443), SYN), In),
            (family.tcp((1, 443), (2, 1000), SYN | ACK), Out),
            (family.tcp((2, 1000), (1, 443), ACK), In),
            (family.udp((1, 2000), (2, 53)), Out),
            (family.udp((2, 53), (1, 2000)), In),
            (family.echo(2, 1, family.icmp_types()[0], 7), In),
            (family.echo(1, 2, family.icmp_types()[1], 7), Out),
        ] {
            assert_eq!(
                check(&filter, &packet, direction, after(0)),
                Ok(()),
                "{family:?}"
            );
        }
        assert_eq!(ports.asked.load(Ordering::Relaxed), 3, "once per flow");
        assert_eq!(filter.flow_count(), 3);
    }
}

#[test]
fn an_answer_of_another_peer_does_not_pass() {
    let (filter, _) = filter(&[(Out, 53)]);
    check(&filter, &Family::V4.udp((1, 2000), (2, 53)), Out, after(0)).unwrap();
    let other = Party {
        peer: PeerId(2),
        ..PARTY
    };
    let answer = Family::V4.udp((2, 53), (1, 2000));
    assert_eq!(
        filter.checker(after(0)).check(&answer, other, In),
        Err(DropReason::Denied)
    );
}

#[test]
fn tcp_without_syn_opens_nothing() {
    for family in FAMILIES {
        let (filter, ports) = filter(&[(In, 443)]);
        for flags in [0, ACK, SYN | ACK, SYN | FIN, SYN | RST, RST, FIN, FIN | ACK] {
            let packet = family.tcp((2, 1000), (1, 443), flags);
            assert_eq!(
                check(&filter, &packet, In, after(0)),
                Err(DropReason::NoFlow),
                "{flags:#x}"
            );
        }
        assert_eq!(ports.asked.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn only_requests_of_the_opener_and_replies_to_it_are_part_of_an_echo() {
    for family in FAMILIES {
        let [request, reply, _, other] = family.icmp_types();
        let (filter, _) = filter(&[(In, 0)]);
        assert_eq!(
            check(&filter, &family.echo(2, 1, reply, 7), In, after(0)),
            Err(DropReason::NoFlow)
        );
        assert_eq!(
            check(&filter, &family.echo(2, 1, request, 7), In, after(0)),
            Ok(())
        );
        assert_eq!(
            check(&filter, &family.echo(1, 2, request, 7), Out, after(0)),
            Err(DropReason::NoFlow)
        );
        assert_eq!(
            check(&filter, &family.echo(2, 1, reply, 7), In, after(0)),
            Err(DropReason::NoFlow)
        );
        assert_eq!(
            check(&filter, &family.echo(1, 2, reply, 8), Out, after(0)),
            Err(DropReason::NoFlow)
        );
        assert_eq!(
            check(&filter, &family.echo(2, 1, other, 7), In, after(0)),
            Err(DropReason::Icmp)
        );
    }
}

#[test]
fn an_icmp_error_passes_only_about_a_known_flow_and_to_its_sender() {
    for family in FAMILIES {
        let (filter, _) = filter(&[(Out, 53)]);
        let query = family.udp((1, 2000), (2, 53));
        let error = family.error(2, 1, &query);
        assert_eq!(check(&filter, &error, In, after(0)), Err(DropReason::Icmp));
        check(&filter, &query, Out, after(0)).unwrap();
        assert_eq!(check(&filter, &error, In, after(0)), Ok(()), "{family:?}");
        // A router on the way may send it, and it may quote the header only.
        assert_eq!(
            check(
                &filter,
                &family.error(9, 1, &query[..query.len() - 4]),
                In,
                after(0)
            ),
            Ok(())
        );
        assert_eq!(
            check(&filter, &error, Out, after(0)),
            Err(DropReason::Icmp),
            "wrong way"
        );
        assert_eq!(
            check(&filter, &family.error(2, 3, &query), In, after(0)),
            Err(DropReason::Icmp),
            "other host"
        );
        let unknown = family.udp((1, 2001), (2, 53));
        assert_eq!(
            check(&filter, &family.error(2, 1, &unknown), In, after(0)),
            Err(DropReason::Icmp)
        );
        assert_eq!(
            check(&filter, &family.error(2, 1, &query[..10]), In, after(0)),
            Err(DropReason::Icmp)
        );
        filter.cut(PARTY.peer);
        assert_eq!(
            check(&filter, &error, In, after(0)),
            Err(DropReason::Icmp),
            "after the cut"
        );
    }
}

#[test]
fn a_new_policy_ends_an_established_flow_at_its_next_packet() {
    for family in FAMILIES {
        let (filter, ports) = filter(&[(In, 443)]);
        let packets = [
            (family.tcp((2, 1000), (1, 443), SYN), In),
            (family.tcp((1, 443), (2, 1000), ACK), Out),
        ];
        for (packet, direction) in &packets {
            check(&filter, packet, *direction, after(0)).unwrap();
        }
        ports.open.lock().clear();
        assert_eq!(
            check(&filter, &packets[1].0, Out, after(0)),
            Ok(()),
            "same policy"
        );
        filter.set_policy_epoch(2);
        assert_eq!(
            check(&filter, &packets[1].0, Out, after(0)),
            Err(DropReason::Denied)
        );
        assert_eq!(
            check(&filter, &family.tcp((2, 1000), (1, 443), ACK), In, after(0)),
            Err(DropReason::NoFlow)
        );
        assert_eq!(filter.flow_count(), 0);
    }
}

#[test]
fn a_new_policy_that_still_allows_keeps_the_flow() {
    let (filter, ports) = filter(&[(In, 443)]);
    let family = Family::V4;
    check(&filter, &family.tcp((2, 1000), (1, 443), SYN), In, after(0)).unwrap();
    filter.set_policy_epoch(2);
    assert_eq!(
        check(&filter, &family.tcp((2, 1000), (1, 443), ACK), In, after(0)),
        Ok(())
    );
    assert_eq!(
        check(&filter, &family.tcp((2, 1000), (1, 443), ACK), In, after(0)),
        Ok(())
    );
    assert_eq!(ports.asked.load(Ordering::Relaxed), 2);
}

#[test]
fn a_verdict_ends_at_its_time_even_if_the_flow_is_established() {
    let (filter, ports) = filter(&[(In, 443)]);
    *ports.valid_until.lock() = Some(after(10));
    let family = Family::V6;
    let data = family.tcp((2, 1000), (1, 443), ACK);
    check(&filter, &family.tcp((2, 1000), (1, 443), SYN), In, after(0)).unwrap();
    assert_eq!(check(&filter, &data, In, after(9)), Ok(()));
    assert_eq!(
        check(&filter, &data, In, after(10)),
        Err(DropReason::Denied),
        "an allow that is over is none"
    );
    assert_eq!(
        check(&filter, &data, In, after(10)),
        Err(DropReason::NoFlow)
    );
    check(
        &filter,
        &family.tcp((2, 1000), (1, 443), SYN),
        In,
        after(11),
    )
    .unwrap_err();
    *ports.valid_until.lock() = Some(after(20));
    check(
        &filter,
        &family.tcp((2, 1000), (1, 443), SYN),
        In,
        after(14),
    )
    .unwrap();
    *ports.valid_until.lock() = Some(after(30));
    assert_eq!(check(&filter, &data, In, after(20)), Ok(()), "renewed");
}

#[test]
fn an_arming_voids_the_verdicts_of_the_one_before() {
    let (filter, ports) = filter(&[(In, 443)]);
    let family = Family::V4;
    check(&filter, &family.tcp((2, 1000), (1, 443), SYN), In, after(0)).unwrap();
    let data = family.tcp((2, 1000), (1, 443), ACK);
    let again = |generation| {
        let party = Party {
            generation,
            ..PARTY
        };
        filter.checker(after(0)).check(&data, party, In)
    };
    assert_eq!(again(11), Ok(()), "asked again, and still allowed");
    assert_eq!(again(11), Ok(()));
    assert_eq!(ports.asked.load(Ordering::Relaxed), 2);
    ports.open.lock().clear();
    assert_eq!(again(12), Err(DropReason::Denied));
    assert_eq!(again(11), Err(DropReason::NoFlow));
    assert_eq!(filter.flow_count(), 0);
}

#[test]
fn a_cut_forgets_the_flows_of_one_peer_only() {
    let (filter, _) = filter(&[(In, 443)]);
    let other = Party {
        peer: PeerId(2),
        ..PARTY
    };
    let packet = Family::V4.tcp((2, 1000), (1, 443), SYN);
    check(&filter, &packet, In, after(0)).unwrap();
    filter.checker(after(0)).check(&packet, other, In).unwrap();
    assert_eq!(filter.cut(PARTY.peer), 1);
    assert_eq!(filter.flow_count(), 1);
    assert_eq!(filter.flows()[0].peer, PeerId(2));
    assert_eq!(filter.cut(PARTY.peer), 0);
}

#[test]
fn flows_to_one_port_are_forgotten_and_do_not_go_on() {
    let (filter, _) = filter(&[(In, 443), (In, 80), (Out, 443)]);
    for (packet, direction) in [
        (Family::V4.tcp((2, 1000), (1, 443), SYN), In),
        (Family::V4.tcp((2, 1001), (1, 80), SYN), In),
        (Family::V4.tcp((1, 1002), (2, 443), SYN), Out),
    ] {
        check(&filter, &packet, direction, after(0)).unwrap();
    }
    assert_eq!(filter.forget_inward(6, 443), 1);
    let later = |packet: Vec<u8>, direction| check(&filter, &packet, direction, after(1));
    let goes_on = Family::V4.tcp((2, 1000), (1, 443), ACK);
    assert_eq!(later(goes_on, In), Err(DropReason::NoFlow));
    let answer = Family::V4.tcp((1, 443), (2, 1000), ACK);
    assert_eq!(later(answer, Out), Err(DropReason::NoFlow));
    assert_eq!(later(Family::V4.tcp((2, 1001), (1, 80), ACK), In), Ok(()));
    assert_eq!(later(Family::V4.tcp((2, 443), (1, 1002), ACK), In), Ok(()));
    assert_eq!(filter.forget_inward(17, 80), 0);
}

#[test]
fn idle_flows_expire_and_closed_ones_sooner() {
    for family in FAMILIES {
        let (filter, ports) = filter(&[(In, 443), (In, 53)]);
        let syn = family.tcp((2, 1000), (1, 443), SYN);
        let data = family.tcp((2, 1000), (1, 443), ACK);
        check(&filter, &syn, In, after(0)).unwrap();
        assert_eq!(
            check(&filter, &data, In, after(60)),
            Err(DropReason::NoFlow),
            "never answered"
        );
        check(&filter, &syn, In, after(100)).unwrap();
        check(
            &filter,
            &family.tcp((1, 443), (2, 1000), SYN | ACK),
            Out,
            after(100),
        )
        .unwrap();
        assert_eq!(check(&filter, &data, In, after(7000)), Ok(()));
        check(
            &filter,
            &family.tcp((2, 1000), (1, 443), RST),
            In,
            after(7001),
        )
        .unwrap();
        assert_eq!(
            check(&filter, &data, In, after(7031)),
            Err(DropReason::NoFlow)
        );
        // A closed flow's ports may be used again at once, by a new decision.
        let asked = ports.asked.load(Ordering::Relaxed);
        check(&filter, &syn, In, after(7040)).unwrap();
        check(
            &filter,
            &family.tcp((2, 1000), (1, 443), RST),
            In,
            after(7041),
        )
        .unwrap();
        check(&filter, &syn, In, after(7042)).unwrap();
        assert_eq!(ports.asked.load(Ordering::Relaxed), asked + 2);
        check(&filter, &family.udp((2, 1000), (1, 53)), In, after(8000)).unwrap();
        filter.expire(after(20_000));
        assert_eq!(filter.flow_count(), 0);
    }
}

#[test]
fn a_syn_from_the_other_side_is_a_flow_of_its_own() {
    let (filter, _) = filter(&[(In, 443)]);
    let family = Family::V4;
    check(&filter, &family.tcp((2, 1000), (1, 443), SYN), In, after(0)).unwrap();
    assert_eq!(
        check(
            &filter,
            &family.tcp((1, 443), (2, 1000), SYN),
            Out,
            after(0)
        ),
        Err(DropReason::Denied)
    );
}

#[test]
fn a_peer_cannot_fill_the_table() {
    let (filter, _) = filter(&[(In, 443)]);
    let mut checker = filter.checker(after(0));
    let mut packet = Family::V4.tcp((2, 0), (1, 443), SYN);
    let mut passed = 0;
    for port in 0..=u16::MAX {
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        match checker.check(&packet, PARTY, In) {
            Ok(()) => passed += 1,
            Err(drop) => assert_eq!(drop, DropReason::Full),
        }
    }
    assert_eq!(passed, MAX_FLOWS_PER_PEER);
    let other = Party {
        peer: PeerId(2),
        ..PARTY
    };
    assert_eq!(
        checker.check(&packet, other, In),
        Ok(()),
        "another peer has its own share"
    );
    drop(checker);
    assert_eq!(
        check(&filter, &packet, In, after(61)),
        Ok(()),
        "expired flows make room"
    );
}

#[test]
fn a_scan_is_denied_without_growing_anything() {
    let (filter, _) = filter(&[(In, 443)]);
    let mut checker = filter.checker(after(0));
    let mut packet = Family::V4.tcp((2, 9), (1, 0), SYN);
    for port in (0..=u16::MAX).filter(|port| *port != 443) {
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        assert_eq!(checker.check(&packet, PARTY, In), Err(DropReason::Denied));
    }
    drop(checker);
    assert_eq!(
        check(
            &filter,
            &Family::V4.tcp((2, 9), (1, 443), SYN),
            In,
            after(0)
        ),
        Ok(())
    );
    let (denials, lost) = filter.take_denials();
    assert_eq!(denials.len(), MAX_DENIALS);
    assert_eq!(lost, 65_535 - MAX_DENIALS as u64);
    assert_eq!(filter.dropped(DropReason::Denied), 65_535);
}

#[test]
fn a_remembered_denial_is_not_asked_again_until_policy_changes() {
    let (filter, ports) = filter(&[]);
    let packet = Family::V6.udp((2, 1000), (1, 53));
    for _ in 0..100 {
        assert_eq!(
            check(&filter, &packet, In, after(0)),
            Err(DropReason::Denied)
        );
    }
    assert_eq!(ports.asked.load(Ordering::Relaxed), 1);
    ports.open.lock().push((In, 53));
    filter.set_policy_epoch(1);
    assert_eq!(check(&filter, &packet, In, after(0)), Ok(()));
}

#[test]
fn denials_are_aggregated_over_source_ports() {
    let (filter, _) = filter(&[]);
    for port in 0..50 {
        check(
            &filter,
            &Family::V4.tcp((2, port), (1, 22), SYN),
            In,
            after(port.into()),
        )
        .unwrap_err();
    }
    let (denials, lost) = filter.take_denials();
    assert_eq!((denials.len(), lost), (1, 0));
    let denial = &denials[0];
    assert_eq!(
        (denial.count, denial.destination_port, &*denial.rule),
        (50, 22, "default")
    );
    assert_eq!((denial.first, denial.last), (after(0), after(49)));
    assert_eq!(filter.take_denials(), (vec![], 0));
}

#[test]
fn rules_are_counted() {
    let (filter, _) = filter(&[(In, 443)]);
    let packet = Family::V4.tcp((2, 1000), (1, 443), SYN);
    check(&filter, &packet, In, after(0)).unwrap();
    check(&filter, &packet, In, after(0)).unwrap();
    check(
        &filter,
        &Family::V4.tcp((2, 1000), (1, 22), SYN),
        In,
        after(0),
    )
    .unwrap_err();
    let counts = filter.rule_counts();
    let of = |rule: &str| counts.iter().find(|count| &*count.rule == rule).unwrap();
    let open = of("open-ports");
    assert_eq!(
        (open.flows, open.packets, open.bytes, open.denied),
        (1, 2, 80, 0)
    );
    assert_eq!(of("default").denied, 1);
}

#[test]
fn later_fragments_pass_only_after_their_first_one() {
    for family in FAMILIES {
        let (filter, _) = filter(&[(In, 53)]);
        let first = family.fragment(
            17,
            77,
            0,
            true,
            &[&udp_header(1000, 53)[..], &[0; 12]].concat(),
        );
        let later = family.fragment(17, 77, 3, false, &[0; 24]);
        assert_eq!(
            check(&filter, &later, In, after(0)),
            Err(DropReason::Fragment),
            "{family:?}"
        );
        assert_eq!(check(&filter, &first, In, after(0)), Ok(()));
        assert_eq!(check(&filter, &later, In, after(0)), Ok(()));
        assert_eq!(
            check(&filter, &later, Out, after(0)),
            Err(DropReason::Fragment)
        );
        let foreign = family.fragment(17, 78, 3, false, &[0; 24]);
        assert_eq!(
            check(&filter, &foreign, In, after(0)),
            Err(DropReason::Fragment)
        );
        assert_eq!(
            check(&filter, &later, In, after(6)),
            Err(DropReason::Fragment),
            "too late"
        );
        let denied = family.fragment(
            17,
            79,
            0,
            true,
            &[&udp_header(1000, 54)[..], &[0; 12]].concat(),
        );
        assert_eq!(
            check(&filter, &denied, In, after(0)),
            Err(DropReason::Denied)
        );
        let rest = family.fragment(17, 79, 3, false, &[0; 24]);
        assert_eq!(
            check(&filter, &rest, In, after(0)),
            Err(DropReason::Fragment)
        );
        check(&filter, &first, In, after(10)).unwrap();
        filter.cut(PARTY.peer);
        assert_eq!(
            check(&filter, &later, In, after(10)),
            Err(DropReason::Fragment),
            "after the cut"
        );
    }
}

#[test]
fn fragments_that_hide_a_header_are_malformed() {
    for family in FAMILIES {
        let header = tcp_header(1000, 443, SYN);
        let tiny = family.fragment(6, 1, 0, true, &header[..16]);
        assert_eq!(
            packet::parse(&tiny),
            Err(Malformed::TinyFragment),
            "{family:?}"
        );
        let overlapping = family.fragment(6, 1, 1, false, &[0; 24]);
        assert_eq!(
            packet::parse(&overlapping),
            Err(Malformed::OverlappingFragment)
        );
    }
}

#[test]
fn every_kind_of_malformed_packet_is_refused() {
    let good = Family::V4.tcp((2, 1000), (1, 443), SYN);
    let good6 = Family::V6.tcp((2, 1000), (1, 443), SYN);
    let change = |packet: &[u8], at: usize, value: u8| {
        let mut packet = packet.to_vec();
        packet[at] = value;
        packet
    };
    let extension = |kind: u8| Family::V6.packet(2, 1, kind, &[6, 0, 0, 0, 0, 0, 0, 0]);
    let chain = Family::V6.packet(2, 1, 0, &[0u8; 8].repeat(20));
    for (packet, expected) in [
        (vec![], Malformed::Short),
        (good[..19].to_vec(), Malformed::Short),
        (change(&good, 0, 0x55), Malformed::Version(5)),
        (change(&good, 0, 0x46), Malformed::Options),
        (change(&good, 3, 41), Malformed::Length),
        (change(&good, 3, 10), Malformed::Length),
        (good6[..39].to_vec(), Malformed::Short),
        (change(&good6, 5, 21), Malformed::Length),
        (extension(43), Malformed::Extension(43)),
        (extension(51), Malformed::Extension(51)),
        (extension(59), Malformed::Extension(59)),
        (chain, Malformed::TooManyExtensions),
        (Family::V4.packet(2, 1, 6, &[0; 19]), Malformed::Short),
        (Family::V6.packet(2, 1, 17, &[0; 7]), Malformed::Short),
    ] {
        assert_eq!(packet::parse(&packet), Err(expected), "{packet:02x?}");
    }
    let (filter, _) = filter(&[(In, 443)]);
    assert_eq!(
        check(&filter, &good[..30], In, after(0)),
        Err(DropReason::Malformed)
    );
    assert_eq!(filter.dropped(DropReason::Malformed), 1);
}

#[test]
fn the_transport_header_is_found_behind_extension_headers() {
    let mut payload = vec![60, 0, 0, 0, 0, 0, 0, 0];
    payload.extend_from_slice(&[17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    payload.extend_from_slice(&udp_header(1000, 53));
    let parsed = packet::parse(&Family::V6.packet(2, 1, 0, &payload)).unwrap();
    assert_eq!((parsed.key.protocol, parsed.key.destination_port), (17, 53));
}

#[test]
fn icmp_of_the_other_family_is_never_passed() {
    let (filter, _) = filter(&[(In, 0)]);
    let in_v4 = ip(
        Family::V4.ip(2),
        Family::V4.ip(1),
        58,
        &[128, 0, 0, 0, 0, 7, 0, 1],
    );
    let in_v6 = ip(
        Family::V6.ip(2),
        Family::V6.ip(1),
        1,
        &[8, 0, 0, 0, 0, 7, 0, 1],
    );
    for packet in [in_v4, in_v6] {
        assert_eq!(check(&filter, &packet, In, after(0)), Err(DropReason::Icmp));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_the_filter(bytes in proptest::collection::vec(any::<u8>(), 0..200), version in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()]) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        // Half of the time with an honest length, so that the parser goes on.
        if version == 0x45 && bytes.len() >= 20 && bytes.len() % 2 == 0 {
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            bytes[2..4].copy_from_slice(&length);
        }
        if version == 0x60 && bytes.len() >= 40 && bytes.len() % 2 == 0 {
            let length = u16::try_from(bytes.len() - 40).unwrap().to_be_bytes();
            bytes[4..6].copy_from_slice(&length);
        }
        let (filter, _) = filter(&[]);
        let _dropped = check(&filter, &bytes, In, after(0));
        let _dropped = check(&filter, &bytes, Out, after(0));
        let _malformed = packet::parse_quoted(&bytes);
        prop_assert_eq!(filter.flow_count(), 0);
    }

    /// Whatever is sent to an inbound-only port, nothing but answers ever leaves.
    #[test]
    fn only_answers_leave(packets in proptest::collection::vec((0u16..4, 0u16..4, any::<u8>(), any::<bool>()), 1..200)) {
        let (filter, _) = filter(&[(In, 1)]);
        let mut opened = std::collections::HashSet::new();
        for (ours, theirs, flags, inwards) in packets {
            let (packet, direction) = if inwards {
                (Family::V4.tcp((2, theirs), (1, ours), flags), In)
            } else {
                (Family::V4.tcp((1, ours), (2, theirs), flags), Out)
            };
            let passed = check(&filter, &packet, direction, after(0)).is_ok();
            if passed && inwards && flags & (SYN | ACK | RST | FIN) == SYN {
                prop_assert_eq!(ours, 1);
                opened.insert(theirs);
            }
            if passed {
                prop_assert!(ours == 1 && opened.contains(&theirs));
            }
        }
    }
}

const MOVED: Party = Party {
    peer: PeerId(1),
    generation: 77,
};

fn generation(party: Party) -> impl Fn(PeerId) -> Option<u64> {
    move |peer| (peer == party.peer).then_some(party.generation)
}

fn handed_over(from: &Filter, to: &Filter, now: BootTime) -> usize {
    let moved = from.export(now, generation(PARTY));
    let read = MovedFlows::decode(&moved.encode()).unwrap();
    assert_eq!(read, moved);
    to.import(read, now, generation(MOVED))
}

#[test]
fn a_flow_goes_on_in_another_process_without_a_syn_and_without_being_asked_about() {
    for family in FAMILIES {
        let (old, _) = filter(&[(Direction::Out, 80)]);
        let (new, asked) = filter(&[]);
        let syn = family.tcp((2, 5000), (3, 80), SYN);
        let data = family.tcp((2, 5000), (3, 80), ACK);
        let answer = family.tcp((3, 80), (2, 5000), ACK);
        let mut checker = old.checker(after(0));
        checker.check(&syn, PARTY, Direction::Out).unwrap();
        checker.check(&answer, PARTY, Direction::In).unwrap();
        drop(checker);
        assert_eq!(handed_over(&old, &new, after(1)), 0);
        let mut checker = new.checker(after(2));
        checker.check(&data, MOVED, Direction::Out).unwrap();
        checker.check(&answer, MOVED, Direction::In).unwrap();
        // Whoever was not in the middle of it opens nothing by that.
        let other = family.tcp((2, 5001), (3, 80), ACK);
        assert_eq!(
            checker.check(&other, MOVED, Direction::Out),
            Err(DropReason::NoFlow)
        );
        drop(checker);
        assert_eq!(asked.asked.load(Ordering::Relaxed), 0);
        let [flow] = &new.flows()[..] else {
            panic!("{:?}", new.flows());
        };
        assert_eq!((flow.packets, &*flow.rule), (4, "open-ports"));
    }
}

#[test]
fn a_moved_verdict_ends_with_its_time_its_policy_and_its_peer() {
    let verdict_ends = after(30);
    let (syn, data) = (
        Family::V6.tcp((2, 5000), (3, 80), SYN),
        Family::V6.tcp((2, 5000), (3, 80), ACK),
    );
    let moved = || {
        let (old, ports) = filter(&[(Direction::Out, 80)]);
        *ports.valid_until.lock() = Some(verdict_ends);
        old.checker(after(0))
            .check(&syn, PARTY, Direction::Out)
            .unwrap();
        let (new, _) = filter(&[]);
        handed_over(&old, &new, after(1));
        new
    };
    let passes =
        |filter: &Filter, now, party| filter.checker(now).check(&data, party, Direction::Out);
    assert_eq!(passes(&moved(), after(2), MOVED), Ok(()));
    assert_eq!(
        passes(&moved(), verdict_ends, MOVED),
        Err(DropReason::Denied)
    );
    let later = Party {
        generation: 78,
        ..MOVED
    };
    assert_eq!(passes(&moved(), after(2), later), Err(DropReason::Denied));
    let new = moved();
    new.set_policy_epoch(1);
    assert_eq!(passes(&new, after(2), MOVED), Err(DropReason::Denied));
    let new = moved();
    assert_eq!(new.cut(PeerId(1)), 1);
    assert_eq!(passes(&new, after(2), MOVED), Err(DropReason::NoFlow));
}

#[test]
fn what_is_denied_by_now_or_was_always_is_not_moved() {
    let (old, ports) = filter(&[(Direction::Out, 80), (Direction::Out, 81)]);
    let mut checker = old.checker(after(0));
    for port in [80, 81] {
        let packet = Family::V4.udp((2, 5000), (3, port));
        checker.check(&packet, PARTY, Direction::Out).unwrap();
    }
    let denied = Family::V4.udp((2, 5000), (3, 82));
    assert!(checker.check(&denied, PARTY, Direction::Out).is_err());
    drop(checker);
    ports.open.lock().retain(|(_, port)| *port == 81);
    old.set_policy_epoch(1);
    let moved = old.export(after(1), generation(PARTY));
    assert_eq!(moved.len(), 1);
    // A peer that sleeps keeps what it had, to be asked about when it is bound.
    let asleep = old.export(after(1), |_| None);
    assert_eq!(asleep.len(), 2);
    let (new, asked) = filter(&[(Direction::Out, 80)]);
    assert_eq!(new.import(asleep, after(2), generation(MOVED)), 0);
    let packet = Family::V4.udp((2, 5000), (3, 81));
    assert_eq!(
        new.checker(after(2)).check(&packet, MOVED, Direction::Out),
        Err(DropReason::Denied)
    );
    assert_eq!(asked.asked.load(Ordering::Relaxed), 1);
}

#[test]
fn bytes_that_are_no_moved_flows_are_refused() {
    let (old, _) = filter(&[(Direction::Out, 80)]);
    let packet = Family::V6.udp((2, 5000), (3, 80));
    old.checker(after(0))
        .check(&packet, PARTY, Direction::Out)
        .unwrap();
    let good = old.export(after(1), generation(PARTY)).encode();
    assert!(MovedFlows::decode(&good).is_ok());
    for length in 0..good.len() {
        assert!(MovedFlows::decode(&good[..length]).is_err(), "{length}");
    }
    assert!(MovedFlows::decode(&[&good[..], &[0]].concat()).is_err());
    let version = [&[2], &good[1..]].concat();
    assert!(MovedFlows::decode(&version).is_err());
    let many = [&[1][..], &u32::MAX.to_le_bytes(), &[0; 64]].concat();
    assert!(MovedFlows::decode(&many).is_err());
}

#[test]
fn a_peer_brings_no_more_flows_than_it_may_have() {
    let (old, _) = filter(&[(Direction::Out, 80)]);
    let packet = Family::V6.udp((2, 5000), (3, 80));
    old.checker(after(0))
        .check(&packet, PARTY, Direction::Out)
        .unwrap();
    let mut moved = old.export(after(1), generation(PARTY));
    let [flow] = moved.flows[..] else {
        panic!("{moved:?}");
    };
    for port in 0..u16::try_from(MAX_FLOWS_PER_PEER).unwrap() {
        let mut another = flow;
        another.key.source_port = 10_000 + port;
        moved.flows.push(another);
    }
    let (new, _) = filter(&[]);
    assert_eq!(new.import(moved, after(1), generation(MOVED)), 1);
    assert_eq!(new.flow_count(), MAX_FLOWS_PER_PEER as usize);
}
