//! What nodes' journals say of broken glass: noted beside the grant, and loud.

use edgeward_audit::SealedRecord;
use edgeward_audit::event::EventKind;

use crate::store::{StoreError, Tx};

/// Notes it in the transaction that stores the records. Returns what is to be shouted once they are durable.
pub(super) async fn note(tx: &mut Tx, records: &[SealedRecord]) -> Result<Vec<String>, StoreError> {
    let mut loud = Vec::new();
    for record in records.iter().filter(|record| !record.is_claimed()) {
        let record = record.record();
        let event = &record.event;
        let opened = match event.kind {
            EventKind::GlassOpened => true,
            EventKind::GlassClosed => false,
            _ => continue,
        };
        let number = event
            .detail
            .get("number")
            .and_then(|text| text.parse().ok());
        let Some(number) = number else { continue };
        let node = record.node.name();
        if !opened {
            tx.note_glass_closed((node, number), event.time).await?;
            continue;
        }
        let said = |key| event.detail.get(key).unwrap_or("nobody");
        let known = tx
            .note_glass_opened((node, number), said("by"), event.time)
            .await?;
        let unknown = if known {
            ""
        } else {
            " WITH A GRANT THAT THIS CLOUD DID NOT ISSUE"
        };
        loud.push(format!(
            "node {node}, grant {number}: {} by {}{unknown}",
            said("rules"),
            said("by")
        ));
    }
    Ok(loud)
}

pub(super) fn shout(loud: &[String]) {
    for what in loud {
        metrics::counter!("edgeward_break_glass_opened_total").increment(1);
        tracing::error!(alert = "break-glass", %what, "THE GLASS WAS BROKEN: edgeward break-glass list");
    }
}
