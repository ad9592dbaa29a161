//! The audit log: find events, follow them, ask whether the record is complete. Every read is itself an event.

use edgeward_audit::event::{Event, EventKind, Subject};

use super::problem::Problem;
use super::{Api, Cloud};
use crate::access::Principal;

pub(super) mod coverage;
pub(super) mod events;
mod follow;
pub(super) mod proof;
pub(super) mod stats;

/// Records that `what` was read; `pairs` say which part of it.
async fn note_read(
    api: &Api,
    caller: &Principal,
    what: &str,
    pairs: &[(String, String)],
) -> Result<(), Problem> {
    let filter: Vec<String> = pairs
        .iter()
        .filter(|(key, _)| key != "cursor")
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut event = Event::new(api.now(), caller.actor().clone(), EventKind::AuditRead)
        .subject(Subject::name(what))
        .allowed();
    if !filter.is_empty() {
        event = event.detail("filter", filter.join("&"));
    }
    api.audit.record(event).await?;
    Ok(())
}
