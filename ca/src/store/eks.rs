//! Certificates of TPM makers that operators imported, and what they said about single EKs.

use std::str::FromStr;

use edgeward_evidence::Digest;
use edgeward_identity::standing::UnknownWord;
use edgeward_identity::{Tier, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use super::nodes::bytes_column;
use super::{
    Store, StoreError, Tx, number_from_column, number_to_column, parse_column, time_from_column,
    to_column,
};

/// Most EKs on all lists together.
pub const MAX_EKS: i64 = 1_000_000;
/// The fact that every change of both tables raises: how the clouds of one store notice each other's.
const CHANGES: &str = "ek.number";

/// An imported certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EkCertificate {
    /// SHA-256 of the DER.
    pub sha256: Digest,
    pub der: Vec<u8>,
    pub tier: Tier,
    /// Version of the built-in list that knew it; 0: an operator's word.
    pub pinned: u64,
    pub sets_in_any_order: bool,
    pub after_its_end: bool,
    pub added: Timestamp,
    pub added_by: String,
}

/// What a list says about those on it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum EkList {
    /// EKs that need no certificate: tier `listed`.
    Allowed,
    /// EKs refused whatever their certificate says.
    Denied,
    /// EK certificates whose sets may be out of order.
    Encoding,
}

/// One EK on one list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEk {
    pub digest: Digest,
    pub list: EkList,
    pub note: String,
    pub added: Timestamp,
    pub added_by: String,
}

impl EkList {
    pub const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::Encoding];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Encoding => "encoding",
        }
    }
}

impl FromStr for EkList {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|list| list.as_str() == text)
            .ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

impl Store {
    pub async fn ek_certificates(&self) -> Result<Vec<EkCertificate>, StoreError> {
        sqlx::query(
            "SELECT sha256, der, tier, pinned, sets_in_any_order, after_its_end, added, added_by \
             FROM ek_certificates ORDER BY added, sha256",
        )
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(certificate_of)
        .collect()
    }

    pub async fn listed_eks(&self) -> Result<Vec<ListedEk>, StoreError> {
        sqlx::query(
            "SELECT digest, list, note, added, added_by FROM eks ORDER BY list, digest LIMIT $1",
        )
        .bind(MAX_EKS)
        .fetch_all(&mut *self.read().await?)
        .await?
        .iter()
        .map(listed_of)
        .collect()
    }

    /// Rises with every change of either table.
    pub async fn ek_changes(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT value FROM facts WHERE name = $1")
            .bind(CHANGES)
            .fetch_optional(&mut *self.read().await?)
            .await?;
        match row {
            None => Ok(0),
            Some(row) => parse_column("ek changes", row.try_get("value")?),
        }
    }
}

impl Tx {
    /// Adds a certificate, or puts another word about it in the place of the one before.
    pub async fn put_ek_certificate(&mut self, row: &EkCertificate) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO ek_certificates (sha256, der, tier, pinned, sets_in_any_order, after_its_end, added, added_by) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
             ON CONFLICT (sha256) DO UPDATE SET tier = excluded.tier, pinned = excluded.pinned, \
             sets_in_any_order = excluded.sets_in_any_order, after_its_end = excluded.after_its_end, \
             added = excluded.added, added_by = excluded.added_by",
        )
        .bind(row.sha256.to_string())
        .bind(hex::encode(&row.der))
        .bind(row.tier.as_str())
        .bind(number_to_column(row.pinned))
        .bind(i64::from(row.sets_in_any_order))
        .bind(i64::from(row.after_its_end))
        .bind(to_column(row.added))
        .bind(row.added_by.as_str())
        .execute(self.connection())
        .await?;
        self.ek_changed().await
    }

    /// Whether there was such a certificate.
    pub async fn remove_ek_certificate(&mut self, sha256: &Digest) -> Result<bool, StoreError> {
        let removed = sqlx::query("DELETE FROM ek_certificates WHERE sha256 = $1")
            .bind(sha256.to_string())
            .execute(self.connection())
            .await?
            .rows_affected();
        self.ek_changed().await?;
        Ok(removed == 1)
    }

    pub async fn put_ek(&mut self, row: &ListedEk) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO eks (digest, list, note, added, added_by) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (digest, list) DO UPDATE SET note = excluded.note, added = excluded.added, \
             added_by = excluded.added_by",
        )
        .bind(row.digest.to_string())
        .bind(row.list.as_str())
        .bind(row.note.as_str())
        .bind(to_column(row.added))
        .bind(row.added_by.as_str())
        .execute(self.connection())
        .await?;
        self.ek_changed().await
    }

    /// Whether it was on the list.
    pub async fn remove_ek(&mut self, list: EkList, digest: &Digest) -> Result<bool, StoreError> {
        let removed = sqlx::query("DELETE FROM eks WHERE digest = $1 AND list = $2")
            .bind(digest.to_string())
            .bind(list.as_str())
            .execute(self.connection())
            .await?
            .rows_affected();
        self.ek_changed().await?;
        Ok(removed == 1)
    }

    pub async fn count_eks(&mut self) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS number FROM eks")
            .fetch_one(self.connection())
            .await?;
        Ok(row.try_get("number")?)
    }

    async fn ek_changed(&mut self) -> Result<(), StoreError> {
        self.raise_number(CHANGES).await.map(drop)
    }
}

