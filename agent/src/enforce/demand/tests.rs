use super::*;
use crate::enforce::testing::{boot, id};

const MINUTES: u64 = 60;

fn demand(binds: Binds, permitted: usize) -> Demand {
    let mut demand = Demand::new(DemandConfig {
        binds,
        ..DemandConfig::default()
    });
    demand.permitted(permitted);
    demand
}

fn silent(_: &SpiffeId) -> Option<u64> {
    Some(0)
}

#[test]
fn nobody_is_wanted_on_demand_before_a_packet() {
    let mut demand = demand(Binds::OnDemand, 3);
    assert!(!demand.wants(&id("b")));
    assert!(demand.may_sleep(&id("b")));
    assert!(demand.knock(&id("b"), boot(1)));
    assert!(!demand.knock(&id("b"), boot(2)), "it is wanted already");
    assert!(demand.wants(&id("b")));
    assert!(!demand.wants(&id("c")));
}

#[test]
fn auto_keeps_few_bound_and_many_only_on_demand() {
    let mut few = demand(Binds::Auto, MAX_ALWAYS);
    assert!(few.wants(&id("b")));
    assert!(!few.has_sleepers());
    assert!(few.permitted(MAX_ALWAYS + 1), "that is another way");
    assert!(!few.wants(&id("b")));
    assert!(!few.permitted(MAX_ALWAYS + 2));
    assert!(few.permitted(MAX_ALWAYS));
    assert!(few.wants(&id("b")));
    assert!(demand(Binds::Always, 10_000).wants(&id("b")));
    assert!(!demand(Binds::OnDemand, 1).wants(&id("b")));
}

#[test]
fn a_peer_that_was_woken_and_is_not_bound_in_time_sleeps_again() {
    let mut demand = demand(Binds::OnDemand, 3);
    demand.knock(&id("b"), boot(100));
    assert_eq!(demand.look(silent, boot(129)), []);
    demand.knock(&id("b"), boot(120));
    assert_eq!(demand.look(silent, boot(149)), []);
    assert_eq!(demand.look(silent, boot(150)), [id("b")]);
    assert_eq!(demand.remembered(), 0);
}

#[test]
fn an_open_bind_sleeps_once_it_carried_nothing_for_long_enough() {
    let mut demand = demand(Binds::OnDemand, 3);
    demand.opened(&id("b"), boot(0));
    let carried = |bytes| move |_: &SpiffeId| Some(bytes);
    assert_eq!(demand.look(carried(84), boot(4 * MINUTES)), []);
    assert_eq!(demand.look(carried(84), boot(9 * MINUTES - 1)), []);
    assert_eq!(demand.look(carried(84), boot(9 * MINUTES)), [id("b")]);
    assert!(!demand.wants(&id("b")));
}

#[test]
fn a_tunnel_that_was_made_anew_counts_from_nothing_again_and_is_in_use() {
    let mut demand = demand(Binds::OnDemand, 3);
    demand.opened(&id("b"), boot(0));
    demand.look(|_| Some(5000), boot(10));
    demand.look(|_| Some(100), boot(200));
    assert_eq!(demand.look(|_| Some(100), boot(400)), []);
}

#[test]
fn whoever_binds_with_us_is_awake_here_as_well() {
    let mut demand = demand(Binds::OnDemand, 3);
    assert!(demand.opened(&id("b"), boot(5)));
    assert!(demand.wants(&id("b")));
    assert!(!demand.opened(&id("b"), boot(6)));
}

#[test]
fn a_bind_that_was_lost_is_wanted_for_a_while_and_one_that_was_idle_is_not() {
    let mut demand = demand(Binds::OnDemand, 3);
    demand.opened(&id("b"), boot(100));
    demand.opened(&id("c"), boot(100));
    demand.ended(&id("b"), false);
    demand.ended(&id("c"), true);
    assert!(demand.wants(&id("b")));
    assert!(!demand.wants(&id("c")));
    assert_eq!(demand.look(|_| None, boot(130)), [id("b")]);
}

#[test]
fn a_node_that_keeps_all_bound_lets_a_peer_sleep_that_asked_for_it() {
    let mut demand = demand(Binds::Always, 3);
    assert_eq!(demand.look(silent, boot(0)), []);
    demand.opened(&id("b"), boot(0));
    assert_eq!(
        demand.look(silent, boot(1000)),
        [],
        "it puts nobody to sleep"
    );
    demand.ended(&id("b"), true);
    assert!(!demand.wants(&id("b")));
    assert!(demand.may_sleep(&id("b")));
    assert!(!demand.may_sleep(&id("c")));
    assert!(demand.has_sleepers());
    assert!(demand.knock(&id("b"), boot(1001)));
    assert!(demand.wants(&id("b")));
    demand.ended(&id("b"), true);
    assert!(
        demand.opened(&id("b"), boot(1002)),
        "the peer woke up by itself"
    );
    assert!(demand.wants(&id("b")));
}

#[test]
fn what_is_kept_grows_with_the_awake_and_not_with_the_permitted() {
    let mut demand = demand(Binds::Auto, 10_000);
    for number in 0..10_000 {
        assert!(!demand.wants(&id(&format!("n{number}"))));
    }
    assert_eq!(demand.remembered(), 0);
    demand.knock(&id("n1"), boot(0));
    demand.opened(&id("n2"), boot(0));
    assert_eq!(demand.remembered(), 2);
    demand.keep_only(|peer| *peer == id("n2"));
    assert_eq!(demand.remembered(), 1);
}
