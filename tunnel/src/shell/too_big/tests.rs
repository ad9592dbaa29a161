use proptest::prelude::*;

use super::*;

/// An IPv4 packet with a TCP header's first bytes.
fn v4(length: usize, fragments: u16) -> Vec<u8> {
    let mut packet = vec![0x17; length];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    packet[6..8].copy_from_slice(&fragments.to_be_bytes());
    packet[9] = 6;
    packet[12..16].copy_from_slice(&[10, 99, 0, 1]);
    packet[16..20].copy_from_slice(&[10, 99, 0, 2]);
    packet
}

fn v6(length: usize, next: u8, kind: u8) -> Vec<u8> {
    let mut packet = vec![0x17; length];
    packet[0] = 0x60;
    packet[6] = next;
    packet[8..24].copy_from_slice(&[0xfd; 16]);
    packet[24..40].copy_from_slice(&[0xfe; 16]);
    packet[40] = kind;
    packet
}

fn answer(packet: &[u8], largest: usize) -> Option<Vec<u8>> {
    let mut out = vec![0; MAX_ANSWER_BYTES];
    let length = answer_to(packet, largest, &mut out)?;
    out.truncate(length);
    Some(out)
}

const DONT_FRAGMENT: u16 = 0x4000;

#[test]
fn what_must_not_be_answered_is_not() {
    assert!(answer(&v4(1400, DONT_FRAGMENT), 1400).is_none(), "fits");
    assert!(answer(&v4(1400, 0), 1200).is_none(), "may be fragmented");
    assert!(
        answer(&v4(1400, DONT_FRAGMENT | 7), 1200).is_none(),
        "not the first fragment"
    );
    let mut error = v4(1400, DONT_FRAGMENT);
    error[9] = ICMP;
    error[20] = 3;
    assert!(answer(&error, 1200).is_none(), "an error about an error");
    error[20] = 8;
    assert!(answer(&error, 1200).is_some(), "but about an echo request");
    for first in [0, 127, 224, 239, 255] {
        for place in [12, 16] {
            let mut packet = v4(1400, DONT_FRAGMENT);
            packet[place] = first;
            assert!(answer(&packet, 1200).is_none(), "{first} at {place}");
        }
    }
    assert!(
        answer(&v6(1280, 6, 0), 1000).is_none(),
        "IPv6 passes 1280 everywhere"
    );
    assert!(
        answer(&v6(1400, ICMPV6, 1), 1300).is_none(),
        "an error about an error"
    );
    assert!(answer(&v6(1400, ICMPV6, 128), 1300).is_some());
    let mut nobody = v6(1400, 6, 0);
    nobody[8..24].fill(0);
    assert!(answer(&nobody, 1300).is_none(), "from nobody");
    assert!(answer(&[], 1300).is_none());
    assert!(answer(&[0x45; 10], 5).is_none());
}

#[test]
fn ipv4_is_told_fragmentation_needed() {
    let packet = v4(1420, DONT_FRAGMENT);
    let answer = answer(&packet, 1368).unwrap();
    assert_eq!(answer.len(), MAX_ICMPV4_BYTES);
    assert!(Sum::default().with(&answer[..20]).is_valid());
    assert!(Sum::default().with(&answer[20..]).is_valid());
    assert_eq!(answer[12..16], packet[16..20]);
    assert_eq!(answer[16..20], packet[12..16]);
    assert_eq!(answer[20..22], [3, 4]);
    assert_eq!(answer[26..28], 1368u16.to_be_bytes());
    assert_eq!(answer[28..], packet[..answer.len() - 28]);
}

#[test]
fn ipv6_is_told_packet_too_big_and_never_less_than_1280() {
    let packet = v6(1420, 17, 0);
    for (largest, told) in [(1368, 1368u32), (1200, 1280)] {
        let answer = answer(&packet, largest).unwrap();
        assert_eq!(answer.len(), MAX_ANSWER_BYTES);
        assert!(
            pseudo_header(&answer[8..40], ICMPV6, answer.len() - 40)
                .with(&answer[40..])
                .is_valid()
        );
        assert_eq!(answer[8..24], packet[24..40]);
        assert_eq!(answer[40..42], [2, 0]);
        assert_eq!(answer[44..48], told.to_be_bytes());
        assert_eq!(answer[48..], packet[..answer.len() - 48]);
    }
}

#[test]
fn answers_are_budgeted_and_come_back_with_time() {
    let at = |millis| BootTime::from_duration(Duration::from_millis(millis));
    let mut answers = Answers::default();
    let mut spend = |now| {
        let may = answers.may_answer(now);
        if may {
            answers.budget -= 1;
        }
        may
    };
    let first = (0..1000).filter(|_| spend(at(1000))).count();
    assert_eq!(first, BURST as usize);
    assert!(!spend(at(1009)));
    assert!(spend(at(1010)), "one more after 10 ms");
    assert!(!spend(at(1010)));
    let later = (0..1000).filter(|_| spend(at(1_000_000))).count();
    assert_eq!(later, BURST as usize, "never more than the burst");
}

proptest! {
    #[test]
    fn no_packet_panics_and_no_answer_is_longer_than_it_may_be(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        six in any::<bool>(),
        largest in 0usize..2000,
        room in 0usize..1400,
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = if six { 0x60 } else { 0x40 | (*first & 0x0f) };
        }
        let mut out = vec![0; room];
        if let Some(length) = answer_to(&bytes, largest, &mut out) {
            prop_assert!(length <= room && length < bytes.len() + 48);
        }
    }
}
