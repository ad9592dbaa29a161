//! Alerts, what is to be said of them, silences, quarantines that rules asked for, and who looks at the log.

use std::time::Duration;

use edgeward_identity::Timestamp;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{
    Store, StoreError, Tx, json_column, number_from_column, number_to_column, parse_column,
    time_from_column, to_column, to_json_column,
};
use crate::alerts::act::Outcome;
use crate::alerts::book::{Alert, Silence, State};

/// Most alerts in one answer.
pub const MAX_LISTED: u32 = 1000;
/// Most silences that are kept.
pub const MAX_SILENCES: u32 = 500;
/// Most words that wait for one sink. What comes on top is counted and given up: the alert itself is kept.
pub const MAX_WAITING: i64 = 10_000;
/// The one duty there is.
const DUTY: &str = "alerts";

/// A word for a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub number: u64,
    pub sink: String,
    pub alert: u64,
    pub made: Timestamp,
    pub attempts: u32,
    pub next: Timestamp,
    /// Why it could not be said the last time.
    pub error: String,
    pub body: String,
}

/// A quarantine that a rule asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActRow {
    pub number: u64,
    pub alert: u64,
    pub node: String,
    pub leaf: u64,
    pub proof: String,
    pub made: Timestamp,
    pub outcome: Outcome,
}

/// How a sink stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub waiting: u64,
    pub dead: u64,
}

impl Store {
    /// Alerts in these states (all, where none is named), newest first.
    pub async fn alerts(&self, states: &[State], limit: u32) -> Result<Vec<Alert>, StoreError> {
        let named = |state: State| states.is_empty() || states.contains(&state);
        let [open, acknowledged, ended] = State::ALL.map(|state| match named(state) {
            true => state.as_str(),
            false => "",
        });
        sqlx::query(
            "SELECT body FROM alerts WHERE state IN ($1, $2, $3) ORDER BY number DESC LIMIT $4",
        )
        .bind(open)
        .bind(acknowledged)
        .bind(ended)
        .bind(i64::from(limit.min(MAX_LISTED)))
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(alert_of)
        .collect()
    }

    /// Every alert that is not over.
    pub async fn alerts_standing(&self) -> Result<Vec<Alert>, StoreError> {
        sqlx::query(
            "SELECT body FROM alerts WHERE state IN ('open', 'acknowledged') ORDER BY number",
        )
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(alert_of)
        .collect()
    }

    /// The last alert of a rule and key, over or not.
    pub async fn newest_alert(&self, rule: &str, key: &str) -> Result<Option<Alert>, StoreError> {
        sqlx::query(
            "SELECT body FROM alerts WHERE rule = $1 AND alert_key = $2 ORDER BY number DESC LIMIT 1",
        )
        .bind(rule)
        .bind(key)
        .fetch_optional(&mut *self.read().await?)
        .await?
        .as_ref()
        .map(alert_of)
        .transpose()
    }

    /// Silences that have not ended at `now`.
    pub async fn silences(&self, now: Timestamp) -> Result<Vec<Silence>, StoreError> {
        sqlx::query("SELECT body FROM alert_silences WHERE until > $1 ORDER BY number LIMIT $2")
            .bind(to_column(now))
            .bind(i64::from(MAX_SILENCES))
            .fetch_all(&mut *self.read().await?)
            .await?
            .iter()
            .map(|row| json_column("silence", row.try_get("body")?))
            .collect()
    }

    /// The oldest word that waits for a sink.
    pub async fn next_notice(&self, sink: &str) -> Result<Option<Notice>, StoreError> {
        sqlx::query(
            "SELECT number, sink, alert, made, attempts, next, error, body FROM alert_notices \
             WHERE sink = $1 AND state = 'waiting' ORDER BY number LIMIT 1",
        )
        .bind(sink)
        .fetch_optional(&mut *self.read().await?)
        .await?
        .as_ref()
        .map(notice_of)
        .transpose()
    }

    pub async fn notices_of(&self, sink: &str) -> Result<Waiting, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(CASE WHEN state = 'waiting' THEN 1 END) AS waiting, \
             COUNT(CASE WHEN state = 'dead' THEN 1 END) AS dead FROM alert_notices WHERE sink = $1",
        )
        .bind(sink)
        .fetch_one(&mut *self.read().await?)
        .await?;
        Ok(Waiting {
            waiting: number_from_column(row.try_get("waiting")?),
            dead: number_from_column(row.try_get("dead")?),
        })
    }

    /// Quarantines that were intended and not performed yet.
    pub async fn acts_intended(&self) -> Result<Vec<ActRow>, StoreError> {
        sqlx::query(
            "SELECT number, alert, node, leaf, proof, made, outcome FROM alert_acts \
             WHERE outcome = 'intended' ORDER BY number LIMIT 100",
        )
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(act_of)
        .collect()
    }

    /// Who has the duty.
    pub async fn alert_duty(&self) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT holder FROM alert_duty WHERE name = $1")
            .bind(DUTY)
            .fetch_optional(&mut *self.read().await?)
            .await?;
        Ok(row.map(|row| row.try_get("holder")).transpose()?)
    }

    /// How far the log was looked at; none before the first look.
    pub async fn alert_position(&self) -> Result<Option<u64>, StoreError> {
        let row = sqlx::query("SELECT leaf FROM alert_duty WHERE name = $1")
            .bind(DUTY)
            .fetch_optional(&mut *self.read().await?)
            .await?;
        Ok(row
            .map(|row| row.try_get::<i64, _>("leaf"))
            .transpose()?
            .and_then(|leaf| u64::try_from(leaf).ok()))
    }
}

