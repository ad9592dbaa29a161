use std::sync::Arc;

use super::*;
use crate::seconds::Seconds;
use crate::slice::{GroupId, States, Term, Tiers};

const GROUPS: usize = 8;
/// A row about everybody, and the groups of nobody in particular.
const ANYBODY: [u32; 0] = [];

#[test]
fn a_bucket_without_rows_that_allow_denies_everybody() {
    let denies = bucket(&[row(Effect::Deny, Sources::Any)]);
    assert!(denies.chunks.is_empty());
    assert!(!asks(&denies, &ANYBODY, &[0]));
    let bucket = bucket(&[]);
    assert!(!asks(&bucket, &[0, 1], &[]));
    assert!(!asks(&bucket, &[], &[0]));
}

#[test]
fn the_row_that_is_always_there_matches_nobody_and_no_action() {
    let mut about_all = row(Effect::Allow, group(1));
    about_all.actions = (0..32).map(ActionId).collect();
    let bucket = bucket(&[about_all]);
    let model = bucket.chunks[0].get_model().get_model();
    let never = model["p"]["p"].get_policy().iter().next().unwrap()[0].clone();
    let everything = Dynamic::from("\x7f".repeat(400));
    let matches = row_matches(everything, never.into());
    assert_eq!(matches.as_bool(), Ok(false));
    assert!(!asks(&bucket, &ANYBODY, &[0]));
}

#[test]
fn a_row_not_in_force_is_not_matched() {
    let bucket = bucket(&[row(Effect::Allow, group(1)), row(Effect::Deny, group(1))]);
    assert!(asks(&bucket, &[1], &[0]));
    assert!(!asks(&bucket, &[1], &[1]));
    assert!(!asks(&bucket, &[1], &[0, 1]));
    assert!(!asks(&bucket, &[1], &[]));
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
    assert!(asks(&bucket, &[0], &all));
    assert!(!asks(&bucket, &[0, 3], &all));
    let all_but_the_deny: Vec<usize> = all
        .iter()
        .copied()
        .filter(|index| *index != MAX_CHUNK_ROWS + 7)
        .collect();
    assert!(asks(&bucket, &[0, 3], &all_but_the_deny));
}

#[test]
fn a_row_of_another_action_is_not_matched() {
    let mut other = row(Effect::Allow, Sources::Any);
    other.actions.clear();
    assert!(!asks(&bucket(&[other]), &ANYBODY, &[0]));
}

#[test]
fn equal_rows_are_kept_apart_and_one_that_cannot_be_numbered_is_an_error() {
    let twice = [
        row(Effect::Allow, Sources::Any),
        row(Effect::Allow, Sources::Any),
    ];
    assert!(asks(&bucket(&twice), &ANYBODY, &[1]));
    let far = Bucket::new([(NEVER, &twice[0])].into_iter());
    assert!(matches!(far, Err(BucketError::Row(NEVER))));
}

#[test]
fn the_matching_function_answers_no_to_what_is_not_as_expected() {
    let yes = row_matches("\x7f".repeat(12).into(), "@@@\x7f@@@@@\x7f".into());
    assert_eq!(yes.as_bool(), Ok(true));
    for (question, row) in [
        (Dynamic::from(1), Dynamic::from(2)),
        ("".into(), "".into()),
        ("\x7f".repeat(12).into(), "".into()),
        ("\x7f".repeat(12).into(), "000\x7f@@@@@\x7f".into()),
        ("\x7f".repeat(6).into(), "@@@\x7f@@@@@\x7f".into()),
        ("\x7f".repeat(7).into(), "@@@\x7f@@@@@\x7f".into()),
        ("@".repeat(12).into(), "@@@\x7f@@@@@\x7f".into()),
    ] {
        let no = row_matches(question.clone(), row.clone());
        assert_eq!(no.as_bool(), Ok(false), "{question} {row}");
    }
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
    Bucket::new(rows.iter().enumerate()).unwrap()
}

fn asks(bucket: &Bucket, groups: &[u32], active: &[usize]) -> bool {
    bucket.allows(groups, ActionId::CONNECT, active).unwrap()
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
