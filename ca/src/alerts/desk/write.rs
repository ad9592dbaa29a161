//! What hits make: alerts, their events, words for sinks.

use std::collections::BTreeMap;

use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_identity::Timestamp;

use super::{Cutter, Desk, Halted, NUMBER};
use crate::alerts::act::Fact;
use crate::alerts::book::{Alert, MAX_OPEN_OF_RULE, Silence, Word};
use crate::alerts::engine::{Hit, OTHERS};
use crate::alerts::rule::Rule;
use crate::alerts::say;
use crate::store::Tx;
use crate::store::alerts::Notice;

/// Hits of one alert as one, and all that was proved with them.
pub(super) struct Batched {
    hit: Hit,
    facts: Vec<(Fact, u64)>,
}

/// An alert is written once in a turn, however many events made it. What is proved is proved of one node each time.
pub(super) fn together(hits: Vec<Hit>) -> Vec<Batched> {
    let mut order: Vec<Batched> = Vec::new();
    let mut known: BTreeMap<(String, String, bool), usize> = BTreeMap::new();
    for hit in hits {
        let fact = hit.fact.clone().zip(hit.leaf);
        let key = (hit.rule.clone(), hit.key.clone(), hit.over);
        match known.get(&key).and_then(|index| order.get_mut(*index)) {
            Some(batched) => {
                let times = batched.hit.times.saturating_add(hit.times);
                batched.hit = Hit { times, ..hit };
                batched.facts.extend(fact);
            }
            None => {
                // What was over in between is a new alert.
                known.retain(|(rule, about, _), _| *rule != key.0 || *about != key.1);
                known.insert(key, order.len());
                order.push(Batched {
                    hit,
                    facts: fact.into_iter().collect(),
                });
            }
        }
    }
    order
}

impl Desk {
    /// Everything that follows, and the position, or nothing of it.
    pub(super) async fn write(
        &self,
        hits: Vec<Batched>,
        next: u64,
        cutter: &dyn Cutter,
    ) -> Result<(), Halted> {
        let now = self.clock.now();
        let silences = self.store.silences(now).await?;
        let mut tx = self.store.begin("alerts.write").await?;
        self.moved(&mut tx, next).await?;
        for batched in hits {
            let Some(rule) = self.rules.get(&batched.hit.rule) else {
                continue;
            };
            self.write_hit(&mut tx, rule, batched, &silences, cutter)
                .await?;
        }
        tx.commit().await?;
        self.said.notify_waiters();
        Ok(())
    }

    async fn write_hit(
        &self,
        tx: &mut Tx,
        rule: &Rule,
        batched: Batched,
        silences: &[Silence],
        cutter: &dyn Cutter,
    ) -> Result<(), Halted> {
        let Batched { mut hit, facts } = batched;
        let mut standing = tx.alert_standing(&rule.name, &hit.key).await?;
        if hit.over {
            if let Some(mut alert) = standing {
                self.end(tx, &mut alert, hit.at).await?;
            }
            return Ok(());
        }
        if standing.is_none() && tx.alerts_of_rule(&rule.name).await? >= u64::from(MAX_OPEN_OF_RULE)
        {
            OTHERS.clone_into(&mut hit.key);
            standing = tx.alert_standing(&rule.name, OTHERS).await?;
        }
        let is_new = standing.is_none();
        let (mut alert, word) = match standing {
            Some(mut alert) => {
                let word = alert.hit(rule, &hit, silences);
                (alert, word)
            }
            None => Alert::open(tx.raise_number(NUMBER).await?, rule, &hit, silences),
        };
        for (fact, leaf) in facts {
            if rule.quarantine {
                self.intend(tx, &mut alert, (fact, leaf), cutter).await?;
            }
        }
        tx.put_alert(&alert).await?;
        if is_new {
            metrics::counter!("edgeward_audit_alerts_total", "severity" => alert.severity.as_str())
                .increment(1);
            tracing::warn!(alert = alert.number, rule = %alert.rule, severity = %alert.severity,
                about = %alert.key, what = %alert.what, "alert: {}", alert.summary);
            let event = told(&alert, EventKind::AlertRaised, hit.at)
                .detail("silenced", word.is_none())
                .detail("what", &alert.what);
            self.audit.record_in(tx, event).await?;
        }
        match word {
            Some(word) => self.queue(tx, &alert, word, hit.at).await,
            None => Ok(()),
        }
    }

    pub(super) async fn end(
        &self,
        tx: &mut Tx,
        alert: &mut Alert,
        now: Timestamp,
    ) -> Result<(), Halted> {
        let word = alert.end(now);
        tx.put_alert(alert).await?;
        let event = told(alert, EventKind::AlertEnded, now).detail("hits", alert.hits);
        self.audit.record_in(tx, event).await?;
        match word {
            Some(word) => self.queue(tx, alert, word, now).await,
            None => Ok(()),
        }
    }

    async fn queue(
        &self,
        tx: &mut Tx,
        alert: &Alert,
        word: Word,
        now: Timestamp,
    ) -> Result<(), Halted> {
        let sinks = self.config.sinks.iter();
        for sink in sinks.filter(|sink| alert.severity >= sink.least) {
            let notice = Notice {
                number: tx.raise_number(NUMBER).await?,
                sink: sink.name.clone(),
                alert: alert.number,
                made: now,
                attempts: 0,
                next: now,
                error: String::new(),
                body: say::body(self.audit.keeper(), alert, word, now),
            };
            if !tx.add_notice(&notice).await? {
                metrics::counter!("edgeward_audit_alert_notices_total", "sink" => sink.name.clone(), "outcome" => "left_out")
                    .increment(1);
                tracing::error!(sink = %sink.name, alert = alert.number, "alerts: too many words wait for this sink");
            }
        }
        Ok(())
    }
}

fn told(alert: &Alert, kind: EventKind, now: Timestamp) -> Event {
    let event = Event::new(now, Actor::Cloud, kind)
        .subject(format!("alert {}", alert.number).as_str())
        .code(&alert.rule)
        .detail("severity", alert.severity);
    let event = match alert.key.is_empty() {
        true => event,
        false => event.detail("about", &alert.key),
    };
    match &alert.act {
        Some(act) => event.detail("quarantine", act),
        None => event,
    }
}
