//! The turns of each boot's journal key that hold: what turns that come late are checked against.

use edgeward_audit::digest::Digest;
use edgeward_audit::record::{BootId, KeyChain, KeyTurn};
use edgeward_identity::{PublicKey, SpiffeId};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::store::{StoreError, Tx, number_from_column, number_to_column, parse_column};

/// Most turns of one boot that are kept: of more than four million records the oldest are checked already.
pub const MAX_TURNS: i64 = 4096;
/// How often the older ones are let go, in turns.
const PRUNE_EVERY: u32 = 64;

/// A turn in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnRow {
    pub seq: u64,
    /// Hash of the record before.
    pub prev: Digest,
    pub turn: KeyTurn,
    /// The turn before was missing.
    pub trusted: bool,
}

impl TurnRow {
    /// The key that it leads to.
    pub fn chain(&self) -> KeyChain {
        KeyChain {
            number: self.turn.number,
            key: self.turn.key,
            seq: self.seq,
        }
    }
}

impl Tx {
    /// The last turn of a boot before `seq`.
    pub async fn turn_before(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
        seq: u64,
    ) -> Result<Option<TurnRow>, StoreError> {
        let text = "SELECT seq, number, public_key, signature, prev, trusted FROM journal_turns \
             WHERE node = $1 AND boot = $2 AND seq < $3 ORDER BY seq DESC LIMIT 1";
        self.turn(text, node, boot, seq).await
    }

    /// The first turn of a boot behind `seq`.
    pub async fn turn_behind(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
        seq: u64,
    ) -> Result<Option<TurnRow>, StoreError> {
        let text = "SELECT seq, number, public_key, signature, prev, trusted FROM journal_turns \
             WHERE node = $1 AND boot = $2 AND seq > $3 ORDER BY seq LIMIT 1";
        self.turn(text, node, boot, seq).await
    }

    /// Keeps a turn, or what is known of it by now.
    pub async fn keep_turn(
        &mut self,
        node: &SpiffeId,
        boot: BootId,
        row: &TurnRow,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO journal_turns (node, boot, seq, number, public_key, signature, prev, trusted) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (node, boot, seq) DO UPDATE SET \
             trusted = excluded.trusted",
        )
        .bind(node.to_string())
        .bind(boot.to_string())
        .bind(number_to_column(row.seq))
        .bind(i64::from(row.turn.number))
        .bind(hex::encode(row.turn.key.point()))
        .bind(hex::encode(row.turn.signature()))
        .bind(row.prev.to_string())
        .bind(i64::from(row.trusted))
        .execute(self.connection())
        .await?;
        if row.turn.number.is_multiple_of(PRUNE_EVERY) {
            sqlx::query(
                "DELETE FROM journal_turns WHERE node = $1 AND boot = $2 AND seq < (SELECT seq FROM journal_turns \
                 WHERE node = $1 AND boot = $2 ORDER BY seq DESC LIMIT 1 OFFSET $3)",
            )
            .bind(node.to_string())
            .bind(boot.to_string())
            .bind(MAX_TURNS)
            .execute(self.connection())
            .await?;
        }
        Ok(())
    }

    async fn turn(
        &mut self,
        text: &'static str,
        node: &SpiffeId,
        boot: BootId,
        seq: u64,
    ) -> Result<Option<TurnRow>, StoreError> {
        sqlx::query(text)
            .bind(node.to_string())
            .bind(boot.to_string())
            .bind(number_to_column(seq))
            .fetch_optional(self.connection())
            .await?
            .map(|row| turn_of(&row))
            .transpose()
    }
}

fn turn_of(row: &AnyRow) -> Result<TurnRow, StoreError> {
    let unreadable = |value: &str| StoreError::Unreadable {
        what: "turn of a journal's key",
        value: value.to_owned(),
    };
    let bytes = |name| -> Result<Vec<u8>, StoreError> {
        let text: String = row.try_get(name)?;
        hex::decode(&text).map_err(|_| unreadable(&text))
    };
    let number: i64 = row.try_get("number")?;
    let number = u32::try_from(number).map_err(|_| unreadable(&number.to_string()))?;
    let key = PublicKey::from_point(&bytes("public_key")?).map_err(|_| unreadable("key"))?;
    Ok(TurnRow {
        seq: number_from_column(row.try_get("seq")?),
        prev: parse_column("hash", row.try_get("prev")?)?,
        turn: KeyTurn::from_parts(number, key, bytes("signature")?),
        trusted: row.try_get::<i64, _>("trusted")? != 0,
    })
}
