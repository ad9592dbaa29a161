//! The audit log: find events, follow them, ask whether the record is complete.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use edgeward_audit::event::{Event, EventKind};
use edgeward_audit::query::{MAX_LIMIT, Query};
use edgeward_identity::{Kind, SpiffeId};
use futures::Stream;

use super::extract::Pairs;
use super::problem::Problem;
use super::views::{CoverageReport, CoverageView, EventPage, EventView, FaultView, ProblemView};
use super::{Api, Cloud};
use crate::access::Principal;
use crate::store::audit::{JournalFault, StoredEvent, StoredJournal};

/// Most journals in one coverage report.
const MAX_JOURNALS: u32 = 10_000;
/// A silent follower is told this often that the connection lives, and is then looked at again.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that another cloud appended show up this late at most.
const POLL: Duration = Duration::from_secs(1);

/// Find events, oldest first. With `follow=true` the answer is server-sent events: `event` for each match, `caught-up`
/// when all that exist were sent; `Last-Event-ID` resumes; without `from` and `cursor` it begins with what comes. Every
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
        ("cursor" = Option<String>, Query, description = "Go on where a page with the same filters ended"),
        ("follow" = Option<bool>, Query, description = "Keep the answer open for what comes"),
    ),
    responses(
        (status = 200, content((EventPage = "application/json"), (String = "text/event-stream"))),
        (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn events(
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
    let (found, more) = api
        .store
        .events(&query.filter, query.after, query.limit)
        .await?;
    note_read(&api, &caller, &pairs).await?;
    let after = found.last().map(|event| event.index).or(query.after);
    Ok(Json(EventPage {
        cursor: after.map(|index| query.cursor_after(index, &api.cursor_key)),
        more,
        items: found.into_iter().map(view).collect(),
    })
    .into_response())
}

/// Ask how complete the record is: for each boot of each node the range without gaps, and what is wrong.
#[utoipa::path(get, path = "/api/v1/audit/coverage", tag = "audit", operation_id = "audit_coverage",
    params(("node" = Option<String>, Query, description = "Name or SPIFFE ID")),
    responses((status = 200, body = CoverageReport), (status = "default", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn coverage(
    State(api): Cloud,
    caller: Principal,
    Pairs(pairs): Pairs,
) -> Result<Json<CoverageReport>, Problem> {
    let mut node = None;
    for (key, value) in &pairs {
        if key != "node" || node.is_some() {
            return Err(Problem::bad_request(
                "query_malformed",
                "only node may be given, once",
            ));
        }
        node = Some(keeper_of(&api, value)?);
    }
    let journals = api.store.journals(node.as_ref(), MAX_JOURNALS).await?;
    let faults = api
        .store
        .journal_faults(node.as_ref(), MAX_JOURNALS)
        .await?;
    note_read(&api, &caller, &pairs).await?;
    let complete = faults.iter().all(|fault| fault.resolved.is_some());
    let (known, unknown): (Vec<_>, Vec<_>) = faults.into_iter().partition(|fault| {
        journals
            .iter()
            .any(|journal| journal.node == fault.node && journal.boot == fault.boot)
    });
    Ok(Json(CoverageReport {
        complete,
        items: journals
            .into_iter()
            .map(|journal| journal_view(journal, &known))
            .collect(),
        unknown_boots: unknown.iter().map(fault_view).collect(),
    }))
}

async fn follow(
    api: Arc<Api>,
    caller: Principal,
    query: Query,
    pairs: &[(String, String)],
) -> Result<Response, Problem> {
    let place = api.followers.clone().try_acquire_owned().map_err(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_followers",
            "too many answers with follow=true are open",
        )
    })?;
    note_read(&api, &caller, pairs).await?;
    let after = match (query.after, query.filter.from) {
        (None, None) => api.store.last_leaf().await?,
        (after, _) => after,
    };
    let follower = Follower {
        appended: api.store.appended(),
        after,
        pending: std::collections::VecDeque::new(),
        caught_up: false,
        caller,
        api,
        query,
        _place: place,
    };
    let stream = futures::stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    Ok(sse(stream).into_response())
}

fn sse(
    stream: impl Stream<Item = Result<sse::Event, Infallible>> + Send + 'static,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>> + Send + 'static> {
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// One open answer with `follow=true`.
struct Follower {
    api: Arc<Api>,
    caller: Principal,
    query: Query,
    after: Option<u64>,
    pending: std::collections::VecDeque<StoredEvent>,
    caught_up: bool,
    appended: tokio::sync::watch::Receiver<u64>,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Follower {
    /// The next thing to send; none ends the answer: the caller lost its standing, or the store failed.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                self.after = Some(event.index);
                let id = self.query.cursor_after(event.index, &self.api.cursor_key);
                return sse::Event::default()
                    .event("event")
                    .id(id)
                    .json_data(view(event))
                    .ok();
            }
            // Marked before the look, so that an append in between is not missed.
            self.appended.mark_unchanged();
            if !self.api.guard().still_stands(&self.caller).await {
                return None;
            }
            let (found, _) = self
                .api
                .store
                .events(&self.query.filter, self.after, MAX_LIMIT.min(100))
                .await
                .ok()?;
            if !found.is_empty() {
                self.pending = found.into();
                continue;
            }
            if !self.caught_up {
                self.caught_up = true;
                return Some(sse::Event::default().event("caught-up").data("{}"));
            }
            let changed = tokio::time::timeout(POLL, self.appended.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return None;
            }
        }
    }
}

async fn note_read(
    api: &Api,
    caller: &Principal,
    pairs: &[(String, String)],
) -> Result<(), Problem> {
    let filter: Vec<String> = pairs
        .iter()
        .filter(|(key, _)| key != "cursor")
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let event = Event::new(api.now(), caller.actor().clone(), EventKind::AuditRead)
        .subject("audit")
        .allowed()
        .detail("filter", filter.join("&"));
    api.audit.record(event).await?;
    Ok(())
}

fn keeper_of(api: &Api, text: &str) -> Result<SpiffeId, Problem> {
    let id = match text.starts_with("spiffe:") {
        true => text.parse(),
        false => SpiffeId::new(api.keys.trust_domain(), Kind::Node, text),
    };
    id.map_err(|error| Problem::bad_request("query_node", error.to_string()))
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
    }
}

fn journal_view(journal: StoredJournal, faults: &[JournalFault]) -> CoverageView {
    CoverageView {
        faults: faults
            .iter()
            .filter(|fault| fault.node == journal.node && fault.boot == journal.boot)
            .map(fault_view)
            .collect(),
        node: journal.node.to_string(),
        boot: journal.boot.to_string(),
        last_seq: journal.last_seq,
        head: journal.head.to_string(),
        opened: journal.opened.into(),
        updated: journal.updated.into(),
    }
}

fn fault_view(fault: &JournalFault) -> FaultView {
    FaultView {
        boot: fault.boot.to_string(),
        kind: fault.kind.as_str().to_owned(),
        first_seq: fault.first_seq,
        last_seq: fault.last_seq,
        noticed: fault.noticed.into(),
        resolved: fault.resolved.map(Into::into),
    }
}
