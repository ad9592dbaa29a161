//! Nodes and the certificates issued to them.

use std::net::Ipv4Addr;

use edgeward_identity::{SpkiHash, Tier, Timestamp};
use edgeward_policy::Labels;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::{
    Store, StoreError, Tx, json_column, number_from_column, parse_column, time_from_column,
    to_column, to_json_column,
};

/// Most nodes of one cloud.
pub const MAX_NODES: i64 = 100_000;
/// First overlay address: 100.64.0.0/10 (RFC 6598) without its very first.
const FIRST_V4: u32 = u32::from_be_bytes([100, 64, 0, 0]);
/// Addresses in a /10.
const V4_ADDRESSES: i64 = 1 << 22;

/// An operator's word about a node, beside what its evidence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    /// Waits for approval.
    Pending,
    Active,
    Quarantined,
    Removed,
}

/// What an enrolled identity stands on: `ek:<sha-256>`, or `key:<sha-256 of the SVID's SPKI>` without a TPM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RootId(String);

/// A node as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    pub name: String,
    pub status: NodeStatus,
    pub tier: Tier,
    pub root: RootId,
    /// `TPMT_PUBLIC` of the attestation key; empty in tier `software`.
    pub ak: Vec<u8>,
    pub labels: Labels,
    pub v4: Ipv4Addr,
    pub token: String,
    pub enrolled: Timestamp,
    pub updated: Timestamp,
}

/// A certificate of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvidRow {
    pub serial: String,
    pub node: String,
    pub key_hash: SpkiHash,
    /// `TPMT_PUBLIC` of the key, or its point in tier `software`.
    pub public: Vec<u8>,
    pub issued: Timestamp,
    pub not_after: Timestamp,
    /// Whether the node is known to hold it.
    pub acknowledged: bool,
}

/// The text is no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a status (pending, active, quarantined, removed)")]
pub struct UnknownStatus;

const COLUMNS: &str = "name, status, tier, root, ak, labels, v4, token, enrolled, updated";
const SVID_COLUMNS: &str = "serial, node, key_hash, public, issued, not_after, acknowledged";

impl NodeStatus {
    pub const ALL: [Self; 4] = [
        Self::Pending,
        Self::Active,
        Self::Quarantined,
        Self::Removed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Quarantined => "quarantined",
            Self::Removed => "removed",
        }
    }
}

impl std::str::FromStr for NodeStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(UnknownStatus)
    }
}

impl RootId {
    /// Of a TPM, by the SHA-256 of its EK's public area in hex.
    pub fn of_ek(digest: &str) -> Self {
        Self(format!("ek:{digest}"))
    }

    /// Of a machine without a TPM.
    pub fn of_key(key: &SpkiHash) -> Self {
        Self(format!("key:{key}"))
    }

