//! Which site an event belongs to: what one erasure takes.

use std::collections::BTreeMap;

use edgeward_audit::record::{Record, SealedRecord};
use edgeward_identity::{Kind, SpiffeId};
use sqlx::{AnyConnection, Row};

use crate::keys::sites::Site;
use crate::store::{StoreError, json_column};

/// Sites of nodes, each looked up once.
#[derive(Debug, Default)]
pub(super) struct Sites(BTreeMap<String, Site>);

impl Sites {
    /// The site of each record, in their order: that of its keeper; of what a cloud recorded, that of the node that it
    /// concerns; of what concerns none, the cloud's own.
    pub(super) async fn of_all(
        &mut self,
        connection: &mut AnyConnection,
        records: &[SealedRecord],
    ) -> Result<Vec<Site>, StoreError> {
        let mut sites = Vec::with_capacity(records.len());
        for sealed in records {
            sites.push(self.of(connection, sealed.record()).await?);
        }
        Ok(sites)
    }

    async fn of(
        &mut self,
        connection: &mut AnyConnection,
        record: &Record,
    ) -> Result<Site, StoreError> {
        let Some(node) = concerned(record) else {
            return Ok(Site::cloud());
        };
        if let Some(known) = self.0.get(node.name()) {
            return Ok(known.clone());
        }
        let site = site_of(connection, node).await?;
        self.0.insert(node.name().to_owned(), site.clone());
        Ok(site)
    }
}

/// The node whose site an event belongs to: who keeps it; else whom it is about; else who acted.
fn concerned(record: &Record) -> Option<&SpiffeId> {
    let subject = record.event.subject.as_ref();
    let all = [
        Some(&record.node),
        subject.and_then(|subject| subject.identity()),
        record.event.actor.identity(),
    ];
    all.into_iter().flatten().find(|id| id.kind() == Kind::Node)
}

async fn site_of(connection: &mut AnyConnection, node: &SpiffeId) -> Result<Site, StoreError> {
    let row = sqlx::query("SELECT labels FROM nodes WHERE name = $1")
        .bind(node.name().to_owned())
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else {
        return Ok(Site::rest());
    };
    let labels: BTreeMap<String, String> = json_column("labels", row.try_get("labels")?)?;
    Ok(Site::of_label(labels.get("site").map(String::as_str)))
}
