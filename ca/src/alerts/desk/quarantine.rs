//! Quarantines that rules ask for: intended with the alert, performed after it is written.

use super::{Cutter, Desk, Halted, NUMBER};
use crate::alerts::act::{CAP_WINDOW, Fact, Outcome, decide, is_fresh};
use crate::alerts::book::Alert;
use crate::store::alerts::ActRow;
use crate::store::{StoreError, Tx};

impl Desk {
    pub(super) async fn intend(
        &self,
        tx: &mut Tx,
        alert: &mut Alert,
        (fact, leaf): (Fact, u64),
        cutter: &dyn Cutter,
    ) -> Result<(), Halted> {
        let now = self.clock.now();
        let node = fact.node.name();
        if tx.is_intended(node).await? {
            return Ok(());
        }
        let lately = tx.acts_since(now.minus(CAP_WINDOW)).await?;
        let fixed = self.config.quarantine_per_hour;
        let outcome = match is_fresh(fact.at, now) {
            true => decide(lately, cutter.active(), fixed, self.config.quarantine),
            false => Outcome::TooOld,
        };
        alert.act = Some(format!("{} {node}", outcome.as_str()));
        let act = ActRow {
            number: tx.raise_number(NUMBER).await?,
            alert: alert.number,
            node: node.to_owned(),
            leaf,
            proof: fact.proof.as_str().to_owned(),
            made: now,
            outcome,
        };
        tx.add_act(&act).await?;
        if outcome != Outcome::Intended {
            note_act(&act, outcome);
        }
        Ok(())
    }

    /// Cuts off whoever is to be cut off. What cannot be written stays intended, and is tried again while it is news.
    pub(super) async fn perform(&self, cutter: &dyn Cutter) -> Result<(), Halted> {
        for act in self.store.acts_intended().await? {
            let outcome = match is_fresh(act.made, self.clock.now()) {
                true => {
                    let why = format!(
                        "alert {}: the node itself signed it ({}), event {}",
                        act.alert, act.proof, act.leaf
                    );
                    cutter.quarantine(&act, &why).await
                }
                false => Outcome::TooOld,
            };
            if outcome == Outcome::Failed {
                continue;
            }
            note_act(&act, outcome);
            let mut tx = self.store.begin("alerts.act").await?;
            end_act(&mut tx, &act, outcome).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

/// Says in the store what became of an act, and in its alert. What has ended stays as it ended.
pub(crate) async fn end_act(tx: &mut Tx, act: &ActRow, outcome: Outcome) -> Result<(), StoreError> {
    if !tx.end_act(act.number, outcome).await? {
        return Ok(());
    }
    if let Some(mut alert) = tx.alert(act.alert).await? {
        alert.act = Some(format!("{} {}", outcome.as_str(), act.node));
        tx.put_alert(&alert).await?;
    }
    Ok(())
}

fn note_act(act: &ActRow, outcome: Outcome) {
    metrics::counter!("edgeward_audit_alert_acts_total", "outcome" => outcome.as_str())
        .increment(1);
    tracing::error!(node = %act.node, alert = act.alert, proof = %act.proof, event = act.leaf,
        outcome = outcome.as_str(), "automatic quarantine");
}
