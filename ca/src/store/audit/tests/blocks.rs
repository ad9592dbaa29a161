use std::collections::BTreeSet;

use edgeward_audit::record::Chain;

use super::*;
use crate::keys::sites::Site;

const SITES: [&str; 3] = ["alpha", "beta", "default"];

/// Puts the first two nodes each at a site of its own.
pub(super) async fn place_nodes(store: &Store) {
    let mut tx = store.begin("test").await.unwrap();
    for (number, site) in (0..).zip(SITES).take(2) {
        sqlx::query(
            "INSERT INTO nodes (name, status, tier, root, ak, labels, v4, token, enrolled, updated) \
             VALUES ($1, 'active', 'software', 'key:0', '', $2, $3, '', 0, 0)",
        )
        .bind(format!("gw-{number}"))
        .bind(format!("{{\"site\":\"{site}\"}}"))
        .bind(number)
        .execute(tx.connection())
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
}

async fn change(store: &Store, text: &'static str) {
    let mut tx = store.begin("test").await.unwrap();
    sqlx::query(text).execute(tx.connection()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn append(store: &Store, records: &[SealedRecord]) -> Result<(), StoreError> {
    let mut tx = store.begin("test").await?;
    tx.append_records(records, Timestamp::from_millis(T0))
        .await?;
    tx.commit().await
}

fn of_node(all: &[SealedRecord], number: u64) -> Vec<SealedRecord> {
    let same = all
        .iter()
        .filter(|record| record.record().node == node(number));
    same.cloned().collect()
}

fn first_limits() -> PageLimits {
    PageLimits {
        events: 1000,
        bytes: MAX_PAGE_BYTES,
        examined: MAX_EXAMINED,
    }
}

store_tests! {
    async fn no_record_is_stored_twice_wherever_it_stands(store) {
        let all = fill(&store, 30).await;
        let before = store.leaf_entries(0, 10_000).await.unwrap();
        for blocks in [0, 1024] {
            store.make_blocks(blocks).await;
            for number in 0..NODES {
                let records = of_node(&all, number);
                let last = records.len() - 1;
                for range in [0..=0, 0..=last, 5..=5, 9..=11, 100..=last, last..=last] {
                    let twice = append(&store, &records[range.clone()]).await;
                    assert!(matches!(twice, Err(StoreError::Exists)), "{range:?}: {twice:?}");
                }
            }
        }
        assert_eq!(store.leaf_entries(0, 10_000).await.unwrap().entries, before.entries);
        assert_eq!(before.entries, all.iter().map(SealedRecord::hash).collect::<Vec<_>>());
    }

    async fn records_that_do_not_follow_each_other_are_not_stored(store) {
        let all = fill(&store, 1).await;
        let records = of_node(&all, 0);
        let mut chain = Chain::resume(node(0), BootId::from_bytes([1; 16]), records.last().unwrap().head());
        let mut next = Vec::new();
        for _ in 0..3 {
            let event = Event::new(Timestamp::from_millis(T0), Actor::Cloud, EventKind::FlowAllowed);
            let record = chain.seal(event, Salt::from_bytes([7; 16])).unwrap();
            chain.advance(&record).unwrap();
            next.push(record);
        }
        let hole = [next[0].clone(), next[2].clone()];
        assert!(matches!(append(&store, &hole).await, Err(StoreError::Unreadable { .. })));
        let others = [next[0].clone(), of_node(&all, 1)[1].clone()];
        assert!(matches!(append(&store, &others).await, Err(StoreError::Unreadable { .. })));
        append(&store, &next).await.unwrap();
        assert_eq!(store.last_leaf().await.unwrap(), Some(all.len() as u64 + 2));
    }

    async fn every_record_is_found_by_its_place_in_its_journal(store) {
        let all = fill(&store, 30).await;
        for blocks in [0, 1024] {
            store.make_blocks(blocks).await;
            let mut tx = store.begin("test").await.unwrap();
            for (index, sealed) in all.iter().enumerate().step_by(7) {
                let record = sealed.record();
                let found = tx.record_hash(&record.node, record.boot, record.seq).await.unwrap();
                assert_eq!(found, Some(sealed.hash()));
                let prev = tx.record_prev(&record.node, record.boot, record.seq).await.unwrap();
                assert_eq!(prev, Some(record.prev));
                let index = index as u64;
                assert_eq!(store.entry_at(index).await.unwrap(), Some(sealed.hash()));
                let stored = store.event_at(index).await.unwrap().unwrap();
                assert_eq!((stored.index, stored.record.as_bytes()), (index, sealed.bytes()));
                assert_eq!(stored.received, Timestamp::from_millis(T0));
            }
            let end = of_node(&all, 0).len() as u64;
            let boot = BootId::from_bytes([1; 16]);
            assert_eq!(tx.record_hash(&node(0), boot, end).await.unwrap(), None);
            let other = BootId::from_bytes([2; 16]);
            assert_eq!(tx.record_hash(&node(0), other, 0).await.unwrap(), None);
        }
    }

    async fn leaves_are_read_without_a_hole_from_blocks_and_tail(store) {
        let all = fill(&store, 30).await;
        store.make_blocks(1000).await;
        let hashes: Vec<Digest> = all.iter().map(SealedRecord::hash).collect();
        for (first, limit) in [(0, 1), (0, 256), (255, 2), (700, 100), (767, 2), (768, 1), (800, 9999), (5000, 3)] {
            let leaves = store.leaf_entries(first, limit).await.unwrap();
            let expected: Vec<Digest> = hashes.iter().skip(first as usize).take(limit as usize).copied().collect();
            assert_eq!(leaves.entries, expected, "{first} {limit}");
        }
        for first in [0, 200, 768] {
            let leaves = store.leaf_records(first, 50).await.unwrap();
            for (index, leaf) in (first as usize..).zip(&leaves) {
                assert_eq!(leaf.hash, hashes[index]);
                assert_eq!(leaf.body, Body::Kept(all[index].bytes().to_vec()));
            }
            assert_eq!(leaves.len(), 50);
        }
    }

    async fn what_was_erased_is_gone_from_answers_and_stays_a_leaf(store) {
        place_nodes(&store).await;
        let all = fill(&store, 30).await;
        store.make_blocks(1000).await;
        let keys = store.site_keys().clone();
        let erased: BTreeSet<u64> = (0..)
            .zip(&all)
            .filter(|(_, record)| record.record().node == node(0))
            .map(|(index, _)| index)
            .collect();
        keys.erase(&Site::parse("alpha").unwrap(), Timestamp::from_millis(T0)).unwrap();
        let (mut found, mut after) = (BTreeSet::new(), None);
        loop {
            let page = store.find(&Filter::default(), after, first_limits()).await.unwrap();
            found.extend(page.events.iter().map(|event| event.index));
            after = page.reached;
            if !page.more {
                break;
            }
        }
        let all_leaves: BTreeSet<u64> = (0..all.len() as u64).collect();
        assert_eq!(found, all_leaves.difference(&erased).copied().collect());
        for index in all_leaves.iter().step_by(13) {
            let at = store.event_at(*index).await;
            match erased.contains(index) {
                true => assert!(matches!(at, Err(StoreError::Erased(leaf)) if leaf == *index)),
                false => assert_eq!(at.unwrap().unwrap().index, *index),
            }
            let entry = store.entry_at(*index).await.unwrap();
            assert_eq!(entry, Some(all[*index as usize].hash()));
        }
        let stats = store.stats(&stats_query(Filter::default(), Some(Field::Node), None)).await.unwrap();
        assert_eq!(stats.total, (all_leaves.len() - erased.len()) as u64);
        for first in [0, 256, 768] {
            for (index, leaf) in (first..).zip(store.leaf_records(first, 256).await.unwrap()) {
                assert_eq!(leaf.body == Body::Erased, erased.contains(&index), "{index}");
            }
            store.check_block(first).await.unwrap();
        }
        // What the tail held of it goes into a block as it is, and the site goes on with a new key.
        store.make_blocks(1200).await;
        assert!(matches!(store.event_at(*erased.last().unwrap()).await, Err(StoreError::Erased(_))));
        assert_eq!(store.leaf_entries(0, 10_000).await.unwrap().entries.len(), all.len());
    }

    async fn records_that_go_between_columns_and_bodies_take_no_others_with_them(store) {
        place_nodes(&store).await;
        let all = fill(&store, 30).await;
        store.make_blocks(1000).await;
        // As it looks to whoever read the columns before an erasure and the records after it.
        let key = store.site_keys().current(&Site::parse("alpha").unwrap()).unwrap();
        let mut tx = store.begin("test").await.unwrap();
        let gone = sqlx::query("UPDATE event_parts SET bodies = $1 WHERE site_key = $2 AND block >= 1")
            .bind(Vec::<u8>::new())
            .bind(key.to_column())
            .execute(tx.connection())
            .await
            .unwrap();
        assert_eq!(gone.rows_affected(), 2);
        tx.commit().await.unwrap();
        let left: Vec<u64> = (0..)
            .zip(&all)
            .filter(|(index, record)| record.record().node != node(0) || !(256..768).contains(index))
            .map(|(index, _)| index)
            .collect();
        for events in [1, 5, 12, 300] {
            let limits = PageLimits { events, ..first_limits() };
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = store.find(&Filter::default(), after, limits).await.unwrap();
                found.extend(page.events.iter().map(|event| event.index));
                after = page.reached;
                if !page.more {
                    break;
                }
            }
            assert_eq!(found, left, "{events}");
        }
    }

    async fn a_part_that_is_damaged_misplaced_or_gone_is_an_error_and_never_passed_over(store) {
        place_nodes(&store).await;
        fill(&store, 30).await;
        store.make_blocks(1024).await;
        change(&store, "CREATE TABLE kept AS SELECT * FROM event_parts").await;
        let flow = Filter { kind: Some(KindFilter::Family("flow")), ..Filter::default() };
        for text in [
            "DELETE FROM event_parts WHERE block = 2",
            "UPDATE event_parts SET bodies = columns WHERE block = 2",
            "UPDATE event_parts SET columns = bodies WHERE block = 2",
            "UPDATE event_parts SET block = 7 - block WHERE block >= 2",
            "UPDATE event_parts SET site_key = 5 WHERE block = 2 AND site_key = \
             (SELECT MIN(site_key) FROM event_parts)",
        ] {
            change(&store, text).await;
            for filter in [&Filter::default(), &flow] {
                let page = store.events(filter, Some(400), 1000).await;
                let wrong = matches!(page, Err(StoreError::Unreadable { .. } | StoreError::NoSiteKey { .. }));
                assert!(wrong, "{text}: {page:?}");
            }
            change(&store, "DELETE FROM event_parts").await;
            change(&store, "INSERT INTO event_parts SELECT * FROM kept").await;
        }
        store.events(&Filter::default(), Some(400), 1000).await.unwrap();
    }

    async fn a_database_of_other_keys_is_refused(store) {
        fill(&store, 1).await;
        let other = store.with_other_keys().await;
        assert!(matches!(other, Err(StoreError::OtherSiteKeys)), "{other:?}");
    }
}
