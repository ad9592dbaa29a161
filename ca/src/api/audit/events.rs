//! Finding events by filters, page by page.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use edgeward_audit::query::Query;

use super::super::extract::{Named, Pairs};
use super::super::problem::Problem;
use super::super::views::{EventPage, EventView, ProblemView};
use super::follow::follow;
use super::{Api, Cloud, note_read};
use crate::access::Principal;
use crate::store::StoreError;
use crate::store::audit::{MAX_EXAMINED, PageLimits, StoredEvent};

/// Find events, oldest first. A page may be short, even empty, while `more` is true: go on with its cursor. With `follow=true` the answer is server-sent events: `event` for each match, `caught-up`
/// when all that exist were sent; each has an id, and `Last-Event-ID` resumes after it; without `from` and `cursor` it begins with what comes. Every
/// read is itself an event.
#[utoipa::path(get, path = "/api/v1/audit/events", tag = "audit", operation_id = "audit_events",
    params(
        ("from" = Option<String>, Query, description = "Not before (RFC 3339)"),
        ("to" = Option<String>, Query, description = "Before (RFC 3339)"),
        ("node" = Option<String>, Query, description = "Recorded by this node, or about it: name or SPIFFE ID"),
        ("actor" = Option<String>, Query, description = "spiffe://…, apikey:<name>, cloud, anonymous"),
        ("type" = Option<String>, Query, description = "node.quarantined, or node.* for a family"),
        ("verdict" = Option<String>, Query, description = "allow, deny or none"),
        ("rule" = Option<String>, Query, description = "Id of the policy rule that decided"),
        ("serial" = Option<String>, Query, description = "Serial number of a certificate, lower-case hex: how it was issued"),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 100 if absent"),
        ("max_bytes" = Option<u32>, Query, description = "Most bytes of the records in a page: 1024 to 1048576, which is also the default. A longer event comes alone, without its detail, and names where it is whole"),
        ("records" = Option<bool>, Query, description = "Give each record as it was written, too: what is hashed"),
        ("cursor" = Option<String>, Query, description = "Go on where a page with the same filters ended"),
        ("follow" = Option<bool>, Query, description = "Keep the answer open for what comes"),
    ),
    responses(
        (status = 200, content((EventPage = "application/json"), (String = "text/event-stream"))),
        (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(crate) async fn events(
    State(api): Cloud,
    caller: Principal,
    headers: HeaderMap,
    Pairs(mut pairs): Pairs,
) -> Result<Response, Problem> {
    if let Some(last) = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
    {
        pairs.retain(|(key, _)| key != "cursor");
        pairs.push(("cursor".to_owned(), last.to_owned()));
    }
    let query = Query::parse(
        pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
        api.keys.trust_domain(),
        &api.cursor_key,
    )
    .map_err(|error| Problem::bad_request(error.code(), error.to_string()))?;
    if query.follow {
        return follow(api, caller, query, &pairs).await;
    }
    let limits = PageLimits {
        events: usize::try_from(query.limit).unwrap_or(1),
        bytes: usize::try_from(query.max_bytes).unwrap_or(1),
        examined: MAX_EXAMINED,
    };
    let page = api.store.find(&query.filter, query.after, limits).await?;
    note_read(&api, &caller, "audit", &pairs).await?;
    Ok(Json(EventPage {
        cursor: page
            .reached
            .map(|index| query.cursor_after(index, &api.cursor_key)),
        more: page.more,
        items: page
            .events
            .into_iter()
            .map(|event| view_within(event, &query))
            .collect(),
    })
    .into_response())
}

/// Show one event, with its record as it was written.
#[utoipa::path(get, path = "/api/v1/audit/events/{index}", tag = "audit", operation_id = "audit_event",
    params(("index" = u64, Path, description = "Its place in the log")),
    responses((status = 200, body = EventView), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(crate) async fn event(
    State(api): Cloud,
    caller: Principal,
    Named(index): Named<String>,
) -> Result<Json<EventView>, Problem> {
    let event = match stored_at(&api, &index).await? {
        Found::Event(event) => *event,
        Found::Erased(index) => return Err(StoreError::Erased(index).into()),
    };
    note_read(&api, &caller, &format!("audit:{}", event.index), &[]).await?;
    let record = event.record.clone();
    Ok(Json(EventView {
        record: Some(record),
        ..view(event)
    }))
}

/// What stands at a place of the log.
pub(super) enum Found {
    Event(Box<StoredEvent>),
    /// Only its hash is left.
    Erased(u64),
}

/// The event at the place that a path names.
pub(super) async fn stored_at(api: &Api, index: &str) -> Result<Found, Problem> {
    let index: u64 = index
        .parse()
        .map_err(|_| Problem::bad_request("index_malformed", "not a place in the log"))?;
    match api.store.event_at(index).await {
        Ok(Some(event)) => Ok(Found::Event(Box::new(event))),
        Ok(None) => Err(Problem::not_found(format!(
            "no event at this place: {index}"
        ))),
        Err(StoreError::Erased(index)) => Ok(Found::Erased(index)),
        Err(fault) => Err(fault.into()),
    }
}

/// The event in a page: cut where it is longer than the page may be, so that paging never sticks at it.
pub(super) fn view_within(stored: StoredEvent, query: &Query) -> EventView {
    let is_oversize = stored.record.len() > usize::try_from(query.max_bytes).unwrap_or(usize::MAX);
    let record = (query.records && !is_oversize).then(|| stored.record.clone());
    let mut view = view(stored);
    view.record = record;
    if is_oversize {
        view.truncated = Some(format!("/api/v1/audit/events/{}", view.index));
        view.detail = BTreeMap::new();
    }
    view
}

fn view(stored: StoredEvent) -> EventView {
    let event = stored.event;
    EventView {
        index: stored.index,
        time: event.time.into(),
        kind: event.kind.name().to_owned(),
        actor: event.actor.to_string(),
        subject: event.subject.map(|subject| subject.to_string()),
        verdict: event.verdict.to_string(),
        rule: event.rule.map(|rule| rule.to_string()),
        code: event.code.map(|code| code.to_string()),
        detail: event
            .detail
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect::<BTreeMap<_, _>>(),
        node: stored.node.to_string(),
        boot: stored.boot.to_string(),
        seq: stored.seq,
        hash: stored.hash.to_string(),
        received: stored.received.into(),
        claimed: stored.claimed,
        record: None,
        truncated: None,
    }
}