    /// The EK's digest in hex, if it is a TPM's.
    pub fn ek(&self) -> Option<&str> {
        self.0.strip_prefix("ek:")
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Store {
    pub async fn node(&self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        node(&mut *self.read().await?, name).await
    }

    /// Every node, removed ones too, by name.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let sql = AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM nodes ORDER BY name LIMIT $1"
        ));
        sqlx::query(sql)
            .bind(MAX_NODES)
            .fetch_all(&mut *self.read().await?)
            .await?
            .iter()
            .map(node_of)
            .collect()
    }

    /// The newest certificate of a node that has not ended.
    pub async fn newest_svid(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<SvidRow>, StoreError> {
        let sql = AssertSqlSafe(format!(
            "SELECT {SVID_COLUMNS} FROM svids WHERE node = $1 AND not_after > $2 ORDER BY issued DESC LIMIT 1"
        ));
        sqlx::query(sql)
            .bind(name)
            .bind(to_column(now))
            .fetch_optional(&mut *self.read().await?)
            .await?
            .map(|row| svid_of(&row))
            .transpose()
    }

    /// Keys of a node's certificates that have not ended, with the last end of each, newest first.
    pub async fn live_keys(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<Vec<(SpkiHash, Timestamp)>, StoreError> {
        let rows = sqlx::query(
            "SELECT key_hash, MAX(not_after) AS not_after, MAX(issued) AS issued FROM svids \
             WHERE node = $1 AND not_after > $2 GROUP BY key_hash ORDER BY MAX(issued) DESC",
        )
        .bind(name)
        .bind(to_column(now))
        .fetch_all(&mut *self.read().await?)
        .await?;
        rows.iter()
            .map(|row| {
                let key = parse_column("key hash", row.try_get("key_hash")?)?;
                Ok((key, time_from_column(row.try_get("not_after")?)))
            })
            .collect()
    }

    /// A certificate of this node with this key that has not ended.
    pub async fn svid_with_key(
        &self,
        name: &str,
        key: &SpkiHash,
        now: Timestamp,
    ) -> Result<Option<SvidRow>, StoreError> {
        let sql = AssertSqlSafe(format!(
            "SELECT {SVID_COLUMNS} FROM svids WHERE node = $1 AND key_hash = $2 AND not_after > $3 \
             ORDER BY issued DESC LIMIT 1"
        ));
        sqlx::query(sql)
            .bind(name)
            .bind(key.to_string())
            .bind(to_column(now))
            .fetch_optional(&mut *self.read().await?)
            .await?
            .map(|row| svid_of(&row))
            .transpose()
    }
}

impl Tx {
    pub async fn node(&mut self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        node(self.connection(), name).await
    }

    /// The node that stands on this root, removed ones left out.
    pub async fn node_of_root(&mut self, root: &RootId) -> Result<Option<NodeRow>, StoreError> {
        let sql = AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM nodes WHERE root = $1 AND status <> 'removed'"
        ));
        sqlx::query(sql)
            .bind(root.as_str())
            .fetch_optional(self.connection())
            .await?
            .map(|row| node_of(&row))
            .transpose()
    }

    /// Writes a node over whatever has its name.
    pub async fn put_node(&mut self, node: &NodeRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO nodes (name, status, tier, root, ak, labels, v4, token, enrolled, updated) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (name) DO UPDATE SET \
             status = excluded.status, tier = excluded.tier, root = excluded.root, ak = excluded.ak, \
             labels = excluded.labels, v4 = excluded.v4, token = excluded.token, enrolled = excluded.enrolled, \
             updated = excluded.updated",
        )
        .bind(&node.name)
        .bind(node.status.as_str())
        .bind(node.tier.as_str())
        .bind(node.root.as_str())
        .bind(hex::encode(&node.ak))
        .bind(to_json_column(&node.labels))
        .bind(i64::from(u32::from(node.v4).saturating_sub(FIRST_V4)))
        .bind(&node.token)
        .bind(to_column(node.enrolled))
        .bind(to_column(node.updated))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// An overlay address that no node ever had. `None` when all are given out.
    pub async fn free_v4(&mut self) -> Result<Option<Ipv4Addr>, StoreError> {
        let row = sqlx::query("SELECT COALESCE(MAX(v4), 0) AS v4 FROM nodes")
            .fetch_one(self.connection())
            .await?;
        let next = row.try_get::<i64, _>("v4")? + 1;
        // The last is left out, too: some stacks take it for a broadcast address.
        Ok((next < V4_ADDRESSES - 1).then(|| v4_of(next)))
    }

    /// How many nodes hold a name now.
    pub async fn count_nodes(&mut self) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS n FROM nodes WHERE status <> 'removed'")
            .fetch_one(self.connection())
            .await?;
        Ok(row.try_get("n")?)
    }

    pub async fn insert_svid(&mut self, svid: &SvidRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO svids (serial, node, key_hash, public, issued, not_after, acknowledged) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&svid.serial)
        .bind(&svid.node)
        .bind(svid.key_hash.to_string())
        .bind(hex::encode(&svid.public))
        .bind(to_column(svid.issued))
        .bind(to_column(svid.not_after))
        .bind(i64::from(svid.acknowledged))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Every certificate of a node that has not ended, newest first.
    pub async fn svids(&mut self, name: &str, now: Timestamp) -> Result<Vec<SvidRow>, StoreError> {
        let sql = AssertSqlSafe(format!(
            "SELECT {SVID_COLUMNS} FROM svids WHERE node = $1 AND not_after > $2 ORDER BY issued DESC"
        ));
        sqlx::query(sql)
            .bind(name)
            .bind(to_column(now))
            .fetch_all(self.connection())
            .await?
            .iter()
            .map(svid_of)
            .collect()
    }

    /// The node holds its certificates with this key.
    pub async fn acknowledge_svid(&mut self, name: &str, key: &SpkiHash) -> Result<(), StoreError> {
        sqlx::query("UPDATE svids SET acknowledged = 1 WHERE node = $1 AND key_hash = $2")
            .bind(name)
            .bind(key.to_string())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Forgets certificates that have ended.
    pub async fn prune_svids(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM svids WHERE not_after <= $1")
            .bind(to_column(now))
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected())
    }
}

async fn node(connection: &mut AnyConnection, name: &str) -> Result<Option<NodeRow>, StoreError> {
    let sql = AssertSqlSafe(format!("SELECT {COLUMNS} FROM nodes WHERE name = $1"));
    sqlx::query(sql)
        .bind(name)
        .fetch_optional(connection)
        .await?
        .map(|row| node_of(&row))
        .transpose()
}

fn node_of(row: &AnyRow) -> Result<NodeRow, StoreError> {
    Ok(NodeRow {
        name: row.try_get("name")?,
        status: parse_column("node status", row.try_get("status")?)?,
        tier: parse_column("tier", row.try_get("tier")?)?,
        root: RootId(row.try_get("root")?),
        ak: bytes_column("ak", row.try_get("ak")?)?,
        labels: json_column("labels", row.try_get("labels")?)?,
        v4: v4_of(row.try_get("v4")?),
        token: row.try_get("token")?,
        enrolled: time_from_column(row.try_get("enrolled")?),
        updated: time_from_column(row.try_get("updated")?),
    })
}

