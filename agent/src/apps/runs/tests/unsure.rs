//! What is not known to have ended, and what is not known to run.

use super::*;
use crate::apps::runs::machine::END_AGAIN;

/// The order can be lost on its way, and so can what the guard did by it.
#[test]
fn what_does_not_end_is_ordered_to_again_until_it_has() {
    let again = [Output::Order(Order::End {
        name: group_name(&app()),
    })];
    let mut turned = Turned::up();
    turned.step(Input::End(app(), "app-denied"));
    turned.step(Input::Tick);
    for _ in 0..3 {
        assert!(turned.later(END_AGAIN / 2).is_empty());
        assert_eq!(turned.later(END_AGAIN / 2), again);
    }
    // Its own end is not that of what it started.
    turned.step(ended(137));
    assert_eq!(turned.later(END_AGAIN), again);
    turned.step(gone());
    assert!(turned.later(MAX_WAIT).is_empty());

    let mut coming = Turned::new();
    coming.step(Input::Heard(Heard::Here(Vec::new())));
    coming.step(set("1.0"));
    coming.step(Input::Heard(Heard::Made(group_name(&app()))));
    coming.step(Input::Want(BTreeMap::new()));
    coming.step(Input::Tick);
    assert!(coming.later(MAX_WAIT).is_empty(), "nothing of it runs yet");
}

/// What runs is known once the guard has said it and somebody what should.
#[test]
fn what_runs_is_not_known_before_the_guard_has_said_it_nor_while_it_is_away() {
    let mut turned = Turned::new();
    assert!(!turned.machine.knows());
    turned.step(Input::Want(BTreeMap::new()));
    assert!(!turned.machine.knows());
    turned.step(Input::Heard(Heard::Here(vec![run("1.0")])));
    assert!(turned.machine.knows());
    assert_eq!(turned.machine.stages().get(&app()), Some(&Stage::Stopping));
    turned.step(Input::Heard(Heard::Away));
    assert!(!turned.machine.knows());

    let mut unasked = Turned::new();
    unasked.step(Input::Heard(Heard::Here(vec![run("1.0")])));
    assert!(!unasked.machine.knows(), "nobody has looked at it yet");
}
