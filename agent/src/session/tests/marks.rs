//! The journal under the epoch: no more raises for it than the TPM can bear.

use super::*;

async fn must(world: &mut World) {
    world.holder.bind_journal();
    world.holder.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_must_be_kept_raise_the_epoch_ten_times_and_then_once_in_ten_minutes() {
    let mut world = World::new().await;
    world.holder.store().await;
    must(&mut world).await;
    let first = *world.root.epoch.lock();
    for _ in 0..50 {
        must(&mut world).await;
    }
    assert_eq!(*world.root.epoch.lock(), first + 9);
    world.clock.turn(HOUR / 6);
    must(&mut world).await;
    must(&mut world).await;
    assert_eq!(*world.root.epoch.lock(), first + 10);
    // What takes away asks nobody; and the record rides along.
    world.clock.turn(HOUR);
    world.holder.store().await;
    assert_eq!(*world.root.epoch.lock(), first + 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_went_back_does_not_become_the_newest_by_what_it_records() {
    let mut world = World::new().await;
    must(&mut world).await;
    let before = *world.root.epoch.lock();
    let held = Standing::Held(Held::StateRolledBack);
    world.holder.publisher.standing.send_replace(held);
    must(&mut world).await;
    assert_eq!(*world.root.epoch.lock(), before);
    world
        .holder
        .publisher
        .standing
        .send_replace(Standing::Granting);
    must(&mut world).await;
    assert_eq!(*world.root.epoch.lock(), before + 1);
}