fn svid_of(row: &AnyRow) -> Result<SvidRow, StoreError> {
    Ok(SvidRow {
        serial: row.try_get("serial")?,
        node: row.try_get("node")?,
        key_hash: parse_column("key hash", row.try_get("key_hash")?)?,
        public: bytes_column("svid key", row.try_get("public")?)?,
        issued: time_from_column(row.try_get("issued")?),
        not_after: time_from_column(row.try_get("not_after")?),
        acknowledged: row.try_get::<i64, _>("acknowledged")? != 0,
    })
}

/// Bytes as the store keeps them: lower-case hex.
pub(super) fn bytes_column(what: &'static str, text: &str) -> Result<Vec<u8>, StoreError> {
    hex::decode(text).map_err(|_| StoreError::Unreadable {
        what,
        value: text.to_owned(),
    })
}

fn v4_of(offset: i64) -> Ipv4Addr {
    let offset = u32::try_from(number_from_column(offset)).unwrap_or(u32::MAX);
    Ipv4Addr::from(FIRST_V4.saturating_add(offset))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store_tests;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn a_node(name: &str, root: &str, v4: Ipv4Addr) -> NodeRow {
        NodeRow {
            name: name.to_owned(),
            status: NodeStatus::Active,
            tier: Tier::Virtual,
            root: RootId::of_ek(root),
            ak: vec![1, 2, 3],
            labels: Labels::from([("site".to_owned(), "suzhou".to_owned())]),
            v4,
            token: "t1".to_owned(),
            enrolled: NOW,
            updated: NOW,
        }
    }

    store_tests! {
        async fn a_node_is_read_back_by_name_and_by_root_until_it_is_removed(store) {
            let mut tx = store.begin("test").await.unwrap();
            let v4 = tx.free_v4().await.unwrap().unwrap();
            assert_eq!(v4, Ipv4Addr::new(100, 64, 0, 1));
            let mut a = a_node("a", "aa", v4);
            tx.put_node(&a).await.unwrap();
            assert_eq!(tx.node("a").await.unwrap().as_ref(), Some(&a));
            assert_eq!(tx.node_of_root(&a.root).await.unwrap().as_ref(), Some(&a));
            assert_eq!(tx.free_v4().await.unwrap(), Some(Ipv4Addr::new(100, 64, 0, 2)));
            a.status = NodeStatus::Removed;
            tx.put_node(&a).await.unwrap();
            assert_eq!(tx.node_of_root(&a.root).await.unwrap(), None);
            assert_eq!(tx.count_nodes().await.unwrap(), 0);
            tx.commit().await.unwrap();
            assert_eq!(store.nodes().await.unwrap(), [a]);
        }

        async fn two_nodes_never_share_an_address(store) {
            let mut tx = store.begin("test").await.unwrap();
            let v4 = Ipv4Addr::new(100, 64, 0, 1);
            tx.put_node(&a_node("a", "aa", v4)).await.unwrap();
            let refused = tx.put_node(&a_node("b", "bb", v4)).await;
            assert!(matches!(refused, Err(StoreError::Exists)));
        }

        async fn certificates_are_listed_until_they_end(store) {
            let svid = |serial: &str, key: u8, issued: u64| SvidRow {
                serial: serial.to_owned(),
                node: "a".to_owned(),
                key_hash: SpkiHash::from_bytes([key; 32]),
                public: vec![key],
                issued: NOW.plus(Duration::from_secs(issued)),
                not_after: NOW.plus(Duration::from_secs(issued + 100)),
                acknowledged: false,
            };
            let mut tx = store.begin("test").await.unwrap();
            tx.insert_svid(&svid("01", 1, 0)).await.unwrap();
            tx.insert_svid(&svid("02", 2, 50)).await.unwrap();
            assert!(matches!(tx.insert_svid(&svid("02", 3, 0)).await, Err(StoreError::Exists)));
            drop(tx);
            let mut tx = store.begin("test").await.unwrap();
            tx.insert_svid(&svid("01", 1, 0)).await.unwrap();
            tx.insert_svid(&svid("02", 2, 50)).await.unwrap();
            tx.acknowledge_svid("a", &SpkiHash::from_bytes([2; 32])).await.unwrap();
            assert_eq!(tx.svids("a", NOW).await.unwrap().len(), 2);
            tx.commit().await.unwrap();
            let newest = store.newest_svid("a", NOW).await.unwrap().unwrap();
            assert_eq!((newest.serial.as_str(), newest.acknowledged), ("02", true));
            let late = NOW.plus(Duration::from_secs(120));
            let mut tx = store.begin("test").await.unwrap();
            assert_eq!(tx.svids("a", late).await.unwrap().len(), 1);
            assert_eq!(tx.prune_svids(late).await.unwrap(), 1);
            drop(tx);
            let first = SpkiHash::from_bytes([1; 32]);
            assert!(store.svid_with_key("a", &first, NOW).await.unwrap().is_some());
            assert!(store.svid_with_key("a", &first, late).await.unwrap().is_none());
        }
    }
}
