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
