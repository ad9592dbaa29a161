//! Slices that come as deltas, and slices that somebody puts back.

use edgeward_wire::slice_delta::{self, Base, NotApplied};

use super::*;
use crate::state::{Clocks, judge};

fn against(held: &[u8], target: &[u8]) -> v1::SliceDelta {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, held).as_ref());
    let base = Base {
        digest,
        at: 0,
        bytes: held,
    };
    slice_delta::make(base, target).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_against_another_slice_changes_nothing_and_the_whole_is_asked_for() {
    let mut world = World::new().await;
    let (held, other, next) = (world.slice(5), world.slice(5), world.slice(6));
    let delta = against(&other, &next);
    assert_eq!(world.holder.slice_delta(&delta), Err(NotApplied::Base));
    world.holder.slice(&held);
    assert_eq!(world.holder.slice_delta(&delta), Err(NotApplied::Base));
    let welcome = v1::Welcome {
        slice_delta: Some(delta),
        heartbeat: world.heartbeat(1, 0),
        ..Default::default()
    };
    assert_eq!(
        world.holder.welcome(welcome).await,
        Err(NotApplied::Base),
        "what else the welcome says counts all the same"
    );
    assert_eq!(world.holder.slice_number(), 5);
    assert!(world.view.link.borrow().online(world.clock.boottime()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_delta_makes_is_judged_as_if_it_had_come_whole() {
    let mut world = World::new().await;
    let own = world.node().to_string();
    let held = world.slice(5);
    world.holder.slice(&held);
    world.events();
    let bad = [
        world.slice_signed(&world.stranger, &own, 6),
        world.slice_signed(&world.control, "spiffe://plant.example/node/b", 6),
        world.slice(4),
    ];
    for target in bad {
        let delta = against(&held, &target);
        assert_eq!(world.holder.slice_delta(&delta), Ok(()));
        assert_eq!(world.holder.slice_number(), 5);
        assert_eq!(world.events(), [EventKind::PolicyRefused]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_puts_the_exact_signed_bytes_into_force_and_into_the_state() {
    let mut world = World::new().await;
    let held = world.slice(5);
    world.holder.slice(&held);
    let next = world.slice(6);
    assert_eq!(world.holder.slice_delta(&against(&held, &next)), Ok(()));
    assert_eq!(
        world.view.slice.borrow().as_ref().unwrap().bytes.as_ref(),
        next
    );
    assert_eq!(
        world.holder.slice_digest(),
        ring::digest::digest(&ring::digest::SHA256, &next).as_ref()
    );
    assert_eq!(world.stored().await.held.unwrap().slice.0, next);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_slice_does_not_come_back_with_an_older_state_folder() {
    let mut world = World::new().await;
    world.holder.slice(&world.slice(5));
    world.stored().await;
    let kept: Vec<_> = std::fs::read_dir(world.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    world.holder.slice(&world.slice(6));
    assert!(!world.stored().await.rolled_back);
    for (path, bytes) in kept {
        std::fs::write(path, bytes).unwrap();
    }
    let found = StateFolder::open(world.folder.path(), world.root.as_ref())
        .await
        .unwrap()
        .1;
    let clocks = Clocks {
        kernel_boot: "kernel",
        boottime: world.clock.boottime(),
        wall: world.clock.now(),
        tpm: None,
    };
    assert_eq!(
        judge(&found, &clocks).0,
        Standing::Held(Held::StateRolledBack),
        "with slice 5 in its hands the node grants nothing"
    );
}
