//! What a desk counts on with: the last stretch of the log, read once more when it begins.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use edgeward_audit::block::BLOCK_LEAVES;
use edgeward_audit::event::EventKind;
use edgeward_identity::Timestamp;

use super::{BATCH, Desk, Halted, count, seen};
use crate::alerts::engine::Engine;
use crate::store::StoreError;
use crate::store::audit::StoredEvent;

/// About how many events that rules look at are read again, at most: what is older is not counted.
const MAX_REPLAY: u64 = 200_000;
/// Leaves of the first stretch, counted from the end, in which they are looked for; as many as may be read in any case.
const STRETCH: u64 = MAX_REPLAY;

impl Desk {
    /// An engine that has seen what came in the longest time of its rules before `stood`, when somebody looked at the log
    /// last: what came since then, with nobody there, comes on top.
    pub(super) async fn replayed(&self, next: u64, stood: Timestamp) -> Result<Engine, Halted> {
        let now = self.clock.now();
        let kinds = self.rules.kinds();
        let from = stood.minus(self.rules.longest());
        let start = self.start_of(&kinds, next, from).await?;
        let mut engine = Engine::new(&self.rules, from);
        let unread = self
            .walk(&kinds, (start, next), |event| {
                if event.received >= from {
                    engine.observe(seen(event));
                    engine.forget();
                }
                ControlFlow::Continue(())
            })
            .await?;
        metrics::gauge!("edgeward_audit_alerts_unread").set(count(unread));
        // What was missed and said is not said again, though its alert may have ended since. What was due only while nobody
        // looked, or was to be given time, is still to be said.
        for (rule, key, due) in engine.overdue(stood) {
            let said = self.store.newest_alert(&rule, &key).await?;
            if said.is_some_and(|alert| alert.holds && alert.last >= due) {
                engine.is_missed(&rule, &key);
            }
        }
        for alert in self.store.alerts_standing().await? {
            if alert.holds {
                engine.is_missed(&alert.rule, &alert.key);
            }
        }
        engine.resume(now);
        Ok(engine)
    }

    /// The leaf from which on it is read: as far back as `from`, but no more than about [`MAX_REPLAY`] that count. Events of
    /// other kinds, however many, are no reason to read less.
    async fn start_of(
        &self,
        kinds: &BTreeSet<EventKind>,
        next: u64,
        from: Timestamp,
    ) -> Result<u64, Halted> {
        let (mut start, mut stretch, mut found) = (next, STRETCH, 0_u64);
        while start > 0 && found < MAX_REPLAY {
            let first = start.saturating_sub(stretch);
            let (mut here, mut is_old) = (0_u64, false);
            self.walk(kinds, (first, start), |event| {
                is_old |= event.received < from;
                here += u64::from(event.received >= from);
                // In the smallest stretch there are never too many.
                match stretch > STRETCH && found + here > MAX_REPLAY {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })
            .await?;
            if stretch > STRETCH && found + here > MAX_REPLAY {
                stretch /= 2;
                continue;
            }
            (start, found) = (first, found + here);
            if is_old {
                break;
            }
            stretch = stretch.saturating_mul(2);
        }
        Ok(start)
    }

    /// Gives each event of these kinds from leaf `first` until before `end`. A block that cannot be read is left out: alerts about
    /// what comes are worth more than a count that is whole. Says how many were.
    async fn walk(
        &self,
        kinds: &BTreeSet<EventKind>,
        (first, end): (u64, u64),
        mut each: impl FnMut(&StoredEvent) -> ControlFlow<()>,
    ) -> Result<u64, Halted> {
        let (mut next, mut until, mut unread) = (first, end, 0);
        while next < end {
            let after = next.checked_sub(1);
            match self.store.events_of(kinds, after, until, BATCH).await {
                Ok((events, more)) => {
                    for event in &events {
                        if each(event).is_break() {
                            return Ok(unread);
                        }
                    }
                    let last = events.last().filter(|_| more).map(|event| event.index + 1);
                    let wide = (until - next).saturating_mul(2);
                    next = last.unwrap_or(until);
                    if last.is_none() {
                        until = next.saturating_add(wide).min(end);
                    }
                }
                Err(error @ (StoreError::Unreadable { .. } | StoreError::NoSiteKey { .. })) => {
                    let (block, last) = (next / BLOCK_LEAVES, (until - 1) / BLOCK_LEAVES);
                    if block < last {
                        until = (block + (last - block).div_ceil(2)) * BLOCK_LEAVES;
                        continue;
                    }
                    tracing::error!(%error, from = next, until, "alerts: events cannot be read again, and are not counted");
                    unread += 1;
                    next = until;
                    until = next.saturating_add(BLOCK_LEAVES).min(end);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(unread)
    }
}
