//! Which authority signed what, and which trust bundle each node holds.

use std::collections::BTreeMap;

use edgeward_identity::{SpkiHash, Timestamp};
use sqlx::Row;

use super::{Store, StoreError, Tx, number_from_column, number_to_column, parse_column, to_column};
use crate::issue::Issued;

/// What a node was last seen with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeTrust {
    /// Sequence of the trust bundle that it stored; 0: it never said.
    pub bundle: u64,
    /// Who signed the certificate that it came with.
    pub issuer: SpkiHash,
}

/// Certificates of one authority that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    pub live: u64,
    /// Identities other than nodes whose newest certificate is this authority's.
    pub relying: Vec<String>,
}

impl Store {
    /// Every node's.
    pub async fn node_trust(&self) -> Result<BTreeMap<String, NodeTrust>, StoreError> {
        let rows = sqlx::query("SELECT node, bundle, issuer FROM node_trust")
            .fetch_all(&mut *self.read().await?)
            .await?;
        rows.iter()
            .map(|row| {
                let trust = NodeTrust {
                    bundle: number_from_column(row.try_get("bundle")?),
                    issuer: parse_column("issuer", row.try_get("issuer")?)?,
                };
                Ok((row.try_get("node")?, trust))
            })
            .collect()
    }

    /// What an authority signed.
    pub async fn signed_by(&self, issuer: &SpkiHash, now: Timestamp) -> Result<Signed, StoreError> {
        let mut connection = self.read().await?;
        let row =
            sqlx::query("SELECT COUNT(*) AS live FROM issued WHERE issuer = $1 AND not_after > $2")
                .bind(issuer.to_string())
                .bind(to_column(now))
                .fetch_one(&mut *connection)
                .await?;
        let live = number_from_column(row.try_get("live")?);
        let rows = sqlx::query(
            "SELECT DISTINCT subject FROM issued AS one WHERE issuer = $1 AND not_after > $2 \
             AND kind <> 'node' AND kind <> 'cloud' AND NOT EXISTS (SELECT 1 FROM issued AS other \
             WHERE other.subject = one.subject AND other.issuer <> one.issuer AND other.issued >= one.issued)",
        )
        .bind(issuer.to_string())
        .bind(to_column(now))
        .fetch_all(&mut *connection)
        .await?;
        let mut relying = rows
            .iter()
            .map(|row| Ok(row.try_get("subject")?))
            .collect::<Result<Vec<String>, StoreError>>()?;
        relying.sort();
        Ok(Signed { live, relying })
    }

    /// Who signed the newest certificate of this key.
    pub async fn issuer_of_key(&self, key: &SpkiHash) -> Result<Option<SpkiHash>, StoreError> {
        let row = sqlx::query(
            "SELECT issuer FROM issued WHERE key_hash = $1 ORDER BY issued DESC LIMIT 1",
        )
        .bind(key.to_string())
        .fetch_optional(&mut *self.read().await?)
        .await?;
        row.map(|row| parse_column("issuer", row.try_get("issuer")?))
            .transpose()
    }
}

impl Tx {
    /// Notes a certificate that is about to be given out.
    pub async fn note_issued(&mut self, issued: &Issued, now: Timestamp) -> Result<(), StoreError> {
        let leaf = &issued.leaf;
        sqlx::query(
            "INSERT INTO issued (serial, subject, kind, key_hash, issuer, issued, not_after) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&leaf.serial)
        .bind(leaf.id.to_string())
        .bind(leaf.id.kind().as_str())
        .bind(leaf.key.spki_hash().to_string())
        .bind(issued.issuer.to_string())
        .bind(to_column(now))
        .bind(to_column(leaf.not_after))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Notes what a node was seen with.
    pub async fn put_node_trust(
        &mut self,
        node: &str,
        trust: &NodeTrust,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO node_trust (node, bundle, issuer, updated) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (node) DO UPDATE SET bundle = excluded.bundle, issuer = excluded.issuer, \
             updated = excluded.updated",
        )
        .bind(node)
        .bind(number_to_column(trust.bundle))
        .bind(trust.issuer.to_string())
        .bind(to_column(now))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Forgets certificates that have ended; the audit log keeps what was issued.
    pub async fn prune_issued(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM issued WHERE not_after <= $1")
            .bind(to_column(now))
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use edgeward_identity::{Kind, Signer, SoftwareKey, SpiffeId, SvidLeaf, TrustDomain};

    use super::*;
    use crate::store_tests;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn made(kind: Kind, name: &str, issuer: u8, seconds: u64) -> Issued {
        let domain = TrustDomain::new("plant.example").unwrap();
        let key = SoftwareKey::generate().unwrap();
        Issued {
            chain: Vec::new(),
            issuer: SpkiHash::from_bytes([issuer; 32]),
            leaf: SvidLeaf {
                id: SpiffeId::new(&domain, kind, name).unwrap(),
                key: *key.public_key(),
                serial: key.public_key().spki_hash().to_string(),
                not_before: NOW,
                not_after: NOW.plus(Duration::from_secs(seconds)),
            },
        }
    }

    store_tests! {
        async fn an_authority_is_relied_on_until_everybody_has_a_newer_certificate(store) {
            let (old, new) = (SpkiHash::from_bytes([1; 32]), SpkiHash::from_bytes([2; 32]));
            let admin = made(Kind::Operator, "admin", 1, 100);
            let mut tx = store.begin("test").await.unwrap();
            tx.note_issued(&admin, NOW).await.unwrap();
            tx.note_issued(&made(Kind::Node, "a", 1, 100), NOW).await.unwrap();
            tx.note_issued(&made(Kind::Cloud, "c", 1, 10), NOW).await.unwrap();
            tx.commit().await.unwrap();
            let signed = store.signed_by(&old, NOW).await.unwrap();
            assert_eq!(signed.live, 3);
            assert_eq!(signed.relying, ["spiffe://plant.example/operator/admin"]);
            assert_eq!(store.issuer_of_key(&admin.leaf.key.spki_hash()).await.unwrap(), Some(old));
            let later = NOW.plus(Duration::from_secs(20));
            let mut tx = store.begin("test").await.unwrap();
            tx.note_issued(&made(Kind::Operator, "admin", 2, 100), later).await.unwrap();
            tx.commit().await.unwrap();
            let signed = store.signed_by(&old, later).await.unwrap();
            assert_eq!((signed.live, signed.relying.len()), (2, 0));
            assert_eq!(store.signed_by(&new, later).await.unwrap().relying.len(), 1);
            let mut tx = store.begin("test").await.unwrap();
            assert_eq!(tx.prune_issued(later).await.unwrap(), 1);
            assert!(matches!(tx.note_issued(&admin, later).await, Err(StoreError::Exists)));
        }

        async fn what_a_node_was_seen_with_is_its_newest(store) {
            let trust = |bundle, issuer| NodeTrust { bundle, issuer: SpkiHash::from_bytes([issuer; 32]) };
            for (bundle, issuer) in [(1, 1), (2, 1), (2, 3)] {
                let mut tx = store.begin("test").await.unwrap();
                tx.put_node_trust("a", &trust(bundle, issuer), NOW).await.unwrap();
                tx.commit().await.unwrap();
            }
            let all = store.node_trust().await.unwrap();
            assert_eq!(all, BTreeMap::from([("a".to_owned(), trust(2, 3))]));
        }
    }
}
