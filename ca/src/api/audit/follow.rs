//! Answers that stay open for what comes, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use edgeward_audit::query::Query;
use futures::Stream;

use super::super::problem::Problem;
use super::events::view_within;
use super::{Api, note_read};
use crate::access::Principal;
use crate::store::audit::{MAX_EXAMINED, MAX_PAGE_BYTES, PageLimits, StoredEvent};

/// A silent follower is told this often that the connection lives, and is then looked at again.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that another cloud appended show up this late at most.
const POLL: Duration = Duration::from_secs(1);
/// What a follower reads at a time.
const LIMITS: PageLimits = PageLimits {
    events: 100,
    bytes: MAX_PAGE_BYTES,
    examined: MAX_EXAMINED,
};

pub(super) async fn follow(
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
    note_read(&api, &caller, "audit", pairs).await?;
    let after = match (query.after, query.filter.from) {
        (None, None) => api.store.last_leaf().await?,
        (after, _) => after,
    };
    let follower = Follower {
        appended: api.store.appended(),
        looked: after,
        pending: VecDeque::new(),
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
    /// Everything up to here was looked at.
    looked: Option<u64>,
    pending: VecDeque<StoredEvent>,
    caught_up: bool,
    appended: tokio::sync::watch::Receiver<u64>,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Follower {
    /// The next thing to send; none ends the answer: the caller lost its standing, or the store failed.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                let id = self.query.cursor_after(event.index, &self.api.cursor_key);
                return sse::Event::default()
                    .event("event")
                    .id(id)
                    .json_data(view_within(event, &self.query))
                    .ok();
            }
            // Marked before the look, so that an append in between is not missed.
            self.appended.mark_unchanged();
            if !self.api.guard().still_stands(&self.caller).await {
                return None;
            }
            let page = self
                .api
                .store
                .find(&self.query.filter, self.looked, LIMITS)
                .await
                .ok()?;
            self.looked = page.reached;
            if !page.events.is_empty() {
                self.pending = page.events.into();
            }
            if page.more || !self.pending.is_empty() {
                continue;
            }
            if !self.caught_up {
                self.caught_up = true;
                // The id comes last: a reader that takes an id for the beginning of an event looks only at what follows.
                let event = sse::Event::default().event("caught-up").data("{}");
                return Some(match self.looked {
                    Some(looked) => event.id(self.query.cursor_after(looked, &self.api.cursor_key)),
                    None => event,
                });
            }
            let changed = tokio::time::timeout(POLL, self.appended.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return None;
            }
        }
    }
}
