//! When a node says that it acted on a word of the director.

use super::*;

impl World {
    /// Revokes what is assigned.
    fn revoke(&mut self) {
        let app: AppName = APP.parse().unwrap();
        let digest = self.published.orders.apps[&app].digest;
        self.published.orders.denied.insert(digest);
        self.published.orders.apps.clear();
        self.say();
    }

    /// Whether the node says within this time that it acted on the newest word.
    async fn acts(&self, within: Duration) -> bool {
        let mut report = self.view.apps.subscribe();
        let acted = report.wait_for(|report| report.acted_on == self.published.number);
        tokio::time::timeout(within, acted).await.is_ok()
    }
}

const A_WHILE: Duration = Duration::from_millis(500);

/// Whoever revoked it would take for ended what may still run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nobody_can_say_what_runs_a_node_does_not_say_that_it_ended() {
    let mut world = World::installed().await;
    assert!(world.acts(LIMIT).await);
    world.machine.guard(true);
    world.revoke();
    world.until("record app.removed app-denied").await;
    assert!(!world.acts(A_WHILE).await, "the guard is away");
    // It comes, and what it found is being ended.
    world.machine.stage(&[(APP, State::Stopped)]);
    world.machine.guard(false);
    assert!(!world.acts(A_WHILE).await, "it runs still");
    world.machine.stage(&[]);
    assert!(world.acts(LIMIT).await);

    // The same after a start of the agent.
    world.stop().await;
    world.machine.guard(true);
    world.say();
    world.begin().await;
    assert!(!world.acts(A_WHILE).await);
    world.machine.guard(false);
    assert!(world.acts(LIMIT).await);
}

/// What did not end in time is waited for, and not the release that follows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_that_it_acted_once_what_was_to_end_is_gone_whatever_runs_then() {
    let mut world = World::installed().await;
    assert!(world.acts(LIMIT).await);
    world.machine.stage(&[(APP, State::Stopped)]);
    world.revoke();
    world.until("record app.removed app-denied").await;
    assert!(!world.acts(A_WHILE).await, "it has not ended");
    world.machine.stage(&[(APP, State::Running)]);
    assert!(world.acts(LIMIT).await, "that is another release");
}
