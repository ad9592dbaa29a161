//! The join counter on the node: on disk before it is said, and no more epochs than the TPM can bear.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_join_counter_that_cannot_be_stored_is_not_said() {
    let mut world = World::new().await;
    assert!(world.holder.keep_join(1).await);
    std::fs::remove_dir_all(world.folder.path()).unwrap();
    assert!(!world.holder.keep_join(2).await);
    assert_eq!(world.holder.join(), 1);
    // Once there is room again it is offered anew, and stored.
    std::fs::create_dir_all(world.folder.path()).unwrap();
    assert!(world.holder.keep_join(2).await);
    assert_eq!(world.holder.join(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_counter_lies_on_disk_when_it_is_said_and_never_falls() {
    let mut world = World::new().await;
    for join in 1..4 {
        assert!(world.holder.keep_join(join).await);
        assert_eq!(world.stored().await.held.unwrap().join, join);
    }
    assert!(!world.holder.keep_join(2).await);
    assert!(!world.holder.keep_join(0).await);
    assert_eq!(world.holder.join(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_flaps_raises_the_epoch_once_in_ten_minutes_and_at_the_next_store() {
    let mut world = World::new().await;
    world.holder.keep_join(1).await;
    let first = *world.root.epoch.lock();
    for join in 2..20 {
        world.holder.keep_join(join).await;
    }
    assert_eq!(*world.root.epoch.lock(), first);
    world.holder.store().await;
    assert_eq!(*world.root.epoch.lock(), first + 1);
    world.clock.turn(HOUR / 6);
    world.holder.keep_join(20).await;
    assert_eq!(*world.root.epoch.lock(), first + 2);
}
