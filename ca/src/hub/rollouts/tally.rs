//! What the nodes of a stage were denied, and what the others were: counted on from where it was counted last.

use std::sync::Arc;

use edgeward_policy::CompiledPolicy;

use super::super::Hub;
use super::{Ours, Progress, RolloutFault, Trial};
use crate::rollout::{BEFORE, Denials, Part, Rollout, Side};

impl Hub {
    pub(super) async fn trial_of(
        &self,
        rollout: Rollout,
        candidate: Arc<CompiledPolicy>,
    ) -> Result<Trial, RolloutFault> {
        let (from, until) = (rollout.begun.minus(BEFORE), rollout.begun);
        let (reports, _) = self
            .store
            .denials(None, from, Some(until))
            .await
            .map_err(Ours)?;
        let mut trial = Trial {
            counted: rollout.leaf,
            before: (0, 0),
            now: (0, 0),
            rollout,
            candidate,
        };
        trial.before = sides(
            &trial.part(),
            reports.iter().map(|(node, count)| (node.as_str(), *count)),
        );
        Ok(trial)
    }

    pub(super) async fn count_denials(&self, trial: &mut Trial) -> Result<(), RolloutFault> {
        let entered = trial.rollout.entered;
        let (reports, last) = self
            .store
            .denials(trial.counted, entered, None)
            .await
            .map_err(Ours)?;
        let new = sides(
            &trial.part(),
            reports.iter().map(|(node, count)| (node.as_str(), *count)),
        );
        trial.now = (trial.now.0 + new.0, trial.now.1 + new.1);
        trial.counted = last;
        Ok(())
    }

    pub(super) fn progress(&self, trial: &Trial) -> Progress {
        let part = trial.part();
        let active = self.active_names();
        let (nodes, others): (Vec<String>, Vec<String>) =
            active.into_iter().partition(|name| part.holds(name));
        let sessions = self.sessions.lock();
        let connected = nodes
            .iter()
            .filter(|name| sessions.contains_key(*name))
            .count();
        drop(sessions);
        let side = |nodes: &[String], before, now| Side {
            nodes: u64::try_from(nodes.len()).unwrap_or(u64::MAX),
            before,
            now,
        };
        Progress {
            denials: Denials {
                staged: side(&nodes, trial.before.0, trial.now.0),
                others: side(&others, trial.before.1, trial.now.1),
                over: self.clock.now().since(trial.rollout.entered),
            },
            rollout: trial.rollout.clone(),
            nodes,
            connected,
        }
    }
}

fn sides<'a>(part: &Part, reports: impl Iterator<Item = (&'a str, u64)>) -> (u64, u64) {
    reports.fold((0, 0), |(staged, others), (node, count)| {
        match part.holds(node) {
            true => (staged + count, others),
            false => (staged, others + count),
        }
    })
}
