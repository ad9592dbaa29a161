use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[test]
fn a_counter_is_taken_once() {
    let mut window = Window::default();
    for counter in [0, 1, 5, 4, 3, 2] {
        assert_eq!(window.take(counter), Ok(()));
        assert_eq!(window.take(counter), Err(Refused::Replayed));
    }
}

#[test]
fn what_is_older_than_the_window_is_refused() {
    let mut window = Window::default();
    let newest = 100_000;
    assert_eq!(window.take(newest), Ok(()));
    assert_eq!(
        window.take(newest - WINDOW_MESSAGES),
        Err(Refused::Replayed)
    );
    assert_eq!(window.take(newest - WINDOW_MESSAGES + 1), Ok(()));
    assert_eq!(
        window.take(newest - WINDOW_MESSAGES + 1),
        Err(Refused::Replayed)
    );
    assert_eq!(window.take(0), Err(Refused::Replayed));
}

#[test]
fn eight_thousand_messages_in_reverse_are_all_taken() {
    let mut window = Window::default();
    for counter in (0..8000).rev() {
        assert_eq!(window.take(counter), Ok(()), "{counter}");
    }
    for counter in 0..8000 {
        assert_eq!(window.take(counter), Err(Refused::Replayed), "{counter}");
    }
}

#[test]
fn a_jump_over_the_whole_ring_forgets_nothing_it_should_know() {
    for jump in [
        8191,
        8192,
        8193,
        8255,
        8256,
        8257,
        1 << 40,
        u64::MAX - (1 << 14),
    ] {
        let mut window = Window::default();
        for early in 0..200 {
            assert_eq!(window.take(early), Ok(()));
        }
        assert_eq!(window.take(jump), Ok(()));
        assert_eq!(window.take(jump), Err(Refused::Replayed));
        let oldest = (jump + 1).saturating_sub(WINDOW_MESSAGES);
        assert_eq!(
            window.check(oldest).is_ok(),
            oldest >= 200,
            "{jump}: taken before, or not"
        );
        assert_eq!(window.check(jump - 1), Ok(()), "{jump}");
    }
}

#[test]
fn a_closed_window_takes_nothing() {
    let mut window = Window::default();
    window.close();
    for counter in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX - 8192] {
        assert_eq!(window.take(counter), Err(Refused::Replayed));
    }
}

proptest! {
    /// Against a set that never forgets: accepted exactly if unseen and not older than the window.
    #[test]
    fn the_ring_agrees_with_a_set(
        start in prop_oneof![Just(0u64), any::<u64>().prop_map(|start| start >> 2)],
        moves in proptest::collection::vec((0u64..20_000, any::<bool>()), 1..300),
    ) {
        let (mut window, mut seen, mut next) = (Window::default(), HashSet::new(), 0u64);
        for (distance, forward) in moves {
            let base = next.max(start);
            let counter = if forward { base + distance / 8 } else { base.saturating_sub(distance) };
            let expected = !seen.contains(&counter) && next.saturating_sub(counter) <= WINDOW_MESSAGES;
            prop_assert_eq!(window.check(counter).is_ok(), expected);
            prop_assert_eq!(window.take(counter).is_ok(), expected, "{} of {}", counter, next);
            if expected {
                seen.insert(counter);
                next = next.max(counter + 1);
            }
        }
    }
}
