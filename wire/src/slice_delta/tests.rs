use prost::Message;

use super::*;

fn sha(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

fn whole(bytes: &[u8]) -> Base<'_> {
    Base {
        digest: sha(bytes),
        at: 0,
        bytes,
    }
}

/// Resembles a slice: rows that differ in their names alone.
fn rows(numbers: impl IntoIterator<Item = usize>) -> Vec<u8> {
    let rows: Vec<String> = numbers
        .into_iter()
        .map(|n| {
            format!(
                "{{\"rule\":\"plant/line-{n:04}\",\"effect\":\"allow\",\"from\":{{\"groups\":[{}]}},\"actions\":[0],\"window\":null}}",
                n % 7
            )
        })
        .collect();
    format!(
        "{{\"schema\":\"edgeward-slice/3\",\"rows\":[{}]}}",
        rows.join(",")
    )
    .into_bytes()
}

fn made() -> (Vec<u8>, SliceDelta) {
    let held = rows(0..100);
    let delta = make(whole(&held), &rows(0..101)).unwrap();
    (held, delta)
}

#[test]
fn a_delta_against_another_slice_is_refused() {
    let (_, delta) = made();
    assert_eq!(apply(&delta, &rows(0..99)), Err(NotApplied::Base));
    assert_eq!(apply(&delta, b""), Err(NotApplied::Base));
}

#[test]
fn what_was_altered_on_the_way_is_refused() {
    let (held, delta) = made();
    let copy = |offset, length| SliceOp {
        op: Some(Op::Copy(Copy { offset, length })),
    };
    let end = u32::try_from(held.len()).unwrap();
    let with = |op: SliceOp| SliceDelta {
        ops: vec![op],
        ..delta.clone()
    };
    for (altered, why) in [
        (with(copy(end, 1)), NotApplied::Range),
        (with(copy(1, end)), NotApplied::Range),
        (with(copy(u32::MAX, u32::MAX)), NotApplied::Range),
        (with(copy(0, 0)), NotApplied::Empty),
        (with(SliceOp { op: None }), NotApplied::Empty),
        (
            with(SliceOp {
                op: Some(Op::Literal(Vec::new())),
            }),
            NotApplied::Empty,
        ),
        (with(copy(0, end)), NotApplied::Target),
        (
            SliceDelta {
                target: vec![0; 32],
                ..delta.clone()
            },
            NotApplied::Target,
        ),
        (
            SliceDelta {
                base: Vec::new(),
                ..delta.clone()
            },
            NotApplied::Base,
        ),
        (
            SliceDelta {
                ops: vec![copy(0, 1); MAX_OPS + 1],
                ..delta.clone()
            },
            NotApplied::Steps,
        ),
    ] {
        assert_eq!(apply(&altered, &held), Err(why));
    }
}

#[test]
fn a_small_delta_cannot_make_a_large_object() {
    let held = vec![b'a'; MAX_MESSAGE_BYTES / 4];
    let length = u32::try_from(held.len()).unwrap();
    let delta = SliceDelta {
        base: sha(&held).to_vec(),
        target: vec![0; 32],
        ops: vec![
            SliceOp {
                op: Some(Op::Copy(Copy { offset: 0, length }))
            };
            MAX_OPS
        ],
    };
    assert_eq!(apply(&delta, &held), Err(NotApplied::TooLarge));
}

#[test]
fn slices_that_have_nothing_in_common_go_whole() {
    let (one, other) = (vec![1; 5000], vec![2; 5000]);
    assert_eq!(make(whole(&one), &other), None);
    assert_eq!(make(whole(b""), &rows(0..3)), None);
}

#[test]
fn the_exact_bytes_come_out_whatever_changed() {
    let held = rows(0..300);
    let targets = [
        rows(0..300),
        rows(0..301),
        rows(1..300),
        rows((0..150).chain(1000..1001).chain(150..300)),
        rows((0..100).chain(120..300)),
        rows((0..300).rev()),
        rows((0..300).filter(|n| n % 3 > 0)),
        [b"new head".as_slice(), &held, b"new end"].concat(),
        held.repeat(2),
    ];
    for target in targets {
        let delta = make(whole(&held), &target).unwrap();
        assert_eq!(apply(&delta, &held), Ok(target));
    }
}

#[test]
fn a_part_that_the_sender_cannot_make_again_is_sent_and_not_copied() {
    let payload = rows(0..300);
    let held = [b"head".as_slice(), &payload, b"signature"].concat();
    let target = [b"other head".as_slice(), &rows(0..301), b"other signature"].concat();
    let base = Base {
        digest: sha(&held),
        at: 4,
        bytes: &payload,
    };
    let delta = make(base, &target).unwrap();
    assert_eq!(apply(&delta, &held), Ok(target));
}

#[test]
fn one_row_more_costs_about_one_row() {
    let (held, target) = (
        rows(0..1000),
        rows((0..500).chain(5000..5001).chain(500..1000)),
    );
    let delta = make(whole(&held), &target).unwrap();
    assert!(
        delta.encoded_len() < 400,
        "{} of {}",
        delta.encoded_len(),
        target.len()
    );
}
