//! What a candidate installed goes with it: its nodes go back to the releases that the policy before names.

use edgeward_apps::AppName;
use edgeward_audit::event::Actor;

use super::Hub;
use super::director::Whom;

impl Hub {
    /// Whoever ends the trial of a policy takes its releases back, too. The base is in force by now; a node keeps what it
    /// has where this fails.
    pub(super) async fn return_apps(&self, nodes: &[String], number: u64, by: &Actor) {
        let reason = format!("policy {number} was taken back");
        for node in nodes {
            for app in self.apps_above(node) {
                let whom = Whom::Node(node);
                if let Err(error) = self.order_back(&app, whom, (by, &reason)).await {
                    tracing::error!(node, %app, %error, "a release that a staged policy brought stays");
                }
            }
        }
    }

    /// Apps of which the policy names exactly the release before the one that the node has.
    fn apps_above(&self, node: &str) -> Vec<AppName> {
        let (Some(member), Some(policy)) = (self.member(node), self.policy_of(node)) else {
            return Vec::new();
        };
        let installs = policy.installs_for(&member.row.labels);
        let above = installs.iter().filter(|(app, install)| {
            let given = self.given_to(node, app);
            given.is_some_and(|given| given.previous.is_some() && install.version == given.previous)
        });
        above.map(|(app, _)| (*app).clone()).collect()
    }
}
