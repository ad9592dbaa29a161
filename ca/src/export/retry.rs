//! What a receiver refused, given to it once more when an operator asks for it.

use std::time::Instant;

use edgeward_audit::export::Exported;
use tokio_util::sync::CancellationToken;

use super::pump::{Left, Pump, exported};
use super::sink::{Given, NotGiven};
use crate::store::StoreError;
use crate::store::audit::StoredEvent;
use crate::store::exports::{ExportRow, Refused};

/// What became of it.
enum Outcome {
    Taken,
    Refused(String),
}

impl Pump {
    /// Gives the first of what somebody asked for. An event that is refused again stays aside, and holds up nothing; a
    /// receiver that is away is waited for as for any other event.
    pub(super) async fn retry(
        &mut self,
        row: &mut ExportRow,
        stop: &CancellationToken,
    ) -> Result<(), Left> {
        let wanted = match self.wanted().await {
            Ok(Some(wanted)) => wanted,
            Ok(None) => {
                self.looked = Instant::now();
                return Ok(());
            }
            Err(error) => {
                self.looked = Instant::now();
                tracing::warn!(export = self.export.name, %error, "what is to be given again cannot be read");
                return Ok(());
            }
        };
        let (refused, events, pruned) = wanted;
        let outcome = match self.give_again(&events).await {
            Ok(outcome) => without_pruned(outcome, &refused, pruned),
            Err(down) => {
                self.looked = Instant::now();
                return self.failed(row, down, stop).await;
            }
        };
        if let Err(error) = self.note_retry(row, &refused, outcome).await {
            self.looked = Instant::now();
            tracing::warn!(export = self.export.name, %error, "what was given again cannot be noted");
        }
        Ok(())
    }

    /// What is to be given, what is left of it, and the index below which it was pruned, if some of it was.
    async fn wanted(&self) -> Result<Option<(Refused, Vec<StoredEvent>, Option<u64>)>, StoreError> {
        let Some(refused) = self.store.next_retry(&self.export.name).await? else {
            return Ok(None);
        };
        let count = refused.last.saturating_sub(refused.first).saturating_add(1);
        let limit = u32::try_from(count).unwrap_or(u32::MAX);
        // Covered long ago: this does not wait.
        let mut events = self
            .feed
            .clone()
            .next(refused.first.checked_sub(1), limit)
            .await?;
        events.retain(|event| {
            event.index <= refused.last
                && (self.export.kinds.as_ref())
                    .is_none_or(|kinds| kinds.contains(&event.event.kind))
        });
        // Asked afterwards: what is pruned meanwhile is not among the events.
        let minimum = self.store.minimum_index().await?;
        let pruned = (refused.first < minimum).then_some(minimum);
        Ok(Some((refused, events, pruned)))
    }

    async fn give_again(&mut self, events: &[StoredEvent]) -> Result<Outcome, NotGiven> {
        let exported: Vec<Exported<'_>> = events.iter().map(exported).collect();
        // Erased meanwhile, or not asked for any more: there is nothing to give.
        if exported.is_empty() {
            return Ok(Outcome::Taken);
        }
        match self.sink.give(&self.export, &exported).await {
            Ok(Given::But { rejected, reason }) if rejected > 0 => Ok(Outcome::Refused(reason)),
            Ok(_) => Ok(Outcome::Taken),
            Err(NotGiven::Refused { why }) => Ok(Outcome::Refused(why)),
            Err(down) => Err(down),
        }
    }

    async fn note_retry(
        &mut self,
        row: &mut ExportRow,
        refused: &Refused,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        let name = &self.export.name;
        let mut tx = self.store.begin("export.retry").await?;
        let is_taken = matches!(outcome, Outcome::Taken);
        match outcome {
            Outcome::Taken => tx.end_refused(name, refused.first).await?,
            Outcome::Refused(why) => {
                tx.keep_refusing(name, refused.first, &why, self.clock.now())
                    .await?;
            }
        }
        tx.commit().await?;
        if is_taken {
            row.refused = row.refused.saturating_sub(refused.count);
            self.changed = true;
        }
        let outcome = if is_taken { "taken" } else { "refused" };
        metrics::counter!("edgeward_audit_export_retries_total", "export" => name.clone(), "outcome" => outcome)
            .increment(1);
        Ok(())
    }
}

/// What is pruned nobody takes any more: it stays refused, for whoever looks for what is missing.
fn without_pruned(outcome: Outcome, refused: &Refused, pruned: Option<u64>) -> Outcome {
    let Some(minimum) = pruned else {
        return outcome;
    };
    let first = refused.first;
    let rest = match (refused.last < minimum, outcome) {
        (true, _) => return Outcome::Refused(format!("pruned: {first} to {}", refused.last)),
        (false, Outcome::Taken) => "what is kept was taken".to_owned(),
        (false, Outcome::Refused(why)) => format!("what is kept was refused: {why}"),
    };
    Outcome::Refused(format!("pruned: {first} to {}; {rest}", minimum - 1))
}
