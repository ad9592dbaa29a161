use std::sync::Arc;

use super::*;
use crate::seconds::Seconds;
use crate::slice::{GroupId, States, Term, Tiers};

const GROUPS: usize = 8;

#[test]
fn a_bucket_without_rows_denies_everybody() {
    let bucket = bucket(&[]);
    assert!(!asks(&bucket, &[0, 1], &[]));
    assert!(!asks(&bucket, &[], &[]));
}

#[test]
fn an_unknown_subject_without_a_single_bit_is_denied_even_by_a_row_for_everybody() {
    let bucket = bucket(&[row(Effect::Allow, Sources::Any)]);
    assert!(!asks(&bucket, &[], &[0]));
    assert!(asks(&bucket, &[EVERYBODY_BIT], &[0]));
}

#[test]
fn the_row_that_is_always_there_matches_no_subject_and_no_action() {
    let bucket = bucket(&[]);
    let everything = BitSet::new(0..=GROUPS, GROUPS + 1);
    let empty = BitSet::new([], 0);
    assert!(
        !bucket
            .allows(&everything, ActionId::CONNECT, &everything)
            .unwrap()
    );
    assert!(!bucket.allows(&empty, ActionId::CONNECT, &empty).unwrap());
}

#[test]
fn a_row_not_in_force_is_not_matched() {
    let bucket = bucket(&[row(Effect::Allow, group(1)), row(Effect::Deny, group(1))]);
    assert!(asks(&bucket, &[0, 2], &[0]));
    assert!(!asks(&bucket, &[0, 2], &[1]));
    assert!(!asks(&bucket, &[0, 2], &[0, 1]));
    assert!(!asks(&bucket, &[0, 2], &[]));
}

#[test]
fn a_deny_wins_over_allows_in_every_chunk() {
    let mut rows: Vec<Row> = (0..3 * MAX_CHUNK_ROWS)
        .map(|index| row(Effect::Allow, group(u32::try_from(index % GROUPS).unwrap())))
        .collect();
    rows.insert(MAX_CHUNK_ROWS + 7, row(Effect::Deny, group(3)));
    let bucket = bucket(&rows);
    assert_eq!(bucket.chunks.len(), 3);
    let all: Vec<usize> = (0..rows.len()).collect();
    assert!(asks(&bucket, &[0, 1], &all));
    assert!(!asks(&bucket, &[0, 1, 4], &all));
    let all_but_the_deny: Vec<usize> = all
        .iter()
        .copied()
        .filter(|index| *index != MAX_CHUNK_ROWS + 7)
        .collect();
    assert!(asks(&bucket, &[0, 1, 4], &all_but_the_deny));
}

#[test]
fn a_row_of_another_action_is_not_matched() {
    let mut other = row(Effect::Allow, Sources::Any);
    other.actions.clear();
    assert!(!asks(&bucket(&[other]), &[EVERYBODY_BIT], &[0]));
}

#[test]
fn equal_rows_are_kept_apart_and_a_row_without_sources_is_an_error() {
    let twice = [
        row(Effect::Allow, Sources::Any),
        row(Effect::Allow, Sources::Any),
    ];
    assert!(asks(&bucket(&twice), &[EVERYBODY_BIT], &[1]));
    assert!(matches!(Bucket::new(&twice, &[]), Err(BucketError::Row(0))));
}

#[test]
fn the_matching_function_answers_no_to_values_of_other_types() {
    let no = row_matches(1.into(), 2.into(), 3.into(), 4.into(), 5.into(), 6.into());
    assert_eq!(no.as_bool(), Ok(false));
    let bits = || Dynamic::from("1");
    let no = row_matches(
        bits(),
        "connect".into(),
        bits(),
        bits(),
        "connect".into(),
        "-1".into(),
    );
    assert_eq!(no.as_bool(), Ok(false));
    let no = row_matches(bits(), "".into(), bits(), bits(), "".into(), "0".into());
    assert_eq!(no.as_bool(), Ok(false));
}

#[test]
fn nothing_enters_the_model_but_the_fixed_text() {
    let bucket = bucket(&[row(Effect::Allow, Sources::Any)]);
    let model = bucket.chunks[0].get_model();
    assert_eq!(model.get_policy("p", "p").len(), 2);
    assert!(bucket.chunks[0].is_enabled());
    assert!(model.get_model().get("g").is_none());
}

fn bucket(rows: &[Row]) -> Bucket {
    let sources: Vec<BitSet> = rows
        .iter()
        .map(|row| source_bits(&row.from, GROUPS))
        .collect();
    Bucket::new(rows, &sources).unwrap()
}

fn asks(bucket: &Bucket, bits: &[usize], active: &[usize]) -> bool {
    let subject = BitSet::new(bits.iter().copied(), GROUPS + 1);
    let limit = active.iter().max().map_or(0, |last| last + 1);
    let active = BitSet::new(active.iter().copied(), limit);
    bucket.allows(&subject, ActionId::CONNECT, &active).unwrap()
}

fn group(index: u32) -> Sources {
    Sources::Groups(vec![GroupId(index)])
}

fn row(effect: Effect, from: Sources) -> Row {
    let term = Term {
        own: None,
        default: Seconds::new(600),
        most: None,
    };
    Row {
        rule: Arc::from("rule"),
        effect,
        from,
        actions: vec![ActionId::CONNECT],
        window: None,
        until: None,
        tiers: Tiers::Every,
        states: States::Every,
        runs: Vec::new(),
        approval: false,
        profiles: crate::slice::Profiles::Every,
        fresh: term,
        offline: term,
    }
}
