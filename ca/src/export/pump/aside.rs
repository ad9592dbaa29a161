//! Events that a receiver refuses, put aside. As long as there is no room for one more the export fails: it goes on asking,
//! renews its lease, and what somebody wants to be given once more is given, which makes room.

use edgeward_audit::event::EventKind;
use tokio_util::sync::CancellationToken;

use super::{Left, Pump, STORE_PAUSE};
use crate::audit::RecordFault;
use crate::export::sink::NotGiven;
use crate::store::exports::{ExportRow, MAX_REFUSED, Refused};

impl Pump {
    /// Why not one event more can be put aside.
    pub(super) async fn no_room(&self) -> Option<NotGiven> {
        let waiting = self.suspects.len() as u64;
        match self.store.count_refused(&self.export.name).await {
            Ok(kept) if kept + waiting < u64::from(MAX_REFUSED) => None,
            Ok(_) => Some(full()),
            Err(error) => Some(NotGiven::down(error.to_string())),
        }
    }

    /// Keeps what was refused, and says so in the log. Or why it cannot be.
    pub(super) async fn put_aside(
        &mut self,
        row: &mut ExportRow,
        refused: Vec<(Refused, bool)>,
        stop: &CancellationToken,
    ) -> Result<Option<NotGiven>, Left> {
        for (refused, quiet) in refused {
            loop {
                match self.keep_refused(&refused, quiet).await {
                    Ok(true) => break,
                    Ok(false) => return Ok(Some(full())),
                    Err(error) => {
                        tracing::warn!(export = self.export.name, %error, "a refused event cannot be put aside");
                        self.wait(row, STORE_PAUSE, stop).await?;
                    }
                }
            }
            row.refused += refused.count;
            tracing::warn!(
                export = self.export.name,
                first = refused.first,
                last = refused.last,
                count = refused.count,
                reason = refused.reason,
                "the receiver refuses events"
            );
            metrics::counter!("edgeward_audit_export_refused_total", "export" => self.export.name.clone())
                .increment(refused.count);
        }
        Ok(None)
    }

    /// False: there is no room.
    async fn keep_refused(&self, refused: &Refused, quiet: bool) -> Result<bool, RecordFault> {
        let mut tx = self.store.begin("export.refused").await?;
        if !tx.put_refused(&self.export.name, refused).await? {
            return Ok(false);
        }
        if !quiet {
            let event = self
                .event(EventKind::ExportRefused)
                .detail("first", refused.first)
                .detail("last", refused.last)
                .detail("count", refused.count)
                .detail("reason", &refused.reason);
            self.audit.record_in(&mut tx, event).await?;
        }
        tx.commit().await?;
        Ok(true)
    }
}

fn full() -> NotGiven {
    NotGiven::down(format!(
        "too many refused events are kept: {MAX_REFUSED}; mend the receiver, and have them given again (edgeward audit exports retry)"
    ))
}
