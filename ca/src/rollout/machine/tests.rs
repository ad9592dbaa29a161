use super::*;
use crate::rollout::Side;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOLD: Duration = Duration::from_secs(300);

fn rollout(change: Change) -> Rollout {
    Rollout {
        number: 8,
        base: 7,
        plan: Plan::new(&[10, 50, 100], HOLD).unwrap(),
        step: 0,
        threshold: 100,
        begun: START,
        entered: START,
        leaf: Some(3),
        since: START,
        phase: Phase::Holding,
        watched: true,
        change,
        return_signature: Some("30".to_owned()),
    }
}

fn rising() -> Denials {
    Denials {
        staged: Side {
            nodes: 1,
            before: 0,
            now: 40,
        },
        others: Side {
            nodes: 9,
            before: 0,
            now: 0,
        },
        over: HOLD,
    }
}

#[test]
fn a_plan_that_does_not_rise_to_everything_is_none() {
    let plan = |steps: &[u8]| Plan::new(steps, HOLD);
    assert_eq!(plan(&[]), Err(NoPlan::Steps));
    assert_eq!(plan(&[10, 50]), Err(NoPlan::Steps));
    assert_eq!(plan(&[50, 10, 100]), Err(NoPlan::Steps));
    assert_eq!(plan(&[100, 100]), Err(NoPlan::Steps));
    assert_eq!(plan(&[0, 100]), Err(NoPlan::Percent));
    assert_eq!(plan(&[10, 101]), Err(NoPlan::Percent));
    let many: Vec<u8> = (84..=100).collect();
    assert_eq!(plan(&many), Err(NoPlan::Steps));
    assert_eq!(Plan::new(&[100], Duration::from_secs(1)), Err(NoPlan::Hold));
    assert_eq!(
        Plan::new(&[100], MAX_HOLD + Duration::from_secs(1)),
        Err(NoPlan::Hold)
    );
    assert!(plan(&[100]).is_ok());
}

#[test]
fn a_candidate_that_closes_something_is_stopped_and_never_taken_back_by_itself() {
    for change in [Change::Narrower, Change::Mixed] {
        let act = rollout(change).poll(START.plus(HOLD / 2), &rising());
        assert!(matches!(act, Act::Pause(_)), "{change:?}: {act:?}");
    }
}

#[test]
fn a_candidate_that_closes_nothing_is_taken_back_by_itself() {
    for change in [Change::Same, Change::Wider] {
        let act = rollout(change).poll(START.plus(HOLD / 2), &rising());
        assert!(matches!(act, Act::Return(_)), "{change:?}: {act:?}");
    }
}

#[test]
fn without_the_operators_signature_the_cloud_cannot_go_back() {
    let unsigned = Rollout {
        return_signature: None,
        ..rollout(Change::Wider)
    };
    assert!(matches!(unsigned.poll(START, &rising()), Act::Pause(_)));
}

#[test]
fn rising_denials_come_before_the_end_of_a_hold() {
    let act = rollout(Change::Mixed).poll(START.plus(HOLD * 2), &rising());
    assert!(matches!(act, Act::Pause(_)), "{act:?}");
}

#[test]
fn each_stage_holds_goes_on_by_itself_and_the_last_one_finishes() {
    let quiet = Denials::default();
    let mut rollout = rollout(Change::Narrower);
    let mut now = START;
    for percent in [50, 100] {
        assert_eq!(
            rollout.poll(now.plus(HOLD - Duration::from_millis(1)), &quiet),
            Act::Wait
        );
        now = now.plus(HOLD);
        let percent = Percent::new(percent).unwrap();
        assert_eq!(rollout.poll(now, &quiet), Act::Widen(percent));
        rollout = rollout.widened(1000, Some(9), now);
        assert_eq!(rollout.percent(), percent);
    }
    assert_eq!(rollout.poll(now.plus(HOLD / 2), &quiet), Act::Wait);
    assert_eq!(rollout.poll(now.plus(HOLD), &quiet), Act::Finish);
}

#[test]
fn a_paused_stage_waits_for_ever_and_once_resumed_holds_in_full_without_asking_again() {
    let paused = rollout(Change::Mixed).paused("denials rise");
    assert_eq!(paused.poll(START.plus(HOLD * 1000), &rising()), Act::Wait);
    let later = START.plus(HOLD * 10);
    let resumed = paused.resumed(later);
    assert_eq!(resumed.poll(later.plus(HOLD / 2), &rising()), Act::Wait);
    let end = later.plus(HOLD);
    assert!(matches!(resumed.poll(end, &rising()), Act::Widen(_)));
    // The next stage is watched again.
    let next = resumed.widened(1000, None, end);
    assert!(matches!(next.poll(end, &rising()), Act::Pause(_)));
}

#[test]
fn a_stage_whose_hold_began_again_is_held_in_full() {
    let quiet = Denials::default();
    let rollout = rollout(Change::Narrower).held_again(START.plus(HOLD));
    assert_eq!(rollout.poll(START.plus(HOLD), &quiet), Act::Wait);
    let act = rollout.poll(START.plus(HOLD * 2), &quiet);
    assert!(matches!(act, Act::Widen(_)), "{act:?}");
}

#[test]
fn a_node_that_was_in_stays_in() {
    assert_eq!(rollout(Change::Same).widened(5, None, START).threshold, 100);
}

#[test]
fn what_has_ended_does_nothing() {
    for phase in [Phase::Done, Phase::Returned] {
        let ended = rollout(Change::Wider).ended(phase);
        assert_eq!(ended.poll(START.plus(HOLD * 9), &rising()), Act::Wait);
    }
}