fn certificate_of(row: &AnyRow) -> Result<EkCertificate, StoreError> {
    Ok(EkCertificate {
        sha256: parse_column("ek certificate", row.try_get("sha256")?)?,
        der: bytes_column("ek certificate", row.try_get("der")?)?,
        tier: parse_column("tier", row.try_get("tier")?)?,
        pinned: number_from_column(row.try_get("pinned")?),
        sets_in_any_order: row.try_get::<i64, _>("sets_in_any_order")? != 0,
        after_its_end: row.try_get::<i64, _>("after_its_end")? != 0,
        added: time_from_column(row.try_get("added")?),
        added_by: row.try_get("added_by")?,
    })
}

fn listed_of(row: &AnyRow) -> Result<ListedEk, StoreError> {
    Ok(ListedEk {
        digest: parse_column("ek", row.try_get("digest")?)?,
        list: parse_column("ek list", row.try_get("list")?)?,
        note: row.try_get("note")?,
        added: time_from_column(row.try_get("added")?),
        added_by: row.try_get("added_by")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_tests;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    store_tests! {
        async fn every_change_is_noticed_and_what_was_removed_is_gone(store) {
            let before = store.ek_changes().await.unwrap();
            let certificate = EkCertificate {
                sha256: Digest::of(b"der"),
                der: b"der".to_vec(),
                tier: Tier::Hardware,
                pinned: 1,
                sets_in_any_order: true,
                after_its_end: false,
                added: NOW,
                added_by: "operator:li".to_owned(),
            };
            let mut tx = store.begin("test").await.unwrap();
            assert!(!tx.remove_ek_certificate(&certificate.sha256).await.unwrap());
            tx.put_ek_certificate(&certificate).await.unwrap();
            let again = EkCertificate { tier: Tier::Virtual, ..certificate.clone() };
            tx.put_ek_certificate(&again).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(store.ek_certificates().await.unwrap(), [again]);
            let put = store.ek_changes().await.unwrap();
            assert!(put > before);
            let mut tx = store.begin("test").await.unwrap();
            assert!(tx.remove_ek_certificate(&certificate.sha256).await.unwrap());
            tx.commit().await.unwrap();
            assert!(store.ek_certificates().await.unwrap().is_empty());
            assert!(store.ek_changes().await.unwrap() > put);
        }

        async fn an_ek_may_be_on_several_lists_and_is_once_on_each(store) {
            let on = |list, note: &str| ListedEk {
                digest: Digest::of(b"ek"),
                list,
                note: note.to_owned(),
                added: NOW,
                added_by: "operator:li".to_owned(),
            };
            let mut tx = store.begin("test").await.unwrap();
            tx.put_ek(&on(EkList::Allowed, "box 1")).await.unwrap();
            tx.put_ek(&on(EkList::Allowed, "box 2")).await.unwrap();
            tx.put_ek(&on(EkList::Denied, "")).await.unwrap();
            assert_eq!(tx.count_eks().await.unwrap(), 2);
            tx.commit().await.unwrap();
            let found = store.listed_eks().await.unwrap();
            assert_eq!(found, [on(EkList::Allowed, "box 2"), on(EkList::Denied, "")]);
            let mut tx = store.begin("test").await.unwrap();
            assert!(tx.remove_ek(EkList::Denied, &Digest::of(b"ek")).await.unwrap());
            assert!(!tx.remove_ek(EkList::Encoding, &Digest::of(b"ek")).await.unwrap());
            tx.commit().await.unwrap();
            assert_eq!(store.listed_eks().await.unwrap().len(), 1);
        }
    }
}
