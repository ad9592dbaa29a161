//! Which policy is in force where: one everywhere, and while one is tried, that one for a part of the nodes.

use std::sync::Arc;
use std::time::Duration;

use edgeward_policy::CompiledPolicy;
use tokio::sync::Notify;

use super::Hub;
use crate::rollout::Part;

/// How many sessions a second are asked for evidence when what must be measured has changed for all of them.
const HASTEN_PER_SECOND: usize = 500;

/// What is in force, as one value: no node is ever between two.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    pub(super) everywhere: Option<Arc<CompiledPolicy>>,
    pub(super) staged: Option<Staged>,
}

/// A candidate, in force for some nodes.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    pub(super) policy: Arc<CompiledPolicy>,
    pub(super) part: Part,
}

impl Policies {
    pub(super) fn of(&self, node: &str) -> Option<&Arc<CompiledPolicy>> {
        match &self.staged {
            Some(staged) if staged.part.holds(node) => Some(&staged.policy),
            _ => self.everywhere.as_ref(),
        }
    }
}

impl Hub {
    /// The policy in force everywhere from now on; every session gets its new slice, and is asked for evidence.
    pub fn set_policy(&self, policy: Arc<CompiledPolicy>) {
        self.policies.store(Arc::new(Policies {
            everywhere: Some(policy),
            staged: None,
        }));
        self.fleet_changed();
        self.hasten_in_waves(|_| true);
    }

    /// This candidate is in force for a part of the nodes from now on, and what was in force stays so for the others.
    pub(crate) fn stage_policy(&self, policy: Arc<CompiledPolicy>, part: Part) {
        let everywhere = self.policies.load().everywhere.clone();
        self.policies.store(Arc::new(Policies {
            everywhere,
            staged: Some(Staged { policy, part }),
        }));
        self.fleet_changed();
        self.hasten_in_waves(|name| part.holds(name));
    }

    /// The policy in force everywhere but where another one is tried.
    pub fn policy(&self) -> Option<Arc<CompiledPolicy>> {
        self.policies.load().everywhere.clone()
    }

    /// The policy in force for one node.
    pub fn policy_of(&self, node: &str) -> Option<Arc<CompiledPolicy>> {
        self.policies.load().of(node).cloned()
    }

    /// A large fleet is asked over some seconds: its answers, with logs where profiles have changed, come all at once.
    fn hasten_in_waves(&self, which: impl Fn(&str) -> bool) {
        let all: Vec<Arc<Notify>> = self
            .sessions
            .lock()
            .iter()
            .filter(|(name, _)| which(name))
            .map(|(_, session)| session.hasten.clone())
            .collect();
        let mut waves = all.chunks(HASTEN_PER_SECOND);
        for session in waves.next().unwrap_or_default() {
            session.notify_one();
        }
        let rest: Vec<Arc<Notify>> = waves.flatten().cloned().collect();
        if !rest.is_empty() {
            tokio::spawn(async move {
                for wave in rest.chunks(HASTEN_PER_SECOND) {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    for session in wave {
                        session.notify_one();
                    }
                }
            });
        }
    }
}
