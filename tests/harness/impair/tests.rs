use std::time::Duration;

use super::{Faults, Line, QUEUE_FRAMES};

const MS: Duration = Duration::from_millis(1);

fn line(faults: Faults) -> Line {
    let mut line = Line::new(7);
    line.set(faults);
    line
}

/// Sends numbered frames one a millisecond; the numbers in the order they leave, with when.
fn run(line: &mut Line, frames: u32) -> Vec<(Duration, Vec<u8>)> {
    let mut left = Vec::new();
    for tick in 0..frames + 1_000 {
        let now = MS * tick;
        if tick < frames {
            line.accept(tick.to_be_bytes().to_vec(), now);
        }
        while let Some(frame) = line.leave(now) {
            left.push((now, frame));
        }
    }
    left
}

fn numbers(left: &[(Duration, Vec<u8>)]) -> Vec<u32> {
    left.iter()
        .map(|(_, frame)| u32::from_be_bytes(frame.as_slice().try_into().unwrap()))
        .collect()
}

#[test]
fn without_faults_every_frame_leaves_at_once_in_order() {
    let left = run(&mut line(Faults::default()), 1_000);
    assert_eq!(numbers(&left), (0..1_000).collect::<Vec<_>>());
    assert!(left.iter().zip(0..).all(|((at, _), tick)| *at == MS * tick));
}

#[test]
fn jitter_delays_within_its_bounds_and_keeps_the_order() {
    let faults = Faults {
        delay_ms: 20,
        jitter_ms: 10,
        ..Faults::default()
    };
    let left = run(&mut line(faults), 1_000);
    assert_eq!(numbers(&left), (0..1_000).collect::<Vec<_>>());
    for ((at, _), tick) in left.iter().zip(0..) {
        let took = *at - MS * tick;
        assert!((MS * 20..=MS * 31).contains(&took), "{took:?}");
    }
}

#[test]
fn faults_touch_their_share() {
    let faults = |change: fn(&mut Faults)| {
        let mut faults = Faults::default();
        change(&mut faults);
        run(&mut line(faults), 10_000)
    };
    let lost = 10_000 - faults(|faults| faults.loss = 100).len();
    assert!((800..1_200).contains(&lost), "{lost} lost");
    let twice = faults(|faults| faults.duplicate = 50).len() - 10_000;
    assert!((350..650).contains(&twice), "{twice} twice");
    let late = numbers(&faults(|faults| faults.reorder = 50))
        .windows(2)
        .filter(|pair| pair[0] > pair[1])
        .count();
    assert!((350..650).contains(&late), "{late} late");
    let turned = faults(|faults| faults.corrupt = 50)
        .iter()
        .zip(0u32..)
        .filter(|((_, frame), number)| frame[..] != number.to_be_bytes())
        .count();
    assert!((350..650).contains(&turned), "{turned} corrupt");
}

#[test]
fn a_cut_loses_what_is_on_the_way_and_what_comes() {
    let faults = Faults {
        delay_ms: 20,
        ..Faults::default()
    };
    let mut line = line(faults);
    line.accept(vec![1], Duration::ZERO);
    line.set(Faults {
        cut: true,
        ..faults
    });
    line.accept(vec![2], MS);
    line.set(faults);
    line.accept(vec![3], MS);
    assert_eq!(line.leave(MS * 100), Some(vec![3]));
    assert_eq!(line.leave(MS * 100), None);
}

#[test]
fn the_queue_has_an_end() {
    let mut line = line(Faults {
        delay_ms: 1_000,
        ..Faults::default()
    });
    for _ in 0..QUEUE_FRAMES + 5 {
        line.accept(vec![0], Duration::ZERO);
    }
    let left = std::iter::from_fn(|| line.leave(MS * 2_000)).count();
    assert_eq!(left, QUEUE_FRAMES);
}

#[test]
fn orders_are_read_as_they_are_written() {
    let faults = Faults {
        delay_ms: 1,
        jitter_ms: 2,
        loss: 3,
        reorder: 4,
        duplicate: 5,
        corrupt: 6,
        cut: true,
    };
    assert_eq!(Faults::parse(&faults.words()).unwrap(), faults);
    for wrong in ["", "1 2 3", "0 0 1001 0 0 0 0", "a b c d e f g"] {
        assert!(Faults::parse(wrong).is_err(), "{wrong}");
    }
}
