use std::time::Duration;

use super::*;
use crate::enforce::testing::slice;
use edgeward_identity::testing::{TEST_NOW, TurnedClock};

fn held() -> Option<Arc<HeldSlice>> {
    let slice = slice();
    Some(Arc::new(HeldSlice {
        number: 1,
        digest: [0; 32],
        bytes: slice.to_json().into(),
        slice,
    }))
}

#[test]
fn a_policy_that_has_ended_names_nobody() {
    let clock = TurnedClock::at(TEST_NOW);
    let held = held();
    assert!(holding(&None, &*clock).is_none());
    assert!(holding(&held, &*clock).is_some());
    let left = held.as_ref().unwrap().slice.expires.since(TEST_NOW);
    clock.turn(left - Duration::from_secs(1));
    assert!(holding(&held, &*clock).is_some());
    clock.turn(Duration::from_secs(1));
    assert!(holding(&held, &*clock).is_none());
}
