//! Policies that come into force by stages: where each candidate stands, and what its nodes were denied.

use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_policy::space::Change;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{
    Store, StoreError, Tx, json_column, number_from_column, number_to_column, time_from_column,
    to_column, to_json_column,
};
use crate::rollout::{Phase, Plan, Rollout};

const COLUMNS: &str = "number, base, steps, hold, step, threshold, begun, entered, leaf, since, phase, why, watched, \
     change, return_signature";

impl Store {
    /// The candidate that is being tried.
    pub async fn open_rollout(&self) -> Result<Option<Rollout>, StoreError> {
        open(&mut *self.read().await?).await
    }

    /// Every policy that came by stages, by its number.
    pub async fn rollouts(&self) -> Result<BTreeMap<u64, Rollout>, StoreError> {
        let text = format!("SELECT {COLUMNS} FROM rollouts");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .fetch_all(&mut *self.read().await?)
            .await?;
        rows.iter()
            .map(|row| rollout_of(row).map(|rollout| (rollout.number, rollout)))
            .collect()
    }
}

impl Tx {
    pub async fn open_rollout(&mut self) -> Result<Option<Rollout>, StoreError> {
        open(self.connection()).await
    }

    /// Writes where a candidate stands.
    pub async fn put_rollout(&mut self, rollout: &Rollout) -> Result<(), StoreError> {
        let steps: Vec<u8> = rollout
            .plan
            .steps()
            .iter()
            .map(|percent| percent.get())
            .collect();
        let why = match &rollout.phase {
            Phase::Paused(why) => Some(why.as_str()),
            _ => None,
        };
        sqlx::query(
            "INSERT INTO rollouts (number, base, steps, hold, step, threshold, begun, entered, leaf, since, phase, \
             why, watched, change, return_signature) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
             ON CONFLICT (number) DO UPDATE SET step = excluded.step, threshold = excluded.threshold, \
             entered = excluded.entered, leaf = excluded.leaf, since = excluded.since, phase = excluded.phase, \
             why = excluded.why, watched = excluded.watched",
        )
        .bind(number_to_column(rollout.number))
        .bind(number_to_column(rollout.base))
        .bind(to_json_column(&steps))
        .bind(i64::try_from(rollout.plan.hold().as_millis()).unwrap_or(i64::MAX))
        .bind(i64::try_from(rollout.step).unwrap_or(i64::MAX))
        .bind(format!("{:016x}", rollout.threshold))
        .bind(to_column(rollout.begun))
        .bind(to_column(rollout.entered))
        .bind(rollout.leaf.map(number_to_column))
        .bind(to_column(rollout.since))
        .bind(rollout.phase.as_str())
        .bind(why)
        .bind(i64::from(rollout.watched))
        .bind(change_to_column(rollout.change))
        .bind(rollout.return_signature.as_deref())
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

async fn open(connection: &mut sqlx::AnyConnection) -> Result<Option<Rollout>, StoreError> {
    let text = format!(
        "SELECT {COLUMNS} FROM rollouts WHERE phase IN ('holding', 'paused') ORDER BY number DESC LIMIT 1"
    );
    sqlx::query(sqlx::AssertSqlSafe(text))
        .fetch_optional(connection)
        .await?
        .map(|row| rollout_of(&row))
        .transpose()
}

fn rollout_of(row: &AnyRow) -> Result<Rollout, StoreError> {
    let unreadable = |what, value: &str| StoreError::Unreadable {
        what,
        value: value.to_owned(),
    };
    let steps_text: &str = row.try_get("steps")?;
    let steps: Vec<u8> = json_column("stages", steps_text)?;
    let hold = Duration::from_millis(number_from_column(row.try_get("hold")?));
    let threshold: &str = row.try_get("threshold")?;
    let phase: &str = row.try_get("phase")?;
    let why: Option<String> = row.try_get("why")?;
    Ok(Rollout {
        number: number_from_column(row.try_get("number")?),
        base: number_from_column(row.try_get("base")?),
        plan: Plan::new(&steps, hold).map_err(|_| unreadable("stages", steps_text))?,
        step: usize::try_from(row.try_get::<i64, _>("step")?).unwrap_or(0),
        threshold: u64::from_str_radix(threshold, 16)
            .map_err(|_| unreadable("threshold", threshold))?,
        begun: time_from_column(row.try_get("begun")?),
        entered: time_from_column(row.try_get("entered")?),
        leaf: row
            .try_get::<Option<i64>, _>("leaf")?
            .map(number_from_column),
        since: time_from_column(row.try_get("since")?),
        phase: match phase {
            "holding" => Phase::Holding,
            "paused" => Phase::Paused(why.unwrap_or_default()),
            "done" => Phase::Done,
            "returned" => Phase::Returned,
            other => return Err(unreadable("phase", other)),
        },
        watched: row.try_get::<i64, _>("watched")? != 0,
        change: change_of(row.try_get("change")?)?,
        return_signature: row.try_get("return_signature")?,
    })
}

fn change_to_column(change: Change) -> &'static str {
    match change {
        Change::Same => "same",
        Change::Narrower => "narrower",
        Change::Wider => "wider",
        Change::Mixed => "mixed",
    }
}

fn change_of(text: &str) -> Result<Change, StoreError> {
    match text {
        "same" => Ok(Change::Same),
        "narrower" => Ok(Change::Narrower),
        "wider" => Ok(Change::Wider),
        "mixed" => Ok(Change::Mixed),
        other => Err(StoreError::Unreadable {
            what: "change",
            value: other.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use edgeward_identity::Timestamp;

    use super::*;
    use crate::store_tests;

    fn rollout(number: u64) -> Rollout {
        Rollout {
            number,
            base: number - 1,
            plan: Plan::new(&[10, 100], Duration::from_secs(300)).unwrap(),
            step: 0,
            threshold: u64::MAX - 1,
            begun: Timestamp::from_secs(7),
            entered: Timestamp::from_secs(8),
            leaf: None,
            since: Timestamp::from_secs(9),
            phase: Phase::Holding,
            watched: true,
            change: Change::Mixed,
            return_signature: Some("30".to_owned()),
        }
    }

    store_tests! {
        async fn a_stage_comes_back_as_it_was_written_until_it_has_ended(store) {
            assert_eq!(store.open_rollout().await.unwrap(), None);
            let first = rollout(2);
            let later = first.widened(u64::MAX, Some(4), Timestamp::from_secs(11)).paused("because");
            for written in [first.clone(), later, first.resumed(Timestamp::from_secs(12))] {
                let mut tx = store.begin("test").await.unwrap();
                tx.put_rollout(&written).await.unwrap();
                assert_eq!(tx.open_rollout().await.unwrap(), Some(written.clone()));
                tx.commit().await.unwrap();
                assert_eq!(store.open_rollout().await.unwrap(), Some(written));
            }
            for ended in [Phase::Done, Phase::Returned] {
                let mut tx = store.begin("test").await.unwrap();
                tx.put_rollout(&first.ended(ended.clone())).await.unwrap();
                tx.commit().await.unwrap();
                assert_eq!(store.open_rollout().await.unwrap(), None);
                assert_eq!(store.rollouts().await.unwrap()[&2].phase, ended);
            }
        }

    }
}