impl Tx {
    /// Takes the duty, or keeps it; false while another cloud has it.
    pub async fn take_alert_duty(
        &mut self,
        holder: &str,
        now: Timestamp,
        lasts: Duration,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO alert_duty (name, holder, until, leaf) VALUES ($1, $2, $3, -1) \
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until \
             WHERE alert_duty.holder = excluded.holder OR alert_duty.until <= $4",
        )
        .bind(DUTY)
        .bind(holder)
        .bind(to_column(now.plus(lasts)))
        .bind(to_column(now))
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Until when somebody has the duty, or had it; none if nobody ever did.
    pub async fn alert_duty_until(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let row = sqlx::query("SELECT until FROM alert_duty WHERE name = $1")
            .bind(DUTY)
            .fetch_optional(self.connection())
            .await?;
        let until: Option<i64> = row.map(|row| row.try_get("until")).transpose()?;
        Ok(until.map(time_from_column))
    }

    /// Moves the position; false if this holder does not have the duty any more. Never backwards.
    pub async fn move_alert_position(
        &mut self,
        holder: &str,
        leaf: u64,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE alert_duty SET leaf = $1 WHERE name = $2 AND holder = $3 AND leaf <= $1",
        )
        .bind(number_to_column(leaf))
        .bind(DUTY)
        .bind(holder)
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    pub async fn put_alert(&mut self, alert: &Alert) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO alerts (number, rule, alert_key, severity, state, last, body) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (number) DO UPDATE SET \
             severity = excluded.severity, state = excluded.state, last = excluded.last, body = excluded.body",
        )
        .bind(number_to_column(alert.number))
        .bind(alert.rule.as_str())
        .bind(alert.key.as_str())
        .bind(alert.severity.as_str())
        .bind(alert.state.as_str())
        .bind(to_column(alert.last))
        .bind(to_json_column(alert))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    pub async fn alert(&mut self, number: u64) -> Result<Option<Alert>, StoreError> {
        sqlx::query("SELECT body FROM alerts WHERE number = $1")
            .bind(number_to_column(number))
            .fetch_optional(self.connection())
            .await?
            .as_ref()
            .map(alert_of)
            .transpose()
    }

    /// The alert of a rule and key that is not over.
    pub async fn alert_standing(
        &mut self,
        rule: &str,
        key: &str,
    ) -> Result<Option<Alert>, StoreError> {
        sqlx::query(
            "SELECT body FROM alerts WHERE rule = $1 AND alert_key = $2 AND state IN ('open', 'acknowledged') \
             ORDER BY number DESC LIMIT 1",
        )
        .bind(rule)
        .bind(key)
        .fetch_optional(self.connection())
        .await?
        .as_ref()
        .map(alert_of)
        .transpose()
    }

    /// How many alerts of a rule are not over.
    pub async fn alerts_of_rule(&mut self, rule: &str) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS n FROM alerts WHERE rule = $1 AND state IN ('open', 'acknowledged')",
        )
        .bind(rule)
        .fetch_one(self.connection())
        .await?;
        Ok(number_from_column(row.try_get("n")?))
    }

    /// Puts a word in a sink's queue; false if too many wait there.
    pub async fn add_notice(&mut self, notice: &Notice) -> Result<bool, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS n FROM alert_notices WHERE sink = $1 AND state = 'waiting'",
        )
        .bind(notice.sink.as_str())
        .fetch_one(self.connection())
        .await?;
        if row.try_get::<i64, _>("n")? >= MAX_WAITING {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO alert_notices (number, sink, alert, state, made, attempts, next, error, body) \
             VALUES ($1, $2, $3, 'waiting', $4, 0, $4, '', $5)",
        )
        .bind(number_to_column(notice.number))
        .bind(notice.sink.as_str())
        .bind(number_to_column(notice.alert))
        .bind(to_column(notice.made))
        .bind(notice.body.as_str())
        .execute(self.connection())
        .await?;
        Ok(true)
    }

    /// The sink has taken it.
    pub async fn end_notice(&mut self, number: u64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM alert_notices WHERE number = $1")
            .bind(number_to_column(number))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// It could not be said: tried again at `next`, or given up.
    pub async fn fail_notice(
        &mut self,
        number: u64,
        next: Option<Timestamp>,
        error: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE alert_notices SET attempts = attempts + 1, state = $1, next = $2, error = $3 WHERE number = $4",
        )
        .bind(if next.is_some() { "waiting" } else { "dead" })
        .bind(to_column(next.unwrap_or_default()))
        .bind(error)
        .bind(number_to_column(number))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    pub async fn put_silence(&mut self, silence: &Silence) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO alert_silences (number, until, body) VALUES ($1, $2, $3) \
             ON CONFLICT (number) DO UPDATE SET until = excluded.until, body = excluded.body",
        )
        .bind(number_to_column(silence.number))
        .bind(to_column(silence.until))
        .bind(to_json_column(silence))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// How many silences have not ended at `now`.
    pub async fn count_silences(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS n FROM alert_silences WHERE until > $1")
            .bind(to_column(now))
            .fetch_one(self.connection())
            .await?;
        Ok(number_from_column(row.try_get("n")?))
    }

    pub async fn silence(&mut self, number: u64) -> Result<Option<Silence>, StoreError> {
        sqlx::query("SELECT body FROM alert_silences WHERE number = $1")
            .bind(number_to_column(number))
            .fetch_optional(self.connection())
            .await?
            .map(|row| json_column("silence", row.try_get("body")?))
            .transpose()
    }

    pub async fn add_act(&mut self, act: &ActRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO alert_acts (number, alert, node, leaf, proof, made, outcome) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(number_to_column(act.number))
        .bind(number_to_column(act.alert))
        .bind(act.node.as_str())
        .bind(number_to_column(act.leaf))
        .bind(act.proof.as_str())
        .bind(to_column(act.made))
        .bind(act.outcome.as_str())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Ends what was intended; false if it has ended before.
    pub async fn end_act(&mut self, number: u64, outcome: Outcome) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE alert_acts SET outcome = $1 WHERE number = $2 AND outcome = 'intended'",
        )
        .bind(outcome.as_str())
        .bind(number_to_column(number))
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// How many quarantines were performed, or are to be, since a time.
    pub async fn acts_since(&mut self, since: Timestamp) -> Result<u32, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS n FROM alert_acts WHERE made > $1 AND outcome IN ('intended', 'quarantined', 'failed')",
        )
        .bind(to_column(since))
        .fetch_one(self.connection())
        .await?;
        Ok(u32::try_from(row.try_get::<i64, _>("n")?).unwrap_or(u32::MAX))
    }

    /// Whether a quarantine of this node waits to be performed.
    pub async fn is_intended(&mut self, node: &str) -> Result<bool, StoreError> {
        let row = sqlx::query(
            "SELECT number FROM alert_acts WHERE node = $1 AND outcome = 'intended' LIMIT 1",
        )
        .bind(node)
        .fetch_optional(self.connection())
        .await?;
        Ok(row.is_some())
    }

    /// Forgets what was over before `before`.
    pub async fn prune_alerts(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        let mut pruned = 0;
        for sql in [
            "DELETE FROM alerts WHERE state = 'ended' AND last < $1",
            "DELETE FROM alert_notices WHERE state = 'dead' AND made < $1",
            "DELETE FROM alert_silences WHERE until < $1",
            "DELETE FROM alert_acts WHERE made < $1",
        ] {
            let done = sqlx::query(sql)
                .bind(to_column(before))
                .execute(self.connection())
                .await?;
            pruned += done.rows_affected();
        }
        Ok(pruned)
    }
}

fn alert_of(row: &AnyRow) -> Result<Alert, StoreError> {
    json_column("alert", row.try_get("body")?)
}

fn notice_of(row: &AnyRow) -> Result<Notice, StoreError> {
    Ok(Notice {
        number: number_from_column(row.try_get("number")?),
        sink: row.try_get("sink")?,
        alert: number_from_column(row.try_get("alert")?),
        made: time_from_column(row.try_get("made")?),
        attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
        next: time_from_column(row.try_get("next")?),
        error: row.try_get("error")?,
        body: row.try_get("body")?,
    })
}

fn act_of(row: &AnyRow) -> Result<ActRow, StoreError> {
    Ok(ActRow {
        number: number_from_column(row.try_get("number")?),
        alert: number_from_column(row.try_get("alert")?),
        node: row.try_get("node")?,
        leaf: number_from_column(row.try_get("leaf")?),
        proof: row.try_get("proof")?,
        made: time_from_column(row.try_get("made")?),
        outcome: parse_column("outcome of a quarantine", row.try_get("outcome")?)?,
    })
}
