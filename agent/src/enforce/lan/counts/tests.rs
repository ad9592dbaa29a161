use proptest::prelude::*;

use super::super::testing::{PLC_MAC, spot};
use super::*;

fn seen(last: u8) -> Seen {
    Seen {
        at: spot(502),
        mac: PLC_MAC,
        ip: [192, 0, 2, last].into(),
    }
}

fn count(packets: u64) -> Count {
    Count {
        packets,
        bytes: packets * 60,
    }
}

#[test]
fn what_nft_lists_is_read() {
    let json = br#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {"family": "inet", "name": "refused4",
        "elem": [{"elem": {"val": {"concat": ["eth1.100", "tcp", 502, "02:00:00:00:00:11", "192.0.2.7"]},
        "counter": {"packets": 3, "bytes": 180}}}], "stmt": [{"counter": null}]}}]}"#;
    let read = by_source(json).unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].0.at.device.as_str(), "eth1.100");
    assert_eq!(read[0].0.mac, PLC_MAC);
    assert_eq!(read[0].1, count(3));
    let json = br#"{"nftables": [{"set": {"name": "dropped", "elem": [{"elem": {"val": {"concat": ["eth1", "udp", 53]},
        "counter": {"packets": 1, "bytes": 60}}}]}}]}"#;
    let read = by_spot(json).unwrap();
    assert_eq!((read[0].0.proto, read[0].0.port), (Proto::Udp, 53));
    assert_eq!(
        by_source(br#"{"nftables": [{"set": {"name": "passed6"}}]}"#).unwrap(),
        []
    );
}

#[test]
fn what_nft_would_not_list_is_an_error() {
    let element = |concat: &str| {
        format!(
            r#"{{"nftables": [{{"set": {{"elem": [{{"elem": {{"val": {{"concat": {concat}}},
            "counter": {{"packets": 1, "bytes": 1}}}}}}]}}}}]}}"#
        )
    };
    for concat in [
        r#"["eth1", "tcp", 502]"#,
        r#"["eth1", "sctp", 502, "02:00:00:00:00:11", "192.0.2.7"]"#,
        r#"["eth1", "tcp", 70000, "02:00:00:00:00:11", "192.0.2.7"]"#,
        r#"["eth1", "tcp", 502, "02:00:00:00:00", "192.0.2.7"]"#,
        r#"["eth1", "tcp", 502, "02:00:00:00:00:11:22", "192.0.2.7"]"#,
        r#"["eth1", "tcp", 502, "02:00:00:00:00:11", "nowhere"]"#,
        r#"["e/h1", "tcp", 502, "02:00:00:00:00:11", "192.0.2.7"]"#,
    ] {
        assert_eq!(
            by_source(element(concat).as_bytes()),
            Err(BadListing),
            "{concat}"
        );
    }
    assert_eq!(by_spot(b"no json"), Err(BadListing));
}

#[test]
fn only_what_is_new_is_told() {
    let mut ledger = Ledger::default();
    let reading = |dropped, refused| Reading {
        dropped: vec![(spot(502), count(dropped))],
        refused: vec![(seen(1), count(refused))],
        passed: vec![(seen(2), count(5))],
    };
    let news = ledger.read(reading(3, 3));
    assert_eq!(news.refused, [(seen(1), count(3))]);
    assert_eq!(news.passed, [(seen(2), count(5))]);
    assert_eq!(news.others, []);
    assert_eq!(ledger.read(reading(3, 3)), News::default());
    let news = ledger.read(reading(9, 4));
    assert_eq!(news.refused, [(seen(1), count(1))]);
    assert_eq!(news.others, [(spot(502), 5)]);
}

proptest! {
    /// The kernel at work: packets of sources, some of which find no room; readings that see the sum earlier than its
    /// parts; sets emptied between two readings.
    #[test]
    fn every_drop_is_told_once_by_its_source_or_not(
        steps in prop::collection::vec((0_u8..6, 1_u64..5, 0_u8..4), 1..100),
    ) {
        let mut ledger = Ledger::default();
        let (mut dropped, mut refused) = (0, HashMap::<Seen, u64>::new());
        let mut told = 0;
        let tell = |news: News| {
            let by_source: u64 = news.refused.iter().map(|(_, count)| count.packets).sum();
            by_source + news.others.iter().map(|(_, more)| more).sum::<u64>()
        };
        let drop = |source: u8, packets: u64, dropped: &mut u64, refused: &mut HashMap<Seen, u64>| {
            *dropped += packets;
            if refused.len() < 3 || refused.contains_key(&seen(source)) {
                *refused.entry(seen(source)).or_default() += packets;
            }
        };
        for (source, packets, then) in steps {
            drop(source, packets, &mut dropped, &mut refused);
            if then == 0 {
                continue;
            }
            let sum = dropped;
            // Between the two halves of a reading.
            drop(source, 1, &mut dropped, &mut refused);
            let reading = Reading {
                dropped: vec![(spot(502), count(sum))],
                refused: refused.iter().map(|(seen, packets)| (seen.clone(), count(*packets))).collect(),
                passed: Vec::new(),
            };
            told += tell(ledger.read(reading));
            prop_assert!(told <= dropped);
            if then == 1 {
                drop(source, 1, &mut dropped, &mut refused);
                refused.clear();
                ledger.forget_refused();
            }
        }
        let reading = Reading {
            dropped: vec![(spot(502), count(dropped))],
            refused: refused.iter().map(|(seen, packets)| (seen.clone(), count(*packets))).collect(),
            passed: Vec::new(),
        };
        told += tell(ledger.read(reading));
        prop_assert_eq!(told, dropped);
    }
}
